//! usage: counts what users and partners use, once each, and says what is left and what more would cost.

use std::time::Duration;

use aws_types::SdkConfig;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::authentication::{JwtVerifier, ServiceTokens};
use runtime::api::{self, Error};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::EventBus;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::telemetry::log_failure;
use shared::publishing;
use store::{Database, outbox};
use tokio_postgres::Client;

mod alerts;
mod authorization;
mod current;
mod events;
mod ingest;
mod invoices;
mod json_body;
mod limit_check;
mod meter;
mod monthly;
mod overage_quote;
mod reserve;
mod void;

/// Every route of this function: `template.yaml` has the same.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/usage/events"),
    ("POST", "/usage/events/{idempotency_key}/void"),
    ("POST", "/usage/reserve"),
    ("GET", "/usage/limit-check/user/{id}"),
    ("GET", "/usage/limit-check/partner/{prefix}"),
    ("GET", "/usage/overage/quote"),
    ("GET", "/usage/user/{id}/monthly"),
    ("GET", "/usage/partner/{prefix}/monthly"),
    ("GET", "/usage/partner/{prefix}/current"),
    ("GET", "/usage/partner/{prefix}/invoices"),
];

/// How often a transaction that met another one is run.
const ATTEMPTS: u32 = 5;
/// Longest time the bus may take: the event is committed, the sweep publishes the rest.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What this function's policy lets it reach.
#[derive(Debug)]
pub struct App {
    database: Database,
    service_tokens: ServiceTokens,
    jwt: JwtVerifier,
    event_bus: EventBus,
    /// Only links to invoices' PDFs need it.
    document_bucket: Result<DocumentBucket, config::Error>,
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), `EVENT_BUS_NAME`, `DOCUMENT_BUCKET`, and the variables of [`ServiceTokens`] and
    /// [`JwtVerifier`]; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        Ok(App {
            database: Database::connect_lazily(&database),
            service_tokens: ServiceTokens::from_env(environment, sdk),
            jwt: JwtVerifier::from_env(environment, sdk),
            event_bus: EventBus::from_env(environment, sdk)?,
            document_bucket: DocumentBucket::from_env(environment, sdk),
        })
    }

    /// Opens the database connection ahead of the first request.
    pub async fn warm(&self) {
        self.database.warm().await;
    }

    /// Best effort: the messages are committed, and the sweep publishes what stays behind.
    async fn publish(&self, db: &Client, messages: &[outbox::Message], now: Timestamp) {
        let publish = publishing::publish(db, &self.event_bus, messages, now);
        match tokio::time::timeout(PUBLISH_TIMEOUT, publish).await {
            Ok(Ok(published)) if published.failed > 0 => {
                tracing::warn!(failed = published.failed, "messages stay in the outbox");
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log_failure("messages stay in the outbox", &error),
            Err(_elapsed) => tracing::warn!("the bus is slow: messages stay in the outbox"),
        }
    }
}

/// Answers one request. Never an `Err`: the gateway would make it a bare 500.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    api::respond(&request, Box::pin(answer(app, &request, now))).await
}

async fn answer(app: &App, request: &Request, now: Timestamp) -> Result<Response<Body>, Error> {
    let body = api::body(request, api::BODY_LIMIT_BYTES)?;
    let route = api::route(ROUTES, request)?;
    let parameter = |name| route.parameter(name).unwrap_or_default();
    // Who may ask is looked at before anything else of the request is.
    match route.pattern {
        "/usage/limit-check/partner/{prefix}"
        | "/usage/partner/{prefix}/monthly"
        | "/usage/partner/{prefix}/current"
        | "/usage/partner/{prefix}/invoices" => {
            authorization::check_reader(app, request, parameter("prefix"), now).await?;
        }
        _ => app.service_tokens.check(request.headers(), now).await?,
    }
    match route.pattern {
        "/usage/events" => events::post(app, request, body, now).await,
        "/usage/events/{idempotency_key}/void" => {
            void::post(app, request, body, parameter("idempotency_key"), now).await
        }
        "/usage/reserve" => reserve::post(app, request, body, now).await,
        "/usage/limit-check/user/{id}" => {
            limit_check::user(app, request, parameter("id"), now).await
        }
        "/usage/limit-check/partner/{prefix}" => {
            limit_check::partner(app, request, parameter("prefix"), now).await
        }
        "/usage/overage/quote" => overage_quote::get(app, request, now).await,
        "/usage/user/{id}/monthly" => monthly::user(app, request, parameter("id"), now).await,
        "/usage/partner/{prefix}/monthly" => {
            monthly::partner(app, request, parameter("prefix"), now).await
        }
        "/usage/partner/{prefix}/current" => {
            current::get(app, request, parameter("prefix"), now).await
        }
        "/usage/partner/{prefix}/invoices" => {
            invoices::get(app, request, parameter("prefix"), now).await
        }
        _ => Err(Error::NotFound),
    }
}
