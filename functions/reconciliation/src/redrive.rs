//! `reconciliation.redrive`: parked events through the ledger again, then the outbox to the bus.
//!
//! What fails has a back-off of its own, so a repeated invocation could not do better: it is in the
//! summary, and the invocation succeeds. The invocation fails only when the database or the table
//! of parked events was away: that says nothing of any event, and trying again soon helps.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::aws;
use shared::aws::parked_events::{ParkedEvent, ParkedState};
use shared::ledger::{self, Outcome};
use shared::publishing;
use shared::store::{self, outbox};
use shared::stripe::event::Event;
use shared::telemetry::{cause_chain, log_failure};
use tracing::Instrument;

use crate::{App, Deadline, Error};

/// Events read from the index at once.
const EVENTS_PER_BATCH: usize = 25;
/// Nobody waits for this answer, so one event may take long; not so long that it eats the run.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Messages claimed from the outbox at once: ten calls of the bus.
const MESSAGES_PER_SWEEP: i64 = 100;
/// A statement that ran into the role's time-out: the database is there, and this event is slow.
const STATEMENT_TIMEOUT: &str = "57014";

/// What a run did. Every event is counted once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Events that are in the ledger now.
    pub applied: u64,
    /// Events that were in it already.
    pub duplicate: u64,
    /// Events that are kept and mean nothing to the ledger.
    pub ignored: u64,
    /// Events that failed and are tried again after a pause.
    pub failed: u64,
    /// Events that failed for the last time: kept until somebody replays them.
    pub poisoned: u64,
    /// Events still due, when the run stopped early and the table could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// Messages the bus took.
    pub published: u64,
    /// Messages that stay in the outbox and are tried again after a pause.
    pub publish_failed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        json!(self).fmt(formatter)
    }
}

/// What was away, so that the run stopped early.
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
    let swept = match driven {
        Err(Away::Database(_)) => Ok(()),
        Ok(_) | Err(Away::ParkedEvents(_)) => sweep_outbox(app, now, deadline, &mut summary).await,
    };
    match driven.and(swept) {
        Ok(()) => {
            tracing::info!(%summary, "the redrive is done");
            Ok(json!(summary))
        }
        Err(away) => {
            let summary = Box::new(summary);
            let error = Error::Redrive { summary, away };
            log_failure("the redrive is worth repeating", &error);
            Err(error)
        }
    }
}

/// How far a run came.
enum Driven {
    All,
    UntilTheDeadline,
}

/// Oldest first. Each event leaves the table, or its next attempt moves into the future, so that
/// none is met twice and none holds up the others.
async fn drive_parked_events(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<Driven, Away> {
    loop {
        let due = app.parked_events.due(now, EVENTS_PER_BATCH).await;
        let due = due.map_err(Away::ParkedEvents)?;
        if due.is_empty() {
            return Ok(Driven::All);
        }
        for state in due {
            if deadline.is_reached() {
                return Ok(Driven::UntilTheDeadline);
            }
            let span = tracing::info_span!("parked_event", event_id = state.event_id);
            drive(app, &state, now, summary).instrument(span).await?;
        }
    }
}

async fn drive(
    app: &App,
    state: &ParkedState,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), Away> {
    let kept = match app.parked_events.get(&state.event_id).await {
        // Another run was faster.
        Ok(None) => return Ok(()),
        Ok(Some(parked)) => apply(app, &parked, now).await.map_err(Away::Database)?,
        // Its body cannot be read. When the table is away as well, noting that fails too.
        Err(error) => Err(cause_chain(&error)),
    };
    match kept {
        Ok(outcome) => {
            let removed = app.parked_events.remove(&state.event_id).await;
            removed.map_err(Away::ParkedEvents)?;
            match outcome {
                Outcome::Applied => summary.applied += 1,
                Outcome::Duplicate => summary.duplicate += 1,
                Outcome::Ignored => summary.ignored += 1,
            }
            metrics::counter!("redriven_events", "outcome" => outcome.as_str()).increment(1);
            tracing::info!(outcome = outcome.as_str(), "a parked event is kept");
            Ok(())
        }
        Err(reason) => fail(app, state, &reason, now, summary).await,
    }
}

/// What became of the event: its outcome, or why it failed.
///
/// # Errors
/// When the database is away, which says nothing of the event.
async fn apply(
    app: &App,
    parked: &ParkedEvent,
    now: Timestamp,
) -> Result<Result<Outcome, String>, store::Error> {
    let event = match Event::parse(parked.body.as_bytes()) {
        Ok(event) => event,
        // Its cause may quote the body.
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut is_repeated = false;
    loop {
        let ingest = async {
            let mut client = app.database.client().await?;
            ledger::ingest(&mut client, &event, &parked.body, app.fee_estimate, now).await
        };
        let reason = match tokio::time::timeout(EVENT_TIMEOUT, ingest).await {
            Ok(Ok(applied)) => return Ok(Ok(applied.outcome)),
            Ok(Err(ledger::Error::Store(error))) if error.is_unavailable() => {
                match error.sqlstate() {
                    Some(STATEMENT_TIMEOUT) => return Ok(Err(cause_chain(&error))),
                    Some(_) => return Err(error),
                    None => cause_chain(&error),
                }
            }
            Ok(Err(error)) => return Ok(Err(cause_chain(&error))),
            Err(_elapsed) => format!("the ledger did not answer within {EVENT_TIMEOUT:?}"),
        };
        // The connection was lost, or hangs. When there is another one, it may have been chance,
        // or a commit whose answer was lost; twice in a row it is the event.
        drop(app.database.client().await?);
        if is_repeated {
            return Ok(Err(reason));
        }
        is_repeated = true;
    }
}

/// Notes the failure. The message goes first: a run that dies in between writes it again, and
/// then it is the same message.
///
/// No row in `stripe_events` tells of a poisoned event: its key there means that the event is in
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
        .record_failure(&state.event_id, reason, now);
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
