//! `GET /usage/partner/{prefix}/invoices`: a partner's own invoices, newest first, with links to their PDFs.

use std::sync::Arc;

use axum::extract::State;
use domain::stripe_objects::invoice::InvoiceStatus;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use serde::{Deserialize, Serialize};
use store::invoices::{self, SentInvoice};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::PartnerPath;

/// The status of an invoice that was sent to a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SentInvoiceStatus {
    /// Issued, and not paid yet.
    Open,
    Paid,
    Void,
    /// Not expected to be paid any more.
    Uncollectible,
}

impl SentInvoiceStatus {
    fn stored(self) -> InvoiceStatus {
        match self {
            SentInvoiceStatus::Open => InvoiceStatus::Open,
            SentInvoiceStatus::Paid => InvoiceStatus::Paid,
            SentInvoiceStatus::Void => InvoiceStatus::Void,
            SentInvoiceStatus::Uncollectible => InvoiceStatus::Uncollectible,
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
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartnerInvoice {
    #[serde(flatten)]
    invoice: SentInvoice,
    /// Works for ten minutes; null while there is no PDF.
    pdf_url: Option<String>,
}

/// Lists a partner's invoices without drafts, newest first.
#[utoipa::path(get, path = "/usage/partner/{prefix}/invoices")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Path(PartnerPath { prefix }): Path<PartnerPath>,
    Query(filter): Query<StatusQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
    Now(now): Now,
) -> Result<Json<ListOf<PartnerInvoice>>, Error> {
    let status = filter.status.map(SentInvoiceStatus::stored);
    let (created, page) = (span.span()?, page.page()?);
    let client = app.database.client().await?;
    let sent =
        invoices::list_of_partner(&**client, prefix.as_str(), status, created, &page).await?;
    let mut rows = Vec::with_capacity(sent.rows.len());
    for invoice in sent.rows {
        rows.push(PartnerInvoice {
            pdf_url: pdf_url(&app, &invoice, now).await?,
            invoice,
        });
    }
    Ok(Json(ListOf::new(rows, sent.next.as_ref())?))
}

/// Our own document in the bucket, else Stripe's. Nothing is asked of S3 for it.
async fn pdf_url(
    app: &Clients,
    invoice: &SentInvoice,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    let Some(key) = &invoice.pdf_key else {
        return Ok(invoice.invoice_pdf_url.clone());
    };
    let bucket = app.document_bucket.as_ref();
    let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let filename = format!("{}.pdf", invoice.invoice_number);
    Ok(Some(bucket.presigned_get(key, &filename, now).await?))
}
