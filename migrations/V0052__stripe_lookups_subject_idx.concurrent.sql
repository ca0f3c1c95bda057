-- The unfinished look-ups of a row, found whenever the row is judged again.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS stripe_lookups_subject_idx
    ON stripe_lookups (subject, kind, stripe_id, reason) WHERE done_at IS NULL AND subject <> '';
