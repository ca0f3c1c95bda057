//! The archive of events, read from end to end, and the rows that nothing in it explains.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// A place in the archive: the time of an event and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(pub Timestamp, pub String);

/// An applied event of the archive.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedEvent {
    pub place: Place,
    pub payload: Value,
}

/// The applied events after a place, oldest first: `limit` of them, and all others of the instant of the last.
///
/// # Errors
/// When the statement fails.
pub async fn slice(
    db: &impl GenericClient,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<ArchivedEvent>, Error> {
    let (at, event_id) = match after {
        Some(Place(at, event_id)) => (*at, event_id.as_str()),
        None => (Timestamp::UNIX_EPOCH, ""),
    };
    let rows = db
        .query_typed(
            "-- archive::slice
             WITH first AS (
                 SELECT coalesce(created_at, received_at) AS at FROM stripe_events
                 WHERE outcome = 'applied' AND (coalesce(created_at, received_at), event_id) > ($1, $2)
                 ORDER BY coalesce(created_at, received_at), event_id LIMIT $3
             )
             SELECT coalesce(created_at, received_at) AS at, event_id, payload FROM stripe_events
             WHERE outcome = 'applied' AND (coalesce(created_at, received_at), event_id) > ($1, $2)
               AND coalesce(created_at, received_at) <= (SELECT max(at) FROM first)
             ORDER BY coalesce(created_at, received_at), event_id",
            &[
                (&at, Type::TIMESTAMPTZ),
                (&event_id, Type::TEXT),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    let events = rows.iter().map(|row| {
        Ok(ArchivedEvent {
            place: Place(row.try_get("at")?, row.try_get("event_id")?),
            payload: row.try_get("payload")?,
        })
    });
    events.collect()
}

/// The applied events about these objects.
///
/// # Errors
/// When the statement fails.
pub async fn of_objects(db: &impl GenericClient, ids: &[String]) -> Result<Vec<Value>, Error> {
    let rows = db
        .query_typed(
            "-- archive::of_objects
             SELECT payload FROM stripe_events WHERE object_id = ANY($1) AND outcome = 'applied'
             ORDER BY created_at, event_id",
            &[(&ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("payload")?)).collect()
}

/// Asks for the objects of up to `limit` invoices and as many subscriptions again whose rows show a fetch, and lack what is
/// read now: nothing in the archive has it. Returns how many.
///
/// # Errors
/// When a statement fails.
pub async fn look_again(db: &impl GenericClient, limit: i64) -> Result<u64, Error> {
    let invoices = db
        .execute_typed(
            "-- archive::look_again
             WITH locked AS MATERIALIZED (
                 SELECT id, source_event_id, source_created_at FROM (
                     SELECT stripe_invoice_id AS id, source_event_id, source_created_at FROM invoices
                     WHERE names_payment IS NULL AND source_event_id LIKE 'fetch:%' AND NOT superseded
                       AND NOT 'undecidable' = ANY (partial)
                     ORDER BY stripe_invoice_id LIMIT $1
                 ) AS found
                 WHERE pg_advisory_xact_lock(hashtextextended(id, 0)) IS NOT NULL
             ), noted AS (
                 UPDATE invoices SET partial = ARRAY(SELECT unnest(partial || '{undecidable}') ORDER BY 1)
                 FROM locked WHERE stripe_invoice_id = locked.id AND NOT superseded
             )
             INSERT INTO stripe_lookups (subject, subject_type, event_id, kind, stripe_id, reason, requested_at, due_at)
             SELECT id, 'invoice', source_event_id, 'invoice', id, 'undecidable', source_created_at, source_created_at
             FROM locked",
            &[(&limit, Type::INT8)],
        )
        .await?;
    Ok(invoices + look_again_at_subscriptions(db, limit).await?)
}

async fn look_again_at_subscriptions(db: &impl GenericClient, limit: i64) -> Result<u64, Error> {
    let subscriptions = db
        .execute_typed(
            "-- archive::look_again_at_subscriptions
             WITH locked AS MATERIALIZED (
                 SELECT id, source_event_id, source_created_at FROM (
                     SELECT stripe_subscription_id AS id, source_event_id, source_created_at FROM subscriptions
                     WHERE items_complete IS NULL AND source_event_id LIKE 'fetch:%' AND NOT superseded
                       AND NOT 'undecidable' = ANY (partial)
                     ORDER BY stripe_subscription_id LIMIT $1
                 ) AS found
                 WHERE pg_advisory_xact_lock(hashtextextended(id, 0)) IS NOT NULL
             ), noted AS (
                 UPDATE subscriptions SET partial = ARRAY(SELECT unnest(partial || '{undecidable}') ORDER BY 1)
                 FROM locked WHERE stripe_subscription_id = locked.id AND NOT superseded
             )
             INSERT INTO stripe_lookups (subject, subject_type, event_id, kind, stripe_id, reason, requested_at, due_at)
             SELECT id, 'subscription', source_event_id, 'subscription', id, 'undecidable', source_created_at,
                    source_created_at
             FROM locked",
            &[(&limit, Type::INT8)],
        )
        .await?;
    Ok(subscriptions)
}

/// Gross, fees, refunds and disputes of each month and currency (`2026-10:USD`), in minor units.
///
/// # Errors
/// When the statement fails.
pub async fn months(db: &impl GenericClient) -> Result<BTreeMap<String, [i64; 4]>, Error> {
    let rows = db
        .query_typed(
            "-- archive::months
             SELECT to_char(day, 'YYYY-MM') || ':' || currency AS month, sum(gross_cents)::bigint AS gross_cents,
                    sum(fees_cents)::bigint AS fees_cents, sum(refunds_cents)::bigint AS refunds_cents,
                    sum(disputes_cents)::bigint AS disputes_cents
             FROM revenue_daily GROUP BY 1",
            &[],
        )
        .await?;
    let months = rows.iter().map(|row| {
        let figures = [
            row.try_get("gross_cents")?,
            row.try_get("fees_cents")?,
            row.try_get("refunds_cents")?,
            row.try_get("disputes_cents")?,
        ];
        Ok((row.try_get("month")?, figures))
    });
    months.collect()
}
