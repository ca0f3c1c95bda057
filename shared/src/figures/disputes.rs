//! Disputes by status and reason, and how many were won.

use domain::money;
use domain::revenue::figures::ratio_bps;
use serde::Serialize;
use store::reports::{self, Disputes, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "by the date the money was withdrawn, or the dispute was opened where none was; status \
    as of as_of; fee_cents: what Stripe charged for the dispute. win_rate_bps = won / (won + lost)";

/// Sums over all statuses and reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DisputesTotals {
    pub disputes: i64,
    pub amount_cents: i64,
    pub won: i64,
    pub lost: i64,
    pub fee_cents: i64,
    /// Won ÷ (won + lost); null while none is decided.
    pub win_rate_bps: Option<i64>,
}

/// Disputes of the period by reason, the largest amount first.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<Disputes, DisputesTotals>> {
    let rows = reports::disputes(db, scope).await?;
    let won = sum(&rows, |row| row.won)?;
    let lost = sum(&rows, |row| row.lost)?;
    let decided = won.checked_add(lost).ok_or(money::Error::OutOfRange)?;
    let totals = DisputesTotals {
        disputes: sum(&rows, |row| row.disputes)?,
        amount_cents: sum(&rows, |row| row.amount_cents)?,
        won,
        lost,
        fee_cents: sum(&rows, |row| row.fee_cents)?,
        win_rate_bps: ratio_bps(won, i128::from(decided))?,
    };
    Ok(Table { rows, totals })
}
