//! `GET /admin/audit-log`: who changed what, newest first.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::{Error, Query};
use store::audit_log::{self, Filter};

use crate::{Clients, list};

pub(crate) async fn list(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &["actor", "action", "target", "from", "to", "limit", "cursor"],
    )?;
    let filter = Filter {
        actor: query.text("actor")?,
        action: query.text("action")?,
        target: query.text("target")?,
        at: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(audit_log::list(&**client, &filter, &page).await?)
}
