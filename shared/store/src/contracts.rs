//! `api_partner_contracts`: what each partner pays for.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::list::{self, Object, Order, few, sorted};
use super::{Error, columns};
use domain::page::{Page, Rows, Span};
use domain::partner::contract::{self, Contract, TierMode};
use domain::partner::cycle::StoredContract;

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
) -> Result<Rows<i64, Object>, Error> {
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

/// What of a partner's contract its invoices print.
///
/// # Errors
/// When the statement fails.
pub async fn find_by_prefix(
    db: &impl GenericClient,
    api_key_prefix: &str,
) -> Result<Option<Object>, Error> {
    let rows = db
        .query_typed(
            "-- contracts::find_by_prefix
             SELECT id, api_key_prefix, company, currency, payment_terms, payment_method, timezone,
                    billing_email, billing_address, tax_id, po_number
             FROM api_partner_contracts WHERE api_key_prefix = $1",
            &[(&api_key_prefix, Type::TEXT)],
        )
        .await?;
    rows.first().map(columns::object).transpose()
}

/// The statement that selects what [`from_row`] reads.
macro_rules! select_contracts {
    ($statement:literal, $condition:literal) => {
        concat!(
            "-- contracts::",
            $statement,
            "
             SELECT id, api_key_prefix, company, pricing_model, currency, monthly_flat_fee_cents,
                    per_deed_price_cents, per_1000_requests_cents, tiers, tier_mode,
                    included_units, minimum_commitment_cents, unit_source, billable_event_types,
                    billing_cycle, payment_terms, payment_method, monthly_request_limit,
                    rate_limit_per_minute, status, contract_start_date, contract_end_date,
                    billed_from, timezone, billing_email, billing_address, tax_id, tax_rate_bps,
                    po_number, stripe_customer_id, suspended_at, canceled_at, suspensions, notes
             FROM api_partner_contracts
             ",
            $condition
        )
    };
}

/// A row that may not be a valid contract: the predecessor's rows were never checked.
#[derive(Debug)]
pub struct Read {
    /// `api_partner_contracts.id`.
    pub id: i64,
    /// The partner.
    pub api_key_prefix: String,
    /// The contract, or which of its members is not valid.
    pub contract: Result<StoredContract, contract::Invalid>,
}

/// The contract of a partner; `None` when it has none.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn of_prefix(
    db: &impl GenericClient,
    api_key_prefix: &str,
) -> Result<Option<Read>, Error> {
    let rows = db
        .query_typed(
            select_contracts!("of_prefix", "WHERE api_key_prefix = $1"),
            &[(&api_key_prefix, Type::TEXT)],
        )
        .await?;
    rows.first().map(from_row).transpose()
}

