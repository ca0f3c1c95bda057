-- The invoices that a payment record pays, found for every event about one of them.
CREATE INDEX CONCURRENTLY IF NOT EXISTS invoice_payments_stripe_payment_record_id_idx
    ON invoice_payments (stripe_payment_record_id) WHERE stripe_payment_record_id IS NOT NULL;
