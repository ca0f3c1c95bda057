-- Aging as of an instant looks for what was given up after it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS invoices_uncollectible_at_idx ON invoices (uncollectible_at)
    WHERE uncollectible_at IS NOT NULL;
