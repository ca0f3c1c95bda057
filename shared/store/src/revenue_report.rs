//! The statements of `GET /admin/revenue`: rollups, what changed on the days that count in part, and rates. One
//! statement per figure, so that one broken table leaves the others readable.

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::Error;
use domain::money::Currency;
use domain::period::{Month, day_of, start_of_day};
use domain::revenue::figures::{Cash, churn_window_start};

/// When figures are asked for. Whole days are read from rollups, so that a figure costs days, whatever the number of
/// subscriptions and payments.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// This instant, with its whole day.
    Now(Timestamp),
    /// An instant that has passed; of its day the part up to it.
    Past(Timestamp),
}

impl Moment {
    pub fn instant(self) -> Timestamp {
        match self {
            Moment::Now(instant) | Moment::Past(instant) => instant,
        }
    }

    pub fn day(self) -> Date {
        day_of(self.instant())
    }

    /// The last day that counts as a whole.
    pub fn whole_days_until(self) -> Date {
        match self {
            Moment::Now(_) => self.day(),
            Moment::Past(_) => self.day().yesterday().unwrap_or(Date::MIN),
        }
    }

    /// The first instant after the whole days. Later than the moment itself when that is now: nothing is left to add.
    fn rest_from(self) -> Timestamp {
        start_of_day(self.whole_days_until().tomorrow().unwrap_or(Date::MAX))
    }
}

/// The cash of one month in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonthOfCash {
    /// The currency of the amounts.
    pub currency: Currency,
    /// The calendar month, in UTC.
    pub month: Month,
    /// The sums of the month.
    pub cash: Cash,
    /// The number of payments whose fee is an estimate.
    pub estimated_fees: i64,
}

/// The cash of one month in one currency, each day times that day's rate. The sums are decimal text in **minor units of
/// the original currency times the rate between major units**.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthAtRates {
    /// The currency before conversion.
    pub currency: Currency,
    /// The calendar month, in UTC.
    pub month: Month,
    /// The sum of gross × rate.
    pub gross: String,
    /// The sum of fees × rate.
    pub fees: String,
    /// The sum of refunds × rate.
    pub refunds: String,
    /// The sum of disputes × rate.
    pub disputes: String,
    /// The number of days before the first rate. With any such day the sums are incomplete.
    pub days_without_rate: i64,
}

/// MRR and customers of one currency at an instant, from its movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MrrStanding {
    /// The currency of the MRR.
    pub currency: Currency,
    /// In millionths of a minor unit.
    pub mrr_microcents: i64,
    /// The number of customers with an MRR above zero.
    pub customers: i64,
}

impl MrrStanding {
    /// The row of a currency; zeros for a currency without movements.
    pub fn of(standings: &[MrrStanding], currency: Currency) -> MrrStanding {
        let found = standings
            .iter()
            .find(|standing| standing.currency == currency);
        found.copied().unwrap_or(MrrStanding {
            currency,
            mrr_microcents: 0,
            customers: 0,
        })
    }
}

/// Customers of one currency whose MRR fell to zero in a window and was still zero at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Churned {
    /// The number of customers who left.
    pub customers: i64,
    /// The MRR they had when they left, in millionths of a minor unit.
    pub mrr_microcents: i64,
}

/// The number of subscriptions by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscriptionCounts {
    pub active: i64,
    pub trialing: i64,
    pub past_due: i64,
}

/// Cash by currency and month up to and including the day `until`, oldest first. Reads only `revenue_daily`, whose size
/// is days × currencies, whatever the number of payments.
pub async fn cash_by_month(db: &Client, until: Date) -> Result<Vec<MonthOfCash>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::cash_by_month
             SELECT currency, date_trunc('month', day::timestamp)::date AS month,
                    sum(gross_cents)::bigint AS gross_cents, sum(fees_cents)::bigint AS fees_cents,
                    sum(refunds_cents)::bigint AS refunds_cents,
                    sum(disputes_cents)::bigint AS disputes_cents,
                    sum(estimated_fees)::bigint AS estimated_fees
             FROM revenue_daily WHERE day <= $1
             GROUP BY 1, 2 ORDER BY 1, 2",
            &[(&until, Type::DATE)],
        )
        .await?;
    rows.iter().map(month_of_cash).collect()
}

