//! Keeps the ledger and Stripe together: applies what was parked, fetches what is missing, publishes
//! what was left behind.

mod backfill;
mod daily;
mod fetch;
mod ingest;
mod lookups;
mod missed_webhooks;
mod rebuild;
mod redrive;
mod usage_rollup;

use aws_types::SdkConfig;
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use runtime::aws::document_bucket::DocumentBucket;
use runtime::aws::event_bus::EventBus;
use runtime::aws::parked_events::ParkedEvents;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::telemetry::log_failure;
use serde_json::{Value, json};
use store::Database;
use stripe::account::Account;
use stripe::client::{Client, Patience};

pub use backfill::{Error as BackfillError, Summary as BackfillSummary};
pub use daily::Invalid;
pub use missed_webhooks::{Error as MissedWebhooksError, Summary as MissedWebhooksSummary};
pub use rebuild::Error as RebuildError;
pub use redrive::{Away, Summary};
pub use runtime::deadline::Deadline;

/// The clients this function's policy allows, and what it is configured with.
#[derive(Debug, Clone)]
pub struct App {
    database: Database,
    parked_events: ParkedEvents,
    document_bucket: DocumentBucket,
    event_bus: EventBus,
    stripe: Client,
    account: Account,
    fee_estimate: FeeEstimate,
}

/// Why an invocation failed. The platform tries again, then dead-letters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{0:?} is nothing this function does: it answers reconciliation.daily, reconciliation.redrive, \
         reconciliation.missed-webhooks, reconciliation.backfill, reconciliation.rebuild and \
         reconciliation.usage-rollup"
    )]
    Unsupported(String),
    #[error("the event's time is not an instant")]
    Time(#[source] jiff::Error),
    #[error("the event's detail is not valid")]
    Detail(#[from] daily::Invalid),
    #[error("the database failed")]
    Database(#[from] store::Error),
    /// Something was away. What could be checked is, and stands in the summary.
    #[error("the reconciliation could not check everything ({summary})")]
    Incomplete { summary: Box<Value> },
    #[error("the events Stripe has could not be compared with the inbox")]
    MissedWebhooks(#[from] missed_webhooks::Error),
    #[error("the import could not go on")]
    Backfill(#[from] backfill::Error),
    #[error("the archive could not be read again")]
    Rebuild(#[from] rebuild::Error),
    /// Something was away. What could be done without it is done and in the summary.
    #[error("the redrive stopped early ({summary})")]
    Redrive {
        summary: Box<Summary>,
        #[source]
        away: Away,
    },
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, aws: &SdkConfig) -> Result<App, config::Error> {
        Ok(App {
            database: Database::connect_lazily(&DatabaseConfig::from_env(environment, aws)?),
            parked_events: ParkedEvents::from_env(environment, aws)?,
            document_bucket: DocumentBucket::from_env(environment, aws)?,
            event_bus: EventBus::from_env(environment, aws)?,
            stripe: Client::from_env(environment, aws)?,
            account: Account::from_env(environment)?,
            fee_estimate: config::fee_estimate(environment)?,
        })
    }

    /// The same with another patience with Stripe than a scheduled run's.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> App {
        self.stripe = self.stripe.with_patience(patience);
        self
    }

    /// The same for a run with this deadline.
    fn until(&self, deadline: Deadline) -> App {
        App {
            stripe: self.stripe.clone().until(deadline),
            ..self.clone()
        }
    }

    /// Without a key, everything that needs none is done.
    fn has_stripe_key(&self) -> bool {
        self.stripe.has_key()
    }
}

/// Does what the event's `detail-type` says and answers its summary. The event's own `time`, where
/// it has one, is the run's clock, so that running it again does the same again.
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
    let app = app.until(deadline);
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    Box::pin(run(&app, &event, now, deadline))
        .await
        .inspect_err(|error| log_failure("the invocation failed", error))
}

async fn run(app: &App, event: &Value, now: Timestamp, deadline: Deadline) -> Result<Value, Error> {
    let now = match event.get("time").and_then(Value::as_str) {
        Some(time) => time.parse().map_err(Error::Time)?,
        None => now,
    };
    match event.get("detail-type").and_then(Value::as_str) {
        Some("reconciliation.daily") => daily::run(app, &event["detail"], now, deadline).await,
        Some("reconciliation.redrive") => redrive::run(app, now, deadline).await,
        Some("reconciliation.missed-webhooks") => {
            missed_webhooks::run_event(app, &event["detail"], now, deadline).await
        }
        Some("reconciliation.backfill") => {
            let summary = backfill::run(app, &event["detail"], now, deadline).await?;
            Ok(json!(summary))
        }
        Some("reconciliation.rebuild") => {
            Ok(rebuild::run(app, &event["detail"], now, deadline).await?)
        }
        Some("reconciliation.usage-rollup") => {
            Ok(usage_rollup::run(&app.database, &event["detail"], deadline).await?)
        }
        other => Err(Error::Unsupported(other.unwrap_or_default().to_owned())),
    }
}
