//! `GET /admin/credits`: the credits, newest first.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use shared::api::{Error, Query};
use shared::store::credits::{self, Filter};

use crate::{App, list};

pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &["user_id", "api_key_prefix", "from", "to", "limit", "cursor"],
    )?;
    let filter = Filter {
        user_id: query.integer("user_id")?,
        api_key_prefix: query.text("api_key_prefix")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(credits::list(&**client, &filter, &page).await?)
}
