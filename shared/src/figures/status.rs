//! How far the ledger is, and what waits.

use futures_util::future::{join, join5};
use jiff::Timestamp;
use runtime::aws;
use runtime::aws::parked_events::ParkedEvents;
use serde::Serialize;
use store::import_cursors::{self, ImportCursor};
use store::outbox::{self, Unpublished};
use store::reconciliation_runs::{self, Comparison};
use store::stripe_events::{self, Received};
use store::stripe_lookups::{self, LookupCounts};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::sections::{FieldError, Nulls, SectionError};

/// Parked events are counted up to here.
const MOST: usize = 10_000;

/// How far the ledger is, and what waits. A member that could not be read is null and named in `errors`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// When Stripe made the newest event of the inbox; null without any.
    pub last_event_at: Option<Timestamp>,
    /// Events that could not be applied yet and are tried again.
    pub parked: Option<usize>,
    /// Events that failed eight times and wait for somebody.
    pub poisoned: Option<usize>,
    /// Events of another account or the other mode, of the last 24 hours.
    pub foreign_24h: Option<i64>,
    /// What rows wait for at Stripe.
    pub lookups: Option<LookupCounts>,
    /// Domain events that the bus has not taken yet.
    pub outbox: Option<Unpublished>,
    /// The newest daily comparison with Stripe; null before the first.
    pub last_comparison: Option<Comparison>,
    /// `running` while the archive is read again after an upgrade, else `idle`.
    pub rebuild: Option<&'static str>,
    pub errors: Vec<FieldError>,
}

/// Reads each member by itself.
pub async fn report(db: &Client, table: &ParkedEvents, now: Timestamp) -> Status {
    let read = join5(
        stripe_events::received(db, now),
        stripe_lookups::counts(db),
        outbox::unpublished(db),
        reconciliation_runs::last_comparison(db),
        import_cursors::get(db, "rebuild"),
    );
    let (parked, (events, lookups, outbox, comparison, rebuild)) =
        join(Box::pin(table.list(MOST)), read).await;
    let mut nulls = Nulls::default();
    let parked = nulls.keep("parked", parked.map_err(SectionError::from));
    if parked.is_none() {
        nulls.also("poisoned");
    }
    let count = |is_poisoned: bool| {
        let states = parked.as_ref()?.iter();
        Some(
            states
                .filter(|one| one.is_poisoned() == is_poisoned)
                .count(),
        )
    };
    let (poisoned, parked) = (count(true), count(false));
    let events = nulls.keep("last_event_at", events.map_err(SectionError::Store));
    if events.is_none() {
        nulls.also("foreign_24h");
    }
    let (last_event_at, foreign_24h) = match events {
        Some(Received { newest_at, foreign }) => (newest_at, Some(foreign)),
        None => (None, None),
    };
    let lookups = nulls.keep("lookups", lookups.map_err(SectionError::Store));
    let outbox = nulls.keep("outbox", outbox.map_err(SectionError::Store));
    let comparison = nulls.keep("last_comparison", comparison.map_err(SectionError::Store));
    let rebuild = nulls.keep("rebuild", rebuild.map_err(SectionError::Store));
    let is_running =
        |cursor: Option<ImportCursor>| cursor.is_some_and(|cursor| cursor.finished_at.is_none());
    Status {
        last_event_at,
        parked,
        poisoned,
        foreign_24h,
        lookups,
        outbox,
        last_comparison: comparison.flatten(),
        rebuild: rebuild.map(|cursor| {
            if is_running(cursor) {
                "running"
            } else {
                "idle"
            }
        }),
        errors: nulls.errors,
    }
}

impl From<aws::Error> for SectionError {
    fn from(error: aws::Error) -> SectionError {
        SectionError::ParkedEvents(Box::new(error))
    }
}
