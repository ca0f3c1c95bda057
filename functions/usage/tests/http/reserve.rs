//! Reservations: never one unit too many, the first verdict for ever, and what the refusal offers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::ledger::{Ledger, NOW, app, call, event, post};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_200_reservations_at_once_against_a_limit_of_50_exactly_50_are_allowed() {
    const RUNS: i32 = 20;
    let ledger = Ledger::create().await;
    ledger
        .run(&format!(
            "INSERT INTO plan_limits (plan_name, monthly_included_units) VALUES ('fifty', 50); \
             INSERT INTO users (id, plan) SELECT n, 'fifty' FROM generate_series(1, {RUNS}) AS n"
        ))
        .await;
    // Several sandboxes, as the platform has them.
    let pool = [("DATABASE_POOL_SIZE", "4")];
    let apps: Vec<_> = (0..4)
        .map(|_| Arc::new(app(&ledger.database.url, &pool)))
        .collect();
    for user_id in 1..=RUNS {
        let calls: Vec<_> = (0..200)
            .map(|n| {
                let app = Arc::clone(&apps[n % apps.len()]);
                let body = json!({"user_id": user_id, "units": 1, "event_type": "deed",
                                  "idempotency_key": format!("k{n}")});
                tokio::spawn(async move {
                    loop {
                        let (status, answer) = call(&app, post("/usage/reserve", &body), NOW).await;
                        // "Try again", which a key makes safe: 16 connections are waited for by 200.
                        if status != 503 {
                            return (status, answer);
                        }
                    }
                })
            })
            .collect();
        let mut allowed = Vec::new();
        for (n, call) in calls.into_iter().enumerate() {
            let (status, answer) = call.await.unwrap();
            match status {
                200 => allowed.push((n, answer)),
                402 => assert_eq!(
                    (&answer["used"], &answer["limit"]),
                    (&json!(50), &json!(50))
                ),
                other => panic!("{other} {answer}"),
            }
        }
        assert_eq!(allowed.len(), 50, "user {user_id}");
        let mut used: Vec<i64> = allowed
            .iter()
            .map(|(_, answer)| answer["used"].as_i64().unwrap())
            .collect();
        used.sort_unstable();
        assert_eq!(
            used,
            (1..=50).collect::<Vec<i64>>(),
            "each took a unit of its own"
        );
        let (n, first) = &allowed[0];
        let (status, again) = ledger.reserve(user_id, 1, &format!("k{n}"), false).await;
        assert_eq!(
            (status, &again),
            (200, first),
            "a replay gets the first verdict"
        );
    }
    assert_eq!(
        ledger.number("SELECT count(*) FROM usage_events").await,
        i64::from(50 * RUNS)
    );
    assert_eq!(ledger.differences().await, []);
}

#[tokio::test]
async fn inside_the_limit_units_are_free_and_counted() {
    let ledger = Ledger::with_users(1).await;
    let (status, body) = ledger.reserve(1, 2, "a", false).await;
    assert_eq!(
        (status, body),
        (
            200,
            json!({"allowed": true, "used": 2, "limit": 5, "remaining": 3})
        )
    );
    // However units come in, they count.
    ledger.ingest(&[event(1, "b"), event(1, "c")], NOW).await;
    let (_, body) = ledger.reserve(1, 1, "d", true).await;
    assert_eq!(
        body,
        json!({"allowed": true, "used": 5, "limit": 5, "remaining": 0})
    );
    assert_eq!(
        ledger.rollup().await,
        ["user:1 2025-11-20 deed USD 4 5 5 0"]
    );
}

#[tokio::test]
async fn over_the_limit_the_refusal_says_what_more_would_cost() {
    let ledger = Ledger::with_users(1).await;
    ledger.reserve(1, 4, "a", false).await;
    let (status, mut body) = ledger.reserve(1, 2, "b", false).await;
    assert_eq!(status, 402);
    for member in ["title", "status", "detail", "request_id"] {
        body.as_object_mut().unwrap().remove(member).unwrap();
    }
    assert_eq!(
        body,
        json!({"code": "payment_required", "allowed": false, "used": 4, "limit": 5, "remaining": 1,
               "overage": {"price_cents": 500, "currency": "USD"},
               "upgrade": {"plan": "professional", "price_cents": 2999, "currency": "USD", "breakeven_units": 6},
               "resets_at": "2025-12-01T00:00:00Z"})
    );
    // Nothing is stored, so the same key may come again.
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 1);
    let (status, body) = ledger.reserve(1, 2, "b", true).await;
    assert_eq!(
        (status, body),
        (
            200,
            json!({"allowed": true, "used": 6, "limit": 5, "remaining": 0, "overage": true, "overage_units": 1,
                     "price_cents": 500, "currency": "USD"})
        )
    );
}

