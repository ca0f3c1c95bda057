//! `usage_daily`: the rollup of `usage_events` that limits and reports read; compared with the events, and rebuilt.

use std::collections::BTreeMap;

use jiff::civil::Date;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::usage_events::NewEvent;
use super::{Error, columns};
use domain::money::Currency;
use domain::period::{Month, day_of};

/// The sums of some events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// The number of events that are not voided.
    pub events: i64,
    /// The sum of their units.
    pub units: i64,
    /// The sum of the units of billable events.
    pub billable_units: i64,
    /// The sum of units × price of billable events, in minor units.
    pub amount_cents: i64,
}

/// What a subject used of one event type in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfType {
    /// Either `user:<id>` or `partner:<prefix>`.
    pub subject: String,
    /// The event type that was used.
    pub event_type: String,
    /// The number of events.
    pub events: i64,
    /// The sum of the units of billable events.
    pub billable_units: i64,
}

/// A line of a monthly report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthOfType {
    /// The calendar month, in UTC.
    pub month: Month,
    /// The currency of the amount.
    pub currency: Currency,
    /// The event type that was used.
    pub event_type: String,
    /// The sums of the month.
    pub totals: Totals,
}

/// A row of the rollup that is not the sum of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Either `user:<id>` or `partner:<prefix>`.
    pub subject: String,
    /// The day in UTC.
    pub day: Date,
    /// The event type of the row.
    pub event_type: String,
    /// The currency of the amounts.
    pub currency: String,
    /// The sums in the rollup; zeros where it has no row.
    pub rolled_up: Totals,
    /// The sums of the events.
    pub summed: Totals,
}

