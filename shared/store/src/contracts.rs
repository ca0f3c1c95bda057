//! `api_partner_contracts`: what each partner pays for.

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::{self, FromRow, columns};
use super::list::{self, Order, few, sorted};
use domain::page::{Page, Rows, Span};
use domain::partner::contract::{
    self, Address, BillingDetails, Contract, ContractStatus, PaymentMethod, PaymentTerms,
    TierMembers, TierMode,
};
use domain::partner::tax::{self, Tax};
use domain::partner::terms::{Change, Projection, StoredContract, StoredRow};

columns! {
    /// A contract as it is stored: the predecessor's rows were never checked, so words may be unknown and members may
    /// contradict each other. Amounts in minor units of `currency`. See [`Contract`] for what the members mean.
    #[schema(as = Contract)]
    pub struct ContractRow of "api_partner_contracts" {
        pub id: i64,
        pub api_key_prefix: String,
        /// Name on the invoice.
        pub company: Option<String>,
        pub pricing_model: String,
        pub currency: String,
        /// Minor units of `currency` per month.
        pub monthly_flat_fee_cents: Option<i64>,
        /// Minor units of `currency` per unit.
        pub per_deed_price_cents: Option<i64>,
        /// Price of each started thousand requests, in minor units.
        pub per_1000_requests_cents: Option<i64>,
        /// Ascending; the last one has no end.
        #[schema(value_type = Option<Vec<TierMembers>>)]
        pub tiers: Option<Value>,
        pub tier_mode: Option<String>,
        /// Free units per month.
        pub included_units: i64,
        /// Minor units of `currency` per month.
        pub minimum_commitment_cents: i64,
        pub unit_source: String,
        /// Which event types are billed; null for all.
        pub billable_event_types: Option<Vec<String>>,
        pub billing_cycle: String,
        pub payment_terms: String,
        pub payment_method: String,
        /// Requests a UTC month; -1 means no limit.
        pub monthly_request_limit: Option<i64>,
        pub rate_limit_per_minute: Option<i64>,
        pub status: String,
        /// First day that is billed, in the contract's time zone.
        pub contract_start_date: Option<Date>,
        /// Last billed day; null while open.
        pub contract_end_date: Option<Date>,
        /// The first day that may be billed: the predecessor billed those before.
        pub billed_from: Date,
        /// IANA name: where the billing days begin.
        pub timezone: String,
        pub billing_email: Option<String>,
        /// Printed on the invoice: Stripe's members of an address, or others.
        #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
        pub billing_address: Option<Value>,
        pub tax_id: Option<String>,
        /// All taxes together, in hundredths of a percent, rounded; `taxes` is exact.
        pub tax_rate_bps: i32,
        /// Null for one tax of `tax_rate_bps`.
        #[schema(value_type = Option<Vec<Tax>>)]
        pub taxes: Option<Value>,
        /// Printed under the taxes.
        pub tax_note: Option<String>,
        /// Which of the gateway's rows are billed; null for all but 429 and 500 to 599.
        pub billable_status_codes: Option<String>,
        pub po_number: Option<String>,
        pub stripe_customer_id: Option<String>,
        /// When it was suspended; that day is still billed. Null while it is not.
        pub suspended_at: Option<Timestamp>,
        /// When it was canceled; that day is the last one billed. Null while it is not.
        pub canceled_at: Option<Timestamp>,
        /// Notes for staff; never printed.
        pub notes: Option<String>,
        pub created_at: Timestamp,
        pub updated_at: Option<Timestamp>,
    }
}

impl ContractRow {
    /// The members that people write, as they write them: what a change is laid over.
    #[must_use]
    pub fn members(&self) -> serde_json::Map<String, Value> {
        let Ok(Value::Object(mut members)) = serde_json::to_value(self) else {
            // A struct with named members always becomes an object.
            return serde_json::Map::new();
        };
        members.retain(|name, _| contract::MEMBERS.contains(&name.as_str()));
        // One of the two says it: the list, unless somebody who does not know it has written the other.
        let taxes: Option<Vec<Tax>> = self
            .taxes
            .as_ref()
            .and_then(|taxes| serde_json::from_value(taxes.clone()).ok());
        let is_told = taxes.is_some_and(|taxes| tax::sum_bps(&taxes) == self.tax_rate_bps);
        let shorthand = if is_told { "tax_rate_bps" } else { "taxes" };
        members.remove(shorthand);
        members
    }
}

