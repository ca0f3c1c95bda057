-- How many subscriptions had which status at a past instant, without reading their history: each
-- change of status, and its daily sum. Both follow from subscription_versions.

CREATE TABLE subscription_status_changes (
    stripe_subscription_id TEXT NOT NULL,                       -- as in subscription_versions
    occurred_at TIMESTAMPTZ NOT NULL,                           -- when it began to have the status
    status_before TEXT,                                         -- NULL: nothing was known of it
    status_after TEXT NOT NULL,                                 -- Stripe's word
    CONSTRAINT subscription_status_changes_pkey PRIMARY KEY (stripe_subscription_id, occurred_at)
);
CREATE INDEX subscription_status_changes_occurred_at_idx
    ON subscription_status_changes (occurred_at) INCLUDE (status_before, status_after);

CREATE TABLE subscriptions_daily (
    day DATE NOT NULL,                                          -- UTC
    status TEXT NOT NULL,                                       -- Stripe's word
    gained BIGINT NOT NULL,                                     -- changes to the status
    lost BIGINT NOT NULL,                                       -- changes from the status
    CONSTRAINT subscriptions_daily_pkey PRIMARY KEY (day, status),
    CONSTRAINT subscriptions_daily_counts_check CHECK (gained >= 0 AND lost >= 0)
);

-- The status at an instant is that of the newest snapshot up to it; nothing comes after the end.
CREATE FUNCTION billing_status_changes(subscription_ids TEXT[])
RETURNS TABLE (stripe_subscription_id TEXT, occurred_at TIMESTAMPTZ, status_before TEXT, status_after TEXT)
LANGUAGE sql STABLE AS $$
    SELECT changed.stripe_subscription_id, changed.occurred_at, changed.status_before, changed.status
    FROM (
        SELECT last.stripe_subscription_id, last.occurred_at, last.status,
               lag(last.status) OVER (PARTITION BY last.stripe_subscription_id ORDER BY last.occurred_at) AS status_before
        FROM (
            SELECT DISTINCT ON (version.stripe_subscription_id, version.occurred_at)
                   version.stripe_subscription_id, version.occurred_at, version.status
            FROM (
                SELECT versions.stripe_subscription_id, versions.occurred_at, versions.status, versions.source_created_at,
                       versions.source_rank, versions.source_event_id,
                       versions.status IN ('canceled', 'incomplete_expired') AS is_end,
                       min(versions.occurred_at) FILTER (WHERE versions.status IN ('canceled', 'incomplete_expired'))
                           OVER (PARTITION BY versions.stripe_subscription_id) AS ended_at
                FROM subscription_versions AS versions
                WHERE versions.stripe_subscription_id = ANY (subscription_ids) AND NOT versions.overruled
            ) AS version
            WHERE version.is_end OR version.ended_at IS NULL OR version.occurred_at < version.ended_at
            ORDER BY version.stripe_subscription_id, version.occurred_at, version.source_created_at DESC,
                     version.source_rank DESC, version.source_event_id DESC
        ) AS last
    ) AS changed
    WHERE changed.status_before IS DISTINCT FROM changed.status
$$;

INSERT INTO subscription_status_changes (stripe_subscription_id, occurred_at, status_before, status_after)
SELECT stripe_subscription_id, occurred_at, status_before, status_after
FROM billing_status_changes((SELECT array_agg(DISTINCT stripe_subscription_id) FROM subscription_versions));

INSERT INTO subscriptions_daily (day, status, gained, lost)
SELECT day, status, sum(gained), sum(lost)
FROM (
    SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, status_after AS status, 1 AS gained, 0 AS lost
    FROM subscription_status_changes
    UNION ALL
    SELECT (occurred_at AT TIME ZONE 'UTC')::date, status_before, 0, 1
    FROM subscription_status_changes WHERE status_before IS NOT NULL
) AS moved
GROUP BY day, status;

