//! Random histories with Postgres: usage that comes late, prices that the host changes, invoices that are voided, runs.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::site::{Site, at, run};

#[derive(Debug, Clone)]
enum Step {
    /// So many rows of the gateway's, or one event of so many units, some days ago.
    Use {
        days_ago: i64,
        units: i32,
        is_event: bool,
    },
    /// The host writes a column.
    Price(i64),
    Run,
    /// Voids the nth invoice.
    Void(i64),
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let step = prop_oneof![
        5 => (0_i64..50, 1_i32..9, any::<bool>())
            .prop_map(|(days_ago, units, is_event)| Step::Use { days_ago, units, is_event }),
        1 => (1_i64..900).prop_map(Step::Price),
        4 => Just(Step::Run),
        1 => (0_i64..6).prop_map(Step::Void),
    ];
    proptest::collection::vec((1_i64..20, step), 4..16)
}

async fn play(site: &Site, steps: &[(i64, Step)]) {
    let app = site.app();
    let mut now = at("2025-11-02T00:05:00Z");
    for (place, (days, step)) in steps.iter().enumerate() {
        now += SignedDuration::from_hours(24 * days);
        match step {
            Step::Use {
                days_ago,
                units,
                is_event,
            } => {
                let when: Timestamp = now - SignedDuration::from_hours(24 * days_ago);
                if *is_event {
                    site.execute(&format!(
                        "INSERT INTO usage_events (subject, idempotency_key, api_key_prefix, event_type, billable,
                             cost_units, currency, created_at, ingested_at)
                         VALUES ('partner:dp_pk_alpha', '{place}', 'dp_pk_alpha', 'deed', true, {units}, 'USD',
                             '{when}', '{now}')"
                    ))
                    .await;
                } else {
                    site.served("dp_pk_alpha", *units, &when.to_string()).await;
                }
            }
            Step::Price(cents) => {
                site.execute(&format!(
                    "UPDATE api_partner_contracts SET per_deed_price_cents = {cents}, updated_at = '{now}'"
                ))
                .await;
            }
            Step::Run => {
                run(&app, &now.to_string()).await;
            }
            Step::Void(nth) => {
                site.execute(&format!(
                    "UPDATE invoices SET status = 'void', voided_at = '{now}', amount_due_cents = 0
                     WHERE id = (SELECT id FROM invoices WHERE status <> 'void' ORDER BY id OFFSET {nth} LIMIT 1)"
                ))
                .await;
            }
        }
    }
    // The contract ends, and everything is billed.
    site.execute(&format!(
        "UPDATE api_partner_contracts SET contract_end_date = '{}', updated_at = '{now}'",
        now.strftime("%Y-%m-%d")
    ))
    .await;
    let id = site.number("SELECT id FROM api_partner_contracts").await;
    for days in [1, 2] {
        let later = now + SignedDuration::from_hours(24 * days);
        let reviewed = json!({"contract_id": id, "reviewed": true});
        let summary = crate::site::run_with(&app, &later.to_string(), reviewed).await;
        assert!(days == 1 || summary["invoices_created"] == 0, "{summary}");
    }
    // Of each live period what was billed is its units at the price it was billed at.
    let wrong = site
        .number(
            "SELECT count(*) FROM (
                 SELECT period_start, period_end, sum(amount_cents) AS amount_cents,
                        max((terms -> 'contract' ->> 'per_deed_price_cents')::bigint) AS price
                 FROM invoiced_usage JOIN invoices ON invoices.id = invoice_id AND invoices.status <> 'void'
                 GROUP BY 1, 2 HAVING bool_or(terms IS NOT NULL)
             ) AS billed
             WHERE amount_cents <> price * (
                 (SELECT COALESCE(sum(cost_units), 0) FROM api_usage
                  WHERE created_at >= period_start AND created_at < period_end)
                 + (SELECT COALESCE(sum(cost_units), 0) FROM usage_events
                    WHERE created_at >= period_start AND created_at < period_end))",
        )
        .await;
    assert_eq!(wrong, 0);
    // No unit is outside of them.
    let outside = site
        .number(
            "SELECT count(*) FROM (SELECT created_at FROM api_usage UNION ALL SELECT created_at FROM usage_events) AS used
             WHERE used.created_at >= '2025-11-01Z' AND NOT EXISTS (
                 SELECT FROM invoices WHERE status <> 'void' AND used.created_at >= billing_period_start
                     AND used.created_at < billing_period_end)",
        )
        .await;
    assert_eq!(outside, 0);
    let sums = "SELECT count(*) FROM invoices WHERE total_cents <> (
        SELECT sum((line ->> 'total_cents')::bigint + (line ->> 'tax_cents')::bigint)
        FROM jsonb_array_elements(line_items -> 'items') AS line)
        OR tax_cents <> (SELECT COALESCE(sum((tax ->> 'tax_cents')::bigint), 0) FROM jsonb_array_elements(tax_breakdown) AS tax)";
    assert_eq!(site.number(sums).await, 0);
    let numbers = "SELECT count(*) FROM invoice_number_counters AS counters WHERE next_value - 1 <> (
        SELECT count(*) FROM invoices WHERE invoice_number = series OR invoice_number LIKE series || '-%')";
    assert_eq!(site.number(numbers).await, 0, "no number is left out");
}

#[test]
fn live_invoices_are_the_price_of_the_usage() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Proptest prints the seed and the shrunk history of a failure.
    let mut runner = TestRunner::new(Config {
        cases: 6,
        failure_persistence: None,
        max_shrink_iters: 20,
        ..Config::default()
    });
    let played = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let site = Site::new().await;
            site.contract(
                "dp_pk_alpha",
                json!({"pricing_model": "per_deed", "per_deed_price_cents": 250, "unit_source": "both",
                       "tax_percent": "8.875"}),
            )
            .await;
            play(&site, &steps).await;
        });
        Ok(())
    });
    if let Err(failure) = played {
        panic!("{failure}");
    }
}
