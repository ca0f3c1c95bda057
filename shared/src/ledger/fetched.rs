//! Objects fetched from Stripe, applied as if an event of the time of the fetch had brought them.
//!
//! The version of such a snapshot has `fetch:<id>:<unix second>` for its event id, which no event
//! has, and the last millisecond of its second for its time. A later event replaces it, a late one
//! does not, and in which order they are applied does not matter. There is no row in
//! `stripe_events`: an event that tells the same is new when it comes.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Transaction};

use super::neighbourhood::{Named, Neighbourhood};
use super::{ATTEMPTS, Error, apply};
use domain::payment::FeeEstimate;
use store::fetched_objects::{self, FetchedObject};
use stripe::reader::{self, Facts};

/// Applies objects of one fetch in the caller's transaction, each through the projection of the
/// webhook: charges, payment intents, refunds, disputes, invoices with whatever is expanded in
/// them, subscriptions, customers, prices, coupons, balance transactions and the rest that
/// [`reader::read_fetched`] reads. All of them, or an error and none.
///
/// `fetched_at` must not be after the fetch began. No domain event is announced: what is found
/// this way has happened some time ago.
///
/// # Errors
/// When an object lacks a field the ledger needs, an amount is out of range or a statement fails.
pub async fn apply_fetched(
    db: &Transaction<'_>,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let mut facts = Facts::default();
    for object in objects {
        facts.append(reader::read_fetched(object, fetched_at)?);
    }
    let named = Named::of(&facts);
    let neighbourhood = Neighbourhood::load_first(db, &named).await?;
    let subscriptions: Vec<(String, String)> = facts
        .subscriptions
        .iter()
        .map(|one| {
            (
                one.stripe_subscription_id.clone(),
                one.version.event_id.clone(),
            )
        })
        .collect();
    apply(db, None, facts, named, neighbourhood, estimate, fetched_at).await?;
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

/// As [`apply_fetched`], in a transaction of its own. One that met another is run again.
///
/// # Errors
/// As [`apply_fetched`].
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
