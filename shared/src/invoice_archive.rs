//! InvoiceArchive: an invoice from its rows to a PDF in the bucket that is noted on the invoice.

use std::sync::OnceLock;

use aws_types::SdkConfig;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;

use documents::invoice_document::{InvoiceDocument, Unreadable};
use documents::invoice_pdf::{self, InvoiceRenderer, SetupError};
use documents::issuer::Issuer;
use domain::stripe_objects::invoice;
use runtime::aws;
use runtime::aws::document_bucket::{DocumentBucket, PutOnceError};
use runtime::config::{self, Environment};
use store::list::Object;
use store::{contracts, credits, customers, invoices};

/// Why an invoice could not be filed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ledger could not be read or written.
    #[error("the ledger failed")]
    Store(#[from] store::Error),
    /// The bucket is away: try again.
    #[error("the bucket failed")]
    Aws(#[from] aws::Error),
    /// The bucket has no object `logo_key`.
    #[error("there is no logo under the logo_key of INVOICE_ISSUER")]
    NoLogo,
    /// The logo, or the typeface in the binary.
    #[error("invoices cannot be set")]
    Setup(#[from] SetupError),
    /// A row does not say what an invoice has to.
    #[error("the invoice cannot be read")]
    Unreadable(#[from] Unreadable),
    /// The PDF could not be written.
    #[error("the invoice cannot be printed")]
    Render(#[from] invoice_pdf::Error),
}

/// The PDF of an invoice, in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    /// Under which it is stored.
    pub pdf_key: String,
    /// Digest in hex.
    pub pdf_sha256: String,
}

/// An invoice that has been read and is to be printed.
#[derive(Debug)]
pub struct Prepared {
    /// `invoices.id`.
    pub id: i64,
    kind: String,
    document: InvoiceDocument,
}

/// What prints and keeps invoices. Logo and typeface are read with the first.
#[derive(Debug)]
pub struct InvoiceArchive {
    issuer: Issuer,
    bucket: DocumentBucket,
    renderer: OnceLock<InvoiceRenderer>,
}

impl InvoiceArchive {
    /// Reads `INVOICE_ISSUER` (see [`Issuer`]) and `DOCUMENT_BUCKET`.
    ///
    /// # Errors
    /// When one is missing, or the issuer cannot be read.
    pub fn from_env(
        environment: &Environment,
        sdk: &SdkConfig,
    ) -> Result<InvoiceArchive, config::Error> {
        Ok(InvoiceArchive {
            issuer: environment.parsed("INVOICE_ISSUER")?,
            bucket: DocumentBucket::from_env(environment, sdk)?,
            renderer: OnceLock::new(),
        })
    }

    /// Prints invoices; fetches the logo the first time.
    ///
    /// # Errors
    /// When the logo is not there, or cannot be used.
    pub async fn renderer(&self) -> Result<&InvoiceRenderer, Error> {
        if let Some(renderer) = self.renderer.get() {
            return Ok(renderer);
        }
        let logo = match &self.issuer.logo_key {
            None => None,
            Some(key) => Some(self.bucket.get(key).await?.ok_or(Error::NoLogo)?),
        };
        let renderer = InvoiceRenderer::new(self.issuer.clone(), logo.as_deref())?;
        // One that was made meanwhile is as good.
        Ok(self.renderer.get_or_init(|| renderer))
    }

    /// Prints an invoice that is no draft, as `invoices::find` selects it, stores the PDF under its key and notes it on
    /// the row. One that was stored before and not noted, because a run was cut off in between, is noted as it is: it
    /// may have been sent. Two at once note the same.
    ///
    /// # Errors
    /// When the ledger or the bucket is away, or the invoice cannot be printed.
    pub async fn file(
        &self,
        db: &impl GenericClient,
        invoice: &Object,
        now: Timestamp,
    ) -> Result<Filed, Error> {
        let prepared = InvoiceArchive::prepare(db, invoice).await?;
        let id = prepared.id;
        let filed = self.store(&prepared).await?;
        let noted = (id, filed.pdf_key.as_str(), filed.pdf_sha256.as_str());
        if invoices::set_pdfs(db, &[noted], now).await? == 1 {
            return Ok(filed);
        }
        // Another PDF was noted meanwhile, and that one counts.
        let noted = invoices::find(db, Some(id), None).await?;
        let text = |column: &'static str| {
            let text = noted.as_ref()?.get(column)?.as_str()?;
            Some(text.to_owned())
        };
        Ok(Filed {
            pdf_key: text("pdf_key").ok_or(Unreadable::Column("pdf_key"))?,
            pdf_sha256: text("pdf_sha256").ok_or(Unreadable::Column("pdf_sha256"))?,
        })
    }

    /// Reads what is printed of an invoice that is no draft, as `invoices::find` selects it, and whom and what it
    /// points to.
    ///
    /// # Errors
    /// When the ledger is away, or a row does not say what an invoice has to.
    pub async fn prepare(db: &impl GenericClient, invoice: &Object) -> Result<Prepared, Error> {
        let id = invoice.get("id").and_then(Value::as_i64);
        let id = id.ok_or(Unreadable::Column("id"))?;
        let kind = invoice.get("kind").and_then(Value::as_str);
        let kind = kind.ok_or(Unreadable::Column("kind"))?.to_owned();
        let document = read(db, id, invoice).await?;
        Ok(Prepared { id, kind, document })
    }

    /// Prints and stores an invoice that has been read, without noting it.
    ///
    /// # Errors
    /// When the bucket is away, or the invoice cannot be printed.
    pub async fn store(&self, prepared: &Prepared) -> Result<Filed, Error> {
        let document = &prepared.document;
        let pdf = self.renderer().await?.render(document)?;
        let pdf_key = invoice::pdf_key(&prepared.kind, document.issued_on, &document.number);
        let pdf_sha256 = match self.bucket.put_pdf_once(&pdf_key, pdf).await {
            Ok(stored) => stored.sha256,
            Err(PutOnceError::Differs { stored_sha256, .. }) => {
                tracing::warn!(
                    invoice_id = prepared.id,
                    "the PDF stored before differs from what would be printed now, and stays"
                );
                stored_sha256
            }
            Err(PutOnceError::Aws(error)) => return Err(error.into()),
        };
        Ok(Filed {
            pdf_key,
            pdf_sha256,
        })
    }
}

fn payer(name: Option<String>, email: Option<String>) -> Object {
    Object::from_iter([
        ("name".to_owned(), Value::from(name)),
        ("email".to_owned(), Value::from(email)),
    ])
}

/// What is printed of an invoice: its row, and whom and what the row points to.
async fn read(
    db: &impl GenericClient,
    id: i64,
    invoice: &Object,
) -> Result<InvoiceDocument, Error> {
    let text = |column: &str| invoice.get(column).and_then(Value::as_str);
    // What the contract said when we issued the invoice: a later change of it does not change the document.
    let issued_with = invoice
        .get("metadata")
        .and_then(|metadata| metadata.get("contract"));
    let contract = match (
        issued_with.and_then(Value::as_object),
        invoice.get("contract_id").and_then(Value::as_i64),
        text("api_key_prefix"),
    ) {
        (Some(issued_with), _, _) => Some(issued_with.clone()),
        (None, Some(contract_id), _) => contracts::find(db, contract_id).await?,
        // The predecessor's invoices name the prefix only.
        (None, None, Some(prefix)) => contracts::find_by_prefix(db, prefix).await?,
        (None, None, None) => None,
    };
    let customer = match text("stripe_customer_id") {
        Some(stripe_customer_id) => customers::find(db, stripe_customer_id).await?,
        None => None,
    };
    let user_id = invoice.get("user_id").and_then(Value::as_i64);
    let user_id = user_id.and_then(|user_id| i32::try_from(user_id).ok());
    let user = match (&customer, user_id) {
        (Some(found), _) if found.customer.name.is_some() => None,
        (_, Some(user_id)) => customers::find_user(db, user_id).await?,
        (_, None) => None,
    };
    let customer = match (user, customer) {
        (Some(user), _) => Some(payer(user.full_name, user.email)),
        (None, found) => found.map(|found| payer(found.customer.name, found.customer.email)),
    };
    let takes_credits = invoice.get("credit_applied_cents").and_then(Value::as_i64) != Some(0);
    let credits = if takes_credits {
        credits::applied_to(db, id).await?
    } else {
        Vec::new()
    };
    Ok(InvoiceDocument::from_rows(
        invoice,
        contract.as_ref(),
        customer.as_ref(),
        &credits,
    )?)
}
