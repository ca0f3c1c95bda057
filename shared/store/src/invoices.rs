//! `invoices` and `credit_notes`, as far as Stripe announces them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type as SchemaType};
use utoipa::{PartialSchema, ToSchema};

use super::Error;
use super::columns::{self, Column, FromRow, columns};
use super::list::{self, Order, few, sorted};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::stripe_objects::invoice::{
    CreditNote, Invoice, InvoiceKind, InvoiceStatus, Line, PartnerInvoice,
};

const TABLE: &str = "invoices";

columns! {
    /// An invoice as lists show it. Amounts in minor units of `currency`; null where the predecessor did not know one.
    #[schema(as = Invoice)]
    pub struct InvoiceSummary of "invoices" {
        pub id: i64,
        /// The user billed; null for a partner's.
        pub user_id: Option<i32>,
        /// The partner billed; null for a user's.
        pub api_key_prefix: Option<String>,
        /// As printed; the Stripe id of a draft.
        pub invoice_number: String,
        /// Null for an invoice that Stripe does not collect.
        pub stripe_invoice_id: Option<String>,
        pub kind: InvoiceKind,
        pub stripe_customer_id: Option<String>,
        pub stripe_subscription_id: Option<String>,
        /// The contract billed; null for the predecessor's.
        pub contract_id: Option<i64>,
        /// Sum of the lines, in minor units of `currency`.
        pub subtotal_cents: Option<i64>,
        pub tax_cents: Option<i64>,
        pub discount_cents: Option<i64>,
        /// Subtotal less discount plus tax.
        pub total_cents: Option<i64>,
        pub amount_paid_cents: Option<i64>,
        /// What remains to be paid, in minor units.
        pub amount_due_cents: Option<i64>,
        /// What credits have taken off, in minor units.
        pub credit_applied_cents: i64,
        pub currency: Currency,
        pub status: InvoiceStatus,
        /// The first instant of the billed period.
        pub billing_period_start: Option<Timestamp>,
        /// The first instant after the billed period.
        pub billing_period_end: Option<Timestamp>,
        pub due_date: Option<Timestamp>,
        /// When the invoice was issued; from then on its lines do not change.
        pub finalized_at: Option<Timestamp>,
        /// When it went to the customer.
        pub sent_at: Option<Timestamp>,
        pub paid_at: Option<Timestamp>,
        pub voided_at: Option<Timestamp>,
        /// How often Stripe has tried to collect the invoice.
        pub attempt_count: i32,
        /// When Stripe next tries to collect it; null when it does not.
        pub next_payment_attempt_at: Option<Timestamp>,
        /// Where the PDF can be fetched.
        pub invoice_pdf_url: Option<String>,
        /// The customer's purchase order.
        pub po_number: Option<String>,
        pub created_at: Timestamp,
        pub updated_at: Option<Timestamp>,
    }
}

columns! {
    /// Further members of an invoice that its customer may see.
    pub struct InvoiceDetails of "invoices" {
        /// By rate and jurisdiction: `[{tax_rate_bps, taxable_cents, tax_cents}]`, or Stripe's shape.
        pub tax_breakdown: Option<Value>,
        /// What was paid outside Stripe, in minor units.
        pub out_of_band_cents: i64,
        /// Credit notes that the stored amounts already take into account, in minor units.
        pub credit_notes_cents: i64,
        /// Why Stripe made the invoice, in Stripe's words (`subscription_cycle`); null for ours.
        pub billing_reason: Option<String>,
        /// `charge_automatically` or `send_invoice`; null when Stripe does not collect the invoice.
        pub collection_method: Option<String>,
        /// When the draft was deleted at Stripe; null for an invoice that exists.
        pub deleted_at: Option<Timestamp>,
        /// False while only the first lines are known.
        pub lines_complete: bool,
        /// Text printed below the lines.
        pub notes: Option<String>,
        /// SHA-256 of the stored PDF, in hex; null until it is printed.
        pub pdf_sha256: Option<String>,
    }
}

