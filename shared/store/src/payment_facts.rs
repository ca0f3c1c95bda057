//! What Stripe announced about payments: `payment_intents`, `payment_attempts`, `refunds`, `disputes` and
//! `invoice_payments`. Reads start from the ids that an event names and reach everything that belongs to the same
//! payments, in one statement per table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::{Error, columns};
use domain::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund, Settlement};
use domain::revenue::entries::{EntryKind, RevenueEntry};
use domain::stripe_objects::objects::Ids;

/// Builds a statement over the ids of the payments that `$1` (intents), `$2` (charges) and `$3` (invoices) lead to.
macro_rules! reached {
    ($statement:literal, $rest:literal) => {
        concat!(
            "-- payment_facts::",
            $statement,
            "
             WITH reached AS MATERIALIZED (SELECT intents, charges FROM billing_reached_payments($1, $2, $3))
             ",
            $rest
        )
    };
}

/// The payment intents of the reached payments.
pub async fn intents(db: &impl GenericClient, named: &Ids) -> Result<Vec<PaymentIntent>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "intents",
                "SELECT stripe_payment_intent_id, stripe_customer_id, amount_cents,
                        amount_received_cents, currency, status, latest_charge_id,
                        stripe_invoice_id, payment_method, failure_code, decline_code,
                        failure_message, succeeded_at, canceled_at, user_id, created_at,
                        source_created_at, source_rank, source_event_id
                 FROM payment_intents
                 WHERE stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[])"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(intent_from_row).collect()
}

/// The charges of the reached payments.
pub async fn charges(db: &impl GenericClient, named: &Ids) -> Result<Vec<Charge>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "charges",
                "SELECT stripe_charge_id, stripe_payment_intent_id, stripe_customer_id,
                        stripe_invoice_id, amount_cents, amount_captured_cents, currency, status,
                        captured, failure_code, decline_code, failure_message, payment_method,
                        user_id, succeeded_at, refund_totals, stripe_balance_transaction_id,
                        settlement_currency, settlement_amount_cents, settlement_fee_cents,
                        exchange_rate, attempted_at, source_created_at, source_rank,
                        source_event_id
                 FROM payment_attempts
                 WHERE stripe_charge_id = ANY((SELECT charges FROM reached)::text[])"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(charge_from_row).collect()
}

/// The refunds of the reached payments, and the named ones.
pub async fn refunds(db: &impl GenericClient, named: &Ids) -> Result<Vec<Refund>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "refunds",
                "SELECT stripe_refund_id, stripe_charge_id, stripe_payment_intent_id, amount_cents,
                        currency, reason, status, stripe_balance_transaction_id, metadata,
                        created_at, failed_at, source_created_at, source_rank, source_event_id
                 FROM refunds
                 WHERE stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
                    OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[])
                    OR stripe_refund_id = ANY($4)"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
                (&named.refunds, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(refund_from_row).collect()
}

/// The disputes of the reached payments, and the named ones.
pub async fn disputes(db: &impl GenericClient, named: &Ids) -> Result<Vec<Dispute>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "disputes",
                "SELECT stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id,
                        amount_cents, currency, reason, status, balance_transactions,
                        funds_withdrawn_at, funds_reinstated_at, closed_at, evidence_due_by,
                        created_at, source_created_at, source_rank, source_event_id
                 FROM disputes
                 WHERE stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
                    OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[])
                    OR stripe_dispute_id = ANY($4)"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
                (&named.disputes, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(dispute_from_row).collect()
}

