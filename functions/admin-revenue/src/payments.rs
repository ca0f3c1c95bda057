//! `GET /admin/payments…`: the payments, newest first; one with its attempts, refunds and disputes.

use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::list::Object;
use store::payment_facts;
use store::payment_history::{self, Filter};

use crate::{Clients, list};

const STATUSES: [&str; 7] = [
    "pending",
    "succeeded",
    "failed",
    "refunded",
    "partially_refunded",
    "disputed",
    "canceled",
];

#[derive(Serialize)]
struct Payment {
    #[serde(flatten)]
    payment: Object,
    /// The charges, first to last.
    attempts: Vec<Object>,
    refunds: Vec<Object>,
    disputes: Vec<Object>,
}

pub(crate) async fn list(
    app: &Clients,
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

/// One payment, by our number or by the id of its intent or of any of its charges.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let number = api::parse_id(id);
    let key = Some(id).filter(|id| number.is_none() && api::is_plain(id));
    if number.is_none() && key.is_none() {
        return Err(Error::NotFound);
    }
    let client = app.database.client().await?;
    let db = &**client;
    let payment = payment_history::find(db, number, key).await?;
    let payment = payment.ok_or(Error::NotFound)?;
    let intent = payment["stripe_payment_intent_id"].as_str();
    let charge = payment["stripe_charge_id"].as_str();
    let attempts = payment_facts::list_attempts(db, intent, charge).await?;
    let charges: Vec<&str> = attempts
        .iter()
        .filter_map(|attempt| attempt["stripe_charge_id"].as_str())
        .chain(charge)
        .collect();
    let refunds = payment_facts::list_refunds(db, intent, &charges).await?;
    let disputes = payment_facts::list_disputes(db, intent, &charges).await?;
    let payment = Payment {
        payment,
        attempts,
        refunds,
        disputes,
    };
    api::json(StatusCode::OK, &payment)
}
