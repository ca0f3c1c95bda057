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
mod payments;
mod same_second;
mod save;
mod state;
mod users;

use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};

use domain::money;
use domain::payment::FeeEstimate;
use domain::stripe_objects::subscription;
use store::outbox;
use stripe::event::{self, Event};
use stripe::reader;

use self::flight::Scope;
use self::state::Found;

pub use self::derived::derived_payments;
pub use self::fetched::{apply_fetched, ingest_fetched};

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
}

/// What the ledger did with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// The event has been applied or ignored before.
    Duplicate,
    /// The event is stored, but the ledger has no use for its type.
    Ignored,
}

impl Outcome {
    /// The word in answers and in `stripe_events.outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Duplicate => "duplicate",
            Outcome::Ignored => "ignored",
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

/// Applies an event in a new transaction, again if it lost against another one. `payload` is the body as received.
///
/// # Errors
/// As [`apply_event`]. When the commit's answer is lost, the event may be in the ledger nevertheless; the next delivery
/// is then a duplicate.
pub async fn ingest(
    client: &mut Client,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    let client: &Client = client;
    let mut attempt = 1;
    loop {
        let applied = apply_in(Scope::own(client), event, payload, estimate, now).await;
        match applied {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// Inserts the event and applies it in the caller's transaction. `payload` is the body as received. The caller commits,
/// or rolls back a duplicate.
///
/// # Errors
/// When the event lacks a field the ledger needs, or an amount is out of range.
pub async fn apply_event(
    db: &Transaction<'_>,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    apply_in(Scope::within(db), event, payload, estimate, now).await
}

async fn apply_in(
    scope: Scope<'_>,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    let without_messages = |outcome| Applied {
        outcome,
        messages: Vec::new(),
    };
    if event.is_thin || !reader::is_applied(&event.event_type) {
        let outcome = Outcome::Ignored;
        let is_new = scope.archive(event, payload, outcome.as_str(), now).await?;
        return Ok(without_messages(match is_new {
            true => outcome,
            false => Outcome::Duplicate,
        }));
    }
    let outcome = Outcome::Applied;
    let facts = reader::read(event)?;
    let archived = [(event, payload, outcome.as_str())];
    let Some(found) = Found::open(scope, &archived, facts, now).await? else {
        return Ok(without_messages(Outcome::Duplicate));
    };
    let verdict = same_second::verdict(event, &found)?;
    let messages = found
        .apply(Some(event), verdict, &[], estimate, now)
        .await?;
    Ok(Applied { outcome, messages })
}
