//! `usage_alerts`: which thresholds of which month have been announced, each of them once.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use domain::period::Month;

/// Writes the alerts of a month that are not stored yet and returns them: subject and threshold in percent.
///
/// # Errors
/// [`Error::is_retryable`] when it met another transaction.
pub async fn insert_all(
    db: &impl GenericClient,
    alerts: &[(&str, i32)],
    month: Month,
    now: Timestamp,
) -> Result<Vec<(String, i32)>, Error> {
    if alerts.is_empty() {
        return Ok(Vec::new());
    }
    let subjects: Vec<&str> = alerts.iter().map(|(subject, _)| *subject).collect();
    let thresholds: Vec<i32> = alerts.iter().map(|(_, threshold)| *threshold).collect();
    let rows = db
        .query_typed(
            "-- usage_alerts::insert_all
             INSERT INTO usage_alerts (subject, month, threshold_pct, created_at)
             SELECT subject, $3, threshold_pct, $4 FROM unnest($1, $2) AS new (subject, threshold_pct)
             ORDER BY subject, threshold_pct
             ON CONFLICT (subject, month, threshold_pct) DO NOTHING
             RETURNING subject, threshold_pct",
            &[
                (&subjects, Type::TEXT_ARRAY),
                (&thresholds, Type::INT4_ARRAY),
                (&month.first_day(), Type::DATE),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("subject")?, row.try_get("threshold_pct")?)))
        .collect()
}
