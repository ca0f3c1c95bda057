//! `/admin/events…`: the events that Stripe sent with their outcomes, and the replay of one that could not be applied.
//!
//! Events that are in the ledger are rows of the inbox; parked and poisoned ones are not in it yet and lie in DynamoDB.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use domain::page::{Page, Position};
use domain::payment::FeeEstimate;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Json, NoMembers, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use runtime::aws;
use runtime::aws::parked_events::{self, ParkedEvents, ParkedState};
use runtime::telemetry::{cause_chain, log_failure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::ledger::{self, Applied};
use shared::write::{Write, Writer, Written};
use store::audit_log;
use store::stripe_events::{self, InboxEvent};
use stripe::account::Account;
use stripe::event::Event;
use utoipa::openapi::RefOr;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::Clients;

/// An event that is not in the inbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParkedEvent {
    event_id: String,
    /// `parked` while it is still retried, `poisoned` after eight failed attempts.
    outcome: &'static str,
    /// Why it was parked, or why the last attempt failed.
    reason: String,
    /// Failed attempts to apply it since it was parked.
    attempts: u32,
    /// Null once poisoned: it waits for a replay.
    next_attempt_at: Option<Timestamp>,
    received_at: Timestamp,
    poisoned_at: Option<Timestamp>,
}

impl From<ParkedState> for ParkedEvent {
    fn from(state: ParkedState) -> ParkedEvent {
        let is_poisoned = state.is_poisoned();
        ParkedEvent {
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

/// An event: in the inbox, or parked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ListedEvent {
    /// An event of the inbox: applied, ignored, or foreign.
    Inbox(InboxEvent),
    /// An event that is not in the inbox yet.
    Parked(ParkedEvent),
}

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventOutcome {
    /// It changed the ledger.
    Applied,
    /// The ledger has no use for it.
    Ignored,
    /// It is of another account or the other mode, and was not applied.
    Foreign,
    /// A thin event: what it stands for is being fetched.
    Deferred,
    /// It could not be read, and its object was fetched instead.
    Healed,
    Failed,
    /// It could not be applied yet and will be tried again.
    Parked,
    /// It failed eight times and is not tried again until somebody replays it.
    Poisoned,
}

/// Which events are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventsQuery {
    /// Only events with this outcome.
    #[param(inline)]
    outcome: Option<EventOutcome>,
    /// Only events of this type, such as `invoice.paid`. Parked and poisoned events cannot be filtered by type.
    #[serde(rename = "type")]
    #[param(inline)]
    event_type: Option<PlainText>,
}

/// Lists the events of the inbox, newest first, without their bodies. With the outcome `parked` or `poisoned` it lists
/// events that are not in the inbox yet.
#[utoipa::path(get, path = "/admin/events")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<EventsQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ListedEvent>>, Error> {
    let created = span.span()?;
    let page = page.page()?;
    let outcome = match asked.outcome {
        None => None,
        Some(EventOutcome::Applied) => Some("applied"),
        Some(EventOutcome::Ignored) => Some("ignored"),
        Some(EventOutcome::Foreign) => Some("foreign"),
        Some(EventOutcome::Deferred) => Some("deferred"),
        Some(EventOutcome::Healed) => Some("healed"),
        Some(EventOutcome::Failed) => Some("failed"),
        Some(outcome @ (EventOutcome::Parked | EventOutcome::Poisoned)) => {
            if asked.event_type.is_some() {
                return Err(Error::invalid_parameter(
                    "type",
                    "parked and poisoned events are not told apart by type",
                ));
            }
            let filter = parked_events::Filter {
                is_poisoned: Some(outcome == EventOutcome::Poisoned),
                from: created.from,
                to: created.to,
            };
            let (parked, next) = parked_page(&app, filter, &page).await?;
            let parked = parked.into_iter().map(ListedEvent::Parked).collect();
            return Ok(Json(ListOf::new(parked, next.as_ref())?));
        }
    };
    let filter = stripe_events::Filter {
        outcome,
        event_type: asked.event_type.as_ref().map(PlainText::as_str),
        created,
    };
    let client = app.database.client().await?;
    let rows = stripe_events::list(&**client, &filter, &page).await?;
    let events = rows.rows.into_iter().map(ListedEvent::Inbox).collect();
    Ok(Json(ListOf::new(events, rows.next.as_ref())?))
}

/// Lists the parked and the poisoned events, last received first.
#[utoipa::path(get, path = "/admin/events/parked")]
pub(crate) async fn parked(
    State(app): State<Arc<Clients>>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ParkedEvent>>, Error> {
    let page = page.page()?;
    let (parked, next) = parked_page(&app, parked_events::Filter::default(), &page).await?;
    Ok(Json(ListOf::new(parked, next.as_ref())?))
}

/// What a replay did to an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replayed {
    event_id: String,
    /// `applied`, `ignored`, `foreign` when it is not ours, `duplicate`, or `parked` when it failed again.
    outcome: &'static str,
    /// Why it failed again; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The event of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventPath {
    /// Stripe's id of the event (`evt_…`).
    #[param(inline)]
    event_id: PlainText,
}

