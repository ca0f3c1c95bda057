//! Events through the ledger, telling an event at fault from a database that is away.

use std::time::Duration;

use jiff::Timestamp;
use runtime::telemetry::cause_chain;
use runtime::time_limit;
use shared::ledger::{self, Outcome};
use stripe::event::Event;

use crate::App;

/// Nobody waits for this answer, so one event may take long; not so long that it eats the run.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// A statement that ran into the role's time-out: the database is there, and this event is slow.
const STATEMENT_TIMEOUT: &str = "57014";

/// Applies the events, in one transaction as far as that goes; answers the outcome of each, or why it failed.
///
/// # Errors
/// When the database is away, which says nothing of the events. Some may have been applied.
pub(crate) async fn ingest_all(
    app: &App,
    bodies: &[&str],
    now: Timestamp,
) -> Result<Vec<Result<Outcome, String>>, store::Error> {
    if bodies.len() > 1 {
        // A set that hangs, or kills its connection, is tried event by event.
        let applied = time_limit::within(EVENT_TIMEOUT, ingest_set(app, bodies, now)).await;
        match applied {
            Ok(Ok(outcomes)) => return Ok(outcomes),
            Ok(Err(error)) => {
                tracing::warn!(
                    cause = cause_chain(&error),
                    "a set is applied event by event"
                );
            }
            Err(given_up) => {
                tracing::warn!(cause = %given_up, "a set is applied event by event");
                given_up.stop().await;
            }
        }
    }
    let mut outcomes = Vec::new();
    for body in bodies {
        outcomes.push(ingest(app, body, now).await?);
    }
    Ok(outcomes)
}

async fn ingest_set(
    app: &App,
    bodies: &[&str],
    now: Timestamp,
) -> Result<Vec<Result<Outcome, String>>, ledger::Error> {
    // The cause of an error may quote the body.
    let parsed = bodies.iter().map(|body| Event::parse(body.as_bytes()));
    let parsed: Vec<Result<Event, String>> = parsed
        .map(|event| event.map_err(|error| error.to_string()))
        .collect();
    let readable = parsed.iter().zip(bodies);
    let readable: Vec<_> = readable
        .filter_map(|(event, body)| Some((event.as_ref().ok()?, *body)))
        .collect();
    let mut client = app.database.client().await?;
    let applied =
        ledger::ingest_all(&mut client, &app.account, &readable, app.fee_estimate, now).await?;
    let mut outcomes = applied.outcomes.into_iter();
    let outcome_of = |event: &Result<Event, String>| match event {
        Ok(_) => outcomes.next().map_or_else(
            || Err("the event has no outcome".to_owned()),
            |outcome| outcome.map_err(|error| cause_chain(&error)),
        ),
        Err(reason) => Err(reason.clone()),
    };
    Ok(parsed.iter().map(outcome_of).collect())
}

/// Applies the event; answers its outcome, or why the event failed.
///
/// # Errors
/// When the database is away, which says nothing of the event.
async fn ingest(
    app: &App,
    body: &str,
    now: Timestamp,
) -> Result<Result<Outcome, String>, store::Error> {
    let event = match Event::parse(body.as_bytes()) {
        Ok(event) => event,
        // Its cause may quote the body.
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut is_repeated = false;
    loop {
        let ingest = async {
            let mut client = app.database.client().await?;
            let (account, estimate) = (&app.account, app.fee_estimate);
            ledger::ingest(&mut client, account, &event, body, estimate, now).await
        };
        let reason = match time_limit::within(EVENT_TIMEOUT, ingest).await {
            Ok(Ok(applied)) => return Ok(Ok(applied.outcome)),
            Ok(Err(ledger::Error::Store(error))) if error.is_unavailable() => {
                match error.sqlstate() {
                    Some(STATEMENT_TIMEOUT) => return Ok(Err(cause_chain(&error))),
                    Some(_) => return Err(error),
                    None => cause_chain(&error),
                }
            }
            Ok(Err(error)) => return Ok(Err(cause_chain(&error))),
            Err(given_up) => {
                let reason = format!("the ledger: {given_up}");
                given_up.stop().await;
                reason
            }
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
