//! Events of Stripe's partner bus, as SQS hands them over: up to a hundred at once, each in EventBridge's envelope.

use std::borrow::Cow;

use jiff::Timestamp;
use runtime::telemetry::log_failure;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use stripe::event;

use crate::Clients;
use crate::receive::{self, Readable};

/// The messages of one invocation.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<Record<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow)]
    event_source: Cow<'a, str>,
    #[serde(borrow)]
    message_id: Cow<'a, str>,
    #[serde(borrow)]
    body: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    detail: &'a RawValue,
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the message is no event of Stripe's partner bus")]
    Envelope,
    /// Without its cause, which may quote the event.
    #[error("the message has no event of Stripe's: {0}")]
    Event(event::Error),
}

impl<'a> Batch<'a> {
    /// `None` when the invocation is something else.
    pub(crate) fn of(invocation: &'a str) -> Option<Batch<'a>> {
        let batch: Batch<'a> = serde_json::from_str(invocation).ok()?;
        let mut records = batch.records.iter();
        records
            .all(|record| record.event_source == "aws:sqs")
            .then_some(batch)
    }

    /// Keeps the events. The answer names the messages whose event was not kept: SQS gives them again, and then to the
    /// dead-letter queue.
    pub(crate) async fn keep(&self, app: &Clients, now: Timestamp) -> Value {
        let mut failed = Vec::new();
        let (mut ids, mut events) = (Vec::new(), Vec::new());
        for record in &self.records {
            match readable(&record.body) {
                Ok(event) => {
                    ids.push(&record.message_id);
                    events.push(event);
                }
                Err(error) => {
                    log_failure("a message of the queue was not kept", &error);
                    failed.push(&record.message_id);
                }
            }
        }
        let kept = receive::keep_all(app, &events, now).await;
        for (message_id, kept) in ids.into_iter().zip(kept) {
            if let Err(error) = kept {
                log_failure("a message of the queue was not kept", &error);
                failed.push(message_id);
            }
        }
        let failures = failed.iter().map(|id| json!({"itemIdentifier": id}));
        json!({"batchItemFailures": failures.collect::<Vec<Value>>()})
    }
}

fn readable(body: &str) -> Result<Readable<'_>, Unreadable> {
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(body) else {
        return Err(Unreadable::Envelope);
    };
    if !envelope.source.starts_with(crate::PARTNER_SOURCE) {
        return Err(Unreadable::Envelope);
    }
    Readable::of(envelope.detail.get()).map_err(Unreadable::Event)
}
