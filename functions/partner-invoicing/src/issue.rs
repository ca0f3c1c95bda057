//! Issues invoices, each of another contract: numbers, lines, credits and messages in one transaction and in one
//! statement of each kind.
//!
//! Lock order: the contracts and their credits in ascending order, the counters of the numbers by name. Usage is read
//! before the transaction; under the lock each contract and what was billed of it are compared with what the plan was
//! made from.

use std::collections::HashMap;

use domain::money::{self, Currency};
use domain::partner::contract::PaymentMethod;
use domain::partner::credit::{self, Application, Available, CreditReason};
use domain::partner::cycle::BillingPeriod;
use domain::partner::pricing::{self, Bill};
use domain::partner::tax::{self, Taxable};
use domain::period::Period;
use domain::stripe_objects::invoice::InvoiceStatus;
use futures_util::future::try_join_all;
use futures_util::try_join;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::credits::NewCredit;
use store::invoiced_usage::{self, InvoicedUsage};
use store::outbox::{self, NewMessage};
use store::partner_invoices::{self, NewInvoice};
use store::{contracts, credits};
use tokio_postgres::{Client, GenericClient};

use crate::plan::{self, Late, Plan, by, by_contract};

/// Numbers asked for before giving up: other series and the predecessor may have given a few of ours.
const NUMBERS_TRIED: u32 = 100;

/// An invoice as it is to be issued.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) bill: Bill,
    pub(crate) billed: Vec<InvoicedUsage>,
    pub(crate) due_at: Timestamp,
    /// The flat fee and the minimum, with nothing used.
    pub(crate) fixed_cents: i64,
}

/// What issuing one draft did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is issued; the credits it took.
    Issued { credit_applied_cents: i64 },
    /// Something has changed since the plan was made: make it again.
    Changed,
}

/// What a period comes to with the corrections its invoice carries; `None` when there is nothing to bill.
///
/// # Errors
/// When an amount is out of range.
pub(crate) fn draft(
    plan: &Plan,
    period: &BillingPeriod,
    late: Late,
    now: Timestamp,
) -> Result<Option<Draft>, plan::Error> {
    let terms = &plan.contract.terms;
    let usage = plan.usage(period);
    let Some(bill) = pricing::bill(terms, period, usage, &late.adjustments)? else {
        return Ok(None);
    };
    Ok(Some(Draft {
        bill,
        billed: late.billed,
        due_at: period.due_at(terms.payment_terms, now),
        fixed_cents: pricing::fixed_cents(terms, period.share)?,
    }))
}

/// An invoice that is to be issued: what it bills, of which plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) period: &'a BillingPeriod,
    pub(crate) draft: &'a Draft,
}

/// An invoice under its lock, with what it takes.
struct Taken<'a> {
    due: &'a Due<'a>,
    applications: Vec<Application>,
    credit_applied_cents: i64,
    /// Never below zero: credits are taken up to the total.
    amount_due_cents: i64,
    line_items: Value,
    tax_breakdown: Value,
    metadata: Value,
}

