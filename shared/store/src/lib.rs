//! The ledger in Postgres: the connection pool, and the errors of statements.
//!
//! One module per table. Every statement is unnamed (`query_typed`, `execute_typed`), but for one `COPY` that is closed
//! within its transaction, so that RDS Proxy or PgBouncer in transaction mode can be used. The first parameter of every
//! function is `db: &impl GenericClient` of `tokio_postgres`: `&**client` for a pooled client, `&*transaction` for a
//! transaction begun on one.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub use deadpool_postgres::Object as Connection;
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod,
    Runtime, TimeoutType,
};
use tokio::sync::RwLock;
use tokio::time::Instant;
use tokio_postgres::CancelToken;
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;

use runtime::api;
use runtime::config::{BoxError, DatabaseConfig, SslMode};
use runtime::time_limit;

pub mod api_usage;
pub mod archive;
pub mod audit_log;
mod balance;
pub mod catalog;
pub mod checkout_sessions;
mod columns;
pub mod contract_changes;
pub mod contract_usage;
pub mod contracts;
pub mod credits;
pub mod customers;
pub mod exports;
pub mod fetched_objects;
pub mod idempotency_keys;
pub mod import_cursors;
pub mod invoice_runs;
pub mod invoiced_usage;
pub mod invoices;
pub mod ledger;
pub mod list;
pub mod locks;
pub mod migrations;
pub mod mirror;
pub mod movement_report;
pub mod outbox;
pub mod partner_invoices;
pub mod payment_facts;
pub mod payment_history;
pub mod payment_parts;
pub mod provisional;
pub mod reconciliation_runs;
pub mod reconciliation_window;
pub mod reports;
pub mod revenue_daily;
pub mod revenue_report;
pub mod roles;
pub mod row;
pub mod statements;
pub mod stripe_events;
pub mod stripe_lookups;
pub mod subscriptions;
pub mod unbilled_usage;
pub mod usage_alerts;
pub mod usage_daily;
pub mod usage_events;
pub mod usage_terms;
pub mod waived_periods;

/// How long to wait for a connection: the webhook has to answer within 5 seconds, whatever is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that nobody has used for so long may have been frozen with its sandbox: it is checked before it is used.
const UNCHECKED: Duration = Duration::from_secs(5);
/// One that does not answer in this time is replaced.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The part of a request's time that trying again for a connection leaves for what the connection is for.
const TIME_FOR_WORK: Duration = Duration::from_millis(500);
/// Between two requests to cancel: a statement may follow the one that was cancelled.
const CANCEL_PAUSE: Duration = Duration::from_millis(10);
/// The least time that a statement of several is given.
const LEAST_SHARE: Duration = Duration::from_millis(50);

/// A pool of connections that opens them when they are needed: one, unless `DATABASE_POOL_SIZE` says otherwise, since a
/// sandbox serves one request at a time. Clones share the pool.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    config: DatabaseConfig,
    pool: RwLock<Option<Opened>>,
}

/// The pool, and how its connections are encrypted: a request to cancel has to be as well.
#[derive(Clone)]
struct Opened {
    pool: Pool,
    tls: Option<MakeRustlsConnect>,
}

impl Database {
    /// Prepares the pool without connecting, so that a function can start while its database is unavailable.
    #[must_use]
    pub fn connect_lazily(config: &DatabaseConfig) -> Database {
        Database {
            shared: Arc::new(Shared {
                config: config.clone(),
                pool: RwLock::new(None),
            }),
        }
    }

    /// A connection that has just been checked. One that died while the sandbox was frozen is replaced silently.
    ///
    /// When the credentials are a secret and the server refuses them, the secret is fetched again, once. When the server
    /// has no connection left, it is asked again for as long as the caller's time limit allows. When the work that asks is
    /// given up ([`time_limit`]), what it runs on the connection is cancelled and the connection is closed.
    ///
    /// # Errors
    /// [`Error::Unavailable`], at once when the sandbox has waited in vain just before.
    pub async fn client(&self) -> Result<Connection, Error> {
        self.admitted(Check::Always).await
    }

    /// As [`Database::client`], for work that is repeated on another connection when this one turns out to be dead: it is
    /// checked only when it has not been used for five seconds.
    ///
    /// # Errors
    /// As [`Database::client`].
    pub async fn unchecked_client(&self) -> Result<Connection, Error> {
        self.admitted(Check::WhenIdle).await
    }

