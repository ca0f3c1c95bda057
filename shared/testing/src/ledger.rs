//! What invariant M (`docs/ledger.md`) compares: the ledger as text.

use tokio_postgres::{Error, GenericClient};

/// The statement of [`ledger_rows`], for who asks often.
pub const LEDGER: &str = "
    SELECT name || ' ' || row::text AS line FROM (
        SELECT 'customers' AS name, to_jsonb(t) - 'updated_at' AS row FROM customers t
        UNION ALL SELECT 'users', to_jsonb(t) - 'updated_at' - 'created_at' FROM users t
        UNION ALL SELECT 'checkout_sessions', to_jsonb(t) - 'updated_at' FROM checkout_sessions t
        UNION ALL SELECT 'subscriptions', to_jsonb(t) - 'id' - 'updated_at' FROM subscriptions t
        UNION ALL SELECT 'subscription_versions', to_jsonb(t) FROM subscription_versions t
        UNION ALL SELECT 'subscription_status_changes', to_jsonb(t) FROM subscription_status_changes t
        UNION ALL SELECT 'subscriptions_daily', to_jsonb(t) FROM subscriptions_daily t
        UNION ALL SELECT 'mrr_movements', to_jsonb(t) - 'id' FROM mrr_movements t
        UNION ALL SELECT 'mrr_daily', to_jsonb(t) FROM mrr_daily t
        UNION ALL SELECT 'invoices', to_jsonb(t) - 'id' - 'updated_at' FROM invoices t
        UNION ALL SELECT 'credit_notes', to_jsonb(t) - 'updated_at' FROM credit_notes t
        UNION ALL SELECT 'payment_intents', to_jsonb(t) - 'updated_at' FROM payment_intents t
        UNION ALL SELECT 'payment_attempts', to_jsonb(t) - 'updated_at' FROM payment_attempts t
        UNION ALL SELECT 'refunds', to_jsonb(t) - 'updated_at' FROM refunds t
        UNION ALL SELECT 'disputes', to_jsonb(t) - 'updated_at' FROM disputes t
        UNION ALL SELECT 'invoice_payments', to_jsonb(t) - 'updated_at' FROM invoice_payments t
        UNION ALL SELECT 'payment_history', to_jsonb(t) - 'id' - 'updated_at' - 'invoice_id'
            || jsonb_build_object('invoice', (SELECT stripe_invoice_id FROM invoices
                                              WHERE invoices.id = t.invoice_id))
            FROM payment_history t
        UNION ALL SELECT 'revenue_entries', to_jsonb(t) FROM revenue_entries t
        UNION ALL SELECT 'revenue_daily', to_jsonb(t) FROM revenue_daily t
        UNION ALL SELECT 'credits', to_jsonb(t) - 'id' - 'invoice_id' FROM credits t
        UNION ALL SELECT 'prices', to_jsonb(t) - 'updated_at' FROM prices t
        UNION ALL SELECT 'coupons', to_jsonb(t) - 'updated_at' FROM coupons t
        UNION ALL SELECT 'discounts', to_jsonb(t) - 'updated_at' FROM discounts t
        UNION ALL SELECT 'balance_transactions', to_jsonb(t) - 'updated_at' FROM balance_transactions t
        UNION ALL SELECT 'balance_daily', to_jsonb(t) FROM balance_daily t
        UNION ALL SELECT 'payouts', to_jsonb(t) - 'updated_at' FROM payouts t
        UNION ALL SELECT 'tax_rates', to_jsonb(t) - 'updated_at' FROM tax_rates t
        UNION ALL SELECT 'fetched_objects', to_jsonb(t) FROM fetched_objects t
        UNION ALL SELECT 'stripe_lookups', to_jsonb(t) - 'id' FROM stripe_lookups t
        UNION ALL SELECT 'stripe_events', to_jsonb(t) - 'received_at' - 'rank' - 'state_digest' - 'previous_digest' FROM stripe_events t
        UNION ALL SELECT 'outbox', jsonb_build_object('key', dedupe_key) FROM outbox t
    ) AS ledger ORDER BY 1";

/// A line for each row of the ledger, sorted: its table and its columns but for surrogate ids and the times we set. Two
/// ledgers are the same when their lines are.
pub async fn ledger_rows(db: &impl GenericClient) -> Result<Vec<String>, Error> {
    let rows = db.query_typed(LEDGER, &[]).await?;
    rows.iter().map(|row| row.try_get("line")).collect()
}

/// The rows that are expected and not there, and those that are there and not expected.
#[must_use]
pub fn differing_rows<'a>(
    expected: &'a [String],
    actual: &'a [String],
) -> (Vec<&'a String>, Vec<&'a String>) {
    let without = |rows: &'a [String], others: &[String]| {
        rows.iter().filter(|row| !others.contains(row)).collect()
    };
    (without(expected, actual), without(actual, expected))
}

/// What a row does not show and no unfinished look-up names, and the other way round. A ledger has none.
pub async fn unmatched_parts(db: &impl GenericClient) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "WITH part AS (
                 SELECT stripe_customer_id AS subject, unnest(partial) AS reason FROM customers
                 UNION ALL SELECT stripe_subscription_id, unnest(partial) FROM subscriptions WHERE NOT superseded
                 UNION ALL SELECT stripe_invoice_id, unnest(partial) FROM invoices WHERE NOT superseded
                 UNION ALL SELECT stripe_credit_note_id, unnest(partial) FROM credit_notes
                 UNION ALL SELECT stripe_payment_intent_id, unnest(partial) FROM payment_intents
                 UNION ALL SELECT stripe_charge_id, unnest(partial) FROM payment_attempts
                 UNION ALL SELECT stripe_refund_id, unnest(partial) FROM refunds
                 UNION ALL SELECT stripe_dispute_id, unnest(partial) FROM disputes
                 UNION ALL SELECT stripe_payout_id, unnest(partial) FROM payouts
             ), wanted AS (
                 SELECT DISTINCT subject, reason FROM stripe_lookups WHERE done_at IS NULL
             )
             SELECT concat_ws(' ', subject, reason, CASE WHEN wanted IS NULL THEN 'without a look-up'
                                                         ELSE 'without a row' END) AS line
             FROM part FULL JOIN wanted USING (subject, reason)
             WHERE part IS NULL OR wanted IS NULL ORDER BY 1",
            &[],
        )
        .await?;
    rows.iter().map(|row| row.try_get("line")).collect()
}
