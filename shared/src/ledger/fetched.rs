//! Applies objects fetched from Stripe as if an event at the time of the fetch had brought them.
//!
//! The version of such a snapshot has the event id `fetch:<id>:<unix second>`, which no event has, and the last
//! millisecond of its second as its time. A later event replaces it, a late one does not, and the order of application
//! does not matter. There is no row in `stripe_events`: an event with the same content is new when it comes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Transaction};

use super::decision::Said;
use super::flight::Scope;
use super::state::Found;
use super::{ATTEMPTS, Error};
use domain::payment::FeeEstimate;
use domain::stripe_objects::objects::Objects;
use store::fetched_objects::FetchedObject;
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
    apply_in(Scope::within(db), objects, fetched_at, estimate).await
}

/// Runs [`apply_fetched`] in a new transaction, again if it lost against another one.
pub async fn ingest_fetched(
    client: &mut Client,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let client: &Client = client;
    let mut attempt = 1;
    loop {
        match apply_in(Scope::own(client), objects, fetched_at, estimate).await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

async fn apply_in(
    scope: Scope<'_>,
    objects: &[Value],
    fetched_at: Timestamp,
    estimate: FeeEstimate,
) -> Result<(), Error> {
    let mut facts = Objects::default();
    for object in objects {
        facts.append(reader::read_fetched(object, fetched_at)?);
    }
    let subscriptions = facts.subscriptions.values().filter_map(|one| {
        let mut of_it = objects.iter();
        let payload = of_it.rfind(|object| object["id"] == *one.stripe_subscription_id)?;
        Some(FetchedObject {
            source_event_id: one.version.event_id.clone(),
            stripe_subscription_id: one.stripe_subscription_id.clone(),
            payload: payload.clone(),
            fetched_at,
        })
    });
    let subscriptions: Vec<FetchedObject> = subscriptions.collect();
    let said = vec![Said { event: None, facts }];
    if let Some(found) = Found::open(scope, &[], said, fetched_at).await? {
        let deferred = BTreeMap::new();
        found
            .apply(&subscriptions, deferred, estimate, fetched_at)
            .await?;
    }
    Ok(())
}
