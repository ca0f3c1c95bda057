//! invoice-pdf: the PDF of an invoice, printed when nobody has printed it yet. Apart from admin-revenue because printing
//! is a quarter of what it would have to load.

use aws_types::SdkConfig;
use domain::stripe_objects::invoice::InvoiceStatus;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::authentication::JwtVerifier;
use runtime::api::{self, Error, Query};
use runtime::aws;
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::{self, DatabaseConfig, Environment};
use shared::invoice_archive::{self, InvoiceArchive};
use store::{Database, invoices};

/// Every route of this function: `template.yaml` has the same.
pub const ROUTES: &[(&str, &str)] = &[("GET", "/admin/invoices/{id}/pdf")];

/// What this function's policy lets it reach. A missing bucket or issuer is reported by the request that needs it: an
/// invoice of Stripe's needs neither.
#[derive(Debug)]
pub struct App {
    database: Database,
    jwt: JwtVerifier,
    document_bucket: Result<DocumentBucket, config::Error>,
    archive: Result<InvoiceArchive, config::Error>,
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), the variables of [`JwtVerifier`], `DOCUMENT_BUCKET` and
    /// `INVOICE_ISSUER`; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is not valid, or none names the database.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        Ok(App {
            database: Database::connect_lazily(&database),
            jwt: JwtVerifier::from_env(environment, sdk),
            document_bucket: DocumentBucket::from_env(environment, sdk),
            // Somebody waits for the PDF.
            archive: InvoiceArchive::from_env(environment, &aws::impatient(sdk)),
        })
    }

    /// Opens the database connection ahead of the first request.
    pub async fn warm(&self) {
        self.database.warm().await;
    }
}

/// Answers one request. Never an `Err`: the gateway would make it a bare 500.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    api::respond(&request, async {
        api::body(&request, api::BODY_LIMIT_BYTES)?;
        let route = api::route(ROUTES, &request)?;
        get(
            app,
            &request,
            route.parameter("id").unwrap_or_default(),
            now,
        )
        .await
    })
    .await
}

/// The PDF: our own from the bucket, else Stripe's. One that neither has is printed and stored now; a draft has none.
async fn get(
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
    let (number, stripe_id) = api::parse_invoice_id(id)?;
    let invoice = invoices::find(&**client, number, stripe_id).await?;
    let invoice = invoice
        // Another partner's is as good as none.
        .filter(|invoice| access.allows(invoice.summary.api_key_prefix.as_deref()))
        .ok_or(Error::NotFound)?;
    let row = &invoice.summary;
    let key = match (
        &invoice.internals.pdf_key,
        &row.stripe_invoice_id,
        &row.invoice_pdf_url,
    ) {
        (Some(key), _, _) => key.to_owned(),
        (None, Some(_), Some(link)) => return api::redirect(StatusCode::FOUND, link),
        (None, _, _) => {
            if row.status == InvoiceStatus::Draft || invoice.details.deleted_at.is_some() {
                return Err(Error::Conflict {
                    code: "invoice_draft",
                    detail: "a draft has no PDF: it is printed once it is final".to_owned(),
                });
            }
            if !invoice.details.lines_complete {
                return Err(Error::Conflict {
                    code: "invoice_incomplete",
                    detail: "not all lines of this invoice are known yet".to_owned(),
                });
            }
            let archive = app.archive.as_ref();
            let archive = archive.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
            let filed = archive.file(&**client, &invoice, now).await;
            filed.map_err(explain)?.pdf_key
        }
    };
    let bucket = app.document_bucket.as_ref();
    let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let filename = format!("{}.pdf", row.invoice_number);
    let link = bucket.presigned_get(&key, &filename, now).await?;
    api::redirect(StatusCode::FOUND, &link)
}

fn explain(error: invoice_archive::Error) -> Error {
    match error {
        invoice_archive::Error::Store(error) => error.into(),
        invoice_archive::Error::Aws(error) => error.into(),
        invoice_archive::Error::NoLogo | invoice_archive::Error::Setup(_) => {
            Error::NotConfigured(Box::new(error))
        }
        invoice_archive::Error::Unreadable(_) | invoice_archive::Error::Render(_) => {
            Error::Internal(Box::new(error))
        }
    }
}
