//! The ledger: applies what Stripe says, each event once, in any order.
//!
//! One transaction per event, in three flights: insert the event, lock and load what it touches
//! ([`state`]); decide, without any I/O ([`decision`]); write everything and the domain
//! events ([`save`]). Every mirrored row is a join of snapshots and every derived row a pure
//! function of mirrored rows, so the ledger is a function of the set of events (invariant M, `docs/ledger.md`).

mod announcements;
mod decision;
mod derived;
mod fetched;
mod payments;
mod same_second;
mod save;
mod state;

use futures_util::try_join;
use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};

use domain::money;
use domain::payment::FeeEstimate;
use domain::stripe_objects::objects::{Ids, Objects};
use domain::stripe_objects::subscription;
use store::{outbox, stripe_events};
use stripe::account::{Account, Foreign};
use stripe::event::{self, Event};
use stripe::reader;

use self::state::LedgerState;

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
    /// The event is of another account or the other mode: stored, and without any effect.
    Foreign,
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
    let mut attempt = 1;
    loop {
        match ingest_once(client, account, event, payload, estimate, now).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

async fn ingest_once(
    client: &mut Client,
    account: &Account,
    event: &Event,
    payload: &str,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Applied, Error> {
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let applied = apply_event(&transaction, account, event, payload, estimate, now).await?;
    if applied.outcome == Outcome::Duplicate {
        transaction.rollback().await.map_err(store::Error::from)?;
    } else {
        transaction.commit().await.map_err(store::Error::from)?;
    }
    Ok(applied)
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
    if let Some(reason) = account.foreign(event) {
        return keep_foreign(db, event, payload, reason, now).await;
    }
    let outcome = if event.is_thin || !reader::is_applied(&event.event_type) {
        Outcome::Ignored
    } else {
        Outcome::Applied
    };
    let facts = reader::read(event)?;
    let named = facts.ids();
    let (is_new, state) = try_join!(
        async {
            Ok::<_, Error>(stripe_events::insert(db, event, payload, outcome.as_str(), now).await?)
        },
        LedgerState::load_first(db, &named),
    )?;
    if !is_new {
        return Ok(Applied {
            outcome: Outcome::Duplicate,
            messages: Vec::new(),
        });
    }
    let messages = apply(db, Some(event), facts, named, state, estimate, now).await?;
    Ok(Applied { outcome, messages })
}

/// Stores an event that is not ours: it is never applied, and somebody can see that it came.
async fn keep_foreign(
    db: &Transaction<'_>,
    event: &Event,
    payload: &str,
    reason: Foreign,
    now: Timestamp,
) -> Result<Applied, Error> {
    let stored = Outcome::Foreign;
    let is_new = stripe_events::insert(db, event, payload, stored.as_str(), now).await?;
    if is_new {
        metrics::counter!("foreign_events", "reason" => reason.as_str()).increment(1);
        tracing::warn!(
            event_id = event.event_id,
            reason = reason.as_str(),
            "an event is not ours"
        );
    }
    Ok(Applied {
        outcome: if is_new { stored } else { Outcome::Duplicate },
        messages: Vec::new(),
    })
}

async fn apply(
    db: &Transaction<'_>,
    event: Option<&Event>,
    mut facts: Objects,
    mut named: Ids,
    mut state: LedgerState,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Vec<outbox::Message>, Error> {
    if !facts.settlements.is_empty() {
        state::attach_settlements(db, &mut facts).await?;
        named = facts.ids();
        state = LedgerState::load_anew(db, &named).await?;
    }
    if named.is_empty() {
        return Ok(Vec::new());
    }
    // The load may have found customers and payments that the event did not name: lock those as well, and read again
    // under the locks.
    while let Some(wider) = state.beyond_locks(&named) {
        named = wider;
        state = LedgerState::load_anew(db, &named).await?;
    }
    let verdict = match event {
        Some(event) => same_second::verdict(db, event, &state).await?,
        None => None,
    };
    let changes = decision::decide(event, facts, &state, verdict, estimate)?;
    save::save(db, &changes, now).await
}