/// Issues drafts of different contracts, each from its own number series: all, or none when a statement fails.
/// One whose contract, or what was billed of it, has changed since it was planned is left out.
///
/// # Errors
/// When a statement fails; nothing is issued then, unless it was the commit's answer that got lost.
pub(crate) async fn issue_all(
    client: &mut Client,
    due: &[Due<'_>],
    now: Timestamp,
) -> Result<Vec<Outcome>, store::Error> {
    let transaction = client.transaction().await?;
    let taken = lock_and_compare(&transaction, due, now).await?;
    let as_planned: Vec<&Taken<'_>> = taken.iter().flatten().collect();
    if as_planned.is_empty() {
        transaction.rollback().await?;
        return Ok(due.iter().map(|_| Outcome::Changed).collect());
    }
    let numbers = take_numbers(&transaction, &as_planned).await?;
    let invoices: Vec<NewInvoice<'_>> = as_planned
        .iter()
        .zip(&numbers)
        .map(|(taken, number)| taken.invoice(number))
        .collect();
    let ids = partner_invoices::insert_all(&transaction, &invoices, now).await?;
    let mut messages = Vec::new();
    let (mut billed, mut applications) = (Vec::new(), Vec::new());
    for ((taken, invoice), id) in as_planned.iter().zip(&invoices).zip(&ids) {
        messages.extend(announcements(invoice, *id, now));
        billed.extend(taken.due.draft.billed.iter().map(|row| (*id, row)));
        applications.extend(taken.applications.iter().map(|credit| (*id, *credit)));
    }
    let mut carried_over = Vec::new();
    for (taken, number) in as_planned.iter().zip(&numbers) {
        carried_over.push(carry_over(&transaction, taken.due, number, now));
    }
    try_join!(
        invoiced_usage::insert_all(&transaction, &billed),
        credits::apply(&transaction, &applications, now),
        try_join_all(carried_over),
        outbox::insert_all(&transaction, &messages, now),
    )?;
    transaction.commit().await?;
    let outcomes = taken.iter().map(|taken| match taken {
        Some(taken) => Outcome::Issued {
            credit_applied_cents: taken.credit_applied_cents,
        },
        None => Outcome::Changed,
    });
    Ok(outcomes.collect())
}

/// Locks the contracts and their credits; what each invoice takes of those, and `None` where something has changed.
async fn lock_and_compare<'a>(
    db: &impl GenericClient,
    due: &'a [Due<'a>],
    now: Timestamp,
) -> Result<Vec<Option<Taken<'a>>>, store::Error> {
    let ids: Vec<i64> = due.iter().map(|due| due.plan.contract.id).collect();
    let since = due.iter().map(|due| due.plan.since).min();
    let partners: Vec<(&str, Currency)> = due
        .iter()
        .map(|due| {
            let terms = &due.plan.contract.terms;
            (terms.api_key_prefix.as_str(), due.draft.bill.currency)
        })
        .collect();
    let (locked, invoiced, billed, available) = try_join!(
        contracts::lock_and_read(db, &ids),
        partner_invoices::periods(db, &ids),
        invoiced_usage::of_contracts(db, &ids, since.unwrap_or(now)),
        credits::lock_available(db, &partners),
    )?;
    let mut locked: HashMap<i64, _> = locked
        .into_iter()
        .filter_map(|read| Some((read.id, read.contract.ok()?)))
        .collect();
    let (mut invoiced, mut billed) = (by(invoiced), by_contract(billed));
    let mut available: HashMap<String, Vec<Available>> = by(available);
    let taken = due.iter().map(|due| {
        let plan = due.plan;
        let contract = &plan.contract;
        let invoiced: Vec<Period> = invoiced.remove(&contract.id).unwrap_or_default();
        let mut billed = billed.remove(&contract.id).unwrap_or_default();
        billed.retain(|row| row.period.end > plan.since);
        let is_as_planned = locked.remove(&contract.id).as_ref() == Some(contract)
            && invoiced == plan.invoiced
            && is_same(&billed, &plan.billed);
        let credits = available.remove(&contract.terms.api_key_prefix);
        is_as_planned.then(|| Taken::new(due, &credits.unwrap_or_default(), now))
    });
    Ok(taken.collect())
}

/// The plan's rows may have been noted in another order than the table gives them.
fn is_same(left: &[InvoicedUsage], right: &[InvoicedUsage]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .all(|row| right.iter().filter(|other| *other == row).count() >= 1)
}

impl<'a> Taken<'a> {
    fn new(due: &'a Due<'a>, available: &[Available], now: Timestamp) -> Taken<'a> {
        let bill = &due.draft.bill;
        let applications = credit::apply(available, bill.total_cents, now);
        let credit_applied_cents: i64 = applications.iter().map(|taken| taken.amount_cents).sum();
        Taken {
            due,
            applications,
            credit_applied_cents,
            amount_due_cents: bill.total_cents - credit_applied_cents,
            line_items: json!({"items": bill.lines}),
            tax_breakdown: json!(bill.taxes),
            metadata: metadata(due.plan, due.period),
        }
    }

    fn invoice<'b>(&'b self, number: &'b str) -> NewInvoice<'b> {
        let Due {
            plan,
            period,
            draft,
        } = *self.due;
        let terms = &plan.contract.terms;
        let bill = &draft.bill;
        NewInvoice {
            contract_id: plan.contract.id,
            api_key_prefix: &terms.api_key_prefix,
            invoice_number: number,
            status: if self.amount_due_cents == 0 {
                InvoiceStatus::Paid
            } else {
                InvoiceStatus::Open
            },
            currency: bill.currency,
            subtotal_cents: bill.subtotal_cents,
            tax_cents: bill.tax_cents,
            total_cents: bill.total_cents,
            credit_applied_cents: self.credit_applied_cents,
            amount_due_cents: self.amount_due_cents,
            period: period.period,
            due_at: draft.due_at,
            line_items: &self.line_items,
            tax_breakdown: &self.tax_breakdown,
            po_number: terms.po_number.as_deref(),
            collection_method: (terms.payment_method == PaymentMethod::Stripe)
                .then_some("send_invoice"),
            metadata: &self.metadata,
        }
    }
}

