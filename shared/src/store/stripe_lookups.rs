//! `stripe_lookups`: what an event names but does not carry, to be fetched by the redrive.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// One thing to fetch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// The object to retrieve: `balance_transaction`, `subscription`, `price`, `invoice_lines`,
    /// `invoice_payments`, or the object of an undecidable snapshot.
    pub kind: &'static str,
    pub stripe_id: String,
    pub reason: &'static str,
    /// The time of the event that named it.
    pub requested_at: Timestamp,
}

/// Makes the open look-ups about the given `(kind, stripe_id)` pairs exactly `wanted`: what an
/// event has brought in the meantime need not be fetched, and what one look-up asks for is asked
/// for once. The earliest event that named it dates it.
///
/// # Errors
/// When the statement fails.
pub async fn replace(
    db: &impl GenericClient,
    subjects: &[(&'static str, String)],
    wanted: &[Lookup],
) -> Result<(), Error> {
    let subject_kinds: Vec<&str> = subjects.iter().map(|(kind, _)| *kind).collect();
    let subject_ids: Vec<&str> = subjects.iter().map(|(_, id)| id.as_str()).collect();
    let kinds: Vec<&str> = wanted.iter().map(|lookup| lookup.kind).collect();
    let ids: Vec<&str> = wanted
        .iter()
        .map(|lookup| lookup.stripe_id.as_str())
        .collect();
    let reasons: Vec<&str> = wanted.iter().map(|lookup| lookup.reason).collect();
    let requested_at: Vec<Timestamp> = wanted.iter().map(|lookup| lookup.requested_at).collect();
    db.execute_typed(
        "-- stripe_lookups::replace
         WITH wanted AS (
             SELECT kind, stripe_id, reason, min(requested_at) AS requested_at
             FROM unnest($3, $4, $5, $6) AS wanted (kind, stripe_id, reason, requested_at)
             GROUP BY kind, stripe_id, reason
         ), answered AS (
             DELETE FROM stripe_lookups
             USING unnest($1, $2) AS subject (kind, stripe_id)
             WHERE stripe_lookups.kind = subject.kind
               AND stripe_lookups.stripe_id = subject.stripe_id
               AND stripe_lookups.done_at IS NULL
               AND NOT EXISTS (
                   SELECT FROM wanted
                   WHERE wanted.kind = stripe_lookups.kind
                     AND wanted.stripe_id = stripe_lookups.stripe_id
                     AND wanted.reason = stripe_lookups.reason)
         )
         INSERT INTO stripe_lookups AS stored (kind, stripe_id, reason, requested_at)
         SELECT kind, stripe_id, reason, requested_at FROM wanted
         ON CONFLICT (kind, stripe_id, reason) WHERE done_at IS NULL DO UPDATE SET
             requested_at = least(stored.requested_at, excluded.requested_at)",
        &[
            (&subject_kinds, Type::TEXT_ARRAY),
            (&subject_ids, Type::TEXT_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&requested_at, Type::TIMESTAMPTZ_ARRAY),
        ],
    )
    .await?;
    Ok(())
}