-- Kept by the tables themselves, as mrr_daily is. Most snapshots change no status: then nothing is
-- written. The days of a statement are locked in order.
CREATE FUNCTION billing_keep_subscriptions_daily() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    moved RECORD;
BEGIN
    FOR moved IN
        SELECT day, status, sum(gained) AS gained, sum(lost) AS lost
        FROM (
            SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, status_after AS status, 1 AS gained, 0 AS lost
            FROM changed
            UNION ALL
            SELECT (occurred_at AT TIME ZONE 'UTC')::date, status_before, 0, 1 FROM changed WHERE status_before IS NOT NULL
        ) AS sides
        GROUP BY day, status ORDER BY day, status
    LOOP
        IF TG_OP = 'INSERT' THEN
            INSERT INTO subscriptions_daily AS kept (day, status, gained, lost)
            VALUES (moved.day, moved.status, moved.gained, moved.lost)
            ON CONFLICT (day, status) DO UPDATE SET
                gained = kept.gained + excluded.gained, lost = kept.lost + excluded.lost;
        ELSE
            UPDATE subscriptions_daily AS kept SET gained = kept.gained - moved.gained, lost = kept.lost - moved.lost
            WHERE kept.day = moved.day AND kept.status = moved.status;
            DELETE FROM subscriptions_daily AS kept
            WHERE kept.day = moved.day AND kept.status = moved.status AND kept.gained = 0 AND kept.lost = 0;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
-- A change that changes goes and comes: rows are only inserted and deleted.
CREATE TRIGGER subscription_status_changes_added AFTER INSERT ON subscription_status_changes
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_subscriptions_daily();
CREATE TRIGGER subscription_status_changes_removed AFTER DELETE ON subscription_status_changes
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_subscriptions_daily();

CREATE FUNCTION billing_keep_status_changes() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    touched TEXT[];
BEGIN
    CASE TG_OP
        WHEN 'TRUNCATE' THEN
            DELETE FROM subscription_status_changes;
            RETURN NULL;
        WHEN 'INSERT' THEN
            SELECT array_agg(DISTINCT stripe_subscription_id) INTO touched FROM added;
        WHEN 'DELETE' THEN
            SELECT array_agg(DISTINCT stripe_subscription_id) INTO touched FROM removed;
        ELSE
            SELECT array_agg(DISTINCT stripe_subscription_id) INTO touched
            FROM (
                (SELECT stripe_subscription_id, source_event_id, source_created_at, source_rank, occurred_at, status, overruled
                 FROM added
                 EXCEPT
                 SELECT stripe_subscription_id, source_event_id, source_created_at, source_rank, occurred_at, status, overruled
                 FROM removed)
                UNION ALL
                (SELECT stripe_subscription_id, source_event_id, source_created_at, source_rank, occurred_at, status, overruled
                 FROM removed
                 EXCEPT
                 SELECT stripe_subscription_id, source_event_id, source_created_at, source_rank, occurred_at, status, overruled
                 FROM added)
            ) AS differing;
    END CASE;
    IF touched IS NULL THEN
        RETURN NULL;
    END IF;
    DELETE FROM subscription_status_changes AS stored
    WHERE stored.stripe_subscription_id = ANY (touched) AND NOT EXISTS (
        SELECT FROM billing_status_changes(touched) AS wanted
        WHERE (wanted.stripe_subscription_id, wanted.occurred_at, wanted.status_after)
                  = (stored.stripe_subscription_id, stored.occurred_at, stored.status_after)
          AND wanted.status_before IS NOT DISTINCT FROM stored.status_before);
    INSERT INTO subscription_status_changes (stripe_subscription_id, occurred_at, status_before, status_after)
    SELECT wanted.stripe_subscription_id, wanted.occurred_at, wanted.status_before, wanted.status_after
    FROM billing_status_changes(touched) AS wanted
    -- What is left of them is as it should be.
    ON CONFLICT (stripe_subscription_id, occurred_at) DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER subscription_versions_added AFTER INSERT ON subscription_versions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_status_changes();
CREATE TRIGGER subscription_versions_changed AFTER UPDATE ON subscription_versions
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_status_changes();
CREATE TRIGGER subscription_versions_removed AFTER DELETE ON subscription_versions
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_status_changes();
CREATE TRIGGER subscription_versions_truncated AFTER TRUNCATE ON subscription_versions
    FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_status_changes();
