//! `invoiced_usage`: what each partner invoice billed of each period.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::{Error, columns};
use domain::partner::pricing::Usage;
use domain::period::Period;

/// What one invoice billed of one period. Amounts in minor units of the contract's currency.
#[derive(Debug, Clone, PartialEq)]
pub struct InvoicedUsage {
    /// The contract that was billed.
    pub contract_id: i64,
    /// The period the usage belongs to.
    pub period: Period,
    /// The usage that was billed; negative when an adjustment takes some back.
    pub usage: Usage,
    /// In minor units before tax; may be negative.
    pub amount_cents: i64,
    /// The terms by which the period is rated again; `None` on an adjustment.
    pub terms: Option<Value>,
    /// The tax of the invoice in hundredths of a percent, where its terms were stored before they had it.
    pub tax_rate_bps: Option<i64>,
}

/// What invoices billed for periods of these contracts that end after `since`, oldest period first. Void invoices are
/// left out.
pub async fn of_contracts(
    db: &impl GenericClient,
    contract_ids: &[i64],
    since: Timestamp,
) -> Result<Vec<InvoicedUsage>, Error> {
    if contract_ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = db
        .query_typed(
            "-- invoiced_usage::of_contracts
             SELECT billed.contract_id, billed.period_start, billed.period_end, billed.units, billed.requests,
                    billed.amount_cents, billed.terms,
                    CAST(invoices.tax_breakdown -> 0 ->> 'tax_rate_bps' AS bigint) AS tax_rate_bps
             FROM invoiced_usage AS billed
             JOIN invoices ON invoices.id = billed.invoice_id
             WHERE billed.contract_id = ANY($1) AND billed.period_end > $2 AND invoices.status <> 'void'
             ORDER BY billed.contract_id, billed.period_start, billed.period_end, billed.invoice_id",
            &[
                (&contract_ids, Type::INT8_ARRAY),
                (&since, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Records what invoices bill, each by the invoice's id.
pub async fn insert_all(
    db: &impl GenericClient,
    billed: &[(i64, &InvoicedUsage)],
) -> Result<(), Error> {
    let invoice_ids: Vec<i64> = billed.iter().map(|(invoice, _)| *invoice).collect();
    let rows = || billed.iter().map(|(_, row)| *row);
    let column = |of: fn(&InvoicedUsage) -> i64| -> Vec<i64> { rows().map(of).collect() };
    let starts: Vec<Timestamp> = rows().map(|row| row.period.start).collect();
    let ends: Vec<Timestamp> = rows().map(|row| row.period.end).collect();
    let terms: Vec<Option<Json<&Value>>> = rows().map(|row| row.terms.as_ref().map(Json)).collect();
    let changed = db
        .execute_typed(
            "-- invoiced_usage::insert_all
             INSERT INTO invoiced_usage
                 (invoice_id, contract_id, period_start, period_end, units, requests, amount_cents, terms)
             SELECT invoice_id, contract_id, period_start, period_end, units, requests, amount_cents, terms
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new
                 (invoice_id, contract_id, period_start, period_end, units, requests, amount_cents, terms)",
            &[
                (&invoice_ids, Type::INT8_ARRAY),
                (&column(|row| row.contract_id), Type::INT8_ARRAY),
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

fn from_row(row: &Row) -> Result<InvoicedUsage, Error> {
    Ok(InvoicedUsage {
        contract_id: row.try_get("contract_id")?,
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