    async fn admitted(&self, check: Check) -> Result<Connection, Error> {
        if !time_limit::is_admitted() {
            return Err(Error::Unavailable(Cause::of_text(
                "the database was not asked: it timed out twice in a row just before".to_owned(),
            )));
        }
        let patience = time_limit::time_left().unwrap_or(CONNECT_TIMEOUT);
        let until = Instant::now() + patience.saturating_sub(TIME_FOR_WORK);
        loop {
            let full = match self.connect(check).await? {
                Ok(client) => return Ok(client),
                Err(full) => full,
            };
            let pause = Duration::from_millis(fastrand::u64(50..250));
            if Instant::now() + pause > until {
                return Err(full);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// A connection; the inner error is that the server has none left.
    async fn connect(&self, check: Check) -> Result<Result<Connection, Error>, Error> {
        let mut opened = self.opened().await?;
        let mut got = get(&opened.pool, check).await;
        if let Err(PoolError::Backend(error)) = &got
            && self.shared.config.can_rotate()
            && is_refused_login(error)
        {
            self.forget(&opened.pool).await;
            opened = self.opened().await?;
            got = get(&opened.pool, check).await;
        }
        let client = match got {
            Ok(client) => client,
            Err(PoolError::Backend(error))
                if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) =>
            {
                return Ok(Err(Error::Unavailable(Cause::of_postgres(&error))));
            }
            Err(error) => return Err(unavailable(error)),
        };
        let cache = Arc::clone(&client.statement_cache);
        time_limit::when_given_up(move || async move {
            // The work has been dropped, and so the connection is in the pool.
            let Opened { pool, tls } = opened;
            let ours = pool.retain(|client, _| !Arc::ptr_eq(&client.statement_cache, &cache));
            for client in ours.removed {
                stop(client, tls.as_ref()).await;
            }
        });
        Ok(Ok(client))
    }

    /// Cancels what a connection is running, and closes it. For work that nobody waits for any longer.
    pub async fn abandon(&self, connection: Connection) {
        let tls = self.opened().await.ok().and_then(|opened| opened.tls);
        let client = Connection::take(connection);
        let stopped = tokio::time::timeout(time_limit::STOP_TIMEOUT, stop(client, tls.as_ref()));
        if stopped.await.is_err() {
            tracing::debug!("what was abandoned may go on");
        }
    }

    /// Runs the reads of an answer that may lack parts, within the caller's time limit. A statement that takes too long is
    /// cancelled and fails alone ([`Error::is_time_out`]).
    pub async fn each_in_time<T>(
        &self,
        connection: &Connection,
        reads: Reads,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(left) = time_limit::time_left() else {
            return work.await;
        };
        let end = Instant::now() + left.saturating_sub(TIME_FOR_WORK);
        let tls = self.opened().await.ok().and_then(|opened| opened.tls);
        let token = connection.cancel_token();
        let share = || {
            let left = end.saturating_duration_since(Instant::now());
            let share = match reads {
                Reads::One => left,
                Reads::Several => left / 2,
            };
            tokio::time::sleep(share.max(LEAST_SHARE))
        };
        let mut work = pin!(work);
        let mut time = pin!(share());
        loop {
            let done = std::future::poll_fn(|context| {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(done));
                }
                if time.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                // The work was woken: a statement has been answered, and the next one's time begins.
                if Instant::now() < end {
                    time.set(share());
                    if time.as_mut().poll(context).is_ready() {
                        return Poll::Ready(None);
                    }
                }
                Poll::Pending
            });
            if let Some(done) = done.await {
                return done;
            }
            cancel(&token, tls.as_ref()).await;
            time.set(share());
        }
    }

    /// Opens the first connection during a function's start, where no caller waits for it. The first request reports a
    /// failure.
    pub async fn warm(&self) {
        if let Err(error) = self.client().await {
            tracing::warn!(
                cause = runtime::telemetry::cause_chain(&error),
                "the database could not be reached ahead of the first request"
            );
        }
    }

