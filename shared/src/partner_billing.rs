//! A contract under its lock: its terms are stored, its drafts computed, and invoices issued, in one transaction.
//!
//! Nothing is planned outside the lock. Lock order: the contract, then its credits in ascending order, then the counter of
//! the number.

use domain::money::Currency;
use domain::partner::contract::{Invalid, PaymentMethod};
use domain::partner::credit::{self, CreditReason};
use domain::partner::draft::{self, Billed, Draft, DraftKind, DraftReason, Drafts, Plan, Rules};
use domain::partner::pricing::{RatedLine, Usage};
use domain::partner::tax::{self, TaxGroup};
use domain::partner::terms::{Amendment, StoredContract};
use domain::stripe_objects::invoice::InvoiceStatus;
use futures_util::try_join;
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::config::{self, Environment};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::contract_changes::{self, Author};
use store::contracts::{self, Read};
use store::credits::{self, NewCredit};
use store::outbox::{self, NewMessage};
use store::partner_invoices::{self, NewInvoice};
use store::{contract_usage, invoiced_usage, waived_periods};
use tokio_postgres::GenericClient;
use utoipa::ToSchema;

/// Numbers asked for before giving up: other series and the predecessor may have given a few of ours.
const NUMBERS_TRIED: u32 = 100;
/// Stretches counted in one statement.
const WINDOWS_PER_READ: usize = 50;
/// Who writes what somebody else has written into a contract's columns.
const HOST: Author<'static> = Author {
    created_by: "host",
    reason: None,
    reviewed: false,
};