/// The contracts after `after`, by id, at most `limit`; only `only` when it is given.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn after(
    db: &impl GenericClient,
    after: i64,
    only: Option<i64>,
    limit: i64,
) -> Result<Vec<Read>, Error> {
    let rows = db
        .query_typed(
            select_contracts!(
                "after",
                "WHERE id > $1 AND (CAST($2 AS bigint) IS NULL OR id = $2)
             ORDER BY id LIMIT $3"
            ),
            &[
                (&after, Type::INT8),
                (&only, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// These contracts, locked in ascending order until the end of the transaction; those there are, by id.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn lock_and_read(db: &impl GenericClient, ids: &[i64]) -> Result<Vec<Read>, Error> {
    let rows = db
        .query_typed(
            select_contracts!("lock_and_read", "WHERE id = ANY($1) ORDER BY id FOR UPDATE"),
            &[(&ids, Type::INT8_ARRAY)],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<Read, Error> {
    let id: i64 = row.try_get("id")?;
    let mut members = columns::object(row)?;
    members.retain(|name, _| contract::MEMBERS.contains(&name.as_str()));
    let suspended_at = row.try_get("suspended_at")?;
    let canceled_at = row.try_get("canceled_at")?;
    let suspensions = columns::json(row, "api_partner_contracts", "suspensions", &id.to_string())?;
    let contract = Contract::parse(&members).map(|terms| StoredContract {
        id,
        terms,
        suspended_at,
        canceled_at,
        suspensions,
    });
    Ok(Read {
        id,
        api_key_prefix: row.try_get("api_key_prefix")?,
        contract,
    })
}

/// Enters a contract and returns its id. A second one for a prefix is refused by the constraint
/// `api_partner_contracts_api_key_prefix_key`.
///
/// # Errors
/// When the statement fails.
pub async fn insert(
    db: &impl GenericClient,
    contract: &Contract,
    now: Timestamp,
) -> Result<i64, Error> {
    let rows = db
        .query_typed(
            "-- contracts::insert
             INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model, currency,
                 monthly_flat_fee_cents, per_deed_price_cents, per_1000_requests_cents, tiers,
                 tier_mode, included_units, minimum_commitment_cents, unit_source,
                 billable_event_types, billing_cycle, payment_terms, payment_method,
                 monthly_request_limit, rate_limit_per_minute, status, contract_start_date,
                 contract_end_date, billed_from, timezone, billing_email, billing_address, tax_id,
                 tax_rate_bps, po_number, notes, stripe_customer_id, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, COALESCE($22, $20), $23, $24, $25, $26, $27, $28, $29, $30, $31, $31)
             RETURNING id",
            &[
                (&contract.api_key_prefix, Type::TEXT),
                (&contract.company, Type::TEXT),
                (&contract.pricing_model.as_str(), Type::TEXT),
                (&contract.currency.as_str(), Type::TEXT),
                (&contract.monthly_flat_fee_cents, Type::INT8),
                (&contract.per_deed_price_cents, Type::INT8),
                (&contract.per_1000_requests_cents, Type::INT8),
                (&contract.tiers_as_json(), Type::JSONB),
                (&contract.tier_mode.map(TierMode::as_str), Type::TEXT),
                (&contract.included_units, Type::INT8),
                (&contract.minimum_commitment_cents, Type::INT8),
                (&contract.unit_source.as_str(), Type::TEXT),
                (&contract.billable_event_types, Type::TEXT_ARRAY),
                (&contract.billing_cycle.as_str(), Type::TEXT),
                (&contract.payment_terms.as_str(), Type::TEXT),
                (&contract.payment_method.as_str(), Type::TEXT),
                (&contract.monthly_request_limit, Type::INT8),
                (&contract.rate_limit_per_minute, Type::INT8),
                (&contract.status.as_str(), Type::TEXT),
                (&contract.contract_start_date, Type::DATE),
                (&contract.contract_end_date, Type::DATE),
                (&contract.billed_from, Type::DATE),
                (&contract.timezone, Type::TEXT),
                (&contract.billing_email, Type::TEXT),
                (&contract.billing_address, Type::JSONB),
                (&contract.tax_id, Type::TEXT),
                (&contract.tax_rate_bps, Type::INT4),
                (&contract.po_number, Type::TEXT),
                (&contract.notes, Type::TEXT),
                (&contract.stripe_customer_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(row.try_get("id")?),
        None => Err(Error::RowCount {
            statement: "contracts::insert",
            expected: 1,
            changed: 0,
        }),
    }
}

/// Notes the customer at Stripe that a contract is collected from, unless it has one.
///
/// # Errors
/// When the statement fails.
pub async fn set_stripe_customer(
    db: &impl GenericClient,
    id: i64,
    stripe_customer_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- contracts::set_stripe_customer
         UPDATE api_partner_contracts SET stripe_customer_id = $2, updated_at = $3
         WHERE id = $1 AND stripe_customer_id IS NULL",
        &[
            (&id, Type::INT8),
            (&stripe_customer_id, Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// Locks a contract until the end of the transaction; false when there is none.
///
/// # Errors
/// When the statement fails.
pub async fn lock(db: &impl GenericClient, id: i64) -> Result<bool, Error> {
    let rows = db
        .query_typed(
            "-- contracts::lock
             SELECT id FROM api_partner_contracts WHERE id = $1 FOR UPDATE",
            &[(&id, Type::INT8)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Replaces what a contract says, but its prefix. It is suspended, or canceled, from the first time its status says so;
/// an active one is neither, and remembers the suspension that is over.
///
/// # Errors
/// When the statement fails.
pub async fn update(
    db: &impl GenericClient,
    id: i64,
    contract: &Contract,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- contracts::update
             UPDATE api_partner_contracts SET company = $2, pricing_model = $3, currency = $4,
                 monthly_flat_fee_cents = $5, per_deed_price_cents = $6,
                 per_1000_requests_cents = $7, tiers = $8, tier_mode = $9, included_units = $10,
                 minimum_commitment_cents = $11, unit_source = $12, billable_event_types = $13,
                 billing_cycle = $14, payment_terms = $15, payment_method = $16,
                 monthly_request_limit = $17, rate_limit_per_minute = $18, status = $19,
                 contract_start_date = $20, contract_end_date = $21,
                 billed_from = COALESCE($22, billed_from), timezone = $23, billing_email = $24,
                 billing_address = $25, tax_id = $26, tax_rate_bps = $27, po_number = $28,
                 notes = $29, stripe_customer_id = $30, updated_at = $31,
                 suspended_at = CASE $19 WHEN 'suspended' THEN COALESCE(suspended_at, $31)
                                         WHEN 'canceled' THEN suspended_at END,
                 suspensions = CASE WHEN $19 = 'active' AND suspended_at IS NOT NULL
                     THEN suspensions || jsonb_build_object('suspended_at', suspended_at, 'resumed_at', $31)
                     ELSE suspensions END,
                 canceled_at = CASE $19 WHEN 'canceled' THEN COALESCE(canceled_at, $31) END
             WHERE id = $1",
            &[
                (&id, Type::INT8),
                (&contract.company, Type::TEXT),
                (&contract.pricing_model.as_str(), Type::TEXT),
                (&contract.currency.as_str(), Type::TEXT),
                (&contract.monthly_flat_fee_cents, Type::INT8),
                (&contract.per_deed_price_cents, Type::INT8),
                (&contract.per_1000_requests_cents, Type::INT8),
                (&contract.tiers_as_json(), Type::JSONB),
                (&contract.tier_mode.map(TierMode::as_str), Type::TEXT),
                (&contract.included_units, Type::INT8),
                (&contract.minimum_commitment_cents, Type::INT8),
                (&contract.unit_source.as_str(), Type::TEXT),
                (&contract.billable_event_types, Type::TEXT_ARRAY),
                (&contract.billing_cycle.as_str(), Type::TEXT),
                (&contract.payment_terms.as_str(), Type::TEXT),
                (&contract.payment_method.as_str(), Type::TEXT),
                (&contract.monthly_request_limit, Type::INT8),
                (&contract.rate_limit_per_minute, Type::INT8),
                (&contract.status.as_str(), Type::TEXT),
                (&contract.contract_start_date, Type::DATE),
                (&contract.contract_end_date, Type::DATE),
                (&contract.billed_from, Type::DATE),
                (&contract.timezone, Type::TEXT),
                (&contract.billing_email, Type::TEXT),
                (&contract.billing_address, Type::JSONB),
                (&contract.tax_id, Type::TEXT),
                (&contract.tax_rate_bps, Type::INT4),
                (&contract.po_number, Type::TEXT),
                (&contract.notes, Type::TEXT),
                (&contract.stripe_customer_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("contracts::update", 1, changed)
}
