//! The database roles: one per function, with the limits of what it runs, so that one stuck table cannot take every
//! connection of the database. `migrate` makes them; their SQL is written here alone.
//!
//! Limits belong to the role and not to a session: a pooler refuses start-up options, and `SET` pins RDS Proxy.

use postgres_protocol::password::scram_sha_256;
use runtime::config::Login;
use secrecy::ExposeSecret;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::Error;
use super::migrations::lock_out_deploys;

/// What the statements of a function may take. Times as Postgres reads them.
struct Limits {
    /// In proportion to the others', the connections at once.
    connections: u32,
    lock_timeout: &'static str,
    statement_timeout: &'static str,
    idle_in_transaction_session_timeout: &'static str,
    /// Frozen sandboxes let go of their connections after it.
    idle_session_timeout: &'static str,
}

const fn limits(
    connections: u32,
    lock_timeout: &'static str,
    statement_timeout: &'static str,
    idle_in_transaction_session_timeout: &'static str,
    idle_session_timeout: &'static str,
) -> Limits {
    Limits {
        connections,
        lock_timeout,
        statement_timeout,
        idle_in_transaction_session_timeout,
        idle_session_timeout,
    }
}

/// The functions that have a role, by the end of its name. `migrate` has none: it connects as the owner of the tables.
const FUNCTIONS: [(&str, Limits); 6] = [
    ("webhook", limits(13, "1s", "2s", "2s", "15s")),
    ("usage", limits(13, "1s", "2s", "2s", "15s")),
    ("admin_revenue", limits(8, "1s", "4s", "5s", "60s")),
    ("invoice_pdf", limits(3, "1s", "4s", "5s", "60s")),
    ("reconciliation", limits(5, "2s", "60s", "30s", "60s")),
    ("partner_invoicing", limits(4, "2s", "60s", "30s", "60s")),
];
/// The connections of `migrate`, in the same proportion: a deploy, and the maintenance beside it.
const MIGRATE_CONNECTIONS: u32 = 2;

/// The longest name that Postgres keeps, in bytes.
const LONGEST_NAME: usize = 63;

/// The roles of a stack.
#[derive(Debug, Clone)]
pub struct Roles {
    /// One of each function, in the order of [`names`].
    pub logins: Vec<Login>,
    /// The connections of all functions together; `None` for no limit.
    pub connections: Option<u32>,
    /// A pooler keeps the connections: they may be idle for ever.
    pub is_pooled: bool,
}

/// Why the roles are not as they have to be.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// A role's name would be cut.
    #[error("the role {0} has more than 63 bytes: set a shorter DATABASE_ROLE_PREFIX")]
    NameTooLong(String),
    /// The server has not so many connections to give.
    #[error(
        "{wanted} connections wanted, {allowed} allowed: of {max_connections} the server keeps {reserved} and the host \
         application {host}; set DatabaseConnections or DatabaseHostConnections lower, or max_connections higher"
    )]
    TooManyConnections {
        wanted: u32,
        allowed: i64,
        max_connections: i64,
        reserved: i64,
        host: u32,
    },
    /// Only a role with CREATEROLE makes others.
    #[error(
        "the owner of the tables may make no roles (CREATEROLE): deploy with DatabaseRoles=given"
    )]
    MayNotMakeRoles(#[source] Error),
    /// Roles that somebody else makes are missing or not as they should be.
    #[error(
        "the database's roles are not as they have to be ({}): have the SQL in this function's log run by who may make \
         roles, and deploy again",
        .0.join("; ")
    )]
    NotAsGiven(Vec<String>),
    /// The database refused a statement.
    #[error("the database's roles could not be set up")]
    Store(#[source] Error),
}

impl From<tokio_postgres::Error> for RolesError {
    fn from(error: tokio_postgres::Error) -> RolesError {
        let error = Error::from(error);
        if error.sqlstate() == Some("42501") {
            RolesError::MayNotMakeRoles(error)
        } else {
            RolesError::Store(error)
        }
    }
}

/// The names of the roles that begin with this prefix.
///
/// # Errors
/// When one would be too long.
pub fn names(prefix: &str) -> Result<Vec<String>, RolesError> {
    let names = FUNCTIONS
        .iter()
        .map(|(function, _)| format!("{prefix}_{function}"));
    names
        .map(|name| {
            if name.len() > LONGEST_NAME {
                Err(RolesError::NameTooLong(name))
            } else {
                Ok(name)
            }
        })
        .collect()
}

/// Divides connections in proportion to the weights, by largest remainder; of equal remainders the first counts. Nobody
/// gets none, as long as there is one for each.
fn split(connections: u32, weights: &[u32]) -> Vec<u32> {
    let total = weights.iter().sum::<u32>().max(1);
    let product = |weight: &u32| weight * connections;
    let mut shares: Vec<u32> = weights
        .iter()
        .map(|weight| (product(weight) / total).max(1))
        .collect();
    let mut by_remainder: Vec<usize> = (0..weights.len())
        .filter(|place| product(&weights[*place]) >= total)
        .collect();
    by_remainder.sort_by_key(|place| std::cmp::Reverse(product(&weights[*place]) % total));
    let given: u32 = shares.iter().sum();
    for place in by_remainder
        .iter()
        .take(connections.saturating_sub(given) as usize)
    {
        shares[*place] += 1;
    }
    // What was raised to one is taken from the largest.
    for _ in connections..given {
        if let Some(largest) = shares.iter_mut().max() {
            *largest -= 1;
        }
    }
    shares
}