/// Why a contract cannot be billed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A member of its row is not valid.
    #[error("the contract is not valid: {field}: {expected}", field = .0.field, expected = .0)]
    Invalid(Invalid),
    /// It cannot be rated.
    #[error(transparent)]
    Draft(#[from] draft::Error),
    /// The database refused, or is away.
    #[error("the contract could not be read or written")]
    Store(#[from] store::Error),
}

impl From<domain::partner::cycle::Error> for Error {
    fn from(error: domain::partner::cycle::Error) -> Error {
        Error::Draft(error.into())
    }
}

/// How drafts are held back: `PARTNER_INVOICE_REVIEW_CAP_CENTS` (0 for none) and `PARTNER_INVOICE_CATCH_UP` (3).
///
/// # Errors
/// When one of them is no number.
pub fn rules(environment: &Environment) -> Result<Rules, config::Error> {
    let cap_cents: i64 = environment.parsed_or("PARTNER_INVOICE_REVIEW_CAP_CENTS", 0)?;
    Ok(Rules {
        cap_cents: Some(cap_cents).filter(|cap_cents| *cap_cents > 0),
        catch_up: environment.parsed_or("PARTNER_INVOICE_CATCH_UP", 3)?,
        reviewed: false,
    })
}

/// Stores what a contract, which is locked, says beyond its changes: all of one from before changes were dated, and what
/// the host has written into its columns. Then the columns are those of today.
///
/// # Errors
/// When the row is not valid, or a statement fails.
pub async fn store_terms(
    db: &impl GenericClient,
    read: &Read,
    now: Timestamp,
) -> Result<StoredContract, Error> {
    let mut contract = read.contract(now).map_err(Error::Invalid)?;
    let is_new = !contract.unstored.is_empty();
    if is_new {
        let unstored = std::mem::take(&mut contract.unstored);
        store_amendment(db, contract.id, &unstored, &HOST, now).await?;
        // The changes have their ids now.
        let stored = contracts::find(db, contract.id).await?;
        let stored = stored.ok_or(store::Error::RowCount {
            statement: "contracts::read",
            expected: 1,
            changed: 0,
        })?;
        contract = stored.contract_of_changes().map_err(Error::Invalid)?;
    }
    project(db, &contract, Some(read).filter(|_| !is_new), now).await?;
    Ok(contract)
}

/// Writes an amendment's changes, and takes back what it revokes.
///
/// # Errors
/// When a statement fails.
pub async fn store_amendment(
    db: &impl GenericClient,
    contract_id: i64,
    amendment: &Amendment,
    author: &Author<'_>,
    now: Timestamp,
) -> Result<(), store::Error> {
    contract_changes::revoke(db, contract_id, &amendment.revoked, now).await?;
    contract_changes::insert_all(db, contract_id, &amendment.added, author).await?;
    Ok(())
}

/// Has the columns of a contract say what holds today; nothing is written when they do, as `read` tells.
///
/// # Errors
/// When a day is beyond the calendar, or the statement fails.
pub async fn project(
    db: &impl GenericClient,
    contract: &StoredContract,
    read: Option<&Read>,
    now: Timestamp,
) -> Result<(), Error> {
    let today = contract.history.day_of(now)?;
    let projection = contract.history.project(today)?;
    if let Some(read) = read {
        let mut shown = read.row.clone();
        shown.show(&projection);
        if shown == read.row && read.stored.projected_on.is_some() {
            return Ok(());
        }
    }
    contracts::project(db, contract.id, &projection, today, now).await?;
    Ok(())
}

/// What is decided of a contract's periods.
///
/// # Errors
/// When a statement fails.
pub async fn billed(db: &impl GenericClient, contract_id: i64) -> Result<Billed, store::Error> {
    let ids = [contract_id];
    let (invoiced, usage, waived, totals_before) = try_join!(
        partner_invoices::periods(db, &ids),
        invoiced_usage::of_contract(db, contract_id),
        waived_periods::of_contracts(db, &ids),
        partner_invoices::last_totals(db, contract_id),
    )?;
    let mut invoiced: Vec<_> = invoiced.into_iter().map(|(_, period)| period).collect();
    // Those that came to nothing before terms were dated are decided as well.
    let settled = usage.iter().filter(|row| row.terms.is_some());
    invoiced.extend(settled.map(|row| row.period));
    invoiced.sort_by_key(|period| (period.start, period.end));
    invoiced.dedup();
    Ok(Billed {
        invoiced,
        usage,
        waived: waived.into_iter().map(|(_, period)| period).collect(),
        totals_before,
    })
}

/// The usage of a plan's stretches, in their order.
///
/// # Errors
/// When a statement fails.
pub async fn count(db: &impl GenericClient, plan: &Plan<'_>) -> Result<Vec<Usage>, store::Error> {
    let windows = plan.windows();
    let mut counted = Vec::with_capacity(windows.len());
    for windows in windows.chunks(WINDOWS_PER_READ) {
        counted.extend(contract_usage::read(db, windows).await?);
    }
    Ok(counted)
}

/// What a contract's invoices would say if they were issued now.
///
/// # Errors
/// When it cannot be rated, or a statement fails.
pub async fn drafts(
    db: &impl GenericClient,
    contract: &StoredContract,
    rules: &Rules,
    now: Timestamp,
) -> Result<Drafts, Error> {
    let billed = billed(db, contract.id).await?;
    let plan = Plan::new(&contract.history, &billed, now)?;
    let counted = count(db, &plan).await?;
    Ok(plan.drafts(&counted, rules)?)
}

/// An invoice that is not issued, as it is listed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DraftInvoice {
    /// What an approval names it by.
    pub draft_id: String,
    pub contract_id: i64,
    pub api_key_prefix: String,
    /// Why it waits; null when the next run issues it.
    pub reason: Option<DraftReason>,
    /// First instant of the period it bills or corrects.
    pub period_start: Timestamp,
    /// The instant after its last.
    pub period_end: Timestamp,
    /// First and last billed day, in the contract's time zone.
    pub first_day: Date,
    pub last_day: Date,
    pub currency: Currency,
    pub lines: Vec<RatedLine>,
    pub taxes: Vec<TaxGroup>,
    /// Sum of the lines before tax, in minor units of `currency`.
    pub subtotal_cents: i64,
    pub tax_cents: i64,
    /// Before credits.
    pub total_cents: i64,
    /// What becomes a credit, because the lines add up to less than zero; else 0.
    pub carried_over_cents: i64,
    /// If it were issued now.
    pub due_at: Timestamp,
    /// Digest of period, lines, taxes and totals, in hex: what an approval approves.
    pub sha256: String,
}

