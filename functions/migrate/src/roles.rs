//! The roles of the other functions: their secrets, whether the server has connections for them, and who makes them.

use runtime::config::{BoxError, DatabaseConfig, DatabaseRoles, Login};
use store::Database;
use store::roles::{self, Roles, RolesError};
use tokio_postgres::Client;

/// Why the roles could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secrets of the roles, or of the database, could not be read.
    #[error("the secrets of the database's roles could not be read")]
    Secrets(#[source] BoxError),
    /// A secret is missing, or of another role.
    #[error("no secret of DATABASE_ROLE_SECRET_ARNS has the username {0}")]
    NoSecret(String),
    /// The roles are not as they have to be, or the database refused.
    #[error(transparent)]
    Roles(#[from] RolesError),
}

/// Reads the secrets and checks, before anything is changed, that the roles can be made.
pub(crate) async fn prepare(
    client: &Client,
    config: &DatabaseConfig,
    wanted: &DatabaseRoles,
) -> Result<Roles, Error> {
    let prefix = match &wanted.prefix {
        Some(prefix) => prefix.clone(),
        None => {
            let target = config.resolve().await.map_err(Error::Secrets)?;
            target.postgres.get_dbname().unwrap_or_default().to_owned()
        }
    };
    let found = wanted.logins().await.map_err(Error::Secrets)?;
    let login = |name: String| {
        let login = found.iter().find(|login| login.user == name);
        login.cloned().ok_or(Error::NoSecret(name))
    };
    let names = roles::names(&prefix)?.into_iter();
    let logins: Result<Vec<Login>, Error> = names.map(login).collect();
    roles::check_connections(client, wanted.connections, wanted.host_connections).await?;
    Ok(Roles {
        logins: logins?,
        connections: Some(wanted.connections),
        is_pooled: wanted.is_pooled,
    })
}

/// Makes the roles, or checks those that somebody else makes.
pub(crate) async fn bring_up_to_date(
    client: &mut Client,
    config: &DatabaseConfig,
    roles: &Roles,
    are_given: bool,
) -> Result<(), Error> {
    if !are_given {
        return Ok(roles.make(client).await?);
    }
    let mut checked = roles.check(client).await;
    if checked.is_ok() {
        checked = check_passwords(config, roles).await;
    }
    if let Err(RolesError::NotAsGiven(_)) = &checked {
        // It has verifiers, from which no password of a secret can be told.
        tracing::warn!(sql = roles.sql(), "to be run by who may make roles");
    }
    Ok(checked?)
}

async fn check_passwords(config: &DatabaseConfig, roles: &Roles) -> Result<(), RolesError> {
    let mut complaints = Vec::new();
    for login in &roles.logins {
        let database = Database::connect_lazily(&config.with_login(login.clone()));
        if let Err(error) = database.client().await {
            let cause = runtime::telemetry::cause_chain(&error);
            complaints.push(format!("{} cannot log in: {cause}", login.user));
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(RolesError::NotAsGiven(complaints))
    }
}
