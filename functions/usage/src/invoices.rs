//! `GET /usage/partner/{prefix}/invoices`: a partner's own invoices, newest first, with links to their PDFs.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::invoices;
use store::list::Object;
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::PartnerPath;

/// What an invoice that a partner has been sent may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SentInvoiceStatus {
    /// To be paid.
    Open,
    Paid,
    Void,
    /// Not expected to be paid any more.
    Uncollectible,
}

impl SentInvoiceStatus {
    fn as_str(self) -> &'static str {
        match self {
            SentInvoiceStatus::Open => "open",
            SentInvoiceStatus::Paid => "paid",
            SentInvoiceStatus::Void => "void",
            SentInvoiceStatus::Uncollectible => "uncollectible",
        }
    }
}

/// Which invoices are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct StatusQuery {
    /// Only those of this status.
    #[param(inline)]
    status: Option<SentInvoiceStatus>,
}

/// An invoice as its partner sees it; amounts in minor units of `currency`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartnerInvoice {
    id: i64,
    /// As printed.
    invoice_number: Option<String>,
    /// `partner` for what a contract came to.
    kind: String,
    subtotal_cents: i64,
    tax_cents: i64,
    discount_cents: i64,
    total_cents: i64,
    /// Taken off by credits.
    credit_applied_cents: i64,
    amount_paid_cents: i64,
    /// What remains to be paid.
    amount_due_cents: i64,
    currency: Currency,
    status: SentInvoiceStatus,
    /// First instant of what is billed.
    billing_period_start: Option<Timestamp>,
    /// First instant after it.
    billing_period_end: Option<Timestamp>,
    due_date: Option<Date>,
    finalized_at: Option<Timestamp>,
    paid_at: Option<Timestamp>,
    voided_at: Option<Timestamp>,
    /// The partner's purchase order.
    po_number: Option<String>,
    created_at: Timestamp,
    /// Works for ten minutes; null while there is no PDF.
    pdf_url: Option<String>,
}

/// A partner's invoices without drafts, newest first.
#[utoipa::path(get, path = "/usage/partner/{prefix}/invoices")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Path(PartnerPath { prefix }): Path<PartnerPath>,
    Query(filter): Query<StatusQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
    Now(now): Now,
) -> Result<Json<ListOf<PartnerInvoice>>, Error> {
    let status = filter.status.map(SentInvoiceStatus::as_str);
    let (created, page) = (span.span()?, page.page()?);
    let client = app.database.client().await?;
    let rows =
        invoices::list_of_partner(&**client, prefix.as_str(), status, created, &page).await?;
    let mut invoices = Vec::with_capacity(rows.rows.len());
    for mut row in rows.rows {
        let link = pdf_url(&app, &mut row, now).await?;
        row.insert("pdf_url".to_owned(), link.into());
        let invoice = serde_json::from_value(Value::Object(row));
        invoices.push(invoice.map_err(|error| Error::Internal(Box::new(error)))?);
    }
    Ok(Json(ListOf::new(invoices, rows.next.as_ref())?))
}

/// Our own document in the bucket, else Stripe's. Nothing is asked of S3 for it.
async fn pdf_url(
    app: &Clients,
    invoice: &mut Object,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    let mut text = |column: &str| {
        let value = invoice.remove(column)?;
        value.as_str().map(str::to_owned)
    };
    let (key, stripe_url) = (text("pdf_key"), text("invoice_pdf_url"));
    let Some(key) = key else {
        return Ok(stripe_url);
    };
    let bucket = app.document_bucket.as_ref();
    let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let number = invoice.get("invoice_number");
    let number = number.and_then(|value| value.as_str());
    let filename = format!("{}.pdf", number.unwrap_or("invoice"));
    Ok(Some(bucket.presigned_get(&key, &filename, now).await?))
}
