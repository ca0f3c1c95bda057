//! `/admin/contracts…`: the contracts of partners.

use std::sync::Arc;

use axum::extract::State;
use domain::partner::contract::ContractStatus;
use jiff::civil::Date;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery};
use runtime::api::values::PlainText;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::actions::contracts::{
    self as actions, ChangeContractError, ContractChanges, ContractToday, CreateContractError,
    NewContract, RevokeChangeError,
};
use shared::write::{Created, Writer, Written};
use store::contract_changes::{self, ContractChange};
use store::contracts::{self, Filter, Which};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::NumberPath;

/// Which contracts are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ContractsQuery {
    /// Only those of this status.
    #[param(inline)]
    status: Option<ContractStatus>,
    /// Only the contract of the partner with this API key prefix.
    #[param(inline)]
    api_key_prefix: Option<PlainText>,
}

/// Lists partners' contracts, newest first, as they are today.
#[utoipa::path(get, path = "/admin/contracts")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<ContractsQuery>,
    Query(page): Query<PageQuery>,
    Now(now): Now,
) -> Result<Json<ListOf<ContractToday>>, Error> {
    let filter = Filter {
        status: asked.status,
        api_key_prefix: asked.api_key_prefix.as_ref().map(PlainText::as_str),
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let listed = contracts::list(&**client, &filter, &page).await?;
    let ids: Vec<i64> = listed.rows.iter().map(|row| row.id).collect();
    let mut read = contracts::read(&**client, Which::Ids(&ids)).await?;
    let mut rows = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(place) = read.iter().position(|read| read.row.id == id) {
            rows.push(ContractToday::new(read.swap_remove(place), now));
        }
    }
    Ok(Json(ListOf::new(rows, listed.next.as_ref())?))
}

/// Answers the contract with this number, as it is today; 404 when there is none.
#[utoipa::path(get, path = "/admin/contracts/{id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(path): Path<NumberPath>,
    Now(now): Now,
) -> Result<Json<ContractToday>, Error> {
    let client = app.database.client().await?;
    let contract = contracts::find(&**client, path.number()).await?;
    let contract = contract.ok_or(Error::NotFound)?;
    Ok(Json(ContractToday::new(contract, now)))
}

/// Creates a contract, which is active at once. A partner whose contract ends before comes back: the contract keeps its
/// number, and members that are not named have their defaults.
#[utoipa::path(post, path = "/admin/contracts")]
pub(crate) async fn create(
    writer: Writer,
    Json(members): Json<NewContract>,
) -> Result<Created<ContractToday>, CreateContractError> {
    writer
        .run(|cx| Box::pin(actions::create(cx, members)))
        .await
}

/// Changes the members that are given; null restores a default. The contract must be valid as a whole on every day.
#[utoipa::path(patch, path = "/admin/contracts/{id}")]
pub(crate) async fn change(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Json(changes): Json<ContractChanges>,
) -> Result<Written<ContractToday>, ChangeContractError> {
    writer
        .run(|cx| Box::pin(actions::change(cx, path.number(), changes)))
        .await
}

/// Lists the changes of a contract's terms, newest first, those taken back among them.
#[utoipa::path(get, path = "/admin/contracts/{id}/changes")]
pub(crate) async fn changes(
    State(app): State<Arc<Clients>>,
    Path(path): Path<NumberPath>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ContractChange>>, Error> {
    let page = page.page()?;
    let client = app.database.client().await?;
    let db = &**client;
    contracts::find(db, path.number())
        .await?
        .ok_or(Error::NotFound)?;
    let rows = contract_changes::list(db, path.number(), &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

/// A change of a contract.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ChangePath {
    /// Our number of the contract.
    #[param(minimum = 1)]
    id: i64,
    /// The number of the change.
    #[param(minimum = 1)]
    change_id: i64,
}

/// Takes a change back that is not in force yet.
#[utoipa::path(delete, path = "/admin/contracts/{id}/changes/{change_id}")]
pub(crate) async fn revoke_change(
    writer: Writer,
    Path(path): Path<ChangePath>,
) -> Result<Written<ContractChange>, RevokeChangeError> {
    writer
        .run(|cx| Box::pin(actions::revoke(cx, path.id, path.change_id)))
        .await
}

/// The day of the terms.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct TermsQuery {
    /// A day in the contract's time zone; today when not given.
    #[param(value_type = Option<String>, format = Date, example = "2026-01-01")]
    on: Option<Date>,
}

/// The terms of a day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TermsOfDay {
    contract_id: i64,
    on: Date,
    /// Whether the day is billed: the contract has begun and is neither suspended nor over.
    billed: bool,
    /// The dated members, null where they have no value. Amounts in minor units of `currency`.
    terms: Value,
}

runtime::refusals! {
    /// Why there are no terms of a day.
    pub(crate) enum TermsError {
        /// As the predecessor may have left it.
        NotValid = 409 "contract_not_valid" "a member of this contract is not valid: change it first",
    }
}

/// Answers the terms of a day: the fold of all changes in force on it.
#[utoipa::path(get, path = "/admin/contracts/{id}/terms")]
pub(crate) async fn terms(
    State(app): State<Arc<Clients>>,
    Path(path): Path<NumberPath>,
    Query(asked): Query<TermsQuery>,
    Now(now): Now,
) -> Result<Json<TermsOfDay>, TermsError> {
    let client = app.database.client().await?;
    let read = contracts::find(&**client, path.number()).await?;
    let read = read.ok_or(Error::NotFound)?;
    let contract = read.contract(now);
    let contract = contract.map_err(|_invalid| TermsError::NotValid)?;
    let history = contract.history;
    let on = match asked.on {
        Some(on) => on,
        None => history
            .day_of(now)
            .map_err(|error| Error::Internal(Box::new(error)))?,
    };
    Ok(Json(TermsOfDay {
        contract_id: contract.id,
        on,
        billed: history.is_billed(on),
        terms: Value::Object(history.on(on).dated()),
    }))
}
