//! Usage of partners that no invoice carries, summed by month.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::Error;
use domain::period::{Month, Period};

/// A stretch of a partner's usage of which nothing is billed, or only some.
#[derive(Debug, Clone, Copy)]
pub struct Unbilled<'a> {
    pub api_key_prefix: &'a str,
    pub period: Period,
    /// Of events those of these types only; `None` for all.
    pub types: Option<&'a [String]>,
    /// Of events those of no such type only; `None` for all.
    pub other_than: Option<&'a [String]>,
    /// Of events those only that came in later.
    pub ingested_after: Option<Timestamp>,
}

/// What was used of a stretch in a month, of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfMonth {
    /// The stretch's place in what was asked.
    pub place: usize,
    pub month: Month,
    /// The type of the events; `None` of the gateway's requests.
    pub event_type: Option<String>,
    pub events: i64,
    pub units: i64,
}

/// Billable events that were not voided, of each stretch by UTC month and type.
///
/// # Errors
/// When the statement fails.
pub async fn events(
    db: &impl GenericClient,
    asked: &[Unbilled<'_>],
) -> Result<Vec<OfMonth>, Error> {
    let prefixes: Vec<&str> = asked.iter().map(|stretch| stretch.api_key_prefix).collect();
    let starts: Vec<Timestamp> = asked.iter().map(|stretch| stretch.period.start).collect();
    let ends: Vec<Timestamp> = asked.iter().map(|stretch| stretch.period.end).collect();
    let types: Vec<Option<Json<&[String]>>> = asked
        .iter()
        .map(|stretch| stretch.types.map(Json))
        .collect();
    let other_than: Vec<Option<Json<&[String]>>> = asked
        .iter()
        .map(|stretch| stretch.other_than.map(Json))
        .collect();
    let after: Vec<Option<Timestamp>> =
        asked.iter().map(|stretch| stretch.ingested_after).collect();
    let rows = db
        .query_typed(
            "-- unbilled_usage::events
             SELECT asked.position - 1 AS place, used.month, used.event_type, used.events, used.units
             FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY AS asked
                 (prefix, start_at, end_at, types, other_than, ingested_after, position)
             CROSS JOIN LATERAL (
                 SELECT CAST(date_trunc('month', created_at AT TIME ZONE 'UTC') AS date) AS month, event_type,
                        count(*) AS events, CAST(COALESCE(sum(cost_units), 0) AS bigint) AS units
                 FROM usage_events
                 WHERE subject = 'partner:' || asked.prefix
                   AND created_at >= asked.start_at AND created_at < asked.end_at
                   AND billable AND voided_at IS NULL
                   AND (asked.types IS NULL OR asked.types ? event_type)
                   AND (asked.other_than IS NULL OR NOT asked.other_than ? event_type)
                   AND (asked.ingested_after IS NULL OR ingested_at > asked.ingested_after)
                 GROUP BY 1, 2
             ) AS used
             ORDER BY asked.position, used.month, used.event_type",
            &[
                (&prefixes, Type::TEXT_ARRAY),
                (&starts, Type::TIMESTAMPTZ_ARRAY),
                (&ends, Type::TIMESTAMPTZ_ARRAY),
                (&types, Type::JSONB_ARRAY),
                (&other_than, Type::JSONB_ARRAY),
                (&after, Type::TIMESTAMPTZ_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let place: i64 = row.try_get("place")?;
            Ok(OfMonth {
                place: usize::try_from(place).unwrap_or(usize::MAX),
                month: Month::of_day(row.try_get("month")?),
                event_type: Some(row.try_get("event_type")?),
                events: row.try_get("events")?,
                units: row.try_get("units")?,
            })
        })
        .collect()
}

/// The gateway's requests of each stretch, by UTC month.
///
/// # Errors
/// When the statement fails.
pub async fn requests(
    db: &impl GenericClient,
    asked: &[Unbilled<'_>],
) -> Result<Vec<OfMonth>, Error> {
    let prefixes: Vec<&str> = asked.iter().map(|stretch| stretch.api_key_prefix).collect();
    let starts: Vec<Timestamp> = asked.iter().map(|stretch| stretch.period.start).collect();
    let ends: Vec<Timestamp> = asked.iter().map(|stretch| stretch.period.end).collect();
    let rows = db
        .query_typed(
            "-- unbilled_usage::requests
             SELECT asked.position - 1 AS place, used.month, used.events, used.units
             FROM unnest($1, $2, $3) WITH ORDINALITY AS asked (prefix, start_at, end_at, position)
             CROSS JOIN LATERAL (
                 SELECT CAST(date_trunc('month', to_timestamp(extract(epoch FROM created_at)) AT TIME ZONE 'UTC') AS date)
                            AS month,
                        count(*) AS events, CAST(COALESCE(sum(cost_units), 0) AS bigint) AS units
                 FROM api_usage
                 WHERE api_key_prefix = asked.prefix
                   AND created_at > asked.start_at - interval '1 day' AND created_at < asked.end_at + interval '1 day'
                   AND extract(epoch FROM created_at) >= extract(epoch FROM asked.start_at)
                   AND extract(epoch FROM created_at) < extract(epoch FROM asked.end_at)
                 GROUP BY 1
             ) AS used
             ORDER BY asked.position, used.month",
            &[
                (&prefixes, Type::TEXT_ARRAY),
                (&starts, Type::TIMESTAMPTZ_ARRAY),
                (&ends, Type::TIMESTAMPTZ_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let place: i64 = row.try_get("place")?;
            Ok(OfMonth {
                place: usize::try_from(place).unwrap_or(usize::MAX),
                month: Month::of_day(row.try_get("month")?),
                event_type: None,
                events: row.try_get("events")?,
                units: row.try_get("units")?,
            })
        })
        .collect()
}
