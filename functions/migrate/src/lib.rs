//! Brings the database to the version of this release; the deploy invokes it before traffic moves.

use aws_types::SdkConfig;
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::config::{self, DatabaseConfig, Environment};
use shared::store::{self, Database, migrations};
use shared::telemetry::log_failure;

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

/// Applies what is missing and answers `{"applied": ["V0001__….sql", …], "version": 10}`. The
/// event carries nothing, and nothing depends on the time.
///
/// # Errors
/// See [`Error`].
pub async fn handle(app: &App, _event: Value, _now: Timestamp) -> Result<Value, Error> {
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    let outcome = Box::pin(apply(app))
        .await
        .inspect_err(|error| log_failure("the database is not up to date", error))?;
    tracing::info!(
        version = outcome.version,
        applied = outcome.applied.len(),
        "database is up to date"
    );
    Ok(json!({ "applied": outcome.applied, "version": outcome.version }))
}

async fn apply(app: &App) -> Result<migrations::Applied, Error> {
    let mut client = app.database.client().await.map_err(Error::Unreachable)?;
    Ok(migrations::apply(&mut client).await?)
}
