//! `idempotency_keys`: the answer that a key got, committed with the effect of the request.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::Error;

/// The request that a key was first used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The method and the path.
    pub route: String,
    /// The SHA-256 digest of the body, in hex.
    pub request_sha256: String,
}

/// A key's first use and the answer it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub first_use: Use,
    pub status: i32,
    pub body: String,
    /// Whether the key's owner is known; keys from before V0031 have none.
    pub has_owner: bool,
}

/// Who a key belongs to. The same text from another actor, or on another route, is another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The text that the caller chose.
    pub key: &'a str,
    /// The actor who uses the key.
    pub actor: &'a str,
    /// The method and the pattern of the route.
    pub route: &'a str,
}

impl Owner<'_> {
    /// The text in `idempotency_keys.key`: a digest of actor and route, then the caller's text.
    fn stored_key(&self) -> String {
        let mut digest = Sha256::new();
        for part in [self.actor, self.route] {
            digest.update(part.len().to_be_bytes());
            digest.update(part.as_bytes());
        }
        format!("{}:{}", hex::encode(digest.finalize()), self.key)
    }
}

/// Whether [`take`] found the key free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The key was free and is taken.
    Now,
    /// The key was used before, with this answer.
    Before(Answered),
}

/// Takes a key, or finds the answer it got. A use that is going on elsewhere is waited for: it ends in an answer, or
/// leaves the key free.
///
/// The release before V0031 knows a key by its text alone. While it may still run, a key is also taken under its text:
/// whichever of the two releases gets a request first, the other finds its answer.
///
/// # Errors
/// When a statement fails.
pub async fn take(
    db: &Transaction<'_>,
    owner: &Owner<'_>,
    first_use: &Use,
    now: Timestamp,
) -> Result<Taken, Error> {
    let stored_key = owner.stored_key();
    let inserted = db
        .query_typed(
            "-- idempotency_keys::take
             INSERT INTO idempotency_keys (key, actor, route, request_sha256, created_at)
             VALUES ($1, $3, $4, $5, $6), ($2, $3, $4, $5, $6)
             ON CONFLICT (key) DO NOTHING
             RETURNING key",
            &[
                (&stored_key, Type::TEXT),
                (&owner.key, Type::TEXT),
                (&owner.actor, Type::TEXT),
                (&first_use.route, Type::TEXT),
                (&first_use.request_sha256, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let mut taken = Vec::with_capacity(2);
    for row in &inserted {
        taken.push(row.try_get::<_, String>("key")?);
    }
    if !taken.contains(&stored_key) {
        let answered = get(db, &stored_key).await?;
        return answered.map(Taken::Before).ok_or(Error::RowCount {
            statement: "idempotency_keys::get",
            expected: 1,
            changed: 0,
        });
    }
    if taken.iter().any(|key| key == owner.key) {
        return Ok(Taken::Now);
    }
    // Somebody else's of the same text, or the answer that the release before gave to this very request.
    let before = get(db, owner.key).await?;
    Ok(match before {
        Some(answered) if !answered.has_owner && answered.first_use == *first_use => {
            Taken::Before(answered)
        }
        Some(_) | None => Taken::Now,
    })
}

async fn get(db: &Transaction<'_>, stored_key: &str) -> Result<Option<Answered>, Error> {
    let rows = db
        .query_typed(
            "-- idempotency_keys::get
             SELECT route, request_sha256, status, body, actor IS NOT NULL AS has_owner FROM idempotency_keys
             WHERE key = $1 AND status IS NOT NULL",
            &[(&stored_key, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Answered {
        first_use: Use {
            route: row.try_get("route")?,
            request_sha256: row.try_get("request_sha256")?,
        },
        status: row.try_get("status")?,
        body: row.try_get("body")?,
        has_owner: row.try_get("has_owner")?,
    }))
}

/// Writes down the answer to a key that was taken in this transaction.
///
/// # Errors
/// When the statement fails.
pub async fn answer(
    db: &Transaction<'_>,
    owner: &Owner<'_>,
    status: i32,
    body: &str,
) -> Result<(), Error> {
    let keys = [owner.stored_key(), owner.key.to_owned()];
    // Without a status is only what this transaction has taken.
    let changed = db
        .execute_typed(
            "-- idempotency_keys::answer
             UPDATE idempotency_keys SET status = $2, body = $3 WHERE key = ANY ($1) AND status IS NULL",
            &[
                (&keys.as_slice(), Type::TEXT_ARRAY),
                (&status, Type::INT4),
                (&body, Type::TEXT),
            ],
        )
        .await?;
    Error::check_row_count("idempotency_keys::answer", 1, changed.min(1))
}
