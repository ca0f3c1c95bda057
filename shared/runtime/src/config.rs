//! Configuration: the only reader of the environment, and the settings that combine several variables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use domain::payment::FeeEstimate;
use secrecy::{ExposeSecret, SecretString};

mod database_roles;
pub mod variables;

pub use database_roles::{DatabaseRoles, Login};

/// A variable that is missing or invalid. Its value is never shown: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The variable is unset or blank.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// The variable has an invalid value.
    #[error("the environment variable {variable} is not valid: {reason}")]
    Invalid {
        /// The name of the variable.
        variable: &'static str,
        /// What the value should be, without the value itself.
        reason: String,
    },
}

/// The variables that a function was started with. `Debug` prints only their names.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process; those that are not UTF-8 are left out.
    pub fn from_process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Environment { variables }
    }

    /// The given variables, for tests and the local bundle. A later pair replaces an earlier one of the same name.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Environment {
        let variables = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Environment { variables }
    }

    /// The same with another value of a variable.
    #[must_use]
    pub fn with(&self, name: &str, value: String) -> Environment {
        let mut variables = self.variables.clone();
        variables.insert(name.to_owned(), value);
        Environment { variables }
    }

    /// The value without surrounding blanks. An unset or blank variable is an error that names it.
    pub fn required(&self, variable: &'static str) -> Result<String, Error> {
        self.optional(variable).ok_or(Error::Missing(variable))
    }

    /// The value without surrounding blanks. A blank value counts as unset, because deploy templates leave parameters
    /// blank.
    pub fn optional(&self, variable: &'static str) -> Option<String> {
        let value = self.variables.get(variable)?.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// The value parsed as `T`, or `default` when unset.
    pub fn parsed_or<T>(&self, variable: &'static str, default: T) -> Result<T, Error>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        match self.optional(variable) {
            None => Ok(default),
            Some(value) => parse(variable, &value),
        }
    }

    /// The value parsed as `T`. An unset or blank variable is an error that names it.
    pub fn parsed<T>(&self, variable: &'static str) -> Result<T, Error>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        parse(variable, &self.required(variable)?)
    }
}

fn parse<T>(variable: &'static str, value: &str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: fmt::Display,
{
    value.parse().map_err(|error: T::Err| Error::Invalid {
        variable,
        reason: error.to_string(),
    })
}

/// The fee that is assumed until Stripe names it: `FEE_ESTIMATE_BPS` (default 290 basis points) and
/// `FEE_ESTIMATE_FIXED_CENTS` (default 30, in currencies with two decimals). The defaults are Stripe's price in the US.
pub fn fee_estimate(environment: &Environment) -> Result<FeeEstimate, Error> {
    Ok(FeeEstimate {
        bps: environment.parsed_or("FEE_ESTIMATE_BPS", 290)?,
        fixed_cents: environment.parsed_or("FEE_ESTIMATE_FIXED_CENTS", 30)?,
    })
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries(self.variables.keys())
            .finish()
    }
}

/// Whether the connection to Postgres is encrypted. An encrypted connection always verifies the certificate's chain and
/// host name: no mode encrypts without knowing the peer (libpq's `require` and `prefer` do).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Not encrypted. The default for a Unix socket or a loopback address only.
    Disable,
    /// Encrypted and verified when the server offers TLS, otherwise plain.
    Prefer,
    /// Encrypted and verified, or no connection. The same as `VerifyFull`.
    Require,
    /// Encrypted and verified, or no connection. The default for every other host.
    VerifyFull,
}

impl SslMode {
    fn parse(text: &str) -> Option<SslMode> {
        match text {
            "disable" => Some(SslMode::Disable),
            "prefer" => Some(SslMode::Prefer),
            "require" => Some(SslMode::Require),
            "verify-full" | "verify-ca" => Some(SslMode::VerifyFull),
            _ => None,
        }
    }
}

/// Where the ledger is and how to reach it: `DATABASE_URL` (plain) or `DATABASE_SECRET_ARN`, `DATABASE_HOST`,
/// `DATABASE_PORT` and `DATABASE_NAME` (instead of those of a secret in RDS's form: it may name none, or not the proxy),
/// `DATABASE_SSLMODE`
/// (`disable`, `prefer`, `require`, `verify-full`; else `sslmode` of the URL; else by host, see [`SslMode`]),
/// `DATABASE_CA_FILE` (PEM bundle to trust instead of the system's, such as the one RDS publishes),
/// `DATABASE_POOL_SIZE` (1, as a sandbox serves one request at a time; a server that takes many at once sets more).
#[derive(Clone)]
pub struct DatabaseConfig {
    url: DatabaseUrl,
    login: Option<Login>,
    host: Option<String>,
    port: Option<u16>,
    name: Option<String>,
    ssl_mode: Option<SslMode>,
    ca_file: Option<PathBuf>,
    pool_size: usize,
}

