//! The ledger: applies what Stripe says, each event once, in any order.
//!
//! One transaction per event, in two exchanges with the database: archive the event, lock and read what it touches
//! ([`state`]); decide, without any I/O ([`decision`]); write everything and the domain events, and commit ([`save`]).
//! Every mirrored row is a join of snapshots and every derived row a pure function of mirrored rows, so the ledger is a
//! function of the set of events (invariant M, `docs/ledger.md`).

mod announcements;
mod decision;
mod derived;
mod fetched;
mod flight;
mod parts;
mod payments;
mod rebuild;
mod same_second;
mod save;
mod state;
mod users;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};

use domain::money;
use domain::payment::FeeEstimate;
use domain::stripe_objects::objects::Objects;
use domain::stripe_objects::subscription;
use store::ledger::Archived;
use store::{outbox, stripe_lookups};
use stripe::account::{Account, Foreign};
use stripe::event::{self, Event};
use stripe::reader;

use self::decision::Said;
use self::flight::Scope;
use self::state::Found;

pub use self::derived::derived_payments;
pub use self::fetched::{apply_fetched, ingest_fetched};
pub use self::rebuild::{Rebuilt, rebuild};

/// Why an event was not applied. Nothing of it is in the ledger then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the event cannot be read")]
    Reader(#[from] reader::Error),
    #[error("an archived event cannot be read")]
    Event(#[from] event::Error),
    #[error("an amount is out of range")]
    Money(#[from] money::Error),
    #[error("the recurring revenue of a subscription cannot be computed")]
    Subscription(#[from] subscription::Error),
    #[error("the ledger cannot be read or written")]
    Store(#[from] store::Error),
}

impl Error {
    /// Whether the same transaction may succeed when run again at once.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_retryable())
    }

    /// Whether the database was unavailable, rather than the event at fault.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_unavailable())
    }

    /// Whether the database did not answer in time.
    #[must_use]
    pub fn is_time_out(&self) -> bool {
        matches!(self, Error::Store(error) if error.is_time_out())
    }
}

/// What the ledger did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// The event has been applied or ignored before.
    Duplicate,
    /// The event is stored, but the ledger has no use for its type.
    Ignored,
    /// The event is of another account or the other mode: stored, and without any effect.
    Foreign,
    /// A thin event: stored until what it stands for has been fetched.
    Deferred,
}

impl Outcome {
    /// The word in answers and in `stripe_events.outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Ignored => "ignored",
            Outcome::Foreign => "foreign",
            Outcome::Deferred => "deferred",
        }
    }
}

/// The outcome of an event, and the domain events to publish after the commit.
#[derive(Debug)]
pub struct Applied {
    pub outcome: Outcome,
    pub messages: Vec<outbox::Message>,
}

/// How often a transaction is tried that loses against another one.
const ATTEMPTS: u32 = 5;

/// An event, and its body as received.
pub type Delivery<'a> = (&'a Event, &'a str);

/// Applies an event in a new transaction, again if it lost against another one. `payload` is the body as received. What
/// is not of `account` is stored and nothing else.
///
/// # Errors
/// As [`apply_event`]. When the commit's answer is lost, the event may be in the ledger nevertheless; the next delivery
/// is then a duplicate.
pub async fn ingest(
    client: &mut Client,
    account: &Account,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    let set = match Read::of(account, (event, payload)) {
        Ok(read) => [read],
        Err(error) => {
            look_up_object(client, event, &error, now).await;
            return Err(error);
        }
    };
    let applied = ingest_set(client, &set, estimate, now).await?;
    Ok(applied.of_one())
}

/// Asks for the object of an event that lacks what the ledger needs. Best effort: the event itself is parked, and this is
/// done again when that is tried again.
async fn look_up_object(client: &Client, event: &Event, error: &Error, now: Timestamp) {
    let wanted = parts::of_unreadable_event(event, now);
    if let (Error::Reader(_), Some((subject, lookup))) = (error, wanted)
        && let Err(error) = stripe_lookups::request(client, &subject, &lookup).await
    {
        runtime::telemetry::log_failure("the object of an event is not looked up", &error);
    }
}

/// Inserts the event and applies it in the caller's transaction, unless it is not of `account`. `payload` is the body as
/// received. The caller commits, or rolls back a duplicate.
///
/// # Errors
/// When the event lacks a field the ledger needs, or an amount is out of range.
pub async fn apply_event(
    db: &Transaction<'_>,
    account: &Account,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    let set = [Read::of(account, (event, payload))?];
    let applied = apply_set(Scope::within(db), &set, estimate, now).await?;
    Ok(applied.of_one())
}

