//! The statements of `GET /admin/revenue`: rollups, running subscriptions, movements and rates. One statement per
//! figure, so that one broken table leaves the others readable.

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::Error;
use domain::money::Currency;
use domain::period::{Month, day_of, start_of_day};
use domain::revenue::figures::Cash;

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

/// The sum of `mrr_microcents` of the subscriptions that count now, by currency.
pub async fn mrr_now(db: &Client) -> Result<Vec<(Currency, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_report::mrr_now
             SELECT currency, sum(mrr_microcents)::bigint AS mrr_microcents FROM subscriptions
             WHERE NOT superseded AND status IN ('active', 'past_due') AND currency IS NOT NULL
             GROUP BY currency ORDER BY currency",
            &[],
        )
        .await?;
    mrr_by_currency(&rows, "subscriptions")
}

/// MRR and paying customers up to and including `at`, by currency. Whole days come from the rollup and the rest of the
/// day from the movements, so that the cost follows the number of days.
pub async fn standing(db: &Client, at: Timestamp) -> Result<Vec<MrrStanding>, Error> {
    let day = day_of(at);
    let rows = db
        .query_typed(
            "-- revenue_report::standing
             SELECT currency, sum(delta_microcents)::bigint AS mrr_microcents,
                    sum(customers)::bigint AS customers
             FROM (
                 SELECT currency, delta_microcents, customers_gained - customers_lost AS customers
                 FROM mrr_daily WHERE day < $1
                 UNION ALL
                 SELECT currency, delta_microcents,
                        CASE WHEN kind IN ('new', 'reactivation') THEN 1
                             WHEN kind = 'churn' THEN -1 ELSE 0 END
                 FROM mrr_movements WHERE occurred_at >= $2 AND occurred_at <= $3
             ) AS moved
             GROUP BY currency ORDER BY currency",
            &[
                (&day, Type::DATE),
                (&start_of_day(day), Type::TIMESTAMPTZ),
                (&at, Type::TIMESTAMPTZ),
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

/// The number of customers with an MRR in `currency` now.
pub async fn paying_customers_now(db: &Client, currency: Currency) -> Result<i64, Error> {
    let row = db
        .query_typed_one(
            "-- revenue_report::paying_customers_now
             SELECT count(*) AS customers FROM (
                 SELECT 1 FROM subscriptions
                 WHERE NOT superseded AND status IN ('active', 'past_due') AND currency = $1
                 -- As in mrr_movements, where the predecessor's customers are not known to Stripe.
                 GROUP BY coalesce(stripe_customer_id, 'user:' || user_id, 'legacy:' || id)
                 HAVING sum(mrr_microcents) > 0
             ) AS paying",
            &[(&currency.as_str(), Type::TEXT)],
        )
        .await?;
    Ok(row.try_get("customers")?)
}

/// The customers of `currency` whose last movement after `from`, up to and including `until`, left no MRR.
pub async fn churned(
    db: &Client,
    currency: Currency,
    from: Timestamp,
    until: Timestamp,
) -> Result<Churned, Error> {
    let row = db
        .query_typed_one(
            "-- revenue_report::churned
             SELECT count(*) AS customers,
                    coalesce(sum(before_microcents), 0)::bigint AS mrr_microcents
             FROM (
                 SELECT DISTINCT ON (stripe_customer_id) before_microcents, after_microcents
                 FROM mrr_movements
                 WHERE currency = $1 AND occurred_at > $2 AND occurred_at <= $3
                 ORDER BY stripe_customer_id, occurred_at DESC
             ) AS last WHERE after_microcents = 0",
            &[
                (&currency.as_str(), Type::TEXT),
                (&from, Type::TIMESTAMPTZ),
                (&until, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(Churned {
        customers: row.try_get("customers")?,
        mrr_microcents: row.try_get("mrr_microcents")?,
    })
}

/// The number of subscriptions by status now.
pub async fn subscriptions_now(db: &Client) -> Result<SubscriptionCounts, Error> {
    let row = db
        .query_typed_one(
            "-- revenue_report::subscriptions_now
             SELECT count(*) FILTER (WHERE status = 'active') AS active,
                    count(*) FILTER (WHERE status = 'trialing') AS trialing,
                    count(*) FILTER (WHERE status = 'past_due') AS past_due
             FROM subscriptions
             WHERE NOT superseded AND status IN ('active', 'trialing', 'past_due')",
            &[],
        )
        .await?;
    subscription_counts(&row)
}

/// The number of subscriptions by their status at an instant: whole days from the rollup, the rest of the day from the
/// changes.
pub async fn subscriptions_at(db: &Client, at: Timestamp) -> Result<SubscriptionCounts, Error> {
    let day = day_of(at);
    let row = db
        .query_typed_one(
            "-- revenue_report::subscriptions_at
             SELECT coalesce(sum(change) FILTER (WHERE status = 'active'), 0)::bigint AS active,
                    coalesce(sum(change) FILTER (WHERE status = 'trialing'), 0)::bigint AS trialing,
                    coalesce(sum(change) FILTER (WHERE status = 'past_due'), 0)::bigint AS past_due
             FROM (
                 SELECT status, gained - lost AS change FROM subscriptions_daily WHERE day < $1
                 UNION ALL
                 SELECT status_after, 1 FROM subscription_status_changes
                 WHERE occurred_at >= $2 AND occurred_at <= $3
                 UNION ALL
                 SELECT status_before, -1 FROM subscription_status_changes
                 WHERE occurred_at >= $2 AND occurred_at <= $3
             ) AS changed",
            &[
                (&day, Type::DATE),
                (&start_of_day(day), Type::TIMESTAMPTZ),
                (&at, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    subscription_counts(&row)
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

fn mrr_by_currency(rows: &[Row], table: &'static str) -> Result<Vec<(Currency, i64)>, Error> {
    rows.iter()
        .map(|row| Ok((currency(row, table)?, row.try_get("mrr_microcents")?)))
        .collect()
}

fn subscription_counts(row: &Row) -> Result<SubscriptionCounts, Error> {
    Ok(SubscriptionCounts {
        active: row.try_get("active")?,
        trialing: row.try_get("trialing")?,
        past_due: row.try_get("past_due")?,
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
