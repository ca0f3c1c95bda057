//! The functions' database roles in a cluster of this machine: one set for all of its databases, without a limit on
//! connections, which Postgres counts across databases.

use runtime::config::{Environment, Login};
use store::roles::{self, Roles, RolesError};
use tokio_postgres::Client;

/// What the names begin with.
const PREFIX: &str = "billing";
/// How a URL of the cluster's owner begins, who makes the databases.
const OWNER: &str = "postgresql://postgres:";

/// Makes the roles and lets them use the database that the client is connected to. They have the cluster's password.
///
/// # Errors
/// When the server refuses.
pub async fn make(client: &mut Client, owner_url: &str) -> Result<(), RolesError> {
    let password = owner_url
        .strip_prefix(OWNER)
        .and_then(|rest| rest.split_once('@'))
        .map_or("", |(password, _)| password);
    let login = |user: String| Login {
        user,
        password: password.into(),
    };
    let roles = Roles {
        logins: roles::names(PREFIX)?.into_iter().map(login).collect(),
        connections: None,
        is_pooled: false,
    };
    roles.make(client).await
}

/// The variables with which a function connects as its role, where they name the owner of a cluster of this machine. The
/// function is one of the bundle, such as `admin-revenue`; `migrate` stays the owner.
#[must_use]
pub fn as_function(function: &str, environment: &Environment) -> Environment {
    const URL: &str = "DATABASE_URL";
    match environment.optional(URL) {
        Some(url) if url.starts_with(OWNER) && function != "migrate" => {
            let role = format!("postgresql://{PREFIX}_{}:", function.replace('-', "_"));
            environment.with(URL, url.replacen(OWNER, &role, 1))
        }
        Some(_) | None => environment.clone(),
    }
}
