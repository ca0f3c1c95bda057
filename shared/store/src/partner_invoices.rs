//! `invoices` that we issue to partners: their numbers, and what is left to do with them.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::{Error, columns};
use domain::money::Currency;
use domain::period::Period;
use domain::stripe_objects::invoice::InvoiceStatus;

/// An invoice about to be issued.
#[derive(Debug, Clone)]
pub struct NewInvoice<'a> {
    pub contract_id: i64,
    pub api_key_prefix: &'a str,
    pub invoice_number: &'a str,
    pub status: InvoiceStatus,
    pub currency: Currency,
    pub subtotal_cents: i64,
    pub tax_cents: i64,
    pub total_cents: i64,
    pub credit_applied_cents: i64,
    pub amount_due_cents: i64,
    /// The period it bills; `None` of one that only corrects others.
    pub period: Option<Period>,
    pub due_at: Timestamp,
    /// The lines to store, as `{"items": […]}`.
    pub line_items: &'a Value,
    /// Tax by tax, as a list of [`domain::partner::tax::TaxGroup`].
    pub tax_breakdown: &'a Value,
    pub po_number: Option<&'a str>,
    /// `send_invoice` when Stripe collects it; `None` when the partner transfers.
    pub collection_method: Option<&'a str>,
    pub metadata: &'a Value,
}

/// An invoice to be collected through Stripe.
#[derive(Debug, Clone, PartialEq)]
pub struct Uncollected {
    pub id: i64,
    pub contract_id: i64,
    pub invoice_number: String,
    /// Once it is tied to one at Stripe.
    pub stripe_invoice_id: Option<String>,
    pub currency: Currency,
    pub amount_due_cents: i64,
    pub credit_applied_cents: i64,
    pub tax_cents: i64,
    /// `None` of one that only corrects others.
    pub period_start: Option<Timestamp>,
    pub finalized_at: Timestamp,
    pub due_at: Option<Timestamp>,
    /// The lines as issued, `{"items": […]}`.
    pub line_items: Value,
    /// The customer at Stripe, of the contract.
    pub stripe_customer_id: Option<String>,
    pub company: Option<String>,
    pub billing_email: Option<String>,
}

/// The periods of these contracts' invoices that are not void, with whose they are.
///
/// # Errors
/// When the statement fails.
pub async fn periods(
    db: &impl GenericClient,
    contract_ids: &[i64],
) -> Result<Vec<(i64, Period)>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::periods
             SELECT contract_id, billing_period_start, billing_period_end
             FROM invoices
             WHERE contract_id = ANY($1) AND status <> 'void' AND NOT superseded
               AND billing_period_start < billing_period_end
             ORDER BY contract_id, billing_period_start, billing_period_end",
            &[(&contract_ids, Type::INT8_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let period = columns::period(row, "billing_period_start", "billing_period_end")?;
            Ok((row.try_get("contract_id")?, period))
        })
        .collect()
}

/// The totals of the last six invoices of a contract in each currency, newest first.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn last_totals(
    db: &impl GenericClient,
    contract_id: i64,
) -> Result<Vec<(Currency, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::last_totals
             SELECT id, currency, total_cents
             FROM (
                 SELECT id, currency, COALESCE(total_cents, 0) AS total_cents,
                        row_number() OVER (PARTITION BY currency
                                           ORDER BY billing_period_start DESC NULLS LAST, id DESC) AS place
                 FROM invoices
                 WHERE contract_id = $1 AND status <> 'void' AND NOT superseded
                   AND finalized_at IS NOT NULL
             ) AS ranked
             WHERE place <= 6
             ORDER BY currency, place",
            &[(&contract_id, Type::INT8)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get("id")?;
            let currency = columns::currency(row, "invoices", &id.to_string())?;
            Ok((currency, row.try_get("total_cents")?))
        })
        .collect()
}

/// The next number of a series: the series itself, then with `-2`, `-3` behind it. The counter is locked until the end of
/// the transaction, so that a number is neither given twice nor left out. `None` when another series (or the predecessor)
/// has given this number already: ask again.
///
/// # Errors
/// When the statement fails.
pub async fn take_number(db: &impl GenericClient, series: &str) -> Result<Option<String>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::take_number
             WITH taken AS (
                 INSERT INTO invoice_number_counters AS counters (series, next_value) VALUES ($1, 2)
                 ON CONFLICT (series) DO UPDATE SET next_value = counters.next_value + 1
                 RETURNING series, next_value - 1 AS value
             ), named AS (
                 SELECT series || CASE WHEN value = 1 THEN '' ELSE '-' || value END AS number FROM taken
             )
             SELECT number FROM named
             WHERE NOT EXISTS (SELECT FROM invoices WHERE invoice_number = number AND NOT superseded)",
            &[(&series, Type::TEXT)],
        )
        .await?;
    rows.first()
        .map(|row| Ok(row.try_get("number")?))
        .transpose()
}