/// Which contracts a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<ContractStatus>,
    pub api_key_prefix: Option<&'a str>,
}

impl ContractRow {
    /// Shows what the contract says on a day, whatever the columns still say.
    pub fn show(&mut self, projection: &Projection) {
        let terms = &projection.terms;
        let text = |word: &str| word.to_owned();
        self.pricing_model = text(terms.pricing_model.as_str());
        self.currency = text(terms.currency.as_str());
        self.monthly_flat_fee_cents = terms.monthly_flat_fee_cents;
        self.per_deed_price_cents = terms.per_deed_price_cents;
        self.per_1000_requests_cents = terms.per_1000_requests_cents;
        self.tiers = terms.tiers_as_json();
        self.tier_mode = terms.tier_mode.map(|mode| text(mode.as_str()));
        self.included_units = terms.included_units;
        self.minimum_commitment_cents = terms.minimum_commitment_cents;
        self.unit_source = text(terms.unit_source.as_str());
        self.billable_event_types
            .clone_from(&terms.billable_event_types);
        self.billing_cycle = text(terms.billing_cycle.as_str());
        self.status = text(terms.status.as_str());
        self.contract_start_date = terms.contract_start_date;
        self.contract_end_date = terms.contract_end_date;
        self.timezone.clone_from(&terms.timezone);
        self.tax_rate_bps = terms.tax_rate_bps();
        self.taxes = serde_json::to_value(&terms.taxes).ok();
        self.billable_status_codes = Some(terms.billable_status_codes.to_string());
        self.suspended_at = projection.suspended_at;
        self.canceled_at = projection.canceled_at;
    }
}

/// A page of contracts.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, ContractRow>, Error> {
    list::read(
        db,
        &format!(
            "-- contracts::list
             SELECT {}, created_at AS listed_at FROM api_partner_contracts WHERE true",
            ContractRow::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            few("api_key_prefix", &filter.api_key_prefix, Type::TEXT),
            sorted(
                "status",
                &filter.status.map(ContractStatus::as_str),
                Type::TEXT,
            ),
        ],
        Span::default(),
        page,
    )
    .await
}

/// What the invoices of a contract print, by its id or, for the predecessor's invoices, by its partner.
///
/// # Errors
/// When the statement fails.
pub async fn billing_details(
    db: &impl GenericClient,
    id: Option<i64>,
    api_key_prefix: Option<&str>,
) -> Result<Option<BillingDetails>, Error> {
    columns::first(
        db,
        "-- contracts::billing_details
         SELECT api_key_prefix, company, billing_address, billing_email, tax_id, tax_note, po_number, timezone,
                payment_terms, payment_method
         FROM api_partner_contracts
         WHERE id = $1 OR (CAST($1 AS bigint) IS NULL AND api_key_prefix = $2)",
        &[(&id, Type::INT8), (&api_key_prefix, Type::TEXT)],
    )
    .await
}

impl FromRow for BillingDetails {
    fn from_row(row: &Row) -> Result<BillingDetails, Error> {
        let address: Option<Json<Address>> = row.try_get("billing_address")?;
        Ok(BillingDetails {
            api_key_prefix: row.try_get("api_key_prefix")?,
            company: row.try_get("company")?,
            billing_address: address.map(|Json(address)| address),
            billing_email: row.try_get("billing_email")?,
            tax_id: row.try_get("tax_id")?,
            tax_note: row.try_get("tax_note")?,
            po_number: row.try_get("po_number")?,
            timezone: row.try_get("timezone")?,
            // The predecessor's may be other words: then nothing is said about it.
            payment_terms: PaymentTerms::parse(row.try_get("payment_terms")?),
            payment_method: PaymentMethod::parse(row.try_get("payment_method")?),
        })
    }
}

/// A row that may not be a valid contract: the predecessor's rows were never checked.
#[derive(Debug, Clone)]
pub struct Read {
    /// The row as its columns are.
    pub row: ContractRow,
    /// The same for the terms, with the changes that are not revoked.
    pub stored: StoredRow,
}

impl Read {
    /// The contract, as it is read at an instant, or which of its members is not valid.
    ///
    /// # Errors
    /// Names the member.
    pub fn contract(&self, now: Timestamp) -> Result<StoredContract, contract::Invalid> {
        self.stored.read(now)
    }

