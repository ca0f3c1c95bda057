//! `reconciliation_runs` and `reconciliation_items`: what was compared with Stripe, and what differed.

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Transaction};

use super::Error;
use super::columns::{self, FromRow as _, columns};
use super::list::{self, Order};
use super::row::file_columns;
use domain::page::{Page, Rows, Span};
use domain::reconciliation::Discrepancy;

columns! {
    /// A run that compared the ledger with Stripe, or brought what was missing.
    pub struct ReconciliationRun of "reconciliation_runs" {
        pub run_id: i64,
        /// `daily`, `redrive` or `backfill`.
        pub kind: String,
        /// First instant of the window that was compared.
        pub since: Option<Timestamp>,
        /// First instant after the window.
        pub until: Option<Timestamp>,
        pub started_at: Timestamp,
        /// Null while it runs, or was cut off.
        pub finished_at: Option<Timestamp>,
        /// `running`, `completed`, `incomplete` (something could not be checked) or `failed`.
        pub status: String,
        /// How many objects of Stripe were compared.
        pub compared: i64,
        /// How many of them the ledger already had the same, before healing.
        pub matched: i64,
        /// How many differences the run put right.
        pub healed: i64,
        /// How many differences are left for a person to resolve.
        pub open: i64,
        /// Matched ÷ compared in basis points; null when nothing was compared.
        pub completeness_bps: Option<i32>,
        /// Sums per currency, and what could not be checked.
        pub summary: Value,
        /// The object key of its CSV.
        pub report_key: Option<String>,
    }
}

file_columns! {
    /// A difference between Stripe and the ledger.
    pub struct ReconciliationItem of "reconciliation_items" {
        pub id: i64,
        /// The run that found it.
        pub run_id: i64,
        /// What differs: `missing_in_db`, `missing_in_stripe`, `amount_differs`, `status_differs`, `fee_differs`,
        /// `currency_differs`; or `possible_double_payment`, two payments that may be one.
        pub kind: String,
        /// `open`, `healed` by the run, or `accepted` by a person.
        pub resolution: String,
        /// The kind of object that differs: `charge`, `refund`, `invoice`, …
        pub object_type: String,
        /// Stripe's id of the object; for a check of the ledger itself the key of the row, such as `<day>:<currency>`.
        pub object_id: String,
        /// Currency of both values; null for what is no amount.
        pub currency: Option<String>,
        /// What Stripe says; an amount in minor units where the kind is of amounts.
        pub stripe_value: Option<String>,
        /// What the ledger says, likewise.
        pub ledger_value: Option<String>,
        /// What the run found beside the two values.
        pub detail: Value,
        pub found_at: Timestamp,
        /// When it was healed or accepted.
        pub resolved_at: Option<Timestamp>,
        /// Who accepted it, as the token names them.
        pub accepted_by: Option<String>,
        /// Why somebody accepted the difference; null while nobody has.
        pub accepted_reason: Option<String>,
    }
}

columns! {
    /// The end of a daily comparison.
    pub struct Comparison of "reconciliation_runs" {
        pub run_id: i64,
        /// Null while it runs, or was cut off.
        pub finished_at: Option<Timestamp>,
        /// `running`, `completed`, `incomplete` or `failed`.
        pub status: String,
        /// Differences that are left for a person to resolve.
        pub open: i64,
    }
}

/// The daily comparison that began last; `None` before the first.
///
/// # Errors
/// When the statement fails.
pub async fn last_comparison(db: &impl GenericClient) -> Result<Option<Comparison>, Error> {
    columns::first(
        db,
        &format!(
            "-- reconciliation_runs::last_comparison
             SELECT {} FROM reconciliation_runs WHERE kind = 'daily' ORDER BY started_at DESC, run_id DESC LIMIT 1",
            Comparison::COLUMNS
        ),
        &[],
    )
    .await
}

/// A page of runs, the one that began last first.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    page: &Page<i64>,
) -> Result<Rows<i64, ReconciliationRun>, Error> {
    list::read(
        db,
        &format!(
            "-- reconciliation_runs::list
             SELECT {}, started_at AS listed_at FROM reconciliation_runs WHERE true",
            ReconciliationRun::COLUMNS
        ),
        Order {
            at: "started_at",
            key: "run_id",
        },
        &[],
        Span::default(),
        page,
    )
    .await
}

/// One run.
///
/// # Errors
/// When the statement fails.
pub async fn get(db: &impl GenericClient, run_id: i64) -> Result<Option<ReconciliationRun>, Error> {
    columns::first(
        db,
        &format!(
            "-- reconciliation_runs::get
             SELECT {} FROM reconciliation_runs WHERE run_id = $1",
            ReconciliationRun::COLUMNS
        ),
        &[(&run_id, Type::INT8)],
    )
    .await
}

