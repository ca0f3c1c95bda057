//! `/admin/contracts…`: the contracts of partners.

use domain::partner::contract::{self, Contract, ContractStatus};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::members;
use runtime::api::{self, Error, Query};
use serde_json::{Map, Value};
use store::audit_log::{self, Entry};
use store::contracts::{self, Filter};
use tokio_postgres::Client;

use crate::{App, list, write};

pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["status", "api_key_prefix", "limit", "cursor"])?;
    let filter = Filter {
        status: query.one_of("status", ContractStatus::WORDS)?,
        api_key_prefix: query.text("api_key_prefix")?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(contracts::list(&**client, &filter, &page).await?)
}

/// One contract.
pub(crate) async fn get(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let client = app.database.client().await?;
    let contract = contracts::find(&**client, id).await?;
    api::json(StatusCode::OK, &contract.ok_or(Error::NotFound)?)
}

/// Enters a contract: 201.
pub(crate) async fn create(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::key(request)?;
    let contract = parse(&members::object(request)?)?;
    members::required("contract_start_date", contract.contract_start_date)?;
    if contract.status != ContractStatus::Active {
        return Err(members::invalid("status", "a contract begins active"));
    }
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let id = contracts::insert(&transaction, &contract, now)
        .await
        .map_err(explain)?;
    let after = contracts::find(&transaction, id).await?;
    let entry = Entry {
        actor: write::actor(&principal),
        action: "contract.create",
        target: format!("contract:{id}"),
        before: None,
        after: Some(write::audited(&after)?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::CREATED, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(answer)
}

/// Changes the members that are given, `null` ones to their defaults. What comes out has to be valid as a whole.
pub(crate) async fn change(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let changes = members::object(request)?;
    let is_known =
        |name: &&String| contract::MEMBERS.contains(&name.as_str()) && *name != "api_key_prefix";
    if let Some(other) = changes.keys().find(|name| !is_known(name)) {
        return Err(members::invalid(other, "no member that can be changed"));
    }
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let before = contracts::lock(&transaction, id).await?;
    let before = before.ok_or(Error::NotFound)?;
    let mut members = before.members();
    members.extend(changes);
    let contract = parse(&members)?;
    if before.status == ContractStatus::Canceled.as_str()
        && contract.status != ContractStatus::Canceled
    {
        return Err(Error::Conflict {
            code: "contract_canceled",
            detail: "a canceled contract stays canceled".to_owned(),
        });
    }
    contracts::update(&transaction, id, &contract, now).await?;
    let after = contracts::find(&transaction, id).await?;
    let entry = Entry {
        actor: write::actor(&principal),
        action: "contract.update",
        target: format!("contract:{id}"),
        before: Some(write::audited(&before)?),
        after: Some(write::audited(&after)?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    api::json(StatusCode::OK, &after)
}

fn parse(members: &Map<String, Value>) -> Result<Contract, Error> {
    Contract::parse(members).map_err(|invalid| members::invalid(&invalid.field, &invalid.expected))
}

fn explain(error: store::Error) -> Error {
    match error.constraint() {
        Some("api_partner_contracts_api_key_prefix_key") => Error::Conflict {
            code: "contract_exists",
            detail: "this prefix has a contract".to_owned(),
        },
        _ => error.into(),
    }
}
