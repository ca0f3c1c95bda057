//! `usage_events`: each usage event once for ever, and its share of `usage_daily` in the same statement.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use domain::money::Currency;

/// An event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent<'a> {
    /// Either `user:<id>` or `partner:<prefix>`.
    pub subject: &'a str,
    /// The sender's key; unique within the subject.
    pub idempotency_key: &'a str,
    /// The user's id; `None` for a partner.
    pub user_id: Option<i32>,
    /// The partner's prefix; `None` for a user.
    pub api_key_prefix: Option<&'a str>,
    /// The kind of usage, a word the sender chooses.
    pub event_type: &'a str,
    /// The id of the thing it was used on.
    pub resource_id: Option<&'a str>,
    /// Whether it counts against limits and on invoices.
    pub billable: bool,
    /// The number of units it counts for.
    pub cost_units: i64,
    /// The price of a unit in minor units of `currency`.
    pub unit_price_cents: Option<i64>,
    /// The currency of `unit_price_cents`.
    pub currency: Currency,
    /// When the usage happened.
    pub occurred_at: Timestamp,
    /// Any JSON the sender added.
    pub metadata: Option<&'a Value>,
    /// The SHA-256 digest of what the sender said, in hex.
    pub payload_sha256: &'a str,
}

/// The subject and the idempotency key of an event.
pub type Key = (String, String);

/// The members of a stored event that a reservation or a void needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The SHA-256 digest of what the sender said, in hex; `None` for the predecessor's rows.
    pub payload_sha256: Option<String>,
    /// Any JSON the sender added. A reservation keeps its answer here.
    pub metadata: Option<Value>,
}

/// An event that has been voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// When the event was first voided.
    pub voided_at: Timestamp,
    /// The reason that was given.
    pub reason: String,
}

/// Writes the events with new keys, adds them to `usage_daily`, and returns the keys that existed already. No key may
/// come twice. Waits for a transaction that is writing one of the keys.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn insert_all(
    db: &impl GenericClient,
    events: &[NewEvent<'_>],
    now: Timestamp,
) -> Result<Vec<Key>, Error> {
    match events {
        [] => Ok(Vec::new()),
        [event] => {
            let is_written = insert(db, event, now).await?;
            let key = || (event.subject.to_owned(), event.idempotency_key.to_owned());
            Ok(if is_written { Vec::new() } else { vec![key()] })
        }
        events => insert_batch(db, events, now).await,
    }
}

