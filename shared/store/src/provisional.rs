//! What unfinished look-ups may still change in figures.

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{Error, columns};
use domain::money::Currency;
use domain::stripe_objects::partial::Reason;

/// Rows of one month, currency and reason that wait for a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: Reason,
    pub currency: Currency,
    /// The first day of the month that the figure counts them in (UTC).
    pub month: Date,
    /// The number of rows.
    pub objects: i64,
    /// What they may change the figure by, in minor units.
    pub amount_cents: i64,
    /// When the oldest look-up was requested.
    pub oldest_at: Timestamp,
    /// The rows whose look-up keeps failing, or of whose object Stripe says that there is none.
    pub failing: i64,
}

/// The rows that were due by `now` and count from before `until`, by month, currency and reason.
///
/// # Errors
/// When the statement fails.
pub async fn waiting(db: &Client, until: Timestamp, now: Timestamp) -> Result<Vec<Waiting>, Error> {
    let rows = db
        .query_typed(
            "-- provisional::waiting
             SELECT reason, currency, month, count(*) AS objects, sum(amount_cents)::bigint AS amount_cents,
                    min(oldest_at) AS oldest_at, count(*) FILTER (WHERE failing) AS failing
             FROM (
                 -- A row may wait for several objects for one reason.
                 SELECT reason, currency, subject,
                        date_trunc('month', max(figure_at) AT TIME ZONE 'UTC')::date AS month,
                        max(amount_cents) AS amount_cents, min(requested_at) AS oldest_at,
                        bool_or(state IN ('failing', 'absent')) AS failing
                 FROM stripe_lookups
                 WHERE done_at IS NULL AND figure_at < $1 AND coalesce(due_at, requested_at) <= $2
                 GROUP BY reason, currency, subject
             ) AS object
             GROUP BY reason, currency, month",
            &[(&until, Type::TIMESTAMPTZ), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    let waiting = rows.iter().map(|row| {
        let word: &str = row.try_get("reason")?;
        let reason = Reason::parse(word).ok_or_else(|| Error::Unreadable {
            table: "stripe_lookups",
            column: "reason",
            row: word.to_owned(),
        })?;
        Ok(Waiting {
            reason,
            currency: columns::currency(row, "stripe_lookups", word)?,
            month: row.try_get("month")?,
            objects: row.try_get("objects")?,
            amount_cents: row.try_get("amount_cents")?,
            oldest_at: row.try_get("oldest_at")?,
            failing: row.try_get("failing")?,
        })
    });
    waiting.collect()
}
