//! InvoiceArchive: an invoice from its rows to a PDF in the bucket that is noted on the invoice.

use std::sync::OnceLock;

use aws_types::SdkConfig;
use jiff::Timestamp;
use serde::Deserialize;
use tokio_postgres::GenericClient;

use documents::invoice_document::{InvoiceDocument, InvoiceRecord, Payer, TakenCredit, Unreadable};
use documents::invoice_pdf::{self, InvoiceRenderer, SetupError};
use documents::issuer::Issuer;
use domain::partner::contract::BillingDetails;
use domain::partner::credit::CreditReason;
use domain::stripe_objects::invoice::{self, InvoiceKind};
use runtime::aws;
use runtime::aws::document_bucket::{DocumentBucket, PutOnceError};
use runtime::config::{self, Environment};
use store::invoices::{self, InvoiceRow, InvoiceSummary};
use store::{contracts, credits};

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
    /// The object key of the PDF in `DOCUMENT_BUCKET`.
    pub pdf_key: String,
    /// SHA-256 of the PDF, in hex.
    pub pdf_sha256: String,
}

/// An invoice that has been read and is to be printed.
#[derive(Debug)]
pub struct Prepared {
    /// Our number of the invoice, the column `invoices.id`.
    pub id: i64,
    kind: InvoiceKind,
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
        invoice: &InvoiceRow,
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
        let noted = noted.ok_or(Unreadable::Column("id"))?;
        Ok(Filed {
            pdf_key: (noted.internals.pdf_key).ok_or(Unreadable::Column("pdf_key"))?,
            pdf_sha256: (noted.details.pdf_sha256).ok_or(Unreadable::Column("pdf_sha256"))?,
        })
    }

    /// Reads what is printed of an invoice that is no draft, as `invoices::find` selects it, and whom and what it
    /// points to.
    ///
    /// # Errors
    /// When the ledger is away, or a row does not say what an invoice has to.
    pub async fn prepare(db: &impl GenericClient, invoice: &InvoiceRow) -> Result<Prepared, Error> {
        Ok(Prepared {
            id: invoice.summary.id,
            kind: invoice.summary.kind,
            document: read(db, invoice).await?,
        })
    }

    /// Prints and stores an invoice that has been read, without noting it.
    ///
    /// # Errors
    /// When the bucket is away, or the invoice cannot be printed.
    pub async fn store(&self, prepared: &Prepared) -> Result<Filed, Error> {
        let document = &prepared.document;
        let pdf = self.renderer().await?.render(document)?;
        let pdf_key = invoice::pdf_key(prepared.kind, document.issued_on, &document.number);
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

/// What is printed of an invoice: its row, and whom and what the row points to.
async fn read(db: &impl GenericClient, invoice: &InvoiceRow) -> Result<InvoiceDocument, Error> {
    let row = &invoice.summary;
    let contract = match (
        issued_with(invoice)?,
        row.contract_id,
        row.api_key_prefix.as_deref(),
    ) {
        (Some(issued_with), _, _) => Some(issued_with),
        (None, None, None) => None,
        // The predecessor's invoices name the prefix only.
        (None, contract_id, prefix) => contracts::billing_details(db, contract_id, prefix).await?,
    };
    let payer = match (row.stripe_customer_id.as_deref(), row.user_id) {
        (None, None) => None,
        (customer, user_id) => invoices::payer(db, customer, user_id).await?,
    };
    let payer = payer.map(|payer| Payer {
        name: payer.name,
        email: payer.email,
    });
    let credits = match row.credit_applied_cents {
        0 => Vec::new(),
        _ => credits::applied_to(db, row.id).await?,
    };
    let credits: Vec<TakenCredit<'_>> = credits
        .iter()
        .map(|credit| TakenCredit {
            label: (credit.description.as_deref())
                .filter(|description| !description.trim().is_empty())
                .or(credit.reason.map(CreditReason::as_str)),
            amount_cents: credit.amount_cents,
        })
        .collect();
    let record = record(invoice, row);
    let document = InvoiceDocument::new(&record, contract.as_ref(), payer.as_ref(), &credits)?;
    Ok(document)
}

/// What the contract said when we issued the invoice: a later change of it does not change the document.
fn issued_with(invoice: &InvoiceRow) -> Result<Option<BillingDetails>, Unreadable> {
    let metadata = invoice.internals.metadata.as_ref();
    let contract = metadata.and_then(|metadata| metadata.get("contract"));
    // What people wrote into the metadata at Stripe is none.
    let contract = contract.filter(|contract| contract.is_object());
    contract
        .map(BillingDetails::deserialize)
        .transpose()
        .map_err(|_other_shape| Unreadable::Column("metadata"))
}

fn record<'a>(invoice: &'a InvoiceRow, row: &'a InvoiceSummary) -> InvoiceRecord<'a> {
    InvoiceRecord {
        number: &row.invoice_number,
        status: row.status,
        currency: row.currency,
        created_at: row.created_at,
        finalized_at: row.finalized_at,
        billing_period_start: row.billing_period_start,
        billing_period_end: row.billing_period_end,
        due_at: row.due_date,
        po_number: row.po_number.as_deref(),
        line_items: invoice.line_items.as_ref(),
        subtotal_cents: row.subtotal_cents,
        discount_cents: row.discount_cents,
        tax_cents: row.tax_cents,
        tax_breakdown: invoice.details.tax_breakdown.as_ref(),
        total_cents: row.total_cents,
        credit_applied_cents: row.credit_applied_cents,
        amount_paid_cents: row.amount_paid_cents,
        amount_due_cents: row.amount_due_cents,
        notes: invoice.details.notes.as_deref(),
    }
}
