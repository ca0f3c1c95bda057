-- Recurring revenue per day, so that a figure of the past costs days and not movements; and what a
-- snapshot of a subscription says beyond its counted revenue: whether it is set to end, and what it
-- would be worth under the other ways to treat discounts.

CREATE TABLE mrr_daily (
    day DATE NOT NULL,                                          -- UTC
    currency TEXT NOT NULL,                                     -- ISO 4217, upper case
    delta_microcents BIGINT NOT NULL,                           -- Σ delta_microcents of the day's movements
    customers_gained BIGINT NOT NULL,                           -- movements from nothing: new, reactivation
    customers_lost BIGINT NOT NULL,                             -- movements to nothing: churn
    movements BIGINT NOT NULL CONSTRAINT mrr_daily_movements_check
        CHECK (movements >= 0),                                 -- how many; a day without any has no row
    CONSTRAINT mrr_daily_pkey PRIMARY KEY (day, currency)
);

INSERT INTO mrr_daily (day, currency, delta_microcents, customers_gained, customers_lost, movements)
SELECT (occurred_at AT TIME ZONE 'UTC')::date, currency, sum(delta_microcents),
       count(*) FILTER (WHERE kind IN ('new', 'reactivation')), count(*) FILTER (WHERE kind = 'churn'), count(*)
FROM mrr_movements GROUP BY 1, 2;

-- Kept by the table itself, so that no writer can forget it. The days of a statement are locked in
-- order; two statements that still meet crosswise are a deadlock, which the ledger runs again.
CREATE FUNCTION billing_keep_mrr_daily() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    gone RECORD;
    remaining BIGINT;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM mrr_daily;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO mrr_daily AS kept (day, currency, delta_microcents, customers_gained, customers_lost, movements)
        SELECT (occurred_at AT TIME ZONE 'UTC')::date, currency, sum(delta_microcents),
               count(*) FILTER (WHERE kind IN ('new', 'reactivation')), count(*) FILTER (WHERE kind = 'churn'), count(*)
        FROM added GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (day, currency) DO UPDATE SET
            delta_microcents = kept.delta_microcents + excluded.delta_microcents,
            customers_gained = kept.customers_gained + excluded.customers_gained,
            customers_lost = kept.customers_lost + excluded.customers_lost,
            movements = kept.movements + excluded.movements;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        -- Day by day, each by its key: a join might read the whole rollup for one movement.
        FOR gone IN
            SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, sum(delta_microcents) AS delta_microcents,
                   count(*) FILTER (WHERE kind IN ('new', 'reactivation')) AS customers_gained,
                   count(*) FILTER (WHERE kind = 'churn') AS customers_lost, count(*) AS movements
            FROM removed GROUP BY 1, 2 ORDER BY 1, 2
        LOOP
            UPDATE mrr_daily SET
                delta_microcents = mrr_daily.delta_microcents - gone.delta_microcents,
                customers_gained = mrr_daily.customers_gained - gone.customers_gained,
                customers_lost = mrr_daily.customers_lost - gone.customers_lost,
                movements = mrr_daily.movements - gone.movements
            WHERE mrr_daily.day = gone.day AND mrr_daily.currency = gone.currency
            RETURNING mrr_daily.movements INTO STRICT remaining;
            IF remaining = 0 THEN
                DELETE FROM mrr_daily WHERE mrr_daily.day = gone.day AND mrr_daily.currency = gone.currency;
            END IF;
        END LOOP;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER mrr_movements_added AFTER INSERT ON mrr_movements
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_mrr_daily();
CREATE TRIGGER mrr_movements_changed AFTER UPDATE ON mrr_movements
    REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_mrr_daily();
CREATE TRIGGER mrr_movements_removed AFTER DELETE ON mrr_movements
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_mrr_daily();
CREATE TRIGGER mrr_movements_truncated AFTER TRUNCATE ON mrr_movements
    FOR EACH STATEMENT EXECUTE FUNCTION billing_keep_mrr_daily();

-- A window's movements with what the bridge needs of each, from the index alone.
DROP INDEX mrr_movements_occurred_at_currency_idx;
CREATE INDEX mrr_movements_occurred_at_currency_idx ON mrr_movements (occurred_at, currency)
    INCLUDE (kind, delta_microcents, stripe_customer_id, before_microcents, after_microcents);

-- NULL in the three below: as mrr_microcents says, for snapshots from before these columns.
ALTER TABLE subscription_versions
    ADD COLUMN set_to_cancel BOOLEAN NOT NULL DEFAULT false,    -- to end at its period's end or at a date
    ADD COLUMN is_counted BOOLEAN,                              -- whether its status counts towards MRR
    ADD COLUMN all_discounts_microcents BIGINT,                 -- potential_mrr_microcents less every coupon
    ADD COLUMN no_discounts_microcents BIGINT;                  -- potential_mrr_microcents without any coupon
UPDATE subscription_versions SET set_to_cancel = true
FROM subscriptions
WHERE COALESCE(subscriptions.stripe_subscription_id, 'legacy:' || subscriptions.id)
          = subscription_versions.stripe_subscription_id
  AND subscriptions.source_event_id = subscription_versions.source_event_id AND NOT subscriptions.superseded
  AND (subscriptions.cancel_at_period_end OR subscriptions.cancel_at IS NOT NULL)
  AND subscription_versions.status NOT IN ('canceled', 'incomplete_expired');
-- What trial and committed MRR of a past instant are read from.
CREATE INDEX subscription_versions_pending_idx ON subscription_versions (currency, occurred_at)
    WHERE status = 'trialing' OR set_to_cancel;
-- What changed in a period.
CREATE INDEX subscription_versions_occurred_at_currency_idx ON subscription_versions (occurred_at, currency);
