-- What charges held of their balance transactions. When one was made was not kept: it is dated by the capture, until Stripe
-- shows it. Their ids are locked as events lock them, so that no event counts one on its day as well.
WITH taken AS MATERIALIZED (
    SELECT stripe_charge_id, stripe_payment_intent_id, stripe_balance_transaction_id AS id, settlement_currency,
           settlement_amount_cents, settlement_fee_cents, exchange_rate, succeeded_at, attempted_at
    FROM payment_attempts WHERE settlement_currency IS NOT NULL AND settlement_kept IS NULL
    ORDER BY stripe_charge_id LIMIT $1 FOR UPDATE
), listed AS MATERIALIZED (
    SELECT taken.* FROM taken
    WHERE id IS NOT NULL AND settlement_amount_cents IS NOT NULL AND settlement_fee_cents IS NOT NULL
    ORDER BY id
), locked AS MATERIALIZED (
    SELECT listed.*, CAST(pg_advisory_xact_lock(hashtextextended(id, 0)) AS TEXT) AS lock FROM listed
), inserted AS (
    INSERT INTO balance_transactions (stripe_balance_transaction_id, type, reporting_category, balance_type, currency,
        amount_cents, fee_cents, net_cents, exchange_rate, source_id, source_kind, payment_key, created_at)
    SELECT id, CASE WHEN stripe_charge_id LIKE 'py\_%' THEN 'payment' ELSE 'charge' END, 'charge', 'payments',
           settlement_currency, settlement_amount_cents, settlement_fee_cents,
           settlement_amount_cents - settlement_fee_cents, exchange_rate, stripe_charge_id, 'charge',
           COALESCE(stripe_payment_intent_id, stripe_charge_id), COALESCE(succeeded_at, attempted_at)
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
UPDATE payment_attempts SET settlement_kept = true
FROM taken WHERE payment_attempts.stripe_charge_id = taken.stripe_charge_id;
