//! `stripe_events`: the inbox and the archive of everything Stripe sent.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::columns::columns;
use super::list::{self, Order, sorted};
use domain::page::{Page, Rows, Span};
use stripe::event::Event;

columns! {
    /// An event of the inbox, without its payload.
    pub struct InboxEvent of "stripe_events" {
        pub event_id: String,
        /// Stripe's type, such as `invoice.paid`.
        #[serde(rename = "type")]
        pub event_type: String,
        /// The version of Stripe's API that the payload is of.
        pub api_version: Option<String>,
        pub livemode: Option<bool>,
        /// The account that it names (`acct_…`); null when it names none, and is of ours.
        pub account: Option<String>,
        /// Id of the object that the event shows; null when it has none.
        pub object_id: Option<String>,
        /// `applied`, `ignored`, `foreign` or `failed`.
        pub outcome: String,
        /// Why the event could not be applied; null for one that was.
        pub error: Option<String>,
        /// When Stripe created the event, to the second.
        pub created_at: Option<Timestamp>,
        pub received_at: Timestamp,
    }
}

/// Inserts the event; false when it is there already. Runs in the transaction of the effects, so
/// that the key commits with them. `payload` is the body as received.
///
/// # Errors
/// When the statement fails; a payload Postgres cannot store is such a failure.
pub async fn insert(
    db: &impl GenericClient,
    event: &Event,
    payload: &str,
    outcome: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = db
        .execute_typed(
            "-- stripe_events::insert
             INSERT INTO stripe_events (event_id, type, api_version, livemode, account, object_id,
                                        created_at, payload, received_at, outcome)
             VALUES ($1, $2, $3, $4, $5, $6, $7, CAST(CAST($8 AS text) AS jsonb), $9, $10)
             ON CONFLICT (event_id) DO NOTHING",
            &[
                (&event.event_id, Type::TEXT),
                (&event.event_type, Type::TEXT),
                (&event.api_version, Type::TEXT),
                (&event.livemode, Type::BOOL),
                (&event.account, Type::TEXT),
                (&event.object_id(), Type::TEXT),
                (&event.created_at, Type::TIMESTAMPTZ),
                (&payload, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
                (&outcome, Type::TEXT),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The payloads of the events with these ids.
///
/// # Errors
/// When the statement fails.
pub async fn payloads(db: &impl GenericClient, event_ids: &[String]) -> Result<Vec<Value>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_events::payloads
             SELECT payload FROM stripe_events WHERE event_id = ANY($1)",
            &[(&event_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("payload")?)).collect()
}

/// Which events a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub outcome: Option<&'a str>,
    pub event_type: Option<&'a str>,
    /// Of `created_at`, or of `received_at` where the event does not say.
    pub created: Span,
}

/// A page of the inbox, without payloads.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<String>,
) -> Result<Rows<String, InboxEvent>, Error> {
    list::read(
        db,
        "-- stripe_events::list
             SELECT event_id, type AS event_type, api_version, livemode, account, object_id, outcome, error,
                    created_at, received_at, COALESCE(created_at, received_at) AS listed_at
             FROM stripe_events
             WHERE true",
        Order {
            at: "COALESCE(created_at, received_at)",
            key: "event_id",
        },
        &[
            sorted("type", &filter.event_type, Type::TEXT),
            sorted("outcome", &filter.outcome, Type::TEXT),
        ],
        filter.created,
        page,
    )
    .await
}

/// Whether the event is in the inbox.
///
/// # Errors
/// When the statement fails.
pub async fn exists(db: &impl GenericClient, event_id: &str) -> Result<bool, Error> {
    let rows = db
        .query_typed(
            "-- stripe_events::exists
             SELECT event_id FROM stripe_events WHERE event_id = $1",
            &[(&event_id, Type::TEXT)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Those of these events that are not in the inbox, in the given order.
///
/// # Errors
/// When the statement fails.
pub async fn missing(db: &impl GenericClient, event_ids: &[String]) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_events::missing
             SELECT asked.event_id FROM unnest($1) WITH ORDINALITY AS asked (event_id, place)
             WHERE NOT EXISTS (
                 SELECT FROM stripe_events WHERE stripe_events.event_id = asked.event_id)
             ORDER BY asked.place",
            &[(&event_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(row.try_get("event_id")?))
        .collect()
}

/// Notes that what these thin events stand for is in the ledger.
///
/// # Errors
/// When the statement fails.
pub async fn settle_deferred(db: &impl GenericClient, event_ids: &[String]) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_events::settle_deferred
         UPDATE stripe_events SET outcome = 'applied' WHERE event_id = ANY($1) AND outcome = 'deferred'",
        &[(&event_ids, Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}

/// What the inbox has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// When Stripe made the newest event.
    pub newest_at: Option<Timestamp>,
    /// The events of another account or the other mode in the last 24 hours.
    pub foreign: i64,
}

/// What the inbox has received by now.
///
/// # Errors
/// When the statement fails.
pub async fn received(db: &impl GenericClient, now: Timestamp) -> Result<Received, Error> {
    let row = db
        .query_typed_one(
            "-- stripe_events::received
             SELECT (SELECT max(coalesce(created_at, received_at)) FROM stripe_events) AS newest_at,
                    (SELECT count(*) FROM stripe_events
                     WHERE outcome = 'foreign'
                       AND coalesce(created_at, received_at) > $1 - interval '24 hours') AS foreign_events",
            &[(&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(Received {
        newest_at: row.try_get("newest_at")?,
        foreign: row.try_get("foreign_events")?,
    })
}
