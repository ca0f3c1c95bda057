-- Payments of invoices that have no intent and no charge: payment records, and what no record stands for.

ALTER TABLE invoice_payments
    ADD COLUMN stripe_payment_record_id TEXT,                   -- a payment that was reported to Stripe
    ADD COLUMN reported_by TEXT,                                -- who reported it, in Stripe's words; NULL until it was fetched
    ADD COLUMN is_default BOOLEAN;                              -- whether Stripe made it with the invoice

ALTER TABLE invoices
    ADD COLUMN names_payment BOOLEAN,                           -- whether the snapshot names its payment; NULL before V0048
    ADD COLUMN outside_stripe_stated_at TIMESTAMPTZ,            -- time of the latest snapshot that states the next
    ADD COLUMN outside_stripe_stated_cents BIGINT;              -- what came outside Stripe, minor units of currency
