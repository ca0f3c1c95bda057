-- History: what the predecessor's rows say, in the tables our figures are read from. Nothing here
-- comes from an event, so the version columns keep their defaults and any snapshot replaces these.
-- On a database without the predecessor's rows it does nothing. Superseded rows count nowhere.

CREATE TEMPORARY TABLE seeded_payments ON COMMIT DROP AS
SELECT payment_history.id, payment_key, stripe_payment_intent_id, stripe_charge_id, payment_history.user_id,
       NULLIF(users.stripe_customer_id, '') AS stripe_customer_id, amount_cents, currency, status, payment_method, stripe_fee_cents,
       failure_code, failure_message, payment_history.created_at, succeeded_at,
       -- `refunded` without an amount means all of it.
       CASE WHEN succeeded_at IS NULL THEN 0
            WHEN COALESCE(refund_amount_cents, 0) > 0 THEN refund_amount_cents
            WHEN status = 'refunded' THEN amount_cents
            ELSE 0 END AS refunded_cents,
       COALESCE(refunded_at, payment_history.created_at) AS refunded_at
FROM payment_history LEFT JOIN users ON users.id = payment_history.user_id
WHERE NOT superseded;

INSERT INTO payment_intents
    (stripe_payment_intent_id, stripe_customer_id, amount_cents, amount_received_cents, currency, status,
     latest_charge_id, payment_method, failure_code, failure_message, succeeded_at, user_id, created_at)
SELECT stripe_payment_intent_id, stripe_customer_id, amount_cents,
       CASE WHEN succeeded_at IS NOT NULL THEN amount_cents END, currency,
       CASE WHEN succeeded_at IS NOT NULL THEN 'succeeded'
            WHEN status = 'failed' THEN 'requires_payment_method'
            WHEN status = 'pending' THEN 'processing'
            ELSE status END,
       stripe_charge_id, payment_method, failure_code, failure_message, succeeded_at, user_id, created_at
FROM seeded_payments WHERE stripe_payment_intent_id IS NOT NULL;

-- Two payments cannot share a charge; should the predecessor say so, the first one keeps it.
INSERT INTO payment_attempts
    (stripe_charge_id, stripe_payment_intent_id, stripe_customer_id, amount_cents, amount_captured_cents,
     refund_totals, currency, status, captured, failure_code, failure_message, payment_method,
     attempted_at, succeeded_at, user_id)
SELECT DISTINCT ON (stripe_charge_id)
       stripe_charge_id, stripe_payment_intent_id, stripe_customer_id, amount_cents,
       CASE WHEN succeeded_at IS NOT NULL THEN amount_cents ELSE 0 END,
       CASE WHEN refunded_cents > 0
            THEN jsonb_build_object(floor(extract(epoch FROM refunded_at))::bigint::text, refunded_cents)
            ELSE '{}' END,
       currency,
       CASE WHEN succeeded_at IS NOT NULL THEN 'succeeded'
            WHEN status IN ('failed', 'canceled') THEN 'failed'
            ELSE status END,
       succeeded_at IS NOT NULL, failure_code, failure_message, payment_method,
       created_at, succeeded_at, user_id
FROM seeded_payments WHERE stripe_charge_id IS NOT NULL
ORDER BY stripe_charge_id, id;

INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency, amount_cents, is_estimated)
SELECT payment_key, 'gross', payment_key, (succeeded_at AT TIME ZONE 'UTC')::date, currency, amount_cents, false
FROM seeded_payments WHERE succeeded_at IS NOT NULL
UNION ALL
SELECT payment_key, 'fee', payment_key, (succeeded_at AT TIME ZONE 'UTC')::date, currency, COALESCE(stripe_fee_cents, 0), true
FROM seeded_payments WHERE succeeded_at IS NOT NULL
UNION ALL
SELECT payment_key, 'refund', COALESCE(stripe_charge_id, payment_key) || '@' || floor(extract(epoch FROM refunded_at))::bigint,
       (refunded_at AT TIME ZONE 'UTC')::date, currency, refunded_cents, false
FROM seeded_payments WHERE refunded_cents > 0
UNION ALL
SELECT payment_key, 'failed', COALESCE(stripe_charge_id, payment_key), (created_at AT TIME ZONE 'UTC')::date, currency, 0, false
FROM seeded_payments WHERE status = 'failed';

INSERT INTO revenue_daily
    (day, currency, gross_cents, fees_cents, refunds_cents, payments, failed_payments, estimated_fees)
SELECT day, currency,
       COALESCE(sum(amount_cents) FILTER (WHERE kind = 'gross'), 0),
       COALESCE(sum(amount_cents) FILTER (WHERE kind = 'fee'), 0),
       COALESCE(sum(amount_cents) FILTER (WHERE kind = 'refund'), 0),
       count(*) FILTER (WHERE kind = 'gross'),
       count(*) FILTER (WHERE kind = 'failed'),
       count(*) FILTER (WHERE kind = 'fee' AND is_estimated)
