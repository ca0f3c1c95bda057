//! Limit checks and quotes, and that they say what a reservation then does.

use serde_json::{Value, json};

use crate::ledger::{Ledger, NOW, event, partner_event};

#[tokio::test]
async fn a_limit_check_says_what_is_left_and_when_it_starts_again() {
    let ledger = Ledger::with_users(1).await;
    let check = async || ledger.get("/usage/limit-check/user/1", NOW).await;
    let (status, body) = check().await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        json!({"user_id": 1, "plan": "free", "used": 0, "limit": 5, "remaining_free_units": 5, "threshold": null,
               "overage": {"price_cents": 500, "currency": "USD"}, "resets_at": "2025-12-01T00:00:00Z"})
    );
    for (used, remaining, threshold) in [
        (3, 2, json!(null)),
        (4, 1, json!(80)),
        (5, 0, json!(100)),
        (6, 0, json!(100)),
    ] {
        let already = check().await.1["used"].as_i64().unwrap();
        let events: Vec<Value> = (already..used)
            .map(|n| event(1, &format!("k{n}")))
            .collect();
        ledger.ingest(&events, NOW).await;
        let (_, body) = check().await;
        assert_eq!(
            (
                &body["used"],
                &body["remaining_free_units"],
                &body["threshold"]
            ),
            (&json!(used), &json!(remaining), &threshold)
        );
    }
    // What is not billable, of another month or another user's counts nothing.
    let mut free = event(1, "free");
    free["billable"] = false.into();
    let mut old = event(1, "old");
    old["occurred_at"] = "2025-10-31T23:59:59Z".into();
    ledger.ingest(&[free, old, event(2, "k")], NOW).await;
    assert_eq!(check().await.1["used"], 6);
}

#[tokio::test]
async fn an_unlimited_plan_has_no_limit_and_nothing_to_remain() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO users (id, plan) VALUES (1, 'enterprise')")
        .await;
    ledger.reserve(1, 1_000, "a", false).await;
    let (_, body) = ledger.get("/usage/limit-check/user/1", NOW).await;
    assert_eq!(
        body,
        json!({"user_id": 1, "plan": "enterprise", "used": 1000, "limit": null, "remaining_free_units": null,
               "threshold": null, "overage": null, "resets_at": "2025-12-01T00:00:00Z"})
    );
}

#[tokio::test]
async fn quote_limit_check_and_reserve_agree_for_every_plan() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO plan_limits (plan_name, monthly_included_units, overage_price_cents, currency) VALUES \
              ('none', 0, 100, 'EUR'), ('strict', 3, NULL, 'USD'), ('gift', 3, 0, 'USD'), ('yen', 3, 70, 'JPY')")
        .await;
    let plans: Vec<String> = ledger
        .client
        .query("SELECT plan_name FROM plan_limits ORDER BY plan_name", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(plans.len(), 7);
    let mut user_id = 0;
    let (mut free, mut charged, mut refused) = (0, 0, 0);
    for plan in &plans {
        for used in [0, 1, 3, 5, 6] {
            for units in [1, 2, 3, 6] {
                user_id += 1;
                ledger
                    .run(&format!(
                        "INSERT INTO users (id, plan) VALUES ({user_id}, '{plan}')"
                    ))
                    .await;
                let mut earlier = event(user_id, "earlier");
                earlier["cost_units"] = used.into();
                ledger.ingest(&[earlier], NOW).await;
                let case = format!("{plan}, {used} used, {units} more");
                let (_, check) = ledger
                    .get(&format!("/usage/limit-check/user/{user_id}"), NOW)
                    .await;
                let path = format!("/usage/overage/quote?user_id={user_id}&units={units}");
                let (status, quote) = ledger.get(&path, NOW).await;
                assert_eq!(status, 200, "{case}");
                let (without, answer) = ledger.reserve(user_id, units, "a", false).await;
                let fits = check["remaining_free_units"]
                    .as_i64()
                    .is_none_or(|left| left >= units);
                assert_eq!(without == 200, fits, "{case}: {check}");
                assert_eq!(quote["overage_units"] == 0, fits, "{case}: {quote}");
                assert_eq!(
                    check["overage"]["price_cents"], quote["overage_price_cents"],
                    "{case}"
                );
                assert_eq!(check["used"], used, "{case}");
                if fits {
                    assert_eq!(quote["total_cents"], 0, "{case}");
                    assert_eq!(answer["used"], used + units, "{case}");
                    free += 1;
                    continue;
                }
                assert_eq!(
                    (&answer["used"], &answer["limit"]),
                    (&check["used"], &check["limit"]),
                    "{case}"
                );
                assert_eq!(answer["resets_at"], check["resets_at"], "{case}");
                assert_eq!(
                    answer.get("overage").unwrap_or(&Value::Null),
                    &check["overage"],
                    "{case}"
                );
                let (with, answer) = ledger.reserve(user_id, units, "a", true).await;
                if quote["total_cents"].is_null() {
                    assert_eq!(with, 402, "{case}");
                    refused += 1;
                } else {
                    assert_eq!(with, 200, "{case}: {answer}");
                    assert_eq!(answer["price_cents"], quote["total_cents"], "{case}");
                    assert_eq!(answer["currency"], quote["currency"], "{case}");
                    let (_, months) = ledger
                        .get(&format!("/usage/user/{user_id}/monthly"), NOW)
                        .await;
                    assert_eq!(months[0]["amount_cents"], quote["total_cents"], "{case}");
                    charged += 1;
                }
            }
        }
    }
    assert!(
        free > 20 && charged > 20 && refused > 5,
        "{free} {charged} {refused}"
    );
}