/// Cash of the part of `day` up to and including `until`, by currency. The rollup has whole days only, so this sums the
/// day's entries, from their index alone.
pub async fn cash_of_part_of_day(
    db: &Client,
    day: Date,
    until: Timestamp,
) -> Result<Vec<MonthOfCash>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::cash_of_part_of_day
             SELECT currency, date_trunc('month', $1::date::timestamp)::date AS month,
                    coalesce(sum(amount_cents) FILTER (WHERE kind = 'gross'), 0)::bigint AS gross_cents,
                    coalesce(sum(amount_cents) FILTER (
                        WHERE kind IN ('fee', 'dispute_fee', 'dispute_fee_reinstated')), 0)::bigint
                        AS fees_cents,
                    coalesce(sum(amount_cents) FILTER (WHERE kind = 'refund'), 0)::bigint
                        AS refunds_cents,
                    coalesce(sum(amount_cents) FILTER (
                        WHERE kind IN ('dispute', 'dispute_reinstated')), 0)::bigint AS disputes_cents,
                    count(*) FILTER (WHERE kind = 'fee' AND is_estimated) AS estimated_fees
             FROM revenue_entries
             WHERE occurred_at >= $2 AND occurred_at <= $3 AND kind <> 'failed'
             GROUP BY 1 ORDER BY 1",
            &[
                (&day, Type::DATE),
                (&start_of_day(day), Type::TIMESTAMPTZ),
                (&until, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter().map(month_of_cash).collect()
}

/// Cash of every currency except `reporting`, by month up to and including `until`, each day times the latest rate on
/// or before it.
pub async fn cash_at_rates(
    db: &Client,
    reporting: Currency,
    until: Date,
) -> Result<Vec<MonthAtRates>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::cash_at_rates
             SELECT revenue_daily.currency, date_trunc('month', day::timestamp)::date AS month,
                    coalesce(sum(gross_cents * rate), 0)::text AS gross,
                    coalesce(sum(fees_cents * rate), 0)::text AS fees,
                    coalesce(sum(refunds_cents * rate), 0)::text AS refunds,
                    coalesce(sum(disputes_cents * rate), 0)::text AS disputes,
                    count(*) FILTER (WHERE rate IS NULL) AS days_without_rate
             FROM revenue_daily
             LEFT JOIN LATERAL (
                 SELECT fx_rates.rate::numeric AS rate FROM fx_rates
                 WHERE fx_rates.currency = revenue_daily.currency
                   AND fx_rates.reporting_currency = $1 AND fx_rates.day <= revenue_daily.day
                 ORDER BY fx_rates.day DESC LIMIT 1
             ) AS of_the_day ON true
             WHERE revenue_daily.day <= $2 AND revenue_daily.currency <> $1
             GROUP BY 1, 2 ORDER BY 1, 2",
            &[(&reporting.as_str(), Type::TEXT), (&until, Type::DATE)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(MonthAtRates {
                currency: currency(row, "revenue_daily")?,
                month: Month::of_day(row.try_get("month")?),
                gross: row.try_get("gross")?,
                fees: row.try_get("fees")?,
                refunds: row.try_get("refunds")?,
                disputes: row.try_get("disputes")?,
                days_without_rate: row.try_get("days_without_rate")?,
            })
        })
        .collect()
}

/// The latest rate on or before `day` into `reporting`, by currency: major units of `reporting` for one of the
/// currency.
pub async fn rates_on(
    db: &Client,
    reporting: Currency,
    day: Date,
) -> Result<Vec<(Currency, String)>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::rates_on
             SELECT DISTINCT ON (currency) currency, rate FROM fx_rates
             WHERE reporting_currency = $1 AND day <= $2
             ORDER BY currency, day DESC",
            &[(&reporting.as_str(), Type::TEXT), (&day, Type::DATE)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((currency(row, "fx_rates")?, row.try_get("rate")?)))
        .collect()
}

/// MRR and paying customers by currency, of those with an MRR.
pub async fn standing(db: &Client, moment: Moment) -> Result<Vec<MrrStanding>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::standing
             SELECT currency, sum(delta_microcents)::bigint AS mrr_microcents,
                    sum(customers)::bigint AS customers
             FROM (
                 SELECT currency, delta_microcents, customers_gained - customers_lost AS customers
                 FROM mrr_daily WHERE day <= $1
                 UNION ALL
                 SELECT currency, delta_microcents,
                        CASE WHEN kind IN ('new', 'reactivation') THEN 1
                             WHEN kind = 'churn' THEN -1 ELSE 0 END
                 FROM mrr_movements WHERE occurred_at >= $2 AND occurred_at <= $3
             ) AS moved
             GROUP BY currency HAVING sum(delta_microcents) <> 0 ORDER BY currency",
            &[
                (&moment.whole_days_until(), Type::DATE),
                (&moment.rest_from(), Type::TIMESTAMPTZ),
                (&moment.instant(), Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(MrrStanding {
                currency: currency(row, "mrr_daily")?,
                mrr_microcents: row.try_get("mrr_microcents")?,
                customers: row.try_get("customers")?,
            })
        })
        .collect()
}

