//! Brings a database to the schema of a release: the files of `/migrations`, each in the way of its kind
//! (docs/migrations.md).
//!
//! refinery takes no lock, so that two deploys at once race for the same migration, and sqlx would link a second
//! Postgres driver into every function.

mod background;
mod repeatable;

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

pub use background::Progress;

/// A file of `/migrations`.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its name there, such as `V0001__host_tables.sql`, whose ending says its [`Kind`].
    pub file: &'static str,
    /// Its text.
    pub sql: &'static str,
}

/// How a versioned migration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `V00NN__what.sql`: in one transaction of the deploy.
    Plain,
    /// `V00NN__index_name.concurrent.sql`: one `CREATE INDEX CONCURRENTLY`, beside the functions.
    Concurrent,
    /// `V00NN__what.backfill.sql`: one statement for `$1` rows, beside the functions, until it changes none.
    Backfill,
}

impl Migration {
    fn kind(&self) -> Kind {
        if self.file.ends_with(".concurrent.sql") {
            Kind::Concurrent
        } else if self.file.ends_with(".backfill.sql") {
            Kind::Backfill
        } else {
            Kind::Plain
        }
    }

    /// The versions that have to be done before: of each line `-- requires: V0033`.
    fn requires(&self) -> impl Iterator<Item = i32> {
        let required = |line: &str| line.strip_prefix("-- requires: V")?.trim().parse().ok();
        self.sql.lines().filter_map(required)
    }

    fn failed(&self, error: tokio_postgres::Error) -> Error {
        Error::Failed {
            file: self.file,
            source: error.into(),
        }
    }
}

macro_rules! migrations {
    ($($file:literal),* $(,)?) => {
        &[$(Migration {
            file: $file,
            sql: include_str!(concat!("../../../migrations/", $file)),
        }),*]
    };
}

/// Every versioned migration, oldest first. A test compares the list with the directory.
const VERSIONED: &[Migration] = migrations![
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
    "V0032__kinds_of_migrations.sql",
    "V0033__churn_daily.sql",
    "V0034__mrr_movements_reactivations_idx.concurrent.sql",
    "V0035__churn_daily.backfill.sql",
    "V0036__digests_of_events.sql",
    "V0037__outcomes_of_events.sql",
    "V0038__taxes_and_dates_of_invoices.sql",
    "V0039__invoices_uncollectible_at_idx.concurrent.sql",
    "V0040__credit_notes_created_at_idx.concurrent.sql",
    "V0041__credit_notes_voided_at_idx.concurrent.sql",
    "V0042__ugx_has_two_decimals.sql",
    "V0043__terms_of_discounts.sql",
    "V0044__discounts_stripe_customer_id_idx.concurrent.sql",
    "V0045__subscription_versions_discount_steps_idx.concurrent.sql",
    "V0046__room_for_updates.sql",
    "V0047__checkout_sessions_stripe_payment_intent_id_idx.concurrent.sql",
    "V0048__money_outside_stripe.sql",
    "V0049__invoice_payments_stripe_payment_record_id_idx.concurrent.sql",
    "V0050__kinds_of_differences.sql",
    "V0051__parts_of_objects.sql",
    "V0052__stripe_lookups_subject_idx.concurrent.sql",
    "V0053__stripe_lookups_kind_idx.concurrent.sql",
    "V0054__stripe_lookups_figure_idx.concurrent.sql",
    "V0055__read_the_archive_again.sql",
    "V0056__balance_transactions.sql",
    "V0057__balance_transactions_of_objects.sql",
    "V0058__payment_attempts_failure_balance_transaction_id_idx.concurrent.sql",
    "V0059__refunds_stripe_balance_transaction_id_idx.concurrent.sql",
    "V0060__refunds_failure_balance_transaction_id_idx.concurrent.sql",
    "V0061__disputes_balance_transaction_ids_idx.concurrent.sql",
    "V0062__disputes_unlisted_idx.concurrent.sql",
    "V0063__payment_attempts_unkept_idx.concurrent.sql",
    "V0064__balance_transactions_of_disputes.backfill.sql",
    "V0065__balance_transactions_of_charges.backfill.sql",
    "V0066__lookups_of_disputes.backfill.sql",
    "V0067__taxes_of_contracts.sql",
    "V0068__contract_changes.sql",
    "V0069__waived_periods.sql",
    "V0070__api_usage_billing_idx.concurrent.sql",
    "V0071__stripe_lookups_tax_rate_idx.concurrent.sql",
];