/// Issues an invoice and returns its id. A second one of the same period of a contract is refused by
/// `invoices_contract_period_live_key`.
///
/// # Errors
/// When the statement fails.
pub async fn insert(
    db: &impl GenericClient,
    invoice: &NewInvoice<'_>,
    now: Timestamp,
) -> Result<i64, Error> {
    let (start, end) = invoice.period.map_or((None, None), |period| {
        (Some(period.start), Some(period.end))
    });
    let rows = db
        .query_typed(
            "-- partner_invoices::insert
             INSERT INTO invoices (contract_id, api_key_prefix, invoice_number, kind, status, currency,
                 subtotal_cents, tax_cents, discount_cents, total_cents, credit_applied_cents,
                 amount_paid_cents, amount_due_cents, billing_period_start, billing_period_end, due_date,
                 line_items, tax_breakdown, po_number, collection_method, metadata, finalized_at, paid_at,
                 created_at, updated_at)
             VALUES ($1, $2, $3, 'partner', $4, $5, $6, $7, 0, $8, $9, 0, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                 $19, CASE WHEN $4 = 'paid' THEN $19 END, $19, $19)
             RETURNING id",
            &[
                (&invoice.contract_id, Type::INT8),
                (&invoice.api_key_prefix, Type::TEXT),
                (&invoice.invoice_number, Type::TEXT),
                (&invoice.status.as_str(), Type::TEXT),
                (&invoice.currency.as_str(), Type::TEXT),
                (&invoice.subtotal_cents, Type::INT8),
                (&invoice.tax_cents, Type::INT8),
                (&invoice.total_cents, Type::INT8),
                (&invoice.credit_applied_cents, Type::INT8),
                (&invoice.amount_due_cents, Type::INT8),
                (&start, Type::TIMESTAMPTZ),
                (&end, Type::TIMESTAMPTZ),
                (&invoice.due_at, Type::TIMESTAMPTZ),
                (&Json(invoice.line_items), Type::JSONB),
                (&Json(invoice.tax_breakdown), Type::JSONB),
                (&invoice.po_number, Type::TEXT),
                (&invoice.collection_method, Type::TEXT),
                (&Json(invoice.metadata), Type::JSONB),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(row.try_get("id")?),
        None => Err(Error::RowCount {
            statement: "partner_invoices::insert",
            expected: 1,
            changed: 0,
        }),
    }
}

/// Invoices behind `after`, by id, that have no PDF yet; of one contract when it is given.
///
/// # Errors
/// When the statement fails.
pub async fn without_pdf(
    db: &impl GenericClient,
    after: i64,
    contract_id: Option<i64>,
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::without_pdf
             SELECT id, contract_id FROM invoices
             WHERE contract_id IS NOT NULL AND pdf_key IS NULL AND status <> 'void' AND NOT superseded
               AND finalized_at IS NOT NULL AND id > $1
               AND (CAST($2 AS bigint) IS NULL OR contract_id = $2)
             ORDER BY id LIMIT $3",
            &[
                (&after, Type::INT8),
                (&contract_id, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, row.try_get("contract_id")?)))
        .collect()
}

/// Invoices behind `after`, by id, that Stripe is to collect and has not sent yet; of one contract when it is given.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn uncollected(
    db: &impl GenericClient,
    after: i64,
    contract_id: Option<i64>,
    limit: i64,
) -> Result<Vec<Uncollected>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::uncollected
             SELECT invoices.id, invoices.contract_id, invoices.invoice_number, invoices.stripe_invoice_id,
                    invoices.currency,
                    COALESCE(invoices.amount_due_cents, 0) AS amount_due_cents, invoices.credit_applied_cents,
                    COALESCE(invoices.tax_cents, 0) AS tax_cents, invoices.billing_period_start,
                    invoices.finalized_at, invoices.due_date, invoices.line_items, contracts.stripe_customer_id,
                    contracts.company, contracts.billing_email
             FROM invoices JOIN api_partner_contracts AS contracts ON contracts.id = invoices.contract_id
             WHERE invoices.contract_id IS NOT NULL AND invoices.sent_at IS NULL
               AND invoices.collection_method = 'send_invoice' AND invoices.status = 'open'
               AND NOT invoices.superseded AND invoices.amount_due_cents > 0
               AND invoices.finalized_at IS NOT NULL AND invoices.id > $1
               AND (CAST($2 AS bigint) IS NULL OR invoices.contract_id = $2)
             ORDER BY invoices.id LIMIT $3",
            &[
                (&after, Type::INT8),
                (&contract_id, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get("id")?;
            Ok(Uncollected {
                id,
                contract_id: row.try_get("contract_id")?,
                invoice_number: row.try_get("invoice_number")?,
                stripe_invoice_id: row.try_get("stripe_invoice_id")?,
                currency: columns::currency(row, "invoices", &id.to_string())?,
                amount_due_cents: row.try_get("amount_due_cents")?,
                credit_applied_cents: row.try_get("credit_applied_cents")?,
                tax_cents: row.try_get("tax_cents")?,
                period_start: row.try_get("billing_period_start")?,
                finalized_at: row.try_get("finalized_at")?,
                due_at: row.try_get("due_date")?,
                line_items: row.try_get("line_items")?,
                stripe_customer_id: row.try_get("stripe_customer_id")?,
                company: row.try_get("company")?,
                billing_email: row.try_get("billing_email")?,
            })
        })
        .collect()
}

/// Whether an invoice of ours is tied to this one at Stripe.
///
/// # Errors
/// When the statement fails.
pub async fn is_linked(
    db: &impl GenericClient,
    id: i64,
    stripe_invoice_id: &str,
) -> Result<bool, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::is_linked
             SELECT FROM invoices WHERE id = $1 AND stripe_invoice_id = $2",
            &[(&id, Type::INT8), (&stripe_invoice_id, Type::TEXT)],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Notes that Stripe has sent an invoice to its customer.
///
/// # Errors
/// When the statement fails.
pub async fn mark_sent(db: &impl GenericClient, id: i64, now: Timestamp) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- partner_invoices::mark_sent
             UPDATE invoices SET sent_at = COALESCE(sent_at, $2), updated_at = $2 WHERE id = $1",
            &[(&id, Type::INT8), (&now, Type::TIMESTAMPTZ)],
        )
        .await?;
    Error::check_row_count("partner_invoices::mark_sent", 1, changed)
}
