//! The open `stripe_lookups`: what events named and did not carry, fetched and applied.
//!
//! A run leases a batch (so that no other asks for the same), asks Stripe a few at a time without any transaction open, and
//! applies each answer with the closing of the look-ups that it answers in one transaction. Each failed look-up waits before it is tried again. When Stripe is away, limits the rate or refuses
//! the key, the rest is left for the next run.

use domain::stripe_objects::partial::Reason;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::{cause_chain, log_failure};
use serde_json::Value;
use shared::ledger;
use store::stripe_events;
use store::stripe_lookups::{self, Leased};
use stripe::client::Error as StripeError;
use stripe::event::Event;
use tokio_postgres::Client;

use crate::{App, Deadline, Summary, fetch};

/// Look-ups leased at once.
const BATCH: i64 = 40;
/// Requests under way at once: about 30 a second at Stripe's usual pace, a third of its limit.
const AT_ONCE: usize = 4;
/// Look-ups of one run.
const PER_RUN: u64 = 2_000;
/// Longer than the client's patience with a batch; a run that died gives its batch back so late.
const LEASE: SignedDuration = SignedDuration::from_mins(15);
/// Transactions of a payout applied at once.
const SLICE: usize = 100;
/// How often a transaction that met another one is run again.
const ATTEMPTS: u32 = 5;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause, and the one after Stripe said that there is no such object.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(24);

/// Works on what is due, until nothing is, or the deadline, or Stripe is away.
///
/// # Errors
/// When the database is away.
pub(crate) async fn run(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let mut asked = 0;
    let mut stop = if app.has_stripe_key() {
        None
    } else {
        Some("STRIPE_API_KEY is not configured".to_owned())
    };
    while stop.is_none() {
        if deadline.is_reached() {
            stop = Some("the time was up".to_owned());
        } else if asked >= PER_RUN {
            stop = Some(format!("a run asks for {PER_RUN} at most"));
        } else {
            match batch(app, now, deadline, summary).await? {
                Batch::Empty => return Ok(()),
                Batch::Done(number) => asked += number,
                Batch::Stopped(reason) => stop = Some(reason),
            }
        }
    }
    let client = app.database.client().await?;
    let remaining = stripe_lookups::count_due(&**client, now).await?;
    if let (Some(reason), true) = (stop, remaining > 0) {
        summary.lookups_remaining = u64::try_from(remaining).ok();
        summary.lookups_stopped = Some(reason);
    }
    Ok(())
}

/// How a batch ended.
enum Batch {
    /// No look-up was due.
    Empty,
    Done(u64),
    /// Why there is no point in asking on.
    Stopped(String),
}

