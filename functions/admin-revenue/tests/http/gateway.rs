//! The sample envelopes of API Gateway, as `cargo lambda invoke` sends them.

use jiff::Timestamp;
use lambda_http::Request;
use lambda_http::http::HeaderValue;

use crate::ledger::{JWT_SECRET, Ledger, admin, bearer, body, handle, request};
use serde_json::json;
use testing::logs;

fn envelope(text: &str) -> Request {
    lambda_http::request::from_str(text).expect("an envelope")
}

#[tokio::test]
async fn the_sample_envelope_of_the_revenue_report_is_answered() {
    let ledger = Ledger::create().await;
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    let text = include_str!("../../../../events/apigw_admin_revenue_revenue.json");
    let without_a_token = handle(&ledger.app, envelope(text), now).await;
    assert_eq!(
        without_a_token.status(),
        401,
        "the sample has a placeholder"
    );
    let mut request = envelope(text);
    let token = HeaderValue::from_str(&admin(now)).unwrap();
    request.headers_mut().insert("authorization", token);
    let response = handle(&ledger.app, request, now).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body(&response)["currency"], "USD");
    let id = response.headers()["x-request-id"].to_str().unwrap();
    assert!(
        text.contains(&format!("\"requestId\": \"{id}\"")),
        "the gateway's own id: {id}"
    );
}

#[tokio::test]
async fn the_sample_envelope_of_the_health_check_is_answered() {
    let ledger = Ledger::create().await;
    let text = include_str!("../../../../events/apigw_admin_revenue_health.json");
    let now = Timestamp::UNIX_EPOCH;
    let without_a_token = handle(&ledger.app, envelope(text), now).await;
    assert_eq!(
        without_a_token.status(),
        401,
        "the sample has a placeholder"
    );
    let mut request = envelope(text);
    let token = HeaderValue::from_str(&admin(now)).unwrap();
    request.headers_mut().insert("authorization", token);
    let response = handle(&ledger.app, request, now).await;
    assert_eq!(response.status(), 503, "no AWS in this test");
    assert_eq!(body(&response)["checks"]["database"], "ok");
}

#[tokio::test]
async fn the_logs_hold_no_token_whatever_is_wrong_with_it() {
    let ledger = Ledger::create().await;
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    let good = admin(now);
    let tokens = [
        good.clone(),
        bearer(&json!({"exp": now.as_second() - 1, "role": "admin"})),
        bearer(&json!({"exp": now.as_second() + 60, "role": "viewer"})),
        format!("{good}x"),
        good.replace("Bearer ", "Basic "),
        "Bearer hush-hush-hush".to_owned(),
    ];
    for path in ["/admin/revenue", "/admin/health", "/admin/revenue?as_of=x"] {
        for token in &tokens {
            drop(handle(&ledger.app, request("GET", path, Some(token)), now).await);
        }
    }
    ledger.run("DROP TABLE revenue_daily CASCADE").await;
    drop(
        handle(
            &ledger.app,
            request("GET", "/admin/revenue", Some(&good)),
            now,
        )
        .await,
    );
    let tokens = tokens.iter().filter_map(|token| token.split_once(' '));
    logs::assert_free_of(tokens.map(|(_, token)| token));
    logs::assert_free_of([JWT_SECRET]);
}

#[test]
fn without_its_configuration_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_admin-revenue"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("DATABASE_URL"), "{line}");
}
