//! `reconciliation.redrive`: parked events through the ledger again, the outbox to the bus, and what
//! events named without carrying it from Stripe.
//!
//! Each failed event has its own back-off, so a repeated invocation could not do better: it is in the
//! summary, and the invocation succeeds. The invocation fails only when the database, or where the
//! parked events are, was away: that says nothing of any event, and trying again soon helps.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use runtime::aws;
use runtime::aws::parked_events::{ParkedState, Read};
use runtime::telemetry::{cause_chain, log_failure};
use serde::Serialize;
use serde_json::{Value, json};
use shared::ledger::Outcome;
use shared::publishing;
use store::outbox;

use crate::ingest::ingest_all;
use crate::{App, Deadline, Error, lookups, rebuild};

/// Events read from the index at once, and applied in one transaction.
const EVENTS_PER_SET: usize = 100;
/// Bodies of one transaction, together; one may have 6 MB.
const BYTES_PER_SET: usize = 4 * 1024 * 1024;
/// Events read, or removed, at the same time.
const EVENTS_AT_ONCE: usize = 8;
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
    /// How far the archive has been read again; `None` when nobody has asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Value>,
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
                Ok(()) => match lookups::run(app, now, deadline, &mut summary).await {
                    Ok(()) => read_again(app, now, deadline, &mut summary).await,
                    Err(error) => Err(Away::Database(error)),
                },
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

/// Goes on reading the archive again, when that was begun. What is at fault there holds up nothing else.
async fn read_again(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), Away> {
    match rebuild::go_on(app, now, deadline).await {
        Ok(rebuilt) => {
            summary.rebuild = Some(rebuilt).filter(|rebuilt| rebuilt["events"] != 0);
            Ok(())
        }
        Err(rebuild::Error::Store(error)) if error.is_unavailable() => Err(Away::Database(error)),
        Err(error) => {
            metrics::counter!("failures").increment(1);
            log_failure("the archive could not be read again", &error);
            Ok(())
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
        let limit = EVENTS_PER_SET + met.len();
        let mut due = match app.parked_events.due(now, limit).await {
            Ok(due) => due,
            Err(error) => return Err(away.unwrap_or(Away::ParkedEvents(error))),
        };
        due.retain(|one| met.insert(one.event_id.clone()));
        if due.is_empty() {
            return away.map_or(Ok(Driven::All), Err);
        }
        let mut events = pin!(
            stream::iter(due)
                .map(|one| async move { app.parked_events.state_and_body(&one.event_id).await })
                .buffered(EVENTS_AT_ONCE)
        );
        let mut is_over = false;
        while !is_over {
            if deadline.is_reached() {
                return away.map_or(Ok(Driven::UntilTheDeadline), Err);
            }
            let mut set = Vec::new();
            let mut bytes = 0;
            while bytes < BYTES_PER_SET {
                let Some(event) = events.next().await else {
                    is_over = true;
                    break;
                };
                match readable(app, event, now, summary).await {
                    Ok(Some((state, body))) => {
                        bytes += body.len();
                        set.push((state, body));
                    }
                    Ok(None) => {}
                    Err(error @ Away::Database(_)) => return Err(error),
                    Err(error @ Away::ParkedEvents(_)) => drop(away.get_or_insert(error)),
                }
            }
            match drive(app, &set, now, summary).await {
                Ok(()) => {}
                Err(error @ Away::Database(_)) => return Err(error),
                Err(error @ Away::ParkedEvents(_)) => drop(away.get_or_insert(error)),
            }
        }
    }
}

/// The event, when it is one that can be applied now.
async fn readable(
    app: &App,
    event: Result<Option<Read>, aws::Error>,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<Option<(ParkedState, String)>, Away> {
    let Read { state, body } = match event {
        Ok(Some(event)) => event,
        // Another run was faster.
        Ok(None) => return Ok(None),
        // An item that is none of ours has no attempts that could be counted.
        Err(error @ aws::Error::Unreadable { .. }) => {
            log_failure("a parked event is left out", &error);
            return Ok(None);
        }
        Err(error @ aws::Error::Unavailable { .. }) => return Err(Away::ParkedEvents(error)),
    };
    if !state.is_due(now) {
        return Ok(None);
    }
    match body {
        Ok(body) => Ok(Some((state, body))),
        // Its body is gone, or is something else: no pause brings it back, but a person may.
        Err(error @ aws::Error::Unreadable { .. }) => {
            fail(app, &state, &cause_chain(&error), now, summary).await?;
            Ok(None)
        }
        Err(error @ aws::Error::Unavailable { .. }) => Err(Away::ParkedEvents(error)),
    }
}

/// Applies the events, then removes those that are in the ledger and notes why the others are not. The first event that
/// could not be removed or noted is told when all others are.
async fn drive(
    app: &App,
    set: &[(ParkedState, String)],
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), Away> {
    let bodies: Vec<&str> = set.iter().map(|(_, body)| body.as_str()).collect();
    let ingested = ingest_all(app, &bodies, now)
        .await
        .map_err(Away::Database)?;
    let (mut kept, mut away) = (Vec::new(), None);
    for ((state, _), ingested) in set.iter().zip(ingested) {
        match ingested {
            Ok(outcome) => kept.push((state.event_id.clone(), outcome)),
            Err(reason) => match fail(app, state, &reason, now, summary).await {
                Ok(()) => {}
                Err(error @ Away::Database(_)) => return Err(error),
                Err(error @ Away::ParkedEvents(_)) => away = away.or(Some(error)),
            },
        }
    }
    let mut removed = pin!(
        stream::iter(kept)
            .map(|(event_id, outcome)| async move {
                let removed = app.parked_events.remove(&event_id).await;
                (event_id, outcome, removed)
            })
            .buffered(EVENTS_AT_ONCE)
    );
    while let Some((event_id, outcome, removed)) = removed.next().await {
        if let Err(error) = removed {
            away = away.or(Some(Away::ParkedEvents(error)));
            continue;
        }
        match outcome {
            Outcome::Applied => summary.applied += 1,
            Outcome::Duplicate => summary.duplicate += 1,
            Outcome::Ignored | Outcome::Foreign | Outcome::Deferred => summary.ignored += 1,
        }
        metrics::counter!("redriven_events", "outcome" => outcome.as_str()).increment(1);
        tracing::info!(
            event_id,
            outcome = outcome.as_str(),
            "a parked event is kept"
        );
    }
    away.map_or(Ok(()), Err)
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