    async fn opened(&self) -> Result<Opened, Error> {
        if let Some(opened) = self.shared.pool.read().await.as_ref() {
            return Ok(opened.clone());
        }
        let mut slot = self.shared.pool.write().await;
        if let Some(opened) = slot.as_ref() {
            return Ok(opened.clone());
        }
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open_pool(&self.shared.config))
            .await
            .map_err(|elapsed| Error::Unavailable(Cause::of(&elapsed).timed_out()))?
            .map_err(|error| Error::Unavailable(Cause::of(error.as_ref())))?;
        Ok(slot.insert(opened).clone())
    }

    /// Drops the pool, unless another caller has replaced it already.
    async fn forget(&self, refused: &Pool) {
        let mut slot = self.shared.pool.write().await;
        if slot
            .as_ref()
            .is_some_and(|current| std::ptr::eq(current.pool.manager(), refused.manager()))
        {
            *slot = None;
        }
    }
}

/// When a connection is checked before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Always,
    /// By the pool, when nobody has used it for [`UNCHECKED`].
    WhenIdle,
}

/// A connection of the pool. One that does not answer is closed, and the next one is taken.
async fn get(pool: &Pool, check: Check) -> Result<Connection, PoolError> {
    loop {
        let client = pool.get().await?;
        let is_new = Connection::metrics(&client).recycle_count == 0;
        if is_new || check == Check::WhenIdle || answers(&client).await.is_ok() {
            return Ok(client);
        }
        drop(Connection::take(client));
    }
}

async fn answers(client: &ClientWrapper) -> Result<(), HookError> {
    let answer = tokio::time::timeout(RECYCLE_TIMEOUT, client.simple_query(""));
    match answer.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(HookError::Backend(error)),
        Err(_elapsed) => Err(HookError::message("it does not answer")),
    }
}

/// How many statements an answer is read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// It may take all the time there is.
    One,
    /// Each may take half of the time that is left when the one before has answered.
    Several,
}

/// Cancels what the connection is running, then what was sent behind it, until it is idle; and closes it.
async fn stop(client: ClientWrapper, tls: Option<&MakeRustlsConnect>) {
    let token = client.cancel_token();
    let cancelling = async {
        loop {
            cancel(&token, tls).await;
            tokio::time::sleep(CANCEL_PAUSE).await;
        }
    };
    tokio::select! {
        _idle = client.simple_query("") => {}
        () = cancelling => {}
    }
}

/// Asks the server to cancel the statement that is running. A failure is ignored: the limits of the role remain.
async fn cancel(token: &CancelToken, tls: Option<&MakeRustlsConnect>) {
    let cancelled = async {
        match tls {
            Some(tls) => token.cancel_query(tls.clone()).await,
            None => token.cancel_query(tokio_postgres::NoTls).await,
        }
    };
    match tokio::time::timeout(time_limit::STOP_TIMEOUT, cancelled).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => tracing::debug!("a statement could not be cancelled"),
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.shared.config.fmt(formatter)
    }
}

async fn open_pool(config: &DatabaseConfig) -> Result<Opened, BoxError> {
    let mut target = config.resolve().await?;
    target
        .postgres
        .connect_timeout(CONNECT_TIMEOUT)
        // Notices a vanished peer by unacknowledged data, not after TCP's 15 minutes.
        .tcp_user_timeout(Duration::from_secs(5))
        .ssl_mode(match target.ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
    if target.postgres.get_application_name().is_none() {
        target.postgres.application_name("deedpro-billing");
    }
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let tls = match target.ssl_mode {
        SslMode::Disable => None,
        SslMode::Prefer | SslMode::Require | SslMode::VerifyFull => Some(MakeRustlsConnect::new(
            runtime::tls::client_config(config.ca_file())?,
        )),
    };
    let manager = match &tls {
        None => Manager::from_config(target.postgres, tokio_postgres::NoTls, recycling),
        Some(tls) => Manager::from_config(target.postgres, tls.clone(), recycling),
    };
    let pool = Pool::builder(manager)
        .max_size(config.pool_size())
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .pre_recycle(Hook::async_fn(|client: &mut ClientWrapper, metrics| {
            Box::pin(async move {
                match metrics.last_used() < UNCHECKED {
                    true => Ok(()),
                    false => answers(client).await,
                }
            })
        }))
        .build()?;
    Ok(Opened { pool, tls })
}

fn unavailable(error: PoolError) -> Error {
    match &error {
        PoolError::Backend(error) => Error::Unavailable(Cause::of_postgres(error)),
        PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
            Error::Unavailable(Cause::of(&error).timed_out())
        }
        // The server is not at fault when all of the sandbox's own connections are taken.
        PoolError::Timeout(TimeoutType::Wait)
        | PoolError::Closed
        | PoolError::NoRuntimeSpecified
        | PoolError::PostCreateHook(_) => Error::Unavailable(Cause::of(&error)),
    }
}

