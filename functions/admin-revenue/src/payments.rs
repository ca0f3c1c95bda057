//! `GET /admin/payments`: the payments, newest first.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use shared::api::{Error, Query};
use shared::store::payment_history::{self, Filter};

use crate::{App, list};

const STATUSES: [&str; 7] = [
    "pending",
    "succeeded",
    "failed",
    "refunded",
    "partially_refunded",
    "disputed",
    "canceled",
];

pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &[
            "status",
            "user_id",
            "customer",
            "invoice_id",
            "from",
            "to",
            "limit",
            "cursor",
        ],
    )?;
    let filter = Filter {
        status: query.one_of("status", &STATUSES)?,
        user_id: query.integer("user_id")?,
        stripe_customer_id: query.text("customer")?,
        invoice_id: query.integer("invoice_id")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(payment_history::list(&**client, &filter, &page).await?)
}