/// The customers of `currency` whose last movement in the window before `moment` left no MRR: all who left in it, less
/// those of them who came back in it.
pub async fn churned(db: &Client, currency: Currency, moment: Moment) -> Result<Churned, Error> {
    let from = churn_window_start(moment.instant());
    let first_whole_day = day_of(from).tomorrow().unwrap_or(Date::MAX);
    let row = db
        .query_typed_one(
            "-- revenue_report::churned
             SELECT coalesce(sum(customers), 0)::bigint AS customers,
                    coalesce(sum(microcents), 0)::bigint AS mrr_microcents
             FROM (
                 -- A day that is not summed yet is read from its movements.
                 SELECT customers_lost AS customers, coalesce(churned_microcents, (
                     SELECT sum(before_microcents)::bigint FROM mrr_movements
                     WHERE mrr_movements.currency = $1 AND kind = 'churn'
                       AND occurred_at >= day::timestamp AT TIME ZONE 'UTC'
                       AND occurred_at < (day + 1)::timestamp AT TIME ZONE 'UTC')) AS microcents
                 FROM mrr_daily WHERE currency = $1 AND day >= $2 AND day <= $3
                 UNION ALL
                 SELECT 1, before_microcents FROM mrr_movements
                 WHERE currency = $1 AND kind = 'churn' AND occurred_at > $4 AND occurred_at < $5
                 UNION ALL
                 SELECT 1, before_microcents FROM mrr_movements
                 WHERE currency = $1 AND kind = 'churn' AND occurred_at >= $6 AND occurred_at <= $7
                 UNION ALL
                 SELECT -1, -coalesce(back.churned_microcents, churn.before_microcents)
                 FROM mrr_movements AS back
                 -- Written before the two columns were there.
                 LEFT JOIN LATERAL (
                     SELECT occurred_at, before_microcents FROM mrr_movements AS earlier
                     WHERE back.churned_at IS NULL
                       AND earlier.stripe_customer_id = back.stripe_customer_id
                       AND earlier.currency = back.currency AND earlier.occurred_at < back.occurred_at
                     ORDER BY earlier.occurred_at DESC LIMIT 1
                 ) AS churn ON true
                 WHERE back.currency = $1 AND back.kind = 'reactivation' AND back.occurred_at > $4
                   AND (back.occurred_at < $6 OR back.occurred_at <= $7)
                   AND coalesce(back.churned_at, churn.occurred_at) > $4
             ) AS left_or_back",
            &[
                (&currency.as_str(), Type::TEXT),
                (&first_whole_day, Type::DATE),
                (&moment.whole_days_until(), Type::DATE),
                (&from, Type::TIMESTAMPTZ),
                (&start_of_day(first_whole_day), Type::TIMESTAMPTZ),
                (&moment.rest_from(), Type::TIMESTAMPTZ),
                (&moment.instant(), Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(Churned {
        customers: row.try_get("customers")?,
        mrr_microcents: row.try_get("mrr_microcents")?,
    })
}

/// The number of subscriptions by status.
pub async fn subscriptions(db: &Client, moment: Moment) -> Result<SubscriptionCounts, Error> {
    let row = db
        .query_typed_one(
            "-- revenue_report::subscriptions
             SELECT coalesce(sum(change) FILTER (WHERE status = 'active'), 0)::bigint AS active,
                    coalesce(sum(change) FILTER (WHERE status = 'trialing'), 0)::bigint AS trialing,
                    coalesce(sum(change) FILTER (WHERE status = 'past_due'), 0)::bigint AS past_due
             FROM (
                 SELECT status, gained - lost AS change FROM subscriptions_daily WHERE day <= $1
                 UNION ALL
                 SELECT status_after, 1 FROM subscription_status_changes
                 WHERE occurred_at >= $2 AND occurred_at <= $3
                 UNION ALL
                 SELECT status_before, -1 FROM subscription_status_changes
                 WHERE occurred_at >= $2 AND occurred_at <= $3
             ) AS changed",
            &[
                (&moment.whole_days_until(), Type::DATE),
                (&moment.rest_from(), Type::TIMESTAMPTZ),
                (&moment.instant(), Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(SubscriptionCounts {
        active: row.try_get("active")?,
        trialing: row.try_get("trialing")?,
        past_due: row.try_get("past_due")?,
    })
}

/// Whether the database answers.
pub async fn ping(db: &Client) -> Result<(), Error> {
    db.query_typed_one("-- revenue_report::ping\nSELECT 1 AS one", &[])
        .await?;
    Ok(())
}

fn month_of_cash(row: &Row) -> Result<MonthOfCash, Error> {
    Ok(MonthOfCash {
        currency: currency(row, "revenue_daily")?,
        month: Month::of_day(row.try_get("month")?),
        cash: Cash {
            gross_cents: row.try_get("gross_cents")?,
            fees_cents: row.try_get("fees_cents")?,
            refunds_cents: row.try_get("refunds_cents")?,
            disputes_cents: row.try_get("disputes_cents")?,
        },
        estimated_fees: row.try_get("estimated_fees")?,
    })
}

fn currency(row: &Row, table: &'static str) -> Result<Currency, Error> {
    let code: &str = row.try_get("currency")?;
    Currency::parse(code).map_err(|_not_a_currency| Error::Unreadable {
        table,
        column: "currency",
        row: code.to_owned(),
    })
}
