//! What `migrate` is told about the database roles of the other functions.

use std::fmt;

use secrecy::SecretString;

use super::{BoxError, Environment, Error};

/// The least budget of connections: some for every function.
const LEAST_CONNECTIONS: u32 = 20;

/// A role of the database and its password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The role's name.
    pub user: String,
    /// Its password.
    pub password: SecretString,
}

/// `DATABASE_ROLE_SECRET_ARNS` (with commas; each secret a JSON object with `username` and `password`),
/// `DATABASE_ROLE_PREFIX` (else the database's name), `DATABASE_ROLES` (`made` or `given`), `DATABASE_CONNECTIONS` (60),
/// `DATABASE_HOST_CONNECTIONS` (30), `DATABASE_POOLED` (`true` where a pooler keeps the connections).
#[derive(Clone)]
pub struct DatabaseRoles {
    arns: Vec<String>,
    client: aws_sdk_secretsmanager::Client,
    /// What the roles' names begin with; `None` for the database's name.
    pub prefix: Option<String>,
    /// Somebody else makes the roles.
    pub are_given: bool,
    /// The connections of all functions together.
    pub connections: u32,
    /// The connections that the host application needs besides.
    pub host_connections: u32,
    /// Whether a pooler keeps the connections.
    pub is_pooled: bool,
}

impl DatabaseRoles {
    /// Reads the variables above; `None` without secrets, where each function is given a login in another way.
    pub fn from_env(
        environment: &Environment,
        sdk: &aws_types::SdkConfig,
    ) -> Result<Option<DatabaseRoles>, Error> {
        let Some(arns) = environment.optional("DATABASE_ROLE_SECRET_ARNS") else {
            return Ok(None);
        };
        let are_given = match environment.optional("DATABASE_ROLES").as_deref() {
            None | Some("made") => false,
            Some("given") => true,
            Some(_) => {
                return Err(Error::Invalid {
                    variable: "DATABASE_ROLES",
                    reason: "one of made, given".to_owned(),
                });
            }
        };
        let connections = environment.parsed_or("DATABASE_CONNECTIONS", 60)?;
        if connections < LEAST_CONNECTIONS {
            return Err(Error::Invalid {
                variable: "DATABASE_CONNECTIONS",
                reason: format!("at least {LEAST_CONNECTIONS}"),
            });
        }
        Ok(Some(DatabaseRoles {
            arns: arns.split(',').map(|arn| arn.trim().to_owned()).collect(),
            client: aws_sdk_secretsmanager::Client::new(sdk),
            prefix: environment.optional("DATABASE_ROLE_PREFIX"),
            are_given,
            connections,
            host_connections: environment.parsed_or("DATABASE_HOST_CONNECTIONS", 30)?,
            is_pooled: environment.parsed_or("DATABASE_POOLED", false)?,
        }))
    }

    /// The logins that the secrets hold now, in their order.
    pub async fn logins(&self) -> Result<Vec<Login>, BoxError> {
        let mut logins = Vec::new();
        for arn in &self.arns {
            let answer = self.client.get_secret_value().secret_id(arn).send().await?;
            logins.push(login(answer.secret_string().unwrap_or_default())?);
        }
        Ok(logins)
    }
}

impl fmt::Debug for DatabaseRoles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DatabaseRoles")
            .field("arns", &self.arns)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn login(secret: &str) -> Result<Login, Error> {
    #[derive(serde::Deserialize)]
    struct RoleSecret {
        username: String,
        password: String,
    }
    // The parse error would quote the secret.
    let secret: RoleSecret = serde_json::from_str(secret).map_err(|_quotes_it| Error::Invalid {
        variable: "DATABASE_ROLE_SECRET_ARNS",
        reason: "each secret is a JSON object with username and password".to_owned(),
    })?;
    Ok(Login {
        user: secret.username,
        password: secret.password.into(),
    })
}
