//! A database of a test's own, and requests to the real handler over it.

use std::sync::LazyLock;

use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::{Body, Request, Response};
use runtime::config::Environment;
use serde_json::{Value, json};
use store::usage_daily::{self, Difference};
use testing::TestDatabase;
use testing::contract::Contract;
use testing::roles::as_function;
use usage::{App, handle, routes};

/// Signs the tests' JWTs.
pub(crate) const JWT_SECRET: &str = "the secret of the host application";
/// What the application's backend sends.
pub(crate) const SERVICE_TOKEN: &str = "the token of the backend";
/// When every test happens that does not say otherwise.
pub(crate) const NOW: &str = "2025-11-20T12:00:00Z";

/// One test's database, and the function over it.
pub(crate) struct Ledger {
    pub(crate) app: App,
    pub(crate) client: tokio_postgres::Client,
    pub(crate) database: TestDatabase,
}

impl Ledger {
    pub(crate) async fn create() -> Ledger {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        Ledger {
            app: app(&database.url, &[]),
            client,
            database,
        }
    }

    /// With users 1 to `users` on the plan `free`.
    pub(crate) async fn with_users(users: i32) -> Ledger {
        let ledger = Ledger::create().await;
        ledger
            .run(&format!(
                "INSERT INTO users (id, plan) SELECT n, 'free' FROM generate_series(1, {users}) AS n"
            ))
            .await;
        ledger
    }

    /// Statements that put rows in, or break something.
    pub(crate) async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}\n{error:?}");
        }
    }

    /// A contract with a request limit of this `unit_source`.
    pub(crate) async fn contract(&self, prefix: &str, unit_source: &str, limit: i64) {
        self.run(&format!(
            "INSERT INTO api_partner_contracts (api_key_prefix, pricing_model, per_deed_price_cents, unit_source, \
             monthly_request_limit, currency, contract_start_date, billed_from) \
             VALUES ('{prefix}', 'per_deed', 250, '{unit_source}', {limit}, 'EUR', '2015-01-01', '2015-01-01')"
        ))
        .await;
    }

    /// One number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match self.client.query_one(sql, &[]).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{sql}\n{error:?}"),
        }
    }

    /// The rows of `usage_daily` with something in them, as text.
    pub(crate) async fn rollup(&self) -> Vec<String> {
        let rows = self
            .client
            .query(
                "SELECT concat_ws(' ', subject, day, event_type, currency, events, units, billable_units, amount_cents) \
                 FROM usage_daily WHERE events > 0 ORDER BY subject, day, event_type, currency",
                &[],
            )
            .await
            .expect("the rollup");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Where the rollup is not the sum of the events.
    pub(crate) async fn differences(&self) -> Vec<Difference> {
        let differences = usage_daily::differences(&self.client).await;
        differences.expect("the differences")
    }

    pub(crate) async fn call(&self, request: Request, now: &str) -> (u16, Value) {
        call(&self.app, request, now).await
    }

    /// `GET path` as the backend: status and body.
    pub(crate) async fn get(&self, path: &str, now: &str) -> (u16, Value) {
        self.call(request("GET", path, Some(&service()), None), now)
            .await
    }

    /// `POST path` as the backend: status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value, now: &str) -> (u16, Value) {
        self.call(post(path, body), now).await
    }

    /// Sends events, and returns their verdicts.
    pub(crate) async fn ingest(&self, events: &[Value], now: &str) -> Vec<String> {
        let (status, body) = self
            .post("/usage/events", &json!({"events": events}), now)
            .await;
        assert_eq!(status, 200, "{body}");
        verdicts(&body)
    }

    /// Reserves units for a user.
    pub(crate) async fn reserve(
        &self,
        user_id: i32,
        units: i64,
        key: &str,
        accept_overage: bool,
    ) -> (u16, Value) {
        let body = json!({"user_id": user_id, "units": units, "event_type": "deed", "idempotency_key": key,
                          "accept_overage": accept_overage});
        self.post("/usage/reserve", &body, NOW).await
    }
}

/// The function over a database URL. The bus cannot be reached: messages stay in the outbox.
pub(crate) fn app(database_url: &str, pairs: &[(&str, &str)]) -> App {
    let mut variables = vec![
        ("DATABASE_URL", database_url),
        ("DATABASE_POOL_SIZE", "8"),
        ("ADMIN_JWT_SECRET", JWT_SECRET),
        ("SERVICE_TOKENS", SERVICE_TOKEN),
        ("EVENT_BUS_NAME", "billing"),
        ("DOCUMENT_BUCKET", "documents"),
    ];
    variables.retain(|(name, _)| pairs.iter().all(|(other, _)| other != name));
    variables.extend(pairs.iter().filter(|(_, value)| !value.is_empty()));
    let sdk = testing::aws::sdk_config("http://127.0.0.1:1");
    App::from_env(
        &as_function("usage", &Environment::from_pairs(variables)),
        &sdk,
    )
    .expect("an app")
}

pub(crate) async fn call(app: &App, request: Request, now: &str) -> (u16, Value) {
    let now: Timestamp = now.parse().expect("an instant");
    let response = answer(app, request, now).await;
    (response.status().as_u16(), body(&response))
}

/// What the function answers, compared with its document: every answer of these tests is.
pub(crate) async fn answer(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::new(routes().document()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = handle(app, request, now).await;
    CONTRACT.check(method.as_str(), &path, &response);
    response
}

/// A request as the gateway hands it over.
pub(crate) fn request(
    method: &str,
    path: &str,
    authorization: Option<&str>,
    body: Option<String>,
) -> Request {
    let mut builder = lambda_http::http::Request::builder()
        .method(method)
        .uri(path);
    if let Some(authorization) = authorization {
        builder = builder.header("authorization", authorization);
    }
    let body = body.map_or(Body::Empty, Body::Text);
    builder.body(body).expect("a request")
}

/// A POST of the backend.
pub(crate) fn post(path: &str, body: &Value) -> Request {
    request("POST", path, Some(&service()), Some(body.to_string()))
}

/// The header of the backend.
pub(crate) fn service() -> String {
    format!("Bearer {SERVICE_TOKEN}")
}

/// The header of a JWT with these claims, valid at [`NOW`].
pub(crate) fn bearer(mut claims: Value) -> String {
    let now: Timestamp = NOW.parse().expect("an instant");
    claims["exp"] = (now.as_second() + 60).into();
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes()).expect("a key");
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
    format!("Bearer {token}")
}

pub(crate) fn body(response: &Response<Body>) -> Value {
    serde_json::from_slice(response.body()).expect("a JSON body")
}

/// One billable unit of a user's.
pub(crate) fn event(user_id: i32, key: &str) -> Value {
    json!({"idempotency_key": key, "user_id": user_id, "event_type": "deed"})
}

/// One event of a partner's at an instant.
pub(crate) fn partner_event(prefix: &str, key: &str, occurred_at: &str) -> Value {
    json!({"idempotency_key": key, "api_key_prefix": prefix, "event_type": "deed", "occurred_at": occurred_at})
}

/// The verdicts of an answer, in order.
pub(crate) fn verdicts(body: &Value) -> Vec<String> {
    let results = body["results"].as_array().expect("results");
    let verdict = |result: &Value| result["verdict"].as_str().expect("a verdict").to_owned();
    results.iter().map(verdict).collect()
}
