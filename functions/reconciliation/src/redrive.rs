//! `reconciliation.redrive`: parked events through the ledger again, the outbox to the bus, and what
//! events named without carrying it from Stripe.
//!
//! Each failed event has its own back-off, so a repeated invocation could not do better: it is in the
//! summary, and the invocation succeeds. The invocation fails only when the database, or where the
//! parked events are, was away: that says nothing of any event, and trying again soon helps.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;

use futures_util::{StreamExt, join, stream};
use jiff::Timestamp;
use runtime::aws;
use runtime::aws::parked_events::{ParkedState, Read};
use runtime::telemetry::{cause_chain, log_failure};
use serde::Serialize;
use serde_json::{Value, json};
use shared::ledger::Outcome;
use shared::publishing;
use store::outbox;
use tracing::Instrument;

use crate::ingest::ingest;
use crate::{App, Deadline, Error, lookups};

/// Events read from the index at once.
const EVENTS_PER_BATCH: usize = 25;
/// Events read before their turn; their bodies may have 6 MB each.
const EVENTS_AHEAD: usize = 3;
/// Messages claimed from the outbox at once: ten calls of the bus.
const MESSAGES_PER_SWEEP: i64 = 100;

/// What a run did. Every event is counted once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Events that are in the ledger now.
    pub applied: u64,
    /// Events that were in it already.
    pub duplicate: u64,
    /// Events that are kept and mean nothing to the ledger, or are not ours.
    pub ignored: u64,
    /// Events that failed and are tried again after a pause.
    pub failed: u64,
    /// Events that failed for the last time: kept until somebody replays them.
    pub poisoned: u64,
    /// Events still due, when the run stopped early and the table could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// How long the event that waits longest has waited after this run, 0 when none does; not known when the table
    /// could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_parked_seconds: Option<u64>,
    /// Messages the bus took.
    pub published: u64,
    /// Messages that stay in the outbox and are tried again after a pause.
    pub publish_failed: u64,
    /// Look-ups that Stripe answered and the ledger took.
    pub lookups_done: u64,
    /// Look-ups that failed and are tried again after a pause.
    pub lookups_failed: u64,
    /// Look-ups of which Stripe says that there is no such object: somebody has to find out why.
    pub lookups_not_found: u64,
    /// Look-ups still due, when the run stopped before all were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookups_remaining: Option<u64>,
    /// Why the look-ups stopped before all were asked for; `None` when they did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookups_stopped: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        json!(self).fmt(formatter)
    }
}

