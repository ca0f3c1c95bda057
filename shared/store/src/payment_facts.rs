//! What Stripe announced about payments: `payment_intents`, `payment_attempts`, `refunds`, `disputes` and
//! `invoice_payments`. Reads start from the ids that an event names and reach everything that belongs to the same
//! payments, in one statement per table.

use tokio_postgres::Row;

use super::mirror::{Cells, mirrored};
use super::{Error, columns};
use domain::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund};
use domain::revenue::entries::{EntryKind, RevenueEntry};
use domain::stripe_objects::snapshot::Version;

mirrored!(PaymentIntent => "payment_intents" by "(stripe_payment_intent_id)" {
    stripe_payment_intent_id,
    stripe_customer_id,
    amount_cents,
    amount_received_cents,
    currency,
    status,
    latest_charge_id,
    stripe_invoice_id,
    payment_method,
    failure_code,
    decline_code,
    failure_message,
    succeeded_at,
    canceled_at,
    user_id,
    created_at,
    ..version: Version,
});

mirrored!(Charge => "payment_attempts" by "(stripe_charge_id)" {
    stripe_charge_id,
    stripe_payment_intent_id,
    stripe_customer_id,
    stripe_invoice_id,
    amount_cents,
    amount_captured_cents,
    currency,
    status,
    is_captured = "captured",
    failure_code,
    decline_code,
    failure_message,
    payment_method,
    user_id,
    succeeded_at,
    refund_totals,
    stripe_balance_transaction_id,
    failure_balance_transaction_id,
    attempted_at,
    ..version: Version,
});

mirrored!(Refund => "refunds" by "(stripe_refund_id)" {
    stripe_refund_id,
    stripe_charge_id,
    stripe_payment_intent_id,
    amount_cents,
    currency,
    reason,
    status,
    stripe_balance_transaction_id,
    failure_balance_transaction_id,
    metadata,
    source,
    stripe_invoice_id,
    created_at,
    failed_at,
    ..version: Version,
});

mirrored!(Dispute => "disputes" by "(stripe_dispute_id)" {
    stripe_dispute_id,
    stripe_charge_id,
    stripe_payment_intent_id,
    amount_cents,
    currency,
    reason,
    status,
    balance_transaction_ids,
    funds_withdrawn_at,
    funds_reinstated_at,
    closed_at,
    evidence_due_by,
    created_at,
    ..version: Version,
});

mirrored!(InvoicePayment => "invoice_payments" by "(link_key)" {
    stripe_invoice_id,
    stripe_payment_intent_id,
    stripe_charge_id,
    stripe_payment_record_id,
    reported_by,
    stripe_invoice_payment_id,
    is_default,
    stripe_customer_id,
    amount_paid_cents,
    currency,
    status,
    paid_at,
    ..version: Version,
}
const ADDED: &'static [&'static str] = &["link_key"];

fn add(&self, row: &mut Cells) -> Result<(), Error> {
    row.insert("link_key".to_owned(), self.link_key().into());
    Ok(())
}
);

pub(super) fn entry_from_row(row: &Row) -> Result<RevenueEntry, Error> {
    const TABLE: &str = "revenue_entries";
    let payment_key: String = row.try_get("payment_key")?;
    let kind: &str = row.try_get("kind")?;
    Ok(RevenueEntry {
        kind: EntryKind::parse(kind).ok_or_else(|| Error::Unreadable {
            table: TABLE,
            column: "kind",
            row: payment_key.clone(),
        })?,
        source_id: row.try_get("source_id")?,
        occurred_at: row.try_get("occurred_at")?,
        currency: columns::currency(row, TABLE, &payment_key)?,
        amount_cents: row.try_get("amount_cents")?,
        is_estimated: row.try_get("is_estimated")?,
        payment_key,
    })
}
