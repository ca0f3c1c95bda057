//! `GET /admin/payments…`: the payments, newest first; one with its attempts, refunds, disputes and invoices.

use std::sync::Arc;

use axum::extract::State;
use domain::payment::PaymentStatus;
use runtime::api::extract::{Json, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use runtime::api::{self, Error};
use serde::{Deserialize, Serialize};
use store::payment_history::{self, Filter, PaidInvoice, PaymentSummary, SettledPayment};
use store::payment_parts::{self, PaymentAttempt, PaymentDispute, PaymentRefund};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;

/// Which payments are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct PaymentsQuery {
    /// Only those of this status.
    #[param(inline)]
    status: Option<PaymentStatus>,
    /// Only payments of the user with this id.
    #[param(minimum = 0)]
    user_id: Option<i32>,
    /// Only those of a customer at Stripe.
    #[param(inline)]
    customer: Option<PlainText>,
    /// Only those of an invoice, by our number of it.
    #[param(minimum = 0)]
    invoice_id: Option<i64>,
}

/// Lists payments, newest first; one row each, however often it was tried.
#[utoipa::path(get, path = "/admin/payments")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<PaymentsQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<PaymentSummary>>, Error> {
    let filter = Filter {
        status: asked.status,
        user_id: asked.user_id,
        stripe_customer_id: asked.customer.as_ref().map(PlainText::as_str),
        invoice_id: asked.invoice_id,
        created: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = payment_history::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

/// A payment of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct PaymentPath {
    /// Our number of the payment, or the id of its intent or of any of its charges.
    #[param(inline)]
    id: PlainText,
}

/// A payment with all that belongs to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PaymentWithParts {
    #[serde(flatten)]
    payment: SettledPayment,
    /// The charges, first to last.
    attempts: Vec<PaymentAttempt>,
    refunds: Vec<PaymentRefund>,
    disputes: Vec<PaymentDispute>,
    /// The invoices that it pays, the largest part first.
    invoices: Vec<PaidInvoice>,
}

/// Answers one payment, by our number or by the id of its intent or of any of its charges.
#[utoipa::path(get, path = "/admin/payments/{id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(PaymentPath { id }): Path<PaymentPath>,
) -> Result<Json<PaymentWithParts>, Error> {
    let number = api::parse_id(id.as_str());
    let key = Some(id.as_str()).filter(|_| number.is_none());
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
    let refunds =
        payment_parts::refunds(db, &payment.payment.payment_key, intent, &charges).await?;
    let disputes = payment_parts::disputes(db, intent, &charges).await?;
    let invoices = payment_history::invoices_of(db, &payment.payment).await?;
    Ok(Json(PaymentWithParts {
        payment,
        invoices,
        attempts,
        refunds,
        disputes,
    }))
}
