-- A revenue entry says itself when it happened: what was taken up to an instant, and what a report
-- of a period sums, are read from the entries alone.

ALTER TABLE revenue_entries
    ADD COLUMN occurred_at TIMESTAMPTZ;                         -- the instant; day is its UTC day
UPDATE revenue_entries SET occurred_at = dated.occurred_at
FROM dated_revenue_entries AS dated
WHERE (dated.payment_key, dated.kind, dated.source_id)
    = (revenue_entries.payment_key, revenue_entries.kind, revenue_entries.source_id);
-- Those the view does not date: failed attempts, and payments that failed without one.
UPDATE revenue_entries SET occurred_at = COALESCE(
    (SELECT attempted_at FROM payment_attempts WHERE stripe_charge_id = source_id),
    (SELECT created_at FROM payment_history WHERE payment_history.payment_key = revenue_entries.payment_key),
    occurred_at)
WHERE kind = 'failed';
ALTER TABLE revenue_entries ALTER COLUMN occurred_at SET NOT NULL;

CREATE INDEX revenue_entries_occurred_at_currency_idx
    ON revenue_entries (occurred_at, currency) INCLUDE (kind, amount_cents, is_estimated);

-- What a statement does not read of it is not joined.
CREATE OR REPLACE VIEW dated_revenue_entries AS
SELECT entry.payment_key, entry.kind, entry.source_id, entry.day, entry.currency, entry.amount_cents, entry.is_estimated,
       payment_history.stripe_customer_id, payment_history.user_id,
       payment_history.amount_cents AS payment_amount_cents,
       refunds.reason AS refund_reason,
       entry.occurred_at
FROM revenue_entries AS entry
LEFT JOIN payment_history ON payment_history.payment_key = entry.payment_key
LEFT JOIN refunds ON entry.kind = 'refund' AND refunds.stripe_refund_id = entry.source_id;
