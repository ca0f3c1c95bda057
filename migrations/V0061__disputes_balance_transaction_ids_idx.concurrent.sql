-- A balance transaction that comes by itself leads to what names it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS disputes_balance_transaction_ids_idx
    ON disputes USING gin (balance_transaction_ids);
