-- Charges whose settlement has not become a balance transaction. A later release drops the index with the columns.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payment_attempts_unkept_idx ON payment_attempts (stripe_charge_id)
    WHERE settlement_currency IS NOT NULL AND settlement_kept IS NULL;
