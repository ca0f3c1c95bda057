//! The figures that `GET /admin/revenue` reads from rollups are those of the rows behind them, whatever the history.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::ledger::Ledger;

const NOW: &str = "2025-10-20T12:00:00Z";
const CUSTOMERS: usize = 12;
/// All events are of the days before now, about twice the window in which churn is counted.
const DAYS: i64 = 65;
const PAST_INSTANTS: usize = 8;

/// MRR, paying customers and the subscriptions by status, from the subscriptions as they are.
const SCANNED: &str = "
    SELECT coalesce(sum(mrr_microcents) FILTER (WHERE currency = $1 AND status IN ('active', 'past_due')), 0)::bigint,
           (SELECT count(*) FROM (
                SELECT 1 FROM subscriptions
                WHERE NOT superseded AND status IN ('active', 'past_due') AND currency = $1
                GROUP BY coalesce(stripe_customer_id, 'user:' || user_id, 'legacy:' || id)
                HAVING sum(mrr_microcents) > 0) AS paying),
           count(*) FILTER (WHERE status = 'active'), count(*) FILTER (WHERE status = 'trialing'),
           count(*) FILTER (WHERE status = 'past_due')
    FROM subscriptions WHERE NOT superseded";

/// The same at a past instant, from all snapshots up to it.
const SCANNED_AT: &str = "
    WITH shown AS (
        SELECT DISTINCT ON (stripe_subscription_id) stripe_customer_id, status, currency, mrr_microcents
        FROM subscription_versions WHERE occurred_at <= $2 AND NOT overruled
        ORDER BY stripe_subscription_id, status IN ('canceled', 'incomplete_expired') DESC, occurred_at DESC,
                 source_created_at DESC, source_rank DESC, source_event_id DESC
    )
    SELECT coalesce(sum(mrr_microcents) FILTER (WHERE currency = $1), 0)::bigint,
           (SELECT count(*) FROM (SELECT 1 FROM shown WHERE currency = $1 GROUP BY stripe_customer_id
                                  HAVING sum(mrr_microcents) > 0) AS paying),
           count(*) FILTER (WHERE status = 'active'), count(*) FILTER (WHERE status = 'trialing'),
           count(*) FILTER (WHERE status = 'past_due')
    FROM shown";

/// Who left in the thirty days before an instant, and what they paid, from the last movement of each customer in them.
const CHURNED: &str = "
    SELECT count(*), coalesce(sum(before_microcents), 0)::bigint
    FROM (SELECT DISTINCT ON (stripe_customer_id) before_microcents, after_microcents FROM mrr_movements
          WHERE currency = $1 AND occurred_at > $2::timestamptz - interval '30 days' AND occurred_at <= $2
          ORDER BY stripe_customer_id, occurred_at DESC) AS last
    WHERE after_microcents = 0";

/// Reactivations that do not say when and with what the customer had left.
const UNEXPLAINED_RETURNS: &str = "
    SELECT count(*) FILTER (WHERE kind = 'reactivation' AND
                                  (churned_at, churned_microcents) IS DISTINCT FROM (left_at, left_microcents)),
           0::bigint, 0::bigint, 0::bigint,
           count(*) FILTER (WHERE kind = 'reactivation')
    FROM (SELECT kind, churned_at, churned_microcents, lag(occurred_at) OVER earlier AS left_at,
                 lag(before_microcents) OVER earlier AS left_microcents FROM mrr_movements
          WINDOW earlier AS (PARTITION BY stripe_customer_id, currency ORDER BY occurred_at)) AS movements";

#[tokio::test]
async fn the_figures_of_any_history_are_those_of_a_scan() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let now: Timestamp = NOW.parse().unwrap();
    let ledger = Ledger::create().await;
    let mut events = history(&mut random, now);
    let again = events.sample(&mut random, events.len() / 10);
    let again: Vec<Value> = again.cloned().collect();
    events.extend(again);
    events.shuffle(&mut random);
    ledger.ingest(events).await;

    let [unexplained, .., returns] = scanned(&ledger, UNEXPLAINED_RETURNS, &[]).await;
    assert_eq!(unexplained, 0);
    assert!(returns > 0, "nobody has come back");
    let mut churned = 0;
    for currency in ["USD", "EUR"] {
        let report = ledger.revenue("", NOW).await;
        let [mrr, paying, statuses @ ..] = scanned(&ledger, SCANNED, &[&currency]).await;
        churned += compare(&ledger, currency, now, (mrr, paying, statuses), "").await;
        assert_eq!(report["errors"], json!([]));
        for _ in 0..PAST_INSTANTS {
            // Often midnight, which belongs to the day that begins.
            let at = instant(&mut random, now);
            let [mrr, paying, statuses @ ..] =
                scanned(&ledger, SCANNED_AT, &[&currency, &at]).await;
            let query = format!("&as_of={at}");
            churned += compare(&ledger, currency, at, (mrr, paying, statuses), &query).await;
        }
    }
    assert!(churned > 0, "nobody has left");
}