/// Every repeatable migration: `functions/*.sql` by name, then `roles.sql`, which may speak of the functions.
const REPEATABLE: &[Migration] = migrations!["functions/ledger.sql"];

/// The key of the advisory lock that serialises two deploys: "billing" in ASCII. A transaction holds it, never a
/// session, so that a pooler in transaction mode can be used.
const LOCK: i64 = 0x62_69_6c_6c_69_6e_67;

/// How often a statement that waits for a lock of somebody else is tried.
const TRIES: usize = 10;

/// How long a migration may keep others waiting. Whoever comes after a statement that waits for a lock waits as long, so
/// it gives up soon and is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// The pause after the first try; each further pause is twice the one before.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How long a slice of a backfill may hold its rows: after a longer one the next has half as many.
    pub longest_slice: Duration,
}

impl Patience {
    fn tries(self) -> Tries<impl Iterator<Item = Duration>> {
        let next = move |pause: &Duration| Some((*pause * 2).min(self.longest_pause));
        let pauses = std::iter::successors(Some(self.first_pause), next);
        Tries(pauses.take(TRIES - 1))
    }

    /// From here to the end of the transaction.
    async fn limit(self, db: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        let ms = self.lock_timeout.as_millis();
        db.batch_execute(&format!("SET LOCAL lock_timeout = {ms}"))
            .await
    }
}

/// The pauses that are left.
struct Tries<I>(I);

impl<I: Iterator<Item = Duration>> Tries<I> {
    /// Pauses, so that what failed for want of a lock can be tried again; any other error, and the last, is returned.
    async fn again(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_for_want_of_a_lock() {
            return Err(error);
        }
        let Some(pause) = self.0.next() else {
            return Err(error.at_the_last_try());
        };
        let cause = runtime::telemetry::cause_chain(&error);
        tracing::warn!(cause, "a migration waits for the lock of somebody else");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// The migrations of a release.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Each is applied once, oldest first. The place in the list is the version.
    pub versioned: &'static [Migration],
    /// Applied together whenever one of them is new.
    pub repeatable: &'static [Migration],
    /// How long they may keep others waiting.
    pub patience: Patience,
}

/// Which migrations that can run beside the functions a deploy runs itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// All of them, in their order: no function runs yet.
    AtOnce,
    /// None, unless the database is new: [`Release::maintain`] runs them.
    Later,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The names of the files that this run applied, oldest first; empty when none were missing. What is left to
    /// [`Release::maintain`] is among them.
    pub applied: Vec<String>,
    /// The version of the database now.
    pub version: u32,
}