#[derive(Clone)]
enum DatabaseUrl {
    Plain(SecretString),
    Secret {
        arn: String,
        client: aws_sdk_secretsmanager::Client,
    },
}

/// Where and how to connect, with the credentials resolved.
pub struct DatabaseTarget {
    /// Host, user, password and database. Its `sslmode` is not used.
    pub postgres: tokio_postgres::Config,
    /// The configured mode, or the default for the host.
    pub ssl_mode: SslMode,
}

impl DatabaseConfig {
    /// Reads the variables above. An invalid URL is reported here; a secret is first fetched when connecting.
    pub fn from_env(
        environment: &Environment,
        sdk: &aws_types::SdkConfig,
    ) -> Result<DatabaseConfig, Error> {
        let ssl_mode = match environment.optional("DATABASE_SSLMODE") {
            None => None,
            Some(text) => Some(SslMode::parse(&text).ok_or_else(|| Error::Invalid {
                variable: "DATABASE_SSLMODE",
                reason: "one of disable, prefer, require, verify-full".to_owned(),
            })?),
        };
        let url = match environment.optional("DATABASE_URL") {
            Some(url) => DatabaseUrl::Plain(url.into()),
            None => match environment.optional("DATABASE_SECRET_ARN") {
                Some(arn) => DatabaseUrl::Secret {
                    arn,
                    client: aws_sdk_secretsmanager::Client::new(sdk),
                },
                None => return Err(Error::Missing("DATABASE_URL")),
            },
        };
        let config = DatabaseConfig {
            url,
            login: None,
            host: environment.optional("DATABASE_HOST"),
            port: match environment.optional("DATABASE_PORT") {
                None => None,
                Some(port) => Some(parse("DATABASE_PORT", &port)?),
            },
            name: environment.optional("DATABASE_NAME"),
            ssl_mode,
            ca_file: environment.optional("DATABASE_CA_FILE").map(PathBuf::from),
            pool_size: environment.parsed_or("DATABASE_POOL_SIZE", 1)?,
        };
        if let DatabaseUrl::Plain(url) = &config.url {
            config.target(url.expose_secret())?;
        }
        Ok(config)
    }

    /// The same database as another user.
    #[must_use]
    pub fn with_login(&self, login: Login) -> DatabaseConfig {
        DatabaseConfig {
            login: Some(login),
            ..self.clone()
        }
    }

    /// The PEM bundle to trust instead of the system's.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.ca_file.as_deref()
    }

    /// How many connections may be open at once.
    #[must_use]
    pub fn pool_size(&self) -> usize {
        self.pool_size.max(1)
    }

    /// Whether the credentials may change before the next connection.
    pub fn can_rotate(&self) -> bool {
        matches!(self.url, DatabaseUrl::Secret { .. })
    }

    /// The target to connect to now. Asks Secrets Manager when the URL is a secret.
    pub async fn resolve(&self) -> Result<DatabaseTarget, BoxError> {
        let mut target = self.resolve_secret().await?;
        if let Some(Login { user, password }) = &self.login {
            target
                .postgres
                .user(user)
                .password(password.expose_secret());
        }
        Ok(target)
    }

    async fn resolve_secret(&self) -> Result<DatabaseTarget, BoxError> {
        match &self.url {
            DatabaseUrl::Plain(url) => Ok(self.target(url.expose_secret())?),
            DatabaseUrl::Secret { arn, client } => {
                let answer = client.get_secret_value().secret_id(arn).send().await?;
                let text = answer.secret_string().ok_or(Error::Invalid {
                    variable: "DATABASE_SECRET_ARN",
                    reason: "the secret holds no text".to_owned(),
                })?;
                Ok(self.target_of_secret(text)?)
            }
        }
    }

    /// Reads a secret: a URL, or RDS's JSON object with `username`, `password`, `host`, `port` and `dbname`. The last
    /// three are missing in the secret of a cluster that manages its password.
    fn target_of_secret(&self, text: &str) -> Result<DatabaseTarget, Error> {
        #[derive(serde::Deserialize)]
        struct RdsSecret {
            username: String,
            password: String,
            host: Option<String>,
            port: Option<u16>,
            dbname: Option<String>,
        }
        if !text.trim_start().starts_with('{') {
            return self.target(text.trim());
        }
        // The parse error would quote the secret.
        let secret: RdsSecret =
            serde_json::from_str(text).map_err(|_quotes_it| Error::Invalid {
                variable: "DATABASE_SECRET_ARN",
                reason: "a JSON secret has username and password".to_owned(),
            })?;
        let host = self.host.clone().or(secret.host).ok_or(Error::Invalid {
            variable: "DATABASE_HOST",
            reason: "it has to be set where the secret names no host".to_owned(),
        })?;
        let port = self.port.or(secret.port).unwrap_or(5432);
        let name = self.name.clone().or(secret.dbname);
        let mut postgres = tokio_postgres::Config::new();
        postgres
            .user(secret.username)
            .password(secret.password)
            .host(host)
            .port(port)
            .dbname(name.unwrap_or_else(|| "postgres".to_owned()));
        let ssl_mode = self.ssl_mode.unwrap_or_else(|| default_ssl_mode(&postgres));
        Ok(DatabaseTarget { postgres, ssl_mode })
    }

    fn target(&self, url: &str) -> Result<DatabaseTarget, Error> {
        let invalid = |reason: &str| Error::Invalid {
            variable: "DATABASE_URL",
            reason: reason.to_owned(),
        };
        let (url, in_url) = without_ssl_mode(url);
        let in_url = match in_url.as_deref() {
            None => None,
            Some(text) => Some(SslMode::parse(text).ok_or_else(|| {
                invalid("its sslmode is one of disable, prefer, require, verify-full")
            })?),
        };
        // The parse error may quote the password.
        let postgres: tokio_postgres::Config = url
            .parse()
            .map_err(|_quotes_it| invalid("write postgresql://user:password@host:port/database"))?;
        if postgres.get_hosts().is_empty() {
            return Err(invalid("it names no host"));
        }
        let ssl_mode = self
            .ssl_mode
            .or(in_url)
            .unwrap_or_else(|| default_ssl_mode(&postgres));
        Ok(DatabaseTarget { postgres, ssl_mode })
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = match &self.url {
            DatabaseUrl::Plain(_) => "[redacted]",
            DatabaseUrl::Secret { arn, .. } => arn,
        };
        formatter
            .debug_struct("DatabaseConfig")
            .field("url", &url)
            .field("ssl_mode", &self.ssl_mode)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// Any error, to be logged in one line.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn default_ssl_mode(postgres: &tokio_postgres::Config) -> SslMode {
    let local = postgres.get_hosts().iter().all(|host| match host {
        tokio_postgres::config::Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(_) => true,
    });
    if local {
        SslMode::Disable
    } else {
        SslMode::VerifyFull
    }
}

