//! `/admin/events…`: what Stripe sent, what became of it, and another try for what could not be applied.
//!
//! Events that are in the ledger are rows of the inbox; parked and poisoned ones are not in it yet and lie in DynamoDB.

use domain::page::{Page, Position};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::members::Members;
use runtime::api::{self, Error, Query};
use runtime::aws;
use runtime::aws::parked_events::{self, ParkedEvents, ParkedState};
use runtime::telemetry::{cause_chain, log_failure};
use serde::Serialize;
use serde_json::json;
use shared::ledger::{self, Applied};
use store::audit_log::{self, Entry};
use store::stripe_events;
use stripe::event::Event;
use tokio_postgres::{Client, Transaction};

use crate::{Clients, list, write};

const OUTCOMES: [&str; 5] = ["applied", "ignored", "failed", "parked", "poisoned"];

/// An event that is not in the inbox.
#[derive(Serialize)]
struct Parked {
    event_id: String,
    outcome: &'static str,
    /// Why it was parked, or why the last attempt failed.
    reason: String,
    /// Failed attempts to apply it since it was parked.
    attempts: u32,
    /// `None` once poisoned: it waits for a replay.
    next_attempt_at: Option<Timestamp>,
    received_at: Timestamp,
    poisoned_at: Option<Timestamp>,
}

impl From<ParkedState> for Parked {
    fn from(state: ParkedState) -> Parked {
        let is_poisoned = state.is_poisoned();
        Parked {
            event_id: state.event_id,
            outcome: if is_poisoned { "poisoned" } else { "parked" },
            reason: state.reason,
            attempts: state.attempts,
            next_attempt_at: (!is_poisoned).then_some(state.next_attempt_at),
            received_at: state.received_at,
            poisoned_at: state.poisoned_at,
        }
    }
}

/// The inbox; with `outcome=parked` or `poisoned` what is not in it.
pub(crate) async fn list(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &["outcome", "type", "from", "to", "limit", "cursor"],
    )?;
    let outcome = query.one_of("outcome", &OUTCOMES)?;
    let event_type = query.text("type")?;
    let span = list::span(&query)?;
    let page = list::page(&query)?;
    if let Some(outcome @ ("parked" | "poisoned")) = outcome {
        if event_type.is_some() {
            return Err(Error::invalid_parameter(
                "type",
                "parked and poisoned events are not told apart by type",
            ));
        }
        let filter = parked_events::Filter {
            is_poisoned: Some(outcome == "poisoned"),
            from: span.from,
            to: span.to,
        };
        return parked_page(app, filter, &page).await;
    }
    let filter = stripe_events::Filter {
        outcome,
        event_type,
        created: span,
    };
    let client = app.database.client().await?;
    list::answer(stripe_events::list(&**client, &filter, &page).await?)
}

/// The parked and the poisoned, those that came in last first.
pub(crate) async fn parked(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["limit", "cursor"])?;
    let page = list::page(&query)?;
    parked_page(app, parked_events::Filter::default(), &page).await
}

/// What became of a replayed event.
#[derive(Serialize)]
struct Replayed<'a> {
    event_id: &'a str,
    /// `applied`, `ignored`, `duplicate`, or `parked` when it failed again.
    outcome: &'static str,
    /// Why it failed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Makes a parked or poisoned event due at once and applies it. One that fails stays due, with one attempt used; one