/// Checks that the server has the connections that are wanted, besides those of the host application.
///
/// # Errors
/// [`RolesError::TooManyConnections`] when it has not.
pub async fn check_connections(
    db: &impl GenericClient,
    wanted: u32,
    host: u32,
) -> Result<(), RolesError> {
    // `reserved_connections` came with Postgres 16.
    let row = db
        .query_typed_one(
            "-- roles::check_connections
             SELECT current_setting('max_connections')::bigint AS max_connections,
                    current_setting('superuser_reserved_connections')::bigint
                        + coalesce(current_setting('reserved_connections', true)::bigint, 0) AS reserved",
            &[],
        )
        .await?;
    let max_connections: i64 = row.try_get("max_connections")?;
    let reserved: i64 = row.try_get("reserved")?;
    let allowed = max_connections - reserved - i64::from(host);
    if i64::from(wanted) <= allowed {
        return Ok(());
    }
    Err(RolesError::TooManyConnections {
        wanted,
        allowed,
        max_connections,
        reserved,
        host,
    })
}

/// A role as it has to be.
struct Wanted<'a> {
    login: &'a Login,
    /// `-1` for no limit, as Postgres writes it.
    connections: i32,
    settings: [(&'static str, &'static str); 7],
}

impl Roles {
    fn wanted(&self) -> Vec<Wanted<'_>> {
        let mut weights: Vec<u32> = FUNCTIONS
            .iter()
            .map(|(_, limits)| limits.connections)
            .collect();
        weights.push(MIGRATE_CONNECTIONS);
        let shares = self.connections.map(|all| split(all, &weights));
        let wanted = |(place, (login, (_, limits))): (usize, (_, &(_, Limits)))| Wanted {
            login,
            connections: shares
                .as_ref()
                .and_then(|shares| i32::try_from(shares[place]).ok())
                .unwrap_or(-1),
            settings: [
                ("lock_timeout", limits.lock_timeout),
                ("statement_timeout", limits.statement_timeout),
                (
                    "idle_in_transaction_session_timeout",
                    limits.idle_in_transaction_session_timeout,
                ),
                (
                    "idle_session_timeout",
                    if self.is_pooled {
                        "0"
                    } else {
                        limits.idle_session_timeout
                    },
                ),
                ("client_connection_check_interval", "1s"),
                ("tcp_keepalives_idle", "30"),
                ("jit", "off"),
            ],
        };
        let roles = self.logins.iter().zip(&FUNCTIONS);
        roles.enumerate().map(wanted).collect()
    }

    /// What makes the roles and sets their limits, whether they are there or not. Has verifiers of the passwords, and no
    /// password.
    #[must_use]
    pub fn sql(&self) -> String {
        let mut sql = String::new();
        for role in self.wanted() {
            let name = quoted('"', &role.login.user);
            let verifier = scram_sha_256(role.login.password.expose_secret().as_bytes());
            let verifier = quoted('\'', &verifier);
            // Whether it is there or not.
            sql += &format!(
                "DO $$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n\
                 ALTER ROLE {name} LOGIN CONNECTION LIMIT {} PASSWORD {verifier};\n",
                role.connections
            );
            for (setting, value) in role.settings {
                sql += &format!("ALTER ROLE {name} SET {setting} = '{value}';\n");
            }
        }
        sql
    }

    /// Makes the roles, or brings them to these limits and passwords, and lets them do with the tables what their owner
    /// does with rows.
    ///
    /// # Errors
    /// [`RolesError::MayNotMakeRoles`], and what the database refuses.
    pub async fn make(&self, client: &mut Client) -> Result<(), RolesError> {
        let transaction = client.transaction().await?;
        // Two that changed one role at once would fail.
        lock_out_deploys(&transaction).await?;
        transaction.batch_execute(&self.sql()).await?;
        self.grant(&transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Checks roles that somebody else has made, and lets them do with the tables what their owner does with rows.
    ///
    /// # Errors
    /// [`RolesError::NotAsGiven`] when one is missing or has other limits.
    pub async fn check(&self, client: &mut Client) -> Result<(), RolesError> {
        let complaints = self.differences(client).await?;
        if !complaints.is_empty() {
            return Err(RolesError::NotAsGiven(complaints));
        }
        let transaction = client.transaction().await?;
        lock_out_deploys(&transaction).await?;
        self.grant(&transaction).await?;
        Ok(transaction.commit().await?)
    }

    fn users(&self) -> Vec<&str> {
        self.logins
            .iter()
            .map(|login| login.user.as_str())
            .collect()
    }

    /// In what the roles differ from what they have to be.
    async fn differences(&self, db: &impl GenericClient) -> Result<Vec<String>, RolesError> {
        let rows = db
            .query_typed(
                "-- roles::differences
                 SELECT rolname::text AS name, rolcanlogin AS can_log_in, rolconnlimit AS connections,
                        coalesce(rolconfig, '{}') AS settings
                 FROM pg_roles WHERE rolname = ANY ($1)",
                &[(&self.users(), Type::NAME_ARRAY)],
            )
            .await?;
        let mut complaints = Vec::new();
        for Wanted {
            login,
            connections,
            settings,
        } in self.wanted()
        {
            let name = &login.user;
            let mut found = None;
            for row in &rows {
                if row.try_get::<_, &str>("name")? == name {
                    found = Some(row);
                }
            }
            let Some(row) = found else {
                complaints.push(format!("{name} is missing"));
                continue;
            };
            if !row.try_get::<_, bool>("can_log_in")? {
                complaints.push(format!("{name} may not log in"));
            }
            let limit: i32 = row.try_get("connections")?;
            if limit != connections {
                complaints.push(format!("{name} may have {limit} connections"));
            }
            let has: Vec<String> = row.try_get("settings")?;
            for (setting, value) in settings {
                let line = format!("{setting}={value}");
                if !has.contains(&line) {
                    complaints.push(format!("{name} lacks {line}"));
                }
            }
        }
        Ok(complaints)
    }

    /// Gives the roles what they lack of the rights that this session may give on the tables and sequences of its schemas.
    async fn grant(&self, db: &impl GenericClient) -> Result<(), RolesError> {
        let rows = db
            .query_typed(
                "-- roles::grant
                 WITH roles AS (SELECT unnest($1) AS role),
                 relations AS (
                     SELECT oid, relkind FROM pg_class
                     WHERE relnamespace = ANY (SELECT oid FROM pg_namespace WHERE nspname = ANY (current_schemas(false)))
                 ), wanted (relkind, privilege) AS (
                     VALUES ('r'::\"char\", 'SELECT'), ('r', 'INSERT'), ('r', 'UPDATE'), ('r', 'DELETE'), ('p', 'SELECT'),
                            ('p', 'INSERT'), ('p', 'UPDATE'), ('p', 'DELETE'), ('v', 'SELECT')
                 )
                 SELECT format('GRANT USAGE ON SCHEMA %I TO %I', schema, role) AS statement
                 FROM roles, unnest(current_schemas(false)) AS schema
                 WHERE NOT has_schema_privilege(role, schema::text, 'USAGE')
                   AND has_schema_privilege(schema::text, 'USAGE WITH GRANT OPTION')
                 UNION ALL
                 SELECT format('GRANT %s ON %s TO %I', string_agg(privilege, ', '), oid::regclass, role)
                 FROM roles, relations JOIN wanted USING (relkind)
                 WHERE NOT has_table_privilege(role, oid, privilege)
                   AND has_table_privilege(oid, privilege || ' WITH GRANT OPTION')
                 GROUP BY oid, role
                 UNION ALL
                 SELECT format('GRANT USAGE ON SEQUENCE %s TO %I', oid::regclass, role) FROM roles, relations
                 WHERE CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(role, oid, 'USAGE')
                                AND has_sequence_privilege(oid, 'USAGE WITH GRANT OPTION') END",
                &[(&self.users(), Type::TEXT_ARRAY)],
            )
            .await?;
        let mut statements = Vec::new();
        for row in &rows {
            statements.push(row.try_get::<_, &str>("statement")?);
        }
        if !statements.is_empty() {
            db.batch_execute(&statements.join(";\n")).await?;
        }
        Ok(())
    }
}

/// A name or a text of SQL.
fn quoted(quote: char, text: &str) -> String {
    let doubled = text.replace(quote, &format!("{quote}{quote}"));
    format!("{quote}{doubled}{quote}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_split_in_proportion_and_nobody_gets_none() {
        let weights: Vec<u32> = FUNCTIONS
            .iter()
            .map(|(_, limits)| limits.connections)
            .chain([MIGRATE_CONNECTIONS])
            .collect();
        for (connections, expected) in [
            (60, [16, 16, 10, 4, 6, 5, 3]),
            (48, [13, 13, 8, 3, 5, 4, 2]),
            (20, [6, 5, 3, 1, 2, 2, 1]),
            (8, [2, 1, 1, 1, 1, 1, 1]),
            (7, [1, 1, 1, 1, 1, 1, 1]),
        ] {
            assert_eq!(split(connections, &weights), expected, "{connections}");
        }
        for connections in 7..2_000 {
            let shares = split(connections, &weights);
            assert_eq!(shares.iter().sum::<u32>(), connections);
            assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        }
    }

    #[test]
    fn a_name_that_would_be_cut_is_refused() {
        assert_eq!(names("billing").unwrap()[2], "billing_admin_revenue");
        let longest = "x".repeat(LONGEST_NAME - "_partner_invoicing".len());
        names(&longest).unwrap();
        let refused = names(&format!("{longest}x")).unwrap_err();
        assert!(matches!(refused, RolesError::NameTooLong(_)), "{refused}");
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(quoted('"', "a\"b"), "\"a\"\"b\"");
        assert_eq!(quoted('\'', "it's"), "'it''s'");
    }
}
