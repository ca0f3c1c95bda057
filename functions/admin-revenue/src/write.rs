//! What every write has in common: who it is, the caller's `Idempotency-Key`, and the bus after the commit.
//!
//! The key is taken first and its answer written last, in the transaction of the effect: the same request again gets
//! the first answer, and two at once wait for each other. An error takes the transaction back, and with it the key.

use std::time::Duration;

use jiff::Timestamp;
use lambda_http::http::{HeaderMap, StatusCode};
use lambda_http::{Body, Request, Response};
use runtime::api::authentication::Principal;
use runtime::api::{self, Error};
use runtime::telemetry::log_failure;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::publishing;
use store::idempotency_keys::{self, Use};
use store::outbox;
use tokio_postgres::{Client, GenericClient};

use crate::Clients;

const HEADER: &str = "Idempotency-Key";
const KEY_BYTES: usize = 255;
/// Longest time the bus may take: the effect is committed, the sweep publishes the rest.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// A caller's key and what it is used for.
#[derive(Debug)]
pub(crate) struct Key {
    key: String,
    first_use: Use,
}

/// The name of a caller in the audit log.
pub(crate) fn actor(principal: &Principal) -> &str {
    let subject = principal.subject.as_deref();
    subject
        .filter(|name| api::is_plain(name))
        .unwrap_or("admin")
}

/// The request's key; a 400 naming the header when it is no key.
pub(crate) fn key(request: &Request) -> Result<Option<Key>, Error> {
    let Some(key) = header(request.headers())? else {
        return Ok(None);
    };
    let digest = Sha256::digest(request.body().as_ref());
    Ok(Some(Key {
        key,
        first_use: Use {
            route: format!("{} {}", request.method(), request.uri().path()),
            request_sha256: hex::encode(digest),
        },
    }))
}

/// Takes the key, or tells the answer it got before: then nothing is to be done.
pub(crate) async fn begin(
    db: &impl GenericClient,
    key: Option<&Key>,
    now: Timestamp,
) -> Result<Option<Response<Body>>, Error> {
    let Some(Key { key, first_use }) = key else {
        return Ok(None);
    };
    if idempotency_keys::take_bare(db, key, first_use, now).await? {
        return Ok(None);
    }
    let answered = idempotency_keys::get_bare(db, key).await?;
    if answered.first_use != *first_use {
        return Err(Error::Conflict {
            code: "idempotency_key_reused",
            detail: format!("this {HEADER} was used for another request"),
        });
    }
    let status = u16::try_from(answered.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| Error::Internal("a stored answer has no status".into()))?;
    let mut response = Response::new(Body::Text(answered.body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        lambda_http::http::header::CONTENT_TYPE,
        lambda_http::http::HeaderValue::from_static("application/json"),
    );
    Ok(Some(response))
}

/// The answer, written down under the key.
pub(crate) async fn finish(
    db: &impl GenericClient,
    key: Option<&Key>,
    status: StatusCode,
    body: &impl Serialize,
) -> Result<Response<Body>, Error> {
    let response = api::json(status, body)?;
    if let Some(Key { key, .. }) = key {
        let text = std::str::from_utf8(response.body())
            .map_err(|error| Error::Internal(Box::new(error)))?;
        idempotency_keys::answer_bare(db, key, i32::from(status.as_u16()), text).await?;
    }
    Ok(response)
}

/// Publishes what has been committed; best effort, the sweep publishes what stays behind.
pub(crate) async fn publish(
    app: &Clients,
    db: &Client,
    messages: &[outbox::Message],
    now: Timestamp,
) {
    let Ok(bus) = &app.event_bus else {
        tracing::warn!("no bus is configured: messages stay in the outbox");
        return;
    };
    let publish = publishing::publish(db, bus, messages, now);
    match tokio::time::timeout(PUBLISH_TIMEOUT, publish).await {
        Ok(Ok(published)) if published.failed > 0 => {
            tracing::warn!(failed = published.failed, "messages stay in the outbox");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => log_failure("messages stay in the outbox", &error),
        Err(_elapsed) => tracing::warn!("the bus is slow: messages stay in the outbox"),
    }
}

fn header(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let is_printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    let key = std::str::from_utf8(bytes).ok().filter(|_| {
        is_printable && (1..=KEY_BYTES).contains(&bytes.len()) && values.next().is_none()
    });
    match key {
        Some(key) => Ok(Some(key.to_owned())),
        None => Err(Error::BadRequest {
            code: "invalid_header",
            field: Some(HEADER.to_owned()),
            detail: format!("{HEADER} is one value of 1 to {KEY_BYTES} printable ASCII characters"),
        }),
    }
}
