//! `GET /admin/events` and `GET /admin/events/parked`: what Stripe sent, and what became of it.
//!
//! Events that are in the ledger are rows of the inbox; parked and poisoned ones are not in it yet and lie in DynamoDB.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use serde::Serialize;
use shared::api::{Error, Query};
use shared::aws::parked_events::{self, ParkedEvents, ParkedState};
use shared::store::list::{Page, Position};
use shared::store::stripe_events;

use crate::{App, list};

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
    app: &App,
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
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["limit", "cursor"])?;
    let page = list::page(&query)?;
    parked_page(app, parked_events::Filter::default(), &page).await
}

async fn parked_page(
    app: &App,
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

fn table(app: &App) -> Result<&ParkedEvents, Error> {
    app.parked_events
        .as_ref()
        .map_err(|error| Error::NotConfigured(Box::new(error.clone())))
}