/// Adds events that have just been written. Rows are written in the order of their keys, so that two batches meet in one
/// order.
pub(super) async fn add(db: &impl GenericClient, events: &[&NewEvent<'_>]) -> Result<(), Error> {
    let mut shares: BTreeMap<(&str, Date, &str, &str), Totals> = BTreeMap::new();
    for event in events {
        let day = day_of(event.occurred_at);
        let key = (
            event.subject,
            day,
            event.event_type,
            event.currency.as_str(),
        );
        let share = shares.entry(key).or_default();
        // A batch is far from the range: at most a thousand events of at most 10¹⁵ each.
        let add = |sum: &mut i64, part: i64| *sum = sum.saturating_add(part);
        add(&mut share.events, 1);
        add(&mut share.units, event.cost_units);
        if event.billable {
            let price_cents = event.unit_price_cents.unwrap_or(0);
            add(&mut share.billable_units, event.cost_units);
            add(
                &mut share.amount_cents,
                event.cost_units.saturating_mul(price_cents),
            );
        }
    }
    let keys: Vec<_> = shares.keys().copied().collect();
    let subjects: Vec<&str> = keys.iter().map(|(subject, ..)| *subject).collect();
    let days: Vec<Date> = keys.iter().map(|(_, day, ..)| *day).collect();
    let event_types: Vec<&str> = keys
        .iter()
        .map(|(_, _, event_type, _)| *event_type)
        .collect();
    let currencies: Vec<&str> = keys.iter().map(|(.., currency)| *currency).collect();
    let sums = |sum: fn(&Totals) -> i64| shares.values().map(sum).collect::<Vec<i64>>();
    let changed = db
        .execute_typed(
            "-- usage_daily::add
             INSERT INTO usage_daily AS daily
                 (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             SELECT subject, day, event_type, currency, events, units, billable_units, amount_cents
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS added
                 (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             ON CONFLICT (subject, day, event_type, currency) DO UPDATE
             SET events = daily.events + EXCLUDED.events, units = daily.units + EXCLUDED.units,
                 billable_units = daily.billable_units + EXCLUDED.billable_units,
                 amount_cents = daily.amount_cents + EXCLUDED.amount_cents",
            &[
                (&subjects, Type::TEXT_ARRAY),
                (&days, Type::DATE_ARRAY),
                (&event_types, Type::TEXT_ARRAY),
                (&currencies, Type::TEXT_ARRAY),
                (&sums(|share| share.events), Type::INT8_ARRAY),
                (&sums(|share| share.units), Type::INT8_ARRAY),
                (&sums(|share| share.billable_units), Type::INT8_ARRAY),
                (&sums(|share| share.amount_cents), Type::INT8_ARRAY),
            ],
        )
        .await?;
    let expected = u64::try_from(shares.len()).unwrap_or(u64::MAX);
    Error::check_row_count("usage_daily::add", expected, changed)
}

/// What the subjects used in a month, by event type. One statement, whatever their number.
pub async fn of_month(
    db: &impl GenericClient,
    subjects: &[&str],
    month: Month,
) -> Result<Vec<OfType>, Error> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- usage_daily::of_month
             SELECT subject, event_type, CAST(sum(events) AS bigint) AS events,
                    CAST(sum(billable_units) AS bigint) AS billable_units
             FROM usage_daily WHERE subject = ANY($1) AND day >= $2 AND day <= $3
             GROUP BY subject, event_type",
            &[
                (&subjects, Type::TEXT_ARRAY),
                (&month.first_day(), Type::DATE),
                (&month.last_day(), Type::DATE),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(OfType {
                subject: row.try_get("subject")?,
                event_type: row.try_get("event_type")?,
                events: row.try_get("events")?,
                billable_units: row.try_get("billable_units")?,
            })
        })
        .collect()
}

/// What a subject used from the day `from` to the day before `to`, by month, currency and type, newest month first.
/// Lines whose events were all voided are left out.
pub async fn by_month(
    db: &impl GenericClient,
    subject: &str,
    from: Date,
    to: Date,
) -> Result<Vec<MonthOfType>, Error> {
    let rows = db
        .query_typed(
            "-- usage_daily::by_month
             SELECT CAST(date_trunc('month', day) AS date) AS month, currency, event_type,
                    CAST(sum(events) AS bigint) AS events, CAST(sum(units) AS bigint) AS units,
                    CAST(sum(billable_units) AS bigint) AS billable_units,
                    CAST(sum(amount_cents) AS bigint) AS amount_cents
             FROM usage_daily WHERE subject = $1 AND day >= $2 AND day < $3
             GROUP BY 1, 2, 3 HAVING sum(events) > 0 ORDER BY 1 DESC, 2, 3",
            &[
                (&subject, Type::TEXT),
                (&from, Type::DATE),
                (&to, Type::DATE),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(MonthOfType {
                month: Month::of_day(row.try_get("month")?),
                currency: columns::currency(row, "usage_daily", subject)?,
                event_type: row.try_get("event_type")?,
                totals: totals(row, "")?,
            })
        })
        .collect()
}

/// Where the rollup is not the sum of the events: at most a thousand rows, in the order of its key. Reads every event.
pub async fn differences(db: &impl GenericClient) -> Result<Vec<Difference>, Error> {
    let rows = db
        .query_typed(
            "-- usage_daily::differences
             WITH base AS (
                 SELECT subject, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, event_type, currency,
                        count(*) AS events, sum(cost_units) AS units,
                        COALESCE(sum(cost_units) FILTER (WHERE billable), 0) AS billable_units,
                        COALESCE(sum(cost_units * unit_price_cents) FILTER (WHERE billable), 0) AS amount_cents
                 FROM usage_events WHERE voided_at IS NULL
                 GROUP BY 1, 2, 3, 4
             ), compared AS (
                 SELECT subject, day, event_type, currency,
                        COALESCE(daily.events, 0) AS rolled_up_events, COALESCE(base.events, 0) AS summed_events,
                        COALESCE(daily.units, 0) AS rolled_up_units, COALESCE(base.units, 0) AS summed_units,
                        COALESCE(daily.billable_units, 0) AS rolled_up_billable_units,
                        COALESCE(base.billable_units, 0) AS summed_billable_units,
                        COALESCE(daily.amount_cents, 0) AS rolled_up_amount_cents,
                        COALESCE(base.amount_cents, 0) AS summed_amount_cents
                 FROM usage_daily AS daily FULL JOIN base USING (subject, day, event_type, currency)
             )
             SELECT subject, day, event_type, currency, rolled_up_events, rolled_up_units, rolled_up_billable_units,
                    rolled_up_amount_cents, summed_events, CAST(summed_units AS bigint) AS summed_units,
                    CAST(summed_billable_units AS bigint) AS summed_billable_units,
                    CAST(summed_amount_cents AS bigint) AS summed_amount_cents
             FROM compared
             WHERE rolled_up_events <> summed_events OR rolled_up_units <> summed_units
                OR rolled_up_billable_units <> summed_billable_units OR rolled_up_amount_cents <> summed_amount_cents
             ORDER BY subject, day, event_type, currency
             LIMIT 1000",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Difference {
                subject: row.try_get("subject")?,
                day: row.try_get("day")?,
                event_type: row.try_get("event_type")?,
                currency: row.try_get("currency")?,
                rolled_up: totals(row, "rolled_up_")?,
                summed: totals(row, "summed_")?,
            })
        })
        .collect()
}