impl DraftInvoice {
    /// A draft of a contract.
    #[must_use]
    pub fn new(contract_id: i64, draft: &Draft) -> DraftInvoice {
        let bill = &draft.bill;
        let digested = json!([
            contract_id,
            draft.key(),
            draft.period.start,
            draft.period.end,
            bill.currency,
            bill.lines,
            bill.taxes,
            bill.subtotal_cents,
            bill.tax_cents,
            bill.total_cents,
            bill.carried_over_cents,
        ]);
        DraftInvoice {
            draft_id: draft_id(contract_id, draft),
            contract_id,
            api_key_prefix: draft.terms.api_key_prefix.clone(),
            reason: draft.reason,
            period_start: draft.period.start,
            period_end: draft.period.end,
            first_day: draft.first_day,
            last_day: draft.last_day,
            currency: bill.currency,
            lines: bill.lines.clone(),
            taxes: bill.taxes.clone(),
            subtotal_cents: bill.subtotal_cents,
            tax_cents: bill.tax_cents,
            total_cents: bill.total_cents,
            carried_over_cents: bill.carried_over_cents,
            due_at: draft.due_at,
            sha256: hex::encode(Sha256::digest(digested.to_string().as_bytes())),
        }
    }
}

/// `7:2025-11-01`: the contract and what names the draft among its drafts.
#[must_use]
pub fn draft_id(contract_id: i64, draft: &Draft) -> String {
    format!("{contract_id}:{}", draft.key())
}

/// An invoice that was issued.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    pub id: i64,
    pub number: String,
    pub credit_applied_cents: i64,
    /// What is to be published.
    pub messages: Vec<outbox::Message>,
}

/// Issues a draft of a contract, which is locked: number, lines, credits and messages.
///
/// # Errors
/// When a statement fails; the transaction has to be taken back then.
pub async fn issue(
    db: &impl GenericClient,
    contract_id: i64,
    draft: &Draft,
    now: Timestamp,
) -> Result<Issued, store::Error> {
    let (terms, bill) = (&draft.terms, &draft.bill);
    let prefix = terms.api_key_prefix.as_str();
    let available = credits::lock_available(db, prefix, bill.currency).await?;
    let applications = credit::apply(&available, bill.total_cents, now);
    let credit_applied_cents: i64 = applications.iter().map(|taken| taken.amount_cents).sum();
    // Never below zero: credits are taken up to the total.
    let amount_due_cents = bill.total_cents - credit_applied_cents;
    let number = take_number(db, &series(prefix, draft.first_day)).await?;
    let (line_items, tax_breakdown) = (json!({"items": bill.lines}), json!(bill.taxes));
    let metadata = metadata(draft);
    let invoice = NewInvoice {
        contract_id,
        api_key_prefix: prefix,
        invoice_number: &number,
        status: if amount_due_cents == 0 {
            InvoiceStatus::Paid
        } else {
            InvoiceStatus::Open
        },
        currency: bill.currency,
        subtotal_cents: bill.subtotal_cents,
        tax_cents: bill.tax_cents,
        total_cents: bill.total_cents,
        credit_applied_cents,
        amount_due_cents,
        period: match draft.kind {
            DraftKind::Period => Some(draft.period),
            DraftKind::Correction => None,
        },
        due_at: draft.due_at,
        line_items: &line_items,
        tax_breakdown: &tax_breakdown,
        po_number: terms.po_number.as_deref(),
        collection_method: (terms.payment_method == PaymentMethod::Stripe)
            .then_some("send_invoice"),
        metadata: &metadata,
    };
    let id = partner_invoices::insert(db, &invoice, now).await?;
    let messages = announcements(&invoice, draft, id, now);
    let ((), (), (), messages) = try_join!(
        invoiced_usage::insert_all(db, id, contract_id, &draft.billed),
        credits::apply(db, id, &applications, now),
        carry_over(db, draft, &number, now),
        outbox::insert_all(db, &messages, now),
    )?;
    Ok(Issued {
        id,
        number,
        credit_applied_cents,
        messages,
    })
}

