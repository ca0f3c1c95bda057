-- The invoices and credit notes that have asked for a tax rate, found when the rate becomes known.
CREATE INDEX CONCURRENTLY IF NOT EXISTS stripe_lookups_tax_rate_idx
    ON stripe_lookups (stripe_id) WHERE kind = 'tax_rate';
