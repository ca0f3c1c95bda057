//! Brings the database to the schema of this release: the deploy invokes it before the other functions change, and a
//! schedule for what can be done beside them.

mod custom_resource;
mod roles;

use std::time::Duration;

use aws_types::SdkConfig;
use jiff::Timestamp;
use runtime::config::{self, DatabaseConfig, DatabaseRoles, Environment};
use runtime::deadline::Deadline;
use runtime::telemetry::{cause_chain, log_failure};
use serde_json::{Value, json};
use store::Database;
use store::migrations::{self, Applied, Background, Release};
use tokio_postgres::config::Host;

use custom_resource::{Address, Done, Kind, Request};

pub use custom_resource::Unanswered;
pub use roles::Error as RolesError;

/// The part of the invocation's time that is kept for answering the deploy.
const TO_ANSWER: Duration = Duration::from_secs(30);

/// What the function needs: the database, as its owner, the roles of the others, and the migrations.
#[derive(Debug)]
pub struct App {
    config: DatabaseConfig,
    database: Database,
    /// `None` where the functions are given logins in another way.
    roles: Option<DatabaseRoles>,
    release: Release,
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
    /// The roles of the other functions could not be made.
    #[error(transparent)]
    Roles(#[from] roles::Error),
    /// A migration took longer than the function may: it was rolled back.
    #[error("the migrations took longer than {0:?}; what was not finished is rolled back")]
    TooSlow(Duration),
    /// A schedule asked for something else than the maintenance.
    #[error("{0:?} is nothing this function does: it answers migrate.maintain")]
    Unsupported(String),
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
            roles: DatabaseRoles::from_env(environment, aws)?,
            config,
            release: Release::EMBEDDED,
        })
    }

    /// The same with other migrations than those of this repository.
    #[must_use]
    pub fn with_release(self, release: Release) -> App {
        App { release, ..self }
    }
}

/// As [`handle_within`], without a limit.
///
/// # Errors
/// See [`Error`].
pub async fn handle(app: &App, event: Value, now: Timestamp) -> Result<Value, Error> {
    handle_within(app, event, now, None).await
}

/// Applies what is missing, to its end, and answers `{"applied": ["V0001__….sql", …], "version": 10}`. Nothing depends on
/// the time.
///
/// Then the roles of the other functions are made, or brought up to their limits, passwords and rights, where
/// `DATABASE_ROLE_SECRET_ARNS` says that they have some.
///
/// A request of CloudFormation (it has a `ResponseURL`) is answered there too, with `FAILED` when the database is not
/// up to date: the deploy is rolled back then. A `Delete` leaves the database as it is. An `Update` does not wait for
/// what can be done beside the functions. One to a release older than the database, as a roll-back makes, succeeds and
/// changes nothing but functions of the database: migrations go forward only, and the code of the release before works
/// with them.
///
/// `{"detail-type": "migrate.maintain"}` does what no deploy waits for, until half a minute before the limit, and answers
/// `{"maintained": [{"file": "V0033__….backfill.sql", "is_done": false, "slices": 12, "rows_done": 12000}]}`.
///
/// # Errors
/// See [`Error`]. Once CloudFormation has the answer `FAILED`, the invocation succeeds: a repeat would only answer again.
pub async fn handle_within(
    app: &App,
    event: Value,
    _now: Timestamp,
    limit: Option<Duration>,
) -> Result<Value, Error> {
    // Boxed, as below: the compiler gives up on the nesting of the types otherwise.
    if custom_resource::is_request(&event) {
        return Box::pin(deploy(app, event, limit)).await;
    }
    match event.get("detail-type").and_then(Value::as_str) {
        None => Ok(told(&migrate(app, Kind::Create, limit).await?)),
        Some("migrate.maintain") => Box::pin(maintain(app, limit))
            .await
            .inspect_err(|error| log_failure("the maintenance failed", error)),
        Some(other) => Err(Error::Unsupported(other.to_owned()))
            .inspect_err(|error| log_failure("the invocation failed", error)),
    }
}

async fn deploy(app: &App, event: Value, limit: Option<Duration>) -> Result<Value, Error> {
    let request = Request::read(event)
        .map_err(Error::Request)
        .inspect_err(|error| log_failure("the deploy is left without an answer", error))?;
    let outcome = match request.kind {
        Kind::Delete => Ok(Applied {
            applied: Vec::new(),
            version: app.release.latest(),
        }),
        kind @ (Kind::Create | Kind::Update) => migrate(app, kind, limit).await,
    };
    let address = match request.kind {
        Kind::Delete => None,
        Kind::Create | Kind::Update => address(app).await,
    };
    let answered = match &outcome {
        Ok(applied) => {
            let version = applied.version;
            request.answer(Ok(Done { version, address })).await
        }
        Err(error) => request.answer(Err(cause_chain(error))).await,
    };
    answered.inspect_err(|error| log_failure("the deploy is left without an answer", error))?;
    match outcome {
        Ok(applied) => Ok(told(&applied)),
        Err(error) => Ok(json!({ "failed": error.to_string() })),
    }
}

/// Where the other functions find the database; their own secrets do not say it.
async fn address(app: &App) -> Option<Address> {
    let target = app.config.resolve().await.ok()?.postgres;
    let host = target.get_hosts().first()?;
    let Host::Tcp(host) = host else {
        return None;
    };
    Some(Address {
        host: host.clone(),
        port: target.get_ports().first().unwrap_or(&5432).to_string(),
        name: target.get_dbname().unwrap_or_default().to_owned(),
    })
}

/// How long an invocation may take that ends at `deadline`; `None` when that has passed, as an emulator says.
#[must_use]
pub fn limit(deadline: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(deadline.duration_since(now)).ok()?;
    (left > Duration::ZERO).then(|| left.saturating_sub(TO_ANSWER))
}

fn told(applied: &Applied) -> Value {
    json!({ "applied": applied.applied, "version": applied.version })
}

async fn migrate(app: &App, kind: Kind, limit: Option<Duration>) -> Result<Applied, Error> {
    let apply = Box::pin(apply(app, kind));
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

async fn apply(app: &App, kind: Kind) -> Result<Applied, Error> {
    let mut client = app.database.client().await.map_err(Error::Unreachable)?;
    let background = match kind {
        Kind::Update => Background::Later,
        Kind::Create | Kind::Delete => Background::AtOnce,
    };
    let roles = match &app.roles {
        None => None,
        Some(wanted) => {
            let roles = roles::prepare(&client, &app.config, wanted).await?;
            Some((roles, wanted.are_given))
        }
    };
    let applied = match app.release.apply(&mut client, background).await {
        Err(migrations::Error::DatabaseIsNewer { found, latest }) if kind == Kind::Update => {
            tracing::warn!(
                found,
                latest,
                "an older release goes on with a newer database"
            );
            // A release after the next has dropped its functions.
            Applied {
                applied: app.release.apply_repeatable(&mut client).await?,
                version: found,
            }
        }
        applied => applied?,
    };
    if let Some((roles, are_given)) = &roles {
        roles::bring_up_to_date(&mut client, &app.config, roles, *are_given).await?;
    }
    Ok(applied)
}

async fn maintain(app: &App, limit: Option<Duration>) -> Result<Value, Error> {
    let deadline = limit.map_or_else(Deadline::default, Deadline::after);
    let mut client = app.database.client().await.map_err(Error::Unreachable)?;
    let maintained = app.release.maintain(&mut client, deadline).await?;
    Ok(json!({ "maintained": maintained }))
}
