//! Who may call what: every route of the function with every token that must not do.

use admin_revenue::{App, routes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use testing::TestDatabase;
use testing::access::{self, ADMIN, FINANCE, Row, VIEWER, VIEWER_OR_PARTNER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ledger::{JWT_SECRET, app, bearer, body, handle, request};

const NOW: &str = "2025-10-20T12:00:00Z";

/// Who may call which route.
const ROWS: [(&str, Row); 41] = [
    ("GET /admin/revenue", VIEWER),
    ("GET /admin/revenue/movements", VIEWER),
    ("GET /admin/revenue/cohorts", VIEWER),
    ("GET /admin/reports/{report}", VIEWER),
    ("GET /admin/reports/unbilled-usage", VIEWER),
    ("GET /admin/reports/unbilled-usage.csv", VIEWER),
    ("GET /admin/exports/{export}", VIEWER),
    ("GET /admin/health", VIEWER),
    ("GET /admin/invoices", VIEWER_OR_PARTNER),
    ("GET /admin/invoices/{id}", VIEWER_OR_PARTNER),
    ("POST /admin/invoices/{id}/void", FINANCE),
    ("POST /admin/invoices/{id}/mark-paid", FINANCE),
    ("GET /admin/payments", VIEWER),
    ("GET /admin/payments/{id}", VIEWER),
    ("GET /admin/subscriptions", VIEWER),
    ("GET /admin/customers", VIEWER),
    ("GET /admin/customers/{stripe_customer_id}", VIEWER),
    ("GET /admin/contracts", VIEWER),
    ("GET /admin/contracts/{id}", VIEWER),
    ("GET /admin/contracts/{id}/statement.csv", VIEWER),
    ("POST /admin/contracts", ADMIN),
    ("PATCH /admin/contracts/{id}", ADMIN),
    ("GET /admin/contracts/{id}/changes", VIEWER),
    ("GET /admin/contracts/{id}/terms", VIEWER),
    ("DELETE /admin/contracts/{id}/changes/{change_id}", ADMIN),
    ("GET /admin/drafts", VIEWER),
    ("POST /admin/drafts/approve", FINANCE),
    ("POST /admin/drafts/waive", FINANCE),
    ("GET /admin/credits", VIEWER),
    ("POST /admin/credits", FINANCE),
    ("POST /admin/credits/{id}/void", FINANCE),
    ("GET /admin/events", VIEWER),
    ("GET /admin/events/parked", VIEWER),
    ("POST /admin/events/{event_id}/replay", ADMIN),
    ("GET /admin/audit-log", VIEWER),
    ("GET /admin/lookups", VIEWER),
    ("POST /admin/lookups/{id}/retry", FINANCE),
    ("GET /admin/status", VIEWER),
    ("GET /admin/reconciliation", VIEWER),
    ("GET /admin/reconciliation/{run_id}", VIEWER),
    ("POST /admin/reconciliation/items/{id}/accept", FINANCE),
];

fn now() -> Timestamp {
    NOW.parse().expect("an instant")
}

/// The path of a route, with something in the place of its parameters.
fn path(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| match segment {
        "{export}" => "payments.csv",
        "{report}" => "fees",
        segment if segment.starts_with('{') => "1",
        segment => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn claims(extra: &Value) -> Value {
    let mut claims = json!({"exp": now().as_second() + 60, "sub": "u1", "role": "admin"});
    let members = claims.as_object_mut().expect("an object");
    for (name, value) in extra.as_object().expect("an object") {
        members.insert(name.clone(), value.clone());
    }
    claims
}

fn signed(key: &EncodingKey, claims: &Value) -> String {
    let token = jsonwebtoken::encode(&Header::default(), claims, key).expect("a token");
    format!("Bearer {token}")
}

/// A token nobody signed, whose header says so.
fn unsigned(algorithm: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"typ": "JWT", "alg": algorithm}));
    format!("Bearer {header}.{}.", part(&claims(&json!({}))))
}

async fn status(app: &App, method: &str, path: &str, authorization: Option<&str>) -> u16 {
    let response = handle(app, request(method, path, authorization), now()).await;
    let status = response.status().as_u16();
    if (400..500).contains(&status) {
        let problem = body(&response);
        assert_eq!(problem["status"], status, "{method} {path}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
    status
}

/// Answers every request with a key set.
async fn key_set(entry: Value) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if socket.read(&mut request).await.is_err() {
                continue;
            }
            let body = json!({"keys": [entry]}).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            if socket.write_all((head + &body).as_bytes()).await.is_err() {
                break;
            }
        }
    });
    url
}

