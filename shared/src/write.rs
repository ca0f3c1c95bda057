//! What every write has in common: the caller's `Idempotency-Key`, one transaction, the audit log, the stored answer,
//! and the bus after the commit.
//!
//! The key is taken first and its answer written last, in the transaction of the effect: the same request again gets
//! the first answer, and two at once wait for each other. An error takes the transaction back, and with it the key.
//!
//! An action is `async fn void(cx: Write<'_>, id: CreditId) -> Result<Credit, VoidError>`; its handler hands it to
//! [`Writer::run`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Transaction};
use utoipa::openapi::RefOr;
use utoipa::{IntoResponses, ToSchema};

use crate::publishing::publish_after_commit;
use runtime::api::Error;
use runtime::api::access::Caller;
use runtime::api::extract::{Now, documented};
use runtime::api::router::{
    Argument, IDEMPOTENCY_KEY as HEADER, KeyRule, RawBody, Route, extension,
};
use runtime::aws::event_bus::EventBus;
use store::idempotency_keys::{self, Owner, Taken, Use};
use store::outbox::{self, NewMessage};
use store::{Database, audit_log};

const KEY_BYTES: usize = 255;

/// What a function's state has for its writes.
pub trait WriteState {
    /// Where the effect goes.
    fn database(&self) -> &Database;

    /// Where domain events go after the commit; without a bus they stay in the outbox for the sweep.
    fn event_bus(&self) -> Option<&EventBus>;
}

/// A write that is about to begin: the extractor of a handler that is added by
/// [`Routes::add_write`](runtime::api::router::Routes::add_write).
#[derive(Debug)]
pub struct Writer {
    database: Database,
    event_bus: Option<EventBus>,
    actor: String,
    key: Option<Key>,
    now: Timestamp,
}

#[derive(Debug)]
struct Key {
    key: String,
    /// The pattern of the route.
    route: String,
    first_use: Use,
}

impl Argument for Writer {}

impl<C: WriteState + Send + Sync> FromRequestParts<Arc<C>> for Writer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<C>) -> Result<Writer, Error> {
        let route: Arc<Route> = extension(parts)?;
        let rule = route.key.ok_or_else(|| {
            Error::Internal(format!("{} was not added as a write", route.path).into())
        })?;
        let caller: Caller = extension(parts)?;
        let Now(now) = extension(parts)?;
        Ok(Writer {
            database: state.database().clone(),
            event_bus: state.event_bus().cloned(),
            actor: caller.actor().to_owned(),
            key: key(parts, &route, rule)?,
            now,
        })
    }
}

fn key(parts: &Parts, route: &Route, rule: KeyRule) -> Result<Option<Key>, Error> {
    let refused = |code: &'static str, detail: String| Error::BadRequest {
        code,
        field: Some(HEADER.to_owned()),
        detail,
    };
    match (header(&parts.headers), rule) {
        (Ok(Some(key)), _) => {
            let RawBody(body) = extension(parts)?;
            Ok(Some(Key {
                key,
                route: format!("{} {}", route.method, route.path),
                first_use: Use {
                    route: format!("{} {}", parts.method, parts.uri.path()),
                    request_sha256: hex::encode(Sha256::digest(&body)),
                },
            }))
        }
        (Ok(None), KeyRule::Optional) => Ok(None),
        (Ok(None), KeyRule::Required) => Err(refused(
            "missing_header",
            format!("send {HEADER} with a value of your own"),
        )),
        (Err(()), _) => Err(refused(
            "invalid_header",
            format!("{HEADER} is one value of 1 to {KEY_BYTES} printable ASCII characters"),
        )),
    }
}

/// The header's one value.
fn header(headers: &HeaderMap) -> Result<Option<String>, ()> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let is_printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    let is_one = (1..=KEY_BYTES).contains(&bytes.len()) && values.next().is_none();
    match std::str::from_utf8(bytes) {
        Ok(key) if is_printable && is_one => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => Err(()),
    }
}

/// A write under way: the transaction of its effect, and who writes.
pub struct Write<'a> {
    /// The transaction. What it does not commit has not happened.
    pub db: &'a Transaction<'a>,
    /// Who writes, as the audit log names them.
    pub actor: &'a str,
    /// The instant of the write, in every row it makes.
    pub now: Timestamp,
    messages: &'a mut Vec<outbox::Message>,
}