/// Up to `limit` items of a run, asked for as a range of their index (see [`super::list`]), in the order in which they were found, after the one with the id `after`.
///
/// # Errors
/// When the statement fails.
pub async fn items(
    db: &impl GenericClient,
    run_id: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<ReconciliationItem>, Error> {
    columns::all(
        db,
        &format!(
            "-- reconciliation_runs::items
             SELECT {} FROM reconciliation_items
             WHERE (run_id, id) > ($1, $2) AND run_id <= $1
             ORDER BY run_id, id LIMIT $3",
            ReconciliationItem::COLUMNS
        ),
        &[
            (&run_id, Type::INT8),
            (&after, Type::INT8),
            (&limit, Type::INT8),
        ],
    )
    .await
}

/// All items of a run, in the order in which they were found, row by row.
///
/// # Errors
/// When the statement fails; a row may be an error too.
pub async fn all_items(
    db: &Transaction<'_>,
    run_id: i64,
) -> Result<impl Stream<Item = Result<ReconciliationItem, Error>> + use<>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&run_id, Type::INT8)];
    let statement = format!(
        "-- reconciliation_runs::all_items
         SELECT {} FROM reconciliation_items WHERE run_id = $1 ORDER BY run_id, id",
        ReconciliationItem::COLUMNS
    );
    let rows = db.query_typed_raw(&statement, parameters).await?;
    Ok(rows.map(|row| ReconciliationItem::from_row(&row?)))
}

