-- What makes figures provisional.
CREATE INDEX CONCURRENTLY IF NOT EXISTS stripe_lookups_figure_idx
    ON stripe_lookups (figure_at) INCLUDE (reason, currency, amount_cents, due_at, requested_at, state, subject)
    WHERE done_at IS NULL AND figure_at IS NOT NULL;
