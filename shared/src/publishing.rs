//! Publishing: domain events from the outbox to the bus, after the commit of their effect.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;

use runtime::aws::event_bus::{BusEntry, EventBus, Outcome};
use runtime::telemetry::log_failure;
use store::{Database, outbox};

/// The longest time the bus may take after a commit. The sweep publishes the rest.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// How many messages were published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    pub published: usize,
    /// How many are still in the outbox; the sweep tries again.
    pub failed: usize,
}

/// Publishes the messages and marks those the bus took. A message that is published but not marked is published again
/// by the sweep: consumers recognise it by its `event_id`.
///
/// # Errors
/// When the outbox cannot be marked.
pub async fn publish(
    db: &Client,
    bus: &EventBus,
    messages: &[outbox::Message],
    now: Timestamp,
) -> Result<Published, store::Error> {
    if messages.is_empty() {
        return Ok(Published::default());
    }
    let entries: Vec<BusEntry<'_>> = messages
        .iter()
        .map(|message| BusEntry {
            detail_type: &message.detail_type,
            detail: &message.detail,
        })
        .collect();
    let outcomes = bus.publish(&entries).await;
    let mut published = Vec::new();
    let mut failed = Vec::new();
    for (message, outcome) in messages.iter().zip(outcomes) {
        match outcome {
            Outcome::Published => published.push(message.id),
            Outcome::Failed { reason } => failed.push((message.id, reason)),
        }
    }
    if !published.is_empty() {
        outbox::mark_published(db, &published, now).await?;
    }
    if !failed.is_empty() {
        outbox::mark_failed(db, &failed, now).await?;
    }
    Ok(Published {
        published: published.len(),
        failed: failed.len(),
    })
}

/// Publishes committed messages, best effort and for at most a second. The sweep publishes what remains, which is
/// everything when there is no bus. Logs a failure here, since the effect it belongs to has been committed.
pub async fn publish_after_commit(
    db: &Client,
    bus: Option<&EventBus>,
    messages: &[outbox::Message],
    now: Timestamp,
) {
    let Some(bus) = bus else {
        tracing::warn!("no bus is configured: messages stay in the outbox");
        return;
    };
    match tokio::time::timeout(PUBLISH_TIMEOUT, publish(db, bus, messages, now)).await {
        Ok(Ok(published)) if published.failed > 0 => {
            tracing::warn!(failed = published.failed, "messages stay in the outbox");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => log_failure("messages stay in the outbox", &error),
        Err(_elapsed) => tracing::warn!("the bus is slow: messages stay in the outbox"),
    }
}

/// Publishes what is due in the outbox, oldest first, up to `limit` messages.
///
/// # Errors
/// When the outbox cannot be read or marked.
pub async fn sweep(
    database: &Database,
    bus: &EventBus,
    limit: i64,
    now: Timestamp,
) -> Result<Published, store::Error> {
    let client = database.client().await?;
    let db: &Client = &client;
    let messages = outbox::claim(db, limit, now).await?;
    publish(db, bus, &messages, now).await
}
