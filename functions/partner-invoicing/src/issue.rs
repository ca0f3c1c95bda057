//! Issues the invoice of one period: number, lines, credits and the message in one transaction.
//!
//! Lock order: the contract, its credits in ascending order, the counter of the number. Usage is read before the
//! transaction; under the lock the contract and what was billed are compared with what the plan was made from.

use futures_util::try_join;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shared::contract::PaymentMethod;
use shared::credit::{self, Application};
use shared::cycle::BillingPeriod;
use shared::invoice::InvoiceStatus;
use shared::money;
use shared::pricing::{self, Bill, RatedLine};
use shared::store::credits::NewCredit;
use shared::store::invoiced_usage::{self, InvoicedUsage};
use shared::store::outbox::{self, NewMessage};
use shared::store::partner_invoices::{self, NewInvoice};
use shared::store::{self, contracts, credits};
use tokio_postgres::{Client, GenericClient};

use crate::plan::{self, Plan};

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

/// What became of a draft.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is issued; the credits it took.
    Issued { credit_applied_cents: i64 },
    /// Something has changed since the plan was made: make it again.
    Changed,
}

/// What a period comes to; `None` when there is nothing to bill.
///
/// # Errors
/// When an amount is out of range.
pub(crate) fn draft(
    plan: &Plan,
    period: &BillingPeriod,
    now: Timestamp,
) -> Result<Option<Draft>, plan::Error> {
    let terms = &plan.contract.terms;
    let late = plan.late(period)?;
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

/// Issues a draft, unless the contract or what was billed of it has changed since it was planned.
///
/// # Errors
/// When a statement fails; nothing is issued then, unless it was the commit's answer that got lost.
pub(crate) async fn issue(
    client: &mut Client,
    plan: &Plan,
    period: &BillingPeriod,
    draft: &Draft,
    now: Timestamp,
) -> Result<Outcome, store::Error> {
    let contract = &plan.contract;
    let terms = &contract.terms;
    let bill = &draft.bill;
    let ids = [contract.id];
    let transaction = client.transaction().await?;
    let (locked, invoiced, billed, available) = try_join!(
        contracts::lock_and_read(&transaction, contract.id),
        partner_invoices::periods(&transaction, &ids),
        invoiced_usage::of_contracts(&transaction, &ids, plan.since),
        credits::lock_available(&transaction, &terms.api_key_prefix, bill.currency),
    )?;
    let is_same_contract = locked
        .and_then(|read| read.contract.ok())
        .is_some_and(|locked| locked == *contract);
    let invoiced: Vec<_> = invoiced.into_iter().map(|(_, period)| period).collect();
    if !is_same_contract || invoiced != plan.invoiced || !is_same(&billed, &plan.billed) {
        transaction.rollback().await?;
        return Ok(Outcome::Changed);
    }
    let applications = credit::apply(&available, bill.total_cents, now);
    let credit_applied_cents: i64 = applications.iter().map(|taken| taken.amount_cents).sum();
    // Never below zero: credits are taken up to the total.
    let amount_due_cents = bill.total_cents - credit_applied_cents;
    let number = take_number(&transaction, &series(&terms.api_key_prefix, period)).await?;
    let invoice = NewInvoice {
        contract_id: contract.id,
        api_key_prefix: &terms.api_key_prefix,
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
        period: period.period,
        due_at: draft.due_at,
        line_items: &json!({"items": bill.lines}),
        tax_breakdown: &tax_breakdown(&bill.lines, terms.tax_rate_bps),
        po_number: terms.po_number.as_deref(),
        collection_method: (terms.payment_method == PaymentMethod::Stripe)
            .then_some("send_invoice"),
        metadata: &metadata(plan, period),
    };
    let id = partner_invoices::insert(&transaction, &invoice, now).await?;
    let messages = announcements(&invoice, id, now);
    try_join!(
        invoiced_usage::insert_all(&transaction, id, &draft.billed),
        take_credits(&transaction, id, &applications, now),
        carry_over(&transaction, plan, bill, &number, now),
        outbox::insert_all(&transaction, &messages, now),
    )?;
    transaction.commit().await?;
    Ok(Outcome::Issued {
        credit_applied_cents,
    })
}

/// The plan's rows may have been noted in another order than the table gives them.
fn is_same(left: &[InvoicedUsage], right: &[InvoicedUsage]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .all(|row| right.iter().filter(|other| *other == row).count() >= 1)
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

async fn take_credits(
    db: &impl GenericClient,
    invoice_id: i64,
    applications: &[Application],
    now: Timestamp,
) -> Result<(), store::Error> {
    credits::apply(db, invoice_id, applications, now).await
}

/// Grants what an invoice could not take off because it would have become negative.
async fn carry_over(
    db: &impl GenericClient,
    plan: &Plan,
    bill: &Bill,
    number: &str,
    now: Timestamp,
) -> Result<(), store::Error> {
    if bill.carried_over_cents == 0 {
        return Ok(());
    }
    let description = format!("Carried over from invoice {number}");
    let credit = NewCredit {
        user_id: None,
        api_key_prefix: Some(&plan.contract.terms.api_key_prefix),
        amount_cents: bill.carried_over_cents,
        currency: bill.currency,
        reason: "refund",
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
    let is_kept = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let prefix: String = api_key_prefix
        .chars()
        .map(|letter| if is_kept(letter) { letter } else { '-' })
        .collect();
    let first = period.first_day;
    format!("API-{:04}{:02}-{prefix}", first.year(), first.month())
}

fn tax_breakdown(lines: &[RatedLine], tax_rate_bps: i32) -> Value {
    if tax_rate_bps == 0 {
        return json!([]);
    }
    let sum = |of: fn(&RatedLine) -> i64| lines.iter().map(of).sum::<i64>();
    json!([{
        "tax_rate_bps": tax_rate_bps,
        "taxable_cents": sum(|line| line.total_cents),
        "tax_cents": sum(|line| line.tax_cents),
    }])
}

/// What the document shows of the contract, as it was when the invoice was issued.
fn metadata(plan: &Plan, period: &BillingPeriod) -> Value {
    let terms = &plan.contract.terms;
    let usage = plan.usage(period);
    json!({
        "rounding": pricing::ROUNDING,
        "pricing_model": terms.pricing_model.as_str(),
        "units": usage.units,
        "requests": usage.requests,
        "billed_days": period.share.billed_days,
        "cycle_days": period.share.cycle_days,
        "contract": {
            "api_key_prefix": terms.api_key_prefix,
            "company": terms.company,
            "billing_address": terms.billing_address,
            "billing_email": terms.billing_email,
            "tax_id": terms.tax_id,
            "po_number": terms.po_number,
            "timezone": terms.timezone,
            "payment_terms": terms.payment_terms.as_str(),
            "payment_method": terms.payment_method.as_str(),
        },
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
    let fixed_cents = money::div_half_even_cents(
        i128::from(draft.fixed_cents) * (10_000 + i128::from(plan.contract.terms.tax_rate_bps)),
        10_000,
    )?;
    if cap_cents.is_some_and(|cap_cents| total_cents > cap_cents) {
        return Ok(Some("above_the_cap"));
    }
    let is_unusual = pricing::needs_review(total_cents, fixed_cents, &plan.totals_before, None);
    Ok(is_unusual.then_some("above_ten_times_the_median"))
}