impl Write<'_> {
    /// Notes in the audit log what was done to `target` (`credit:7`): `before` is `()` for a creation.
    ///
    /// # Errors
    /// When the statement fails, or what it was done to cannot be written as JSON.
    pub async fn audit(
        &self,
        action: &'static str,
        target: String,
        before: impl Serialize,
        after: impl Serialize,
    ) -> Result<(), Error> {
        let entry = audit_log::Entry {
            actor: self.actor,
            action,
            target,
            before: audited(before)?,
            after: audited(after)?,
        };
        Ok(audit_log::insert(self.db, &entry, self.now).await?)
    }

    /// Writes domain events into the outbox; they are published after the commit.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn announce(&mut self, messages: &[NewMessage]) -> Result<(), store::Error> {
        let written = outbox::insert_all(self.db, messages, self.now).await?;
        self.messages.extend(written);
        Ok(())
    }
}

impl Write<'_> {
    /// Has domain events be published after the commit that are in the outbox already.
    pub fn publish(&mut self, messages: Vec<outbox::Message>) {
        self.messages.extend(messages);
    }
}

impl Writer {
    /// The name of who writes.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// Runs `action` in a transaction, unless the key has an answer already; commits, publishes, and answers what the
    /// action returned.
    ///
    /// # Errors
    /// When the action refuses, the key was used for another request, or the database is away.
    pub async fn run<T, E, const STATUS: u16>(
        self,
        action: impl for<'a> FnOnce(Write<'a>) -> BoxFuture<'a, Result<T, E>> + Send,
    ) -> Result<Written<T, STATUS>, E>
    where
        T: Serialize,
        E: From<Error>,
    {
        let mut connection = self.database.client().await.map_err(Error::from)?;
        let client: &mut Client = &mut connection;
        let transaction = client.transaction().await.map_err(unanswered)?;
        let owner = self.key.as_ref().map(|key| Owner {
            key: &key.key,
            actor: &self.actor,
            route: &key.route,
        });
        if let (Some(key), Some(owner)) = (&self.key, &owner) {
            let taken = idempotency_keys::take(&transaction, owner, &key.first_use, self.now).await;
            match taken.map_err(Error::from)? {
                Taken::Now => {}
                Taken::Before(answered) if answered.first_use != key.first_use => {
                    return Err(E::from(Error::Conflict {
                        code: "idempotency_key_reused",
                        detail: format!("this {HEADER} was used for another request"),
                    }));
                }
                Taken::Before(answered) => return Ok(stored(answered.status, answered.body)?),
            }
        }
        let mut messages = Vec::new();
        let write = Write {
            db: &transaction,
            actor: &self.actor,
            now: self.now,
            messages: &mut messages,
        };
        let done = action(write).await?;
        let body =
            serde_json::to_string(&done).map_err(|error| Error::Internal(Box::new(error)))?;
        if let Some(owner) = &owner {
            let answered =
                idempotency_keys::answer(&transaction, owner, i32::from(STATUS), &body).await;
            answered.map_err(Error::from)?;
        }
        transaction.commit().await.map_err(unanswered)?;
        if !messages.is_empty() {
            let (database, bus) = (&self.database, self.event_bus.as_ref());
            publish_after_commit(database, connection, bus, &messages, self.now).await;
        }
        Ok(stored(i32::from(STATUS), body)?)
    }
}

/// As the audit log keeps it; nothing is NULL.
fn audited(row: impl Serialize) -> Result<Option<Value>, Error> {
    let value = serde_json::to_value(row).map_err(|error| Error::Internal(Box::new(error)))?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

fn unanswered(error: tokio_postgres::Error) -> Error {
    Error::from(store::Error::from(error))
}

fn stored<T, const STATUS: u16>(status: i32, body: String) -> Result<Written<T, STATUS>, Error> {
    let status = u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| Error::Internal("a stored answer has no status".into()))?;
    Ok(Written {
        status,
        body,
        answer: std::marker::PhantomData,
    })
}

/// The answer of a write, `T` as JSON with the status `STATUS`: just written, or the one that its key got first.
#[derive(Debug)]
pub struct Written<T, const STATUS: u16 = 200> {
    status: StatusCode,
    body: String,
    answer: std::marker::PhantomData<fn() -> T>,
}

/// The answer of a write that made something: 201.
pub type Created<T> = Written<T, 201>;

impl<T, const STATUS: u16> IntoResponse for Written<T, STATUS> {
    fn into_response(self) -> axum::response::Response {
        let headers = [(CONTENT_TYPE, "application/json")];
        (self.status, headers, self.body).into_response()
    }
}

impl<T: ToSchema, const STATUS: u16> IntoResponses for Written<T, STATUS> {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let status = StatusCode::from_u16(STATUS).unwrap_or(StatusCode::OK);
        documented::<T>(status, None)
    }
}
