//! `mrr_movements`: the ledger of recurring revenue, rewritten for a customer when its history changes.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use domain::revenue::movement::Movement;

/// Makes the stored movements of one customer exactly `movements`, in one statement. Unchanged rows are not touched.
pub async fn replace(
    db: &impl GenericClient,
    stripe_customer_id: &str,
    movements: &[Movement],
) -> Result<(), Error> {
    let occurred_at: Vec<Timestamp> = movements.iter().map(|m| m.occurred_at).collect();
    let subscriptions: Vec<&str> = movements
        .iter()
        .map(|m| m.stripe_subscription_id.as_str())
        .collect();
    let kinds: Vec<&str> = movements.iter().map(|m| m.kind.as_str()).collect();
    let currencies: Vec<&str> = movements.iter().map(|m| m.currency.as_str()).collect();
    let deltas: Vec<i64> = movements.iter().map(|m| m.delta_microcents).collect();
    let before: Vec<i64> = movements.iter().map(|m| m.before_microcents).collect();
    let after: Vec<i64> = movements.iter().map(|m| m.after_microcents).collect();
    let causes: Vec<&str> = movements
        .iter()
        .map(|m| m.cause_event_id.as_str())
        .collect();
    db.execute_typed(
        "-- mrr_movements::replace
         WITH wanted AS (
             SELECT occurred_at, stripe_subscription_id, kind, currency, delta_microcents,
                    before_microcents, after_microcents, cause_event_id,
                    -- Before somebody comes back stands when they left, and with what.
                    CASE WHEN kind = 'reactivation' THEN lag(occurred_at) OVER earlier END
                        AS churned_at,
                    CASE WHEN kind = 'reactivation' THEN lag(before_microcents) OVER earlier END
                        AS churned_microcents
             FROM unnest($2, $3, $4, $5, $6, $7, $8, $9) AS wanted (occurred_at,
                 stripe_subscription_id, kind, currency, delta_microcents, before_microcents,
                 after_microcents, cause_event_id)
             WINDOW earlier AS (PARTITION BY currency ORDER BY occurred_at)
         ), gone AS (
             DELETE FROM mrr_movements AS stored
             WHERE stored.stripe_customer_id = $1 AND NOT EXISTS (
                 SELECT FROM wanted
                 WHERE wanted.occurred_at = stored.occurred_at
                   AND wanted.currency = stored.currency)
         )
         INSERT INTO mrr_movements AS stored (occurred_at, stripe_customer_id,
             stripe_subscription_id, kind, currency, delta_microcents, before_microcents,
             after_microcents, cause_event_id, churned_at, churned_microcents)
         SELECT occurred_at, $1, stripe_subscription_id, kind, currency, delta_microcents,
                before_microcents, after_microcents, cause_event_id, churned_at, churned_microcents
         FROM wanted
         ON CONFLICT (stripe_customer_id, currency, occurred_at) DO UPDATE SET
             stripe_subscription_id = excluded.stripe_subscription_id, kind = excluded.kind,
             delta_microcents = excluded.delta_microcents,
             before_microcents = excluded.before_microcents,
             after_microcents = excluded.after_microcents,
             cause_event_id = excluded.cause_event_id, churned_at = excluded.churned_at,
             churned_microcents = excluded.churned_microcents
         WHERE (stored.stripe_subscription_id, stored.kind, stored.delta_microcents,
                stored.before_microcents, stored.after_microcents, stored.cause_event_id,
                stored.churned_at, stored.churned_microcents)
             IS DISTINCT FROM (excluded.stripe_subscription_id, excluded.kind,
                excluded.delta_microcents, excluded.before_microcents,
                excluded.after_microcents, excluded.cause_event_id, excluded.churned_at,
                excluded.churned_microcents)",
        &[
            (&stripe_customer_id, Type::TEXT),
            (&occurred_at, Type::TIMESTAMPTZ_ARRAY),
            (&subscriptions, Type::TEXT_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&currencies, Type::TEXT_ARRAY),
            (&deltas, Type::INT8_ARRAY),
            (&before, Type::INT8_ARRAY),
            (&after, Type::INT8_ARRAY),
            (&causes, Type::TEXT_ARRAY),
        ],
    )
    .await?;
    Ok(())
}
