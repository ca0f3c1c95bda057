//! Brings the database to the version of this release; the deploy invokes it before the other functions change.

mod custom_resource;

use std::time::Duration;

use aws_types::SdkConfig;
use jiff::Timestamp;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::telemetry::{cause_chain, log_failure};
use serde_json::{Value, json};
use store::{Database, migrations};

use custom_resource::{Kind, Request};

pub use custom_resource::Unanswered;

/// The part of the invocation's time that is kept for answering the deploy.
const TO_ANSWER: Duration = Duration::from_secs(30);

/// What the function needs: the database, as its owner.
#[derive(Debug)]
pub struct App {
    database: Database,
}

/// Why the database could not be brought up to date. The deploy stops; nothing is half applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres could not be reached.
    #[error("the database is out of reach")]
    Unreachable(#[source] store::Error),
    /// A migration was refused or failed.
    #[error(transparent)]
    Migrations(#[from] migrations::Error),
    /// A migration took longer than the function may: it was rolled back.
    #[error("the migrations took longer than {0:?}; what was not finished is rolled back")]
    TooSlow(Duration),
    /// CloudFormation asked for something that is not its protocol.
    #[error("the request of the deploy cannot be read")]
    Request(#[source] serde_json::Error),
    /// It is done, and the deploy does not know.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

impl App {
    /// Reads the configuration; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is missing or not valid; the error names it.
    pub fn from_env(environment: &Environment, aws: &SdkConfig) -> Result<App, config::Error> {
        let config = DatabaseConfig::from_env(environment, aws)?;
        Ok(App {
            database: Database::connect_lazily(&config),
        })
    }
}

/// As [`handle_within`], without a limit.
///
/// # Errors
/// See [`Error`].
pub async fn handle(app: &App, event: Value, now: Timestamp) -> Result<Value, Error> {
    handle_within(app, event, now, None).await
}

/// Applies what is missing and answers `{"applied": ["V0001__….sql", …], "version": 10}`. Nothing depends on the time.
///
/// A request of CloudFormation (it has a `ResponseURL`) is answered there too, with `FAILED` when the database is not
/// up to date: the deploy is rolled back then. A `Delete` leaves the database as it is. An `Update` to a release older
/// than the database, as a roll-back makes, succeeds and changes nothing: migrations go forward only, and the code of
/// the release before works with them.
///
/// # Errors
/// See [`Error`]. Once CloudFormation has the answer `FAILED`, the invocation succeeds: a repeat would only answer again.
pub async fn handle_within(
    app: &App,
    event: Value,
    _now: Timestamp,
    limit: Option<Duration>,
) -> Result<Value, Error> {
    if !custom_resource::is_request(&event) {
        return Ok(told(&migrate(app, limit).await?));
    }
    let request = Request::read(event)
        .map_err(Error::Request)
        .inspect_err(|error| log_failure("the deploy is left without an answer", error))?;
    let outcome = match request.kind {
        Kind::Delete => Ok(unchanged(migrations::latest())),
        Kind::Create => migrate(app, limit).await,
        Kind::Update => match migrate(app, limit).await {
            Err(Error::Migrations(migrations::Error::DatabaseIsNewer { found, latest })) => {
                tracing::warn!(
                    found,
                    latest,
                    "an older release goes on with a newer database"
                );
                Ok(unchanged(found))
            }
            other => other,
        },
    };
    let answered = match &outcome {
        Ok(applied) => request.answer(Ok(applied.version)).await,
        Err(error) => request.answer(Err(cause_chain(error))).await,
    };
    answered.inspect_err(|error| log_failure("the deploy is left without an answer", error))?;
    match outcome {
        Ok(applied) => Ok(told(&applied)),
        Err(error) => Ok(json!({ "failed": error.to_string() })),
    }
}

/// How long an invocation may take that ends at `deadline`; `None` when that has passed, as an emulator says.
#[must_use]
pub fn limit(deadline: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(deadline.duration_since(now)).ok()?;
    (left > Duration::ZERO).then(|| left.saturating_sub(TO_ANSWER))
}

fn told(applied: &migrations::Applied) -> Value {
    json!({ "applied": applied.applied, "version": applied.version })
}

fn unchanged(version: u32) -> migrations::Applied {
    migrations::Applied {
        applied: Vec::new(),
        version,
    }
}

async fn migrate(app: &App, limit: Option<Duration>) -> Result<migrations::Applied, Error> {
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    let apply = Box::pin(apply(app));
    let applied = match limit {
        None => apply.await,
        Some(limit) => tokio::time::timeout(limit, apply)
            .await
            .unwrap_or(Err(Error::TooSlow(limit))),
    };
    let applied =
        applied.inspect_err(|error| log_failure("the database is not up to date", error))?;
    tracing::info!(
        version = applied.version,
        applied = applied.applied.len(),
        "database is up to date"
    );
    Ok(applied)
}

async fn apply(app: &App) -> Result<migrations::Applied, Error> {
    let mut client = app.database.client().await.map_err(Error::Unreachable)?;
    Ok(migrations::apply(&mut client).await?)
}
