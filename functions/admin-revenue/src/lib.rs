//! admin-revenue: the figures the admin dashboard shows, the lists and objects behind them, and whether everything they
//! need can be reached.

use std::sync::Arc;

use aws_types::SdkConfig;
use domain::money::Currency;
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::access::{Access, Authenticator};
use runtime::api::authentication::JwtVerifier;
use runtime::api::router::KeyRule;
use runtime::api::router::{Api, Routes};
use runtime::api::{self, Error, list};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::EventBus;
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::routes;
use shared::write::WriteState;
use store::Database;

mod asked;
mod attachment;
mod audit_log;
mod cohorts;
mod contracts;
mod credits;
mod customers;
mod events;
mod exports;
mod health;
mod invoice_writes;
mod invoices;
mod movements;
mod payments;
mod reconciliation;
mod reports;
mod revenue;
mod sections;
mod statement;
mod subscriptions;
mod write;

/// The routes that are matched by hand.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/admin/revenue"),
    ("GET", "/admin/revenue/movements"),
    ("GET", "/admin/revenue/cohorts"),
    ("GET", "/admin/reports/{report}"),
    ("GET", "/admin/exports/{export}"),
    ("GET", "/admin/health"),
    // Lists.
    ("GET", "/admin/invoices"),
    ("GET", "/admin/payments"),
    ("GET", "/admin/subscriptions"),
    ("GET", "/admin/customers"),
    ("GET", "/admin/contracts"),
    ("GET", "/admin/events"),
    ("GET", "/admin/events/parked"),
    ("GET", "/admin/audit-log"),
    ("GET", "/admin/reconciliation"),
    ("GET", "/admin/reconciliation/{run_id}"),
    // Objects.
    ("GET", "/admin/invoices/{id}"),
    ("GET", "/admin/payments/{id}"),
    ("GET", "/admin/customers/{stripe_customer_id}"),
    ("GET", "/admin/contracts/{id}"),
    ("GET", "/admin/contracts/{id}/statement.csv"),
    // Writes.
    ("POST", "/admin/contracts"),
    ("PATCH", "/admin/contracts/{id}"),
    ("POST", "/admin/invoices/{id}/void"),
    ("POST", "/admin/invoices/{id}/mark-paid"),
    ("POST", "/admin/events/{event_id}/replay"),
    ("POST", "/admin/reconciliation/items/{id}/accept"),
];

/// The function: its routes over what its policy lets it reach.
#[derive(Debug)]
pub struct App {
    clients: Arc<Clients>,
    api: Api,
}

/// Every route of this function, who may call it, and what the OpenAPI document says of it.
#[must_use]
pub fn routes() -> Routes<impl Clone + Send + Sync + 'static + use<>> {
    table()
}

fn table() -> Routes<Arc<Clients>> {
    let (optional, required) = (KeyRule::Optional, KeyRule::Required);
    Routes::new()
        .add(Access::Viewer, routes!(credits::list))
        .add_write(Access::Finance, optional, routes!(credits::create))
        .add_write(Access::Finance, required, routes!(credits::void))
}

/// What this function's policy lets it reach. A missing bucket, table or bus is reported by the health check and by the
/// routes that need it, and stops no figure.
#[derive(Debug)]
pub(crate) struct Clients {
    database: Database,
    jwt: JwtVerifier,
    reporting_currency: Currency,
    document_bucket: Result<DocumentBucket, config::Error>,
    parked_events: Result<ParkedEvents, config::Error>,
    event_bus: Result<EventBus, config::Error>,
    stripe_api_base: String,
    fee_estimate: FeeEstimate,
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), `REPORTING_CURRENCY` (USD), the variables of
    /// [`JwtVerifier`] and of [`FeeEstimate`], `DOCUMENT_BUCKET`, `PARKED_EVENTS_TABLE` and `EVENT_BUS_NAME` for the
    /// routes that need them, and for the health check `STRIPE_API_BASE`.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        let clients = Arc::new(Clients {
            database: Database::connect_lazily(&database),
            jwt: JwtVerifier::from_env(environment, sdk),
            reporting_currency: environment.parsed_or("REPORTING_CURRENCY", Currency::USD)?,
            document_bucket: DocumentBucket::from_env(environment, sdk),
            parked_events: ParkedEvents::from_env(environment, sdk),
            event_bus: EventBus::from_env(environment, sdk),
            stripe_api_base: environment
                .optional("STRIPE_API_BASE")
                .unwrap_or_else(|| "https://api.stripe.com".to_owned()),
            fee_estimate: config::fee_estimate(environment)?,
        });
        let authenticator = Authenticator::of_people(JwtVerifier::from_env(environment, sdk));
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

