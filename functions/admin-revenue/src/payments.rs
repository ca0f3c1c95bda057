//! `GET /admin/payments…`: the payments, newest first; one with its attempts, refunds and disputes.

use domain::payment::PaymentStatus;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::payment_history::{self, Filter, SettledPayment};
use store::payment_parts::{self, PaymentAttempt, PaymentDispute, PaymentRefund};

use crate::{App, list};

#[derive(Serialize)]
struct Payment {
    #[serde(flatten)]
    payment: SettledPayment,
    /// The charges, first to last.
    attempts: Vec<PaymentAttempt>,
    refunds: Vec<PaymentRefund>,
    disputes: Vec<PaymentDispute>,
}

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
        status: query
            .one_of("status", PaymentStatus::WORDS)?
            .and_then(PaymentStatus::parse),
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
    app: &App,
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
    let intent = payment.payment.stripe_payment_intent_id.as_deref();
    let charge = payment.payment.stripe_charge_id.as_deref();
    let attempts = payment_parts::attempts(db, intent, charge).await?;
    let charges: Vec<&str> = attempts
        .iter()
        .map(|attempt| attempt.stripe_charge_id.as_str())
        .chain(charge)
        .collect();
    let refunds = payment_parts::refunds(db, intent, &charges).await?;
    let disputes = payment_parts::disputes(db, intent, &charges).await?;
    let payment = Payment {
        payment,
        attempts,
        refunds,
        disputes,
    };
    api::json(StatusCode::OK, &payment)
}