/// Compares the report of a moment with figures of a scan, and returns how many customers had left.
async fn compare(
    ledger: &Ledger,
    currency: &str,
    at: Timestamp,
    (mrr, paying, statuses): (i64, i64, [i64; 3]),
    query: &str,
) -> i64 {
    let report = ledger
        .revenue(&format!("?currency={currency}{query}"), NOW)
        .await;
    let what = format!("{currency} at {at}: {report:#}");
    assert_eq!(report["mrr_arr"]["mrr_cents"], mrr / 1_000_000, "{what}");
    assert_eq!(
        report["mrr_arr"]["arr_cents"],
        mrr * 12 / 1_000_000,
        "{what}"
    );
    let by_status =
        ["active", "trialing", "past_due"].map(|status| &report["subscriptions"][status]);
    assert_eq!(json!(by_status), json!(statuses), "{what}");
    let row = ledger
        .client
        .query_one(CHURNED, &[&currency, &at])
        .await
        .expect("a row");
    let (churned, churned_mrr): (i64, i64) = (row.get(0), row.get(1));
    let churn = &report["churn"];
    assert_eq!(churn["churned_customers"], churned, "{what}");
    assert_eq!(
        churn["churned_mrr_cents"],
        churned_mrr / 1_000_000,
        "{what}"
    );
    let bps = domain::revenue::figures::customer_churn_bps(churned, paying).expect("a ratio");
    assert_eq!(churn["customer_churn_bps"], json!(bps), "{what}");
    churned
}

async fn scanned(
    ledger: &Ledger,
    statement: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> [i64; 5] {
    let row = ledger
        .client
        .query_one(statement, parameters)
        .await
        .expect("a row");
    std::array::from_fn(|column| row.get(column))
}

/// Subscriptions of some customers that begin, change, pause and end at random instants before `now`.
fn history(random: &mut StdRng, now: Timestamp) -> Vec<Value> {
    let mut events = Vec::new();
    for customer in 0..CUSTOMERS {
        for number in 0..random.random_range(1..=3) {
            let id = format!("sub_{customer}_{number}");
            // Most customers have one currency, some both.
            let currency = if (customer + number / 2) % 4 == 0 {
                "eur"
            } else {
                "usd"
            };
            // Keyed by instant: no two of a subscription in one second.
            let instants: BTreeMap<i64, ()> = (0..random.random_range(1..=6))
                .map(|_| (instant(random, now).as_second(), ()))
                .collect();
            let count = instants.len();
            for (step, at) in instants.into_keys().enumerate() {
                let is_end = step > 0 && step + 1 == count && random.random_bool(0.6);
                let words = [
                    "active", "active", "past_due", "trialing", "unpaid", "paused",
                ];
                let status = if is_end {
                    "canceled"
                } else {
                    words.choose(random).expect("a word")
                };
                let kind = match step {
                    0 => "created",
                    _ if is_end => "deleted",
                    _ => "updated",
                };
                let price = json!({"id": format!("price_{currency}"), "object": "price", "currency": currency,
                    "billing_scheme": "per_unit", "product": "prod_1", "type": "recurring", "unit_amount": 1_000,
                    "unit_amount_decimal": "1000",
                    "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}});
                // No unit is no MRR, in whatever status.
                let item = json!({"id": format!("si_{id}"), "price": price, "quantity": random.random_range(0..=3)});
                let object = json!({"id": id, "object": "subscription", "customer": format!("cus_{customer}"),
                    "currency": currency, "status": status, "created": at, "start_date": at, "metadata": {},
                    "cancel_at_period_end": false, "cancel_at": null, "canceled_at": is_end.then_some(at),
                    "ended_at": is_end.then_some(at), "discount": null,
                    "items": {"object": "list", "data": [item]}});
                events.push(json!({"id": format!("evt_{id}_{at}"), "object": "event", "api_version": "2022-11-15",
                    "livemode": false, "created": at, "type": format!("customer.subscription.{kind}"),
                    "data": {"object": object}}));
            }
        }
    }
    events
}

/// An instant of the days before `now`, its own included.
fn instant(random: &mut StdRng, now: Timestamp) -> Timestamp {
    let day = 24 * 60 * 60;
    let before = random.random_range(0..DAYS * day);
    let at = now - SignedDuration::from_secs(before);
    if random.random_bool(0.2) {
        at - SignedDuration::from_secs(at.as_second().rem_euclid(day))
    } else {
        at
    }
}
