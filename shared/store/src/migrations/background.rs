//! Migrations that run beside the functions: an index that is built concurrently, rows that are filled in slices.
//!
//! A run may be killed anywhere; the next one goes on. The database's clock counts the lease, since a run renews it and two
//! sandboxes may disagree about the time.

use jiff::Timestamp;
use runtime::deadline::Deadline;
use serde::Serialize;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::{Error, Kind, Migration, Release, checksum, current_version};

/// The rows of a run's first slice.
const SLICE: i64 = 1_000;

/// How far a migration is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The migration's file name.
    pub file: &'static str,
    /// Whether nothing is left to do.
    pub is_done: bool,
    /// The slices that a backfill has committed.
    pub slices: i64,
    /// The rows that they changed.
    pub rows_done: i64,
}

/// Marks the migration that was recorded last as one that is not done.
pub(super) async fn begin(db: &impl GenericClient, file: &str) -> Result<(), Error> {
    db.execute_typed(
        "-- background::begin
         UPDATE billing_migrations SET state = 'running' WHERE file = $1",
        &[(&file, Type::TEXT)],
    )
    .await?;
    Ok(())
}

impl Release {
    /// Goes on, until the deadline, with the recorded migrations that no deploy waits for, in their order, and tells how
    /// far those are that were not done. One that another run is at is left to it, with those after it.
    ///
    /// A database of a newer or an older release is no error: what both know is done.
    pub async fn maintain(
        &self,
        client: &mut Client,
        deadline: Deadline,
    ) -> Result<Vec<Progress>, Error> {
        let mut found = Vec::new();
        let recorded = current_version(client).await?.unwrap_or(0);
        for (_, migration) in (0..recorded).zip(self.versioned) {
            if migration.kind() == Kind::Plain {
                continue;
            }
            let before = progress(client, migration).await?;
            if before.is_done {
                continue;
            }
            let after = if migration.kind() == Kind::Concurrent {
                let built = deadline.cut(build(client, migration)).await;
                let is_done = built.transpose()?.unwrap_or(false);
                Progress { is_done, ..before }
            } else {
                self.fill(client, migration, deadline).await?;
                progress(client, migration).await?
            };
            let Progress {
                is_done,
                slices,
                rows_done,
                ..
            } = after;
            tracing::info!(
                migration = migration.file,
                is_done,
                slices,
                rows_done,
                "run beside the functions"
            );
            found.push(after);
            if !is_done {
                break;
            }
        }
        Ok(found)
    }

    /// Runs what is not done to its end, and waits for another run that is at it.
    pub(super) async fn finish(&self, client: &mut Client) -> Result<(), Error> {
        loop {
            let found = self.maintain(client, Deadline::default()).await?;
            if found.iter().all(|one| one.is_done) {
                return Ok(());
            }
            tokio::time::sleep(self.patience.first_pause).await;
        }
    }

    /// Changes slice after slice until one finds no row.
    async fn fill(
        &self,
        client: &mut Client,
        migration: &Migration,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let Some(mut leased_until) = lease(client, migration.file).await? else {
            return Ok(());
        };
        let mut rows = SLICE;
        let mut tries = self.patience.tries();
        while !deadline.is_reached() {
            let started = Instant::now();
            match self.slice(client, migration, rows, leased_until).await {
                Ok(Some(renewed)) => leased_until = renewed,
                Ok(None) => break,
                Err(error) => {
                    tries.again(migration.failed(error)).await?;
                    continue;
                }
            }
            tries = self.patience.tries();
            if started.elapsed() > self.patience.longest_slice {
                rows = (rows / 2).max(1);
            }
        }
        Ok(())
    }

