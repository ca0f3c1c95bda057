//! Open invoices by how long they are past due.

use domain::money::Currency;
use jiff::Timestamp;
use serde::Serialize;
use store::fields;
use store::reports;
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "invoices of which something was due at as_of, by civil days (UTC) past due: what was to be \
    paid less the credit notes in force and the payments dated up to then; without a due date an invoice is due when it \
    is finalised";

/// The name of an age, and the last day of it.
const BUCKETS: [(&str, i64); 5] = [
    ("current", 0),
    ("1-30", 30),
    ("31-60", 60),
    ("61-90", 90),
    ("over_90", i64::MAX),
];

fields! {
    /// Open invoices of one age.
    pub struct AgingBucket {
        /// `current`, or the days past due: `1-30`, `31-60`, `61-90`, `over_90`.
        pub bucket: &'static str,
        pub invoices: i64,
        pub amount_due_cents: i64,
    }
}

/// Sums over all ages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AgingTotals {
    pub invoices: i64,
    pub amount_due_cents: i64,
}

/// Every age, the youngest first.
pub async fn table(
    db: &Client,
    currency: Currency,
    as_of: Timestamp,
) -> Section<Table<AgingBucket, AgingTotals>> {
    let aged = reports::aging(db, currency, as_of).await?;
    let mut rows = Vec::new();
    let mut rest = aged.as_slice();
    for (bucket, last_day) in BUCKETS {
        let count = rest.partition_point(|aged| aged.days_past_due <= last_day);
        let (of_bucket, older) = rest.split_at(count);
        rows.push(AgingBucket {
            bucket,
            invoices: sum(of_bucket, |aged| aged.invoices)?,
            amount_due_cents: sum(of_bucket, |aged| aged.amount_due_cents)?,
        });
        rest = older;
    }
    let totals = AgingTotals {
        invoices: sum(&rows, |row| row.invoices)?,
        amount_due_cents: sum(&rows, |row| row.amount_due_cents)?,
    };
    Ok(Table { rows, totals })
}
