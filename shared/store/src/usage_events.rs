//! `usage_events`: each usage event once for ever, and its share of `usage_daily` in the same transaction.

use std::collections::HashSet;
use std::pin::pin;

use futures_util::try_join;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{GenericClient, Statement};

use super::{Error, usage_daily};
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

impl NewEvent<'_> {
    /// Its subject and its idempotency key.
    fn key(&self) -> (&str, &str) {
        (self.subject, self.idempotency_key)
    }
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
    /// When it was voided; `None` while it counts.
    pub voided_at: Option<Timestamp>,
}

/// An event that has been voided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voided {
    /// When the event was first voided.
    pub voided_at: Timestamp,
    /// The reason that was given.
    pub reason: String,
}

/// Writes the events with new keys, adds them to `usage_daily`, and returns the others' keys, each with the digest that is
/// stored under it; `None` for the predecessor's rows. No key may come twice. The transaction must have locked the
/// subjects' meters before ([`super::locks::take_meters`]): whoever writes events does, so that a key that is not there
/// stays new.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn insert_all(
    db: &impl GenericClient,
    events: &[NewEvent<'_>],
    now: Timestamp,
) -> Result<Vec<(Key, Option<String>)>, Error> {
    match events {
        [] => Ok(Vec::new()),
        [event] if insert(db, event, now).await? => Ok(Vec::new()),
        [event] => digests(db, &[event]).await,
        events => insert_batch(db, events, now).await,
    }
}

/// Writes one event and its share in one statement: a look-up, a copy and a sum would be three.
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

/// Looks the keys up and copies the rows that are new. In the order of their keys, so that neighbours in the index follow
/// one another; sorted here, since Postgres would compare by the database's collation.
async fn insert_batch(
    db: &impl GenericClient,
    events: &[NewEvent<'_>],
    now: Timestamp,
) -> Result<Vec<(Key, Option<String>)>, Error> {
    let mut events: Vec<&NewEvent<'_>> = events.iter().collect();
    events.sort_unstable_by_key(|event| event.key());
    // The statement of the copy in the same flight.
    let prepared = async { Ok::<_, Error>(db.prepare(COPY).await?) };
    let (taken, statement) = try_join!(digests(db, &events), prepared)?;
    if !taken.is_empty() {
        let keys = taken
            .iter()
            .map(|((subject, key), _)| (subject.as_str(), key.as_str()));
        let keys: HashSet<(&str, &str)> = keys.collect();
        events.retain(|event| !keys.contains(&event.key()));
    }
    if !events.is_empty() {
        copy(db, statement, &events, now).await?;
        usage_daily::add(db, &events).await?;
    }
    Ok(taken)
}

/// The one statement that has to be prepared: `COPY` has no unnamed form. It is closed again within the transaction.
const COPY: &str = "-- usage_events::copy
     COPY usage_events
         (subject, idempotency_key, user_id, api_key_prefix, event_type, resource_id, billable, cost_units,
          unit_price_cents, currency, created_at, metadata, payload_sha256, ingested_at)
     FROM STDIN (FORMAT binary)";

/// Writes the rows in the way that costs Postgres least.
async fn copy(
    db: &impl GenericClient,
    statement: Statement,
    events: &[&NewEvent<'_>],
    now: Timestamp,
) -> Result<(), Error> {
    const TYPES: [Type; 14] = [
        Type::TEXT,
        Type::TEXT,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::TIMESTAMPTZ,
        Type::JSONB,
        Type::TEXT,
        Type::TIMESTAMPTZ,
    ];
    let sink = db.client().copy_in(&statement).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for event in events {
        let row: [&(dyn ToSql + Sync); TYPES.len()] = [
            &event.subject,
            &event.idempotency_key,
            &event.user_id,
            &event.api_key_prefix,
            &event.event_type,
            &event.resource_id,
            &event.billable,
            &event.cost_units,
            &event.unit_price_cents,
            &event.currency.as_str(),
            &event.occurred_at,
            &event.metadata.map(Json),
            &event.payload_sha256,
            &now,
        ];
        writer.as_mut().write(&row).await?;
    }
    let copied = writer.as_mut().finish().await?;
    let expected = u64::try_from(events.len()).unwrap_or(u64::MAX);
    Error::check_row_count("usage_events::copy", expected, copied)
}

/// The digests of the stored events among these; `None` for the predecessor's rows.
async fn digests(
    db: &impl GenericClient,
    events: &[&NewEvent<'_>],
) -> Result<Vec<(Key, Option<String>)>, Error> {
    let subjects: Vec<&str> = events.iter().map(|event| event.subject).collect();
    let idempotency_keys: Vec<&str> = events.iter().map(|event| event.idempotency_key).collect();
    let rows = db
        .query_typed(
            "-- usage_events::digests
             SELECT asked.subject, asked.idempotency_key, stored.payload_sha256
             FROM unnest($1, $2) AS asked (subject, idempotency_key)
             -- Each by its key: a join might read the whole table while it is small.
             CROSS JOIN LATERAL (
                 SELECT payload_sha256 FROM usage_events
                 WHERE subject = asked.subject AND idempotency_key = asked.idempotency_key
                 LIMIT 1
             ) AS stored",
            &[
                (&subjects, Type::TEXT_ARRAY),
                (&idempotency_keys, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let key = (row.try_get("subject")?, row.try_get("idempotency_key")?);
            Ok((key, row.try_get("payload_sha256")?))
        })
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
             SELECT payload_sha256, metadata, voided_at FROM usage_events WHERE subject = $1 AND idempotency_key = $2",
            &[(&subject, Type::TEXT), (&idempotency_key, Type::TEXT)],
        )
        .await?;
    rows.first()
        .map(|row| {
            Ok(Stored {
                payload_sha256: row.try_get("payload_sha256")?,
                metadata: row.try_get("metadata")?,
                voided_at: row.try_get("voided_at")?,
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
