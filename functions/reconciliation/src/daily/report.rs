//! The run's items as a CSV in the bucket.

use documents::csv_export::{self, Cell};
use runtime::aws;
use store::reconciliation_runs::{self, ReconciliationItem};
use tokio_postgres::Client;

use super::Run;

/// Items read at once.
const ITEMS: i64 = 1_000;
/// The columns of the file.
const HEADER: [&str; 10] = [
    "id",
    "kind",
    "resolution",
    "object_type",
    "object_id",
    "currency",
    "stripe_value",
    "ledger_value",
    "found_at",
    "resolved_at",
];

impl Run<'_> {
    /// Stores `reconciliation/<run_id>.csv` and returns its key. The inner error is the bucket's: the run goes on
    /// without its report.
    ///
    /// The file is as large as what differs, which is bounded by what a run examines.
    pub(super) async fn write_report(&self) -> Result<Result<String, ReportError>, store::Error> {
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        let mut rows = Vec::new();
        let mut after = 0;
        loop {
            let items = reconciliation_runs::items(db, self.run_id, after, ITEMS).await?;
            let Some(last) = items.last() else {
                break;
            };
            after = last.id;
            rows.extend(items.iter().map(row));
        }
        let key = format!("reconciliation/{}.csv", self.run_id);
        let bytes = match csv_export::write(&HEADER, rows) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.into())),
        };
        let stored = self.app.document_bucket.put(&key, "text/csv", bytes).await;
        Ok(stored.map(|()| key).map_err(ReportError::from))
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error("the report could not be written")]
    Csv(#[from] csv_export::Error),
    #[error("the bucket did not take the report")]
    Bucket(#[from] aws::Error),
}

fn row(item: &ReconciliationItem) -> Vec<Cell> {
    let compared = |value: &Option<String>| match value {
        Some(value) => Cell::number_or_text(value),
        None => Cell::Empty,
    };
    vec![
        item.id.into(),
        Cell::value(&item.kind),
        Cell::value(&item.resolution),
        Cell::value(&item.object_type),
        item.object_id.as_str().into(),
        item.currency.as_deref().into(),
        compared(&item.stripe_value),
        compared(&item.ledger_value),
        Cell::value(item.found_at),
        item.resolved_at.map_or(Cell::Empty, Cell::value),
    ]
}