/// Keeps every writer out of the rollup until the end of the transaction; readers continue. Waits for writers that have
/// written events already: their statement locks the rollup too.
pub async fn lock(db: &impl GenericClient) -> Result<(), Error> {
    db.execute_typed(
        "-- usage_daily::lock
         LOCK TABLE usage_daily IN SHARE ROW EXCLUSIVE MODE",
        &[],
    )
    .await?;
    Ok(())
}

/// Rebuilds the rows of a subject from its events. The transaction must have called [`lock`] before. Returns the number
/// of rows.
pub async fn rebuild(db: &impl GenericClient, subject: &str) -> Result<u64, Error> {
    let rows = db
        .execute_typed(
            "-- usage_daily::rebuild
             WITH base AS (
                 SELECT subject, CAST(created_at AT TIME ZONE 'UTC' AS date) AS day, event_type, currency,
                        count(*) AS events, CAST(sum(cost_units) AS bigint) AS units,
                        CAST(COALESCE(sum(cost_units) FILTER (WHERE billable), 0) AS bigint) AS billable_units,
                        CAST(COALESCE(sum(cost_units * unit_price_cents) FILTER (WHERE billable), 0) AS bigint)
                            AS amount_cents
                 FROM usage_events WHERE subject = $1 AND voided_at IS NULL
                 GROUP BY 1, 2, 3, 4
             ), removed AS (
                 DELETE FROM usage_daily AS daily
                 WHERE subject = $1 AND NOT EXISTS (
                     SELECT 1 FROM base WHERE base.day = daily.day AND base.event_type = daily.event_type
                         AND base.currency = daily.currency)
             )
             INSERT INTO usage_daily (subject, day, event_type, currency, events, units, billable_units, amount_cents)
             SELECT subject, day, event_type, currency, events, units, billable_units, amount_cents FROM base
             ON CONFLICT (subject, day, event_type, currency) DO UPDATE
             SET events = EXCLUDED.events, units = EXCLUDED.units, billable_units = EXCLUDED.billable_units,
                 amount_cents = EXCLUDED.amount_cents",
            &[(&subject, Type::TEXT)],
        )
        .await?;
    Ok(rows)
}

fn totals(row: &Row, prefix: &str) -> Result<Totals, Error> {
    Ok(Totals {
        events: row.try_get(format!("{prefix}events").as_str())?,
        units: row.try_get(format!("{prefix}units").as_str())?,
        billable_units: row.try_get(format!("{prefix}billable_units").as_str())?,
        amount_cents: row.try_get(format!("{prefix}amount_cents").as_str())?,
    })
}
