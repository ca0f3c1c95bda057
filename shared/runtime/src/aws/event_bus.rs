//! The EventBridge bus domain events are published on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_types::SdkConfig;
use serde_json::Value;
use tokio::time::Instant;

use super::Error;
use crate::config::{self, Environment};

/// The `source` of every event of this bundle.
pub const SOURCE: &str = "deedpro.billing";
const SERVICE: &str = "EventBridge";
/// `PutEvents` takes at most ten entries …
const ENTRIES_PER_CALL: usize = 10;
/// … with 256 KiB in all. The remainder is for the fixed fields.
const BYTES_PER_CALL: usize = 240 * 1024;

/// The longest time the bus may take while somebody waits …
const INLINE_TIMEOUT: Duration = Duration::from_millis(150);
/// … and how long nobody waits for it after a failure.
const REST: Duration = Duration::from_secs(30);

/// The bus, and the client that reaches it. Clones share what they know of its failures.
#[derive(Debug, Clone)]
pub struct EventBus {
    client: aws_sdk_eventbridge::Client,
    bus_name: String,
    rests_until: Arc<Mutex<Option<Instant>>>,
}

/// One event to publish.
#[derive(Debug, Clone, Copy)]
pub struct BusEntry<'a> {
    /// The kind of event, such as `payment.succeeded`.
    pub detail_type: &'a str,
    /// The envelope `{event_id, occurred_at, subject, data}`.
    pub detail: &'a Value,
}

/// Whether the bus took an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The bus has the event.
    Published,
    /// The bus does not have the event; it stays in the outbox.
    Failed {
        /// The bus's code and message, or why it was not reached.
        reason: String,
    },
}

impl EventBus {
    /// The bus with this name.
    pub fn new(client: aws_sdk_eventbridge::Client, bus_name: impl Into<String>) -> EventBus {
        EventBus {
            client,
            bus_name: bus_name.into(),
            rests_until: Arc::default(),
        }
    }

    /// The bus that `EVENT_BUS_NAME` names, with short time-outs.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<EventBus, config::Error> {
        Ok(EventBus::new(
            aws_sdk_eventbridge::Client::new(&super::impatient(sdk)),
            environment.required("EVENT_BUS_NAME")?,
        ))
    }

    /// As [`EventBus::publish`], while somebody waits: for at most 150 ms, and not at all for 30 seconds after a failure,
    /// of the bus or of one entry. `None` when the bus was not asked or did not answer.
    pub async fn publish_at_once(&self, entries: &[BusEntry<'_>]) -> Option<Vec<Outcome>> {
        if self
            .rests_until()
            .is_some_and(|until| Instant::now() < until)
        {
            return None;
        }
        let outcomes = tokio::time::timeout(INLINE_TIMEOUT, self.publish(entries)).await;
        let is_published = |outcome: &Outcome| *outcome == Outcome::Published;
        if !outcomes
            .as_ref()
            .is_ok_and(|outcomes| outcomes.iter().all(is_published))
        {
            *self.rests_until() = Some(Instant::now() + REST);
        }
        outcomes.ok()
    }

    fn rests_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let locked = self.rests_until.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the entries in as few calls as allowed; returns one outcome per entry, in order. `PutEvents` answers
    /// 200 even when entries failed. After a call that fails as a whole, no more calls are made.
    pub async fn publish(&self, entries: &[BusEntry<'_>]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let details: Vec<String> = entries
            .iter()
            .map(|entry| entry.detail.to_string())
            .collect();
        while outcomes.len() < entries.len() {
            let start = outcomes.len();
            let end = call_end(&details, start);
            match self.put(&entries[start..end], &details[start..end]).await {
                Ok(answers) => outcomes.extend(answers),
                Err(error) => {
                    let reason = crate::telemetry::cause_chain(&error);
                    outcomes.resize(entries.len(), Outcome::Failed { reason });
                }
            }
        }
        outcomes
    }

    async fn put(
        &self,
        entries: &[BusEntry<'_>],
        details: &[String],
    ) -> Result<Vec<Outcome>, Error> {
        let entries: Vec<PutEventsRequestEntry> = entries
            .iter()
            .zip(details)
            .map(|(entry, detail)| {
                PutEventsRequestEntry::builder()
                    .event_bus_name(&self.bus_name)
                    .source(SOURCE)
                    .detail_type(entry.detail_type)
                    .detail(detail)
                    .build()
            })
            .collect();
        let expected = entries.len();
        let answer = self
            .client
            .put_events()
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        let outcomes: Vec<Outcome> = answer
            .entries()
            .iter()
            .map(|entry| match entry.error_code() {
                None => Outcome::Published,
                Some(code) => Outcome::Failed {
                    reason: format!("{code}: {}", entry.error_message().unwrap_or_default()),
                },
            })
            .collect();
        if outcomes.len() == expected {
            Ok(outcomes)
        } else {
            Err(Error::Unreadable {
                service: SERVICE,
                what: format!("{} answers to {expected} entries", outcomes.len()),
            })
        }
    }

    /// Whether the bus exists and may be described.
    pub async fn check(&self) -> Result<(), Error> {
        let answer = self.client.describe_event_bus().name(&self.bus_name).send();
        answer
            .await
            .map(drop)
            .map_err(|error| Error::unavailable(SERVICE, error))
    }
}

/// The end of the call that begins at `start`: at least one entry, at most ten, and no more bytes than fit.
fn call_end(details: &[String], start: usize) -> usize {
    let mut bytes = 0;
    let mut end = start;
    while end < details.len() && end - start < ENTRIES_PER_CALL {
        bytes += details[end].len();
        if end > start && bytes > BYTES_PER_CALL {
            break;
        }
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_ten_entries_or_what_fits() {
        let small = vec!["x".to_owned(); 25];
        assert_eq!(call_end(&small, 0), 10);
        assert_eq!(call_end(&small, 20), 25);
        let large = vec!["x".repeat(100 * 1024); 4];
        assert_eq!(call_end(&large, 0), 2);
        let huge = vec!["x".repeat(300 * 1024); 2];
        assert_eq!(call_end(&huge, 0), 1, "left to the bus to refuse");
    }
}