#[tokio::test]
async fn accepted_overage_is_a_billable_event_and_stands_in_the_months_amount() {
    let ledger = Ledger::with_users(1).await;
    let (_, straddling) = ledger.reserve(1, 7, "a", true).await;
    assert_eq!(straddling["price_cents"], 1_000);
    let (_, beyond) = ledger.reserve(1, 3, "b", true).await;
    assert_eq!(beyond["price_cents"], 1_500);
    let rows: Vec<String> = ledger
        .client
        .query(
            "SELECT concat_ws(' ', idempotency_key, cost_units, unit_price_cents, currency, billable) \
             FROM usage_events ORDER BY idempotency_key",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        rows,
        ["a 5 0 USD t", "a:overage 2 500 USD t", "b 3 500 USD t"]
    );
    let (_, months) = ledger.get("/usage/user/1/monthly", NOW).await;
    assert_eq!(months[0]["amount_cents"], 2_500);
    assert_eq!(
        (&months[0]["events"], &months[0]["billable_units"]),
        (&json!(3), &json!(10))
    );
}

#[tokio::test]
async fn an_allowed_key_returns_its_first_verdict_whatever_has_happened_since() {
    let ledger = Ledger::with_users(1).await;
    let (_, free) = ledger.reserve(1, 3, "a", false).await;
    let (_, charged) = ledger.reserve(1, 4, "b", true).await;
    ledger
        .run("UPDATE plan_limits SET overage_price_cents = 900; UPDATE users SET plan = 'gone'")
        .await;
    for (units, key, first) in [(3, "a", &free), (4, "b", &charged)] {
        for accept_overage in [true, false] {
            let (status, again) = ledger.reserve(1, units, key, accept_overage).await;
            assert_eq!((status, &again), (200, first));
        }
    }
    let later = json!({"user_id": 1, "units": 3, "event_type": "deed", "idempotency_key": "a"});
    let (status, again) = ledger
        .post("/usage/reserve", &later, "2026-01-05T00:00:00Z")
        .await;
    assert_eq!((status, again), (200, free));
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 3);
}

#[tokio::test]
async fn a_key_that_stands_for_something_else_is_a_conflict() {
    let ledger = Ledger::with_users(2).await;
    ledger.reserve(1, 1, "a", false).await;
    ledger
        .ingest(&[event(1, "plain"), event(1, "b:overage")], NOW)
        .await;
    let other_type =
        json!({"user_id": 1, "units": 1, "event_type": "page", "idempotency_key": "a"});
    let wanted = |units: i64, key: &str| {
        json!({"user_id": 1, "units": units, "event_type": "deed",
                                                "idempotency_key": key, "accept_overage": true})
    };
    for body in [
        other_type,
        wanted(2, "a"),
        wanted(1, "plain"),
        wanted(9, "b"),
    ] {
        let (status, answer) = ledger.post("/usage/reserve", &body, NOW).await;
        assert_eq!(
            (status, &answer["code"]),
            (409, &json!("idempotency_key_reused")),
            "{body}"
        );
    }
    // And an event cannot take a reservation's key.
    let (status, _) = ledger.post("/usage/events", &event(1, "a"), NOW).await;
    assert_eq!(status, 409);
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 3);
    let (status, _) = ledger.reserve(2, 1, "a", false).await;
    assert_eq!(status, 200, "another user's key is another key");
}

#[tokio::test]
async fn a_plan_that_sells_no_overage_offers_none_even_when_it_is_accepted() {
    let ledger = Ledger::create().await;
    ledger
        .run(
            "INSERT INTO plan_limits (plan_name, monthly_included_units) VALUES ('strict', 1); \
              INSERT INTO users (id, plan) VALUES (1, 'strict')",
        )
        .await;
    let (status, body) = ledger.reserve(1, 2, "a", true).await;
    assert_eq!(status, 402);
    assert_eq!(
        (body.get("overage"), body.get("upgrade")),
        (None, None),
        "{body}"
    );
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 0);
    let (status, _) = ledger.reserve(1, 1, "a", true).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_new_month_starts_at_nothing() {
    let ledger = Ledger::with_users(1).await;
    let at = async |key: &str, now: &str| {
        let body = json!({"user_id": 1, "units": 5, "event_type": "deed", "idempotency_key": key});
        ledger.post("/usage/reserve", &body, now).await.0
    };
    assert_eq!(at("a", "2024-02-29T23:59:59.999999Z").await, 200);
    assert_eq!(at("b", "2024-02-29T23:59:59.999999Z").await, 402);
    assert_eq!(at("c", "2024-03-01T00:00:00Z").await, 200);
    assert_eq!(at("d", "2024-03-31T23:59:59Z").await, 402);
}

#[tokio::test]
async fn who_has_no_plan_is_on_the_free_one_and_who_is_not_there_is_a_404() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO users (id, plan) VALUES (1, NULL), (2, 'unheard of')")
        .await;
    assert_eq!(ledger.reserve(1, 5, "a", false).await.1["limit"], 5);
    assert_eq!(ledger.reserve(3, 1, "a", false).await.0, 404);
    let (status, body): (u16, Value) = ledger.reserve(2, 1, "a", false).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_configured")));
    assert_eq!(body.get("detail"), None, "a 5xx tells nothing");
    assert!(testing::logs::captured().contains("plan_limits has no plan named unheard of"));
}

#[tokio::test]
async fn a_price_beyond_the_range_is_refused() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO plan_limits (plan_name, monthly_included_units, overage_price_cents) \
              VALUES ('dear', 0, 9000000000000000000); INSERT INTO users (id, plan) VALUES (1, 'dear')")
        .await;
    let (status, body) = ledger.reserve(1, 2, "a", true).await;
    assert_eq!((status, &body["field"]), (422, &json!("units")));
}
