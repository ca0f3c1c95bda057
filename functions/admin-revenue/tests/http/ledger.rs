//! A ledger with rows of a test's own, and requests to the real handler over it.

use std::sync::LazyLock;

use admin_revenue::{App, routes};
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::{Body, Request, Response};
use runtime::config::Environment;
use runtime::telemetry;
use serde_json::{Value, json};
use shared::ledger;
use stripe::account::Account;
use stripe::event::Event;
use testing::contract::Contract;
use testing::roles::as_function;
use testing::{Aws, TestDatabase};

/// Signs the tests' tokens.
pub(crate) const JWT_SECRET: &str = "the secret of the host application";

/// One test's database, and the function over it.
pub(crate) struct Ledger {
    pub(crate) app: App,
    pub(crate) client: tokio_postgres::Client,
    /// Dropped with it.
    database: TestDatabase,
}

impl Ledger {
    pub(crate) async fn create() -> Ledger {
        Ledger::with(&[]).await
    }

    /// With more variables than the database and the secret.
    pub(crate) async fn with(pairs: &[(&str, &str)]) -> Ledger {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        let app = app(&database.url, pairs).await;
        Ledger {
            app,
            client,
            database,
        }
    }

    /// Where the ledger is, for another app over it.
    pub(crate) fn url(&self) -> &str {
        &self.database.url
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Statements that put rows in, or break something.
    pub(crate) async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}\n{error:?}");
        }
    }

    /// Rows of `revenue_daily`: day, currency, gross, fees, refunds, disputes.
    pub(crate) async fn days(&self, rows: &[(&str, &str, i64, i64, i64, i64)]) {
        for (day, currency, gross, fees, refunds, disputes) in rows {
            self.run(&format!(
                "INSERT INTO revenue_daily (day, currency, gross_cents, fees_cents, refunds_cents, \
                 disputes_cents, payments) \
                 VALUES ('{day}', '{currency}', {gross}, {fees}, {refunds}, {disputes}, 1)"
            ))
            .await;
        }
    }

    /// A running subscription with its one version and movement, as the webhook leaves them.
    pub(crate) async fn subscription(
        &self,
        customer: &str,
        currency: &str,
        microcents: i64,
        since: &str,
    ) {
        let status = if microcents > 0 { "active" } else { "trialing" };
        self.run(&format!(
            "INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, status, plan_name, currency, \
             mrr_microcents) VALUES ('sub_{customer}', '{customer}', '{status}', 'unknown', '{currency}', {microcents}); \
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id, stripe_customer_id, currency, \
             source_created_at, occurred_at, status, mrr_microcents) \
             VALUES ('sub_{customer}', 'evt_{customer}', '{customer}', '{currency}', '{since}', '{since}', '{status}', \
             {microcents})"
        ))
        .await;
        if microcents > 0 {
            self.movement(customer, currency, since, "new", 0, microcents)
                .await;
        }
    }

    /// A row of `mrr_movements`.
    pub(crate) async fn movement(
        &self,
        customer: &str,
        currency: &str,
        at: &str,
        kind: &str,
        before: i64,
        after: i64,
    ) {
        let delta = after - before;
        self.run(&format!(
            "INSERT INTO mrr_movements (occurred_at, stripe_customer_id, kind, currency, delta_microcents, \
             before_microcents, after_microcents, cause_event_id) \
             VALUES ('{at}', '{customer}', '{kind}', '{currency}', {delta}, {before}, {after}, 'evt')"
        ))
        .await;
    }

    /// Applies events of Stripe, as the webhook does.
    pub(crate) async fn ingest(&self, events: Vec<Value>) {
        let mut client = self.database.client().await;
        let fees = FeeEstimate {
            bps: 290,
            fixed_cents: 30,
        };
        for value in events {
            let payload = value.to_string();
            let event = Event::from_value(value).expect("an event");
            let now = event.created_at.expect("a time");
            if let Err(error) = ledger::ingest(
                &mut client,
                &Account::default(),
                &event,
                &payload,
                fees,
                now,
            )
            .await
            {
                panic!("{payload}: {}", telemetry::cause_chain(&error));
            }
        }
    }

    /// `GET path` as an admin, at an instant: status, file name and text.
    pub(crate) async fn file(&self, path: &str, now: &str) -> (u16, String, String) {
        let now: Timestamp = now.parse().expect("an instant");
        let response = handle(&self.app, request("GET", path, Some(&admin(now))), now).await;
        let name = response
            .headers()
            .get("content-disposition")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let text = String::from_utf8(response.body().to_vec()).expect("UTF-8");
        (response.status().as_u16(), name, text)
    }

    /// `GET path` as an admin, at an instant: status and body.
    pub(crate) async fn get(&self, path: &str, now: &str) -> (u16, Value) {
        let now: Timestamp = now.parse().expect("an instant");
        let response = handle(&self.app, request("GET", path, Some(&admin(now))), now).await;
        (response.status().as_u16(), body(&response))
    }

    /// The revenue report, which must be a 200.
    pub(crate) async fn revenue(&self, query: &str, now: &str) -> Value {
        let (status, body) = self.get(&format!("/admin/revenue{query}"), now).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// The function over a database URL and the shared AWS stand-in.
pub(crate) async fn app(database_url: &str, pairs: &[(&str, &str)]) -> App {
    let mut variables = vec![
        ("DATABASE_URL", database_url),
        ("DATABASE_POOL_SIZE", "4"),
        ("ADMIN_JWT_SECRET", JWT_SECRET),
    ];
    variables.extend(pairs);
    // Nothing of the revenue report asks AWS; the health check's tests bring their own.
    let sdk = testing::aws::sdk_config("http://127.0.0.1:1");
    App::from_env(
        &as_function("admin-revenue", &Environment::from_pairs(variables)),
        &sdk,
    )
    .expect("an app")
}

/// The function over a database URL and moto.
pub(crate) async fn app_with_aws(database_url: &str, aws: &Aws, pairs: &[(&str, &str)]) -> App {
    let mut variables = vec![
        ("DATABASE_URL", database_url),
        ("ADMIN_JWT_SECRET", JWT_SECRET),
        // The samples are of the test mode.
        ("STRIPE_LIVEMODE", "any"),
    ];
    variables.extend(pairs);
    App::from_env(
        &as_function("admin-revenue", &Environment::from_pairs(variables)),
        &aws.sdk_config(),
    )
    .expect("an app")
}

/// What the function answers, compared with its document.
pub(crate) async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::new(routes().document()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = admin_revenue::handle(app, request, now).await;
    CONTRACT.check(method.as_str(), &path, &response);
    response
}

/// A request as the gateway hands it over.
pub(crate) fn request(method: &str, path: &str, authorization: Option<&str>) -> Request {
    let mut builder = lambda_http::http::Request::builder()
        .method(method)
        .uri(path);
    if let Some(authorization) = authorization {
        builder = builder.header("authorization", authorization);
    }
    builder.body(Body::Empty).expect("a request")
}

/// The header of an admin whose token is valid at `now`.
pub(crate) fn admin(now: Timestamp) -> String {
    bearer(&json!({"exp": now.as_second() + 60, "role": "admin"}))
}

pub(crate) fn bearer(claims: &Value) -> String {
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes()).expect("a key");
    let token = jsonwebtoken::encode(&Header::default(), claims, &key).expect("a token");
    format!("Bearer {token}")
}

pub(crate) fn body(response: &Response<Body>) -> Value {
    serde_json::from_slice(response.body()).expect("a JSON body")
}
