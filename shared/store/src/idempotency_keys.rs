//! `idempotency_keys`: the answer a key got, committed with the effect it tells of.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// What a key was first used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Method and path.
    pub route: String,
    /// Hex digest of the body.
    pub request_sha256: String,
}

/// A key's first use and the answer it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub first_use: Use,
    pub status: i32,
    pub body: String,
}

/// Takes a key; false when it has been used. A use that is going on elsewhere is waited for: it ends in an answer, or
/// leaves the key free.
///
/// # Errors
/// When the statement fails.
pub async fn take(
    db: &impl GenericClient,
    key: &str,
    first_use: &Use,
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = db
        .execute_typed(
            "-- idempotency_keys::take
             INSERT INTO idempotency_keys (key, route, request_sha256, created_at)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (key) DO NOTHING",
            &[
                (&key, Type::TEXT),
                (&first_use.route, Type::TEXT),
                (&first_use.request_sha256, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// The answer that a used key got.
///
/// # Errors
/// When the statement fails, or there is no answer.
pub async fn get(db: &impl GenericClient, key: &str) -> Result<Answered, Error> {
    let rows = db
        .query_typed(
            "-- idempotency_keys::get
             SELECT route, request_sha256, status, body FROM idempotency_keys
             WHERE key = $1 AND status IS NOT NULL",
            &[(&key, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Err(Error::RowCount {
            statement: "idempotency_keys::get",
            expected: 1,
            changed: 0,
        });
    };
    Ok(Answered {
        first_use: Use {
            route: row.try_get("route")?,
            request_sha256: row.try_get("request_sha256")?,
        },
        status: row.try_get("status")?,
        body: row.try_get("body")?,
    })
}

/// Writes down the answer to a key that was taken in this transaction.
///
/// # Errors
/// When the statement fails.
pub async fn answer(
    db: &impl GenericClient,
    key: &str,
    status: i32,
    body: &str,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- idempotency_keys::answer
             UPDATE idempotency_keys SET status = $2, body = $3 WHERE key = $1 AND status IS NULL",
            &[
                (&key, Type::TEXT),
                (&status, Type::INT4),
                (&body, Type::TEXT),
            ],
        )
        .await?;
    Error::check_row_count("idempotency_keys::answer", 1, changed)
}
