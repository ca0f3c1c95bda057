//! Tax of the invoices issued in a period, by jurisdiction and rate.

use serde::Serialize;
use store::reports::{self, Scope, Tax};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "of invoices issued in the period, neither draft nor void, less credit notes of the period, \
    by jurisdiction and rate as far as their tax breakdown names them; the rest is unknown";

/// Sums over all rates. An invoice may be taxed in two places: invoices do not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaxTotals {
    /// Of the rows that know it.
    pub taxable_cents: i64,
    pub tax_cents: i64,
}

/// Tax of the period by jurisdiction and rate, the largest amount first.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<Tax, TaxTotals>> {
    let rows = reports::tax(db, scope).await?;
    let totals = TaxTotals {
        taxable_cents: sum(&rows, |row| row.taxable_cents.unwrap_or(0))?,
        tax_cents: sum(&rows, |row| row.tax_cents)?,
    };
    Ok(Table { rows, totals })
}
