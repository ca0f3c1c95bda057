//! `GET /admin/invoices…`: the invoices, newest first; one with all that belongs to it.

use domain::money::Currency;
use domain::page::Page;
use domain::payment::PaymentStatus;
use domain::stripe_objects::invoice::{InvoiceKind, InvoiceStatus};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::authentication::Access;
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::Value;
use store::credits::{self, AppliedCredit};
use store::invoices::{self, Filter, InvoiceDetails, InvoiceInternals, InvoiceRow, InvoiceSummary};
use store::payment_history::{self, PaymentSummary};
use tokio_postgres::GenericClient;

use crate::{App, list};

/// An invoice with all that belongs to it.
#[derive(Serialize)]
struct Invoice {
    #[serde(flatten)]
    summary: InvoiceSummary,
    #[serde(flatten)]
    details: InvoiceDetails,
    /// Absent for a partner.
    #[serde(flatten)]
    internals: Option<InvoiceInternals>,
    lines: Vec<Value>,
    /// Newest first.
    payments: Vec<InvoicePayment>,
    /// What was taken from credits for it.
    credits: Vec<AppliedCredit>,
}

/// A payment of an invoice.
#[derive(Serialize)]
#[serde(untagged)]
enum InvoicePayment {
    /// For us.
    Whole(Box<PaymentSummary>),
    /// For a partner.
    WithoutCosts(PartnerPayment),
}

/// What a partner sees of a payment: not what it cost us.
#[derive(Serialize)]
struct PartnerPayment {
    id: i64,
    invoice_id: Option<i64>,
    amount_cents: i64,
    currency: Currency,
    status: PaymentStatus,
    payment_method: Option<String>,
    refund_amount_cents: Option<i64>,
    succeeded_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<PaymentSummary> for PartnerPayment {
    fn from(payment: PaymentSummary) -> PartnerPayment {
        PartnerPayment {
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
        status: query
            .one_of("status", InvoiceStatus::WORDS)?
            .and_then(InvoiceStatus::parse),
        kind: query
            .one_of("kind", InvoiceKind::WORDS)?
            .and_then(InvoiceKind::parse),
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

/// One invoice, by our number or by Stripe's id, with its lines, its payments and the credits applied to it.
pub(crate) async fn get(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let access = app
        .jwt
        .require_admin_or_partner(request.headers(), now)
        .await?;
    Query::parse(request, &[])?;
    let client = app.database.client().await?;
    let db = &**client;
    let InvoiceRow {
        summary,
        details,
        internals,
        line_items,
    } = find(db, id, &access).await?;
    let invoice_id = summary.id;
    let filter = payment_history::Filter {
        invoice_id: Some(invoice_id),
        ..payment_history::Filter::default()
    };
    let page = Page {
        after: None,
        limit: 500,
    };
    let payments = payment_history::list(db, &filter, &page).await?.rows;
    let is_partner = matches!(access, Access::Partner(_));
    let payments = payments.into_iter().map(|payment| match is_partner {
        true => InvoicePayment::WithoutCosts(payment.into()),
        false => InvoicePayment::Whole(Box::new(payment)),
    });
    let lines = match line_items {
        Some(Value::Object(mut stored)) => match stored.remove("items") {
            Some(Value::Array(lines)) => lines,
            Some(_) | None => Vec::new(),
        },
        Some(_) | None => Vec::new(),
    };
    let invoice = Invoice {
        summary,
        details,
        internals: (!is_partner).then_some(internals),
        lines,
        payments: payments.collect(),
        credits: credits::applied_to(db, invoice_id).await?,
    };
    api::json(StatusCode::OK, &invoice)
}

/// The invoice that a segment of the path names; another partner's is as good as none.
async fn find(db: &impl GenericClient, id: &str, access: &Access) -> Result<InvoiceRow, Error> {
    let (number, stripe_id) = api::parse_invoice_id(id)?;
    let invoice = invoices::find(db, number, stripe_id).await?;
    invoice
        .filter(|invoice| access.allows(invoice.summary.api_key_prefix.as_deref()))
        .ok_or(Error::NotFound)
}
