//! `invoiced_usage`: what each partner invoice billed of each period.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::{Error, columns};
use domain::partner::draft::BilledUsage;
use domain::partner::pricing::Usage;

/// What invoices billed of the periods of a contract, oldest period first. Void invoices are left out. A period that came
/// to nothing before terms were dated (`settled_periods`) counts as billed with nothing, by the terms of then.
///
/// # Errors
/// When the statement fails.
pub async fn of_contract(
    db: &impl GenericClient,
    contract_id: i64,
) -> Result<Vec<BilledUsage>, Error> {
    let rows = db
        .query_typed(
            "-- invoiced_usage::of_contract
             SELECT period_start, period_end, units, requests, amount_cents, terms, tax_rate_bps
             FROM (
                 SELECT billed.period_start, billed.period_end, billed.units, billed.requests, billed.amount_cents,
                        billed.terms, CAST(invoices.tax_breakdown -> 0 ->> 'tax_rate_bps' AS bigint) AS tax_rate_bps,
                        billed.invoice_id
                 FROM invoiced_usage AS billed
                 JOIN invoices ON invoices.id = billed.invoice_id
                 WHERE billed.contract_id = $1 AND invoices.status <> 'void'
                 UNION ALL
                 SELECT settled.period_start, settled.period_end, 0, 0, 0, settled.terms, NULL, 0
                 FROM settled_periods AS settled
                 WHERE settled.contract_id = $1 AND NOT EXISTS (
                     SELECT FROM invoices
                     WHERE invoices.contract_id = settled.contract_id
                       AND billing_period_start = settled.period_start AND billing_period_end = settled.period_end)
             ) AS decided
             ORDER BY period_start, period_end, invoice_id",
            &[(&contract_id, Type::INT8)],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Records what an invoice of a contract bills.
///
/// # Errors
/// When the statement fails.
pub async fn insert_all(
    db: &impl GenericClient,
    invoice_id: i64,
    contract_id: i64,
    billed: &[BilledUsage],
) -> Result<(), Error> {
    let column = |of: fn(&BilledUsage) -> i64| -> Vec<i64> { billed.iter().map(of).collect() };
    let starts: Vec<Timestamp> = billed.iter().map(|row| row.period.start).collect();
    let ends: Vec<Timestamp> = billed.iter().map(|row| row.period.end).collect();
    let terms: Vec<Option<Json<&Value>>> = billed
        .iter()
        .map(|row| row.terms.as_ref().map(Json))
        .collect();
    let changed = db
        .execute_typed(
            "-- invoiced_usage::insert_all
             INSERT INTO invoiced_usage
                 (invoice_id, contract_id, period_start, period_end, units, requests, amount_cents, terms)
             SELECT $1, $2, period_start, period_end, units, requests, amount_cents, terms
             FROM unnest($3, $4, $5, $6, $7, $8) AS new
                 (period_start, period_end, units, requests, amount_cents, terms)",
            &[
                (&invoice_id, Type::INT8),
                (&contract_id, Type::INT8),
                (&starts, Type::TIMESTAMPTZ_ARRAY),
                (&ends, Type::TIMESTAMPTZ_ARRAY),
                (&column(|row| row.usage.units), Type::INT8_ARRAY),
                (&column(|row| row.usage.requests), Type::INT8_ARRAY),
                (&column(|row| row.amount_cents), Type::INT8_ARRAY),
                (&terms, Type::JSONB_ARRAY),
            ],
        )
        .await?;
    let expected = u64::try_from(billed.len()).unwrap_or(u64::MAX);
    Error::check_row_count("invoiced_usage::insert_all", expected, changed)
}

fn from_row(row: &Row) -> Result<BilledUsage, Error> {
    Ok(BilledUsage {
        period: columns::period(row, "period_start", "period_end")?,
        usage: Usage {
            units: row.try_get("units")?,
            requests: row.try_get("requests")?,
        },
        amount_cents: row.try_get("amount_cents")?,
        terms: row.try_get("terms")?,
        tax_rate_bps: row.try_get("tax_rate_bps")?,
    })
}
