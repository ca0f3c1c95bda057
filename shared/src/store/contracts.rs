//! `api_partner_contracts`: what each partner pays for.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::list::{self, Object, Order, Page, Rows, Span, few, sorted};
use super::{Error, columns};

/// Which contracts a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub api_key_prefix: Option<&'a str>,
}

/// A page of contracts.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64>, Error> {
    list::read(
        db,
        "-- contracts::list
             SELECT id, api_key_prefix, company, pricing_model, currency, monthly_flat_fee_cents,
                    per_deed_price_cents, per_1000_requests_cents, tiers, tier_mode,
                    included_units, minimum_commitment_cents, unit_source, billable_event_types,
                    billing_cycle, payment_terms, payment_method, monthly_request_limit,
                    rate_limit_per_minute, status, contract_start_date, contract_end_date,
                    billed_from, timezone, billing_email, billing_address, tax_id, tax_rate_bps,
                    po_number, stripe_customer_id, suspended_at, canceled_at, notes, created_at,
                    updated_at, created_at AS listed_at
             FROM api_partner_contracts
             WHERE true",
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            few("api_key_prefix", &filter.api_key_prefix, Type::TEXT),
            sorted("status", &filter.status, Type::TEXT),
        ],
        Span::default(),
        page,
    )
    .await
}

/// One contract.
///
/// # Errors
/// When the statement fails.
pub async fn find(db: &impl GenericClient, id: i64) -> Result<Option<Object>, Error> {
    let rows = db
        .query_typed(
            "-- contracts::find
             SELECT id, api_key_prefix, company, pricing_model, currency, monthly_flat_fee_cents,
                    per_deed_price_cents, per_1000_requests_cents, tiers, tier_mode,
                    included_units, minimum_commitment_cents, unit_source, billable_event_types,
                    billing_cycle, payment_terms, payment_method, monthly_request_limit,
                    rate_limit_per_minute, status, contract_start_date, contract_end_date,
                    billed_from, timezone, billing_email, billing_address, tax_id, tax_rate_bps,
                    po_number, stripe_customer_id, suspended_at, canceled_at, notes, created_at,
                    updated_at
             FROM api_partner_contracts WHERE id = $1",
            &[(&id, Type::INT8)],
        )
        .await?;
    rows.first().map(columns::object).transpose()
}
