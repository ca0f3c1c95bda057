//! What Stripe announced about payments: `payment_intents`, `payment_attempts`, `refunds`, `disputes` and
//! `invoice_payments`. Reads start from the ids that an event names and reach everything that belongs to the same
//! payments, in one statement per table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::mirror::{self, Mirrored, Written, mirrored};
use super::{Error, columns};
use domain::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund, Settlement};
use domain::revenue::entries::{EntryKind, RevenueEntry};
use domain::stripe_objects::objects::Ids;
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
    attempted_at,
    ..settlement: Option<Settlement>,
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
    metadata,
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
    balance_transactions,
    funds_withdrawn_at,
    funds_reinstated_at,
    closed_at,
    evidence_due_by,
    created_at,
    ..version: Version,
}
const ADDED: &'static [&'static str] = &["fee_cents"];

/// The sum of the dispute's fees in minor units.
fn add(&self, row: &mut Written) -> Result<(), Error> {
    let fees = self.fees_cents();
    let (withdrawal, reinstatement) = fees.map_err(|_out_of_range| Error::Unwritable {
        table: "disputes",
        column: "fee_cents",
    })?;
    row.insert("fee_cents".to_owned(), (withdrawal + reinstatement).into());
    Ok(())
}
);

mirrored!(InvoicePayment => "invoice_payments" by "(link_key)" {
    stripe_invoice_id,
    stripe_payment_intent_id,
    stripe_charge_id,
    stripe_invoice_payment_id,
    stripe_customer_id,
    amount_paid_cents,
    currency,
    status,
    paid_at,
    ..version: Version,
}
const ADDED: &'static [&'static str] = &["link_key"];

fn add(&self, row: &mut Written) -> Result<(), Error> {
    row.insert("link_key".to_owned(), self.link_key().into());
    Ok(())
}
);

/// The payment intents of the reached payments.
pub async fn intents(db: &impl GenericClient, named: &Ids) -> Result<Vec<PaymentIntent>, Error> {
    reached(
        db,
        named,
        "stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[])",
        &[],
    )
    .await
}

/// The charges of the reached payments.
pub async fn charges(db: &impl GenericClient, named: &Ids) -> Result<Vec<Charge>, Error> {
    reached(
        db,
        named,
        "stripe_charge_id = ANY((SELECT charges FROM reached)::text[])",
        &[],
    )
    .await
}

/// The refunds of the reached payments, and the named ones.
pub async fn refunds(db: &impl GenericClient, named: &Ids) -> Result<Vec<Refund>, Error> {
    let condition = "stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
        OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[]) OR stripe_refund_id = ANY($4)";
    reached(db, named, condition, &named.refunds).await
}

/// The disputes of the reached payments, and the named ones.
pub async fn disputes(db: &impl GenericClient, named: &Ids) -> Result<Vec<Dispute>, Error> {
    let condition = "stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
        OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[]) OR stripe_dispute_id = ANY($4)";
    reached(db, named, condition, &named.disputes).await
}

/// The links between the reached payments and their invoices.
pub async fn invoice_payments(
    db: &impl GenericClient,
    named: &Ids,
) -> Result<Vec<InvoicePayment>, Error> {
    let condition = "stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
        OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[]) OR stripe_invoice_id = ANY($3)";
    reached(db, named, condition, &[]).await
}

/// The rows that `condition` selects by what the named ids lead to, and `own` (`$4`), ids of the table itself.
async fn reached<T: Mirrored>(
    db: &impl GenericClient,
    named: &Ids,
    condition: &str,
    own: &[String],
) -> Result<Vec<T>, Error> {
    let (table, columns) = (T::TABLE, T::names().join(", "));
    let rows = db
        .query_typed(
            &format!(
                "-- {table}::reached
                 WITH reached AS MATERIALIZED (SELECT intents, charges FROM billing_reached_payments($1, $2, $3))
                 SELECT {columns} FROM {table} WHERE {condition}"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
                (&own, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    mirror::read(&rows)
}

/// When the invoices of the reached payments were paid with money, by invoice.
pub async fn invoices_paid_at(
    db: &impl GenericClient,
    named: &Ids,
) -> Result<BTreeMap<String, Timestamp>, Error> {
    let rows = db
        .query_typed(
            "-- payment_facts::invoices_paid_at
             WITH reached AS MATERIALIZED (SELECT intents, charges FROM billing_reached_payments($1, $2, $3))
             SELECT invoices.stripe_invoice_id, invoices.paid_at
                 FROM invoice_payments JOIN invoices USING (stripe_invoice_id)
                 WHERE (invoice_payments.stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
                        OR invoice_payments.stripe_payment_intent_id
                            = ANY((SELECT intents FROM reached)::text[]))
                   AND invoices.status = 'paid' AND invoices.paid_at IS NOT NULL
                   AND invoices.out_of_band_cents = 0 AND invoices.source_event_id <> ''
                   AND NOT invoices.superseded",
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("stripe_invoice_id")?, row.try_get("paid_at")?)))
        .collect()
}

/// The revenue entries of the reached payments, with the out-of-band ones of the named invoices.
pub async fn entries(db: &impl GenericClient, named: &Ids) -> Result<Vec<RevenueEntry>, Error> {
    let rows = db
        .query_typed(
            "-- payment_facts::entries
             WITH reached AS MATERIALIZED (SELECT intents, charges FROM billing_reached_payments($1, $2, $3))
             SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
                 FROM revenue_entries
                 WHERE payment_key = ANY(
                     (SELECT charges FROM reached) || (SELECT intents FROM reached) || $3)",
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(entry_from_row).collect()
}

/// The charges that have one of these balance transactions.
pub async fn charges_of_balance_transactions(
    db: &impl GenericClient,
    balance_transaction_ids: &[String],
) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "-- payment_facts::charges_of_balance_transactions
             SELECT stripe_charge_id FROM payment_attempts
             WHERE stripe_balance_transaction_id = ANY($1)",
            &[(&balance_transaction_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(row.try_get("stripe_charge_id")?))
        .collect()
}

/// Removes the figures of a charge's balance transaction. When two are joined the greater stays, whichever is right, so
/// the wrong one has to go first.
pub async fn forget_settlement(
    db: &impl GenericClient,
    stripe_charge_id: &str,
) -> Result<(), Error> {
    db.execute_typed(
        "-- payment_facts::forget_settlement
         UPDATE payment_attempts
         SET settlement_currency = NULL, settlement_amount_cents = NULL, settlement_fee_cents = NULL,
             exchange_rate = NULL
         WHERE stripe_charge_id = $1",
        &[(&stripe_charge_id, Type::TEXT)],
    )
    .await?;
    Ok(())
}

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
