//! admin-revenue: the figures the admin dashboard shows, the lists and objects behind them, and whether everything they
//! need can be reached.

use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use domain::money::Currency;
use domain::partner::draft::Rules;
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::access::{Access, Authenticator};
use runtime::api::authentication::JwtVerifier;
use runtime::api::router::{Api, KeyRule, Routes};
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::EventBus;
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::routes;
use shared::partner_billing;
use shared::write::WriteState;
use store::Database;
use stripe::account::Account;

mod audit_log;
mod contracts;
mod credits;
mod customers;
mod drafts;
mod events;
mod exports;
mod health;
mod invoices;
mod lookups;
mod parameters;
mod payments;
mod reconciliation;
mod reports;
mod revenue;
mod statement;
mod status;
mod subscriptions;
mod unbilled_usage;

/// Reading a large table takes longer than a figure.
const EXPORT_TIME_LIMIT: Duration = Duration::from_secs(25);

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
        .add(Access::Viewer, routes!(revenue::get))
        .add(Access::Viewer, routes!(revenue::movements))
        .add(Access::Viewer, routes!(revenue::cohorts))
        .add(Access::Viewer, routes!(reports::get))
        .add(Access::Viewer, routes!(unbilled_usage::get))
        .add(Access::Viewer, routes!(unbilled_usage::file))
        .add(
            Access::Viewer,
            routes!(exports::get).with_time_limit(EXPORT_TIME_LIMIT),
        )
        .add(Access::Viewer, routes!(health::get))
        .add(Access::Viewer, routes!(status::get))
        .add(Access::Viewer, routes!(subscriptions::list))
        .add(Access::Viewer, routes!(customers::list))
        .add(Access::Viewer, routes!(customers::get))
        .add(Access::Viewer, routes!(events::list))
        .add(Access::Viewer, routes!(events::parked))
        .add_write(Access::Admin, optional, routes!(events::replay))
        .add(Access::Viewer, routes!(lookups::list))
        .add_write(Access::Finance, optional, routes!(lookups::retry))
        .add(Access::Viewer, routes!(audit_log::list))
        .add(Access::Viewer, routes!(reconciliation::list))
        .add(Access::Viewer, routes!(reconciliation::get))
        .add_write(Access::Finance, optional, routes!(reconciliation::accept))
        .add(Access::ViewerOrPartner, routes!(invoices::list))
        .add(Access::ViewerOrPartner, routes!(invoices::get))
        .add_write(Access::Finance, required, routes!(invoices::void))
        .add_write(Access::Finance, required, routes!(invoices::mark_paid))
        .add(Access::Viewer, routes!(payments::list))
        .add(Access::Viewer, routes!(payments::get))
        .add(Access::Viewer, routes!(contracts::list))
        .add(Access::Viewer, routes!(contracts::get))
        .add(Access::Viewer, routes!(statement::get))
        .add_write(Access::Admin, optional, routes!(contracts::create))
        .add_write(Access::Admin, optional, routes!(contracts::change))
        .add(Access::Viewer, routes!(contracts::changes))
        .add(Access::Viewer, routes!(contracts::terms))
        .add_write(Access::Admin, optional, routes!(contracts::revoke_change))
        .add(Access::Viewer, routes!(drafts::list))
        .add_write(Access::Finance, required, routes!(drafts::approve))
        .add_write(Access::Finance, required, routes!(drafts::waive))
        .add(Access::Viewer, routes!(credits::list))
        .add_write(Access::Finance, optional, routes!(credits::create))
        .add_write(Access::Finance, required, routes!(credits::void))
}

/// What this function's policy lets it reach. A missing bucket, table or bus is reported by the health check and by the
/// routes that need it, and stops no figure.
#[derive(Debug)]
pub(crate) struct Clients {
    database: Database,
    reporting_currency: Currency,
    document_bucket: Result<DocumentBucket, config::Error>,
    parked_events: Result<ParkedEvents, config::Error>,
    event_bus: Result<EventBus, config::Error>,
    stripe_api_base: String,
    account: Account,
    fee_estimate: FeeEstimate,
    /// What of partners' invoices somebody has to look at first.
    draft_rules: Rules,
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), `REPORTING_CURRENCY` (USD), the variables of
    /// [`Authenticator`], of [`FeeEstimate`] and of [`Account`], `DOCUMENT_BUCKET`, `PARKED_EVENTS_TABLE` and `EVENT_BUS_NAME` for the
    /// routes that need them, and for the health check `STRIPE_API_BASE`.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        let clients = Arc::new(Clients {
            database: Database::connect_lazily(&database),
            reporting_currency: environment.parsed_or("REPORTING_CURRENCY", Currency::USD)?,
            document_bucket: DocumentBucket::from_env(environment, sdk),
            parked_events: ParkedEvents::from_env(environment, sdk),
            event_bus: EventBus::from_env(environment, sdk),
            stripe_api_base: environment
                .optional("STRIPE_API_BASE")
                .unwrap_or_else(|| "https://api.stripe.com".to_owned()),
            account: Account::from_env(environment)?,
            fee_estimate: config::fee_estimate(environment)?,
            draft_rules: partner_billing::rules(environment)?,
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
    app.api.answer(request, now).await
}
