//! The meters' locks: what is counted against a limit is counted one batch at a time. What the ledger locks is in
//! [`crate::ledger`].

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// The number of meters: a batch holds at most this many locks, however many subjects it has. Postgres keeps the locks
/// of all transactions in one table with, by default, 6,400 places.
const METERS: u8 = 64;
/// The first of the two numbers of a meter's lock, which separates it from every other lock.
const METER_SPACE: i32 = 1_970_495_333;

/// Locks the meters that count these subjects, in ascending order, until the end of the transaction. Each subject
/// belongs to one of 64 meters. Read what a limit is compared with in a statement after this one.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn take_meters(db: &impl GenericClient, subjects: &[&str]) -> Result<(), Error> {
    let meters: BTreeSet<i32> = subjects.iter().map(|subject| meter_of(subject)).collect();
    let meters: Vec<i32> = meters.into_iter().collect();
    db.execute_typed(
        "-- locks::take_meters
         SELECT CAST(pg_advisory_xact_lock($1, meter) AS text) AS locked FROM unnest($2) AS meter",
        &[(&METER_SPACE, Type::INT4), (&meters, Type::INT4_ARRAY)],
    )
    .await?;
    Ok(())
}

/// The meter of a subject. A digest, because it must be the same in every release: releases that count on different
/// meters would not wait for each other.
fn meter_of(subject: &str) -> i32 {
    let digest: [u8; 32] = Sha256::digest(subject.as_bytes()).into();
    let [first, ..] = digest;
    i32::from(first % METERS)
}
