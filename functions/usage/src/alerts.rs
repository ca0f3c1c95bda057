//! `usage.threshold_reached`: 80 % and 100 % of a limit, once per subject and month, through the outbox.

use std::collections::HashMap;

use domain::period::Month;
use domain::usage::UsageStanding;
use jiff::Timestamp;
use serde_json::json;
use store::outbox::{self, NewMessage};
use store::usage_alerts;
use tokio_postgres::Transaction;

const DETAIL_TYPE: &str = "usage.threshold_reached";

/// Records the thresholds that the subjects have newly reached this month, and returns the messages to publish after
/// the commit. Runs no statement when no threshold is reached.
pub(crate) async fn raise(
    db: &Transaction<'_>,
    standings: &[(&str, UsageStanding)],
    month: Month,
    now: Timestamp,
) -> Result<Vec<outbox::Message>, store::Error> {
    let reached: Vec<(&str, i32)> = standings
        .iter()
        .flat_map(|(subject, standing)| {
            let thresholds = standing.thresholds_reached().into_iter();
            thresholds.map(move |threshold| (*subject, threshold))
        })
        .collect();
    let raised = usage_alerts::insert_all(db, &reached, month, now).await?;
    let standings: HashMap<&str, UsageStanding> = standings.iter().copied().collect();
    let messages: Vec<NewMessage> = raised
        .iter()
        .map(|(subject, threshold_pct)| {
            let dedupe_key = format!("{DETAIL_TYPE}:{subject}:{month}:{threshold_pct}");
            let standing = standings.get(subject.as_str());
            NewMessage {
                detail_type: DETAIL_TYPE,
                detail: json!({
                    "event_id": dedupe_key,
                    "occurred_at": now,
                    "subject": subject,
                    "data": {
                        "month": month,
                        "threshold_pct": threshold_pct,
                        "used": standing.map(|standing| standing.used),
                        "limit": standing.and_then(|standing| standing.limit),
                    },
                }),
                dedupe_key,
            }
        })
        .collect();
    outbox::insert_all(db, &messages, now).await
}
