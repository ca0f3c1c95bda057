//! The run's items as a CSV in the bucket.

use documents::csv_export::{self, Cell};
use runtime::aws;
use serde_json::Value;
use store::list::Object;
use store::reconciliation_runs;
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
            // Ours: a number in every row.
            after = last["id"].as_i64().unwrap_or(i64::MAX);
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

fn row(item: &Object) -> Vec<Cell> {
    HEADER
        .iter()
        .map(|column| match &item[*column] {
            Value::Null => Cell::Empty,
            // Also an amount in a column of texts: a negative one is no formula.
            Value::String(text) if text.parse::<i64>().is_ok() => Cell::value(text),
            Value::String(text) => Cell::from(text.as_str()),
            value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Cell::value(value)
            }
        })
        .collect()
}
