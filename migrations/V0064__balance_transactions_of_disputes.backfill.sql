-- What disputes held of their balance transactions. When one was made was not kept: it is dated by the announcement of what
-- it did, until Stripe shows it. Their ids are locked as events lock them, so that no event counts one on its day as well.
WITH taken AS MATERIALIZED (
    SELECT stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, balance_transactions, funds_withdrawn_at,
           funds_reinstated_at, closed_at, created_at
    FROM disputes WHERE balance_transaction_ids IS NULL AND balance_transactions <> '{}'
    ORDER BY stripe_dispute_id LIMIT $1 FOR UPDATE
), listed AS MATERIALIZED (
    SELECT moved.key AS id, CAST(moved.value ->> 'amount_cents' AS BIGINT) AS amount_cents,
           CAST(moved.value ->> 'fee_cents' AS BIGINT) AS fee_cents, moved.value ->> 'currency' AS currency,
           taken.stripe_dispute_id, taken.funds_withdrawn_at, taken.funds_reinstated_at, taken.closed_at,
           taken.created_at,
           COALESCE(taken.stripe_payment_intent_id,
                    (SELECT charge.stripe_payment_intent_id FROM payment_attempts AS charge
                     WHERE charge.stripe_charge_id = taken.stripe_charge_id),
                    taken.stripe_charge_id) AS payment_key
    FROM taken CROSS JOIN LATERAL jsonb_each(taken.balance_transactions) AS moved
    ORDER BY moved.key
), locked AS MATERIALIZED (
    SELECT listed.*, CAST(pg_advisory_xact_lock(hashtextextended(id, 0)) AS TEXT) AS lock FROM listed
), inserted AS (
    INSERT INTO balance_transactions (stripe_balance_transaction_id, type, reporting_category, balance_type, currency,
        amount_cents, fee_cents, net_cents, source_id, source_kind, payment_key, created_at)
    SELECT id, 'adjustment', CASE WHEN amount_cents > 0 THEN 'dispute_reversal' ELSE 'dispute' END, 'payments',
           currency, amount_cents, fee_cents, amount_cents - fee_cents, stripe_dispute_id, 'dispute', payment_key,
           CASE WHEN amount_cents > 0 THEN COALESCE(funds_reinstated_at, closed_at, created_at)
                ELSE COALESCE(funds_withdrawn_at, closed_at, created_at) END
    FROM locked WHERE lock IS NOT NULL
    ON CONFLICT (stripe_balance_transaction_id) DO NOTHING
    RETURNING created_at, balance_type, currency, reporting_category, amount_cents, fee_cents, net_cents
), daily AS (
    INSERT INTO balance_daily AS stored (day, balance_type, currency, reporting_category, amount_cents, fee_cents,
        net_cents, count)
    SELECT CAST(created_at AT TIME ZONE 'UTC' AS DATE), balance_type, currency, reporting_category,
           sum(amount_cents), sum(fee_cents), sum(net_cents), count(*)
    FROM inserted GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (day, balance_type, currency, reporting_category) DO UPDATE SET
        amount_cents = stored.amount_cents + excluded.amount_cents, fee_cents = stored.fee_cents + excluded.fee_cents,
        net_cents = stored.net_cents + excluded.net_cents, count = stored.count + excluded.count
)
UPDATE disputes
SET balance_transaction_ids = ARRAY(SELECT jsonb_object_keys(taken.balance_transactions) ORDER BY 1)
FROM taken WHERE disputes.stripe_dispute_id = taken.stripe_dispute_id;
