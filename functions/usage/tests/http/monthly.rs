//! Monthly figures: newest first, by type, per currency.

use serde_json::{Value, json};

use crate::ledger::{Ledger, NOW, event, partner_event};

fn at(
    user_id: i32,
    key: &str,
    event_type: &str,
    units: i64,
    price: i64,
    occurred_at: &str,
) -> Value {
    let mut event = event(user_id, key);
    event["event_type"] = event_type.into();
    event["cost_units"] = units.into();
    event["unit_price_cents"] = price.into();
    event["occurred_at"] = occurred_at.into();
    event
}

fn months(body: &Value) -> Vec<&str> {
    let rows = body.as_array().expect("a list").iter();
    rows.map(|row| row["month"].as_str().expect("a month"))
        .collect()
}

#[tokio::test]
async fn a_month_is_summed_and_told_apart_by_type() {
    let ledger = Ledger::with_users(1).await;
    let mut free = at(1, "free", "page", 9, 100, "2025-11-30T00:00:00Z");
    free["billable"] = false.into();
    free["occurred_at"] = "2025-11-02T00:00:00Z".into();
    let sent = [
        at(1, "a", "deed", 2, 250, "2025-11-01T00:00:00Z"),
        at(1, "b", "deed", 1, 250, "2025-11-20T00:00:00Z"),
        at(1, "c", "page", 4, 10, "2025-11-05T00:00:00Z"),
        free,
        at(1, "d", "deed", 1, 300, "2025-10-31T23:59:59.999999Z"),
    ];
    ledger.ingest(&sent, NOW).await;
    let (status, body) = ledger.get("/usage/user/1/monthly", NOW).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!([
            {"month": "2025-11", "currency": "USD", "events": 4, "units": 16, "billable_units": 7, "amount_cents": 790,
             "by_event_type": {
                 "deed": {"events": 2, "units": 3, "billable_units": 3, "amount_cents": 750},
                 "page": {"events": 2, "units": 13, "billable_units": 4, "amount_cents": 40}}},
            {"month": "2025-10", "currency": "USD", "events": 1, "units": 1, "billable_units": 1, "amount_cents": 300,
             "by_event_type": {"deed": {"events": 1, "units": 1, "billable_units": 1, "amount_cents": 300}}},
        ])
    );
}

#[tokio::test]
async fn currencies_are_never_added_up() {
    let ledger = Ledger::with_users(1).await;
    ledger
        .run("INSERT INTO plan_limits (plan_name, currency) VALUES ('euro', 'EUR')")
        .await;
    ledger.ingest(&[at(1, "a", "deed", 1, 500, NOW)], NOW).await;
    ledger.run("UPDATE users SET plan = 'euro'").await;
    ledger.ingest(&[at(1, "b", "deed", 1, 400, NOW)], NOW).await;
    let (_, body) = ledger.get("/usage/user/1/monthly", NOW).await;
    let told: Vec<(&Value, &Value)> = body
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["currency"], &row["amount_cents"]))
        .collect();
    assert_eq!(
        told,
        [(&json!("EUR"), &json!(400)), (&json!("USD"), &json!(500))]
    );
}

#[tokio::test]
async fn a_range_is_of_days_or_of_whole_months() {
    let ledger = Ledger::with_users(1).await;
    let days = [
        "2019-06-15",
        "2024-02-29",
        "2024-11-30",
        "2024-12-01",
        "2025-10-31",
        "2025-11-01",
        "2025-11-15",
    ];
    let sent: Vec<Value> = days
        .iter()
        .map(|day| at(1, day, "deed", 1, 0, &format!("{day}T12:00:00Z")))
        .collect();
    ledger.ingest(&sent, NOW).await;
    for (query, expected) in [
        ("", vec!["2025-11", "2025-10", "2024-12"]),
        (
            "?from=2024-11",
            vec!["2025-11", "2025-10", "2024-12", "2024-11"],
        ),
        ("?to=2025-10", vec!["2025-10", "2024-12", "2024-11"]),
        ("?from=2024-02&to=2024-02", vec!["2024-02"]),
        ("?from=2024-02-29&to=2024-03-01", vec!["2024-02"]),
        ("?from=2024-02-29&to=2024-02-29", vec![]),
        ("?from=2025-10-01&to=2025-11-01", vec!["2025-10"]),
        ("?from=2025-11-02&to=2025-12-01", vec!["2025-11"]),
        ("?from=2025-11-02&to=2025-11-15", vec![]),
        (
            "?from=2020-12&to=2025-11",
            vec!["2025-11", "2025-10", "2024-12", "2024-11", "2024-02"],
        ),
        ("?to=2019-06", vec!["2019-06"]),
    ] {
        let (status, body) = ledger
            .get(&format!("/usage/user/1/monthly{query}"), NOW)
            .await;
        assert_eq!(status, 200, "{query}");
        assert_eq!(months(&body), expected, "{query}");
    }
    let (_, nobody) = ledger.get("/usage/user/7/monthly", NOW).await;
    assert_eq!(nobody, json!([]));
}

#[tokio::test]
async fn the_gateways_requests_are_shown_where_the_contract_counts_them() {
    let ledger = Ledger::create().await;
    for source in ["api_usage", "usage_events", "both"] {
        ledger.contract(source, source, -1).await;
        ledger
            .run(&format!(
                "INSERT INTO api_usage (api_key_prefix, cost_units, created_at) VALUES \
                 ('{source}', 2, '2025-11-01Z'), ('{source}', 1, '2025-11-20Z'), ('{source}', 5, '2025-10-31 23:59:59.9Z'), \
                 ('{source}', 5, '2024-11-30 23:59:59.9Z')"
            ))
            .await;
        let mut deed = partner_event(source, "a", NOW);
        deed["unit_price_cents"] = 700.into();
        ledger.ingest(&[deed], NOW).await;
        let (_, body) = ledger
            .get(&format!("/usage/partner/{source}/monthly"), NOW)
            .await;
        let requests = json!({"events": 2, "units": 3, "billable_units": 3, "amount_cents": 0});
        let deed = json!({"events": 1, "units": 1, "billable_units": 1, "amount_cents": 700});
        let (events, types) = if source == "usage_events" {
            (1, json!({"deed": deed}))
        } else {
            (3, json!({"deed": deed, "api_request": requests}))
        };
        assert_eq!(
            (&body[0]["events"], &body[0]["by_event_type"]),
            (&json!(events), &types),
            "{source}"
        );
        assert_eq!(body[0]["currency"], "EUR");
        let older = if source == "usage_events" {
            vec!["2025-11"]
        } else {
            vec!["2025-11", "2025-10"]
        };
        assert_eq!(months(&body), older, "{source}");
    }
    let (status, body) = ledger.get("/usage/partner/nobody/monthly", NOW).await;
    assert_eq!((status, body), (200, json!([])));
}
