//! invoice-pdf: the PDF of an invoice, printed when nobody has printed it yet. Apart from admin-revenue because printing
//! is a quarter of what it would have to load.

use std::sync::Arc;

use aws_types::SdkConfig;
use axum::extract::State;
use domain::stripe_objects::invoice::InvoiceStatus;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response};
use runtime::api::Error;
use runtime::api::access::{Access, Authenticator, Caller};
use runtime::api::authentication::JwtVerifier;
use runtime::api::extract::{Found, Now, Path};
use runtime::api::router::{Api, Routes};
use runtime::api::values::InvoiceId;
use runtime::aws;
use runtime::aws::document_bucket::DocumentBucket;
use runtime::config::{self, DatabaseConfig, Environment};
use runtime::routes;
use serde::Deserialize;
use shared::invoice_archive::{self, InvoiceArchive};
use store::{Database, invoices};
use utoipa::IntoParams;

/// The function: its route over what its policy lets it reach.
#[derive(Debug)]
pub struct App {
    clients: Arc<Clients>,
    api: Api,
}

/// Every route of this function, who may call it, and what the OpenAPI document says of it.
#[must_use]
pub fn routes() -> Routes<impl Clone + Send + Sync + 'static + use<>> {
    table()
}

fn table() -> Routes<Arc<Clients>> {
    Routes::new().add(Access::ViewerOrPartner, routes!(get))
}

/// What this function's policy lets it reach. A missing bucket or issuer is reported by the request that needs it: an
/// invoice of Stripe's needs neither.
#[derive(Debug)]
struct Clients {
    database: Database,
    document_bucket: Result<DocumentBucket, config::Error>,
    filing: Result<InvoiceArchive, config::Error>,
}

impl App {
    /// Reads `DATABASE_URL` (or `DATABASE_SECRET_ARN`), the variables of [`JwtVerifier`], `DOCUMENT_BUCKET` and
    /// `INVOICE_ISSUER`; connects to nothing yet.
    ///
    /// # Errors
    /// When a variable is not valid, or none names the database.
    pub fn from_env(environment: &Environment, sdk: &SdkConfig) -> Result<App, config::Error> {
        let database = DatabaseConfig::from_env(environment, sdk)?;
        let clients = Arc::new(Clients {
            database: Database::connect_lazily(&database),
            document_bucket: DocumentBucket::from_env(environment, sdk),
            // Somebody waits for the PDF.
            filing: InvoiceArchive::from_env(environment, &aws::impatient(sdk)),
        });
        let authenticator = Authenticator::of_people(JwtVerifier::from_env(environment, sdk));
        Ok(App {
            api: table().serve(Arc::clone(&clients), authenticator),
            clients,
        })
    }

    /// Opens the database connection ahead of the first request.
    pub async fn warm(&self) {
        self.clients.database.warm().await;
    }
}

/// Answers one request. Never an `Err`: the gateway would make it a bare 500.
pub async fn handle(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    app.api.answer(request, now).await
}

/// The invoice of a path.
#[derive(Debug, Deserialize, IntoParams)]
struct InvoicePath {
    /// Our number of the invoice, or Stripe's id.
    #[param(inline)]
    id: InvoiceId,
}

runtime::refusals! {
    /// Why there is no PDF.
    enum PdfError {
        /// It is printed once it is final.
        Draft = 409 "invoice_draft" "a draft has no PDF: it is printed once it is final",
        /// Stripe has not told all of it yet.
        Incomplete = 409 "invoice_incomplete" "not all lines of this invoice are known yet",
    }
}

/// Redirects to the PDF of an invoice: ours in the bucket, otherwise Stripe's. A PDF that neither has is printed first.
#[utoipa::path(get, path = "/admin/invoices/{id}/pdf")]
async fn get(
    State(app): State<Arc<Clients>>,
    Path(InvoicePath { id }): Path<InvoicePath>,
    caller: Caller,
    Now(now): Now,
) -> Result<Found, PdfError> {
    let client = app.database.client().await?;
    let (number, stripe_id) = id.parts();
    let invoice = invoices::find(&**client, number, stripe_id).await?;
    let invoice = invoice
        // Another partner's is as good as none.
        .filter(|invoice| caller.may_read(invoice.summary.api_key_prefix.as_deref()))
        .ok_or(Error::NotFound)?;
    let row = &invoice.summary;
    let key = match (
        &invoice.internals.pdf_key,
        &row.stripe_invoice_id,
        &row.invoice_pdf_url,
    ) {
        (Some(key), _, _) => key.to_owned(),
        (None, Some(_), Some(link)) => return Ok(Found(link.to_owned())),
        (None, _, _) => {
            if row.status == InvoiceStatus::Draft || invoice.details.deleted_at.is_some() {
                return Err(PdfError::Draft);
            }
            if !invoice.details.lines_complete {
                return Err(PdfError::Incomplete);
            }
            let filing = app.filing.as_ref();
            let filing = filing.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
            let filed = filing.file(&**client, &invoice, now).await;
            filed.map_err(explain)?.pdf_key
        }
    };
    let bucket = app.document_bucket.as_ref();
    let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let filename = format!("{}.pdf", row.invoice_number);
    let link = bucket.presigned_get(&key, &filename, now).await?;
    Ok(Found(link))
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
