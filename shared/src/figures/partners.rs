//! What partners were invoiced in a period, and what they paid of it.

use serde::Serialize;
use store::reports::{self, PartnerRevenue, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "partner invoices issued in the period: total = paid + credits + due + uncollectible; \
    due: open, or paid after as_of";

/// Sums over all partners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartnersTotals {
    pub invoices: i64,
    pub total_cents: i64,
    pub amount_paid_cents: i64,
    pub credit_applied_cents: i64,
    pub amount_due_cents: i64,
    pub uncollectible_cents: i64,
}

/// Partner invoices of the period by partner, the highest total first.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<PartnerRevenue, PartnersTotals>> {
    let rows = reports::partners(db, scope).await?;
    let totals = PartnersTotals {
        invoices: sum(&rows, |row| row.invoices)?,
        total_cents: sum(&rows, |row| row.total_cents)?,
        amount_paid_cents: sum(&rows, |row| row.amount_paid_cents)?,
        credit_applied_cents: sum(&rows, |row| row.credit_applied_cents)?,
        amount_due_cents: sum(&rows, |row| row.amount_due_cents)?,
        uncollectible_cents: sum(&rows, |row| row.uncollectible_cents)?,
    };
    Ok(Table { rows, totals })
}
