//! `/admin/invoices…`: the invoices, newest first; one with all that belongs to it; what happens to partners' invoices
//! outside Stripe.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::payment::PaymentStatus;
use domain::stripe_objects::invoice::{InvoiceKind, InvoiceStatus};
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::access::Caller;
use runtime::api::extract::{Json, NoMembers, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use serde::{Deserialize, Serialize};
use shared::actions::invoices::{self as actions, ManualPayment, MarkPaidError, VoidInvoiceError};
use shared::write::{Writer, Written};
use store::credits::{self, AppliedCredit};
use store::invoices::{
    self, Filter, InvoiceDetails, InvoiceInternals, InvoiceLine, InvoiceRow, InvoiceSummary,
};
use store::payment_history::{self, PaymentOfInvoice};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::{InvoicePath, NumberPath};

/// Which invoices are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct InvoicesQuery {
    /// Only those of this status.
    #[param(inline)]
    status: Option<InvoiceStatus>,
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<InvoiceKind>,
    /// Only invoices of the user with this id.
    #[param(minimum = 0)]
    user_id: Option<i32>,
    /// Only invoices of the partner with this API key prefix; a partner may only ask for its own.
    #[param(inline)]
    api_key_prefix: Option<PlainText>,
    /// Only invoices of the customer with this id at Stripe (`cus_…`).
    #[param(inline)]
    customer: Option<PlainText>,
    /// Only the one with this number, as printed.
    #[param(inline)]
    number: Option<PlainText>,
}

/// Lists invoices, newest first. A partner sees its own.
#[utoipa::path(get, path = "/admin/invoices")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    caller: Caller,
    Query(asked): Query<InvoicesQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<InvoiceSummary>>, Error> {
    let asked_prefix = asked.api_key_prefix.as_ref().map(PlainText::as_str);
    if asked_prefix.is_some() && !caller.may_read(asked_prefix) {
        return Err(Error::Forbidden {
            detail: "this token reads the invoices of its own prefix",
        });
    }
    let filter = Filter {
        status: asked.status,
        kind: asked.kind,
        user_id: asked.user_id,
        api_key_prefix: asked_prefix.or(caller.own_prefix()),
        stripe_customer_id: asked.customer.as_ref().map(PlainText::as_str),
        invoice_number: asked.number.as_ref().map(PlainText::as_str),
        created: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = invoices::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

/// An invoice with its lines, payments and applied credits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum InvoiceWithParts {
    /// For staff: every member.
    Whole(Box<WholeInvoice>),
    /// For the partner it bills: without metadata, object keys and fees.
    OfPartner(Box<PartnersInvoice>),
}

/// An invoice as staff sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeInvoice {
    #[serde(flatten)]
    summary: InvoiceSummary,
    #[serde(flatten)]
    details: InvoiceDetails,
    #[serde(flatten)]
    internals: InvoiceInternals,
    lines: Vec<InvoiceLine>,
    /// Payments of this invoice, newest first.
    payments: Vec<PaymentOfInvoice>,
    /// What was taken from credits for it.
    credits: Vec<AppliedCredit>,
}

/// An invoice as the partner it bills sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartnersInvoice {
    #[serde(flatten)]
    summary: InvoiceSummary,
    #[serde(flatten)]
    details: InvoiceDetails,
    lines: Vec<InvoiceLine>,
    /// Payments of this invoice, newest first.
    payments: Vec<PartnerPayment>,
    /// What was taken from credits for it.
    credits: Vec<AppliedCredit>,
}

/// What a partner sees of a payment: not what it cost us.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartnerPayment {
    id: i64,
    invoice_id: Option<i64>,
    amount_cents: i64,
    /// What it has paid of this invoice, in minor units.
    applied_cents: i64,
    currency: Currency,
    status: PaymentStatus,
    payment_method: Option<String>,
    refund_amount_cents: Option<i64>,
    succeeded_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<PaymentOfInvoice> for PartnerPayment {
    fn from(of_invoice: PaymentOfInvoice) -> PartnerPayment {
        let payment = of_invoice.payment;
        PartnerPayment {
            applied_cents: of_invoice.applied_cents,
            id: payment.id,
            invoice_id: payment.invoice_id,
            amount_cents: payment.amount_cents,
            currency: payment.currency,
            status: payment.status,
            payment_method: payment.payment_method,
            refund_amount_cents: payment.refund_amount_cents,
            succeeded_at: payment.succeeded_at,
            created_at: payment.created_at,
        }
    }
}

/// Answers one invoice, by our number or Stripe's id, with its lines, payments and applied credits.
#[utoipa::path(get, path = "/admin/invoices/{id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    caller: Caller,
    Path(InvoicePath { id }): Path<InvoicePath>,
) -> Result<Json<InvoiceWithParts>, Error> {
    let client = app.database.client().await?;
    let db = &**client;
    let (number, stripe_id) = id.parts();
    let invoice = invoices::find(db, number, stripe_id).await?;
    let invoice = invoice
        // Another partner's is as good as none.
        .filter(|invoice| caller.may_read(invoice.summary.api_key_prefix.as_deref()))
        .ok_or(Error::NotFound)?;
    let lines = invoice.lines();
    let InvoiceRow {
        summary,
        details,
        internals,
        line_items: _,
    } = invoice;
    let payments = payment_history::of_invoice(db, summary.id).await?;
    let credits = credits::applied_to(db, summary.id).await?;
    Ok(Json(match caller.own_prefix() {
        None => InvoiceWithParts::Whole(Box::new(WholeInvoice {
            summary,
            details,
            internals,
            lines,
            payments,
            credits,
        })),
        Some(_) => InvoiceWithParts::OfPartner(Box::new(PartnersInvoice {
            summary,
            details,
            lines,
            payments: payments.into_iter().map(PartnerPayment::from).collect(),
            credits,
        })),
    }))
}

/// Voids an invoice of which nothing has been paid. Credits applied to it become available again.
#[utoipa::path(post, path = "/admin/invoices/{id}/void")]
pub(crate) async fn void(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Written<InvoiceRow>, VoidInvoiceError> {
    writer
        .run(|cx| Box::pin(actions::void(cx, path.number())))
        .await
}

/// Records a wire, check or ACH payment of an invoice, of all that is due or of a part.
#[utoipa::path(post, path = "/admin/invoices/{id}/mark-paid")]
pub(crate) async fn mark_paid(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Now(now): Now,
    Json(payment): Json<ManualPayment>,
) -> Result<Written<InvoiceRow>, MarkPaidError> {
    payment.check(now)?;
    writer
        .run(|cx| Box::pin(actions::mark_paid(cx, path.number(), payment)))
        .await
}
