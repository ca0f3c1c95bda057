//! `/admin/contracts…`: the contracts of partners.

use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use shared::api::{self, Error, Query};
use shared::store::contracts::{self, Filter};

use crate::{App, list};

const STATUSES: [&str; 3] = ["active", "suspended", "canceled"];

pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["status", "api_key_prefix", "limit", "cursor"])?;
    let filter = Filter {
        status: query.one_of("status", &STATUSES)?,
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
