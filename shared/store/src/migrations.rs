//! Applies the files of `/migrations` to a database, each once, in order.
//!
//! refinery takes no lock, so that two deploys at once race for the same migration, and sqlx would link a second
//! Postgres driver into every function.

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

/// A file of `/migrations`, embedded at compile time.
struct Migration {
    /// The file name, such as `V0001__host_tables.sql`. Its place in [`MIGRATIONS`] is its version.
    file: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($file:literal),* $(,)?) => {
        &[$(Migration {
            file: $file,
            sql: include_str!(concat!("../../../migrations/", $file)),
        }),*]
    };
}

/// Every migration, oldest first. A test compares the list with the directory.
const MIGRATIONS: &[Migration] = migrations![
    "V0001__host_tables.sql",
    "V0002__predecessor_tables.sql",
    "V0003__widen_predecessor_columns.sql",
    "V0004__extend_predecessor_tables.sql",
    "V0005__stripe_inbox_and_mirror.sql",
    "V0006__revenue_ledger.sql",
    "V0007__usage.sql",
    "V0008__partner_billing.sql",
    "V0009__outbox_and_operations.sql",
    "V0010__seed_from_predecessor.sql",
    "V0011__credits_from_refunds.sql",
    "V0012__terms_waited_for_and_plans_before.sql",
    "V0013__list_indexes.sql",
    "V0014__mrr_daily.sql",
    "V0015__reports.sql",
    "V0016__idempotency_keys.sql",
    "V0017__contract_suspensions.sql",
    "V0018__invoiced_usage.sql",
    "V0019__invoice_run_items.sql",
    "V0020__fetched_objects.sql",
    "V0021__import_cursors.sql",
    "V0022__reconciliation_daily.sql",
    "V0023__instants_of_revenue_entries.sql",
    "V0024__subscription_statuses.sql",
    "V0025__discounted_subscriptions.sql",
    "V0026__reached_payments.sql",
    "V0027__no_jit.sql",
    "V0028__dates_of_contract_statuses.sql",
    "V0029__settled_periods.sql",
    "V0030__currency_options.sql",
    "V0031__idempotency_keys_of_actors.sql",
];

/// The key of the advisory lock that serialises two deploys: "billing" in ASCII. A transaction holds it, never a
/// session, so that a pooler in transaction mode can be used.
const LOCK: i64 = 0x62_69_6c_6c_69_6e_67;

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The names of the files that this run applied, oldest first; empty when none were missing.
    pub applied: Vec<String>,
    /// The version of the database now.
    pub version: u32,
}

/// Why a database cannot be migrated. Nothing of the failed migration remains.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file was changed or renamed after it was applied, so it no longer describes the database.
    #[error("migration {file} was edited after it had been applied; add a new migration instead")]
    Edited {
        /// The file name recorded when it was applied.
        file: String,
    },
    /// The database has been migrated by a newer release.
    #[error("the database is at version {found}, newer than this release's {latest}")]
    DatabaseIsNewer {
        /// The version of the database.
        found: u32,
        /// The version of this release.
        latest: u32,
    },
    /// A statement of a migration failed.
    #[error("migration {file} failed and was rolled back")]
    Failed {
        /// The migration's file name.
        file: &'static str,
        /// Postgres' error, without values of rows.
        #[source]
        source: crate::Error,
    },
    /// The table `billing_migrations` could not be read or written.
    #[error("the record of applied migrations is out of reach")]
    Record(#[source] crate::Error),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Record(error.into())
    }
}

/// Applies the missing migrations. Each has its own transaction and takes the lock again, so a failure keeps the ones
/// before it, and of two runs at once each migration is applied by one and seen by the other.
pub async fn apply(client: &mut Client) -> Result<Applied, Error> {
    let mut applied = Vec::new();
    while let Some(file) = apply_next(client).await? {
        tracing::info!(migration = file, "migration applied");
        applied.push(file.to_owned());
    }
    Ok(Applied {
        applied,
        version: latest(),
    })
}

/// The version of the database; `None` when no migration has been applied yet.
pub async fn current_version(client: &impl GenericClient) -> Result<Option<u32>, Error> {
    let exists = "-- migrations::current_version
         SELECT to_regclass('billing_migrations') IS NOT NULL AS is_recorded";
    if !client
        .query_typed_one(exists, &[])
        .await?
        .try_get::<_, bool>("is_recorded")?
    {
        return Ok(None);
    }
    Ok(version(recorded(client).await?.len()))
}

/// The version that this release migrates a database to.
#[must_use]
pub fn latest() -> u32 {
    version(MIGRATIONS.len()).unwrap_or(0)
}