/// What was away, so that the run could not do everything.
#[derive(Debug, thiserror::Error)]
pub enum Away {
    #[error("the database is away")]
    Database(#[source] store::Error),
    #[error("the parked events are away")]
    ParkedEvents(#[source] aws::Error),
}

pub(crate) async fn run(app: &App, now: Timestamp, deadline: Deadline) -> Result<Value, Error> {
    let mut summary = Summary::default();
    let driven = drive_parked_events(app, now, deadline, &mut summary).await;
    if !matches!(driven, Ok(Driven::All)) {
        // When the table is away, it is not known.
        summary.remaining = app.parked_events.count_due(now).await.ok();
    }
    summary.oldest_parked_seconds = oldest_parked_seconds(app, now).await;
    let swept = match driven {
        Err(Away::Database(_)) => Ok(()),
        Ok(_) | Err(Away::ParkedEvents(_)) => {
            match sweep_outbox(app, now, deadline, &mut summary).await {
                Ok(()) => lookups::run(app, now, deadline, &mut summary)
                    .await
                    .map_err(Away::Database),
                Err(away) => Err(away),
            }
        }
    };
    match driven.and(swept) {
        Ok(()) => {
            tracing::info!(%summary, "the redrive is done");
            Ok(json!(summary))
        }
        Err(away) => {
            let summary = Box::new(summary);
            Err(Error::Redrive { summary, away })
        }
    }
}

/// Says it to the alarm as well, for which silence is as bad as an old event.
async fn oldest_parked_seconds(app: &App, now: Timestamp) -> Option<u64> {
    let oldest = match app.parked_events.oldest_received_at().await {
        Ok(oldest) => oldest,
        Err(error) => {
            log_failure("it is not known how long events have been parked", &error);
            // A gauge says its last value again and again: that it was nothing once is not what the alarm should hear.
            metrics::gauge!("oldest_parked_event_seconds").set(u32::MAX);
            return None;
        }
    };
    let waited = oldest.map_or(0, |oldest| now.duration_since(oldest).as_secs());
    // One that was parked after the firing whose time this is has not waited.
    let waited = u32::try_from(waited.max(0)).unwrap_or(u32::MAX);
    metrics::gauge!("oldest_parked_event_seconds").set(waited);
    Some(waited.into())
}

/// Whether the run reached the last parked event.
enum Driven {
    All,
    UntilTheDeadline,
}

/// Oldest first. Each event leaves the table, or its next attempt moves into the future, or it is
/// passed over; none is met twice, also when the index still has what has left, and none holds up
/// the others.
///
/// Passed over is one that could not be read, removed or noted because DynamoDB or S3 was away. It
/// stays due, with the attempts it had, and the run fails when all others are done.
async fn drive_parked_events(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<Driven, Away> {
    let mut met = BTreeSet::new();
    let mut away = None;
    loop {
        let limit = EVENTS_PER_BATCH + met.len();
        let mut due = match app.parked_events.due(now, limit).await {
            Ok(due) => due,
            Err(error) => return Err(away.unwrap_or(Away::ParkedEvents(error))),
        };
        due.retain(|one| met.insert(one.event_id.clone()));
        if due.is_empty() {
            return away.map_or(Ok(Driven::All), Err);
        }
        // The next ones are read while one is applied.
        let mut events = pin!(
            stream::iter(due)
                .map(|one| async move {
                    let event = app.parked_events.state_and_body(&one.event_id).await;
                    (one.event_id, event)
                })
                .buffered(EVENTS_AHEAD)
        );
        let mut next = events.next().await;
        while let Some((event_id, event)) = next {
            if deadline.is_reached() {
                return away.map_or(Ok(Driven::UntilTheDeadline), Err);
            }
            let span = tracing::info_span!("parked_event", event_id);
            let (driven, following) = join!(
                drive(app, event, now, summary).instrument(span),
                events.next()
            );
            next = following;
            match driven {
                Ok(()) => {}
                Err(error @ Away::Database(_)) => return Err(error),
                Err(error @ Away::ParkedEvents(_)) => drop(away.get_or_insert(error)),
            }
        }
    }
}

async fn drive(
    app: &App,
    event: Result<Option<Read>, aws::Error>,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), Away> {
    let Read { state, body } = match event {
        Ok(Some(event)) => event,
        // Another run was faster.
        Ok(None) => return Ok(()),
        // An item that is none of ours has no attempts that could be counted.
        Err(error @ aws::Error::Unreadable { .. }) => {
            log_failure("a parked event is left out", &error);
            return Ok(());
        }
        Err(error @ aws::Error::Unavailable { .. }) => return Err(Away::ParkedEvents(error)),
    };
    if !state.is_due(now) {
        return Ok(());
    }
    let kept = match body {
        Ok(body) => {
            let ingested = ingest(app, &body, now).await;
            ingested.map_err(Away::Database)?
        }
        // Its body is gone, or is something else: no pause brings it back, but a person may.
        Err(error @ aws::Error::Unreadable { .. }) => Err(cause_chain(&error)),
        Err(error @ aws::Error::Unavailable { .. }) => return Err(Away::ParkedEvents(error)),
    };
    match kept {
        Ok(outcome) => {
            let removed = app.parked_events.remove(&state.event_id).await;
            removed.map_err(Away::ParkedEvents)?;
            match outcome {
                Outcome::Applied => summary.applied += 1,
                Outcome::Duplicate => summary.duplicate += 1,
                Outcome::Ignored | Outcome::Foreign => summary.ignored += 1,
            }
            metrics::counter!("redriven_events", "outcome" => outcome.as_str()).increment(1);
            tracing::info!(outcome = outcome.as_str(), "a parked event is kept");
            Ok(())
        }
        Err(reason) => fail(app, &state, &reason, now, summary).await,
    }
}

/// Notes the failure. The message goes first: a run that dies in between writes it again, and
/// then it is the same message.
///
/// There is no row in `stripe_events` for a poisoned event: its key there means that the event is in
/// the ledger, and would make the replay after the fix a duplicate.
async fn fail(
    app: &App,
    state: &ParkedState,
    reason: &str,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), Away> {
    if state.is_on_last_attempt() {
        announce_poisoned(app, state, now)
            .await
            .map_err(Away::Database)?;
    }
    let noted = app
        .parked_events
        .record_failure(&state.event_id, state.attempts, reason, now);
    let noted = noted.await.map_err(Away::ParkedEvents)?;
    let (attempts, is_poisoned) = match &noted {
        Some(state) => (state.attempts, state.is_poisoned()),
        // Another run applied it meanwhile.
        None => return Ok(()),
    };
    if is_poisoned {
        summary.poisoned += 1;
        metrics::counter!("redriven_events", "outcome" => "poisoned").increment(1);
        tracing::error!(cause = reason, attempts, "a parked event is poisoned");
    } else {
        summary.failed += 1;
        metrics::counter!("redriven_events", "outcome" => "failed").increment(1);
        tracing::warn!(cause = reason, attempts, "a parked event failed again");
    }
    Ok(())
}

async fn announce_poisoned(
    app: &App,
    state: &ParkedState,
    now: Timestamp,
) -> Result<(), store::Error> {
    let dedupe_key = format!("event.poisoned:{}", state.event_id);
    let message = outbox::NewMessage {
        detail_type: "event.poisoned",
        detail: json!({
            "event_id": dedupe_key,
            "occurred_at": now,
            "subject": state.event_id,
            "data": {
                "stripe_event_id": state.event_id,
                "attempts": state.attempts + 1,
                "parked_at": state.received_at,
            },
        }),
        dedupe_key,
    };
    let client = app.database.client().await?;
    let db: &tokio_postgres::Client = &client;
    outbox::insert_all(db, &[message], now).await.map(drop)
}

/// Until nothing is due, or the bus takes nothing any more. At least once, however near the
/// deadline: a backlog of events must not starve the messages.
async fn sweep_outbox(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), Away> {
    loop {
        let sweep = publishing::sweep(&app.database, &app.event_bus, MESSAGES_PER_SWEEP, now);
        let swept = sweep.await.map_err(Away::Database)?;
        summary.published += count(swept.published);
        summary.publish_failed += count(swept.failed);
        if swept.published == 0 || deadline.is_reached() {
            break;
        }
    }
    if summary.publish_failed > 0 {
        metrics::counter!("failures").increment(1);
        tracing::error!(
            failed = summary.publish_failed,
            "messages stay in the outbox"
        );
    }
    Ok(())
}

fn count(messages: usize) -> u64 {
    u64::try_from(messages).unwrap_or(u64::MAX)
}
