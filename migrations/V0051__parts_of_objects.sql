-- What a row does not show of its object, and the look-ups that bring it: each names the row that waits for it, and one
-- fetch answers all of a kind and id. So several rows may wait for one object, which the old index forbids. The function
-- that writes look-ups for the release before does without it from now on.

ALTER TABLE customers ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';           -- what the row does not show, sorted
ALTER TABLE checkout_sessions ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';   -- what the row does not show, sorted
ALTER TABLE subscriptions
    ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}',            -- what the row does not show, sorted
    ADD COLUMN items_shown_at TIMESTAMPTZ,                      -- time of the snapshot that shows the items
    ADD COLUMN items_complete BOOLEAN;                          -- whether it shows all of them; NULL before V0051
ALTER TABLE subscription_versions
    ADD COLUMN missing JSONB NOT NULL DEFAULT '[]';             -- what its amounts need and nobody knows
ALTER TABLE invoices ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';            -- what the row does not show, sorted
ALTER TABLE credit_notes ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';        -- what the row does not show, sorted
ALTER TABLE payment_intents ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';     -- what the row does not show, sorted
ALTER TABLE payment_attempts ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';    -- what the row does not show, sorted
ALTER TABLE refunds ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';             -- what the row does not show, sorted
ALTER TABLE disputes ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';            -- what the row does not show, sorted
ALTER TABLE invoice_payments ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';    -- what the row does not show, sorted
ALTER TABLE prices ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';              -- what the row does not show, sorted
ALTER TABLE coupons ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';             -- what the row does not show, sorted
ALTER TABLE discounts ADD COLUMN partial TEXT[] NOT NULL DEFAULT '{}';           -- what the row does not show, sorted

ALTER TABLE stripe_lookups
    ADD COLUMN subject TEXT NOT NULL DEFAULT '',                -- the object whose row waits; '' before V0051
    ADD COLUMN subject_type TEXT,                               -- Stripe's name of its kind
    ADD COLUMN event_id TEXT,                                   -- what the row shows: event, or fetch
    ADD COLUMN due_at TIMESTAMPTZ,                              -- not before; until then an event may bring it
    ADD COLUMN currency TEXT,                                   -- of amount_cents
    ADD COLUMN figure_at TIMESTAMPTZ,                           -- when the figure counts it; NULL when no figure does
    ADD COLUMN amount_cents BIGINT,                             -- what the figure may be wrong by, minor units
    ADD COLUMN state TEXT NOT NULL DEFAULT 'open';              -- of an unfinished one
ALTER TABLE stripe_lookups ADD CONSTRAINT stripe_lookups_state_check
    CHECK (state IN ('open', 'failing', 'absent', 'done')) NOT VALID;

DO $$
DECLARE
    definition TEXT;
BEGIN
    FOR definition IN SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname ~ '^billing_close_[0-9a-f]{8}$' LOOP
        EXECUTE regexp_replace(definition,
            'ON CONFLICT \(kind, stripe_id, reason\) WHERE done_at IS NULL DO UPDATE SET\s+requested_at = least\([^)]*\)',
            'ON CONFLICT DO NOTHING');
    END LOOP;
END
$$;
-- contract: unused since V0050
-- With the functions that named it, in one transaction; the table has a row for each unanswered look-up only.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX stripe_lookups_open_key;