async fn batch(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<Batch, store::Error> {
    let leased_until = now + LEASE;
    let (leased, thin) = {
        let client = app.database.client().await?;
        let db: &Client = &client;
        let leased = stripe_lookups::lease(db, BATCH, leased_until, now).await?;
        let deferred = leased.iter().flat_map(|one| one.deferred.clone());
        let deferred: Vec<String> = deferred.collect();
        let payloads = match deferred.is_empty() {
            true => Vec::new(),
            false => stripe_events::payloads(db, &deferred).await?,
        };
        // Each was read when it was archived.
        let thin = payloads
            .into_iter()
            .filter_map(|one| Event::from_value(one).ok());
        (leased, thin.collect::<Vec<Event>>())
    };
    if leased.is_empty() {
        return Ok(Batch::Empty);
    }
    let ids: Vec<i64> = leased
        .iter()
        .flat_map(|lookup| lookup.ids.clone())
        .collect();
    let mut number = 0;
    let mut stop = None;
    {
        let mut answers = stream::iter(leased)
            .map(async |lookup| {
                let answer = ask(app, &lookup, &thin, now).await;
                (lookup, answer)
            })
            .buffer_unordered(AT_ONCE);
        while stop.is_none()
            && let Some((lookup, answer)) = answers.next().await
        {
            number += 1;
            stop = settle(app, &lookup, answer, now, summary).await?;
            if deadline.is_reached() {
                stop = stop.or_else(|| Some("the time was up".to_owned()));
            }
        }
    }
    let Some(reason) = stop else {
        return Ok(Batch::Done(number));
    };
    let client = app.database.client().await?;
    stripe_lookups::release(&**client, &ids, leased_until).await?;
    Ok(Batch::Stopped(reason))
}

/// The kind of look-up of an event that a thin event stands for.
const EVENT: &str = "event";

/// What Stripe has answered.
enum Answer {
    Objects(Vec<Value>),
    /// An event, which enters as if it had been delivered.
    Event(Value),
}

/// Asks Stripe; `thin` has the thin events that wait. `None` for a kind that nobody asks for.
async fn ask(
    app: &App,
    lookup: &Leased,
    thin: &[Event],
    now: Timestamp,
) -> Result<Option<Answer>, StripeError> {
    let objects = async |kind: &str, id: &str| {
        let objects = fetch::answer(&app.stripe, kind, id, now).await;
        Ok(objects?.map(Answer::Objects))
    };
    if lookup.kind != EVENT {
        return objects(&lookup.kind, &lookup.stripe_id).await;
    }
    let mut thin = thin
        .iter()
        .filter(|event| lookup.deferred.contains(&event.event_id));
    let Some(thin) = thin.find_map(|event| event.thin.as_ref()) else {
        return Ok(None);
    };
    let error = match &thin.snapshot_event {
        Some(id) => match app.stripe.retrieve(&["events", id], &[], now).await {
            Ok(event) => return Ok(Some(Answer::Event(event))),
            Err(error @ StripeError::NotFound { .. }) => Some(error),
            Err(error) => return Err(error),
        },
        None => None,
    };
    // Stripe has it no more, after 30 days: the object as it is now says what has become of it.
    match (&thin.related_object, error) {
        (Some((kind, id)), _) => objects(kind, id).await,
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// Applies an answer, or notes why there is none; answers why to stop, when every further request
/// would fare the same.
async fn settle(
    app: &App,
    lookup: &Leased,
    answer: Result<Option<Answer>, StripeError>,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<Option<String>, store::Error> {
    let answer = match answer {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            let reason = "nothing is fetched for this kind";
            fail(app, lookup, reason, now, summary).await?;
            return Ok(None);
        }
        Err(error @ StripeError::NotFound { .. }) => {
            not_found(app, lookup, &error, now, summary).await?;
            return Ok(None);
        }
        Err(error) => {
            let is_about_all = matches!(
                error,
                StripeError::NoKey(_)
                    | StripeError::RateLimited { .. }
                    | StripeError::Unauthorized { .. }
                    | StripeError::WrongMode
                    | StripeError::Unavailable(_)
            );
            let reason = cause_chain(&error);
            fail(app, lookup, &reason, now, summary).await?;
            return Ok(is_about_all.then(|| error.to_string()));
        }
    };
    let mut attempt = 1;
    let applied = loop {
        match apply_in_slices(app, lookup, &answer, now).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => break other,
        }
    };
    match applied {
        Ok(Applied::Answered { healed }) => {
            forget(app, &healed).await;
            summary.lookups_done += 1;
            metrics::counter!("stripe_lookups", "outcome" => "done").increment(1);
        }
        Ok(Applied::Obsolete) => {}
        Ok(Applied::Unanswered) => {
            note_failure(lookup, "Stripe's answer does not tell it", summary);
        }
        Err(ledger::Error::Store(error)) if error.is_unavailable() => return Err(error),
        Err(error) => fail(app, lookup, &cause_chain(&error), now, summary).await?,
    }
    Ok(None)
}

/// The effect of Stripe's answer on its look-up.
enum Applied {
    /// The look-ups are closed, and these parked events are in the archive.
    Answered { healed: Vec<String> },
    /// It was closed before: by an event, or by the answer to another look-up.
    Obsolete,
    /// It is applied, and asks for the same again: tried again after a pause.
    Unanswered,
}

/// All but the last of a payout's thousands of transactions in database transactions of their own, so that none locks all
/// of them. The look-up is closed with the last; what was applied before a failure is applied again, which changes
/// nothing.
async fn apply_in_slices(
    app: &App,
    lookup: &Leased,
    answer: &Answer,
    now: Timestamp,
) -> Result<Applied, ledger::Error> {
    let Answer::Objects(objects) = answer else {
        return apply(app, lookup, answer, now).await;
    };
    let first = match lookup.kind.as_str() {
        "payout_transactions" => objects.len().saturating_sub(1) / SLICE * SLICE,
        _ => 0,
    };
    let (before, last) = objects.split_at(first);
    for slice in before.chunks(SLICE) {
        let mut client = app.database.client().await?;
        ledger::ingest_fetched(&mut client, slice, now, app.fee_estimate).await?;
    }
    let last = Answer::Objects(last.to_vec());
    apply(app, lookup, &last, now).await
}

async fn apply(
    app: &App,
    lookup: &Leased,
    answer: &Answer,
    now: Timestamp,
) -> Result<Applied, ledger::Error> {
    let mut client = app.database.client().await?;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let (kind, id) = (lookup.kind.as_str(), lookup.stripe_id.as_str());
    let completed = stripe_lookups::complete(&*transaction, kind, id, now).await?;
    if completed.is_empty() {
        return Ok(Applied::Obsolete);
    }
    match answer {
        Answer::Objects(objects) => {
            ledger::apply_fetched(&transaction, objects, now, app.fee_estimate).await?;
        }
        Answer::Event(event) => {
            let body = event.to_string();
            let event = Event::from_value(event.clone())?;
            let (account, estimate) = (&app.account, app.fee_estimate);
            // What it announces is published by the next sweep of the outbox.
            ledger::apply_event(&transaction, account, &event, &body, estimate, now).await?;
        }
    }
    let events_for = |reason: Reason| -> Vec<String> {
        let for_it = completed.iter().filter(|one| one.reason == reason);
        for_it.map(|one| one.subject.clone()).collect()
    };
    let deferred = events_for(Reason::Event);
    if !deferred.is_empty() {
        stripe_events::settle_deferred(&*transaction, &deferred).await?;
    }
    let mut healed = Vec::new();
    for (event, body) in parked(app, &events_for(Reason::Unreadable)).await {
        stripe_events::insert(&*transaction, &event, &body, "healed", now).await?;
        healed.push(event.event_id);
    }
    let completed: Vec<i64> = completed.iter().map(|one| one.id).collect();
    let next = now + pause(lookup.attempts);
    let reason = "Stripe's answer does not tell it";
    let reopened = stripe_lookups::reopen(&*transaction, &completed, reason, next).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(if reopened > 0 {
        Applied::Unanswered
    } else {
        Applied::Answered { healed }
    })
}

/// The parked events with these ids that can be had.
async fn parked(app: &App, event_ids: &[String]) -> Vec<(Event, String)> {
    let mut parked = Vec::new();
    for event_id in event_ids {
        match app.parked_events.get(event_id).await {
            Ok(Some(one)) => {
                let event = Event::parse(one.body.as_bytes());
                parked.extend(event.ok().map(|event| (event, one.body)));
            }
            Ok(None) => {}
            // It stays parked, and is applied or healed another time.
            Err(error) => log_failure("a parked event cannot be read", &error),
        }
    }
    parked
}

/// Removes what is in the archive from the table. What stays there is found to be a duplicate.
async fn forget(app: &App, healed: &[String]) {
    for event_id in healed {
        if let Err(error) = app.parked_events.remove(event_id).await {
            log_failure("a healed event is still parked", &error);
        }
    }
}

async fn fail(
    app: &App,
    lookup: &Leased,
    reason: &str,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let client = app.database.client().await?;
    let (kind, id) = (&lookup.kind, &lookup.stripe_id);
    let next = now + pause(lookup.attempts);
    stripe_lookups::fail(&**client, kind, id, (reason, false), next).await?;
    note_failure(lookup, reason, summary);
    Ok(())
}

fn note_failure(lookup: &Leased, reason: &str, summary: &mut Summary) {
    summary.lookups_failed += 1;
    metrics::counter!("stripe_lookups", "outcome" => "failed").increment(1);
    tracing::warn!(
        kind = lookup.kind,
        stripe_id = lookup.stripe_id,
        attempts = lookup.attempts + 1,
        cause = reason,
        "a look-up at Stripe failed"
    );
}

/// An id that is stored here and unknown there: another account's key, or something is very wrong.
/// It is an alarm, and changes nothing in the ledger.
async fn not_found(
    app: &App,
    lookup: &Leased,
    error: &StripeError,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let client = app.database.client().await?;
    let reason = error.to_string();
    let (kind, id) = (&lookup.kind, &lookup.stripe_id);
    let next = now + LONGEST_PAUSE;
    stripe_lookups::fail(&**client, kind, id, (&reason, true), next).await?;
    summary.lookups_not_found += 1;
    metrics::counter!("stripe_lookups", "outcome" => "not_found").increment(1);
    metrics::counter!("failures").increment(1);
    tracing::error!(
        kind = lookup.kind,
        stripe_id = lookup.stripe_id,
        "Stripe does not know an object that the ledger names"
    );
    Ok(())
}

/// Doubled with each attempt that failed, a day at most.
fn pause(attempts: i32) -> SignedDuration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(16);
    FIRST_PAUSE
        .checked_mul(2_i32.pow(doublings))
        .unwrap_or(LONGEST_PAUSE)
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_day() {
        let minutes = [
            (0, 1),
            (1, 2),
            (5, 32),
            (10, 1_024),
            (11, 1_440),
            (9_999, 1_440),
        ];
        for (attempts, expected) in minutes {
            assert_eq!(pause(attempts).as_mins(), expected);
        }
    }
}
