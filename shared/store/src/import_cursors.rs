//! `import_cursors`: the progress of a run that reads a whole list from Stripe.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;

/// The progress of a run over several invocations.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportCursor {
    pub state: Value,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// Starts a run with `state`, unless it was started before.
pub async fn insert(
    db: &impl GenericClient,
    name: &str,
    state: &Value,
    now: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- import_cursors::insert
         INSERT INTO import_cursors (name, state, started_at, updated_at) VALUES ($1, $2, $3, $3)
         ON CONFLICT (name) DO NOTHING",
        &[
            (&name, Type::TEXT),
            (&state, Type::JSONB),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// The progress of a run; `None` before it starts.
pub async fn get(db: &impl GenericClient, name: &str) -> Result<Option<ImportCursor>, Error> {
    let rows = db
        .query_typed(
            "-- import_cursors::get
             SELECT state, started_at, updated_at, finished_at
             FROM import_cursors WHERE name = $1",
            &[(&name, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(ImportCursor {
        state: row.try_get("state")?,
        started_at: row.try_get("started_at")?,
        updated_at: row.try_get("updated_at")?,
        finished_at: row.try_get("finished_at")?,
    }))
}

/// Moves from one place to the next, in the transaction of the work between them. False when another run has moved on
/// from there already: then nothing of this slice may be committed.
pub async fn advance(
    db: &impl GenericClient,
    name: &str,
    (from, to): (&Value, &Value),
    finished_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool, Error> {
    let changed = db
        .execute_typed(
            "-- import_cursors::advance
             UPDATE import_cursors SET state = $3, updated_at = $4, finished_at = $5
             WHERE name = $1 AND state = $2",
            &[
                (&name, Type::TEXT),
                (&from, Type::JSONB),
                (&to, Type::JSONB),
                (&now, Type::TIMESTAMPTZ),
                (&finished_at, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Deletes the progress: the next run starts from the beginning.
pub async fn delete(db: &impl GenericClient, name: &str) -> Result<(), Error> {
    db.execute_typed(
        "-- import_cursors::delete
         DELETE FROM import_cursors WHERE name = $1",
        &[(&name, Type::TEXT)],
    )
    .await?;
    Ok(())
}
