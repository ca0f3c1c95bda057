-- A balance transaction that comes by itself leads to what names it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS refunds_stripe_balance_transaction_id_idx
    ON refunds (stripe_balance_transaction_id) WHERE stripe_balance_transaction_id IS NOT NULL;
