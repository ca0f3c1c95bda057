//! The check of the usage rollup: what it finds, what it puts right, and what it leaves alone.

use jiff::Timestamp;
use reconciliation::{App, handle};
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::roles::as_function;
use testing::{TestDatabase, aws, sample};

async fn run(database: &TestDatabase, rebuild: bool) -> Value {
    let environment = Environment::from_pairs([
        ("DATABASE_URL", database.url.as_str()),
        ("PARKED_EVENTS_TABLE", "parked"),
        ("DOCUMENT_BUCKET", "documents"),
        ("EVENT_BUS_NAME", "billing"),
    ]);
    let app = App::from_env(
        &as_function("reconciliation", &environment),
        &aws::sdk_config("http://127.0.0.1:1"),
    )
    .unwrap();
    let mut event = sample("schedule_reconciliation_usage_rollup").json();
    event["detail"]["rebuild"] = rebuild.into();
    handle(&app, event, Timestamp::UNIX_EPOCH).await.unwrap()
}

#[tokio::test]
async fn a_rollup_that_drifted_is_found_and_made_anew() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    // As the predecessor writes: past the rollup.
    client
        .batch_execute(
            "INSERT INTO usage_events (user_id, event_type, cost_units, unit_price_cents, billable, created_at) VALUES
                 (1, 'deed', 2, 100, true, '2025-11-01 23:59:59Z'), (1, 'deed', 3, 100, true, '2025-11-01Z'),
                 (1, 'deed', 4, 100, false, '2025-11-02Z'), (2, 'deed', 1, NULL, true, '2025-11-02Z');
             INSERT INTO usage_events (user_id, event_type, created_at, voided_at) VALUES (2, 'deed', '2025-11-03Z', now());
             INSERT INTO usage_daily (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             VALUES ('user:2', '2025-11-02', 'deed', 'USD', 1, 1, 1, 0), ('user:2', '2025-11-03', 'deed', 'USD', 0, 0, 0, 0),
                    ('user:1', '2025-11-01', 'deed', 'USD', 1, 2, 2, 200), ('user:3', '2025-11-01', 'deed', 'USD', 1, 1, 1, 5)",
        )
        .await
        .unwrap();
    let looked = run(&database, false).await;
    assert_eq!(
        (
            &looked["differences"],
            &looked["rebuilt_subjects"],
            &looked["remaining"]
        ),
        (&json!(3), &json!(0), &json!(3))
    );
    assert_eq!(
        looked["first"][0],
        json!({"subject": "user:1", "day": "2025-11-01", "event_type": "deed", "currency": "USD", "rolled_up_units": 2,
               "summed_units": 5, "rolled_up_amount_cents": 200, "summed_amount_cents": 500})
    );
    let rebuilt = run(&database, true).await;
    assert_eq!(
        (
            &rebuilt["differences"],
            &rebuilt["rebuilt_subjects"],
            &rebuilt["remaining"]
        ),
        (&json!(3), &json!(2), &json!(0))
    );
    let rows: Vec<String> = client
        .query(
            "SELECT concat_ws(' ', subject, day, events, units, billable_units, amount_cents) FROM usage_daily
             WHERE events > 0 ORDER BY subject, day",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        rows,
        [
            "user:1 2025-11-01 2 5 5 500",
            "user:1 2025-11-02 1 4 0 0",
            "user:2 2025-11-02 1 1 1 0"
        ]
    );
    let again = run(&database, true).await;
    assert_eq!(
        (&again["differences"], &again["rebuilt_subjects"]),
        (&json!(0), &json!(0))
    );
}
