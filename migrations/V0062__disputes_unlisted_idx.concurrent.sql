-- Disputes whose list of balance transactions is not in its column: those of earlier releases, and those nobody has shown.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_unlisted_idx ON disputes (stripe_dispute_id)
    WHERE balance_transaction_ids IS NULL;
