//! Applies objects fetched from Stripe as if an event at the time of the fetch had brought them.
//!
//! The version of such a snapshot has the event id `fetch:<id>:<unix second>`, which no event has, and the last
//! millisecond of its second as its time. A later event replaces it, a late one does not, and the order of application
//! does not matter. There is no row in `stripe_events`: an event with the same content is new when it comes.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Transaction};

use super::state::LedgerState;
use super::{ATTEMPTS, Error, apply};
use domain::payment::FeeEstimate;
use domain::stripe_objects::objects::Objects;
use store::fetched_objects::{self, FetchedObject};
use stripe::reader;

/// Applies the objects of one fetch in the caller's transaction, each through the projection of the webhook: charges,
/// payment intents, refunds, disputes, invoices with what is expanded in them, subscriptions, customers, prices,
/// coupons, balance transactions and whatever else [`reader::read_fetched`] reads. All of them, or an error and none.
///
/// `fetched_at` must not be after the fetch began. No domain event is announced: what is found this way happened some
/// time ago.
///
/// # Errors
/// When an object lacks a field the ledger needs, or an amount is out of range.
pub async fn apply_fetched(
    db: &Transaction<'_>,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let mut facts = Objects::default();
    for object in objects {
        facts.append(reader::read_fetched(object, fetched_at)?);
    }
    let named = facts.ids();
    let state = LedgerState::load_first(db, &named).await?;
    let subscriptions: Vec<(String, String)> = facts
        .subscriptions
        .values()
        .map(|one| {
            (
                one.stripe_subscription_id.clone(),
                one.version.event_id.clone(),
            )
        })
        .collect();
    apply(db, None, facts, named, state, estimate, fetched_at).await?;
    for (stripe_subscription_id, source_event_id) in subscriptions {
        let mut of_it = objects
            .iter()
            .filter(|object| object["id"] == *stripe_subscription_id);
        if let Some(payload) = of_it.next_back() {
            let object = FetchedObject {
                source_event_id,
                stripe_subscription_id,
                payload: payload.clone(),
                fetched_at,
            };
            fetched_objects::insert_waiting(db, &object).await?;
        }
    }
    Ok(())
}

/// Runs [`apply_fetched`] in a new transaction, again if it lost against another one.
pub async fn ingest_fetched(
    client: &mut Client,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match ingest_once(client, objects, fetched_at, estimate).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

async fn ingest_once(
    client: &mut Client,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    apply_fetched(&transaction, objects, fetched_at, estimate).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(())
}
