//! Invoices partners: what their contracts' ended periods come to, once each, with number, PDF and collection.

mod collect;
mod file;
mod request;
mod run;
mod summary;

use aws_types::SdkConfig;
use domain::partner::draft::Rules;
use jiff::Timestamp;
use runtime::aws::event_bus::EventBus;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::telemetry::log_failure;
use serde_json::Value;
use shared::invoice_archive::InvoiceArchive;
use shared::partner_billing;
use store::Database;

pub use runtime::deadline::Deadline;
pub use summary::Summary;

/// The clients this function's policy allows, and what it is configured with.
#[derive(Debug)]
pub struct App {
    database: Database,
    event_bus: EventBus,
    /// Or why invoices are issued and not printed.
    archive: Result<InvoiceArchive, config::Error>,
    stripe: stripe::client::Client,
    /// Contracts, and groups of documents, under way at once.
    concurrency: usize,
    /// What somebody has to look at first.
    draft_rules: Rules,
}

/// Why an invocation failed. The platform tries again, then dead-letters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is nothing this function does: it answers partner-invoicing.monthly")]
    Unsupported(String),
    #[error("the event's time is not an instant")]
    Time(#[source] jiff::Error),
    #[error("detail.{field}: {expected}")]
    Detail {
        field: String,
        expected: &'static str,
    },
    /// Most likely the database was away. What is committed stays; the next run goes on.
    #[error("the ledger could not be read or written ({summary})")]
    Database {
        summary: Box<Summary>,
        #[source]
        cause: store::Error,
    },
    /// Everything else is done; this is what could not be.
    #[error("{} of the run could not be done ({summary})", .summary.failed.len())]
    Partial { summary: Box<Summary> },
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, aws: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, aws)?;
        Ok(App {
            concurrency: database.pool_size(),
            database: Database::connect_lazily(&database),
            event_bus: EventBus::from_env(environment, aws)?,
            archive: InvoiceArchive::from_env(environment, aws),
            stripe: stripe::client::Client::from_env(environment, aws)?,
            draft_rules: partner_billing::rules(environment)?,
        })
    }
}

/// Does what the event's `detail-type` says and answers its summary. The event's own `time`, where it has one, is the
/// run's clock, so that running it again does the same again.
///
/// # Errors
/// When the event asks for something else, or the run is worth repeating: see [`Error`].
pub async fn handle(app: &App, event: Value, now: Timestamp) -> Result<Value, Error> {
    handle_until(app, event, now, Deadline::default()).await
}

/// As [`handle`], stopping at the deadline with what is done committed.
///
/// # Errors
/// As [`handle`]; reaching the deadline is none: the next run goes on.
pub async fn handle_until(
    app: &App,
    event: Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, Error> {
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    Box::pin(answer(app, &event, now, deadline))
        .await
        .inspect_err(|error| log_failure("the invocation failed", error))
}

async fn answer(
    app: &App,
    event: &Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, Error> {
    let now = match event.get("time").and_then(Value::as_str) {
        Some(time) => time.parse().map_err(Error::Time)?,
        None => now,
    };
    match event.get("detail-type").and_then(Value::as_str) {
        Some("partner-invoicing.monthly") => {
            let run = run::Run {
                app,
                request: &request::Request::read(event.get("detail"))?,
                now,
                deadline,
            };
            run::run(run).await
        }
        other => Err(Error::Unsupported(other.unwrap_or_default().to_owned())),
    }
}
