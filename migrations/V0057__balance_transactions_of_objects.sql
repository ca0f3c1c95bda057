-- What names its balance transactions, and what credit notes paid back outside Stripe. Nothing else says any more what a
-- payment cost and what a dispute took. The columns that said it before (settlement_* and exchange_rate of charges,
-- balance_transactions and fee_cents of disputes) stay for the release before; of them only fee_cents is still read, for
-- disputes that an earlier release has booked.

ALTER TABLE payment_attempts
    ADD COLUMN failure_balance_transaction_id TEXT,             -- txn_… that took back a charge that failed after all
    ADD COLUMN settlement_kept BOOLEAN;                         -- whether balance_transactions has what settlement_* say; NULL: not yet
ALTER TABLE refunds
    ADD COLUMN failure_balance_transaction_id TEXT,             -- txn_… that brought back a refund that failed
    ADD COLUMN source TEXT NOT NULL DEFAULT 'stripe',           -- stripe, credit_note: paid back outside Stripe; the key is the note's
    ADD COLUMN stripe_invoice_id TEXT;                          -- in_… of the credit note; NULL of a refund at Stripe
ALTER TABLE credit_notes
    ADD COLUMN out_of_band_cents BIGINT NOT NULL DEFAULT 0,     -- paid back outside Stripe, besides what refunds say
    ADD COLUMN refunds JSONB;                                   -- [{type, amount_cents, stripe_refund_id, stripe_payment_record_id}] that it covers
ALTER TABLE disputes
    ADD COLUMN balance_transaction_ids TEXT[];                  -- what moved its money: txn_…; NULL until its list is known
