//! `invoices` and `credit_notes`, as far as Stripe announces them.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, Type as SchemaType};
use utoipa::{PartialSchema, ToSchema};

use super::Error;
use super::balance;
use super::columns::{self, Column, FromRow, columns};
use super::list::{self, Order, few, sorted};
use super::mirror::{self, Cells, mirrored};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::stripe_objects::invoice::OutsideStripe;
use domain::stripe_objects::invoice::{
    CreditNote, Invoice, InvoiceKind, InvoiceStatus, PartnerInvoice, tax_rate_id, tax_rate_ids,
};
use domain::stripe_objects::snapshot::Version;

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
        /// Subtotal less discounts and pretax credits, plus shipping and exclusive tax; inclusive tax is in the subtotal.
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
        /// Tax by tax: `[{name, jurisdiction, percentage, registration, taxable_cents, tax_cents}]`, before those had names
        /// `[{tax_rate_bps, taxable_cents, tax_cents}]`, or Stripe's shape with the rate in `tax_rate`, as far as it is
        /// known.
        pub tax_breakdown: Option<Value>,
        /// The part of the tax that the subtotal contains, in minor units.
        pub inclusive_tax_cents: i64,
        /// What billing credits at Stripe took off before tax, in minor units.
        pub pretax_credits_cents: i64,
        /// In minor units.
        pub shipping_cents: i64,
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
                "A line as it is stored: `description`, `quantity` (whole units), `quantity_decimal` \
                 (exact, as text), `unit_price_cents`, `unit_amount_decimal`, \
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

// An invoice of ours that Stripe collects keeps what we issued, and follows Stripe in what is paid; Stripe's draft of it
// changes nothing.
mirrored!(Invoice => "invoices" by "(stripe_invoice_id) WHERE NOT superseded" {
    stripe_invoice_id,
    number = "invoice_number",
    stripe_customer_id,
    stripe_subscription_id,
    status,
    currency,
    subtotal_cents,
    tax_cents,
    inclusive_tax_cents,
    discount_cents,
    pretax_credits_cents,
    shipping_cents,
    total_cents,
    due_before_credit_notes_cents,
    amount_paid_cents,
    amount_remaining_cents or default,
    names_payment,
    credit_notes_cents,
    billing_period_start,
    billing_period_end,
    due_at = "due_date",
    paid_at,
    voided_at,
    uncollectible_at,
    finalized_at,
    deleted_at,
    attempt_count or default,
    next_payment_attempt_at,
    lines = "line_items",
    lines_complete,
    tax_breakdown or default,
    billing_reason,
    collection_method,
    invoice_pdf_url,
    notes,
    metadata or default,
    created_at,
    ..stated: Option<OutsideStripe>,
    ..version: Version,
}
const ADDED: &'static [&'static str] = &["kind", "amount_due_cents", "out_of_band_cents"];
const LOOKED_UP: &'static [(&'static str, &'static str)] = &[
    mirror::USER,
    ("line_items", "jsonb_build_object('items', new.line_items)"),
    // The predecessor gave some numbers out twice.
    (
        "invoice_number",
        "CASE WHEN EXISTS (SELECT FROM invoices AS other
                           WHERE other.invoice_number = new.invoice_number AND NOT other.superseded
                             AND other.stripe_invoice_id IS DISTINCT FROM new.stripe_invoice_id)
         THEN new.invoice_number || ' (' || new.stripe_invoice_id || ')' ELSE new.invoice_number END",
    ),
];
const READ_AS: &'static [(&'static str, &'static str)] = &[
    // `{"items": […]}`, the predecessor's shape.
    ("line_items", "line_items -> 'items'"),
    // Rows of before V0048 have what was stated last in another column.
    (
        "outside_stripe_stated_at",
        "CASE WHEN names_payment IS NULL AND out_of_band_cents > 0 THEN source_created_at
              ELSE outside_stripe_stated_at END",
    ),
    (
        "outside_stripe_stated_cents",
        "CASE WHEN names_payment IS NULL AND out_of_band_cents > 0 THEN out_of_band_cents
              ELSE outside_stripe_stated_cents END",
    ),
];
const REPLACED_IF: &'static [(&'static str, &'static [&'static str])] = &[
    ("old.contract_id IS NULL", &[
        "invoice_number", "user_id", "kind", "currency", "subtotal_cents", "tax_cents", "inclusive_tax_cents",
        "discount_cents", "pretax_credits_cents", "shipping_cents", "due_before_credit_notes_cents", "total_cents", "billing_period_start", "billing_period_end", "due_date", "finalized_at", "line_items",
        "lines_complete", "tax_breakdown", "collection_method", "invoice_pdf_url", "notes", "metadata", "created_at",
    ]),
    ("old.contract_id IS NULL OR excluded.status <> 'draft'", &["status", "amount_due_cents"]),
];

