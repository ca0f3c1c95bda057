//! Publishing: domain events from the outbox to the bus, after the commit of their effect.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Client;

use runtime::aws::event_bus::{BusEntry, EventBus, Outcome};
use runtime::telemetry::log_failure;
use store::{Connection, Database, outbox};

/// The longest time that marking what the bus took may take while somebody waits.
const MARK_TIMEOUT: Duration = Duration::from_millis(500);

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
async fn publish(
    db: &Client,
    bus: &EventBus,
    messages: &[outbox::Message],
    now: Timestamp,
) -> Result<Published, store::Error> {
    if messages.is_empty() {
        return Ok(Published::default());
    }
    let outcomes = bus.publish(&entries(messages)).await;
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

/// Publishes committed messages, best effort: the bus may take 150 ms, and is not asked for 30 seconds after a failure. The
/// sweep publishes what remains, which is everything when there is no bus. Logs a failure here, since the effect it
/// belongs to has been committed.
pub async fn publish_after_commit(
    database: &Database,
    connection: Connection,
    bus: Option<&EventBus>,
    messages: &[outbox::Message],
    now: Timestamp,
) {
    if messages.is_empty() {
        return;
    }
    let Some(bus) = bus else {
        tracing::warn!("no bus is configured: messages stay in the outbox");
        return;
    };
    let Some(outcomes) = bus.publish_at_once(&entries(messages)).await else {
        let waiting = messages.len();
        tracing::warn!(
            waiting,
            "the bus is slow or away: messages stay in the outbox"
        );
        return;
    };
    let mut published = Vec::new();
    for (message, outcome) in messages.iter().zip(outcomes) {
        match outcome {
            Outcome::Published => published.push(message.id),
            Outcome::Failed { reason } => {
                tracing::warn!(cause = reason, "a message stays in the outbox");
            }
        }
    }
    let db: &Client = &connection;
    let marked = outbox::mark_published(db, &published, now);
    match tokio::time::timeout(MARK_TIMEOUT, marked).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => log_failure("messages were published and not marked", &error),
        Err(_elapsed) => {
            tracing::warn!("messages were published and not marked in time");
            database.abandon(connection).await;
        }
    }
}

fn entries(messages: &[outbox::Message]) -> Vec<BusEntry<'_>> {
    messages
        .iter()
        .map(|message| BusEntry {
            detail_type: &message.detail_type,
            detail: &message.detail,
        })
        .collect()
}

/// Publishes what is due in the outbox, oldest first, up to `limit` messages. What is younger than 30 seconds and
/// not of this run may be on its way.
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
