//! The customers who left most money in a period.

use serde::Serialize;
use store::fields;
use store::reports::{self, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, mrr_cents, sum};

/// What the figures mean.
pub const DEFINITION: &str = "money of the period per customer: captured, fees, refunds and disputes each by its own \
    date; net = gross - fees - refunds - disputes; disputes = withdrawn - reinstated. mrr_cents as of as_of. The limit \
    customers with the highest net; totals are of those";

fields! {
    /// One customer's money of the period, in minor units.
    pub struct TopCustomer {
        pub stripe_customer_id: String,
        pub name: Option<String>,
        /// What was captured in the period, in minor units.
        pub gross_cents: i64,
        pub fees_cents: i64,
        pub refunds_cents: i64,
        /// Disputed money withdrawn less reinstated in the period, in minor units.
        pub disputes_cents: i64,
        /// Gross − fees − refunds − disputes.
        pub net_cents: i64,
        /// As of the report's instant.
        pub mrr_cents: i64,
    }
}

/// Sums over the customers shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopCustomersTotals {
    pub gross_cents: i64,
    pub fees_cents: i64,
    pub refunds_cents: i64,
    pub disputes_cents: i64,
    pub net_cents: i64,
    pub mrr_cents: i64,
}

/// The `limit` customers with the highest net revenue, highest first.
pub async fn table(
    db: &Client,
    scope: &Scope,
    limit: i64,
) -> Section<Table<TopCustomer, TopCustomersTotals>> {
    let mut rows = Vec::new();
    for customer in reports::top_customers(db, scope, limit).await? {
        rows.push(TopCustomer {
            mrr_cents: mrr_cents(i128::from(customer.mrr_microcents))?,
            stripe_customer_id: customer.stripe_customer_id,
            name: customer.name,
            gross_cents: customer.gross_cents,
            fees_cents: customer.fees_cents,
            refunds_cents: customer.refunds_cents,
            disputes_cents: customer.disputes_cents,
            net_cents: customer.net_cents,
        });
    }
    let totals = TopCustomersTotals {
        gross_cents: sum(&rows, |row| row.gross_cents)?,
        fees_cents: sum(&rows, |row| row.fees_cents)?,
        refunds_cents: sum(&rows, |row| row.refunds_cents)?,
        disputes_cents: sum(&rows, |row| row.disputes_cents)?,
        net_cents: sum(&rows, |row| row.net_cents)?,
        mrr_cents: sum(&rows, |row| row.mrr_cents)?,
    };
    Ok(Table { rows, totals })
}