async fn take_number(db: &impl GenericClient, series: &str) -> Result<String, store::Error> {
    for _ in 0..NUMBERS_TRIED {
        if let Some(number) = partner_invoices::take_number(db, series).await? {
            return Ok(number);
        }
    }
    Err(store::Error::RowCount {
        statement: "partner_invoices::take_number",
        expected: 1,
        changed: 0,
    })
}

/// `API-YYYYMM-<prefix>`, by the month of the first day; two partners may have the same.
fn series(api_key_prefix: &str, first_day: Date) -> String {
    let is_kept = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let letters = api_key_prefix.chars();
    let prefix: String = letters
        .map(|letter| if is_kept(letter) { letter } else { '-' })
        .collect();
    format!(
        "API-{:04}{:02}-{prefix}",
        first_day.year(),
        first_day.month()
    )
}

/// Grants what an invoice could not take off because it would have become negative.
async fn carry_over(
    db: &impl GenericClient,
    draft: &Draft,
    number: &str,
    now: Timestamp,
) -> Result<(), store::Error> {
    let bill = &draft.bill;
    if bill.carried_over_cents == 0 {
        return Ok(());
    }
    let description = format!("Carried over from invoice {number}");
    let credit = NewCredit {
        user_id: None,
        api_key_prefix: Some(&draft.terms.api_key_prefix),
        amount_cents: bill.carried_over_cents,
        currency: bill.currency,
        reason: CreditReason::Refund,
        description: Some(&description),
        expires_at: None,
        created_by: "partner-invoicing",
    };
    let granted = credits::insert(db, &credit, now).await?;
    let granted = u64::from(granted.is_some());
    store::Error::check_row_count("credits::insert", 1, granted)
}

/// What the document shows of the contract, as it was when the invoice was issued; and of a negative one what was carried
/// over, tax by tax.
fn metadata(draft: &Draft) -> Value {
    let (terms, bill) = (&draft.terms, &draft.bill);
    let mut metadata = json!({
        "rounding": tax::ROUNDING,
        "pricing_model": terms.pricing_model.as_str(),
        "units": draft.usage.units,
        "requests": draft.usage.requests,
        "billed_days": draft.share.map(|share| share.billed_days),
        "cycle_days": draft.share.map(|share| share.cycle_days),
        "contract": terms.billing_details(),
    });
    if bill.carried_over_cents != 0 {
        metadata["carried_over"] = json!({
            "total_cents": bill.carried_over_cents,
            "taxes": bill.carried_over_taxes,
        });
    }
    metadata
}

fn announcements(
    invoice: &NewInvoice<'_>,
    draft: &Draft,
    id: i64,
    now: Timestamp,
) -> Vec<NewMessage> {
    let message = |detail_type: &'static str| {
        let subject = format!("invoice:{id}");
        let dedupe_key = format!("{detail_type}:{subject}");
        NewMessage {
            detail_type,
            detail: json!({
                "event_id": dedupe_key,
                "occurred_at": now,
                "subject": subject,
                "data": {
                    "invoice_id": id,
                    "invoice_number": invoice.invoice_number,
                    "contract_id": invoice.contract_id,
                    "api_key_prefix": invoice.api_key_prefix,
                    "period_start": draft.period.start,
                    "period_end": draft.period.end,
                    "due_at": invoice.due_at,
                    "total_cents": invoice.total_cents,
                    "credit_applied_cents": invoice.credit_applied_cents,
                    "amount_due_cents": invoice.amount_due_cents,
                    "currency": invoice.currency,
                },
            }),
            dedupe_key,
        }
    };
    let mut messages = vec![message("partner_invoice.issued")];
    if invoice.status == InvoiceStatus::Paid && invoice.total_cents > 0 {
        messages.push(message("invoice.paid"));
    }
    messages
}
