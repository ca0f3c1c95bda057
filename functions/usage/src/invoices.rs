//! `GET /usage/partner/{prefix}/invoices`: a partner's own invoices, newest first, with links to their PDFs.

use domain::usage::Subject;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::{Error, Query, list};
use store::invoices;
use store::list::Object;

use crate::App;

/// What an invoice that a partner has been sent may be.
const STATUSES: [&str; 4] = ["open", "paid", "void", "uncollectible"];

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
    let created = list::span(&query)?;
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    let mut rows = invoices::list_of_partner(&**client, prefix, status, created, &page).await?;
    for invoice in &mut rows.rows {
        let link = pdf_url(app, invoice, now).await?;
        invoice.insert("pdf_url".to_owned(), link.into());
    }
    list::answer(rows)
}

/// Our own document in the bucket, else Stripe's. Nothing is asked of S3 for it.
async fn pdf_url(app: &App, invoice: &mut Object, now: Timestamp) -> Result<Option<String>, Error> {
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
    let number = invoice
        .get("invoice_number")
        .and_then(|value| value.as_str());
    let filename = format!("{}.pdf", number.unwrap_or("invoice"));
    Ok(Some(bucket.presigned_get(&key, &filename, now).await?))
}
