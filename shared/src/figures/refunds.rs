//! Refunds by reason, next to what was captured.

use domain::revenue::figures::ratio_bps;
use serde::Serialize;
use store::fields;
use store::reports::{self, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "refunds by their own date; one that failed or was canceled, however late, counts \
    nowhere. rate_of_gross_bps = amount / money captured in the period";

fields! {
    /// Refunds of one reason.
    pub struct RefundsOfReason {
        /// Stripe's word; `unknown` where it has none.
        pub reason: String,
        pub refunds: i64,
        pub amount_cents: i64,
        /// Amount ÷ money captured in the period; null when nothing was.
        pub rate_of_gross_bps: Option<i64>,
    }
}

/// Sums over all reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefundsTotals {
    pub refunds: i64,
    pub amount_cents: i64,
    /// What was captured in the period, in minor units.
    pub gross_cents: i64,
    /// Null when nothing was captured.
    pub rate_of_gross_bps: Option<i64>,
}

/// Refunds of the period by reason, the largest amount first.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<RefundsOfReason, RefundsTotals>> {
    let gross_cents = reports::gross_cents(db, scope).await?;
    let of_gross = |amount_cents| ratio_bps(amount_cents, i128::from(gross_cents));
    let mut rows = Vec::new();
    for refunds in reports::refunds(db, scope).await? {
        rows.push(RefundsOfReason {
            rate_of_gross_bps: of_gross(refunds.amount_cents)?,
            reason: refunds.reason,
            refunds: refunds.refunds,
            amount_cents: refunds.amount_cents,
        });
    }
    let amount_cents = sum(&rows, |row| row.amount_cents)?;
    let totals = RefundsTotals {
        refunds: sum(&rows, |row| row.refunds)?,
        amount_cents,
        gross_cents,
        rate_of_gross_bps: of_gross(amount_cents)?,
    };
    Ok(Table { rows, totals })
}