columns! {
    /// Members of an invoice that its customer does not see.
    pub struct InvoiceInternals of "invoices" {
        /// Metadata as Stripe has it; of ours, the contract as it was when the invoice was issued.
        pub metadata: Option<Value>,
        /// Object key of the PDF in the bucket; null until it is printed.
        pub pdf_key: Option<String>,
    }
}

/// A whole invoice but its lines, as it is answered; its lines beside it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct InvoiceRow {
    #[serde(flatten)]
    pub summary: InvoiceSummary,
    #[serde(flatten)]
    pub details: InvoiceDetails,
    #[serde(flatten)]
    pub internals: InvoiceInternals,
    /// The lines as stored, `{"items": […]}`; read them with [`InvoiceRow::lines`]. `None` when there never were any.
    #[serde(skip)]
    pub line_items: Option<Value>,
}

impl InvoiceRow {
    /// The lines as they are stored; none of an invoice that never had any.
    #[must_use]
    pub fn lines(&self) -> Vec<InvoiceLine> {
        let stored = self.line_items.as_ref();
        let items = stored.and_then(|stored| stored.get("items")?.as_array());
        let lines = items.into_iter().flatten().cloned();
        lines.map(InvoiceLine).collect()
    }
}

/// A line as it is stored and answered. Ours and Stripe's have `description`, `quantity`, `unit_price_cents`,
/// `unit_amount_decimal`, `total_cents`, `period_start` and `period_end` and more; the predecessor's have fewer. For a
/// printed invoice a line is read member by member.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct InvoiceLine(Value);

impl PartialSchema for InvoiceLine {
    fn schema() -> RefOr<Schema> {
        let cents = ObjectBuilder::new()
            .schema_type(SchemaType::Integer)
            .description(Some("In minor units of the invoice's currency"));
        ObjectBuilder::new()
            .description(Some(
                "A line as it is stored: `description`, `quantity`, `unit_price_cents`, `unit_amount_decimal`, \
                 `period_start`, `period_end` and more; the predecessor's have fewer",
            ))
            .property("total_cents", cents)
            .required("total_cents")
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
            .into()
    }
}

impl ToSchema for InvoiceLine {}

impl FromRow for InvoiceRow {
    fn from_row(row: &Row) -> Result<InvoiceRow, Error> {
        Ok(InvoiceRow {
            summary: InvoiceSummary::from_row(row)?,
            details: InvoiceDetails::from_row(row)?,
            internals: InvoiceInternals::from_row(row)?,
            line_items: Column::read(row, TABLE, "line_items")?,
        })
    }
}

columns! {
    /// An invoice as the partner it was sent to sees it. Amounts in minor units of `currency`.
    pub struct SentInvoice of "invoices" {
        pub id: i64,
        pub invoice_number: String,
        pub kind: InvoiceKind,
        pub subtotal_cents: Option<i64>,
        pub tax_cents: Option<i64>,
        pub discount_cents: Option<i64>,
        pub total_cents: Option<i64>,
        /// What credits have taken off, in minor units.
        pub credit_applied_cents: i64,
        pub amount_paid_cents: Option<i64>,
        /// What remains to be paid, in minor units.
        pub amount_due_cents: Option<i64>,
        pub currency: Currency,
        pub status: InvoiceStatus,
        /// The first instant of the billed period.
        pub billing_period_start: Option<Timestamp>,
        /// The first instant after the billed period.
        pub billing_period_end: Option<Timestamp>,
        pub due_date: Option<Timestamp>,
        pub finalized_at: Option<Timestamp>,
        pub paid_at: Option<Timestamp>,
        pub voided_at: Option<Timestamp>,
        /// The partner's purchase order.
        pub po_number: Option<String>,
        /// Object key of our PDF in the bucket; `None` until it is printed.
        #[serde(skip)]
        pub pdf_key: Option<String>,
        /// Address of the PDF at Stripe; `None` for our own.
        #[serde(skip)]
        pub invoice_pdf_url: Option<String>,
        pub created_at: Timestamp,
    }
}

