//! `stripe_lookups`: objects that an event names but does not carry, for the redrive to fetch.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// An object to fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// What to retrieve: `balance_transaction`, `subscription`, `price`, `invoice_lines`, `invoice_payments`, or the
    /// object whose snapshots are undecided.
    pub kind: &'static str,
    pub stripe_id: String,
    pub reason: &'static str,
    /// The time of the event that named it.
    pub requested_at: Timestamp,
}

/// A look-up that a run has leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    pub id: i64,
    pub kind: String,
    pub stripe_id: String,
    pub reason: String,
    /// How many attempts have failed.
    pub attempts: i32,
}

/// Leases up to `limit` due look-ups to this run until `leased_until`, oldest request first. An invoice's payment, and the
/// name of a charge's balance transaction, have an hour to arrive in an event (`docs/stripe.md`), and nothing is fetched with a time before the event that requested it.
pub async fn lease(
    db: &impl GenericClient,
    limit: i64,
    leased_until: Timestamp,
    now: Timestamp,
) -> Result<Vec<Leased>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_lookups::lease
             UPDATE stripe_lookups SET next_attempt_at = $2
             WHERE id IN (
                 SELECT id FROM stripe_lookups
                 WHERE done_at IS NULL AND (next_attempt_at IS NULL OR next_attempt_at <= $3)
                   AND requested_at <= CASE WHEN kind = 'invoice_payments' OR kind = 'charge' AND reason = 'fee'
                                            THEN $3::timestamptz - interval '1 hour' ELSE $3 END
                 ORDER BY id
                 LIMIT $1
                 FOR UPDATE SKIP LOCKED)
             RETURNING id, kind, stripe_id, reason, attempts",
            &[
                (&limit, Type::INT8),
                (&leased_until, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let mut leased = rows
        .iter()
        .map(|row| {
            Ok(Leased {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                stripe_id: row.try_get("stripe_id")?,
                reason: row.try_get("reason")?,
                attempts: row.try_get("attempts")?,
            })
        })
        .collect::<Result<Vec<Leased>, Error>>()?;
    leased.sort_by_key(|lookup| lookup.id);
    Ok(leased)
}

/// Returns leased look-ups that were not asked for.
pub async fn release(
    db: &impl GenericClient,
    ids: &[i64],
    leased_until: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_lookups::release
         UPDATE stripe_lookups SET next_attempt_at = NULL
         WHERE id = ANY($1) AND done_at IS NULL AND next_attempt_at = $2",
        &[(&ids, Type::INT8_ARRAY), (&leased_until, Type::TIMESTAMPTZ)],
    )
    .await?;
    Ok(())
}

/// Closes the look-up in the transaction that applies the answer, before it is applied: what the answer leaves open
/// requests a new look-up, see [`withdraw_repetition`]. False when an event has brought the answer meanwhile.
pub async fn complete(db: &impl GenericClient, id: i64, now: Timestamp) -> Result<bool, Error> {
    let changed = db
        .execute_typed(
            "-- stripe_lookups::complete
             UPDATE stripe_lookups SET done_at = $2, next_attempt_at = NULL, last_error = NULL
             WHERE id = $1 AND done_at IS NULL",
            &[(&id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(changed == 1)
}

/// Withdraws the look-up that the answer to this one requested, if it requests the same again.
pub async fn withdraw_repetition(db: &impl GenericClient, id: i64) -> Result<bool, Error> {
    let changed = db
        .execute_typed(
            "-- stripe_lookups::withdraw_repetition
             DELETE FROM stripe_lookups AS repeated
             USING stripe_lookups AS done
             WHERE done.id = $1 AND repeated.kind = done.kind
               AND repeated.stripe_id = done.stripe_id AND repeated.reason = done.reason
               AND repeated.done_at IS NULL",
            &[(&id, Type::INT8)],
        )
        .await?;
    Ok(changed > 0)
}

/// Records a failed attempt. Opens a look-up that was closed.
pub async fn fail(
    db: &impl GenericClient,
    id: i64,
    reason: &str,
    next_attempt_at: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- stripe_lookups::fail
         UPDATE stripe_lookups
         SET done_at = NULL, attempts = attempts + 1, last_error = $2, next_attempt_at = $3
         WHERE id = $1",
        &[
            (&id, Type::INT8),
            (&reason, Type::TEXT),
            (&next_attempt_at, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// Of these objects, those that an unfinished look-up of this kind asks for.
pub async fn unfinished(
    db: &impl GenericClient,
    kind: &str,
    stripe_ids: &[&str],
) -> Result<BTreeSet<String>, Error> {
    let rows = db
        .query_typed(
            "-- stripe_lookups::unfinished
             SELECT stripe_id FROM stripe_lookups
             WHERE kind = $1 AND stripe_id = ANY($2) AND done_at IS NULL",
            &[(&kind, Type::TEXT), (&stripe_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(row.try_get("stripe_id")?))
        .collect()
}

/// The number of look-ups that are due.
pub async fn count_due(db: &impl GenericClient, now: Timestamp) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "-- stripe_lookups::count_due
             SELECT count(*) AS due FROM stripe_lookups
             WHERE done_at IS NULL AND (next_attempt_at IS NULL OR next_attempt_at <= $1)
               AND requested_at <= CASE WHEN kind = 'invoice_payments' OR kind = 'charge' AND reason = 'fee'
                                        THEN $1::timestamptz - interval '1 hour' ELSE $1 END",
            &[(&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(row.try_get("due")?)
}
