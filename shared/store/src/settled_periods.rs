//! `settled_periods`: periods of contracts that ended with nothing to bill, and the terms they would be rated by.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::{Error, columns};
use domain::period::Period;

/// A period that ended with nothing to bill.
#[derive(Debug, Clone, PartialEq)]
pub struct SettledPeriod {
    /// The contract of the period.
    pub contract_id: i64,
    /// The period that ended.
    pub period: Period,
    /// The terms it was rated by, like `invoiced_usage.terms`.
    pub terms: Value,
}

/// Those periods of these contracts that no invoice bills, not even a void one; oldest first.
pub async fn of_contracts(
    db: &impl GenericClient,
    contract_ids: &[i64],
) -> Result<Vec<SettledPeriod>, Error> {
    let rows = db
        .query_typed(
            "-- settled_periods::of_contracts
             SELECT contract_id, period_start, period_end, terms
             FROM settled_periods AS settled
             WHERE contract_id = ANY($1) AND NOT EXISTS (
                 SELECT FROM invoices
                 WHERE invoices.contract_id = settled.contract_id
                   AND billing_period_start = period_start AND billing_period_end = period_end)
             ORDER BY contract_id, period_start, period_end",
            &[(&contract_ids, Type::INT8_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SettledPeriod {
                contract_id: row.try_get("contract_id")?,
                period: columns::period(row, "period_start", "period_end")?,
                terms: row.try_get("terms")?,
            })
        })
        .collect()
}

/// Records periods. One that is recorded already keeps its terms.
pub async fn insert_all(
    db: &impl GenericClient,
    settled: &[SettledPeriod],
    now: Timestamp,
) -> Result<(), Error> {
    let contract_ids: Vec<i64> = settled.iter().map(|row| row.contract_id).collect();
    let starts: Vec<Timestamp> = settled.iter().map(|row| row.period.start).collect();
    let ends: Vec<Timestamp> = settled.iter().map(|row| row.period.end).collect();
    let terms: Vec<Json<&Value>> = settled.iter().map(|row| Json(&row.terms)).collect();
    db.execute_typed(
        "-- settled_periods::insert_all
         INSERT INTO settled_periods (contract_id, period_start, period_end, terms, settled_at)
         SELECT contract_id, period_start, period_end, terms, $5
         FROM unnest($1, $2, $3, $4) AS new (contract_id, period_start, period_end, terms)
         ORDER BY contract_id, period_start, period_end
         ON CONFLICT DO NOTHING",
        &[
            (&contract_ids, Type::INT8_ARRAY),
            (&starts, Type::TIMESTAMPTZ_ARRAY),
            (&ends, Type::TIMESTAMPTZ_ARRAY),
            (&terms, Type::JSONB_ARRAY),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}
