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
