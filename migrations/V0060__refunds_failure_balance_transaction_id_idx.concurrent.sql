-- A balance transaction that comes by itself leads to what names it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_failure_balance_transaction_id_idx
    ON refunds (failure_balance_transaction_id) WHERE failure_balance_transaction_id IS NOT NULL;
