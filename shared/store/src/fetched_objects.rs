//! `fetched_objects`: fetched subscriptions that wait for a price or a coupon.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// A fetched subscription: the event id of its version, its customer, and Stripe's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedObject {
    /// The event id of its version (`fetch:…`).
    pub source_event_id: String,
    pub stripe_subscription_id: String,
    pub payload: Value,
    pub fetched_at: Timestamp,
}

/// Keeps the object if the version it made waits for a price, coupon or discount.
pub async fn insert_waiting(db: &impl GenericClient, object: &FetchedObject) -> Result<(), Error> {
    db.execute_typed(
        "-- fetched_objects::insert_waiting
         INSERT INTO fetched_objects (source_event_id, stripe_subscription_id, payload, fetched_at)
         SELECT $1, $2, $3, $4
         WHERE EXISTS (
             SELECT FROM subscription_versions
             WHERE stripe_subscription_id = $2 AND source_event_id = $1 AND waits_for <> '{}')
         ON CONFLICT (source_event_id) DO NOTHING",
        &[
            (&object.source_event_id, Type::TEXT),
            (&object.stripe_subscription_id, Type::TEXT),
            (&object.payload, Type::JSONB),
            (&object.fetched_at, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// The objects behind these versions.
pub async fn get(
    db: &impl GenericClient,
    source_event_ids: &[String],
) -> Result<Vec<FetchedObject>, Error> {
    let rows = db
        .query_typed(
            "-- fetched_objects::get
             SELECT source_event_id, stripe_subscription_id, payload, fetched_at
             FROM fetched_objects WHERE source_event_id = ANY($1) ORDER BY source_event_id",
            &[(&source_event_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(FetchedObject {
                source_event_id: row.try_get("source_event_id")?,
                stripe_subscription_id: row.try_get("stripe_subscription_id")?,
                payload: row.try_get("payload")?,
                fetched_at: row.try_get("fetched_at")?,
            })
        })
        .collect()
}

/// Deletes those of these versions that no longer wait for anything.
pub async fn delete_complete(
    db: &impl GenericClient,
    source_event_ids: &[String],
) -> Result<(), Error> {
    db.execute_typed(
        "-- fetched_objects::delete_complete
         DELETE FROM fetched_objects
         USING subscription_versions AS version
         WHERE fetched_objects.source_event_id = ANY($1)
           AND version.stripe_subscription_id = fetched_objects.stripe_subscription_id
           AND version.source_event_id = fetched_objects.source_event_id
           AND version.waits_for = '{}'",
        &[(&source_event_ids, Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}