async fn take_numbers(
    db: &impl GenericClient,
    taken: &[&Taken<'_>],
) -> Result<Vec<String>, store::Error> {
    let series: Vec<String> = taken
        .iter()
        .map(|taken| {
            let Due { plan, period, .. } = taken.due;
            series(&plan.contract.terms.api_key_prefix, period)
        })
        .collect();
    let mut numbers: Vec<Option<String>> = vec![None; series.len()];
    for _ in 0..NUMBERS_TRIED {
        let missing: Vec<usize> = (0..numbers.len())
            .filter(|place| numbers[*place].is_none())
            .collect();
        if missing.is_empty() {
            break;
        }
        let asked: Vec<&str> = missing
            .iter()
            .map(|place| series[*place].as_str())
            .collect();
        let given = partner_invoices::take_numbers(db, &asked).await?;
        for (place, number) in missing.into_iter().zip(given) {
            numbers[place] = number;
        }
    }
    let numbers: Option<Vec<String>> = numbers.into_iter().collect();
    numbers.ok_or(store::Error::RowCount {
        statement: "partner_invoices::take_numbers",
        expected: 1,
        changed: 0,
    })
}

/// Grants what an invoice could not take off because it would have become negative.
async fn carry_over(
    db: &impl GenericClient,
    due: &Due<'_>,
    number: &str,
    now: Timestamp,
) -> Result<(), store::Error> {
    let bill = &due.draft.bill;
    if bill.carried_over_cents == 0 {
        return Ok(());
    }
    let description = format!("Carried over from invoice {number}");
    let credit = NewCredit {
        user_id: None,
        api_key_prefix: Some(&due.plan.contract.terms.api_key_prefix),
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

/// `API-YYYYMM-<prefix>`, by the month the period begins in.
fn series(api_key_prefix: &str, period: &BillingPeriod) -> String {
    let first = period.first_day;
    let prefix = prefix_in_series(api_key_prefix);
    format!("API-{:04}{:02}-{prefix}", first.year(), first.month())
}

/// A partner's prefix as it stands in its numbers; two partners may have the same.
pub(crate) fn prefix_in_series(api_key_prefix: &str) -> String {
    let is_kept = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    api_key_prefix
        .chars()
        .map(|letter| if is_kept(letter) { letter } else { '-' })
        .collect()
}

/// What the document shows of the contract, as it was when the invoice was issued.
fn metadata(plan: &Plan, period: &BillingPeriod) -> Value {
    let terms = &plan.contract.terms;
    let usage = plan.usage(period);
    json!({
        "rounding": tax::ROUNDING,
        "pricing_model": terms.pricing_model.as_str(),
        "units": usage.units,
        "requests": usage.requests,
        "billed_days": period.share.billed_days,
        "cycle_days": period.share.cycle_days,
        "contract": terms.billing_details(),
    })
}

fn announcements(invoice: &NewInvoice<'_>, id: i64, now: Timestamp) -> Vec<NewMessage> {
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
                    "period_start": invoice.period.start,
                    "period_end": invoice.period.end,
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

/// Days from an instant until an invoice is due, a started one counts; not negative.
pub(crate) fn days_until(due_at: Timestamp, from: Timestamp) -> i64 {
    let seconds = due_at
        .duration_since(from)
        .max(SignedDuration::ZERO)
        .as_secs();
    seconds / 86_400 + i64::from(seconds % 86_400 > 0)
}

/// What stands in the way of an invoice being issued without anybody having looked.
pub(crate) fn review_reason(
    plan: &Plan,
    draft: &Draft,
    cap_cents: Option<i64>,
) -> Result<Option<&'static str>, money::Error> {
    let total_cents = draft.bill.total_cents;
    // Tax is on both sides: the fixed part is compared with it.
    let fixed = Taxable {
        amount_cents: draft.fixed_cents,
        taxes: &plan.contract.terms.taxes,
    };
    let taxes = tax::assess(&[fixed], 1)?.groups;
    let fixed_cents = taxes
        .iter()
        .try_fold(draft.fixed_cents, |sum, tax| sum.checked_add(tax.tax_cents))
        .ok_or(money::Error::OutOfRange)?;
    if cap_cents.is_some_and(|cap_cents| total_cents > cap_cents) {
        return Ok(Some("above_the_cap"));
    }
    let is_unusual = pricing::needs_review(total_cents, fixed_cents, &plan.totals_before, None);
    Ok(is_unusual.then_some("above_ten_times_the_median"))
}
