//! What Stripe charged, by what is known of it.

use domain::revenue::figures::ratio_bps;
use serde::Serialize;
use store::fields;
use store::reports::{self, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "by the payment's date, a dispute's by the withdrawal's: actual as Stripe's balance \
    transactions say, estimated until they do. effective_rate_bps = fees / gross of the same payments";

fields! {
    /// Fees of one source.
    pub struct FeesOfSource {
        /// `actual` or `estimated` for fees of payments, `dispute` for fees of disputes.
        pub fee_source: String,
        /// How many payments, or disputes, were charged a fee.
        pub charged: i64,
        /// What those payments captured, in minor units; null for disputes.
        pub gross_cents: Option<i64>,
        pub fees_cents: i64,
        /// Fees ÷ gross in basis points; null for disputes.
        pub effective_rate_bps: Option<i64>,
    }
}

/// Sums over all sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FeesTotals {
    pub charged: i64,
    pub gross_cents: i64,
    pub fees_cents: i64,
    /// Fees ÷ gross of the same payments in basis points; null without payments.
    pub effective_rate_bps: Option<i64>,
}

/// By the name of the source.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<FeesOfSource, FeesTotals>> {
    let mut rows = Vec::new();
    for fees in reports::fees(db, scope).await? {
        let effective_rate_bps = match fees.gross_cents {
            Some(gross_cents) => ratio_bps(fees.fees_cents, i128::from(gross_cents))?,
            None => None,
        };
        rows.push(FeesOfSource {
            fee_source: fees.fee_source,
            charged: fees.charged,
            gross_cents: fees.gross_cents,
            fees_cents: fees.fees_cents,
            effective_rate_bps,
        });
    }
    let fees_cents = sum(&rows, |row| row.fees_cents)?;
    // Disputes have none to add.
    let gross_cents = sum(&rows, |row| row.gross_cents.unwrap_or_default())?;
    let totals = FeesTotals {
        charged: sum(&rows, |row| row.charged)?,
        gross_cents,
        fees_cents,
        effective_rate_bps: ratio_bps(fees_cents, i128::from(gross_cents))?,
    };
    Ok(Table { rows, totals })
}
