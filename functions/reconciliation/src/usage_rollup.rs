//! `reconciliation.usage-rollup`: compares `usage_daily` with its events, and rebuilds what differs when asked to.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::Serialize;
use serde_json::{Value, json};
use store::Database;
use store::usage_daily::{self, Difference};

use crate::Deadline;

/// What a run found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
struct Summary {
    /// Rows that differed, at most a thousand.
    differences: usize,
    /// The first few of them.
    first: Vec<Row>,
    /// Number of subjects whose rows were rebuilt.
    rebuilt_subjects: usize,
    /// Rows that differ still.
    remaining: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Row {
    subject: String,
    day: Date,
    event_type: String,
    currency: String,
    rolled_up_units: i64,
    summed_units: i64,
    rolled_up_amount_cents: i64,
    summed_amount_cents: i64,
}

/// Rows shown in the summary.
const SHOWN: usize = 20;

/// Compares, and with `rebuild` puts right one subject after the other, each in its own transaction, until the
/// deadline. The next run goes on.
pub(crate) async fn run(
    database: &Database,
    detail: &Value,
    deadline: Deadline,
) -> Result<Value, store::Error> {
    let mut client = database.client().await?;
    let found = usage_daily::differences(&**client).await?;
    let mut summary = Summary {
        differences: found.len(),
        first: found.iter().take(SHOWN).map(row).collect(),
        remaining: found.len(),
        ..Summary::default()
    };
    if !found.is_empty() {
        // Somebody wrote past the statement that keeps both.
        tracing::error!(
            differences = found.len(),
            "usage_daily is not the sum of its events"
        );
    }
    if detail["rebuild"] == true && !found.is_empty() {
        let subjects: BTreeSet<&str> = found.iter().map(|row| row.subject.as_str()).collect();
        for subject in subjects {
            if deadline.is_reached() {
                break;
            }
            let transaction = client.transaction().await?;
            usage_daily::lock(&*transaction).await?;
            usage_daily::rebuild(&*transaction, subject).await?;
            transaction.commit().await?;
            summary.rebuilt_subjects += 1;
        }
        summary.remaining = usage_daily::differences(&**client).await?.len();
    }
    metrics::gauge!("usage_rollup_differences")
        .set(u32::try_from(summary.remaining).unwrap_or(u32::MAX));
    Ok(json!(summary))
}

fn row(difference: &Difference) -> Row {
    Row {
        subject: difference.subject.clone(),
        day: difference.day,
        event_type: difference.event_type.clone(),
        currency: difference.currency.clone(),
        rolled_up_units: difference.rolled_up.units,
        summed_units: difference.summed.units,
        rolled_up_amount_cents: difference.rolled_up.amount_cents,
        summed_amount_cents: difference.summed.amount_cents,
    }
}