impl WriteState for Clients {
    fn database(&self) -> &Database {
        &self.database
    }

    fn event_bus(&self) -> Option<&EventBus> {
        self.event_bus.as_ref().ok()
    }
}

/// Answers one request. Never an `Err`: the gateway would make it a bare 500.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    if request.uri().path().starts_with("/admin/credits") {
        return app.api.answer(request, now).await;
    }
    let app = &*app.clients;
    api::respond(&request, async {
        api::body(&request, api::BODY_LIMIT_BYTES)?;
        let route = api::route(ROUTES, &request)?;
        let parameter = |name| route.parameter(name).unwrap_or_default();
        let is_get = request.method() == "GET";
        match route.pattern {
            "/admin/revenue" => revenue::get(app, &request, now).await,
            "/admin/revenue/movements" => movements::get(app, &request, now).await,
            "/admin/revenue/cohorts" => cohorts::get(app, &request, now).await,
            "/admin/reports/{report}" => {
                reports::get(app, &request, parameter("report"), now).await
            }
            "/admin/exports/{export}" => {
                exports::get(app, &request, parameter("export"), now).await
            }
            "/admin/health" => health::get(app, &request, now).await,
            "/admin/invoices" => invoices::list(app, &request, now).await,
            "/admin/payments" => payments::list(app, &request, now).await,
            "/admin/subscriptions" => subscriptions::list(app, &request, now).await,
            "/admin/customers" => customers::list(app, &request, now).await,
            "/admin/contracts" if is_get => contracts::list(app, &request, now).await,
            "/admin/contracts" => contracts::create(app, &request, now).await,
            "/admin/events" => events::list(app, &request, now).await,
            "/admin/events/parked" => events::parked(app, &request, now).await,
            "/admin/audit-log" => audit_log::list(app, &request, now).await,
            "/admin/reconciliation" => reconciliation::list(app, &request, now).await,
            "/admin/reconciliation/{run_id}" => {
                reconciliation::get(app, &request, parameter("run_id"), now).await
            }
            "/admin/invoices/{id}" => invoices::get(app, &request, parameter("id"), now).await,
            "/admin/payments/{id}" => payments::get(app, &request, parameter("id"), now).await,
            "/admin/customers/{stripe_customer_id}" => {
                customers::get(app, &request, parameter("stripe_customer_id"), now).await
            }
            "/admin/contracts/{id}" if is_get => {
                contracts::get(app, &request, parameter("id"), now).await
            }
            "/admin/contracts/{id}" => contracts::change(app, &request, parameter("id"), now).await,
            "/admin/contracts/{id}/statement.csv" => {
                statement::get(app, &request, parameter("id"), now).await
            }
            "/admin/invoices/{id}/void" => {
                invoice_writes::void(app, &request, parameter("id"), now).await
            }
            "/admin/invoices/{id}/mark-paid" => {
                invoice_writes::mark_paid(app, &request, parameter("id"), now).await
            }
            "/admin/events/{event_id}/replay" => {
                events::replay(app, &request, parameter("event_id"), now).await
            }
            "/admin/reconciliation/items/{id}/accept" => {
                reconciliation::accept(app, &request, parameter("id"), now).await
            }
            _ => Err(Error::NotFound),
        }
    })
    .await
}