/// Removes `sslmode=…` from a URL or a `key=value` string: the driver does not know all of its values.
fn without_ssl_mode(url: &str) -> (String, Option<String>) {
    let Some(start) = url
        .find("sslmode=")
        .filter(|start| url[..*start].is_empty() || url[..*start].ends_with(['?', '&', ' ']))
    else {
        return (url.to_owned(), None);
    };
    let value_start = start + "sslmode=".len();
    let value_end = url[value_start..]
        .find(['&', ' '])
        .map_or(url.len(), |length| value_start + length);
    let before = url[..start].trim_end_matches('&');
    let after = &url[value_end..];
    let after = if before.ends_with('?') {
        after.trim_start_matches('&')
    } else {
        after
    };
    (
        format!("{before}{after}"),
        Some(url[value_start..value_end].to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<DatabaseConfig, Error> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        DatabaseConfig::from_env(&environment, &crate::aws::sdk_config(&environment))
    }

    #[test]
    fn a_missing_or_blank_variable_names_itself() {
        let environment = Environment::from_pairs([("EVENT_BUS_NAME", "  ")]);
        let error = environment.required("EVENT_BUS_NAME").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable EVENT_BUS_NAME is not set"
        );
        assert_eq!(environment.optional("EVENT_BUS_NAME"), None);
        assert_eq!(config(&[]).unwrap_err(), Error::Missing("DATABASE_URL"));
    }

    #[test]
    fn a_number_that_is_none_names_its_variable() {
        let environment = Environment::from_pairs([("FEE_ESTIMATE_BPS", "2.9")]);
        let error = environment.parsed_or::<u32>("FEE_ESTIMATE_BPS", 290);
        assert_eq!(
            error.unwrap_err().to_string(),
            "the environment variable FEE_ESTIMATE_BPS is not valid: invalid digit found in string"
        );
        assert_eq!(
            environment.parsed_or("FEE_ESTIMATE_FIXED_CENTS", 30),
            Ok(30)
        );
    }

    #[test]
    fn debug_shows_no_value() {
        let pairs = [
            ("DATABASE_URL", "postgres://u:pass-1@127.0.0.1/db"),
            ("ADMIN_JWT_SECRET", "hush"),
        ];
        let environment = Environment::from_pairs(pairs);
        let printed = format!("{environment:?} {:?}", config(&pairs).unwrap());
        assert!(printed.contains("ADMIN_JWT_SECRET"));
        assert!(!printed.contains("pass-1") && !printed.contains("hush"));
    }

    #[test]
    fn a_url_that_cannot_be_read_is_refused_without_repeating_it() {
        for url in [
            "postgres://u:pass-1@host:port/db",
            "nonsense pass-1",
            "postgres://u:pass-1@host/db?sslmode=maybe",
            "user=u password=pass-1",
        ] {
            let error = config(&[("DATABASE_URL", url)]).unwrap_err().to_string();
            assert!(error.contains("DATABASE_URL"), "{error}");
            assert!(!error.contains("pass-1"), "{error}");
        }
    }

    #[test]
    fn tls_is_verified_unless_the_host_is_this_machine_or_the_operator_says_so() {
        for (url, variable, expected) in [
            ("postgres://u@127.0.0.1/db", "", SslMode::Disable),
            ("postgres://u@localhost/db", "", SslMode::Disable),
            ("postgres://u@[::1]/db", "", SslMode::Disable),
            ("host=/run/postgresql user=u", "", SslMode::Disable),
            ("postgres://u@db.example.com/db", "", SslMode::VerifyFull),
            ("postgres://u@10.0.0.8/db", "", SslMode::VerifyFull),
            ("postgres://u@10.0.0.8/db", "disable", SslMode::Disable),
            ("postgres://u@h/db?sslmode=require", "", SslMode::Require),
            (
                "postgres://u@h/db?sslmode=verify-full",
                "prefer",
                SslMode::Prefer,
            ),
            (
                "host=h user=u sslmode=prefer dbname=db",
                "",
                SslMode::Prefer,
            ),
        ] {
            let pairs = [("DATABASE_URL", url), ("DATABASE_SSLMODE", variable)];
            let target = config(&pairs).unwrap().target(url).unwrap();
            assert_eq!(target.ssl_mode, expected, "{url} {variable}");
        }
        let error = config(&[
            ("DATABASE_URL", "postgres://u@h/d"),
            ("DATABASE_SSLMODE", "yes"),
        ]);
        assert!(error.unwrap_err().to_string().contains("DATABASE_SSLMODE"));
    }

    #[test]
    fn the_ssl_mode_is_taken_out_of_a_url_and_nothing_else() {
        for (url, left, mode) in [
            ("postgres://h/d", "postgres://h/d", None),
            (
                "postgres://h/d?sslmode=require",
                "postgres://h/d?",
                Some("require"),
            ),
            (
                "postgres://h/d?sslmode=verify-full&connect_timeout=3",
                "postgres://h/d?connect_timeout=3",
                Some("verify-full"),
            ),
            (
                "postgres://h/d?connect_timeout=3&sslmode=require&keepalives=1",
                "postgres://h/d?connect_timeout=3&keepalives=1",
                Some("require"),
            ),
            (
                "postgres://u:xsslmode=y@h/d",
                "postgres://u:xsslmode=y@h/d",
                None,
            ),
        ] {
            let (rest, found) = without_ssl_mode(url);
            assert_eq!((rest.as_str(), found.as_deref()), (left, mode), "{url}");
        }
    }

    #[test]
    fn a_secret_is_a_url_or_the_object_rds_keeps() {
        let config = config(&[("DATABASE_SECRET_ARN", "arn:aws:secretsmanager:x")]).unwrap();
        let target = config
            .target_of_secret(r#"{"username":"u","password":"p","host":"db.internal","port":6432}"#)
            .unwrap();
        assert_eq!(target.postgres.get_user(), Some("u"));
        assert_eq!(target.postgres.get_ports(), [6432]);
        assert_eq!(target.ssl_mode, SslMode::VerifyFull);
        let target = config
            .target_of_secret(" postgres://u@127.0.0.1/db\n")
            .unwrap();
        assert_eq!(target.postgres.get_dbname(), Some("db"));
        let error = config.target_of_secret(r#"{"password":"hush"}"#);
        assert!(!error.err().unwrap().to_string().contains("hush"));
    }

    #[test]
    fn the_host_of_a_proxy_stands_for_the_secrets_own_and_for_one_it_lacks() {
        let arn = ("DATABASE_SECRET_ARN", "arn:aws:secretsmanager:x");
        let direct = config(&[arn]).unwrap();
        let managed = r#"{"username":"u","password":"hush"}"#;
        let error = direct.target_of_secret(managed).err().unwrap().to_string();
        assert!(error.contains("DATABASE_HOST") && !error.contains("hush"));
        let host = ("DATABASE_HOST", "proxy.internal");
        let proxied = config(&[arn, host, ("DATABASE_NAME", "billing")]).unwrap();
        for secret in [
            managed,
            r#"{"username":"u","password":"p","host":"db.internal","dbname":"other"}"#,
        ] {
            let target = proxied.target_of_secret(secret).unwrap();
            let host = tokio_postgres::config::Host::Tcp("proxy.internal".to_owned());
            assert_eq!(target.postgres.get_hosts(), [host]);
            assert_eq!(target.postgres.get_dbname(), Some("billing"));
        }
    }
}
