//! `api_usage`: the host's log of partners' requests. Its gateway writes it; we only read it.
//!
//! `created_at` is TIMESTAMPTZ where we made the table, and may be TIMESTAMP (in UTC) where the host did. Its epoch is
//! the same for both. The plain comparisons beside it only let the index find the rows, with a day of margin for the
//! session's time zone. Inside that margin they are enough, at half the price: only rows at the edges compute the
//! epoch.

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::usage_daily::Totals;
use domain::period::{Month, start_of_day};

/// The number of requests of each partner from `from` to before `to`. Partners without requests are left out.
pub async fn requests(
    db: &impl GenericClient,
    api_key_prefixes: &[&str],
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<(String, i64)>, Error> {
    if api_key_prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- api_usage::requests
             SELECT CAST(api_key_prefix AS text) AS api_key_prefix, count(*) AS requests
             FROM api_usage
             WHERE api_key_prefix = ANY($1)
               AND created_at > $2 - interval '1 day' AND created_at < $3 + interval '1 day'
               AND (created_at > $2 + interval '1 day' AND created_at < $3 - interval '1 day'
                    OR extract(epoch FROM created_at) >= extract(epoch FROM $2)
                        AND extract(epoch FROM created_at) < extract(epoch FROM $3))
             GROUP BY 1",
            &[
                (&api_key_prefixes, Type::TEXT_ARRAY),
                (&from, Type::TIMESTAMPTZ),
                (&to, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("api_key_prefix")?, row.try_get("requests")?)))
        .collect()
}

/// A partner's requests from the day `from` to the day before `to`, by month, newest first. The amounts are 0: the
/// contract decides what requests cost.
pub async fn by_month(
    db: &impl GenericClient,
    api_key_prefix: &str,
    from: Date,
    to: Date,
) -> Result<Vec<(Month, Totals)>, Error> {
    let (from, to) = (start_of_day(from), start_of_day(to));
    let rows = db
        .query_typed(
            "-- api_usage::by_month
             SELECT CAST(date_trunc('month', to_timestamp(extract(epoch FROM created_at)) AT TIME ZONE 'UTC') AS date)
                        AS month,
                    count(*) AS requests, CAST(COALESCE(sum(cost_units), 0) AS bigint) AS units
             FROM api_usage
             WHERE api_key_prefix = $1
               AND created_at > $2 - interval '1 day' AND created_at < $3 + interval '1 day'
               AND (created_at > $2 + interval '1 day' AND created_at < $3 - interval '1 day'
                    OR extract(epoch FROM created_at) >= extract(epoch FROM $2)
                        AND extract(epoch FROM created_at) < extract(epoch FROM $3))
             GROUP BY 1 ORDER BY 1 DESC",
            &[
                (&api_key_prefix, Type::TEXT),
                (&from, Type::TIMESTAMPTZ),
                (&to, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let units = row.try_get("units")?;
            let totals = Totals {
                events: row.try_get("requests")?,
                units,
                billable_units: units,
                amount_cents: 0,
            };
            Ok((Month::of_day(row.try_get("month")?), totals))
        })
        .collect()
}