fn is_refused_login(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::INVALID_PASSWORD
            || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
    })
}

/// Why a statement failed. Contains no values of rows: Postgres quotes them in its messages, and an e-mail address must
/// not reach the logs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, is shutting down, is read-only or gave up on the statement: try again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// A unique or exclusion constraint refused the row.
    #[error("the constraint {constraint} refused the row")]
    Conflict {
        /// The name of the constraint in the migration.
        constraint: String,
    },
    /// The statement failed: a bug, or a transaction that can be run again ([`Error::is_retryable`]).
    #[error("the statement failed")]
    Query(#[source] Cause),
    /// What a transaction leads to changed each time it was locked: it can be run again ([`Error::is_retryable`]).
    #[error("others change the rows as fast as they can be locked")]
    Contended,
    /// A write changed an unexpected number of rows.
    #[error("{statement} changed {changed} rows instead of {expected}")]
    RowCount {
        /// The name of the statement, from its first line.
        statement: &'static str,
        /// The number of rows it had to change.
        expected: u64,
        /// The number of rows it changed.
        changed: u64,
    },
    /// A stored value is not valid for its column.
    #[error("{table}.{column} of row {row} cannot be read")]
    Unreadable {
        /// The name of the table.
        table: &'static str,
        /// The name of the column.
        column: &'static str,
        /// The key of the row, which is never personal.
        row: String,
    },
    /// A value has no JSON to be written as.
    #[error("{table}.{column} cannot be written")]
    Unwritable {
        /// The name of the table.
        table: &'static str,
        /// The name of the column.
        column: &'static str,
    },
}

impl Error {
    /// Whether waiting may help: then the caller answers 503, parks the event, or leaves the work to the next run.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }

    /// Whether the connection was lost, or could not be made: another one may be had at once.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Error::Unavailable(cause) if cause.sqlstate.is_none() && !cause.is_time_out)
    }

    /// Whether the database did not answer in time: no connection or no lock, or the statement was cancelled.
    pub fn is_time_out(&self) -> bool {
        match self {
            Error::Unavailable(cause) => {
                cause.is_time_out || matches!(cause.sqlstate.as_deref(), Some("57014" | "55P03"))
            }
            Error::Conflict { .. }
            | Error::Query(_)
            | Error::Contended
            | Error::RowCount { .. }
            | Error::Unreadable { .. }
            | Error::Unwritable { .. } => false,
        }
    }

    /// Whether the transaction lost against another one (serialisation failure, deadlock) and can be run again at once.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Contended)
            || self
                .sqlstate()
                .is_some_and(|code| code == "40001" || code == "40P01")
    }

    /// Postgres' code of five characters; `None` when Postgres did not answer.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Error::Unavailable(cause) | Error::Query(cause) => cause.sqlstate.as_deref(),
            Error::Conflict { .. } => Some("23505"),
            Error::Contended
            | Error::RowCount { .. }
            | Error::Unreadable { .. }
            | Error::Unwritable { .. } => None,
        }
    }

    /// The name of the constraint that refused the row: unique, exclusion, check or foreign key.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Error::Conflict { constraint } => Some(constraint),
            Error::Unavailable(cause) | Error::Query(cause) => cause.constraint.as_deref(),
            Error::Contended
            | Error::RowCount { .. }
            | Error::Unreadable { .. }
            | Error::Unwritable { .. } => None,
        }
    }

    /// An error unless `statement` changed exactly `expected` rows.
    pub fn check_row_count(
        statement: &'static str,
        expected: u64,
        changed: u64,
    ) -> Result<(), Error> {
        if expected == changed {
            Ok(())
        } else {
            Err(Error::RowCount {
                statement,
                expected,
                changed,
            })
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        let cause = Cause::of_postgres(&error);
        match cause.sqlstate.as_deref() {
            Some(code) if is_unavailable(code) => Error::Unavailable(cause),
            Some("23505" | "23P01") => Error::Conflict {
                constraint: cause.constraint.unwrap_or_default(),
            },
            Some(_) => Error::Query(cause),
            // Without a code the connection failed, or a value did not fit the column it was read from.
            None if is_connection_failure(&error) => Error::Unavailable(cause),
            None => Error::Query(cause),
        }
    }
}

