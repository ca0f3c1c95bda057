//! Who may call what: every route with every kind of token.

use serde_json::json;
use testing::access::{self, PARTNER, Row, SERVICE};
use testing::logs;
use usage::routes;

use crate::ledger::{JWT_SECRET, Ledger, NOW, SERVICE_TOKEN, app, bearer, call, request, service};

/// A route's path with the partner `alpha`, the user 1 and the key `k`.
fn path(pattern: &str) -> String {
    pattern
        .replace("{prefix}", "alpha")
        .replace("{id}", "1")
        .replace("{idempotency_key}", "k")
}

/// Who may call which route.
const ROWS: [(&str, Row); 10] = [
    ("POST /usage/events", SERVICE),
    ("POST /usage/events/{idempotency_key}/void", SERVICE),
    ("POST /usage/reserve", SERVICE),
    ("GET /usage/limit-check/user/{id}", SERVICE),
    ("GET /usage/limit-check/partner/{prefix}", PARTNER),
    ("GET /usage/overage/quote", SERVICE),
    ("GET /usage/user/{id}/monthly", SERVICE),
    ("GET /usage/partner/{prefix}/monthly", PARTNER),
    ("GET /usage/partner/{prefix}/current", PARTNER),
    ("GET /usage/partner/{prefix}/invoices", PARTNER),
];

#[tokio::test]
async fn every_route_with_every_token() {
    let ledger = Ledger::with_users(1).await;
    ledger.contract("alpha", "both", 10).await;
    let tokens = access::tokens(JWT_SECRET, SERVICE_TOKEN, "alpha", NOW.parse().unwrap());
    let table = routes().table();
    access::check(&table, &ROWS, &tokens, async |route, token| {
        let sent = request(route.method.as_str(), &path(&route.path), token, None);
        let (status, body) = ledger.call(sent, NOW).await;
        if [401, 403].contains(&status) {
            assert_eq!(body.get("used"), None);
            assert!(body.get("code").is_some() && !body.is_array(), "{body}");
        }
        status
    })
    .await;
    assert_eq!(ledger.number("SELECT count(*) FROM usage_events").await, 0);
}

#[tokio::test]
async fn a_token_that_is_not_well_made_is_a_401_everywhere() {
    let ledger = Ledger::with_users(1).await;
    let own = bearer(json!({"partner": "alpha"}));
    let future = bearer(json!({"partner": "alpha", "nbf": 4_000_000_000_i64}));
    let forged = own.replace("Bearer ", "Bearer x");
    for route in routes().table() {
        for (name, authorization) in [
            ("another scheme", "Basic dXNlcg=="),
            ("a wrong token", "Bearer the token of the backen"),
            ("a forged token", &forged),
            ("a token of the future", &future),
        ] {
            let sent = request(
                route.method.as_str(),
                &path(&route.path),
                Some(authorization),
                None,
            );
            let (status, body) = ledger.call(sent, NOW).await;
            assert_eq!(status, 401, "{} by {name}: {body}", route.path);
        }
    }
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_not_told_what_it_was_taken_for() {
    let ledger = Ledger::create().await;
    let expired = bearer(json!({"partner": "alpha", "nbf": 4_000_000_000_i64}));
    let mut told = Vec::new();
    for token in [expired.as_str(), "Bearer nonsense", "Bearer a.b.c"] {
        let sent = request("GET", "/usage/partner/alpha/monthly", Some(token), None);
        told.push(ledger.call(sent, NOW).await.1["detail"].clone());
    }
    assert!(told.iter().all(|detail| *detail == told[0]), "{told:?}");
}

#[tokio::test]
async fn a_stranger_is_refused_before_anything_of_the_request_is_looked_at() {
    let ledger = Ledger::create().await;
    for (method, path) in [
        ("POST", "/usage/events?x=1"),
        ("GET", "/usage/limit-check/user/x?y=1"),
        ("GET", "/usage/partner/alpha/monthly?from=x"),
    ] {
        let sent = request(method, path, None, Some("{".to_owned()));
        assert_eq!(ledger.call(sent, NOW).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn a_deployment_without_tokens_is_not_the_callers_fault() {
    let ledger = Ledger::with_users(1).await;
    let app = app(&ledger.database.url, &[("SERVICE_TOKENS", "")]);
    let own = bearer(json!({"partner": "alpha"}));
    let ask = async |method: &str, path: &str, token: &str| {
        call(&app, request(method, path, Some(token), None), NOW).await
    };
    let (status, body) = ask("GET", "/usage/limit-check/user/1", &service()).await;
    assert_eq!((status, &body["code"]), (503, &json!("not_configured")));
    // Who has a token of the other kind is not held up.
    assert_eq!(
        ask("GET", "/usage/partner/alpha/monthly", &own).await.0,
        200
    );
    assert_eq!(
        ask("GET", "/usage/partner/alpha/monthly", &service())
            .await
            .0,
        503
    );
}

#[tokio::test]
async fn the_logs_hold_no_token_and_no_payload() {
    let ledger = Ledger::with_users(1).await;
    let jwt = bearer(json!({"partner": "alpha"}));
    let tokens = [
        jwt.clone(),
        service(),
        format!("{jwt}x"),
        "Bearer hush-hush-hush".to_owned(),
    ];
    ledger.run("DROP TABLE usage_daily CASCADE").await;
    for token in &tokens {
        for route in routes().table() {
            let (method, pattern) = (route.method.as_str(), route.path.as_str());
            let text = json!({"idempotency_key": "a-private-key", "user_id": 1, "event_type": "deed",
                              "metadata": {"name": "Ada Private"}});
            let sent = request(method, &path(pattern), Some(token), Some(text.to_string()));
            drop(ledger.call(sent, NOW).await);
        }
    }
    assert!(
        logs::captured().contains("a request failed"),
        "something was logged"
    );
    let tokens = tokens.iter().filter_map(|token| token.split_once(' '));
    logs::assert_free_of(tokens.map(|(_, token)| token));
    logs::assert_free_of([JWT_SECRET, SERVICE_TOKEN, "Ada Private", "a-private-key"]);
}