/// Writes one event, with a statement that Postgres plans in half the time of the batch's. No statement is prepared, so
/// each is planned each time.
async fn insert(
    db: &impl GenericClient,
    event: &NewEvent<'_>,
    now: Timestamp,
) -> Result<bool, Error> {
    let changed = db
        .execute_typed(
            "-- usage_events::insert
             WITH inserted AS (
                 INSERT INTO usage_events
                     (subject, idempotency_key, user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
                      unit_price_cents, currency, created_at, metadata, payload_sha256, ingested_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                 ON CONFLICT (subject, idempotency_key) DO NOTHING
                 RETURNING subject, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, event_type, currency, cost_units,
                           CASE WHEN billable THEN cost_units ELSE 0 END AS billable_units,
                           CASE WHEN billable THEN COALESCE(cost_units * unit_price_cents, 0) ELSE 0 END AS amount_cents
             )
             INSERT INTO usage_daily AS daily
                 (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             SELECT subject, day, event_type, currency, 1, cost_units, billable_units, amount_cents FROM inserted
             ON CONFLICT (subject, day, event_type, currency) DO UPDATE
             SET events = daily.events + EXCLUDED.events, units = daily.units + EXCLUDED.units,
                 billable_units = daily.billable_units + EXCLUDED.billable_units,
                 amount_cents = daily.amount_cents + EXCLUDED.amount_cents",
            &[
                (&event.subject, Type::TEXT),
                (&event.idempotency_key, Type::TEXT),
                (&event.user_id, Type::INT4),
                (&event.api_key_prefix, Type::TEXT),
                (&event.event_type, Type::TEXT),
                (&event.resource_id, Type::TEXT),
                (&event.billable, Type::BOOL),
                (&event.cost_units, Type::INT8),
                (&event.unit_price_cents, Type::INT8),
                (&event.currency.as_str(), Type::TEXT),
                (&event.occurred_at, Type::TIMESTAMPTZ),
                (&event.metadata.map(Json), Type::JSONB),
                (&event.payload_sha256, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(changed > 0)
}

/// Writes rows in the order of their keys, in both tables, so that two batches meet in one order and neighbours in the
/// index follow one another. Sorted here, since Postgres would compare by the database's collation.
async fn insert_batch(
    db: &impl GenericClient,
    events: &[NewEvent<'_>],
    now: Timestamp,
) -> Result<Vec<Key>, Error> {
    let mut sorted: Vec<&NewEvent<'_>> = events.iter().collect();
    sorted.sort_unstable_by_key(|event| (event.subject, event.idempotency_key));
    let column = Columns(&sorted);
    let expected = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let rows = db
        .query_typed(
            "-- usage_events::insert_batch
             WITH inserted AS (
                 INSERT INTO usage_events
                     (subject, idempotency_key, user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
                      unit_price_cents, currency, created_at, metadata, payload_sha256, ingested_at)
                 SELECT subject, idempotency_key, user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
                        unit_price_cents, currency, created_at, metadata, payload_sha256, $14
                 FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS new
                     (subject, idempotency_key, user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
                      unit_price_cents, currency, created_at, metadata, payload_sha256)
                 ON CONFLICT (subject, idempotency_key) DO NOTHING
                 RETURNING subject, idempotency_key, created_at, event_type, currency, billable, cost_units,
                           unit_price_cents
             ), rolled_up AS (
                 INSERT INTO usage_daily AS daily
                     (subject, day, event_type, currency, events, units, billable_units, amount_cents)
                 SELECT subject, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, event_type, currency, count(*),
                        CAST(sum(cost_units) AS bigint),
                        CAST(COALESCE(sum(cost_units) FILTER (WHERE billable), 0) AS bigint),
                        CAST(COALESCE(sum(cost_units * unit_price_cents) FILTER (WHERE billable), 0) AS bigint)
                 FROM inserted
                 GROUP BY subject, day, event_type, currency
                 ORDER BY subject, day, event_type, currency
                 ON CONFLICT (subject, day, event_type, currency) DO UPDATE
                 SET events = daily.events + EXCLUDED.events, units = daily.units + EXCLUDED.units,
                     billable_units = daily.billable_units + EXCLUDED.billable_units,
                     amount_cents = daily.amount_cents + EXCLUDED.amount_cents
             )
             -- The keys only when some were there: a thousand rows back are no small part of the whole.
             SELECT counted.written, inserted.subject, inserted.idempotency_key
             FROM (SELECT count(*) AS written FROM inserted) AS counted
             LEFT JOIN inserted ON counted.written < $15",
            &[
                (&column.of(|event| event.subject), Type::TEXT_ARRAY),
                (&column.of(|event| event.idempotency_key), Type::TEXT_ARRAY),
                (&column.of(|event| event.user_id), Type::INT4_ARRAY),
                (&column.of(|event| event.api_key_prefix), Type::TEXT_ARRAY),
                (&column.of(|event| event.event_type), Type::TEXT_ARRAY),
                (&column.of(|event| event.resource_id), Type::TEXT_ARRAY),
                (&column.of(|event| event.billable), Type::BOOL_ARRAY),
                (&column.of(|event| event.cost_units), Type::INT8_ARRAY),
                (&column.of(|event| event.unit_price_cents), Type::INT8_ARRAY),
                (&column.of(|event| event.currency.as_str()), Type::TEXT_ARRAY),
                (&column.of(|event| event.occurred_at), Type::TIMESTAMPTZ_ARRAY),
                (&column.of(|event| event.metadata.map(Json)), Type::JSONB_ARRAY),
                (&column.of(|event| event.payload_sha256), Type::TEXT_ARRAY),
                (&now, Type::TIMESTAMPTZ),
                (&expected, Type::INT8),
            ],
        )
        .await?;
    let written: i64 = rows.first().map_or(Ok(0), |row| row.try_get("written"))?;
    if written == expected {
        return Ok(Vec::new());
    }
    let mut written = HashSet::new();
    for row in &rows {
        let subject: Option<&str> = row.try_get("subject")?;
        let key: Option<&str> = row.try_get("idempotency_key")?;
        written.extend(subject.zip(key));
    }
    let keys = events
        .iter()
        .map(|event| (event.subject, event.idempotency_key));
    let taken = keys.filter(|key| !written.contains(key));
    Ok(taken
        .map(|(subject, key)| (subject.to_owned(), key.to_owned()))
        .collect())
}

/// The digests of the stored events among these keys; `None` for the predecessor's rows.
pub async fn digests(
    db: &impl GenericClient,
    keys: &[(&str, &str)],
) -> Result<Vec<(Key, Option<String>)>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let subjects: Vec<&str> = keys.iter().map(|(subject, _)| *subject).collect();
    let idempotency_keys: Vec<&str> = keys.iter().map(|(_, key)| *key).collect();
    let rows = db
        .query_typed(
            "-- usage_events::digests
             SELECT events.subject, events.idempotency_key, events.payload_sha256
             FROM unnest($1, $2) AS asked (subject, idempotency_key)
             JOIN usage_events AS events
                 ON events.subject = asked.subject AND events.idempotency_key = asked.idempotency_key",
            &[
                (&subjects, Type::TEXT_ARRAY),
                (&idempotency_keys, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((key_of(row)?, row.try_get("payload_sha256")?)))
        .collect()
}

/// The stored event with this key.
pub async fn get(
    db: &impl GenericClient,
    subject: &str,
    idempotency_key: &str,
) -> Result<Option<Stored>, Error> {
    let rows = db
        .query_typed(
            "-- usage_events::get
             SELECT payload_sha256, metadata FROM usage_events WHERE subject = $1 AND idempotency_key = $2",
            &[(&subject, Type::TEXT), (&idempotency_key, Type::TEXT)],
        )
        .await?;
    rows.first()
        .map(|row| {
            Ok(Stored {
                payload_sha256: row.try_get("payload_sha256")?,
                metadata: row.try_get("metadata")?,
            })
        })
        .transpose()
}

/// Voids an event: the row stays, its share of `usage_daily` goes, and the audit log has the actor and the reason. With
/// a reservation its charged part is voided, which is a separate event. `false` when there is no such event or it has
/// been voided before; then nothing changes.
pub async fn void(
    db: &impl GenericClient,
    subject: &str,
    idempotency_key: &str,
    reason: &str,
    actor: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let rows = db
        .query_typed(
            "-- usage_events::void
             WITH voided AS (
                 UPDATE usage_events SET voided_at = $4, void_reason = $3
                 WHERE subject = $1 AND idempotency_key IN ($2, $2 || ':overage') AND voided_at IS NULL
                   AND (idempotency_key = $2 OR metadata ->> 'part_of_reservation' = $2)
                 RETURNING id, subject, idempotency_key, created_at, event_type, currency, billable, cost_units,
                           unit_price_cents
             ), gone AS (
                 SELECT subject, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, event_type, currency,
                        count(*) AS events, sum(cost_units) AS units,
                        COALESCE(sum(cost_units) FILTER (WHERE billable), 0) AS billable_units,
                        COALESCE(sum(cost_units * unit_price_cents) FILTER (WHERE billable), 0) AS amount_cents
                 FROM voided GROUP BY 1, 2, 3, 4
             ), rolled_up AS (
                 UPDATE usage_daily AS daily
                 SET events = daily.events - gone.events, units = daily.units - gone.units,
                     billable_units = daily.billable_units - gone.billable_units,
                     amount_cents = daily.amount_cents - gone.amount_cents
                 FROM gone
                 WHERE daily.subject = gone.subject AND daily.day = gone.day
                   AND daily.event_type = gone.event_type AND daily.currency = gone.currency
             ), audited AS (
                 INSERT INTO audit_log (at, actor, action, target, before, after)
                 SELECT $4, $5, 'usage_event.void', 'usage_event:' || voided.id,
                        jsonb_build_object('voided_at', NULL),
                        jsonb_build_object('voided_at', $4, 'void_reason', $3, 'subject', voided.subject,
                                           'idempotency_key', voided.idempotency_key)
                 FROM voided
             )
             SELECT id FROM voided",
            &[
                (&subject, Type::TEXT),
                (&idempotency_key, Type::TEXT),
                (&reason, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
                (&actor, Type::TEXT),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// When and why an event was voided; `None` when it was not.
pub async fn voided(
    db: &impl GenericClient,
    subject: &str,
    idempotency_key: &str,
) -> Result<Option<Voided>, Error> {
    let rows = db
        .query_typed(
            "-- usage_events::voided
             SELECT voided_at, COALESCE(void_reason, '') AS void_reason FROM usage_events
             WHERE subject = $1 AND idempotency_key = $2 AND voided_at IS NOT NULL",
            &[(&subject, Type::TEXT), (&idempotency_key, Type::TEXT)],
        )
        .await?;
    rows.first()
        .map(|row| {
            Ok(Voided {
                voided_at: row.try_get("voided_at")?,
                reason: row.try_get("void_reason")?,
            })
        })
        .transpose()
}

/// The columns of events as the arrays that a statement unnests.
struct Columns<'a>(&'a [&'a NewEvent<'a>]);

impl<'a> Columns<'a> {
    fn of<T>(&self, field: impl Fn(&'a NewEvent<'a>) -> T) -> Vec<T> {
        self.0.iter().map(|event| field(event)).collect()
    }
}

fn key_of(row: &Row) -> Result<Key, Error> {
    Ok((row.try_get("subject")?, row.try_get("idempotency_key")?))
}