#[tokio::test]
async fn nobody_and_no_plan_are_told_apart() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO users (id, plan) VALUES (2, 'unheard of')")
        .await;
    for path in [
        "/usage/limit-check/user/",
        "/usage/overage/quote?units=1&user_id=",
    ] {
        assert_eq!(ledger.get(&format!("{path}1"), NOW).await.0, 404);
        let (status, body) = ledger.get(&format!("{path}2"), NOW).await;
        assert_eq!((status, &body["code"]), (503, &json!("not_configured")));
    }
    assert_eq!(
        ledger.get("/usage/limit-check/partner/nobody", NOW).await.0,
        404
    );
    assert_eq!(
        ledger.get("/usage/limit-check/partner/%00", NOW).await.0,
        404
    );
}

/// `INSERT` of the gateway's rows.
fn gateway_rows(prefix: &str, rows: i64, at: &str) -> String {
    format!(
        "INSERT INTO api_usage (api_key_prefix, endpoint, status_code, cost_units, created_at) \
         SELECT '{prefix}', '/deeds', 200, 3, '{at}' FROM generate_series(1, {rows})"
    )
}

#[tokio::test]
async fn a_partners_requests_are_counted_by_the_contracts_source() {
    let ledger = Ledger::create().await;
    for (source, used) in [("api_usage", 4), ("usage_events", 2), ("both", 6)] {
        ledger.contract(source, source, 6).await;
        ledger
            .run(&gateway_rows(source, 3, "2025-11-01T00:00:00Z"))
            .await;
        ledger
            .run(&gateway_rows(source, 1, "2025-11-30T23:59:59.999999Z"))
            .await;
        ledger
            .run(&gateway_rows(source, 5, "2025-10-31T23:59:59.999999Z"))
            .await;
        ledger
            .run(&gateway_rows(source, 7, "2025-12-01T00:00:00Z"))
            .await;
        let mut large = partner_event(source, "b", NOW);
        large["cost_units"] = 40.into();
        ledger
            .ingest(&[partner_event(source, "a", NOW), large], NOW)
            .await;
        let (_, body) = ledger
            .get(&format!("/usage/limit-check/partner/{source}"), NOW)
            .await;
        let threshold = if used == 6 { json!(100) } else { json!(null) };
        assert_eq!(
            body,
            json!({"api_key_prefix": source, "allowed": used < 6, "used": used, "limit": 6, "remaining": 6 - used,
                   "threshold": threshold, "resets_at": "2025-12-01T00:00:00Z"})
        );
    }
}

#[tokio::test]
async fn types_the_contract_does_not_bill_are_no_requests() {
    let ledger = Ledger::create().await;
    ledger.contract("dp_pk_alpha", "usage_events", 5).await;
    ledger
        .run("UPDATE api_partner_contracts SET billable_event_types = '{deed}'")
        .await;
    let mut other = partner_event("dp_pk_alpha", "b", NOW);
    other["event_type"] = "ping".into();
    ledger
        .ingest(&[partner_event("dp_pk_alpha", "a", NOW), other], NOW)
        .await;
    assert_eq!(
        ledger
            .get("/usage/limit-check/partner/dp_pk_alpha", NOW)
            .await
            .1["used"],
        1
    );
}

#[tokio::test]
async fn a_partner_without_a_limit_is_always_allowed() {
    let ledger = Ledger::create().await;
    ledger.contract("a", "api_usage", -1).await;
    ledger.contract("b", "api_usage", 0).await;
    ledger.run("UPDATE api_partner_contracts SET monthly_request_limit = NULL WHERE api_key_prefix = 'a'").await;
    ledger.run(&gateway_rows("a", 100, NOW)).await;
    let (_, body) = ledger.get("/usage/limit-check/partner/a", NOW).await;
    assert_eq!(
        (&body["allowed"], &body["limit"], &body["remaining"]),
        (&json!(true), &json!(null), &json!(null))
    );
    let (_, body) = ledger.get("/usage/limit-check/partner/b", NOW).await;
    assert_eq!(
        (&body["allowed"], &body["limit"], &body["threshold"]),
        (&json!(false), &json!(0), &json!(null))
    );
}

#[tokio::test]
async fn the_hosts_own_table_may_have_instants_without_a_zone() {
    let ledger = Ledger::create().await;
    ledger
        .run("ALTER TABLE api_usage ALTER COLUMN created_at TYPE TIMESTAMP USING created_at AT TIME ZONE 'UTC'; \
              DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); END $$")
        .await;
    ledger.contract("a", "api_usage", 10).await;
    ledger
        .run(&gateway_rows("a", 2, "2025-11-01 00:00:00"))
        .await;
    ledger
        .run(&gateway_rows("a", 3, "2025-10-31 23:59:59"))
        .await;
    let (_, body) = ledger.get("/usage/limit-check/partner/a", NOW).await;
    assert_eq!(body["used"], 2);
    let (_, months) = ledger.get("/usage/partner/a/monthly", NOW).await;
    assert_eq!(
        (&months[0]["events"], &months[1]["events"]),
        (&json!(2), &json!(3)),
        "{months}"
    );
}
