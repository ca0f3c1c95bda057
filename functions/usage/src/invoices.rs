//! `GET /usage/partner/{prefix}/invoices`: a partner's own invoices, newest first, with links to their PDFs.

use domain::stripe_objects::invoice::InvoiceStatus;
use domain::usage::Subject;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::{Error, Query, list};
use serde::Serialize;
use store::invoices::{self, SentInvoice};

use crate::App;

/// What an invoice that a partner has been sent may be.
const STATUSES: [&str; 4] = ["open", "paid", "void", "uncollectible"];

#[derive(Serialize)]
struct PartnerInvoice {
    #[serde(flatten)]
    invoice: SentInvoice,
    /// Works for ten minutes; `None` while there is no PDF.
    pdf_url: Option<String>,
}

/// The partner's invoices without drafts. `pdf_url` works for ten minutes; null while there is no PDF.
pub(crate) async fn get(
    app: &App,
    request: &Request,
    prefix: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    Subject::parse(&format!("partner:{prefix}")).ok_or(Error::NotFound)?;
    let query = Query::parse(request, &["status", "from", "to", "limit", "cursor"])?;
    let status = query.one_of("status", &STATUSES)?;
    let status = status.and_then(InvoiceStatus::parse);
    let created = list::span(&query)?;
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    let sent = invoices::list_of_partner(&**client, prefix, status, created, &page).await?;
    let mut rows = Vec::with_capacity(sent.rows.len());
    for invoice in sent.rows {
        rows.push(PartnerInvoice {
            pdf_url: pdf_url(app, &invoice, now).await?,
            invoice,
        });
    }
    list::answer_with(rows, sent.next.as_ref())
}

/// Our own document in the bucket, else Stripe's. Nothing is asked of S3 for it.
async fn pdf_url(
    app: &App,
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
