-- What customers who left had paid, per day, and when and with what somebody had left who came back:
-- churn in thirty days then costs thirty rows and those who came back in them, not all who left.

-- NULL in both tables: as the movements say. So are the rows from before this file, and those that a transaction of the
-- release before still writes; the days are filled by V0035.
ALTER TABLE mrr_daily
    ADD COLUMN churned_microcents BIGINT;                       -- Σ before_microcents of the day's churn; NULL: not summed yet
ALTER TABLE mrr_movements
    ADD COLUMN churned_at TIMESTAMPTZ,                          -- of a reactivation: when the customer had left
    ADD COLUMN churned_microcents BIGINT;                       -- of a reactivation: what it had paid until then

-- As in V0014, with the new column. What is added to NULL stays NULL.
CREATE OR REPLACE FUNCTION billing_keep_mrr_daily() RETURNS TRIGGER LANGUAGE plpgsql AS $$
DECLARE
    gone RECORD;
    remaining BIGINT;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM mrr_daily;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO mrr_daily AS kept (day, currency, delta_microcents, customers_gained, customers_lost, movements,
                                       churned_microcents)
        SELECT (occurred_at AT TIME ZONE 'UTC')::date, currency, sum(delta_microcents),
               count(*) FILTER (WHERE kind IN ('new', 'reactivation')), count(*) FILTER (WHERE kind = 'churn'), count(*),
               COALESCE(sum(before_microcents) FILTER (WHERE kind = 'churn'), 0)
        FROM added GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (day, currency) DO UPDATE SET
            delta_microcents = kept.delta_microcents + excluded.delta_microcents,
            customers_gained = kept.customers_gained + excluded.customers_gained,
            customers_lost = kept.customers_lost + excluded.customers_lost,
            movements = kept.movements + excluded.movements,
            churned_microcents = kept.churned_microcents + excluded.churned_microcents;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        -- Day by day, each by its key: a join might read the whole rollup for one movement.
        FOR gone IN
            SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, currency, sum(delta_microcents) AS delta_microcents,
                   count(*) FILTER (WHERE kind IN ('new', 'reactivation')) AS customers_gained,
                   count(*) FILTER (WHERE kind = 'churn') AS customers_lost, count(*) AS movements,
                   COALESCE(sum(before_microcents) FILTER (WHERE kind = 'churn'), 0) AS churned_microcents
            FROM removed GROUP BY 1, 2 ORDER BY 1, 2
        LOOP
            UPDATE mrr_daily SET
                delta_microcents = mrr_daily.delta_microcents - gone.delta_microcents,
                customers_gained = mrr_daily.customers_gained - gone.customers_gained,
                customers_lost = mrr_daily.customers_lost - gone.customers_lost,
                movements = mrr_daily.movements - gone.movements,
                churned_microcents = mrr_daily.churned_microcents - gone.churned_microcents
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

-- Σ before_microcents of the churn of a day. Volatile, so that it sees what was committed while its caller waited for the
-- day's row.
CREATE FUNCTION billing_churned_on(of_day DATE, of_currency TEXT) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT COALESCE(sum(before_microcents), 0) FROM mrr_movements
            WHERE currency = of_currency AND kind = 'churn' AND occurred_at >= of_day::timestamp AT TIME ZONE 'UTC'
              AND occurred_at < (of_day + 1)::timestamp AT TIME ZONE 'UTC');
END
$$;
