//! Advisory locks: everything about one customer is applied one event at a time.
//!
//! Lock order: one statement takes all keys of an event in ascending order. An event that needs further keys releases
//! its locks first ([`release`]) and takes all of them again. After it has written it cannot do that; if it then meets
//! another one in the same state, Postgres refuses one of the two after a second, and its transaction is run again.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// Locks `keys`, and the stored customers and intents that the charges, intents and invoices among them belong to,
/// until the end of the transaction. Returns the locked keys.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn take(db: &impl GenericClient, keys: &[String]) -> Result<BTreeSet<String>, Error> {
    let rows = db
        .query_typed(
            "-- locks::take
             WITH named AS (
                 SELECT unnest($1) AS key
                 UNION SELECT unnest(ARRAY[stripe_customer_id, stripe_payment_intent_id])
                       FROM payment_attempts WHERE stripe_charge_id = ANY($1)
                 UNION SELECT stripe_customer_id
                       FROM payment_intents WHERE stripe_payment_intent_id = ANY($1)
                 UNION SELECT stripe_customer_id
                       FROM invoices WHERE stripe_invoice_id = ANY($1)
                 UNION SELECT COALESCE(stripe_payment_intent_id, stripe_charge_id)
                       FROM invoice_payments WHERE stripe_invoice_id = ANY($1)
             ), ordered AS MATERIALIZED (
                 SELECT key FROM named WHERE key IS NOT NULL ORDER BY key
             )
             SELECT key, CAST(pg_advisory_xact_lock(hashtextextended(key, 0)) AS text) AS locked
             FROM ordered",
            &[(&keys, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("key")?)).collect()
}

/// Marks the point that [`release`] goes back to. Send it before the first [`take`], and after the writes that must
/// stay.
pub async fn begin(db: &impl GenericClient) -> Result<(), Error> {
    db.batch_execute("-- locks::begin\nSAVEPOINT before_locks")
        .await?;
    Ok(())
}

/// Undoes everything since [`begin`]; Postgres also frees the locks taken since.
pub async fn release(db: &impl GenericClient) -> Result<(), Error> {
    db.batch_execute("-- locks::release\nROLLBACK TO SAVEPOINT before_locks")
        .await?;
    Ok(())
}

/// Locks a user until the end of the transaction, so that two customers of one user decide on its plan one after the
/// other. Taken after the customer's lock.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn take_user(db: &impl GenericClient, user_id: i32) -> Result<(), Error> {
    db.execute_typed(
        "-- locks::take_user
         SELECT pg_advisory_xact_lock(hashtextextended('user:' || $1, 0))",
        &[(&user_id.to_string(), Type::TEXT)],
    )
    .await?;
    Ok(())
}

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