/// The links between the reached payments and their invoices.
pub async fn invoice_payments(
    db: &impl GenericClient,
    named: &Ids,
) -> Result<Vec<InvoicePayment>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "invoice_payments",
                "SELECT stripe_invoice_id, stripe_payment_intent_id, stripe_charge_id,
                        stripe_invoice_payment_id, stripe_customer_id, amount_paid_cents, currency,
                        status, paid_at, source_created_at, source_rank, source_event_id
                 FROM invoice_payments
                 WHERE stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
                    OR stripe_payment_intent_id = ANY((SELECT intents FROM reached)::text[])
                    OR stripe_invoice_id = ANY($3)"
            ),
            &[
                (&named.payment_intents, Type::TEXT_ARRAY),
                (&named.charges, Type::TEXT_ARRAY),
                (&named.invoices, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(invoice_payment_from_row).collect()
}

/// When the invoices of the reached payments were paid with money, by invoice.
pub async fn invoices_paid_at(
    db: &impl GenericClient,
    named: &Ids,
) -> Result<BTreeMap<String, Timestamp>, Error> {
    let rows = db
        .query_typed(
            reached!(
                "invoices_paid_at",
                "SELECT invoices.stripe_invoice_id, invoices.paid_at
                 FROM invoice_payments JOIN invoices USING (stripe_invoice_id)
                 WHERE (invoice_payments.stripe_charge_id = ANY((SELECT charges FROM reached)::text[])
                        OR invoice_payments.stripe_payment_intent_id
                            = ANY((SELECT intents FROM reached)::text[]))
                   AND invoices.status = 'paid' AND invoices.paid_at IS NOT NULL
                   AND invoices.out_of_band_cents = 0 AND invoices.source_event_id <> ''
                   AND NOT invoices.superseded"
            ),
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
            reached!(
                "entries",
                "SELECT payment_key, kind, source_id, occurred_at, currency, amount_cents, is_estimated
                 FROM revenue_entries
                 WHERE payment_key = ANY(
                     (SELECT charges FROM reached) || (SELECT intents FROM reached) || $3)"
            ),
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

/// Inserts or replaces the row.
pub async fn upsert_intent(
    db: &impl GenericClient,
    intent: &PaymentIntent,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- payment_facts::upsert_intent
             INSERT INTO payment_intents (stripe_payment_intent_id, stripe_customer_id,
                 amount_cents, amount_received_cents, currency, status, latest_charge_id,
                 stripe_invoice_id, payment_method, failure_code, decline_code, failure_message,
                 succeeded_at, canceled_at, user_id, created_at, source_created_at, source_rank,
                 source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20)
             ON CONFLICT (stripe_payment_intent_id) DO UPDATE SET
                 stripe_customer_id = excluded.stripe_customer_id,
                 amount_cents = excluded.amount_cents,
                 amount_received_cents = excluded.amount_received_cents,
                 currency = excluded.currency, status = excluded.status,
                 latest_charge_id = excluded.latest_charge_id,
                 stripe_invoice_id = excluded.stripe_invoice_id,
                 payment_method = excluded.payment_method, failure_code = excluded.failure_code,
                 decline_code = excluded.decline_code, failure_message = excluded.failure_message,
                 succeeded_at = excluded.succeeded_at, canceled_at = excluded.canceled_at,
                 user_id = excluded.user_id, created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&intent.stripe_payment_intent_id, Type::TEXT),
                (&intent.stripe_customer_id, Type::TEXT),
                (&intent.amount_cents, Type::INT8),
                (&intent.amount_received_cents, Type::INT8),
                (&intent.currency.as_str(), Type::TEXT),
                (&intent.status, Type::TEXT),
                (&intent.latest_charge_id, Type::TEXT),
                (&intent.stripe_invoice_id, Type::TEXT),
                (&intent.payment_method, Type::TEXT),
                (&intent.failure_code, Type::TEXT),
                (&intent.decline_code, Type::TEXT),
                (&intent.failure_message, Type::TEXT),
                (&intent.succeeded_at, Type::TIMESTAMPTZ),
                (&intent.canceled_at, Type::TIMESTAMPTZ),
                (&intent.user_id, Type::INT4),
                (&intent.created_at, Type::TIMESTAMPTZ),
                (&intent.version.created_at, Type::TIMESTAMPTZ),
                (&intent.version.rank, Type::INT4),
                (&intent.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_facts::upsert_intent", 1, changed)
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

/// Inserts or replaces the row.
pub async fn upsert_charge(
    db: &impl GenericClient,
    charge: &Charge,
    now: Timestamp,
) -> Result<(), Error> {
    let settlement = charge.settlement.as_ref();
    let changed = db
        .execute_typed(
            "-- payment_facts::upsert_charge
             INSERT INTO payment_attempts (stripe_charge_id, stripe_payment_intent_id,
                 stripe_customer_id, stripe_invoice_id, amount_cents, amount_captured_cents,
                 currency, status, captured, failure_code, decline_code, failure_message,
                 payment_method, user_id, succeeded_at, refund_totals,
                 stripe_balance_transaction_id, settlement_currency, settlement_amount_cents,
                 settlement_fee_cents, exchange_rate, attempted_at, source_created_at,
                 source_rank, source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, $22, $23, $24, $25, $26)
             ON CONFLICT (stripe_charge_id) DO UPDATE SET
                 stripe_payment_intent_id = excluded.stripe_payment_intent_id,
                 stripe_customer_id = excluded.stripe_customer_id,
                 stripe_invoice_id = excluded.stripe_invoice_id,
                 amount_cents = excluded.amount_cents,
                 amount_captured_cents = excluded.amount_captured_cents,
                 currency = excluded.currency, status = excluded.status,
                 captured = excluded.captured, failure_code = excluded.failure_code,
                 decline_code = excluded.decline_code, failure_message = excluded.failure_message,
                 payment_method = excluded.payment_method, user_id = excluded.user_id,
                 succeeded_at = excluded.succeeded_at, refund_totals = excluded.refund_totals,
                 stripe_balance_transaction_id = excluded.stripe_balance_transaction_id,
                 settlement_currency = excluded.settlement_currency,
                 settlement_amount_cents = excluded.settlement_amount_cents,
                 settlement_fee_cents = excluded.settlement_fee_cents,
                 exchange_rate = excluded.exchange_rate, attempted_at = excluded.attempted_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&charge.stripe_charge_id, Type::TEXT),
                (&charge.stripe_payment_intent_id, Type::TEXT),
                (&charge.stripe_customer_id, Type::TEXT),
                (&charge.stripe_invoice_id, Type::TEXT),
                (&charge.amount_cents, Type::INT8),
                (&charge.amount_captured_cents, Type::INT8),
                (&charge.currency.as_str(), Type::TEXT),
                (&charge.status, Type::TEXT),
                (&charge.is_captured, Type::BOOL),
                (&charge.failure_code, Type::TEXT),
                (&charge.decline_code, Type::TEXT),
                (&charge.failure_message, Type::TEXT),
                (&charge.payment_method, Type::TEXT),
                (&charge.user_id, Type::INT4),
                (&charge.succeeded_at, Type::TIMESTAMPTZ),
                (&Json(&charge.refund_totals), Type::JSONB),
                (&charge.stripe_balance_transaction_id, Type::TEXT),
                (&settlement.map(|s| s.currency.as_str()), Type::TEXT),
                (&settlement.map(|s| s.amount_cents), Type::INT8),
                (&settlement.map(|s| s.fee_cents), Type::INT8),
                (
                    &settlement.and_then(|s| s.exchange_rate.as_deref()),
                    Type::TEXT,
                ),
                (&charge.attempted_at, Type::TIMESTAMPTZ),
                (&charge.version.created_at, Type::TIMESTAMPTZ),
                (&charge.version.rank, Type::INT4),
                (&charge.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_facts::upsert_charge", 1, changed)
}

/// Inserts or replaces the row.
pub async fn upsert_refund(
    db: &impl GenericClient,
    refund: &Refund,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- payment_facts::upsert_refund
             INSERT INTO refunds (stripe_refund_id, stripe_charge_id, stripe_payment_intent_id,
                 amount_cents, currency, reason, status, stripe_balance_transaction_id, metadata,
                 created_at, failed_at, source_created_at, source_rank, source_event_id,
                 updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
             ON CONFLICT (stripe_refund_id) DO UPDATE SET
                 stripe_charge_id = excluded.stripe_charge_id,
                 stripe_payment_intent_id = excluded.stripe_payment_intent_id,
                 amount_cents = excluded.amount_cents, currency = excluded.currency,
                 reason = excluded.reason, status = excluded.status,
                 stripe_balance_transaction_id = excluded.stripe_balance_transaction_id,
                 metadata = excluded.metadata, created_at = excluded.created_at,
                 failed_at = excluded.failed_at, source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&refund.stripe_refund_id, Type::TEXT),
                (&refund.stripe_charge_id, Type::TEXT),
                (&refund.stripe_payment_intent_id, Type::TEXT),
                (&refund.amount_cents, Type::INT8),
                (&refund.currency.as_str(), Type::TEXT),
                (&refund.reason, Type::TEXT),
                (&refund.status, Type::TEXT),
                (&refund.stripe_balance_transaction_id, Type::TEXT),
                (&refund.metadata, Type::JSONB),
                (&refund.created_at, Type::TIMESTAMPTZ),
                (&refund.failed_at, Type::TIMESTAMPTZ),
                (&refund.version.created_at, Type::TIMESTAMPTZ),
                (&refund.version.rank, Type::INT4),
                (&refund.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_facts::upsert_refund", 1, changed)
}

/// Inserts or replaces the row.
pub async fn upsert_dispute(
    db: &impl GenericClient,
    dispute: &Dispute,
    fee_cents: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- payment_facts::upsert_dispute
             INSERT INTO disputes (stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id,
                 amount_cents, currency, reason, status, fee_cents, balance_transactions,
                 funds_withdrawn_at, funds_reinstated_at, closed_at, evidence_due_by, created_at,
                 source_created_at, source_rank, source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18)
             ON CONFLICT (stripe_dispute_id) DO UPDATE SET
                 stripe_charge_id = excluded.stripe_charge_id,
                 stripe_payment_intent_id = excluded.stripe_payment_intent_id,
                 amount_cents = excluded.amount_cents, currency = excluded.currency,
                 reason = excluded.reason, status = excluded.status,
                 fee_cents = excluded.fee_cents,
                 balance_transactions = excluded.balance_transactions,
                 funds_withdrawn_at = excluded.funds_withdrawn_at,
                 funds_reinstated_at = excluded.funds_reinstated_at,
                 closed_at = excluded.closed_at, evidence_due_by = excluded.evidence_due_by,
                 created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&dispute.stripe_dispute_id, Type::TEXT),
                (&dispute.stripe_charge_id, Type::TEXT),
                (&dispute.stripe_payment_intent_id, Type::TEXT),
                (&dispute.amount_cents, Type::INT8),
                (&dispute.currency.as_str(), Type::TEXT),
                (&dispute.reason, Type::TEXT),
                (&dispute.status, Type::TEXT),
                (&fee_cents, Type::INT8),
                (&Json(&dispute.balance_transactions), Type::JSONB),
                (&dispute.funds_withdrawn_at, Type::TIMESTAMPTZ),
                (&dispute.funds_reinstated_at, Type::TIMESTAMPTZ),
                (&dispute.closed_at, Type::TIMESTAMPTZ),
                (&dispute.evidence_due_by, Type::TIMESTAMPTZ),
                (&dispute.created_at, Type::TIMESTAMPTZ),
                (&dispute.version.created_at, Type::TIMESTAMPTZ),
                (&dispute.version.rank, Type::INT4),
                (&dispute.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_facts::upsert_dispute", 1, changed)
}

/// Inserts or replaces the link.
pub async fn upsert_invoice_payment(
    db: &impl GenericClient,
    link: &InvoicePayment,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- payment_facts::upsert_invoice_payment
             INSERT INTO invoice_payments (link_key, stripe_invoice_id, stripe_payment_intent_id,
                 stripe_charge_id, stripe_invoice_payment_id, stripe_customer_id,
                 amount_paid_cents, currency, status, paid_at, source_created_at, source_rank,
                 source_event_id, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (link_key) DO UPDATE SET
                 stripe_charge_id = excluded.stripe_charge_id,
                 stripe_invoice_payment_id = excluded.stripe_invoice_payment_id,
                 stripe_customer_id = excluded.stripe_customer_id,
                 amount_paid_cents = excluded.amount_paid_cents, currency = excluded.currency,
                 status = excluded.status, paid_at = excluded.paid_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&link.link_key(), Type::TEXT),
                (&link.stripe_invoice_id, Type::TEXT),
                (&link.stripe_payment_intent_id, Type::TEXT),
                (&link.stripe_charge_id, Type::TEXT),
                (&link.stripe_invoice_payment_id, Type::TEXT),
                (&link.stripe_customer_id, Type::TEXT),
                (&link.amount_paid_cents, Type::INT8),
                (&link.currency.as_ref().map(|c| c.as_str()), Type::TEXT),
                (&link.status, Type::TEXT),
                (&link.paid_at, Type::TIMESTAMPTZ),
                (&link.version.created_at, Type::TIMESTAMPTZ),
                (&link.version.rank, Type::INT4),
                (&link.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_facts::upsert_invoice_payment", 1, changed)
}

fn intent_from_row(row: &Row) -> Result<PaymentIntent, Error> {
    let key: String = row.try_get("stripe_payment_intent_id")?;
    Ok(PaymentIntent {
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        amount_cents: row.try_get("amount_cents")?,
        amount_received_cents: row.try_get("amount_received_cents")?,
        currency: columns::currency(row, "payment_intents", &key)?,
        status: row.try_get("status")?,
        latest_charge_id: row.try_get("latest_charge_id")?,
        stripe_invoice_id: row.try_get("stripe_invoice_id")?,
        payment_method: row.try_get("payment_method")?,
        failure_code: row.try_get("failure_code")?,
        decline_code: row.try_get("decline_code")?,
        failure_message: row.try_get("failure_message")?,
        succeeded_at: row.try_get("succeeded_at")?,
        canceled_at: row.try_get("canceled_at")?,
        user_id: row.try_get("user_id")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
        stripe_payment_intent_id: key,
    })
}

fn charge_from_row(row: &Row) -> Result<Charge, Error> {
    const TABLE: &str = "payment_attempts";
    let key: String = row.try_get("stripe_charge_id")?;
    let refund_totals: BTreeMap<i64, i64> = columns::json(row, TABLE, "refund_totals", &key)?;
    let settled_in = columns::optional_currency(row, TABLE, "settlement_currency", &key)?;
    let settled: Option<i64> = row.try_get("settlement_amount_cents")?;
    let fee: Option<i64> = row.try_get("settlement_fee_cents")?;
    let exchange_rate = row.try_get("exchange_rate")?;
    let settlement =
        settled_in
            .zip(settled)
            .zip(fee)
            .map(|((currency, amount_cents), fee_cents)| Settlement {
                currency,
                amount_cents,
                fee_cents,
                exchange_rate,
            });
    Ok(Charge {
        stripe_payment_intent_id: row.try_get("stripe_payment_intent_id")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        stripe_invoice_id: row.try_get("stripe_invoice_id")?,
        amount_cents: row.try_get("amount_cents")?,
        amount_captured_cents: row.try_get("amount_captured_cents")?,
        currency: columns::currency(row, TABLE, &key)?,
        status: row.try_get("status")?,
        is_captured: row.try_get("captured")?,
        failure_code: row.try_get("failure_code")?,
        decline_code: row.try_get("decline_code")?,
        failure_message: row.try_get("failure_message")?,
        payment_method: row.try_get("payment_method")?,
        user_id: row.try_get("user_id")?,
        succeeded_at: row.try_get("succeeded_at")?,
        refund_totals,
        stripe_balance_transaction_id: row.try_get("stripe_balance_transaction_id")?,
        settlement,
        attempted_at: row.try_get("attempted_at")?,
        version: columns::version(row)?,
        stripe_charge_id: key,
    })
}

fn refund_from_row(row: &Row) -> Result<Refund, Error> {
    let key: String = row.try_get("stripe_refund_id")?;
    Ok(Refund {
        stripe_charge_id: row.try_get("stripe_charge_id")?,
        stripe_payment_intent_id: row.try_get("stripe_payment_intent_id")?,
        amount_cents: row.try_get("amount_cents")?,
        currency: columns::currency(row, "refunds", &key)?,
        reason: row.try_get("reason")?,
        status: row.try_get("status")?,
        stripe_balance_transaction_id: row.try_get("stripe_balance_transaction_id")?,
        metadata: row.try_get("metadata")?,
        created_at: row.try_get("created_at")?,
        failed_at: row.try_get("failed_at")?,
        version: columns::version(row)?,
        stripe_refund_id: key,
    })
}

fn dispute_from_row(row: &Row) -> Result<Dispute, Error> {
    const TABLE: &str = "disputes";
    let key: String = row.try_get("stripe_dispute_id")?;
    Ok(Dispute {
        stripe_charge_id: row.try_get("stripe_charge_id")?,
        stripe_payment_intent_id: row.try_get("stripe_payment_intent_id")?,
        amount_cents: row.try_get("amount_cents")?,
        currency: columns::currency(row, TABLE, &key)?,
        reason: row.try_get("reason")?,
        status: row.try_get("status")?,
        balance_transactions: columns::json(row, TABLE, "balance_transactions", &key)?,
        funds_withdrawn_at: row.try_get("funds_withdrawn_at")?,
        funds_reinstated_at: row.try_get("funds_reinstated_at")?,
        closed_at: row.try_get("closed_at")?,
        evidence_due_by: row.try_get("evidence_due_by")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
        stripe_dispute_id: key,
    })
}

fn invoice_payment_from_row(row: &Row) -> Result<InvoicePayment, Error> {
    let key: String = row.try_get("stripe_invoice_id")?;
    Ok(InvoicePayment {
        stripe_payment_intent_id: row.try_get("stripe_payment_intent_id")?,
        stripe_charge_id: row.try_get("stripe_charge_id")?,
        stripe_invoice_payment_id: row.try_get("stripe_invoice_payment_id")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        amount_paid_cents: row.try_get("amount_paid_cents")?,
        currency: columns::optional_currency(row, "invoice_payments", "currency", &key)?,
        status: row.try_get("status")?,
        paid_at: row.try_get("paid_at")?,
        version: columns::version(row)?,
        stripe_invoice_id: key,
    })
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