fn add(&self, row: &mut Cells) -> Result<(), Error> {
    row.insert("kind".to_owned(), self.kind().as_str().into());
    // A draft without a number takes its Stripe id.
    let number = self.number.as_ref().unwrap_or(&self.stripe_invoice_id);
    row.insert("invoice_number".to_owned(), number.as_str().into());
    Ok(())
}
);

/// The invoice with the number that Stripe announced: a number that somebody else had is stored with the id, and that of a
/// draft is the id.
pub(crate) fn as_announced(invoice: &mut Invoice) {
    let id = &invoice.stripe_invoice_id;
    let stored = invoice.number.take().unwrap_or_default();
    let number = stored.strip_suffix(&format!(" ({id})")).unwrap_or(&stored);
    invoice.number = Some(number.to_owned()).filter(|number| number != id);
}

mirrored!(CreditNote => "credit_notes" by "(stripe_credit_note_id)" {
    stripe_credit_note_id,
    stripe_invoice_id,
    stripe_customer_id,
    amount_cents,
    pre_payment_cents,
    tax_cents,
    tax_breakdown or default,
    out_of_band_cents,
    refunds or default,
    currency,
    status,
    reason,
    voided_at,
    created_at,
    ..version: Version,
});

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
    let mut found: Option<InvoiceRow> = columns::first(
        db,
        &format!(
            "-- invoices::find
             SELECT {}, {}, {}, line_items FROM invoices
             WHERE (id = $1 OR stripe_invoice_id = $2) AND NOT superseded ORDER BY id",
            InvoiceSummary::COLUMNS,
            InvoiceDetails::COLUMNS,
            InvoiceInternals::COLUMNS
        ),
        &[(&id, Type::INT8), (&stripe_invoice_id, Type::TEXT)],
    )
    .await?;
    say_tax_rates(db, found.as_mut_slice()).await?;
    Ok(found)
}

/// Gives the taxes that only name their rate what is known of it: `tax_rate` becomes the rate, as when Stripe is asked to
/// expand it.
async fn say_tax_rates(db: &impl GenericClient, invoices: &mut [InvoiceRow]) -> Result<(), Error> {
    let breakdowns = invoices.iter();
    let breakdowns = breakdowns.filter_map(|row| row.details.tax_breakdown.as_ref());
    let named: Vec<String> = breakdowns.flat_map(tax_rate_ids).collect();
    if named.is_empty() {
        return Ok(());
    }
    let rates = balance::tax_rates(db, &named).await?;
    for invoice in invoices {
        let breakdown = invoice.details.tax_breakdown.as_mut();
        let taxes = breakdown.and_then(Value::as_array_mut);
        for tax in taxes.into_iter().flatten() {
            if let Some(rate) = tax_rate_id(tax).and_then(|id| rates.get(id)) {
                tax["tax_rate"] = rate.clone();
            }
        }
    }
    Ok(())
}

/// These invoices; those there are, by id.
///
/// # Errors
/// When the statement fails.
pub async fn find_all(db: &impl GenericClient, ids: &[i64]) -> Result<Vec<InvoiceRow>, Error> {
    let mut found: Vec<InvoiceRow> = columns::all(
        db,
        &format!(
            "-- invoices::find_all
             SELECT {}, {}, {}, line_items FROM invoices WHERE id = ANY($1) AND NOT superseded ORDER BY id",
            InvoiceSummary::COLUMNS,
            InvoiceDetails::COLUMNS,
            InvoiceInternals::COLUMNS
        ),
        &[(&ids, Type::INT8_ARRAY)],
    )
    .await?;
    say_tax_rates(db, &mut found).await?;
    Ok(found)
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
             SELECT stripe_invoice_id, kind, api_key_prefix, status, currency,
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
