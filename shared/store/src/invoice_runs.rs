//! `invoice_runs`: the result of each run of partner invoicing.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::Error;
use domain::period::Period;

/// The result of a run.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    /// The newest period that was billed; `None` when nothing was.
    pub period: Option<Period>,
    /// How many contracts were looked at.
    pub contracts: i64,
    /// How many invoices were made.
    pub created: i64,
    /// How many contracts had an invoice of their last ended period already.
    pub already_present: i64,
    /// How many failures `errors` lists.
    pub failed: i64,
    /// How many invoices wait for somebody to look at them before they are issued.
    pub needs_review: i64,
    /// A JSON list `[{contract_id, error, …}]`.
    pub errors: &'a Value,
    /// A JSON list `[{contract_id, period_start, status, …}]`.
    pub items: &'a Value,
    /// Whether the run stopped at its deadline.
    pub stopped_early: bool,
}

/// Records the start of a run and returns its id.
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

/// Records the result of a run.
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
