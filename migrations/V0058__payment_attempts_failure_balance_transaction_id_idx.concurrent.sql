-- A balance transaction that comes by itself leads to what names it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS payment_attempts_failure_balance_transaction_id_idx
    ON payment_attempts (failure_balance_transaction_id) WHERE failure_balance_transaction_id IS NOT NULL;
