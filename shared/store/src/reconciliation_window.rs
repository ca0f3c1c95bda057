//! Reads the ledger for the reconciliation: which objects it has in a span of time, and the rows to compare.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::Error;
use domain::money::Currency;
use domain::reconciliation::PaymentRow;

/// Objects created in `[from, to)` whose ids come after `after`, ordered by id, at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    pub from: Timestamp,
    pub to: Timestamp,
    pub after: &'a str,
    pub limit: i64,
}

/// The ids of charges, including those of which only a payment's row is left.
pub async fn charges(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::charges
         SELECT DISTINCT id FROM (
             SELECT stripe_charge_id AS id FROM payment_attempts
             WHERE attempted_at >= $1 AND attempted_at < $2
             UNION ALL
             SELECT payment_key FROM payment_history
             WHERE created_at >= $1 AND created_at < $2 AND NOT superseded
               AND (payment_key LIKE 'ch\\_%' OR payment_key LIKE 'py\\_%')
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of payment intents, including those of which only a payment's row is left.
pub async fn payment_intents(
    db: &impl GenericClient,
    slice: Slice<'_>,
) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::payment_intents
         SELECT DISTINCT id FROM (
             SELECT stripe_payment_intent_id AS id FROM payment_intents
             WHERE created_at >= $1 AND created_at < $2
             UNION ALL
             SELECT payment_key FROM payment_history
             WHERE created_at >= $1 AND created_at < $2 AND NOT superseded
               AND payment_key LIKE 'pi\\_%'
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of payment intents that were created before the span and tried in it.
pub async fn older_payments(
    db: &impl GenericClient,
    slice: Slice<'_>,
) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::older_payments
         SELECT DISTINCT id FROM (
             SELECT stripe_payment_intent_id AS id
             FROM payment_attempts JOIN payment_intents USING (stripe_payment_intent_id)
             WHERE attempted_at >= $1 AND attempted_at < $2 AND payment_intents.created_at < $1
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of refunds.
pub async fn refunds(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::refunds
         SELECT DISTINCT id FROM (
             SELECT stripe_refund_id AS id FROM refunds
             WHERE created_at >= $1 AND created_at < $2 AND source = 'stripe'
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of disputes.
pub async fn disputes(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::disputes
         SELECT DISTINCT id FROM (
             SELECT stripe_dispute_id AS id FROM disputes WHERE created_at >= $1 AND created_at < $2
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of Stripe's invoices, without drafts that were deleted there.
pub async fn invoices(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::invoices
         SELECT DISTINCT id FROM (
             SELECT stripe_invoice_id AS id FROM invoices
             WHERE created_at >= $1 AND created_at < $2 AND stripe_invoice_id IS NOT NULL
               AND NOT superseded AND deleted_at IS NULL
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of subscriptions.
pub async fn subscriptions(
    db: &impl GenericClient,
    slice: Slice<'_>,
) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::subscriptions
         SELECT DISTINCT id FROM (
             SELECT stripe_subscription_id AS id FROM subscriptions
             WHERE created_at >= $1 AND created_at < $2 AND stripe_subscription_id IS NOT NULL
               AND NOT superseded
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of balance transactions.
pub async fn balance_transactions(
    db: &impl GenericClient,
    slice: Slice<'_>,
) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::balance_transactions
         SELECT DISTINCT id FROM (
             SELECT stripe_balance_transaction_id AS id FROM balance_transactions WHERE created_at >= $1 AND created_at < $2
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of payouts.
pub async fn payouts(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::payouts
         SELECT DISTINCT id FROM (
             SELECT stripe_payout_id AS id FROM payouts WHERE created_at >= $1 AND created_at < $2
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

/// The ids of tax rates.
pub async fn tax_rates(db: &impl GenericClient, slice: Slice<'_>) -> Result<Vec<String>, Error> {
    ids(
        db,
        "-- reconciliation_window::tax_rates
         SELECT DISTINCT id FROM (
             SELECT stripe_tax_rate_id AS id FROM tax_rates WHERE created_at >= $1 AND created_at < $2
         ) AS objects
         WHERE id > $3 ORDER BY id LIMIT $4",
        slice,
    )
    .await
}

async fn ids(
    db: &impl GenericClient,
    statement: &str,
    slice: Slice<'_>,
) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            statement,
            &[
                (&slice.from, Type::TIMESTAMPTZ),
                (&slice.to, Type::TIMESTAMPTZ),
                (&slice.after, Type::TEXT),
                (&slice.limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// The rows of `payment_history` with these keys.
pub async fn payments(
    db: &impl GenericClient,
    payment_keys: &[String],
) -> Result<Vec<PaymentRow>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::payments
             SELECT payment_key, currency, COALESCE(amount_cents, 0) AS amount_cents,
                    COALESCE(refund_amount_cents, 0) AS refund_amount_cents,
                    disputed_amount_cents, COALESCE(net_amount_cents, 0) AS net_amount_cents,
                    COALESCE(stripe_fee_cents, 0) AS stripe_fee_cents, fee_source,
                    COALESCE(status, '') AS status
             FROM payment_history WHERE payment_key = ANY($1) AND NOT superseded",
            &[(&payment_keys, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(payment_from_row).collect()
}

fn payment_from_row(row: &Row) -> Result<PaymentRow, Error> {
    let currency: Option<&str> = row.try_get("currency")?;
    Ok(PaymentRow {
        payment_key: row.try_get("payment_key")?,
        // An invalid currency is a difference to report, not a row that stops the run.
        currency: currency.and_then(|currency| Currency::parse(currency).ok()),
        amount_cents: row.try_get("amount_cents")?,
        refund_amount_cents: row.try_get("refund_amount_cents")?,
        disputed_amount_cents: row.try_get("disputed_amount_cents")?,
        net_amount_cents: row.try_get("net_amount_cents")?,
        stripe_fee_cents: row.try_get("stripe_fee_cents")?,
        fee_source: row.try_get("fee_source")?,
        status: row.try_get("status")?,
    })
}

/// The stored amount that remains to be paid on each of these invoices, and whether we issued it.
pub async fn invoices_due(
    db: &impl GenericClient,
    stripe_invoice_ids: &[String],
) -> Result<BTreeMap<String, (i64, bool)>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::invoices_due
             SELECT stripe_invoice_id, COALESCE(amount_due_cents, 0) AS amount_due_cents,
                    contract_id IS NOT NULL AS is_ours
             FROM invoices WHERE stripe_invoice_id = ANY($1) AND NOT superseded",
            &[(&stripe_invoice_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let due = (row.try_get("amount_due_cents")?, row.try_get("is_ours")?);
            Ok((row.try_get("stripe_invoice_id")?, due))
        })
        .collect()
}

/// The stored recurring revenue of these subscriptions, in millionths of a minor unit.
pub async fn subscriptions_mrr(
    db: &impl GenericClient,
    stripe_subscription_ids: &[String],
) -> Result<BTreeMap<String, i64>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::subscriptions_mrr
             SELECT stripe_subscription_id, mrr_microcents
             FROM subscriptions WHERE stripe_subscription_id = ANY($1) AND NOT superseded",
            &[(&stripe_subscription_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("stripe_subscription_id")?,
                row.try_get("mrr_microcents")?,
            ))
        })
        .collect()
}

/// The sums of the payments charged in `[from, to)`, by currency. A payment without a known charge counts by the time
/// of its success. Payments outside Stripe are left out, and so are payments without a currency, which are a separate
/// difference.
pub async fn charged_sums(
    db: &impl GenericClient,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<Currency, i64>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::charged_sums
             SELECT upper(currency) AS currency, CAST(sum(amount_cents) AS bigint) AS amount_cents FROM (
                 SELECT payment_history.currency, payment_history.amount_cents
                 FROM payment_attempts JOIN payment_history USING (stripe_charge_id)
                 WHERE attempted_at >= $1 AND attempted_at < $2
                   AND payment_attempts.status = 'succeeded' AND captured AND NOT superseded
                 UNION ALL
                 SELECT currency, amount_cents FROM payment_history
                 WHERE (succeeded_at >= $1 AND succeeded_at < $2
                        OR succeeded_at IS NULL AND created_at >= $1 AND created_at < $2)
                   AND status IN ('succeeded', 'refunded', 'partially_refunded', 'disputed') AND NOT superseded
                   AND (payment_key LIKE 'pi\\_%' OR payment_key LIKE 'ch\\_%' OR payment_key LIKE 'py\\_%')
                   AND NOT EXISTS (SELECT FROM payment_attempts
                                   WHERE payment_attempts.stripe_charge_id = payment_history.stripe_charge_id
                                     AND payment_attempts.status = 'succeeded' AND captured)
             ) AS charged
             GROUP BY upper(currency)",
            &[(&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)],
        )
        .await?;
    let mut sums = BTreeMap::new();
    for row in &rows {
        let currency: Option<&str> = row.try_get("currency")?;
        if let Some(currency) = currency.and_then(|currency| Currency::parse(currency).ok()) {
            sums.insert(currency, row.try_get("amount_cents")?);
        }
    }
    Ok(sums)
}

/// An invoice whose total is not the sum of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceDifference {
    /// Stripe's id, or our number.
    pub reference: String,
    /// Whether we issued the invoice, whoever collects it.
    pub is_ours: bool,
    pub currency: Option<String>,
    /// The amount that its parts add up to.
    pub expected: String,
    /// The amount in the row.
    pub stored: String,
}

/// Invoices created in `[from, to)` that are not the sum of their lines or, when we issued them, of their totals; at
/// most `limit`. Stripe's subtotals may be stated before or after the discounts of lines, and the amount due of an
/// invoice that Stripe collects is up to Stripe. The predecessor's invoices may have no lines.
pub async fn invoice_differences(
    db: &impl GenericClient,
    from: Timestamp,
    to: Timestamp,
    limit: i64,
) -> Result<Vec<InvoiceDifference>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::invoice_differences
             WITH invoice AS (
                 SELECT CASE WHEN contract_id IS NULL THEN COALESCE(stripe_invoice_id, invoice_number)
                             ELSE invoice_number END AS reference, currency,
                        stripe_invoice_id IS NULL OR contract_id IS NOT NULL AS is_ours,
                        stripe_invoice_id IS NULL AS is_collected_by_us, status, lines_complete,
                        COALESCE(subtotal_cents, 0) AS subtotal, COALESCE(tax_cents, 0) AS tax,
                        COALESCE(discount_cents, 0) AS discount, COALESCE(total_cents, 0) AS total,
                        COALESCE(amount_paid_cents, 0) AS paid, credit_applied_cents AS credited,
                        COALESCE(amount_due_cents, 0) AS due,
                        (SELECT COALESCE(sum(CASE WHEN jsonb_typeof(line -> 'total_cents') = 'number'
                                                  THEN (line ->> 'total_cents')::numeric END),
                                         CASE WHEN stripe_invoice_id IS NOT NULL OR contract_id IS NOT NULL THEN 0 END)
                         FROM jsonb_array_elements(
                             CASE WHEN jsonb_typeof(line_items -> 'items') = 'array'
                                  THEN line_items -> 'items' ELSE '[]' END) AS line) AS lines
                 FROM invoices
                 WHERE created_at >= $1 AND created_at < $2 AND NOT superseded
                   AND (stripe_invoice_id IS NULL OR source_event_id <> '')
             ), difference AS (
                 SELECT reference, is_ours, currency, 'lines ' || lines AS expected, 'subtotal ' || subtotal AS stored
                 FROM invoice
                 WHERE lines_complete AND lines <> subtotal AND (is_ours OR lines <> subtotal + discount)
                 UNION ALL
                 SELECT reference, is_ours, currency, 'parts ' || subtotal - discount + tax, 'total ' || total
                 FROM invoice WHERE is_ours AND total <> subtotal - discount + tax
                 UNION ALL
                 SELECT reference, is_ours, currency,
                        'rest ' || CASE WHEN status IN ('paid', 'void') THEN 0
                                        ELSE total - credited - paid END,
                        'due ' || due
                 FROM invoice
                 WHERE is_collected_by_us AND due <> CASE WHEN status IN ('paid', 'void') THEN 0
                                               ELSE total - credited - paid END
             )
             SELECT DISTINCT ON (reference) reference, is_ours, currency, expected, stored FROM difference
             ORDER BY reference, expected LIMIT $3",
            &[
                (&from, Type::TIMESTAMPTZ),
                (&to, Type::TIMESTAMPTZ),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(InvoiceDifference {
                reference: row.try_get("reference")?,
                is_ours: row.try_get("is_ours")?,
                currency: row.try_get("currency")?,
                expected: row.try_get("expected")?,
                stored: row.try_get("stored")?,
            })
        })
        .collect()
}

/// Numbers that were taken from their series but are on no invoice, at most `limit`. The first number of a series is
/// its name, the second ends with `-2`.
pub async fn missing_numbers(db: &impl GenericClient, limit: i64) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::missing_numbers
             SELECT number FROM invoice_number_counters,
                  LATERAL (SELECT CASE place WHEN 1 THEN series ELSE series || '-' || place END AS number
                           FROM generate_series(1, next_value - 1) AS place) AS taken
             WHERE NOT EXISTS (SELECT FROM invoices WHERE invoice_number = number)
             ORDER BY number LIMIT $1",
            &[(&limit, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("number")?)).collect()
}

/// Two payments that may be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleDouble {
    /// The key of the payment outside Stripe.
    pub outside_stripe: String,
    /// The key of the payment at Stripe that is of no invoice.
    pub at_stripe: String,
    pub currency: String,
    /// Of each, in minor units.
    pub amount_cents: i64,
}

/// Payments outside Stripe in `[from, to)` whose customer paid the same amount at Stripe within seven days, for no
/// invoice; at most `limit`.
pub async fn possible_double_payments(
    db: &impl GenericClient,
    from: Timestamp,
    to: Timestamp,
    limit: i64,
) -> Result<Vec<PossibleDouble>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_window::possible_double_payments
             SELECT DISTINCT ON (outside.payment_key) outside.payment_key AS outside_stripe,
                    other.payment_key AS at_stripe, outside.currency, outside.amount_cents
             FROM payment_history AS outside
             JOIN payment_history AS other
                 ON other.stripe_customer_id = outside.stripe_customer_id AND other.currency = outside.currency
                 AND other.amount_cents = outside.amount_cents
                 AND other.succeeded_at BETWEEN outside.succeeded_at - interval '7 days'
                                            AND outside.succeeded_at + interval '7 days'
             WHERE outside.succeeded_at >= $1 - interval '7 days' AND outside.succeeded_at < $2
               AND outside.payment_method = 'out_of_band' AND NOT outside.superseded
               AND other.stripe_invoice_id IS NULL AND NOT other.superseded
               AND other.payment_method IS DISTINCT FROM 'out_of_band' AND other.payment_key NOT LIKE 'manual:%'
             ORDER BY outside.payment_key, other.payment_key LIMIT $3",
            &[
                (&from, Type::TIMESTAMPTZ),
                (&to, Type::TIMESTAMPTZ),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(PossibleDouble {
                outside_stripe: row.try_get("outside_stripe")?,
                at_stripe: row.try_get("at_stripe")?,
                currency: row.try_get("currency")?,
                amount_cents: row.try_get("amount_cents")?,
            })
        })
        .collect()
}
