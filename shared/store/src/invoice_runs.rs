//! `invoice_runs`: what each run of partner invoicing did.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::Error;
use domain::period::Period;

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    /// Of the newest period billed.
    pub period: Option<Period>,
    /// Contracts looked at.
    pub contracts: i64,
    /// Invoices made.
    pub created: i64,
    /// Contracts whose last ended period was invoiced before.
    pub already_present: i64,
    /// What could not be done.
    pub failed: i64,
    /// Invoices that were not issued until somebody has looked.
    pub needs_review: i64,
    /// `[{contract_id, error, …}]`
    pub errors: &'a Value,
    /// `[{contract_id, period_start, status, …}]`
    pub items: &'a Value,
    /// It stopped at its deadline.
    pub stopped_early: bool,
}

/// Notes that a run begins, and returns its id.
///
/// # Errors
/// When the statement fails.
pub async fn begin(db: &impl GenericClient, now: Timestamp) -> Result<i64, Error> {
    let rows = db
        .query_typed(
            "-- invoice_runs::begin
             INSERT INTO invoice_runs (started_at) VALUES ($1) RETURNING run_id",
            &[(&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(row.try_get("run_id")?),
        None => Err(Error::RowCount {
            statement: "invoice_runs::begin",
            expected: 1,
            changed: 0,
        }),
    }
}

/// Notes what a run did.
///
/// # Errors
/// When the statement fails.
pub async fn finish(
    db: &impl GenericClient,
    run_id: i64,
    done: &Done<'_>,
    finished_at: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- invoice_runs::finish
             UPDATE invoice_runs
             SET period_start = $2, period_end = $3, finished_at = $4, contracts = $5, created = $6,
                 already_present = $7, failed = $8, needs_review = $9, errors = $10, items = $11,
                 stopped_early = $12
             WHERE run_id = $1",
            &[
                (&run_id, Type::INT8),
                (&done.period.map(|period| period.start), Type::TIMESTAMPTZ),
                (&done.period.map(|period| period.end), Type::TIMESTAMPTZ),
                (&finished_at, Type::TIMESTAMPTZ),
                (&done.contracts, Type::INT8),
                (&done.created, Type::INT8),
                (&done.already_present, Type::INT8),
                (&done.failed, Type::INT8),
                (&done.needs_review, Type::INT8),
                (&Json(done.errors), Type::JSONB),
                (&Json(done.items), Type::JSONB),
                (&done.stopped_early, Type::BOOL),
            ],
        )
        .await?;
    Error::check_row_count("invoice_runs::finish", 1, changed)
}
