-- What names its balance transactions: nothing else says any more what a payment cost and what a dispute took. The columns
-- that said it before (settlement_*, exchange_rate of charges, balance_transactions and fee_cents of disputes) stay for the
-- release before, and are not read.

ALTER TABLE payment_attempts
    ADD COLUMN failure_balance_transaction_id TEXT,             -- txn_… that took back a charge that failed after all
    ADD COLUMN settlement_kept BOOLEAN;                         -- whether balance_transactions has what settlement_* say; NULL: not yet
ALTER TABLE refunds
    ADD COLUMN failure_balance_transaction_id TEXT;             -- txn_… that brought back a refund that failed
ALTER TABLE disputes
    ADD COLUMN balance_transaction_ids TEXT[];                  -- what moved its money: txn_…; NULL until its list is known
