//! `GET /admin/customers…`: the customers, newest first; one with what it has, owes and pays.

use domain::money::{Currency, div_half_even_cents};
use domain::page::Page;
use domain::stripe_objects::invoice::InvoiceStatus;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::credits::{self, CreditBalance};
use store::customers::{self, Filter};
use store::invoices::{self, InvoiceSummary};
use store::list::Object;
use store::subscriptions;

use crate::{Clients, list};

/// 10⁻⁶ of a minor unit in one.
const MICROCENTS_PER_CENT: i128 = 1_000_000;

#[derive(Serialize)]
struct Customer {
    #[serde(flatten)]
    customer: Object,
    /// The application's user behind it, when that is known.
    user: Option<Object>,
    /// Newest first, up to 500.
    subscriptions: Vec<Object>,
    /// Newest first, up to 500.
    open_invoices: Vec<InvoiceSummary>,
    /// What remains of credits, per currency.
    credit_balances: Vec<CreditBalance>,
    mrr: Vec<Mrr>,
}

/// What it pays per month, in one currency.
#[derive(Serialize)]
struct Mrr {
    currency: Currency,
    /// The exact figure, rounded half-even.
    mrr_cents: i64,
    mrr_microcents: i64,
}

pub(crate) async fn list(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["user_id", "from", "to", "limit", "cursor"])?;
    let filter = Filter {
        user_id: query.integer("user_id")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(customers::list(&**client, &filter, &page).await?)
}

/// One customer.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    stripe_customer_id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    if !api::is_plain(stripe_customer_id) {
        return Err(Error::NotFound);
    }
    let client = app.database.client().await?;
    let db = &**client;
    let customer = customers::find(db, stripe_customer_id).await?;
    let customer = customer.ok_or(Error::NotFound)?;
    let user_id = customer["user_id"].as_i64();
    let user_id = user_id.and_then(|id| i32::try_from(id).ok());
    let user = match user_id {
        Some(user_id) => customers::find_user(db, user_id).await?,
        None => None,
    };
    let page = Page {
        after: None,
        limit: 500,
    };
    let of_customer = subscriptions::Filter {
        stripe_customer_id: Some(stripe_customer_id),
        ..subscriptions::Filter::default()
    };
    let open = invoices::Filter {
        stripe_customer_id: Some(stripe_customer_id),
        status: Some(InvoiceStatus::Open),
        ..invoices::Filter::default()
    };
    let mrr = subscriptions::mrr_of_customer(db, stripe_customer_id).await?;
    let mrr = mrr.into_iter().map(|(currency, mrr_microcents)| {
        Ok(Mrr {
            currency,
            mrr_cents: div_half_even_cents(i128::from(mrr_microcents), MICROCENTS_PER_CENT)?,
            mrr_microcents,
        })
    });
    let customer = Customer {
        customer,
        user,
        subscriptions: subscriptions::list(db, &of_customer, &page).await?.rows,
        open_invoices: invoices::list(db, &open, &page).await?.rows,
        credit_balances: credits::balances(db, stripe_customer_id, user_id, now).await?,
        mrr: mrr.collect::<Result<_, Error>>()?,
    };
    api::json(StatusCode::OK, &customer)
}