/// Classes 08 (connection), 53 (out of resources) and 57 (shutdown, failover, statement timeout), a lock not obtained
/// in time, and a standby that was promoted during the transaction.
fn is_unavailable(code: &str) -> bool {
    code.starts_with("08")
        || code.starts_with("53")
        || code.starts_with("57")
        || matches!(code, "55P03" | "25006" | "28P01" | "28000" | "3D000")
}

fn is_connection_failure(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    if error.is_closed() {
        return true;
    }
    match error.source() {
        Some(source) => source.is::<std::io::Error>(),
        // "timeout waiting for server", "unexpected message from server": the kinds are not public.
        None => {
            let text = error.to_string();
            text.starts_with("timeout") || text.starts_with("unexpected message")
        }
    }
}

/// The root cause of a database failure, without the values of any row.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Cause {
    text: String,
    sqlstate: Option<String>,
    constraint: Option<String>,
    is_time_out: bool,
}

impl Cause {
    fn of(error: &(dyn std::error::Error + 'static)) -> Cause {
        Cause::of_text(runtime::telemetry::cause_chain(error))
    }

    fn of_text(text: String) -> Cause {
        Cause {
            text,
            sqlstate: None,
            constraint: None,
            is_time_out: false,
        }
    }

    fn timed_out(self) -> Cause {
        Cause {
            is_time_out: true,
            ..self
        }
    }

    fn of_postgres(error: &tokio_postgres::Error) -> Cause {
        let Some(refusal) = error.as_db_error() else {
            return Cause::of(error);
        };
        let code = refusal.code().code();
        // The detail and, for invalid data (class 22), the message itself quote values of the row.
        let mut text = if code.starts_with("22") {
            format!("Postgres refused a value ({code})")
        } else {
            format!("Postgres: {} ({code})", refusal.message())
        };
        for (label, name) in [
            ("table", refusal.table()),
            ("column", refusal.column()),
            ("constraint", refusal.constraint()),
        ] {
            if let Some(name) = name {
                text.push_str(&format!(", {label} {name}"));
            }
        }
        Cause {
            text,
            sqlstate: Some(code.to_owned()),
            constraint: refusal.constraint().map(str::to_owned),
            is_time_out: false,
        }
    }
}

impl api::CommonError for Error {}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        if error.is_time_out() {
            api::Error::TimedOut(Box::new(error))
        } else if error.is_unavailable() || error.is_retryable() {
            api::Error::Unavailable(Box::new(error))
        } else {
            api::Error::Internal(Box::new(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::config::Environment;

    fn database(pairs: &[(&str, &str)]) -> Database {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let config =
            DatabaseConfig::from_env(&environment, &runtime::aws::sdk_config(&environment))
                .unwrap();
        Database::connect_lazily(&config)
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_unavailable() {
        // Port 1 of this machine: refused at once.
        let error = database(&[("DATABASE_URL", "postgres://u:hush@127.0.0.1:1/d")])
            .client()
            .await
            .unwrap_err();
        assert!(error.is_unavailable());
        let chain = runtime::telemetry::cause_chain(&error);
        assert!(
            chain.starts_with("the database is unavailable: "),
            "{chain}"
        );
        assert!(!chain.contains("hush"));
    }

    #[tokio::test]
    async fn a_ca_file_that_is_not_there_is_told() {
        let error = database(&[
            ("DATABASE_URL", "postgres://u@127.0.0.1:1/d"),
            ("DATABASE_SSLMODE", "require"),
            ("DATABASE_CA_FILE", "/nowhere/ca.pem"),
        ])
        .client()
        .await
        .unwrap_err();
        assert!(error.is_unavailable());
    }

    #[test]
    fn codes_say_whether_waiting_helps() {
        for code in ["08006", "53300", "57P01", "57014", "55P03", "25006"] {
            assert!(is_unavailable(code), "{code}");
        }
        for code in ["23505", "40001", "42P01", "22P02"] {
            assert!(!is_unavailable(code), "{code}");
        }
        let lost = Error::Query(Cause {
            text: String::new(),
            sqlstate: Some("40P01".to_owned()),
            constraint: None,
            is_time_out: false,
        });
        assert!(lost.is_retryable() && !lost.is_unavailable());
    }
}
