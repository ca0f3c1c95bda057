//! `/admin/contracts…`: the contracts of partners.

use std::sync::Arc;

use axum::extract::State;
use domain::partner::contract::{ContractMembers, ContractStatus};
use runtime::api::Error;
use runtime::api::extract::{Json, Path, Query};
use runtime::api::list::{ListOf, PageQuery};
use runtime::api::values::PlainText;
use serde::Deserialize;
use shared::actions::contracts::{
    self as actions, ChangeContractError, ContractChanges, CreateContractError,
};
use shared::write::{Created, Writer, Written};
use store::contracts::{self, ContractRow, Filter};
use utoipa::IntoParams;

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

/// Lists partners' contracts, newest first.
#[utoipa::path(get, path = "/admin/contracts")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<ContractsQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ContractRow>>, Error> {
    let filter = Filter {
        status: asked.status,
        api_key_prefix: asked.api_key_prefix.as_ref().map(PlainText::as_str),
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = contracts::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

/// Answers the contract with this number; 404 when there is none.
#[utoipa::path(get, path = "/admin/contracts/{id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(path): Path<NumberPath>,
) -> Result<Json<ContractRow>, Error> {
    let client = app.database.client().await?;
    let contract = contracts::find(&**client, path.number()).await?;
    Ok(Json(contract.ok_or(Error::NotFound)?))
}

/// Creates a contract, which is active at once.
#[utoipa::path(post, path = "/admin/contracts")]
pub(crate) async fn create(
    writer: Writer,
    Json(members): Json<ContractMembers>,
) -> Result<Created<ContractRow>, CreateContractError> {
    let contract = actions::checked(members)?;
    writer
        .run(|cx| Box::pin(actions::create(cx, contract)))
        .await
}

/// Changes the members that are given; null restores a default. The resulting contract must be valid as a whole.
#[utoipa::path(patch, path = "/admin/contracts/{id}")]
pub(crate) async fn change(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Json(changes): Json<ContractChanges>,
) -> Result<Written<ContractRow>, ChangeContractError> {
    writer
        .run(|cx| Box::pin(actions::change(cx, path.number(), changes)))
        .await
}