/// Begins a run of `daily` over `[since, until)` and returns its id.
///
/// # Errors
/// When the statement fails.
pub async fn begin_daily(
    db: &impl GenericClient,
    since: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<i64, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_runs::begin_daily
             INSERT INTO reconciliation_runs (kind, since, until, started_at)
             VALUES ('daily', $1, $2, $3) RETURNING run_id",
            &[
                (&since, Type::TIMESTAMPTZ),
                (&until, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(row.try_get("run_id")?),
        None => Err(Error::RowCount {
            statement: "reconciliation_runs::begin_daily",
            expected: 1,
            changed: 0,
        }),
    }
}

/// Calls the daily runs failed that began before `began_before` and never ended: they were cut off.
///
/// # Errors
/// When the statement fails.
pub async fn close_abandoned(
    db: &impl GenericClient,
    began_before: Timestamp,
    now: Timestamp,
) -> Result<u64, Error> {
    let changed = db
        .execute_typed(
            "-- reconciliation_runs::close_abandoned
             UPDATE reconciliation_runs SET status = 'failed', finished_at = $2
             WHERE status = 'running' AND kind = 'daily' AND started_at < $1",
            &[
                (&began_before, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(changed)
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending<'a> {
    /// `completed`, or `incomplete` when something could not be checked.
    pub status: &'static str,
    pub compared: i64,
    pub matched: i64,
    pub healed: i64,
    pub open: i64,
    pub completeness_bps: Option<i32>,
    pub summary: &'a Value,
    /// The object key of its CSV.
    pub report_key: Option<&'a str>,
}

/// Ends a run.
///
/// # Errors
/// When the statement fails, or there is no such run.
pub async fn finish(
    db: &impl GenericClient,
    run_id: i64,
    ending: &Ending<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- reconciliation_runs::finish
             UPDATE reconciliation_runs
             SET status = $2, compared = $3, matched = $4, healed = $5, open = $6, completeness_bps = $7,
                 summary = $8, report_key = $9, finished_at = $10
             WHERE run_id = $1",
            &[
                (&run_id, Type::INT8),
                (&ending.status, Type::TEXT),
                (&ending.compared, Type::INT8),
                (&ending.matched, Type::INT8),
                (&ending.healed, Type::INT8),
                (&ending.open, Type::INT8),
                (&ending.completeness_bps, Type::INT4),
                (ending.summary, Type::JSONB),
                (&ending.report_key, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("reconciliation_runs::finish", 1, changed)
}

/// Begins the run that tells what reading the archive again has changed, and returns its id.
///
/// # Errors
/// When the statement fails.
pub async fn begin_rebuild(db: &impl GenericClient, now: Timestamp) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "-- reconciliation_runs::begin_rebuild
             INSERT INTO reconciliation_runs (kind, started_at) VALUES ('redrive', $1) RETURNING run_id",
            &[(&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Ok(row.try_get("run_id")?)
}

/// Ends it.
///
/// # Errors
/// When the statement fails.
pub async fn end_rebuild(
    db: &impl GenericClient,
    run_id: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- reconciliation_runs::end_rebuild
             UPDATE reconciliation_runs
             SET status = 'completed', finished_at = $2,
                 healed = (SELECT count(*) FROM reconciliation_items WHERE run_id = $1)
             WHERE run_id = $1",
            &[(&run_id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Error::check_row_count("reconciliation_runs::end_rebuild", 1, changed)
}

/// Notes a difference that is put right.
///
/// # Errors
/// When the statement fails.
pub async fn insert_healed(
    db: &impl GenericClient,
    run_id: i64,
    discrepancy: &Discrepancy,
    now: Timestamp,
) -> Result<(), Error> {
    insert_item(db, run_id, discrepancy, now).await?;
    db.execute_typed(
        "-- reconciliation_runs::insert_healed
         UPDATE reconciliation_items SET resolution = 'healed', resolved_at = $4
         WHERE run_id = $1 AND object_id = $2 AND kind = $3",
        &[
            (&run_id, Type::INT8),
            (&discrepancy.object_id, Type::TEXT),
            (&discrepancy.kind.as_str(), Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// Whether somebody has accepted this difference: the same object, kind and values.
///
/// # Errors
/// When the statement fails.
pub async fn is_accepted(
    db: &impl GenericClient,
    discrepancy: &Discrepancy,
) -> Result<bool, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_runs::is_accepted
             SELECT id FROM reconciliation_items
             WHERE object_id = $1 AND object_type = $2 AND kind = $3 AND resolution = 'accepted'
               AND stripe_value IS NOT DISTINCT FROM $4 AND ledger_value IS NOT DISTINCT FROM $5
             LIMIT 1",
            &[
                (&discrepancy.object_id, Type::TEXT),
                (&discrepancy.object_type.as_str(), Type::TEXT),
                (&discrepancy.kind.as_str(), Type::TEXT),
                (&discrepancy.stripe_value, Type::TEXT),
                (&discrepancy.ledger_value, Type::TEXT),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Notes a difference as open; the same one of a run is noted once.
///
/// # Errors
/// When the statement fails.
pub async fn insert_item(
    db: &impl GenericClient,
    run_id: i64,
    discrepancy: &Discrepancy,
    now: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- reconciliation_runs::insert_item
         INSERT INTO reconciliation_items (run_id, kind, object_type, object_id, currency,
                                           stripe_value, ledger_value, found_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (run_id, object_type, object_id, kind) DO NOTHING",
        &[
            (&run_id, Type::INT8),
            (&discrepancy.kind.as_str(), Type::TEXT),
            (&discrepancy.object_type.as_str(), Type::TEXT),
            (&discrepancy.object_id, Type::TEXT),
            (
                &discrepancy.currency.as_ref().map(|one| one.as_str()),
                Type::TEXT,
            ),
            (&discrepancy.stripe_value, Type::TEXT),
            (&discrepancy.ledger_value, Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// An item that nobody has resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenItem {
    pub id: i64,
    pub kind: String,
    pub object_type: String,
    pub object_id: String,
}

/// Up to `limit` open items of a run, in the order in which they were found, after the one with the id `after`.
///
/// # Errors
/// When the statement fails.
pub async fn open_items(
    db: &impl GenericClient,
    run_id: i64,
    after: i64,
    limit: i64,
) -> Result<Vec<OpenItem>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_runs::open_items
             SELECT id, kind, object_type, object_id FROM reconciliation_items
             WHERE (run_id, id) > ($1, $2) AND run_id <= $1 AND resolution = 'open'
             ORDER BY run_id, id LIMIT $3",
            &[
                (&run_id, Type::INT8),
                (&after, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(OpenItem {
                id: row.try_get("id")?,
                kind: row.try_get("kind")?,
                object_type: row.try_get("object_type")?,
                object_id: row.try_get("object_id")?,
            })
        })
        .collect()
}

/// Marks an open item as healed; one that somebody has accepted meanwhile stays accepted.
///
/// # Errors
/// When the statement fails.
pub async fn heal_item(db: &impl GenericClient, item_id: i64, now: Timestamp) -> Result<(), Error> {
    db.execute_typed(
        "-- reconciliation_runs::heal_item
         UPDATE reconciliation_items SET resolution = 'healed', resolved_at = $2
         WHERE id = $1 AND resolution = 'open'",
        &[(&item_id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
    )
    .await?;
    Ok(())
}

/// How many items of a run there are, by kind and resolution.
///
/// # Errors
/// When the statement fails.
pub async fn counts(
    db: &impl GenericClient,
    run_id: i64,
) -> Result<Vec<(String, String, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- reconciliation_runs::counts
             SELECT kind, resolution, count(*) AS items FROM reconciliation_items
             WHERE run_id = $1 GROUP BY kind, resolution ORDER BY kind, resolution",
            &[(&run_id, Type::INT8)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("kind")?,
                row.try_get("resolution")?,
                row.try_get("items")?,
            ))
        })
        .collect()
}

/// One item, locked until the end of the transaction.
///
/// # Errors
/// When the statement fails.
pub async fn lock_item(
    db: &impl GenericClient,
    item_id: i64,
) -> Result<Option<ReconciliationItem>, Error> {
    columns::first(
        db,
        &format!(
            "-- reconciliation_runs::lock_item
             SELECT {} FROM reconciliation_items WHERE id = $1 FOR UPDATE",
            ReconciliationItem::COLUMNS
        ),
        &[(&item_id, Type::INT8)],
    )
    .await
}

/// Accepts an open item, in a transaction that has locked it: the same difference is not reported again.
///
/// # Errors
/// When the statement fails, or the item is not open.
pub async fn accept_item(
    db: &impl GenericClient,
    item_id: i64,
    accepted_by: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- reconciliation_runs::accept_item
             UPDATE reconciliation_items
             SET resolution = 'accepted', resolved_at = $4, accepted_by = $2, accepted_reason = $3
             WHERE id = $1 AND resolution = 'open'",
            &[
                (&item_id, Type::INT8),
                (&accepted_by, Type::TEXT),
                (&reason, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("reconciliation_runs::accept_item", 1, changed)
}
