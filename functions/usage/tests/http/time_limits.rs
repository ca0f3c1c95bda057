//! Locked tables, a database that hangs, and one without a free connection: 503 in time, and nothing left waiting.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use lambda_http::Request;
use serde_json::{Value, json};
use usage::App;

use crate::ledger::{Ledger, NOW, answer, app, body, call, event, post, request, service};

/// Within which whoever asks is answered, whatever hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// 503 `unavailable`, in time; the detail.
async fn is_unavailable(app: &App, request: Request) -> Option<String> {
    let asked = format!("{} {}", request.method(), request.uri());
    let now: Timestamp = NOW.parse().expect("an instant");
    let started = Instant::now();
    let response = answer(app, request, now).await;
    let elapsed = started.elapsed();
    assert!(elapsed < PATIENCE, "{asked}: {elapsed:?}");
    let problem = body(&response);
    let told = (response.status().as_u16(), &problem["code"]);
    assert_eq!(told, (503, &json!("unavailable")), "{asked}: {problem}");
    assert_eq!(response.headers()["retry-after"], "2", "{asked}");
    problem["detail"].as_str().map(str::to_owned)
}

fn get(path: &str) -> Request {
    request("GET", path, Some(&service()), None)
}

fn reservation(key: &str) -> Value {
    json!({"user_id": 1, "units": 1, "event_type": "deed", "idempotency_key": key})
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_tables_are_answered_503_in_time_and_no_backend_goes_on_waiting() {
    let reads = [
        ("users", get("/usage/limit-check/user/1")),
        ("users", post("/usage/reserve", &reservation("users"))),
        (
            "usage_events",
            post("/usage/reserve", &reservation("events")),
        ),
        (
            "usage_events",
            post("/usage/events", &json!({"events": [event(1, "locked")]})),
        ),
        ("usage_daily", get("/usage/user/1/monthly")),
    ];
    let ledger = Ledger::with_users(1).await;
    for (table, request) in reads {
        // A sandbox of its own: what one remembers is another test.
        let app = app(&ledger.database.url, &[]);
        let asked = request.uri().path().to_owned();
        let lock = ledger.database.lock_table(table).await;
        let detail = is_unavailable(&app, request).await;
        let busy = ledger.database.backends("state <> 'idle'").await;
        assert_eq!(busy, 0, "{asked}");
        match asked.as_str() {
            "/usage/reserve" => {
                let detail = detail.expect("a detail");
                assert!(detail.contains("unknown") && detail.contains("idempotency_key"));
            }
            "/usage/events" => assert!(detail.expect("a detail").contains("not known")),
            _ => assert_eq!(detail, None),
        }
        lock.release().await;
    }
    // The same keys find out.
    for key in ["users", "events"] {
        let (status, answer) = ledger.reserve(1, 1, key, false).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_two_time_outs_a_sandbox_answers_503_at_once_and_then_tries_again() {
    let ledger = Ledger::with_users(1).await;
    let lock = ledger.database.lock_table("users").await;
    for _ in 0..2 {
        is_unavailable(&ledger.app, get("/usage/limit-check/user/1")).await;
    }
    lock.release().await;
    let started = Instant::now();
    is_unavailable(&ledger.app, get("/usage/limit-check/user/1")).await;
    assert!(started.elapsed() < Duration::from_secs(2), "at once");
    // What is refused without the database is refused as ever.
    let nobody = request("GET", "/usage/limit-check/user/1", None, None);
    assert_eq!(ledger.call(nobody, NOW).await.0, 401);
    tokio::time::sleep(PATIENCE).await;
    for _ in 0..2 {
        assert_eq!(ledger.get("/usage/limit-check/user/1", NOW).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_answered_503_in_time() {
    let ledger = Ledger::with_users(1).await;
    for warmed in [true, false] {
        let (proxy, url) = ledger.database.behind_proxy();
        let app = app(&url, &[("DATABASE_SSLMODE", "disable")]);
        if warmed {
            app.warm().await;
        }
        proxy.hang();
        let detail = is_unavailable(&app, post("/usage/reserve", &reservation("hanging"))).await;
        assert!(detail.expect("a detail").contains("unknown"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_it_tries_again_and_then_answers_503() {
    let ledger = Ledger::with_users(1).await;
    let url = ledger.database.limited_to(1).await;
    let taken = app(&url, &[]);
    taken.warm().await;
    let full = app(&url, &[]);
    is_unavailable(&full, get("/usage/limit-check/user/1")).await;
    let free = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        drop(taken);
    };
    let (answer, ()) = tokio::join!(call(&full, get("/usage/limit-check/user/1"), NOW), free);
    assert_eq!(answer.0, 200, "{}", answer.1);
}
