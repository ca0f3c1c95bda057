//! The webhook as a test drives it: real configuration, real Postgres, moto, signed requests.

use std::sync::Arc;

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::Environment;
use secrecy::SecretString;
use serde_json::Value;
use stripe::signature;
use testing::roles::as_function;
use testing::{Surroundings, TestDatabase};
use webhook::App;

pub(crate) const SECRET: &str = "whsec_test_of_the_webhook";

/// A webhook on its own database, with as many sandboxes as deliveries run at once.
pub(crate) struct Webhook {
    pub(crate) database: TestDatabase,
    parked_events: ParkedEvents,
    apps: Vec<Arc<App>>,
}

impl Webhook {
    pub(crate) async fn start(sandboxes: usize) -> Webhook {
        Webhook::start_with(sandboxes, &[]).await
    }

    /// With these variables.
    pub(crate) async fn start_with(
        sandboxes: usize,
        variables: &[(&'static str, &str)],
    ) -> Webhook {
        let surroundings = surroundings().await;
        let environment = as_function("webhook", &surroundings.environment(variables));
        Webhook::of(surroundings, &environment, sandboxes)
    }

    pub(super) fn of(
        surroundings: Surroundings,
        environment: &Environment,
        sandboxes: usize,
    ) -> Webhook {
        let app = |_| Arc::new(App::from_env(environment, &surroundings.aws).unwrap());
        Webhook {
            apps: (0..sandboxes).map(app).collect(),
            parked_events: ParkedEvents::from_env(environment, &surroundings.aws).unwrap(),
            database: surroundings.database,
        }
    }

    /// Why this event was parked; `None` when it was not.
    pub(crate) async fn parked_because(&self, event_id: &str) -> Option<String> {
        let parked = self.parked_events.get(event_id).await.unwrap();
        Some(parked?.state.reason)
    }

    /// One sandbox; the pool of each holds one connection.
    pub(crate) fn sandbox(&self, number: usize) -> Arc<App> {
        Arc::clone(&self.apps[number % self.apps.len()])
    }
}

pub(super) async fn surroundings() -> Surroundings {
    Surroundings::new([
        ("DATABASE_SSLMODE", "disable".to_owned()),
        ("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()),
    ])
    .await
}

/// Delivers a body, signed, at the time of the event (or the epoch's).
pub(crate) async fn deliver(app: &App, body: String) -> (u16, Value) {
    let now = Timestamp::from_second(1_780_000_000).unwrap();
    let header = signature::sign(body.as_bytes(), &SecretString::from(SECRET), now);
    let request = Request::new(Body::Text(body));
    let (mut parts, body) = request.into_parts();
    parts.method = lambda_http::http::Method::POST;
    parts.uri = "https://billing.example.com/payments/webhook"
        .parse()
        .unwrap();
    parts
        .headers
        .insert(signature::HEADER, header.parse().unwrap());
    let response = webhook::handle(app, Request::from_parts(parts, body), now).await;
    read(response)
}

pub(crate) fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_slice(response.body()).unwrap())
}