#[tokio::test]
async fn no_route_answers_a_token_that_does_not_hold_or_does_not_do() {
    let database = TestDatabase::create().await;
    let by_secret = app(&database.url, &[]).await;
    let with_audience = app(&database.url, &[("ADMIN_JWT_AUDIENCE", "billing")]).await;

    // The key set has an RSA key whose public half everybody knows.
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&pair).unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let entry = Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap();
    let entry = serde_json::to_value(entry).unwrap();
    let modulus = entry["n"].as_str().unwrap().to_owned();
    let url = key_set(entry).await;
    let by_key_set = app(
        &database.url,
        &[("ADMIN_JWT_SECRET", ""), ("ADMIN_JWKS_URL", &url)],
    )
    .await;
    let rs256 = jsonwebtoken::encode(
        &Header::new(Algorithm::RS256),
        &claims(&json!({})),
        &private,
    );
    let rs256 = format!("Bearer {}", rs256.unwrap());
    let health = status(&by_key_set, "GET", "/admin/health", Some(&rs256)).await;
    assert_eq!(health, 503, "its own token does; no AWS in this test");

    let exp = now().as_second();
    let public_key = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(&modulus).unwrap()).unwrap();
    let public_text = EncodingKey::from_secret(modulus.as_bytes()).unwrap();
    let other_secret = EncodingKey::from_secret(b"another secret").unwrap();
    let good = bearer(&claims(&json!({})));
    let rows: Vec<(&str, &App, Option<String>, u16)> = vec![
        ("no token", &by_secret, None, 401),
        (
            "garbage",
            &by_secret,
            Some("Bearer garbage".to_owned()),
            401,
        ),
        (
            "three dots of garbage",
            &by_secret,
            Some("Bearer a.b.c".to_owned()),
            401,
        ),
        (
            "another scheme",
            &by_secret,
            Some(good.replace("Bearer", "Basic")),
            401,
        ),
        (
            "the secret itself",
            &by_secret,
            Some(format!("Bearer {JWT_SECRET}")),
            401,
        ),
        (
            "expired",
            &by_secret,
            Some(bearer(&claims(&json!({"exp": exp})))),
            401,
        ),
        (
            "not yet valid",
            &by_secret,
            Some(bearer(&claims(&json!({"nbf": exp + 1})))),
            401,
        ),
        (
            "no expiry",
            &by_secret,
            Some(bearer(&claims(&json!({"exp": null})))),
            401,
        ),
        (
            "wrong secret",
            &by_secret,
            Some(signed(&other_secret, &claims(&json!({})))),
            401,
        ),
        (
            "a signature too many",
            &by_secret,
            Some(format!("{good}x")),
            401,
        ),
        ("alg none", &by_secret, Some(unsigned("none")), 401),
        ("alg None", &by_secret, Some(unsigned("None")), 401),
        (
            "HS256 without a signature",
            &by_secret,
            Some(unsigned("HS256")),
            401,
        ),
        (
            "RS256 where only the secret is known",
            &by_secret,
            Some(rs256),
            401,
        ),
        (
            "HS256 with the public key",
            &by_key_set,
            Some(signed(&public_key, &claims(&json!({})))),
            401,
        ),
        (
            "HS256 with its text",
            &by_key_set,
            Some(signed(&public_text, &claims(&json!({})))),
            401,
        ),
        (
            "HS256 where no secret is known",
            &by_key_set,
            Some(good.clone()),
            401,
        ),
        ("no audience", &with_audience, Some(good), 401),
        (
            "wrong audience",
            &with_audience,
            Some(bearer(&claims(&json!({"aud": "shop"})))),
            401,
        ),
        (
            "another role",
            &by_secret,
            Some(bearer(&claims(&json!({"role": "clerk"})))),
            403,
        ),
        (
            "no role",
            &by_secret,
            Some(bearer(&claims(&json!({"role": null})))),
            403,
        ),
        (
            "a longer role",
            &by_secret,
            Some(bearer(&claims(&json!({"role": "administrator"})))),
            403,
        ),
    ];
    for route in routes().table() {
        let (method, path) = (route.method.as_str(), path(&route.path));
        for (what, app, token, expected) in &rows {
            let found = status(app, method, &path, token.as_deref()).await;
            assert_eq!(found, *expected, "{method} {path}: {what}");
        }
    }
}

#[tokio::test]
async fn every_route_with_every_token() {
    let database = TestDatabase::create().await;
    let app = app(&database.url, &[]).await;
    let tokens = access::tokens(JWT_SECRET, "a service token", "pk_a", now());
    access::check(&routes().table(), &ROWS, &tokens, async |route, token| {
        let (method, path) = (route.method.as_str(), path(&route.path));
        status(&app, method, &path, token).await
    })
    .await;
}

#[tokio::test]
async fn every_route_names_a_parameter_it_does_not_know() {
    let database = TestDatabase::create().await;
    let app = app(&database.url, &[]).await;
    let admin = bearer(&claims(&json!({})));
    for route in routes().table() {
        let (method, path) = (route.method.as_str(), path(&route.path));
        let path = format!("{path}?unknown=1");
        let response = handle(&app, request(method, &path, Some(&admin)), now()).await;
        let problem = body(&response);
        assert_eq!(problem["status"], 400, "{method} {path}");
        assert_eq!(problem["field"], "unknown", "{method} {path}");
    }
}
