//! `GET /admin/invoices`: the invoices, newest first.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use shared::api::authentication::Access;
use shared::api::{Error, Query};
use shared::store::invoices::{self, Filter};

use crate::{App, list};

const STATUSES: [&str; 5] = ["draft", "open", "paid", "void", "uncollectible"];
const KINDS: [&str; 4] = ["subscription", "one_off", "partner", "overage"];

/// A partner sees its own, and may not ask for another's.
pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let access = app
        .jwt
        .require_admin_or_partner(request.headers(), now)
        .await?;
    let query = Query::parse(
        request,
        &[
            "status",
            "kind",
            "user_id",
            "api_key_prefix",
            "customer",
            "number",
            "from",
            "to",
            "limit",
            "cursor",
        ],
    )?;
    let mut filter = Filter {
        status: query.one_of("status", &STATUSES)?,
        kind: query.one_of("kind", &KINDS)?,
        user_id: query.integer("user_id")?,
        api_key_prefix: query.text("api_key_prefix")?,
        stripe_customer_id: query.text("customer")?,
        invoice_number: query.text("number")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    if let Access::Partner(own) = &access {
        if filter.api_key_prefix.is_some_and(|prefix| prefix != own) {
            return Err(Error::Forbidden {
                detail: "this token reads the invoices of its own prefix",
            });
        }
        filter.api_key_prefix = Some(own);
    }
    let client = app.database.client().await?;
    list::answer(invoices::list(&**client, &filter, &page).await?)
}
