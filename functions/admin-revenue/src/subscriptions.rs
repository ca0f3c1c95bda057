//! `GET /admin/subscriptions`: the subscriptions, newest first.

use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::{Error, Query};
use store::subscriptions::{self, Filter};

use crate::{Clients, list};

/// Those of Stripe.
const STATUSES: [&str; 8] = [
    "incomplete",
    "incomplete_expired",
    "trialing",
    "active",
    "past_due",
    "canceled",
    "unpaid",
    "paused",
];

pub(crate) async fn list(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &[
            "status", "user_id", "customer", "plan", "from", "to", "limit", "cursor",
        ],
    )?;
    let filter = Filter {
        status: query.one_of("status", &STATUSES)?,
        user_id: query.integer("user_id")?,
        stripe_customer_id: query.text("customer")?,
        plan_name: query.text("plan")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(subscriptions::list(&**client, &filter, &page).await?)
}