/// `line_items` in the predecessor's shape.
#[derive(Debug, Serialize, Deserialize)]
struct LineItems<L> {
    items: L,
}

/// The Stripe invoices with these ids that are there.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn get(db: &impl GenericClient, invoice_ids: &[String]) -> Result<Vec<Invoice>, Error> {
    let rows = db
        .query_typed(
            "-- invoices::get
             SELECT stripe_invoice_id, invoice_number, stripe_customer_id, stripe_subscription_id,
                    status, currency, subtotal_cents, tax_cents, discount_cents, total_cents,
                    amount_paid_cents, amount_remaining_cents, out_of_band_cents,
                    credit_notes_cents, billing_period_start, billing_period_end, due_date,
                    paid_at, voided_at, finalized_at, deleted_at, attempt_count,
                    next_payment_attempt_at, line_items, lines_complete, tax_breakdown,
                    billing_reason, collection_method, invoice_pdf_url, notes, metadata,
                    created_at, source_created_at, source_rank, source_event_id
             FROM invoices
             WHERE stripe_invoice_id = ANY($1) AND NOT superseded AND source_event_id <> ''",
            &[(&invoice_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Inserts or replaces the row. An invoice of ours that Stripe collects keeps what we issued (number, lines, amounts,
/// period) and follows Stripe in what is paid; Stripe's draft of it changes nothing. A draft without a number takes its
/// Stripe id. Where another invoice has the same number (the predecessor gave some out twice), the Stripe id is
/// appended in parentheses.
///
/// # Errors
/// When the statement fails or a credit note's amount is out of range.
pub async fn upsert(
    db: &impl GenericClient,
    invoice: &Invoice,
    amount_due_cents: i64,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- invoices::upsert
             INSERT INTO invoices (stripe_invoice_id, invoice_number, user_id, kind,
                 stripe_customer_id, stripe_subscription_id, status, currency, subtotal_cents,
                 tax_cents, discount_cents, total_cents, amount_paid_cents, amount_due_cents,
                 amount_remaining_cents, out_of_band_cents, credit_notes_cents,
                 billing_period_start, billing_period_end, due_date, paid_at, voided_at,
                 finalized_at, deleted_at, attempt_count, next_payment_attempt_at, line_items,
                 lines_complete, tax_breakdown, billing_reason, collection_method,
                 invoice_pdf_url, notes, metadata, created_at, source_created_at, source_rank,
                 source_event_id, updated_at)
             SELECT $1,
                 CASE WHEN EXISTS (SELECT FROM invoices AS other WHERE other.invoice_number = $2 AND NOT other.superseded
                                   AND other.stripe_invoice_id IS DISTINCT FROM $1)
                      THEN $2 || ' (' || $1 || ')' ELSE $2 END,
                 (SELECT user_id FROM customers WHERE stripe_customer_id = $4), $3, $4, $5, $6, $7,
                 $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
                 $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38
             ON CONFLICT (stripe_invoice_id) WHERE NOT superseded DO UPDATE SET
                 invoice_number =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.invoice_number ELSE invoices.invoice_number END,
                 user_id = CASE WHEN invoices.contract_id IS NULL THEN excluded.user_id ELSE invoices.user_id END,
                 kind = CASE WHEN invoices.contract_id IS NULL THEN excluded.kind ELSE invoices.kind END,
                 currency = CASE WHEN invoices.contract_id IS NULL THEN excluded.currency ELSE invoices.currency END,
                 subtotal_cents =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.subtotal_cents ELSE invoices.subtotal_cents END,
                 tax_cents =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.tax_cents ELSE invoices.tax_cents END,
                 discount_cents =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.discount_cents ELSE invoices.discount_cents END,
                 total_cents =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.total_cents ELSE invoices.total_cents END,
                 billing_period_start =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.billing_period_start ELSE invoices.billing_period_start END,
                 billing_period_end =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.billing_period_end ELSE invoices.billing_period_end END,
                 due_date = CASE WHEN invoices.contract_id IS NULL THEN excluded.due_date ELSE invoices.due_date END,
                 finalized_at =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.finalized_at ELSE invoices.finalized_at END,
                 line_items =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.line_items ELSE invoices.line_items END,
                 lines_complete =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.lines_complete ELSE invoices.lines_complete END,
                 tax_breakdown =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.tax_breakdown ELSE invoices.tax_breakdown END,
                 collection_method =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.collection_method ELSE invoices.collection_method END,
                 invoice_pdf_url =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.invoice_pdf_url ELSE invoices.invoice_pdf_url END,
                 notes = CASE WHEN invoices.contract_id IS NULL THEN excluded.notes ELSE invoices.notes END,
                 metadata = CASE WHEN invoices.contract_id IS NULL THEN excluded.metadata ELSE invoices.metadata END,
                 created_at =
                     CASE WHEN invoices.contract_id IS NULL THEN excluded.created_at ELSE invoices.created_at END,
                 status = CASE WHEN invoices.contract_id IS NULL OR excluded.status <> 'draft'
                     THEN excluded.status ELSE invoices.status END,
                 amount_due_cents = CASE WHEN invoices.contract_id IS NULL OR excluded.status <> 'draft'
                     THEN excluded.amount_due_cents ELSE invoices.amount_due_cents END,
                 stripe_customer_id = excluded.stripe_customer_id,
                 stripe_subscription_id = excluded.stripe_subscription_id,
                 amount_paid_cents = excluded.amount_paid_cents,
                 amount_remaining_cents = excluded.amount_remaining_cents,
                 out_of_band_cents = excluded.out_of_band_cents,
                 credit_notes_cents = excluded.credit_notes_cents,
                 paid_at = excluded.paid_at,
                 voided_at = excluded.voided_at,
                 deleted_at = excluded.deleted_at,
                 attempt_count = excluded.attempt_count,
                 next_payment_attempt_at = excluded.next_payment_attempt_at,
                 billing_reason = excluded.billing_reason,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank,
                 source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&invoice.stripe_invoice_id, Type::TEXT),
                (&invoice.number.as_ref().unwrap_or(&invoice.stripe_invoice_id), Type::TEXT),
                (&invoice.kind().as_str(), Type::TEXT),
                (&invoice.stripe_customer_id, Type::TEXT),
                (&invoice.stripe_subscription_id, Type::TEXT),
                (&invoice.status.as_str(), Type::TEXT),
                (&invoice.currency.as_str(), Type::TEXT),
                (&invoice.subtotal_cents, Type::INT8),
                (&invoice.tax_cents, Type::INT8),
                (&invoice.discount_cents, Type::INT8),
                (&invoice.total_cents, Type::INT8),
                (&invoice.amount_paid_cents, Type::INT8),
                (&amount_due_cents, Type::INT8),
                (&invoice.amount_remaining_cents, Type::INT8),
                (&invoice.out_of_band_cents, Type::INT8),
                (&invoice.credit_notes_cents, Type::INT8),
                (&invoice.billing_period_start, Type::TIMESTAMPTZ),
                (&invoice.billing_period_end, Type::TIMESTAMPTZ),
                (&invoice.due_at, Type::TIMESTAMPTZ),
                (&invoice.paid_at, Type::TIMESTAMPTZ),
                (&invoice.voided_at, Type::TIMESTAMPTZ),
                (&invoice.finalized_at, Type::TIMESTAMPTZ),
                (&invoice.deleted_at, Type::TIMESTAMPTZ),
                (&invoice.attempt_count, Type::INT4),
                (&invoice.next_payment_attempt_at, Type::TIMESTAMPTZ),
                (&Json(LineItems { items: &invoice.lines }), Type::JSONB),
                (&invoice.lines_complete, Type::BOOL),
                (&invoice.tax_breakdown, Type::JSONB),
                (&invoice.billing_reason, Type::TEXT),
                (&invoice.collection_method, Type::TEXT),
                (&invoice.invoice_pdf_url, Type::TEXT),
                (&invoice.notes, Type::TEXT),
                (&invoice.metadata, Type::JSONB),
                (&invoice.created_at, Type::TIMESTAMPTZ),
                (&invoice.version.created_at, Type::TIMESTAMPTZ),
                (&invoice.version.rank, Type::INT4),
                (&invoice.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("invoices::upsert", 1, changed)
}

/// The credit notes with these ids, and those of these invoices.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn credit_notes(
    db: &impl GenericClient,
    credit_note_ids: &[String],
    invoice_ids: &[String],
) -> Result<Vec<CreditNote>, Error> {
    let rows = db
        .query_typed(
            "-- invoices::credit_notes
             SELECT stripe_credit_note_id, stripe_invoice_id, stripe_customer_id, amount_cents,
                    pre_payment_cents, currency, status, reason, voided_at, created_at,
                    source_created_at, source_rank, source_event_id
             FROM credit_notes
             WHERE stripe_credit_note_id = ANY($1) OR stripe_invoice_id = ANY($2)",
            &[
                (&credit_note_ids, Type::TEXT_ARRAY),
                (&invoice_ids, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(credit_note_from_row).collect()
}

/// Inserts or replaces the row.
///
/// # Errors
/// When the statement fails.
pub async fn upsert_credit_note(
    db: &impl GenericClient,
    note: &CreditNote,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- invoices::upsert_credit_note
             INSERT INTO credit_notes (stripe_credit_note_id, stripe_invoice_id,
                 stripe_customer_id, amount_cents, pre_payment_cents, currency, status, reason,
                 voided_at, created_at, source_created_at, source_rank, source_event_id,
                 updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             ON CONFLICT (stripe_credit_note_id) DO UPDATE SET
                 stripe_invoice_id = excluded.stripe_invoice_id,
                 stripe_customer_id = excluded.stripe_customer_id,
                 amount_cents = excluded.amount_cents,
                 pre_payment_cents = excluded.pre_payment_cents, currency = excluded.currency,
                 status = excluded.status, reason = excluded.reason,
                 voided_at = excluded.voided_at, created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&note.stripe_credit_note_id, Type::TEXT),
                (&note.stripe_invoice_id, Type::TEXT),
                (&note.stripe_customer_id, Type::TEXT),
                (&note.amount_cents, Type::INT8),
                (&note.pre_payment_cents, Type::INT8),
                (&note.currency.as_str(), Type::TEXT),
                (&note.status, Type::TEXT),
                (&note.reason, Type::TEXT),
                (&note.voided_at, Type::TIMESTAMPTZ),
                (&note.created_at, Type::TIMESTAMPTZ),
                (&note.version.created_at, Type::TIMESTAMPTZ),
                (&note.version.rank, Type::INT4),
                (&note.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("invoices::upsert_credit_note", 1, changed)
}

fn from_row(row: &Row) -> Result<Invoice, Error> {
    let key: String = row.try_get("stripe_invoice_id")?;
    let number: String = row.try_get("invoice_number")?;
    let lines: LineItems<Vec<Line>> = columns::json(row, TABLE, "line_items", &key)?;
    let told_apart = format!(" ({key})");
    Ok(Invoice {
        number: Some(
            number
                .strip_suffix(&told_apart)
                .unwrap_or(&number)
                .to_owned(),
        )
        .filter(|number| *number != key),
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        stripe_subscription_id: row.try_get("stripe_subscription_id")?,
        status: Column::read(row, TABLE, "status")?,
        currency: columns::currency(row, TABLE, &key)?,
        subtotal_cents: row.try_get("subtotal_cents")?,
        tax_cents: row.try_get("tax_cents")?,
        discount_cents: row.try_get("discount_cents")?,
        total_cents: row.try_get("total_cents")?,
        amount_paid_cents: row.try_get("amount_paid_cents")?,
        amount_remaining_cents: row
            .try_get::<_, Option<i64>>("amount_remaining_cents")?
            .unwrap_or_default(),
        out_of_band_cents: row.try_get("out_of_band_cents")?,
        credit_notes_cents: row.try_get("credit_notes_cents")?,
        billing_period_start: row.try_get("billing_period_start")?,
        billing_period_end: row.try_get("billing_period_end")?,
        due_at: row.try_get("due_date")?,
        paid_at: row.try_get("paid_at")?,
        voided_at: row.try_get("voided_at")?,
        finalized_at: row.try_get("finalized_at")?,
        deleted_at: row.try_get("deleted_at")?,
        attempt_count: row
            .try_get::<_, Option<i32>>("attempt_count")?
            .unwrap_or_default(),
        next_payment_attempt_at: row.try_get("next_payment_attempt_at")?,
        lines: lines.items,
        lines_complete: row.try_get("lines_complete")?,
        tax_breakdown: row
            .try_get::<_, Option<Value>>("tax_breakdown")?
            .unwrap_or_default(),
        billing_reason: row.try_get("billing_reason")?,
        collection_method: row.try_get("collection_method")?,
        invoice_pdf_url: row.try_get("invoice_pdf_url")?,
        notes: row.try_get("notes")?,
        metadata: row
            .try_get::<_, Option<Value>>("metadata")?
            .unwrap_or_default(),
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
        stripe_invoice_id: key,
    })
}

fn credit_note_from_row(row: &Row) -> Result<CreditNote, Error> {
    let key: String = row.try_get("stripe_credit_note_id")?;
    Ok(CreditNote {
        stripe_invoice_id: row.try_get("stripe_invoice_id")?,
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        amount_cents: row.try_get("amount_cents")?,
        pre_payment_cents: row.try_get("pre_payment_cents")?,
        currency: columns::currency(row, "credit_notes", &key)?,
        status: row.try_get("status")?,
        reason: row.try_get("reason")?,
        voided_at: row.try_get("voided_at")?,
        created_at: row.try_get("created_at")?,
        version: columns::version(row)?,
        stripe_credit_note_id: key,
    })
}

/// Which invoices a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<InvoiceStatus>,
    pub kind: Option<InvoiceKind>,
    pub user_id: Option<i32>,
    pub api_key_prefix: Option<&'a str>,
    pub stripe_customer_id: Option<&'a str>,
    pub invoice_number: Option<&'a str>,
    /// When the invoice was created.
    pub created: Span,
}

/// A page of invoices, without their lines. Drafts deleted at Stripe are not in it.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, InvoiceSummary>, Error> {
    list::read(
        db,
        &format!(
            "-- invoices::list
             SELECT {}, created_at AS listed_at FROM invoices
             WHERE NOT superseded AND deleted_at IS NULL",
            InvoiceSummary::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            few("invoice_number", &filter.invoice_number, Type::TEXT),
            sorted("user_id", &filter.user_id, Type::INT4),
            sorted("stripe_customer_id", &filter.stripe_customer_id, Type::TEXT),
            sorted("api_key_prefix", &filter.api_key_prefix, Type::TEXT),
            sorted("kind", &filter.kind.map(InvoiceKind::as_str), Type::TEXT),
            sorted(
                "status",
                &filter.status.map(InvoiceStatus::as_str),
                Type::TEXT,
            ),
        ],
        filter.created,
        page,
    )
    .await
}

/// A page of what a partner has been sent: its invoices without drafts, and no more of them than concerns it.
///
/// # Errors
/// When the statement fails.
pub async fn list_of_partner(
    db: &impl GenericClient,
    api_key_prefix: &str,
    status: Option<InvoiceStatus>,
    created: Span,
    page: &Page<i64>,
) -> Result<Rows<i64, SentInvoice>, Error> {
    list::read(
        db,
        &format!(
            "-- invoices::list_of_partner
             SELECT {}, created_at AS listed_at FROM invoices
             WHERE NOT superseded AND deleted_at IS NULL AND status <> 'draft'",
            SentInvoice::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            sorted("api_key_prefix", &Some(api_key_prefix), Type::TEXT),
            few("status", &status.map(InvoiceStatus::as_str), Type::TEXT),
        ],
        created,
        page,
    )
    .await
}

/// One invoice with its lines, by our id or by Stripe's; also a draft deleted at Stripe.
///
/// # Errors
/// When the statement fails.
pub async fn find(
    db: &impl GenericClient,
    id: Option<i64>,
    stripe_invoice_id: Option<&str>,
) -> Result<Option<InvoiceRow>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&id, Type::INT8), (&stripe_invoice_id, Type::TEXT)];
    let found = find_where(
        db,
        "find",
        "(id = $1 OR stripe_invoice_id = $2)",
        &parameters,
    )
    .await?;
    Ok(found.into_iter().next())
}

/// These invoices; those there are, by id.
///
/// # Errors
/// When the statement fails.
pub async fn find_all(db: &impl GenericClient, ids: &[i64]) -> Result<Vec<InvoiceRow>, Error> {
    find_where(db, "find_all", "id = ANY($1)", &[(&ids, Type::INT8_ARRAY)]).await
}

async fn find_where(
    db: &impl GenericClient,
    name: &str,
    condition: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<InvoiceRow>, Error> {
    let statement = format!(
        "-- invoices::{name}
             SELECT {}, {}, {}, line_items FROM invoices WHERE {condition} AND NOT superseded ORDER BY id",
        InvoiceSummary::COLUMNS,
        InvoiceDetails::COLUMNS,
        InvoiceInternals::COLUMNS
    );
    columns::all(db, &statement, parameters).await
}

columns! {
    /// Whom an invoice bills who has no contract.
    pub struct Payer of "customers" {
        pub name: Option<String>,
        pub email: Option<String>,
    }
}

/// The customer at Stripe when it has a name, else the user, else the customer without one.
///
/// # Errors
/// When the statement fails.
pub async fn payer(
    db: &impl GenericClient,
    stripe_customer_id: Option<&str>,
    user_id: Option<i32>,
) -> Result<Option<Payer>, Error> {
    columns::first(
        db,
        &format!(
            "-- invoices::payer
             SELECT {}
             FROM (
                 SELECT name, email, CASE WHEN name IS NULL THEN 3 ELSE 1 END AS place
                 FROM customers WHERE stripe_customer_id = $1
                 UNION ALL
                 SELECT full_name, email, 2 FROM users WHERE id = $2
             ) AS payers
             ORDER BY place LIMIT 1",
            Payer::COLUMNS
        ),
        &[(&stripe_customer_id, Type::TEXT), (&user_id, Type::INT4)],
    )
    .await
}

/// What an invoice is to somebody who wants to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locked {
    /// Ours: its state is changed here.
    Partner(PartnerInvoice),
    /// Stripe's: its state follows Stripe.
    Stripe,
    /// Neither a partner's nor Stripe's, such as one of the predecessor's.
    Other,
}

/// Locks an invoice until the end of the transaction. Taken before anything else but an idempotency key.
///
/// # Errors
/// When the statement fails or the row cannot be read.
pub async fn lock(db: &impl GenericClient, id: i64) -> Result<Option<Locked>, Error> {
    let rows = db
        .query_typed(
            "-- invoices::lock
             SELECT id, stripe_invoice_id, kind, api_key_prefix, status, currency,
                    COALESCE(total_cents, 0) AS total_cents, credit_applied_cents,
                    COALESCE(amount_paid_cents, 0) AS amount_paid_cents,
                    collection_method IS NOT DISTINCT FROM 'send_invoice' AS is_for_stripe
             FROM invoices WHERE id = $1 AND NOT superseded FOR UPDATE",
            &[(&id, Type::INT8)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    if row
        .try_get::<_, Option<&str>>("stripe_invoice_id")?
        .is_some()
    {
        return Ok(Some(Locked::Stripe));
    }
    let kind: InvoiceKind = Column::read(row, TABLE, "kind")?;
    if kind != InvoiceKind::Partner {
        return Ok(Some(Locked::Other));
    }
    Ok(Some(Locked::Partner(PartnerInvoice {
        id,
        api_key_prefix: row.try_get("api_key_prefix")?,
        status: Column::read(row, TABLE, "status")?,
        currency: Column::read(row, TABLE, "currency")?,
        total_cents: row.try_get("total_cents")?,
        credit_applied_cents: row.try_get("credit_applied_cents")?,
        amount_paid_cents: row.try_get("amount_paid_cents")?,
        is_for_stripe: row.try_get("is_for_stripe")?,
    })))
}

/// Notes a payment of a locked invoice; with `paid_at` it is paid in full.
///
/// # Errors
/// When the statement fails.
pub async fn mark_paid(
    db: &impl GenericClient,
    id: i64,
    amount_paid_cents: i64,
    amount_due_cents: i64,
    paid_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- invoices::mark_paid
             UPDATE invoices
             SET amount_paid_cents = $2, amount_due_cents = $3, paid_at = COALESCE($4, paid_at),
                 status = CASE WHEN $4 IS NULL THEN status ELSE 'paid' END, updated_at = $5
             WHERE id = $1",
            &[
                (&id, Type::INT8),
                (&amount_paid_cents, Type::INT8),
                (&amount_due_cents, Type::INT8),
                (&paid_at, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("invoices::mark_paid", 1, changed)
}

/// Voids a locked invoice: nothing of it is due, and no credit is applied to it.
///
/// # Errors
/// When the statement fails.
pub async fn void(db: &impl GenericClient, id: i64, now: Timestamp) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- invoices::void
             UPDATE invoices
             SET status = 'void', voided_at = $2, amount_due_cents = 0, credit_applied_cents = 0,
                 updated_at = $2
             WHERE id = $1",
            &[(&id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Error::check_row_count("invoices::void", 1, changed)
}

/// Records where the PDFs of invoices are stored, each as `(invoices.id, object key, SHA-256 in hex)`, and returns how
/// many were recorded: an invoice for which another PDF is recorded is left out. Sets `invoice_pdf_url` of our invoices
/// to `/admin/invoices/{id}/pdf`; an invoice of Stripe's keeps Stripe's address.
///
/// # Errors
/// When the statement fails.
pub async fn set_pdfs(
    db: &impl GenericClient,
    pdfs: &[(i64, &str, &str)],
    now: Timestamp,
) -> Result<u64, Error> {
    let ids: Vec<i64> = pdfs.iter().map(|(id, _, _)| *id).collect();
    let keys: Vec<&str> = pdfs.iter().map(|(_, key, _)| *key).collect();
    let digests: Vec<&str> = pdfs.iter().map(|(_, _, sha256)| *sha256).collect();
    let changed = db
        .execute_typed(
            "-- invoices::set_pdfs
             UPDATE invoices
             SET pdf_key = stored.key, pdf_sha256 = stored.sha256,
                 invoice_pdf_url = CASE WHEN stripe_invoice_id IS NULL THEN '/admin/invoices/' || invoices.id || '/pdf'
                                   ELSE invoice_pdf_url END,
                 updated_at = $4
             FROM unnest($1, $2, $3) AS stored (id, key, sha256)
             WHERE invoices.id = stored.id
               AND (pdf_key IS NULL OR (pdf_key = stored.key AND pdf_sha256 = stored.sha256))",
            &[
                (&ids, Type::INT8_ARRAY),
                (&keys, Type::TEXT_ARRAY),
                (&digests, Type::TEXT_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Ok(changed)
}