/// Why a database cannot be migrated. Nothing of the failed migration remains, but for the committed slices of a backfill.
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
    /// A migration that the deploy does not wait for has to be done first.
    #[error(
        "{file} says \"-- requires: V{required:04}\", which is not done yet: migrate.maintain runs it every hour; \
         deploy again afterwards"
    )]
    Requires {
        /// The name of the file that has to wait.
        file: &'static str,
        /// The version that is not done.
        required: i32,
    },
    /// Others held a lock that the migration needs, at every try.
    #[error("migration {file} did not get its locks in {TRIES} tries; nothing of the last remains")]
    Locked {
        /// The migration's file name.
        file: &'static str,
        /// Postgres' error of the last try.
        #[source]
        source: crate::Error,
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

impl Error {
    fn is_for_want_of_a_lock(&self) -> bool {
        let (Error::Failed { source, .. } | Error::Record(source)) = self else {
            return false;
        };
        source.sqlstate() == Some("55P03") || source.is_retryable()
    }

    fn at_the_last_try(self) -> Error {
        if let Error::Failed { file, source } = self {
            return Error::Locked { file, source };
        }
        self
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        Error::Record(error.into())
    }
}

impl Release {
    /// The files of this repository.
    pub const EMBEDDED: Release = Release {
        versioned: VERSIONED,
        repeatable: REPEATABLE,
        patience: Patience {
            lock_timeout: Duration::from_secs(2),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
            longest_slice: Duration::from_millis(200),
        },
    };

    /// The version that this release migrates a database to.
    #[must_use]
    pub fn latest(&self) -> u32 {
        version(self.versioned.len()).unwrap_or(0)
    }

    /// Applies the missing migrations. Each has its own transaction and takes the lock again, so a failure keeps the
    /// ones before it, and of two runs at once each migration is applied by one and seen by the other.
    pub async fn apply(
        &self,
        client: &mut Client,
        background: Background,
    ) -> Result<Applied, Error> {
        let is_new = current_version(client).await?.is_none();
        let mut applied = Vec::new();
        let mut tries = self.patience.tries();
        loop {
            if is_new || background == Background::AtOnce {
                self.finish(client).await?;
            }
            match self.apply_next(client).await {
                Ok(Some(file)) => {
                    tracing::info!(migration = file, "migration applied");
                    applied.push(file.to_owned());
                    tries = self.patience.tries();
                }
                Ok(None) => break,
                Err(error) => tries.again(error).await?,
            }
        }
        applied.extend(self.apply_repeatable(client).await?);
        Ok(Applied {
            applied,
            version: self.latest(),
        })
    }

    /// Applies the oldest missing migration, or records it as one that is left to [`Release::maintain`], and returns
    /// its file; `None` when none is missing.
    async fn apply_next(&self, client: &mut Client) -> Result<Option<&'static str>, Error> {
        let transaction = client.transaction().await?;
        self.lock(&transaction).await?;
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
        self.check(&recorded)?;
        let Some(migration) = self.versioned.get(recorded.len()) else {
            transaction.commit().await?;
            return Ok(None);
        };
        for required in migration.requires() {
            if !is_done(&transaction, required).await? {
                let file = migration.file;
                return Err(Error::Requires { file, required });
            }
        }
        let failed = |error| migration.failed(error);
        if migration.kind() == Kind::Plain {
            transaction
                .batch_execute(migration.sql)
                .await
                .map_err(failed)?;
            record(&transaction, migration).await?;
        } else {
            record(&transaction, migration).await?;
            background::begin(&transaction, migration.file).await?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(Some(migration.file))
    }

    /// Waits for another deploy as long as it takes, and for everybody else as [`Patience`] says.
    async fn lock(&self, db: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        lock_out_deploys(db).await?;
        self.patience.limit(db).await
    }

    /// Checks that the recorded migrations are the first of ours, unchanged.
    fn check(&self, recorded: &[(String, String)]) -> Result<(), Error> {
        for ((file, sha256), migration) in recorded.iter().zip(self.versioned) {
            if file != migration.file || *sha256 != checksum(migration.sql) {
                return Err(Error::Edited { file: file.clone() });
            }
        }
        match version(recorded.len()) {
            Some(found) if found > self.latest() => Err(Error::DatabaseIsNewer {
                found,
                latest: self.latest(),
            }),
            _ => Ok(()),
        }
    }
}

/// Until the end of the transaction no other deploy changes anything. Waits for one as long as it takes.
pub(super) async fn lock_out_deploys(db: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
    db.batch_execute("SET LOCAL lock_timeout = 0").await?;
    db.execute_typed(
        "-- migrations::lock_out_deploys
         SELECT pg_advisory_xact_lock($1)",
        &[(&LOCK, Type::INT8)],
    )
    .await?;
    Ok(())
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

async fn is_done(db: &impl GenericClient, version: i32) -> Result<bool, Error> {
    let done = db
        .query_typed_opt(
            "-- migrations::is_done
             SELECT version FROM billing_migrations WHERE version = $1 AND state = 'done'",
            &[(&version, Type::INT4)],
        )
        .await?;
    Ok(done.is_some())
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
    fn the_lists_are_the_directories() {
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let files = |folder: &str| {
            let entries = std::fs::read_dir(format!("{migrations}/{folder}"));
            let names = entries.into_iter().flatten().map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                format!("{folder}{name}")
            });
            let mut files: Vec<String> = names.filter(|name| name.ends_with(".sql")).collect();
            files.sort();
            files
        };
        let listed =
            |list: &[Migration]| -> Vec<&str> { list.iter().map(|one| one.file).collect() };
        let mut versioned = files("");
        let mut repeatable = files("functions/");
        repeatable.extend(versioned.extract_if(.., |name| name == "roles.sql"));
        assert_eq!(versioned, listed(VERSIONED));
        assert_eq!(repeatable, listed(REPEATABLE));
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
        for migration in VERSIONED {
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
        let recorded = [(VERSIONED[0].file.to_owned(), "00".to_owned())];
        let error = Release::EMBEDDED.check(&recorded).unwrap_err();
        assert!(error.to_string().contains(VERSIONED[0].file), "{error}");
    }
}
