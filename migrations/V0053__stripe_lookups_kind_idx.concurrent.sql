-- The unfinished look-ups that one fetch answers.
CREATE INDEX CONCURRENTLY IF NOT EXISTS stripe_lookups_kind_idx
    ON stripe_lookups (kind, stripe_id) WHERE done_at IS NULL;
