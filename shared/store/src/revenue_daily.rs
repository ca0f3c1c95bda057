//! `revenue_daily`: compares its rows with the revenue entries that explain them, and rebuilds them.

use jiff::civil::Date;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::{Error, columns};
use domain::money::Currency;

/// A day whose row is not the sum of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The day in UTC.
    pub day: Date,
    pub currency: Currency,
    /// What the entries add up to: gross, fees, refunds, disputes, payments, failed payments, estimated fees.
    pub summed: String,
    /// The same figures in the stored row.
    pub stored: String,
}

/// The days from the first to the last, both included, whose rows are not the sums of their entries.
pub async fn differences(
    db: &impl GenericClient,
    first: Date,
    last: Date,
) -> Result<Vec<Difference>, Error> {
    let rows = db
        .query_typed(
            "-- revenue_daily::differences
             WITH entries AS (
                 SELECT day, currency,
                        COALESCE(sum(amount_cents) FILTER (WHERE kind = 'gross'), 0) AS gross,
                        COALESCE(sum(amount_cents) FILTER (
                            WHERE kind IN ('fee', 'dispute_fee', 'dispute_fee_reinstated')), 0) AS fees,
                        COALESCE(sum(amount_cents) FILTER (WHERE kind = 'refund'), 0) AS refunds,
                        COALESCE(sum(amount_cents) FILTER (
                            WHERE kind IN ('dispute', 'dispute_reinstated')), 0) AS disputes,
                        count(*) FILTER (WHERE kind = 'gross') AS payments,
                        count(*) FILTER (WHERE kind = 'failed') AS failed,
                        count(*) FILTER (WHERE kind = 'fee' AND is_estimated) AS estimated
                 FROM revenue_entries WHERE day >= $1 AND day <= $2 GROUP BY day, currency
             ), days AS (
                 SELECT day, currency,
                        concat_ws(' ', COALESCE(gross, 0), COALESCE(fees, 0), COALESCE(refunds, 0),
                                  COALESCE(disputes, 0), COALESCE(entries.payments, 0), COALESCE(failed, 0),
                                  COALESCE(estimated, 0)) AS summed,
                        concat_ws(' ', COALESCE(gross_cents, 0), COALESCE(fees_cents, 0),
                                  COALESCE(refunds_cents, 0), COALESCE(disputes_cents, 0),
                                  COALESCE(stored.payments, 0), COALESCE(failed_payments, 0),
                                  COALESCE(estimated_fees, 0)) AS stored
                 FROM entries FULL JOIN (
                     SELECT day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents, payments,
                            failed_payments, estimated_fees
                     FROM revenue_daily WHERE day >= $1 AND day <= $2) AS stored USING (day, currency)
             )
             SELECT day, currency, summed, stored FROM days WHERE summed <> stored ORDER BY day, currency",
            &[(&first, Type::DATE), (&last, Type::DATE)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let day: Date = row.try_get("day")?;
            Ok(Difference {
                day,
                currency: columns::currency(row, "revenue_daily", &day.to_string())?,
                summed: row.try_get("summed")?,
                stored: row.try_get("stored")?,
            })
        })
        .collect()
}

/// Locks the row against other writers until the end of the transaction, and creates it when it is missing. A
/// transaction that has written entries but not the row yet adds to it afterwards.
pub async fn lock(db: &impl GenericClient, day: Date, currency: Currency) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- revenue_daily::lock
             INSERT INTO revenue_daily (day, currency) VALUES ($1, $2)
             ON CONFLICT (day, currency) DO UPDATE SET day = excluded.day",
            &[(&day, Type::DATE), (&currency.as_str(), Type::TEXT)],
        )
        .await?;
    Error::check_row_count("revenue_daily::lock", 1, changed)
}

/// Makes the row the sum of its entries. The transaction must have called [`lock`] before.
pub async fn rebuild(db: &impl GenericClient, day: Date, currency: Currency) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- revenue_daily::rebuild
             UPDATE revenue_daily SET
                 gross_cents = gross, fees_cents = fees, refunds_cents = refunds, disputes_cents = disputes,
                 payments = summed.payments, failed_payments = failed, estimated_fees = estimated
             FROM (
                 SELECT CAST(COALESCE(sum(amount_cents) FILTER (WHERE kind = 'gross'), 0) AS bigint) AS gross,
                        CAST(COALESCE(sum(amount_cents) FILTER (
                            WHERE kind IN ('fee', 'dispute_fee', 'dispute_fee_reinstated')), 0) AS bigint) AS fees,
                        CAST(COALESCE(sum(amount_cents) FILTER (WHERE kind = 'refund'), 0) AS bigint) AS refunds,
                        CAST(COALESCE(sum(amount_cents) FILTER (
                            WHERE kind IN ('dispute', 'dispute_reinstated')), 0) AS bigint) AS disputes,
                        count(*) FILTER (WHERE kind = 'gross') AS payments,
                        count(*) FILTER (WHERE kind = 'failed') AS failed,
                        count(*) FILTER (WHERE kind = 'fee' AND is_estimated) AS estimated
                 FROM revenue_entries WHERE day = $1 AND currency = $2
             ) AS summed
             WHERE revenue_daily.day = $1 AND revenue_daily.currency = $2",
            &[(&day, Type::DATE), (&currency.as_str(), Type::TEXT)],
        )
        .await?;
    Error::check_row_count("revenue_daily::rebuild", 1, changed)
}

/// Deletes the row of a day without entries. The transaction must have rebuilt it before.
pub async fn delete_unexplained(
    db: &impl GenericClient,
    day: Date,
    currency: Currency,
) -> Result<(), Error> {
    db.execute_typed(
        "-- revenue_daily::delete_unexplained
         DELETE FROM revenue_daily
         WHERE day = $1 AND currency = $2
           AND NOT EXISTS (SELECT FROM revenue_entries WHERE day = $1 AND currency = $2)",
        &[(&day, Type::DATE), (&currency.as_str(), Type::TEXT)],
    )
    .await?;
    Ok(())
}