    /// The contract as its changes say, whatever its columns do.
    ///
    /// # Errors
    /// Names the member that is not valid.
    pub fn contract_of_changes(&self) -> Result<StoredContract, contract::Invalid> {
        self.stored.read_changes()
    }
}

/// Which contracts are read.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    Ids(&'a [i64]),
    Prefixes(&'a [&'a str]),
}

/// Contracts with their changes, by id.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn read(db: &impl GenericClient, which: Which<'_>) -> Result<Vec<Read>, Error> {
    let (ids, prefixes) = match which {
        Which::Ids(ids) => (Some(ids), None),
        Which::Prefixes(prefixes) => (None, Some(prefixes)),
    };
    columns::all(
        db,
        &format!(
            "-- contracts::read
             SELECT {}, suspensions, terms_since, projected_on,
                    (SELECT jsonb_agg(jsonb_build_object('id', changes.id, 'effective_from', changes.effective_from,
                                                         'members', changes.members,
                                                         'created_at', changes.created_at))
                     FROM contract_changes AS changes
                     WHERE changes.contract_id = api_partner_contracts.id AND revoked_at IS NULL) AS changes
             FROM api_partner_contracts
             WHERE id = ANY($1) OR api_key_prefix = ANY($2)
             ORDER BY id",
            ContractRow::COLUMNS
        ),
        &[
            (&ids, Type::INT8_ARRAY),
            (&prefixes, Type::TEXT_ARRAY),
        ],
    )
    .await
}