/// The event was applied, or it failed again and stays parked.
#[derive(Debug)]
pub(crate) enum ReplayAnswer {
    Done(Written<Replayed>),
    FailedAgain(Replayed),
}

impl IntoResponse for ReplayAnswer {
    fn into_response(self) -> axum::response::Response {
        match self {
            ReplayAnswer::Done(written) => written.into_response(),
            ReplayAnswer::FailedAgain(replayed) => Json(replayed).into_response(),
        }
    }
}

impl IntoResponses for ReplayAnswer {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        Json::<Replayed>::responses()
    }
}

/// Applies a parked or poisoned event now. If it fails it stays parked and is retried; an event that is in the inbox is
/// a duplicate.
#[utoipa::path(post, path = "/admin/events/{event_id}/replay")]
pub(crate) async fn replay(
    State(app): State<Arc<Clients>>,
    writer: Writer,
    Path(EventPath { event_id }): Path<EventPath>,
    Json(NoMembers {}): Json<NoMembers>,
    Now(now): Now,
) -> Result<ReplayAnswer, Error> {
    let PlainText(event_id) = event_id;
    let table = table(&app)?;
    let actor = writer.actor().to_owned();
    let (account, estimate) = (app.account.clone(), app.fee_estimate);
    let (id, again) = (event_id.as_str(), event_id.clone());
    let parked = table.clone();
    let done = writer
        .run(|cx| {
            Box::pin(async move { apply_again(cx, &parked, &account, again, estimate).await })
        })
        .await;
    match done {
        Ok(written) => {
            // It is in the ledger: should it stay in the table, the redrive finds a duplicate and removes it.
            if let Err(error) = table.remove(id).await {
                log_failure("a replayed event is still parked", &error);
            }
            Ok(ReplayAnswer::Done(written))
        }
        Err(Failure::Other(error)) => Err(error),
        Err(Failure::OfEvent(reason)) => {
            table.record_failure(id, 0, &reason, now).await?;
            let replayed = Replayed {
                event_id: event_id.clone(),
                outcome: "parked",
                reason: Some(reason),
            };
            // A failure leaves the key free: the same request may be sent again after the fix.
            let entry = audit_log::Entry {
                actor: &actor,
                action: "event.replay",
                target: format!("event:{event_id}"),
                before: Some(json!({"outcome": "parked"})),
                after: Some(json!(replayed)),
            };
            let client = app.database.client().await?;
            audit_log::insert(&**client, &entry, now).await?;
            Ok(ReplayAnswer::FailedAgain(replayed))
        }
    }
}

/// Why a replay did nothing.
enum Failure {
    /// The event fails, and why.
    OfEvent(String),
    /// Anything else, which says nothing of the event.
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Other(error.into())
    }
}

async fn apply_again(
    mut cx: Write<'_>,
    table: &ParkedEvents,
    account: &Account,
    event_id: String,
    estimate: FeeEstimate,
) -> Result<Replayed, Failure> {
    let is_known = stripe_events::exists(cx.db, &event_id).await?;
    let is_parked = table.revive(&event_id, cx.now).await?;
    if !is_parked && !is_known {
        return Err(Error::NotFound.into());
    }
    let (before, outcome) = if is_parked {
        let applied = apply(&cx, table, account, &event_id, estimate).await?;
        cx.publish(applied.messages);
        (json!({"outcome": "parked"}), applied.outcome.as_str())
    } else {
        (json!(null), "duplicate")
    };
    let target = format!("event:{event_id}");
    let replayed = Replayed {
        event_id,
        outcome,
        reason: None,
    };
    cx.audit("event.replay", target, Some(before), Some(json!(replayed)))
        .await?;
    Ok(replayed)
}

async fn apply(
    cx: &Write<'_>,
    table: &ParkedEvents,
    account: &Account,
    event_id: &str,
    estimate: FeeEstimate,
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
        Err(error @ aws::Error::Unavailable { .. }) => return Err(error.into()),
    };
    // Its cause may quote the body.
    let event = Event::parse(parked.body.as_bytes())
        .map_err(|error| Failure::OfEvent(error.to_string()))?;
    match ledger::apply_event(cx.db, account, &event, &parked.body, estimate, cx.now).await {
        Ok(applied) => Ok(applied),
        Err(ledger::Error::Store(error)) if error.is_unavailable() || error.is_retryable() => {
            Err(error.into())
        }
        Err(error) => Err(Failure::OfEvent(cause_chain(&error))),
    }
}

async fn parked_page(
    app: &Clients,
    filter: parked_events::Filter,
    page: &Page<String>,
) -> Result<(Vec<ParkedEvent>, Option<Position<String>>), Error> {
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
    let parked = states.into_iter().map(ParkedEvent::from).collect();
    Ok((parked, next))
}

pub(crate) fn table(app: &Clients) -> Result<&ParkedEvents, Error> {
    app.parked_events
        .as_ref()
        .map_err(|error| Error::NotConfigured(Box::new(error.clone())))
}
