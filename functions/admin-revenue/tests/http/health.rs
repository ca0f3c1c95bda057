//! `GET /admin/health` and `/admin/status` against real services, up and away.

use crate::ledger::{admin, app_with_aws, bearer, body, handle, request};
use admin_revenue::App;
use jiff::Timestamp;
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::{Aws, TestDatabase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn health(app: &App) -> (u16, Value) {
    let now = Timestamp::UNIX_EPOCH;
    let asked = request("GET", "/admin/health", Some(&admin(now)));
    let response = handle(app, asked, now).await;
    (response.status().as_u16(), body(&response))
}

/// A server that answers every request with one status, as Stripe does to a request without a key.
async fn answering(status: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("a port");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = socket.read(&mut request).await;
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            if read.is_ok() && socket.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn everything_up_is_ok() {
    let aws = Aws::shared().await;
    let database = TestDatabase::create().await;
    let (bucket, table, bus) =
        tokio::join!(aws.bucket(), aws.parked_events_table(), aws.event_bus());
    let stripe = answering("401 Unauthorized").await;
    let pairs = [
        ("DOCUMENT_BUCKET", bucket.as_str()),
        ("PARKED_EVENTS_TABLE", &table),
        ("EVENT_BUS_NAME", &bus),
        ("STRIPE_API_BASE", &stripe),
    ];
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let (status, health) = health(&app).await;
    assert_eq!(
        health,
        json!({"status": "ok", "checks": {"database": "ok", "bucket": "ok", "bus": "ok",
               "table": "ok", "stripe": "ok"}})
    );
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_is_away_or_missing_is_named_and_nothing_more() {
    let aws = Aws::shared().await;
    let stripe = answering("503 Service Unavailable").await;
    let pairs = [
        ("DOCUMENT_BUCKET", "no-such-bucket-anywhere"),
        ("PARKED_EVENTS_TABLE", "no-such-table"),
        ("STRIPE_API_BASE", stripe.as_str()),
    ];
    let url = "postgres://billing:hush@127.0.0.1:1/billing";
    let app = app_with_aws(url, aws, &pairs).await;
    let (status, health) = health(&app).await;
    assert_eq!(
        health,
        json!({"status": "degraded", "checks": {"database": "unavailable", "bucket": "unavailable",
               "bus": "not_configured", "table": "unavailable", "stripe": "unavailable"}})
    );
    assert_eq!(status, 503);
}

#[tokio::test]
async fn parameters_are_refused() {
    let aws = Aws::shared().await;
    let app = app_with_aws("postgres://billing@127.0.0.1:1/billing", aws, &[]).await;
    let now = Timestamp::UNIX_EPOCH;
    let asked = request("GET", "/admin/health?verbose=1", Some(&admin(now)));
    let response = handle(&app, asked, now).await;
    assert_eq!(response.status(), 400);
    assert_eq!(body(&response)["field"], "verbose");
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_has_nothing_asked() {
    let aws = Aws::shared().await;
    let app = app_with_aws("postgres://billing@127.0.0.1:1/billing", aws, &[]).await;
    let now = Timestamp::UNIX_EPOCH;
    let expired = bearer(&json!({"exp": now.as_second(), "role": "admin"}));
    let partner = bearer(&json!({"exp": now.as_second() + 60, "partner": "dp_pk_alpha"}));
    for (authorization, status) in [
        (None, 401),
        (Some("Bearer put-an-admin-token-here"), 401),
        (Some(expired.as_str()), 401),
        (Some(partner.as_str()), 403),
    ] {
        for path in ["/admin/health", "/admin/health?verbose=1"] {
            let response = handle(&app, request("GET", path, authorization), now).await;
            assert_eq!(response.status(), status, "{path} {authorization:?}");
            assert_eq!(body(&response).get("checks"), None);
        }
    }
}

#[tokio::test]
async fn the_status_says_what_waits() {
    let aws = Aws::shared().await;
    let database = TestDatabase::create().await;
    let table = aws.parked_events_table().await;
    let bucket = aws.bucket().await;
    let pairs = [
        ("PARKED_EVENTS_TABLE", table.as_str()),
        ("DOCUMENT_BUCKET", &bucket),
    ];
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let environment = Environment::from_pairs(pairs);
    let parked = ParkedEvents::from_env(&environment, &aws.sdk_config()).unwrap();
    let now: Timestamp = "2025-10-20T12:00:00Z".parse().unwrap();
    for id in ["evt_1", "evt_2"] {
        parked.park(id, "{}", "no id", now).await.unwrap();
    }
    let client = database.client().await;
    client
        .batch_execute(
            "INSERT INTO stripe_events (event_id, type, created_at, received_at, outcome, payload)
             VALUES ('evt_3', 'invoice.paid', '2025-10-20 11:00Z', '2025-10-20 11:00:01Z', 'applied', '{}'),
                    ('evt_4', 'invoice.paid', '2025-10-20 10:00Z', '2025-10-20 10:00:01Z', 'foreign', '{}'),
                    ('evt_5', 'invoice.paid', '2025-10-18 10:00Z', '2025-10-18 10:00:01Z', 'foreign', '{}');
             INSERT INTO stripe_lookups (kind, stripe_id, reason, subject, requested_at, state, done_at)
             VALUES ('price', 'price_1', 'tiers', 'sub_1', '2025-10-19Z', 'open', NULL),
                    ('price', 'price_2', 'tiers', 'sub_1', '2025-10-18Z', 'failing', NULL),
                    ('price', 'price_3', 'tiers', 'sub_1', '2025-10-17Z', 'absent', NULL),
                    ('price', 'price_4', 'tiers', 'sub_1', '2025-10-16Z', 'done', '2025-10-17Z');
             INSERT INTO outbox (detail_type, dedupe_key, detail, created_at, published_at)
             VALUES ('a', '1', '{}', '2025-10-19Z', NULL), ('a', '2', '{}', '2025-10-18Z', now());
             INSERT INTO reconciliation_runs (run_id, kind, started_at, finished_at, status, open)
             VALUES (1, 'daily', '2025-10-19 06:00Z', '2025-10-19 06:02Z', 'completed', 0),
                    (2, 'daily', '2025-10-20 06:00Z', '2025-10-20 06:02Z', 'incomplete', 3),
                    (3, 'redrive', '2025-10-20 07:00Z', '2025-10-20 07:02Z', 'completed', 0)",
        )
        .await
        .unwrap();
    let response = handle(
        &app,
        request("GET", "/admin/status", Some(&admin(now))),
        now,
    )
    .await;
    assert_eq!(
        body(&response),
        json!({
            "last_event_at": "2025-10-20T11:00:00Z", "parked": 2, "poisoned": 0, "foreign_24h": 1,
            "lookups": {"open": 1, "failing": 1, "absent": 1, "oldest_at": "2025-10-17T00:00:00Z"},
            "outbox": {"unpublished": 1, "oldest_at": "2025-10-19T00:00:00Z"},
            "last_comparison": {"run_id": 2, "finished_at": "2025-10-20T06:02:00Z", "status": "incomplete", "open": 3},
            "rebuild": "idle",
            "errors": []})
    );
    // What cannot be read is null, and said.
    client
        .batch_execute("ALTER TABLE stripe_lookups RENAME TO gone")
        .await
        .unwrap();
    let pairs = [
        ("PARKED_EVENTS_TABLE", "no-such-table"),
        ("DOCUMENT_BUCKET", &bucket),
    ];
    let app = app_with_aws(&database.url, aws, &pairs).await;
    let response = handle(
        &app,
        request("GET", "/admin/status", Some(&admin(now))),
        now,
    )
    .await;
    let status = body(&response);
    assert_eq!(
        (&status["parked"], &status["lookups"]),
        (&Value::Null, &Value::Null)
    );
    let fields = status["errors"].as_array().unwrap().iter();
    let fields: Vec<&Value> = fields.map(|error| &error["field"]).collect();
    assert_eq!(fields, ["parked", "poisoned", "lookups"]);
    assert_eq!(status["outbox"]["unpublished"], 1);
}
