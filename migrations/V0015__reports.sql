-- What the reports for finance read: revenue entries with their instant and whose they are, and
-- indexes on the dates the reports go by.

-- The day of an entry is in the table; its instant is that of what is behind it.
CREATE VIEW dated_revenue_entries AS
SELECT entry.payment_key, entry.kind, entry.source_id, entry.day, entry.currency, entry.amount_cents, entry.is_estimated,
       payment_history.stripe_customer_id, payment_history.user_id,
       payment_history.amount_cents AS payment_amount_cents,
       refunds.reason AS refund_reason,
       COALESCE(
           CASE
               WHEN entry.kind IN ('gross', 'fee') THEN payment_history.succeeded_at
               WHEN entry.kind = 'refund' THEN COALESCE(
                   refunds.created_at,
                   -- A refund known from its charge only: '<charge>@<second>'.
                   to_timestamp(substring(entry.source_id FROM '@([0-9]+)$')::bigint))
               WHEN entry.kind IN ('dispute', 'dispute_fee')
                   THEN COALESCE(disputes.funds_withdrawn_at, disputes.closed_at)
               WHEN entry.kind IN ('dispute_reinstated', 'dispute_fee_reinstated') THEN disputes.funds_reinstated_at
           END,
           entry.day::timestamp AT TIME ZONE 'UTC') AS occurred_at
FROM revenue_entries AS entry
LEFT JOIN payment_history ON payment_history.payment_key = entry.payment_key
LEFT JOIN refunds ON entry.kind = 'refund' AND refunds.stripe_refund_id = entry.source_id
LEFT JOIN disputes ON entry.kind LIKE 'dispute%' AND disputes.stripe_dispute_id = entry.source_id;

CREATE INDEX disputes_opened_at_idx ON disputes ((COALESCE(funds_withdrawn_at, created_at)));
CREATE INDEX invoices_issued_at_idx ON invoices ((COALESCE(finalized_at, created_at)), currency) WHERE NOT superseded;
CREATE INDEX invoices_paid_at_idx ON invoices (paid_at) WHERE paid_at IS NOT NULL;
CREATE INDEX invoices_voided_at_idx ON invoices (voided_at) WHERE voided_at IS NOT NULL;
