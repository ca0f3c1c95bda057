//! usage: counts what users and partners use, once each, and says what is left and what more would cost.

use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use domain::usage::Rejection;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::Error;
use runtime::api::access::{Access, Authenticator};
use runtime::api::authentication::{JwtVerifier, ServiceTokens};
use runtime::api::router::{Api, Bodies, Routes};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::EventBus;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::routes;
use store::Database;

mod alerts;
mod current;
mod events;
mod ingest;
mod invoices;
mod limit_check;
mod meter;
mod monthly;
mod overage_quote;
mod parameters;
mod reserve;
mod void;

/// What is no JSON object is `invalid_json` here, a body that is left out among it.
const BODIES: Bodies = Bodies {
    malformed: "invalid_json",
    empty_is_object: false,
};
/// After so long a caller is answered 503.
const TIME_LIMIT: Duration = Duration::from_secs(4);
const EVENTS_IN_DOUBT: &str = "it is not known whether the events were counted: the same request with the same keys counts each of them once";
const RESERVATION_IN_DOUBT: &str = "the outcome is unknown: the same request with the same idempotency_key finds out whether the units are reserved";
/// How often a transaction that met another one is run.
const ATTEMPTS: u32 = 5;

/// The function: its routes over what its policy lets it reach.
#[derive(Debug)]
pub struct App {
    clients: Arc<Clients>,
    api: Api,
}

/// What this function's policy lets it reach.
#[derive(Debug)]
struct Clients {
    database: Database,
    event_bus: EventBus,
    /// Only links to invoices' PDFs need it.
    document_bucket: Result<DocumentBucket, config::Error>,
}

/// Every route of this function, who may call it, and what the OpenAPI document says of it.
#[must_use]
pub fn routes() -> Routes<impl Clone + Send + Sync + 'static + use<>> {
    table()
}

fn table() -> Routes<Arc<Clients>> {
    const OF_PARTNER: Access = Access::Partner { prefix: "prefix" };
    Routes::new()
        .with_bodies(BODIES)
        .with_time_limit(TIME_LIMIT)
        .add(
            Access::Service,
            routes!(events::post).in_doubt(EVENTS_IN_DOUBT),
        )
        .add(Access::Service, routes!(void::post))
        .add(
            Access::Service,
            routes!(reserve::post).in_doubt(RESERVATION_IN_DOUBT),
        )
        .add(Access::Service, routes!(limit_check::user))
        .add(OF_PARTNER, routes!(limit_check::partner))
        .add(Access::Service, routes!(overage_quote::get))
        .add(Access::Service, routes!(monthly::user))
        .add(OF_PARTNER, routes!(monthly::partner))
        .add(OF_PARTNER, routes!(current::get))
        .add(OF_PARTNER, routes!(invoices::list))
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), `EVENT_BUS_NAME`, `DOCUMENT_BUCKET`, and the variables of
    /// [`JwtVerifier`] and [`ServiceTokens`]; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        let clients = Arc::new(Clients {
            database: Database::connect_lazily(&database),
            event_bus: EventBus::from_env(environment, sdk)?,
            document_bucket: DocumentBucket::from_env(environment, sdk),
        });
        let authenticator = Authenticator::of_people_and_services(
            JwtVerifier::from_env(environment, sdk),
            ServiceTokens::from_env(environment, sdk),
        );
        Ok(App {
            api: table().serve(Arc::clone(&clients), authenticator),
            clients,
        })
    }

    /// Opens the database connection ahead of the first request.
    pub async fn warm(&self) {
        self.clients.database.warm().await;
    }
}

/// Answers one request. Never an `Err`: the gateway would make it a bare 500.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    app.api.answer(request, now).await
}

/// A body that was read and says something that cannot be: 422.
fn unprocessable(rejection: Rejection) -> Error {
    Error::invalid_member(rejection.field, rejection.message)
}