/// The ids of the contracts behind `after`, ascending, at most `limit`.
///
/// # Errors
/// When the statement fails.
pub async fn ids_after(db: &impl GenericClient, after: i64, limit: i64) -> Result<Vec<i64>, Error> {
    let rows = db
        .query_typed(
            "-- contracts::ids_after
             SELECT id FROM api_partner_contracts WHERE id > $1 ORDER BY id LIMIT $2",
            &[(&after, Type::INT8), (&limit, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// One contract with its changes; `None` when there is none.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn find(db: &impl GenericClient, id: i64) -> Result<Option<Read>, Error> {
    Ok(read(db, Which::Ids(&[id])).await?.pop())
}

/// The contract of a partner; `None` when it has none.
///
/// # Errors
/// When the statement fails or a column is not what it was written as.
pub async fn of_prefix(
    db: &impl GenericClient,
    api_key_prefix: &str,
) -> Result<Option<Read>, Error> {
    Ok(read(db, Which::Prefixes(&[api_key_prefix])).await?.pop())
}

/// One contract, locked until the end of the transaction, with its changes as they are under the lock.
///
/// # Errors
/// When a statement fails or a column is not what it was written as.
pub async fn lock(db: &impl GenericClient, id: i64) -> Result<Option<Read>, Error> {
    db.query_typed(
        "-- contracts::lock
         SELECT id FROM api_partner_contracts WHERE id = $1 FOR UPDATE",
        &[(&id, Type::INT8)],
    )
    .await?;
    // What was written while it was waited for is seen by another statement only.
    find(db, id).await
}

/// A change as `contracts::read` selects it.
#[derive(serde::Deserialize)]
struct StoredChange {
    id: i64,
    effective_from: Option<Date>,
    members: serde_json::Map<String, Value>,
    created_at: Timestamp,
}

impl FromRow for Read {
    fn from_row(row: &Row) -> Result<Read, Error> {
        let stored = ContractRow::from_row(row)?;
        let id = stored.id;
        let key = id.to_string();
        let suspensions = columns::json(row, "api_partner_contracts", "suspensions", &key)?;
        let changes: Option<Value> = row.try_get("changes")?;
        let changes: Vec<StoredChange> = match changes {
            None => Vec::new(),
            Some(_) => columns::json(row, "contract_changes", "changes", &key)?,
        };
        let changes = changes.into_iter().map(|change| Change {
            id: change.id,
            effective_from: change.effective_from,
            members: change.members,
            created_at: change.created_at,
        });
        Ok(Read {
            stored: StoredRow {
                id,
                members: stored.members(),
                suspended_at: stored.suspended_at,
                canceled_at: stored.canceled_at,
                suspensions,
                updated_at: stored.updated_at,
                terms_since: row.try_get("terms_since")?,
                projected_on: row.try_get("projected_on")?,
                changes: changes.collect(),
            },
            row: stored,
        })
    }
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
    let statement = "-- contracts::insert
             INSERT INTO api_partner_contracts (api_key_prefix, company, pricing_model, currency,
                 monthly_flat_fee_cents, per_deed_price_cents, per_1000_requests_cents, tiers,
                 tier_mode, included_units, minimum_commitment_cents, unit_source,
                 billable_event_types, billing_cycle, payment_terms, payment_method,
                 monthly_request_limit, rate_limit_per_minute, status, contract_start_date,
                 contract_end_date, billed_from, timezone, billing_email, billing_address, tax_id,
                 tax_rate_bps, po_number, notes, stripe_customer_id, taxes, tax_note, billable_status_codes,
                 created_at, updated_at, suspended_at, canceled_at, projected_on)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, COALESCE($22, $20), $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $34, $35, $36, $37)
             RETURNING id";
    let projection = Projection {
        terms: contract.clone(),
        suspended_at: None,
        canceled_at: None,
    };
    let key = &contract.api_key_prefix;
    write(db, statement, key, Type::TEXT, &projection, None, now)
        .await?
        .ok_or(Error::RowCount {
            statement: "contracts::insert",
            expected: 1,
            changed: 0,
        })
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

/// Writes what a contract says on a day into its columns, all but the prefix.
///
/// # Errors
/// When the statement fails.
pub async fn project(
    db: &impl GenericClient,
    id: i64,
    projection: &Projection,
    day: Date,
    now: Timestamp,
) -> Result<(), Error> {
    let statement = "-- contracts::project
             UPDATE api_partner_contracts SET company = $2, pricing_model = $3, currency = $4,
                 monthly_flat_fee_cents = $5, per_deed_price_cents = $6,
                 per_1000_requests_cents = $7, tiers = $8, tier_mode = $9, included_units = $10,
                 minimum_commitment_cents = $11, unit_source = $12, billable_event_types = $13,
                 billing_cycle = $14, payment_terms = $15, payment_method = $16,
                 monthly_request_limit = $17, rate_limit_per_minute = $18, status = $19,
                 contract_start_date = $20, contract_end_date = $21,
                 billed_from = COALESCE($22, billed_from), timezone = $23, billing_email = $24,
                 billing_address = $25, tax_id = $26, tax_rate_bps = $27, po_number = $28,
                 notes = $29, stripe_customer_id = $30, taxes = $31, tax_note = $32, billable_status_codes = $33,
                 updated_at = $34, suspended_at = $35, canceled_at = $36, projected_on = $37
             WHERE id = $1
             RETURNING id";
    let changed = write(db, statement, &id, Type::INT8, projection, Some(day), now).await?;
    Error::check_row_count("contracts::project", 1, changed.map_or(0, |_id| 1))
}

/// Runs a statement that writes a contract: `$1` is `key`, what follows are the contract's members but its prefix, then
/// `now`, the dates of its status, and the day that the columns are the terms of. Returns the id of the row.
async fn write(
    db: &impl GenericClient,
    statement: &str,
    key: &(dyn ToSql + Sync),
    key_type: Type,
    projection: &Projection,
    day: Option<Date>,
    now: Timestamp,
) -> Result<Option<i64>, Error> {
    let contract = &projection.terms;
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[
        (key, key_type),
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
        (&contract.billing_address.as_ref().map(Json), Type::JSONB),
        (&contract.tax_id, Type::TEXT),
        (&contract.tax_rate_bps(), Type::INT4),
        (&contract.po_number, Type::TEXT),
        (&contract.notes, Type::TEXT),
        (&contract.stripe_customer_id, Type::TEXT),
        (&Json(&contract.taxes), Type::JSONB),
        (&contract.tax_note, Type::TEXT),
        (&contract.billable_status_codes.to_string(), Type::TEXT),
        (&now, Type::TIMESTAMPTZ),
        (&projection.suspended_at, Type::TIMESTAMPTZ),
        (&projection.canceled_at, Type::TIMESTAMPTZ),
        (&day, Type::DATE),
    ];
    let rows = db.query_typed(statement, parameters).await?;
    rows.first().map(|row| Ok(row.try_get("id")?)).transpose()
}
