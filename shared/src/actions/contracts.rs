//! Contracts of partners are entered and changed.

use domain::partner::contract::{Contract, ContractMembers, ContractStatus};
use runtime::api::Error;
use runtime::api::extract::object_of;
use serde::Deserialize;
use serde_json::{Map, Value};
use store::contracts::{self, ContractRow};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::write::Write;

/// The members that say which taxes there are: one replaces the others.
const TAXES: [&str; 3] = ["taxes", "tax_percent", "tax_rate_bps"];

/// The members of a contract to change. One that is null gets its default; the prefix stays.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct ContractChanges(Map<String, Value>);

impl PartialSchema for ContractChanges {
    fn schema() -> RefOr<Schema> {
        let mut members = ContractMembers::schema();
        if let RefOr::T(Schema::Object(object)) = &mut members {
            object.properties.remove("api_key_prefix");
            object.description = Some(
                "The members of a contract to change; one that is null gets its default".to_owned(),
            );
        }
        members
    }
}

impl ToSchema for ContractChanges {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ContractMembers::schemas(schemas);
    }
}

runtime::refusals! {
    /// Why a contract is not entered.
    pub enum CreateContractError {
        /// A partner has one contract.
        Exists = 409 "contract_exists" "this prefix has a contract",
    }
}

runtime::refusals! {
    /// Why a contract is not changed.
    pub enum ChangeContractError {
        /// It is over for good.
        Canceled = 409 "contract_canceled" "a canceled contract stays canceled",
    }
}

/// A contract that may be entered.
///
/// # Errors
/// Names the member that is not valid, or that a new contract lacks.
pub fn checked(members: ContractMembers) -> Result<Contract, Error> {
    let contract = valid(members)?;
    if contract.contract_start_date.is_none() {
        return Err(Error::invalid_member(
            "contract_start_date",
            "it is missing",
        ));
    }
    if contract.status != ContractStatus::Active {
        return Err(Error::invalid_member("status", "a contract begins active"));
    }
    Ok(contract)
}

fn valid(members: ContractMembers) -> Result<Contract, Error> {
    let contract = Contract::new(members);
    let chargeable = contract.and_then(|contract| contract.check_chargeable().map(|()| contract));
    chargeable.map_err(|invalid| Error::invalid_member(invalid.field, invalid.expected))
}

/// Enters a contract that was checked.
///
/// # Errors
/// When the partner has one.
pub async fn create(cx: Write<'_>, contract: Contract) -> Result<ContractRow, CreateContractError> {
    let inserted = contracts::insert(cx.db, &contract, cx.now).await;
    let id = inserted.map_err(|error| match error.constraint() {
        Some("api_partner_contracts_api_key_prefix_key") => CreateContractError::Exists,
        _ => error.into(),
    })?;
    let contract = contracts::find(cx.db, id).await?.ok_or(Error::NotFound)?;
    cx.audit("contract.create", format!("contract:{id}"), (), &contract)
        .await?;
    Ok(contract)
}

/// Changes the members that are given. What comes out has to be valid as a whole.
///
/// # Errors
/// When there is no such contract, or names the member that is not valid.
pub async fn change(
    cx: Write<'_>,
    id: i64,
    ContractChanges(changes): ContractChanges,
) -> Result<ContractRow, ChangeContractError> {
    let before = contracts::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    if changes.contains_key("api_key_prefix") {
        let refused = Error::invalid_member("api_key_prefix", "no member that can be changed");
        return Err(refused.into());
    }
    let mut members = before.members();
    if TAXES.iter().any(|member| changes.contains_key(*member)) {
        members.retain(|name, _| !TAXES.contains(&name.as_str()));
    }
    members.extend(changes);
    let members = object_of(Value::Object(members))
        .map_err(|(field, detail)| Error::invalid_member(field, detail))?;
    let contract = valid(members)?;
    let was_canceled = before.status == ContractStatus::Canceled.as_str();
    if was_canceled && contract.status != ContractStatus::Canceled {
        return Err(ChangeContractError::Canceled);
    }
    contracts::update(cx.db, id, &contract, cx.now).await?;
    let after = contracts::find(cx.db, id).await?.ok_or(Error::NotFound)?;
    cx.audit("contract.update", format!("contract:{id}"), &before, &after)
        .await?;
    Ok(after)
}