/// Applies the oldest missing migration and returns its file; `None` when none is missing.
async fn apply_next(client: &mut Client) -> Result<Option<&'static str>, Error> {
    let transaction = client.transaction().await?;
    lock(&transaction).await?;
    // Under the lock: CREATE TABLE IF NOT EXISTS fails when two transactions run it at once.
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS billing_migrations (
                version INT CONSTRAINT billing_migrations_pkey PRIMARY KEY, -- 1, 2, 3 … without gaps
                file TEXT NOT NULL,                                         -- name in /migrations
                sha256 TEXT NOT NULL,                                       -- hex digest of the file
                applied_at TIMESTAMPTZ NOT NULL DEFAULT now()               -- when
            )",
        )
        .await?;
    let recorded = recorded(&transaction).await?;
    check(&recorded)?;
    let Some(migration) = MIGRATIONS.get(recorded.len()) else {
        transaction.commit().await?;
        return Ok(None);
    };
    let failed = |error: tokio_postgres::Error| Error::Failed {
        file: migration.file,
        source: error.into(),
    };
    transaction
        .batch_execute(migration.sql)
        .await
        .map_err(failed)?;
    record(&transaction, migration).await?;
    transaction.commit().await.map_err(failed)?;
    Ok(Some(migration.file))
}

async fn lock(db: &impl GenericClient) -> Result<(), Error> {
    db.execute_typed(
        "-- migrations::lock
         SELECT pg_advisory_xact_lock($1)",
        &[(&LOCK, Type::INT8)],
    )
    .await?;
    Ok(())
}

async fn record(db: &impl GenericClient, migration: &Migration) -> Result<(), Error> {
    db.execute_typed(
        "-- migrations::record
         INSERT INTO billing_migrations (version, file, sha256)
         SELECT count(*)::int + 1, $1, $2 FROM billing_migrations",
        &[
            (&migration.file, Type::TEXT),
            (&checksum(migration.sql), Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

/// File and checksum of every applied migration, oldest first.
async fn recorded(client: &impl GenericClient) -> Result<Vec<(String, String)>, Error> {
    let rows = client
        .query_typed(
            "-- migrations::recorded
             SELECT file, sha256 FROM billing_migrations ORDER BY version",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("file")?, row.try_get("sha256")?)))
        .collect()
}

/// Checks that the recorded migrations are the first of ours, unchanged.
fn check(recorded: &[(String, String)]) -> Result<(), Error> {
    for ((file, sha256), migration) in recorded.iter().zip(MIGRATIONS) {
        if file != migration.file || *sha256 != checksum(migration.sql) {
            return Err(Error::Edited { file: file.clone() });
        }
    }
    match version(recorded.len()) {
        Some(found) if found > latest() => Err(Error::DatabaseIsNewer {
            found,
            latest: latest(),
        }),
        _ => Ok(()),
    }
}

/// The version after `count` migrations; `None` before the first.
fn version(count: usize) -> Option<u32> {
    u32::try_from(count).ok().filter(|version| *version > 0)
}

fn checksum(sql: &str) -> String {
    hex::encode(Sha256::digest(sql))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_directory_without_gaps() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let listed: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.file).collect();
        assert_eq!(files, listed);
        for (file, version) in listed.iter().zip(1..) {
            assert!(
                file.starts_with(&format!("V{version:04}__")),
                "{file} is not number {version}"
            );
        }
    }

    #[test]
    fn every_column_says_what_it_is() {
        let types = [
            "BIGINT",
            "BIGSERIAL",
            "BOOLEAN",
            "DATE",
            "INT",
            "JSONB",
            "TEXT",
            "TEXT[]",
            "TIMESTAMPTZ",
        ];
        let mut columns = 0;
        for migration in MIGRATIONS {
            let mut silent: Option<&str> = None;
            for line in migration.sql.lines() {
                let definition = line.trim().trim_start_matches("ADD COLUMN ");
                let mut words = definition.split([' ', ',']);
                let is_name = words.next().is_some_and(|word| {
                    !word.is_empty()
                        && word
                            .chars()
                            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                });
                // In a function, `name TYPE;` declares a variable.
                let is_variable = definition.ends_with(';') && !line.contains("ADD COLUMN");
                let is_column = is_name
                    && !is_variable
                    && words.next().is_some_and(|word| types.contains(&word));
                if is_column || definition.starts_with(')') {
                    assert_eq!(silent, None, "{}: no comment", migration.file);
                    silent = is_column.then_some(line);
                    columns += usize::from(is_column);
                }
                if line.contains("-- ") {
                    silent = None;
                }
            }
            assert_eq!(silent, None, "{}: no comment", migration.file);
        }
        assert!(columns > 400, "only {columns} columns were found");
    }

    #[test]
    fn an_edited_migration_is_named() {
        let recorded = [(MIGRATIONS[0].file.to_owned(), "00".to_owned())];
        let message = check(&recorded).unwrap_err().to_string();
        assert!(message.contains(MIGRATIONS[0].file), "{message}");
    }
}
