//! The open `stripe_lookups`: what events named and did not carry, fetched and applied.
//!
//! A run leases a batch (so that no other asks for the same), asks Stripe a few at a time without
//! any transaction open, and applies each answer with the closing of its look-up in one
//! transaction. Each failed look-up waits before it is tried again. When Stripe is away, limits the rate or refuses
//! the key, the rest is left for the next run.

use futures_util::StreamExt;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::cause_chain;
use serde_json::Value;
use shared::ledger;
use store::stripe_lookups::{self, Leased};
use stripe::client::Error as StripeError;

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
    let leased = {
        let client = app.database.client().await?;
        stripe_lookups::lease(&**client, BATCH, leased_until, now).await?
    };
    if leased.is_empty() {
        return Ok(Batch::Empty);
    }
    let ids: Vec<i64> = leased.iter().map(|lookup| lookup.id).collect();
    let mut number = 0;
    let mut stop = None;
    {
        let mut answers = stream::iter(leased)
            .map(async |lookup| {
                let answer = fetch::answer(&app.stripe, &lookup.kind, &lookup.stripe_id, now).await;
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

/// Applies an answer, or notes why there is none; answers why to stop, when every further request
/// would fare the same.
async fn settle(
    app: &App,
    lookup: &Leased,
    answer: Result<Option<Vec<Value>>, StripeError>,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<Option<String>, store::Error> {
    let objects = match answer {
        Ok(Some(objects)) => objects,
        Ok(None) => {
            fail(
                app,
                lookup,
                "nothing is fetched for this kind",
                now,
                summary,
            )
            .await?;
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
        match apply_in_slices(app, lookup, &objects, now).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => break other,
        }
    };
    match applied {
        Ok(Applied::Answered) => {
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
    /// The look-up is closed.
    Answered,
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
    objects: &[Value],
    now: Timestamp,
) -> Result<Applied, ledger::Error> {
    let first = match lookup.kind.as_str() {
        "payout_transactions" => objects.len().saturating_sub(1) / SLICE * SLICE,
        _ => 0,
    };
    let (before, last) = objects.split_at(first);
    for slice in before.chunks(SLICE) {
        let mut client = app.database.client().await?;
        ledger::ingest_fetched(&mut client, slice, now, app.fee_estimate).await?;
    }
    apply(app, lookup, last, now).await
}

async fn apply(
    app: &App,
    lookup: &Leased,
    objects: &[Value],
    now: Timestamp,
) -> Result<Applied, ledger::Error> {
    let mut client = app.database.client().await?;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if !stripe_lookups::complete(&*transaction, lookup.id, now).await? {
        return Ok(Applied::Obsolete);
    }
    ledger::apply_fetched(&transaction, objects, now, app.fee_estimate).await?;
    let is_asked_again = stripe_lookups::withdraw_repetition(&*transaction, lookup.id).await?;
    if is_asked_again {
        let next = now + pause(lookup.attempts);
        let reason = "Stripe's answer does not tell it";
        stripe_lookups::fail(&*transaction, lookup.id, reason, next).await?;
    }
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(if is_asked_again {
        Applied::Unanswered
    } else {
        Applied::Answered
    })
}

async fn fail(
    app: &App,
    lookup: &Leased,
    reason: &str,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let client = app.database.client().await?;
    stripe_lookups::fail(&**client, lookup.id, reason, now + pause(lookup.attempts)).await?;
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
    stripe_lookups::fail(&**client, lookup.id, &reason, now + LONGEST_PAUSE).await?;
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