FROM revenue_entries GROUP BY day, currency;

-- Recurring revenue. The predecessor's subscriptions have no currency: that of the user's newest
-- invoice or payment, else its default. Where the customer is not known the user stands for it.
CREATE TEMPORARY TABLE seeded_subscriptions ON COMMIT DROP AS
SELECT subscriptions.id, COALESCE(stripe_subscription_id, 'legacy:' || subscriptions.id) AS subscription_key,
       NULLIF(users.stripe_customer_id, '') AS stripe_customer_id,
       COALESCE(NULLIF(users.stripe_customer_id, ''), 'user:' || subscriptions.user_id, 'legacy:' || subscriptions.id) AS customer_key,
       COALESCE(
           (SELECT currency FROM invoices WHERE invoices.user_id = subscriptions.user_id AND NOT superseded
            ORDER BY created_at DESC, id DESC LIMIT 1),
           (SELECT currency FROM payment_history WHERE payment_history.user_id = subscriptions.user_id AND NOT superseded
            ORDER BY created_at DESC, id DESC LIMIT 1),
           'USD') AS currency,
       status, subscriptions.created_at,
       CASE WHEN status IN ('active', 'past_due') THEN mrr_cents * 1000000 ELSE 0 END AS mrr_microcents,
       CASE WHEN status IN ('canceled', 'incomplete_expired') THEN 0 ELSE mrr_cents * 1000000 END AS potential_mrr_microcents
FROM subscriptions LEFT JOIN users ON users.id = subscriptions.user_id
WHERE NOT superseded;

-- The host's triggers (`updated_at`) must not take this for a change of the subscription.
DO $$
DECLARE
    active RECORD;
    disabled TEXT[] := '{}';
BEGIN
    FOR active IN
        SELECT tgname FROM pg_trigger
        WHERE NOT tgisinternal AND tgenabled = 'O' AND tgrelid = 'subscriptions'::regclass
    LOOP
        EXECUTE format('ALTER TABLE subscriptions DISABLE TRIGGER %I', active.tgname);
        disabled := disabled || format('ALTER TABLE subscriptions ENABLE TRIGGER %I', active.tgname);
    END LOOP;
    UPDATE subscriptions
    SET stripe_customer_id = seeded.stripe_customer_id,
        currency = seeded.currency,
        started_at = seeded.created_at,
        mrr_microcents = seeded.mrr_microcents,
        potential_mrr_microcents = seeded.potential_mrr_microcents
    FROM seeded_subscriptions AS seeded WHERE seeded.id = subscriptions.id;
    FOR active IN SELECT unnest(disabled) AS statement LOOP
        EXECUTE active.statement;
    END LOOP;
END
$$;

INSERT INTO subscription_versions
    (stripe_subscription_id, source_event_id, stripe_customer_id, currency, occurred_at, status,
     mrr_microcents, potential_mrr_microcents)
SELECT subscription_key, '', customer_key, currency, created_at, status, mrr_microcents, potential_mrr_microcents
FROM seeded_subscriptions;

-- One movement per customer, currency and instant; the first is `new`, further ones expand.
INSERT INTO mrr_movements
    (occurred_at, stripe_customer_id, stripe_subscription_id, kind, currency, delta_microcents,
     before_microcents, after_microcents, cause_event_id)
SELECT created_at, customer_key, subscription_key,
       CASE WHEN after_microcents = delta_microcents THEN 'new' ELSE 'expansion' END, currency,
       delta_microcents, after_microcents - delta_microcents, after_microcents, ''
FROM (
    SELECT customer_key, currency, created_at, sum(mrr_microcents)::bigint AS delta_microcents,
           (array_agg(subscription_key ORDER BY mrr_microcents DESC, id))[1] AS subscription_key,
           (sum(sum(mrr_microcents)) OVER (PARTITION BY customer_key, currency ORDER BY created_at))::bigint
               AS after_microcents
    FROM seeded_subscriptions WHERE mrr_microcents > 0
    GROUP BY customer_key, currency, created_at
) AS instants
ORDER BY created_at, customer_key, currency;

INSERT INTO usage_daily (subject, day, event_type, currency, events, units, billable_units, amount_cents)
SELECT subject, (created_at AT TIME ZONE 'UTC')::date, event_type, currency, count(*), sum(cost_units),
       COALESCE(sum(cost_units) FILTER (WHERE billable), 0),
       COALESCE(sum(cost_units * unit_price_cents) FILTER (WHERE billable), 0)
FROM usage_events GROUP BY 1, 2, 3, 4;

-- A credit the predecessor applied went to one invoice, whole.
INSERT INTO credit_applications (credit_id, invoice_id, amount_cents, applied_at)
SELECT credits.id, invoices.id, credits.amount_cents, credits.created_at
FROM credits JOIN invoices ON invoices.id = credits.applied_to_invoice_id
WHERE credits.amount_cents > 0;