/// that is in the inbox is a duplicate.
pub(crate) async fn replay(
    app: &Clients,
    request: &Request,
    event_id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::key(request)?;
    Members::parse(request, &[])?;
    if !api::is_plain(event_id) {
        return Err(Error::NotFound);
    }
    let table = table(app)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let audit = |before: serde_json::Value, after: &Replayed<'_>| Entry {
        actor: write::actor(&principal),
        action: "event.replay",
        target: format!("event:{event_id}"),
        before: Some(before),
        after: Some(json!(after)),
    };
    let is_known = stripe_events::exists(&transaction, event_id).await?;
    if !table.revive(event_id, now).await? {
        if !is_known {
            return Err(Error::NotFound);
        }
        let replayed = Replayed {
            event_id,
            outcome: "duplicate",
            reason: None,
        };
        audit_log::insert(&transaction, &audit(json!(null), &replayed), now).await?;
        let answer = write::finish(&transaction, key.as_ref(), StatusCode::OK, &replayed).await?;
        transaction.commit().await.map_err(store::Error::from)?;
        return Ok(answer);
    }
    match apply(app, table, &transaction, event_id, now).await {
        Ok(Applied { outcome, messages }) => {
            let replayed = Replayed {
                event_id,
                outcome: outcome.as_str(),
                reason: None,
            };
            let entry = audit(json!({"outcome": "parked"}), &replayed);
            audit_log::insert(&transaction, &entry, now).await?;
            let answer =
                write::finish(&transaction, key.as_ref(), StatusCode::OK, &replayed).await?;
            transaction.commit().await.map_err(store::Error::from)?;
            // It is in the ledger: should it stay in the table, the redrive finds a duplicate and removes it.
            if let Err(error) = table.remove(event_id).await {
                log_failure("a replayed event is still parked", &error);
            }
            write::publish(app, client, &messages, now).await;
            Ok(answer)
        }
        Err(Failure::Away(error)) => Err(error),
        Err(Failure::OfEvent(reason)) => {
            transaction.rollback().await.map_err(store::Error::from)?;
            table.record_failure(event_id, 0, &reason, now).await?;
            let replayed = Replayed {
                event_id,
                outcome: "parked",
                reason: Some(reason),
            };
            // A failure leaves the key free: the same request may be sent again after the fix.
            let entry = audit(json!({"outcome": "parked"}), &replayed);
            audit_log::insert(&*client, &entry, now).await?;
            api::json(StatusCode::OK, &replayed)
        }
    }
}

/// Why a replay did nothing.
enum Failure {
    /// Something it needs is away, which says nothing of the event.
    Away(Error),
    /// It fails, and why.
    OfEvent(String),
}

async fn apply(
    app: &Clients,
    table: &ParkedEvents,
    transaction: &Transaction<'_>,
    event_id: &str,
    now: Timestamp,
) -> Result<Applied, Failure> {
    let parked = match table.get(event_id).await {
        Ok(Some(parked)) => parked,
        // The redrive was faster.
        Ok(None) => {
            return Ok(Applied {
                outcome: ledger::Outcome::Duplicate,
                messages: Vec::new(),
            });
        }
        Err(error @ aws::Error::Unreadable { .. }) => {
            return Err(Failure::OfEvent(cause_chain(&error)));
        }
        Err(error @ aws::Error::Unavailable { .. }) => return Err(Failure::Away(error.into())),
    };
    // Its cause may quote the body.
    let event = Event::parse(parked.body.as_bytes())
        .map_err(|error| Failure::OfEvent(error.to_string()))?;
    let estimate = app.fee_estimate;
    match ledger::apply_event(transaction, &event, &parked.body, estimate, now).await {
        Ok(applied) => Ok(applied),
        Err(ledger::Error::Store(error)) if error.is_unavailable() || error.is_retryable() => {
            Err(Failure::Away(error.into()))
        }
        Err(error) => Err(Failure::OfEvent(cause_chain(&error))),
    }
}

async fn parked_page(
    app: &Clients,
    filter: parked_events::Filter,
    page: &Page<String>,
) -> Result<Response<Body>, Error> {
    let after = page.after.as_ref();
    let after = after.map(|Position(at, event_id)| (*at, event_id.as_str()));
    let limit = usize::from(page.limit);
    // One more than the page has, which tells whether there is another page.
    let mut states = table(app)?.page(filter, after, limit + 1).await?;
    let is_last = states.len() <= limit;
    states.truncate(limit);
    let next = states
        .last()
        .filter(|_| !is_last)
        .map(|state| Position(state.received_at, state.event_id.clone()));
    let parked: Vec<Parked> = states.into_iter().map(Parked::from).collect();
    list::answer_with(parked, next.as_ref())
}

fn table(app: &Clients) -> Result<&ParkedEvents, Error> {
    app.parked_events
        .as_ref()
        .map_err(|error| Error::NotConfigured(Box::new(error.clone())))
}