    /// Commits one slice and answers until when its run has the lease then; `None` when the migration is done, or
    /// another run has taken it over.
    async fn slice(
        &self,
        client: &mut Client,
        migration: &Migration,
        rows: i64,
        leased_until: Timestamp,
    ) -> Result<Option<Timestamp>, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        self.patience.limit(&transaction).await?;
        // Until the commit nobody else can take the lease, however long the slice takes.
        let held = transaction
            .query_typed_opt(
                "-- background::slice
                 SELECT leased_until FROM billing_migrations
                 WHERE file = $1 AND leased_until = $2 AND state = 'running' FOR UPDATE",
                &[
                    (&migration.file, Type::TEXT),
                    (&leased_until, Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        if held.is_none() {
            return Ok(None);
        }
        let changed = transaction
            .execute_typed(migration.sql, &[(&rows, Type::INT8)])
            .await?;
        let changed = i64::try_from(changed).unwrap_or(i64::MAX);
        let renewed = transaction
            .query_typed_one(
                "-- background::slice
                 UPDATE billing_migrations SET slices = slices + LEAST($2::bigint, 1), rows_done = rows_done + $2,
                     state = CASE $2 WHEN 0 THEN 'done' ELSE 'running' END,
                     leased_until = clock_timestamp() + interval '60 seconds'
                 WHERE file = $1 RETURNING leased_until",
                &[(&migration.file, Type::TEXT), (&changed, Type::INT8)],
            )
            .await?
            .try_get("leased_until")?;
        transaction.commit().await?;
        Ok((changed > 0).then_some(renewed))
    }
}

async fn progress(db: &impl GenericClient, migration: &Migration) -> Result<Progress, Error> {
    let row = db
        .query_typed_opt(
            "-- background::progress
             SELECT state = 'done' AS is_done, slices, rows_done FROM billing_migrations
             WHERE file = $1 AND sha256 = $2",
            &[
                (&migration.file, Type::TEXT),
                (&checksum(migration.sql), Type::TEXT),
            ],
        )
        .await?;
    let Some(row) = row else {
        let file = migration.file.to_owned();
        return Err(Error::Edited { file });
    };
    Ok(Progress {
        file: migration.file,
        is_done: row.try_get("is_done")?,
        slices: row.try_get("slices")?,
        rows_done: row.try_get("rows_done")?,
    })
}

/// Takes the migration for 60 seconds and answers until when; `None` while another run has it.
async fn lease(db: &impl GenericClient, file: &str) -> Result<Option<Timestamp>, Error> {
    let row = db
        .query_typed_opt(
            "-- background::lease
             UPDATE billing_migrations SET leased_until = clock_timestamp() + interval '60 seconds'
             WHERE version = (
                 SELECT version FROM billing_migrations
                 WHERE file = $1 AND COALESCE(leased_until < clock_timestamp(), true)
                 FOR UPDATE SKIP LOCKED)
             RETURNING leased_until",
            &[(&file, Type::TEXT)],
        )
        .await?;
    Ok(row.map(|row| row.try_get("leased_until")).transpose()?)
}

/// Builds the index that the file is named for, and answers whether it is there.
async fn build(client: &Client, migration: &Migration) -> Result<bool, Error> {
    if lease(client, migration.file).await?.is_none() {
        return Ok(false);
    }
    let (_, index) = migration.file.split_once("__").unwrap_or_default();
    let index = index.trim_end_matches(".concurrent.sql");
    // The server goes on building for a run that was killed, longer than the lease.
    let leftover = client
        .query_typed_opt(
            "-- background::build
             SELECT EXISTS (SELECT FROM pg_stat_progress_create_index AS build
                            WHERE build.relid = i.indrelid AND build.datname = current_database()) AS is_under_way
             FROM pg_index AS i WHERE i.indexrelid = to_regclass($1) AND NOT i.indisvalid",
            &[(&index, Type::TEXT)],
        )
        .await?;
    let is_under_way: Option<bool> = leftover
        .map(|row| row.try_get("is_under_way"))
        .transpose()?;
    if is_under_way == Some(true) {
        return Ok(false);
    }
    // It may wait and take long, since it keeps nobody from reading or writing. It cannot run in a transaction, which
    // would take these limits back by itself.
    client.batch_execute("SET lock_timeout = 0").await?;
    client.batch_execute("SET statement_timeout = 0").await?;
    let built = async {
        if is_under_way.is_some() {
            let drop = format!("DROP INDEX CONCURRENTLY {index}");
            client.batch_execute(&drop).await?;
        }
        client.batch_execute(migration.sql).await
    }
    .await;
    client.batch_execute("RESET lock_timeout").await?;
    client.batch_execute("RESET statement_timeout").await?;
    built.map_err(|error| migration.failed(error))?;
    client
        .execute_typed(
            "-- background::build
             UPDATE billing_migrations SET state = 'done' WHERE file = $1",
            &[(&migration.file, Type::TEXT)],
        )
        .await?;
    Ok(true)
}