/// As [`apply_event`], for several at once. Returns the messages that were new.
///
/// # Errors
/// When one of the events cannot be applied; then none was.
pub async fn apply_events(
    db: &Transaction<'_>,
    account: &Account,
    deliveries: &[Delivery<'_>],
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Vec<outbox::Message>, Error> {
    let set = deliveries
        .iter()
        .map(|delivery| Read::of(account, *delivery));
    let set: Vec<Read<'_>> = set.collect::<Result<_, _>>()?;
    Ok(apply_set(Scope::within(db), &set, estimate, now)
        .await?
        .messages)
}

/// What became of each of several events, in their order, and the domain events to publish.
#[derive(Debug)]
pub struct AppliedSet {
    pub outcomes: Vec<Result<Outcome, Error>>,
    pub messages: Vec<outbox::Message>,
}

/// Applies events in one transaction. When one of them cannot be applied, the others are: it is found by halving. A set
/// that takes too long is halved, too.
///
/// # Errors
/// When the database is away. Some of the events may have been applied then; they are duplicates next time.
pub async fn ingest_all(
    client: &mut Client,
    account: &Account,
    deliveries: &[Delivery<'_>],
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<AppliedSet, Error> {
    let mut outcomes = BTreeMap::new();
    let mut set = Vec::new();
    for (place, delivery) in deliveries.iter().enumerate() {
        match Read::of(account, *delivery) {
            Ok(read) => set.push((place, read)),
            Err(error) => {
                look_up_object(client, delivery.0, &error, now).await;
                outcomes.insert(place, Err(error));
            }
        }
    }
    let mut seen = BTreeSet::new();
    set.retain(|(place, read)| {
        let is_first = seen.insert(&read.event.event_id);
        if !is_first {
            outcomes.insert(*place, Ok(Outcome::Duplicate));
        }
        is_first
    });
    let (places, set): (Vec<usize>, Vec<Read<'_>>) = set.into_iter().unzip();
    let mut messages = Vec::new();
    let mut halves = vec![(0, set.len())];
    while let Some((start, end)) = halves.pop() {
        let applied = ingest_set(client, &set[start..end], estimate, now).await;
        match applied {
            Ok(applied) => {
                let outcomes_of_set = applied.outcomes.into_iter().map(Ok);
                outcomes.extend(places[start..end].iter().copied().zip(outcomes_of_set));
                messages.extend(applied.messages);
            }
            Err(error) if error.is_unavailable() && !error.is_time_out() => return Err(error),
            Err(error) if end - start < 2 => {
                let place = places.get(start).copied();
                outcomes.extend(place.map(|place| (place, Err(error))));
            }
            Err(_) => {
                let middle = start + (end - start) / 2;
                halves.push((middle, end));
                halves.push((start, middle));
            }
        }
    }
    Ok(AppliedSet {
        outcomes: outcomes.into_values().collect(),
        messages,
    })
}

/// An event that can be read: what it says.
struct Read<'a> {
    event: &'a Event,
    payload: &'a str,
    outcome: Outcome,
    /// Why it is not ours.
    foreign: Option<Foreign>,
    facts: Objects,
}

impl<'a> Read<'a> {
    fn of(account: &Account, (event, payload): Delivery<'a>) -> Result<Read<'a>, Error> {
        let foreign = account.foreign(event);
        let names_something = event
            .thin
            .as_ref()
            .is_some_and(|thin| thin.snapshot_event.is_some() || thin.related_object.is_some());
        let is_applied = event.thin.is_none() && reader::is_applied(&event.event_type);
        let is_deferred = names_something && event.snapshot_type().is_some_and(reader::is_applied);
        let (outcome, facts) = match foreign {
            Some(_) => (Outcome::Foreign, Objects::default()),
            None if is_applied => (Outcome::Applied, reader::read(event)?),
            None if is_deferred => (Outcome::Deferred, Objects::default()),
            None => (Outcome::Ignored, Objects::default()),
        };
        Ok(Read {
            event,
            payload,
            outcome,
            foreign,
            facts,
        })
    }

    /// What was done with it; a foreign one is told, once.
    fn kept(&self, is_new: bool) -> Outcome {
        if !is_new {
            return Outcome::Duplicate;
        }
        if let Some(reason) = self.foreign {
            let reason = reason.as_str();
            metrics::counter!("foreign_events", "reason" => reason).increment(1);
            tracing::warn!(
                event_id = self.event.event_id,
                reason,
                "an event is not ours"
            );
        }
        self.outcome
    }
}

/// What was done with a set: an outcome for each.
struct Done {
    outcomes: Vec<Outcome>,
    messages: Vec<outbox::Message>,
}

impl Done {
    fn of_one(self) -> Applied {
        let outcome = self.outcomes.into_iter().next();
        Applied {
            outcome: outcome.unwrap_or(Outcome::Duplicate),
            messages: self.messages,
        }
    }
}

async fn ingest_set(
    client: &mut Client,
    set: &[Read<'_>],
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Done, Error> {
    let client: &Client = client;
    let mut attempt = 1;
    loop {
        match apply_set(Scope::own(client), set, estimate, now).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

async fn apply_set(
    scope: Scope<'_>,
    set: &[Read<'_>],
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Done, Error> {
    if let [one] = set
        && !matches!(one.outcome, Outcome::Applied | Outcome::Deferred)
    {
        let outcome = one.outcome.as_str();
        let is_new = scope.archive(one.event, one.payload, outcome, now).await?;
        return Ok(Done {
            outcomes: vec![one.kept(is_new)],
            messages: Vec::new(),
        });
    }
    let events = set.iter().map(|one| {
        let (rank, digests) = same_second::shown(one.event, &one.facts);
        Archived {
            event: one.event,
            payload: one.payload,
            outcome: one.outcome.as_str(),
            rank,
            digests,
        }
    });
    let events: Vec<Archived<'_>> = events.collect();
    let said = set.iter().map(|one| Said {
        event: Some(one.event),
        facts: one.facts.clone(),
    });
    let Some(found) = Found::open(scope, &events, said.collect(), now).await? else {
        return Ok(Done {
            outcomes: vec![Outcome::Duplicate; set.len()],
            messages: Vec::new(),
        });
    };
    let new = found.opened.new_events.clone();
    let deferred = set.iter().filter(|one| one.outcome == Outcome::Deferred);
    let deferred = deferred.filter(|one| new.contains(&one.event.event_id));
    let deferred = deferred.filter_map(|one| parts::of_thin_event(one.event, now));
    let messages = found.apply(&[], deferred.collect(), estimate, now).await?;
    let kept = |one: &Read<'_>| one.kept(new.contains(&one.event.event_id));
    Ok(Done {
        outcomes: set.iter().map(kept).collect(),
        messages,
    })
}
