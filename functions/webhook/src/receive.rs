//! Events: verified, applied, or parked; refused only when they could be stored nowhere.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use lambda_http::http::HeaderMap;
use runtime::api;
use runtime::aws;
use runtime::aws::secrets;
use runtime::telemetry::cause_chain;
use runtime::time_limit::{self, GivenUp};
use shared::ledger::{self, AppliedSet};
use shared::publishing::publish_after_commit;
use store::Connection;
use stripe::event::{self, Event};
use stripe::signature;
use tracing::{Instrument, Span};

use crate::Clients;

/// Longest time the ledger may take. With the 1.9 seconds of parking, and some to spare on a busy
/// machine, the answer comes within 5 seconds when everything hangs.
const LEDGER_TIMEOUT: Duration = Duration::from_millis(2_500);
/// What parking may take, and answering.
const PARKING_TIME: Duration = Duration::from_millis(2_200);
/// Longest time the ledger may take for a set, which nobody waits for. A hundred events are parked in six seconds at the
/// most; with the bus that is less than the function's time-out of 29 seconds.
const SET_TIMEOUT: Duration = Duration::from_secs(20);
/// Events parked at the same time; two seconds each at the most.
const PARKED_AT_ONCE: usize = 40;

/// Why a delivery is not answered with 200.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the signature does not hold")]
    Signature(#[from] signature::Error),
    #[error("the webhook secret cannot be read")]
    Secret(#[from] secrets::Error),
    #[error("the body is not an event")]
    Event(#[from] event::Error),
    #[error("the body is not UTF-8")]
    NotUtf8(#[from] std::str::Utf8Error),
    #[error("the event could be stored nowhere")]
    StoredNowhere(#[source] aws::Error),
    /// The ledger is away. One that is not ours is not parked, so Stripe is asked to deliver it again.
    #[error("an event that is not ours could not be stored")]
    ForeignNotStored,
}

/// Where an event that was kept is: in the ledger, or parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ledger(ledger::Outcome),
    Parked,
}

impl From<Error> for api::Error {
    fn from(error: Error) -> api::Error {
        match error {
            Error::Signature(error) => api::Error::BadRequest {
                code: "invalid_signature",
                field: Some("stripe-signature".to_owned()),
                detail: error.to_string(),
            },
            Error::Secret(error) => error.into(),
            // The cause may quote the body, so the caller gets its kind only.
            Error::Event(error) => invalid_payload(error.to_string()),
            Error::NotUtf8(_) => invalid_payload("the body is not UTF-8".to_owned()),
            error @ (Error::StoredNowhere(_) | Error::ForeignNotStored) => {
                api::Error::Unavailable(Box::new(error))
            }
        }
    }
}

fn invalid_payload(detail: String) -> api::Error {
    api::Error::BadRequest {
        code: "invalid_payload",
        field: None,
        detail,
    }
}

/// A signed delivery over HTTP. `body` is what came over the wire.
pub(crate) async fn delivery(
    app: &Clients,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Outcome, Error> {
    verify(app, headers, body, now).await?;
    keep(app, std::str::from_utf8(body)?, now).await
}

/// An event that has no signature, since the platform has checked where it comes from.
pub(crate) async fn keep(app: &Clients, text: &str, now: Timestamp) -> Result<Outcome, Error> {
    let event = Readable::of(text)?;
    // Checking the signature may have taken some of the request's time.
    let left = time_limit::time_left().unwrap_or(Duration::MAX);
    let limit = LEDGER_TIMEOUT.min(left.saturating_sub(PARKING_TIME));
    let span = event.span();
    async {
        let one = std::slice::from_ref(&event);
        let (outcomes, given_up) = apply_in_time(app, one, limit, now).await;
        let outcome = outcomes.into_iter().next().unwrap_or_else(no_outcome);
        let kept = applied_or_parked(app, &event, outcome, now);
        tokio::join!(kept, stop(given_up)).0
    }
    .instrument(span)
    .await
}

/// Several events, in one transaction as far as that goes: what became of each, in their order.
pub(crate) async fn keep_all(
    app: &Clients,
    events: &[Readable<'_>],
    now: Timestamp,
) -> Vec<Result<Outcome, Error>> {
    let (outcomes, given_up) = apply_in_time(app, events, SET_TIMEOUT, now).await;
    let mut outcomes = outcomes.into_iter();
    let kept = stream::iter(events)
        .map(|event| {
            let outcome = outcomes.next().unwrap_or_else(no_outcome);
            applied_or_parked(app, event, outcome, now).instrument(event.span())
        })
        .buffered(PARKED_AT_ONCE)
        .collect();
    tokio::join!(kept, stop(given_up)).0
}

/// Checks the signature against every configured secret. A failed check may mean that the secret
/// was rotated: it is read again, once.
async fn verify(
    app: &Clients,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    let header = signature::header(headers)?;
    let header = header.as_deref();
    let secrets = app.webhook_secrets.values(now).await?;
    match signature::verify(header, body, &secrets, now) {
        Err(signature::Error::NoMatch) if app.webhook_secrets.refresh(now).await? => {
            let secrets = app.webhook_secrets.values(now).await?;
            Ok(signature::verify(header, body, &secrets, now)?)
        }
        verdict => Ok(verdict?),
    }
}

/// An event, and what is stored of it. What is applied is read from that, so that an event means the same when it is
/// applied from there.
pub(crate) struct Readable<'a> {
    event: Event,
    payload: Cow<'a, str>,
}

impl<'a> Readable<'a> {
    pub(crate) fn of(text: &'a str) -> Result<Readable<'a>, event::Error> {
        let payload = storable(text);
        let event = Event::parse(payload.as_bytes())?;
        Ok(Readable { event, payload })
    }

    fn span(&self) -> Span {
        tracing::info_span!(
            "event",
            event_id = self.event.event_id,
            event_type = self.event.event_type,
        )
    }
}

/// Why an event was not applied.
type Reason = String;

fn no_outcome() -> Result<ledger::Outcome, Reason> {
    Err("the event has no outcome".to_owned())
}

async fn stop(given_up: Option<GivenUp>) {
    if let Some(given_up) = given_up {
        given_up.stop().await;
    }
}

/// Applies the events and publishes what they announce: the outcome of each. What was given up is still to be stopped.
async fn apply_in_time(
    app: &Clients,
    events: &[Readable<'_>],
    limit: Duration,
    now: Timestamp,
) -> (Vec<Result<ledger::Outcome, Reason>>, Option<GivenUp>) {
    let applied = app
        .time_outs
        .within(limit, apply(app, events, now), is_time_out);
    let (reason, given_up) = match applied.await {
        Ok(Ok((connection, AppliedSet { outcomes, messages }))) => {
            let bus = Some(&app.event_bus);
            publish_after_commit(&app.database, connection, bus, &messages, now).await;
            let outcomes = outcomes.into_iter();
            let outcomes = outcomes.map(|one| one.map_err(|error| cause_chain(&error)));
            return (outcomes.collect(), None);
        }
        Ok(Err(error)) => (cause_chain(&error), None),
        Err(given_up) => (format!("the ledger: {given_up}"), Some(given_up)),
    };
    (vec![Err(reason); events.len()], given_up)
}

/// Parks the event if it was not applied.
async fn applied_or_parked(
    app: &Clients,
    Readable { event, payload }: &Readable<'_>,
    outcome: Result<ledger::Outcome, Reason>,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let reason = match outcome {
        Ok(outcome) => {
            count(outcome.as_str());
            tracing::info!(outcome = outcome.as_str(), "event kept");
            return Ok(Outcome::Ledger(outcome));
        }
        Err(reason) => reason,
    };
    if app.account.foreign(event).is_some() {
        tracing::warn!(cause = reason, "an event that is not ours was not stored");
        return Err(Error::ForeignNotStored);
    }
    let parked = app
        .parked_events
        .park(&event.event_id, payload, &reason, now);
    parked.await.map_err(|error| {
        // The error answered says why it could not be parked; this logs why it had to be.
        tracing::error!(cause = reason, "an event was not applied");
        Error::StoredNowhere(error)
    })?;
    count("parked");
    tracing::warn!(cause = reason, outcome = "parked", "event kept");
    Ok(Outcome::Parked)
}

fn is_time_out(applied: &Result<(Connection, AppliedSet), ledger::Error>) -> bool {
    match applied {
        Ok((_, set)) => set
            .outcomes
            .iter()
            .any(|outcome| matches!(outcome, Err(error) if error.is_time_out())),
        Err(error) => error.is_time_out(),
    }
}

/// The connection comes back with what was applied, for what is to be published.
///
/// A connection may have died since it was last used. The events are applied once more on another one: nothing was
/// committed, or it is a duplicate now.
async fn apply(
    app: &Clients,
    events: &[Readable<'_>],
    now: Timestamp,
) -> Result<(Connection, AppliedSet), ledger::Error> {
    let deliveries: Vec<ledger::Delivery<'_>> = events
        .iter()
        .map(|one| (&one.event, one.payload.as_ref()))
        .collect();
    let (account, estimate) = (&app.account, app.fee_estimate);
    let mut is_repeated = false;
    loop {
        let mut client = app.database.unchecked_client().await?;
        match ledger::ingest_all(&mut client, account, &deliveries, estimate, now).await {
            Ok(applied) => return Ok((client, applied)),
            Err(ledger::Error::Store(error)) if error.is_connection_lost() && !is_repeated => {
                tracing::info!(cause = cause_chain(&error), "a connection was lost");
                is_repeated = true;
            }
            Err(error) => return Err(error),
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("events", "outcome" => outcome).increment(1);
}

/// Postgres has no U+0000 in text: it is stored as U+FFFD. The escape is looked for where it
/// stands for the character, not behind an escaped backslash.
fn storable(text: &str) -> Cow<'_, str> {
    const ESCAPE: &str = "\\u0000";
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('\\') {
        let (before, escape) = rest.split_at(position);
        stored.push_str(before);
        if let Some(after) = escape.strip_prefix(ESCAPE) {
            stored.push_str("\\ufffd");
            rest = after;
        } else {
            // An escape is the backslash and the character after it; `\uXXXX` goes on harmlessly.
            let length = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
            let (escape, after) = escape.split_at(length);
            stored.push_str(escape);
            rest = after;
        }
    }
    stored.push_str(rest);
    Cow::Owned(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_is_replaced_where_it_is_one() {
        for (text, expected) in [
            (r#"{"a":"x\u0000y"}"#, r#"{"a":"x\ufffdy"}"#),
            (r#"{"a":"x\\u0000y"}"#, r#"{"a":"x\\u0000y"}"#),
            (r#"{"a":"x\\\u0000\u0000"}"#, r#"{"a":"x\\\ufffd\ufffd"}"#),
            (r#"{"a":"é\n"}"#, r#"{"a":"é\n"}"#),
        ] {
            assert_eq!(storable(text), expected);
        }
    }
}
