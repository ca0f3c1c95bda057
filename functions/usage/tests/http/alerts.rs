//! `usage.threshold_reached`: once per subject, month and threshold.

use runtime::config::Environment;
use serde_json::{Value, json};
use testing::Aws;
use testing::roles::as_function;
use usage::App;

use crate::ledger::{JWT_SECRET, Ledger, NOW, SERVICE_TOKEN, call, event, partner_event, post};

/// Subject, threshold, used and month of every message, in the order they were written.
async fn alerts(ledger: &Ledger) -> Vec<String> {
    let rows = ledger
        .client
        .query(
            "SELECT concat_ws(' ', detail ->> 'subject', detail #>> '{data,threshold_pct}', detail #>> '{data,used}', \
             detail #>> '{data,limit}', detail #>> '{data,month}') FROM outbox \
             WHERE detail_type = 'usage.threshold_reached' ORDER BY id",
            &[],
        )
        .await
        .expect("the outbox");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn each_threshold_is_announced_once_a_month() {
    let ledger = Ledger::with_users(2).await;
    let events: Vec<Value> = (0..3).map(|n| event(1, &format!("a{n}"))).collect();
    ledger.ingest(&events, NOW).await;
    assert_eq!(alerts(&ledger).await, [""; 0]);
    ledger.ingest(&[event(1, "b")], NOW).await;
    assert_eq!(alerts(&ledger).await, ["user:1 80 4 5 2025-11"]);
    ledger.ingest(&[event(1, "b"), event(1, "c")], NOW).await;
    ledger.ingest(&[event(1, "d")], NOW).await;
    let november = ["user:1 80 4 5 2025-11", "user:1 100 5 5 2025-11"];
    assert_eq!(alerts(&ledger).await, november);
    // Another month begins at zero; a batch may reach both, and several subjects.
    let mut large = event(1, "e");
    large["cost_units"] = 5.into();
    let mut other = event(2, "e");
    other["cost_units"] = 4.into();
    ledger.ingest(&[large, other], "2025-12-01T00:00:00Z").await;
    let december = [
        "user:1 80 5 5 2025-12",
        "user:1 100 5 5 2025-12",
        "user:2 80 4 5 2025-12",
    ];
    assert_eq!(alerts(&ledger).await, [&november[..], &december].concat());
    let detail: Value = ledger
        .client
        .query_one("SELECT detail FROM outbox ORDER BY id LIMIT 1", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        detail,
        json!({"event_id": "usage.threshold_reached:user:1:2025-11:80", "occurred_at": NOW, "subject": "user:1",
               "data": {"month": "2025-11", "threshold_pct": 80, "used": 4, "limit": 5}})
    );
}

#[tokio::test]
async fn what_happened_in_another_month_alerts_nobody() {
    let ledger = Ledger::with_users(1).await;
    let mut old = event(1, "a");
    old["cost_units"] = 9.into();
    old["occurred_at"] = "2025-10-31T23:59:59Z".into();
    ledger.ingest(&[old], NOW).await;
    assert_eq!(alerts(&ledger).await, [""; 0]);
}

#[tokio::test]
async fn reservations_alert_and_denials_do_not() {
    let ledger = Ledger::with_users(1).await;
    ledger.reserve(1, 6, "a", false).await;
    assert_eq!(alerts(&ledger).await, [""; 0]);
    ledger.reserve(1, 4, "a2", false).await;
    ledger.reserve(1, 3, "b", true).await;
    assert_eq!(
        alerts(&ledger).await,
        ["user:1 80 4 5 2025-11", "user:1 100 7 5 2025-11"]
    );
}

#[tokio::test]
async fn events_at_once_of_different_types_are_alerted_once() {
    for _ in 0..5 {
        let ledger = Ledger::with_users(1).await;
        let send = |n: i32| {
            let ledger = &ledger;
            async move {
                let mut event = event(1, &format!("k{n}"));
                event["event_type"] = format!("t{n}").into();
                ledger.ingest(&[event], NOW).await
            }
        };
        tokio::join!(send(1), send(2), send(3), send(4), send(5));
        assert_eq!(
            alerts(&ledger).await,
            ["user:1 80 4 5 2025-11", "user:1 100 5 5 2025-11"]
        );
    }
}

#[tokio::test]
async fn a_partners_request_limit_alerts_too() {
    let ledger = Ledger::create().await;
    ledger.contract("events", "usage_events", 5).await;
    ledger.contract("both", "both", 5).await;
    ledger.contract("gateway", "api_usage", 5).await;
    let gateway = |prefix: &str, rows: i64| {
        format!(
            "INSERT INTO api_usage (api_key_prefix, created_at) SELECT '{prefix}', '{NOW}' FROM generate_series(1, {rows})"
        )
    };
    ledger.run(&gateway("both", 3)).await;
    ledger.run(&gateway("gateway", 4)).await;
    let mut sent: Vec<Value> = (0..4)
        .map(|n| partner_event("events", &format!("k{n}"), NOW))
        .collect();
    sent.push(partner_event("both", "k", NOW));
    sent.push(partner_event("gateway", "k", NOW));
    ledger.ingest(&sent, NOW).await;
    let mut expected = vec![
        "partner:both 80 4 5 2025-11",
        "partner:events 80 4 5 2025-11",
    ];
    assert_eq!(alerts(&ledger).await, expected);
    // The gateway's own rows are seen when it asks.
    for _ in 0..2 {
        ledger.get("/usage/limit-check/partner/gateway", NOW).await;
    }
    expected.push("partner:gateway 80 4 5 2025-11");
    assert_eq!(alerts(&ledger).await, expected);
}

#[tokio::test]
async fn an_alert_is_published_after_the_commit_and_stays_when_the_bus_is_away() {
    let ledger = Ledger::with_users(2).await;
    let mut events: Vec<Value> = (0..4).map(|n| event(1, &format!("a{n}"))).collect();
    ledger.ingest(&events, NOW).await;
    assert_eq!(
        ledger
            .number("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            .await,
        1
    );
    let moto = Aws::shared().await;
    let bus = moto.event_bus().await;
    let variables = [
        ("DATABASE_URL", ledger.database.url.as_str()),
        ("ADMIN_JWT_SECRET", JWT_SECRET),
        ("SERVICE_TOKENS", SERVICE_TOKEN),
        ("EVENT_BUS_NAME", &bus),
    ];
    let app = App::from_env(
        &as_function("usage", &Environment::from_pairs(variables)),
        &moto.sdk_config(),
    )
    .unwrap();
    events
        .iter_mut()
        .for_each(|event| event["user_id"] = 2.into());
    let (status, body) = call(&app, post("/usage/events", &json!({"events": events})), NOW).await;
    assert_eq!(status, 200, "{body}");
    let published = "SELECT count(*) FROM outbox WHERE published_at IS NOT NULL AND detail ->> 'subject' = 'user:2'";
    assert_eq!(ledger.number(published).await, 1);
}
