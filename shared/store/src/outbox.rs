//! `outbox`: domain events, written in the transaction of their effect and published after its commit. A sweep
//! publishes what could not be published then.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;

/// How long a claimed message is kept from other sweeps. After that its claimer is taken to have died.
const CLAIM: SignedDuration = SignedDuration::from_secs(60);

/// How long a new message is left to whoever wrote it and publishes it after the commit.
const HEAD_START: SignedDuration = SignedDuration::from_secs(30);

/// A domain event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMessage {
    /// The kind of event on the bus, such as `payment.succeeded`.
    pub detail_type: &'static str,
    /// The envelope's `event_id`. The same fact, learned twice, gives one message.
    pub dedupe_key: String,
    /// The whole envelope `{event_id, occurred_at, subject, data}`: ids and amounts only.
    pub detail: Value,
}

/// A message in the table that is not published yet.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct Message {
    /// The surrogate key, which is also the order of publication.
    pub id: i64,
    /// The kind of event on the bus.
    pub detail_type: String,
    /// The `event_id` of the envelope.
    pub dedupe_key: String,
    /// The whole envelope, as the bus gets it.
    pub detail: Value,
}

/// Writes the messages that are not stored yet and returns those it wrote, in the given order. One statement, whatever
/// their number; no statement for no messages.
pub async fn insert_all(
    db: &impl GenericClient,
    messages: &[NewMessage],
    now: Timestamp,
) -> Result<Vec<Message>, Error> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let detail_types: Vec<&str> = messages.iter().map(|message| message.detail_type).collect();
    let dedupe_keys: Vec<&str> = messages
        .iter()
        .map(|message| message.dedupe_key.as_str())
        .collect();
    let details: Vec<Json<&Value>> = messages
        .iter()
        .map(|message| Json(&message.detail))
        .collect();
    let rows = db
        .query_typed(
            "-- outbox::insert_all
             INSERT INTO outbox (detail_type, dedupe_key, detail, created_at)
             SELECT detail_type, dedupe_key, detail, $4
             FROM unnest($1, $2, $3) WITH ORDINALITY AS new (detail_type, dedupe_key, detail, position)
             ORDER BY position
             ON CONFLICT (dedupe_key) DO NOTHING
             RETURNING id, detail_type, dedupe_key, detail",
            &[
                (&detail_types, Type::TEXT_ARRAY),
                (&dedupe_keys, Type::TEXT_ARRAY),
                (&details, Type::JSONB_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    from_rows(&rows)
}

/// Claims up to `limit` unpublished messages that are due, oldest first, for a minute. One is due 30 seconds after it was
/// written, at once when the run whose instant is `now` wrote it, which publishes nothing otherwise; and once its pause is
/// over. Skips rows that another transaction holds, so that sweeps never wait for each other.
pub async fn claim(
    db: &impl GenericClient,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Message>, Error> {
    let until = now.saturating_add(CLAIM).unwrap_or(Timestamp::MAX);
    let written_until = now.saturating_sub(HEAD_START).unwrap_or(Timestamp::MIN);
    let rows = db
        .query_typed(
            "-- outbox::claim
             WITH due AS (
                 SELECT id FROM outbox
                 WHERE published_at IS NULL AND (created_at <= $4 OR created_at = $2)
                   AND (next_attempt_at IS NULL OR next_attempt_at <= $2)
                 ORDER BY id
                 LIMIT $1
                 FOR UPDATE SKIP LOCKED
             ), claimed AS (
                 UPDATE outbox SET next_attempt_at = $3
                 FROM due WHERE outbox.id = due.id
                 RETURNING outbox.id, outbox.detail_type, outbox.dedupe_key, outbox.detail
             )
             SELECT id, detail_type, dedupe_key, detail FROM claimed ORDER BY id",
            &[
                (&limit, Type::INT8),
                (&now, Type::TIMESTAMPTZ),
                (&until, Type::TIMESTAMPTZ),
                (&written_until, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    from_rows(&rows)
}

/// Marks messages that the bus has taken. Returns how many were not marked before: fewer than given means that two
/// publishers may both have sent one.
pub async fn mark_published(
    db: &impl GenericClient,
    ids: &[i64],
    now: Timestamp,
) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let changed = db
        .execute_typed(
            "-- outbox::mark_published
             UPDATE outbox SET published_at = $2, attempts = attempts + 1, last_error = NULL
             WHERE id = ANY($1) AND published_at IS NULL",
            &[(&ids, Type::INT8_ARRAY), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(changed)
}

/// Records that the bus refused the messages, each with its reason. They are due again after a pause that doubles from
/// 30 seconds to an hour. Returns how many are still unpublished.
pub async fn mark_failed(
    db: &impl GenericClient,
    failures: &[(i64, String)],
    now: Timestamp,
) -> Result<u64, Error> {
    if failures.is_empty() {
        return Ok(0);
    }
    let ids: Vec<i64> = failures.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<&str> = failures.iter().map(|(_, reason)| reason.as_str()).collect();
    let changed = db
        .execute_typed(
            "-- outbox::mark_failed
             UPDATE outbox
             SET attempts = outbox.attempts + 1, last_error = failed.reason,
                 next_attempt_at = $3 + least(interval '1 hour', interval '30 seconds' * (1 << least(outbox.attempts, 7)))
             FROM unnest($1, $2) AS failed (id, reason)
             WHERE outbox.id = failed.id AND outbox.published_at IS NULL",
            &[
                (&ids, Type::INT8_ARRAY),
                (&reasons, Type::TEXT_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(changed)
}

fn from_rows(rows: &[Row]) -> Result<Vec<Message>, Error> {
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<Message, Error> {
    Ok(Message {
        id: row.try_get("id")?,
        detail_type: row.try_get("detail_type")?,
        dedupe_key: row.try_get("dedupe_key")?,
        detail: row.try_get("detail")?,
    })
}

/// Messages that the bus has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = UnpublishedMessages)]
pub struct Unpublished {
    /// How many there are.
    pub unpublished: i64,
    /// When the oldest was written.
    pub oldest_at: Option<Timestamp>,
}

/// How many messages are not published yet, and since when.
///
/// # Errors
/// When the statement fails.
pub async fn unpublished(db: &impl GenericClient) -> Result<Unpublished, Error> {
    let row = db
        .query_typed_one(
            "-- outbox::unpublished
             SELECT count(*) AS unpublished, min(created_at) AS oldest_at FROM outbox WHERE published_at IS NULL",
            &[],
        )
        .await?;
    Ok(Unpublished {
        unpublished: row.try_get("unpublished")?,
        oldest_at: row.try_get("oldest_at")?,
    })
}
