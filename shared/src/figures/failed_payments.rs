//! Failed payments by failure and decline code, and how many were paid after all.

use domain::revenue::figures::ratio_bps;
use serde::Serialize;
use store::fields;
use store::reports::{self, Failures, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, sum};

/// What the figures mean.
pub const DEFINITION: &str = "attempts: failed charges by their own date. payments: each payment once, under the code \
    of its last failed attempt in the period; all retries of an invoice are one payment. amount_cents: of those \
    payments. recovered: those paid by as_of. recovery_rate_bps = recovered / payments";

fields! {
    /// Failed attempts of one failure and decline code.
    pub struct FailedPayments {
        pub failure_code: Option<String>,
        pub decline_code: Option<String>,
        /// Every failed attempt with the code.
        pub attempts: i64,
        /// Payments whose last failed attempt of the period has it; the retries of an invoice are one payment.
        pub payments: i64,
        /// The amounts of those payments, each counted once, in minor units.
        pub amount_cents: i64,
        /// Those that were paid after all.
        pub recovered: i64,
        /// What the recovered payments brought, in minor units.
        pub recovered_cents: i64,
        /// Recovered ÷ payments; null where no payment has the code.
        pub recovery_rate_bps: Option<i64>,
    }
}

/// Sums over all codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedPaymentsTotals {
    pub attempts: i64,
    pub payments: i64,
    pub amount_cents: i64,
    pub recovered: i64,
    pub recovered_cents: i64,
    /// Recovered ÷ payments in basis points; null without payments.
    pub recovery_rate_bps: Option<i64>,
}

/// Failed payments of the period by code, the most frequent first.
pub async fn table(
    db: &Client,
    scope: &Scope,
) -> Section<Table<FailedPayments, FailedPaymentsTotals>> {
    let failures = reports::failed_payments(db, scope).await?;
    let (payments, recovered) = (
        sum(&failures, |row| row.payments)?,
        sum(&failures, |row| row.recovered)?,
    );
    let totals = FailedPaymentsTotals {
        attempts: sum(&failures, |row| row.attempts)?,
        payments,
        amount_cents: sum(&failures, |row| row.amount_cents)?,
        recovered,
        recovered_cents: sum(&failures, |row| row.recovered_cents)?,
        recovery_rate_bps: ratio_bps(recovered, i128::from(payments))?,
    };
    let rows = failures.into_iter().map(row).collect::<Section<_>>()?;
    Ok(Table { rows, totals })
}

fn row(failures: Failures) -> Section<FailedPayments> {
    Ok(FailedPayments {
        recovery_rate_bps: ratio_bps(failures.recovered, i128::from(failures.payments))?,
        failure_code: failures.failure_code,
        decline_code: failures.decline_code,
        attempts: failures.attempts,
        payments: failures.payments,
        amount_cents: failures.amount_cents,
        recovered: failures.recovered,
        recovered_cents: failures.recovered_cents,
    })
}
