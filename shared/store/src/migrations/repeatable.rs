//! Migrations that are applied whenever their text is new: functions of the database, and grants.
//!
//! Two releases run side by side during a deploy, so a function is never changed: `_HASH` in its name stands for eight
//! digits of a hash of all these files, and a new text makes new functions beside those of the release before.

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::{Error, Release};

/// The digits of the hash that end a name.
const DIGITS: usize = 8;

impl Release {
    /// The text with the names of this release's functions: `_HASH` becomes, say, `_3f2a9c1d`.
    #[must_use]
    pub fn with_hash(&self, sql: &str) -> String {
        let mut hash = self.sha256_of_repeatable();
        hash.truncate(DIGITS);
        sql.replace("_HASH", &format!("_{hash}"))
    }

    fn sha256_of_repeatable(&self) -> String {
        let mut hash = Sha256::new();
        for migration in self.repeatable {
            // A NUL is in neither.
            hash.update(format!("{}\0{}\0", migration.file, migration.sql));
        }
        hex::encode(hash.finalize())
    }

    /// Applies the repeatable migrations in one transaction unless they are what was applied last, and returns their
    /// files. Then drops the functions of all texts but the last two: those of this release and of the one before.
    pub async fn apply_repeatable(&self, client: &mut Client) -> Result<Vec<String>, Error> {
        if self.repeatable.is_empty() {
            return Ok(Vec::new());
        }
        let mut tries = self.patience.tries();
        loop {
            match self.try_repeatable(client).await {
                Err(error) => tries.again(error).await?,
                applied => return applied,
            }
        }
    }

    async fn try_repeatable(&self, client: &mut Client) -> Result<Vec<String>, Error> {
        let transaction = client.transaction().await?;
        self.lock(&transaction).await?;
        let sha256 = self.sha256_of_repeatable();
        let last = transaction
            .query_typed_opt(
                "-- repeatable::try_repeatable
                 SELECT sha256 FROM billing_repeatables ORDER BY id DESC LIMIT 1",
                &[],
            )
            .await?;
        let last: Option<String> = last.map(|row| row.try_get("sha256")).transpose()?;
        if last.is_some_and(|last| last == sha256) {
            return Ok(Vec::new());
        }
        for migration in self.repeatable {
            transaction
                .batch_execute(&self.with_hash(migration.sql))
                .await
                .map_err(|error| migration.failed(error))?;
        }
        transaction
            .execute_typed(
                "-- repeatable::try_repeatable
                 INSERT INTO billing_repeatables (sha256) VALUES ($1)",
                &[(&sha256, Type::TEXT)],
            )
            .await?;
        drop_outdated(&transaction).await?;
        transaction.commit().await?;
        let files = self.repeatable.iter();
        Ok(files.map(|migration| migration.file.to_owned()).collect())
    }
}

async fn drop_outdated(db: &impl GenericClient) -> Result<(), Error> {
    let rows = db
        .query_typed(
            "-- repeatable::drop_outdated
             SELECT p.oid::regprocedure::text AS function FROM pg_proc AS p
             WHERE p.pronamespace = current_schema()::regnamespace AND substring(p.proname FROM '_([0-9a-f]{8})$') IN (
                 SELECT left(sha256, 8) FROM billing_repeatables GROUP BY sha256 ORDER BY max(id) DESC OFFSET 2)",
            &[],
        )
        .await?;
    let mut functions = Vec::new();
    for row in rows {
        functions.push(row.try_get::<_, String>("function")?);
    }
    if !functions.is_empty() {
        tracing::info!(?functions, "functions of older releases are dropped");
        // In one statement, since they may need each other.
        db.batch_execute(&format!("DROP FUNCTION {}", functions.join(", ")))
            .await?;
    }
    Ok(())
}
