//! `invoices` that we issue to partners: their numbers, and what is left to do with them.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::{Error, columns};
use domain::money::Currency;
use domain::period::Period;
use domain::stripe_objects::invoice::InvoiceStatus;

/// An invoice about to be issued: of several at once, each of another contract.
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
    pub period: Period,
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
    pub period_start: Timestamp,
    pub finalized_at: Timestamp,
    pub due_at: Option<Timestamp>,
    /// The lines as issued, `{"items": […]}`.
    pub line_items: Value,
    /// The customer at Stripe, of the contract.
    pub stripe_customer_id: Option<String>,
    pub company: Option<String>,
    pub billing_email: Option<String>,
}

/// The periods of these contracts' invoices that are not void.
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

/// The totals of the last six invoices of each contract and currency, newest first.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn last_totals(
    db: &impl GenericClient,
    contract_ids: &[i64],
) -> Result<Vec<(i64, Currency, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::last_totals
             SELECT id, contract_id, currency, total_cents
             FROM (
                 SELECT id, contract_id, currency, COALESCE(total_cents, 0) AS total_cents,
                        row_number() OVER (PARTITION BY contract_id, currency
                                           ORDER BY billing_period_start DESC, id DESC) AS place
                 FROM invoices
                 WHERE contract_id = ANY($1) AND status <> 'void' AND NOT superseded
                   AND finalized_at IS NOT NULL
             ) AS ranked
             WHERE place <= 6
             ORDER BY contract_id, currency, place",
            &[(&contract_ids, Type::INT8_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get("id")?;
            let currency = columns::currency(row, "invoices", &id.to_string())?;
            Ok((
                row.try_get("contract_id")?,
                currency,
                row.try_get("total_cents")?,
            ))
        })
        .collect()
}

/// The next number of each series, in their order: the series itself, then with `-2`, `-3` behind it. The counters are
/// locked until the end of the transaction, so that a number is neither given twice nor left out. `None` when another
/// series (or the predecessor) has given this number already: ask again. No series may be asked for twice.
///
/// # Errors
/// When the statement fails.
pub async fn take_numbers(
    db: &impl GenericClient,
    series: &[&str],
) -> Result<Vec<Option<String>>, Error> {
    let rows = db
        .query_typed(
            "-- partner_invoices::take_numbers
             WITH taken AS (
                 INSERT INTO invoice_number_counters AS counters (series, next_value)
                 SELECT series, 2 FROM unnest($1) AS asked (series) ORDER BY series
                 ON CONFLICT (series) DO UPDATE SET next_value = counters.next_value + 1
                 RETURNING series, next_value - 1 AS value
             ), named AS (
                 SELECT series, series || CASE WHEN value = 1 THEN '' ELSE '-' || value END AS number FROM taken
             )
             SELECT number,
                    EXISTS (SELECT FROM invoices WHERE invoice_number = number AND NOT superseded) AS is_given
             FROM unnest($1) WITH ORDINALITY AS asked (series, position) JOIN named USING (series)
             ORDER BY position",
            &[(&series, Type::TEXT_ARRAY)],
        )
        .await?;
    check_count("partner_invoices::take_numbers", series.len(), rows.len())?;
    rows.iter()
        .map(|row| {
            let is_given: bool = row.try_get("is_given")?;
            let number = row.try_get("number")?;
            Ok((!is_given).then_some(number))
        })
        .collect()
}

/// Issues invoices and returns their ids, in their order. A second one of the same period of a contract is refused by
/// `invoices_contract_period_live_key`, and with it all of them.
///
/// # Errors
/// When the statement fails.
pub async fn insert_all(
    db: &impl GenericClient,
    invoices: &[NewInvoice<'_>],
    now: Timestamp,
) -> Result<Vec<i64>, Error> {
    let cents = |of: fn(&NewInvoice<'_>) -> i64| -> Vec<i64> { invoices.iter().map(of).collect() };
    let instants = |of: fn(&NewInvoice<'_>) -> Timestamp| -> Vec<Timestamp> {
        invoices.iter().map(of).collect()
    };
    let prefixes: Vec<&str> = invoices.iter().map(|new| new.api_key_prefix).collect();
    let numbers: Vec<&str> = invoices.iter().map(|new| new.invoice_number).collect();
    let statuses: Vec<&str> = invoices.iter().map(|new| new.status.as_str()).collect();
    let currencies: Vec<&str> = invoices.iter().map(|new| new.currency.as_str()).collect();
    let lines: Vec<Json<&Value>> = invoices.iter().map(|new| Json(new.line_items)).collect();
    let taxes: Vec<Json<&Value>> = invoices.iter().map(|new| Json(new.tax_breakdown)).collect();
    let po_numbers: Vec<Option<&str>> = invoices.iter().map(|new| new.po_number).collect();
    let methods: Vec<Option<&str>> = invoices.iter().map(|new| new.collection_method).collect();
    let metadata: Vec<Json<&Value>> = invoices.iter().map(|new| Json(new.metadata)).collect();
    let rows = db
        .query_typed(
            "-- partner_invoices::insert_all
             INSERT INTO invoices (contract_id, api_key_prefix, invoice_number, kind, status, currency,
                 subtotal_cents, tax_cents, discount_cents, total_cents, credit_applied_cents,
                 amount_paid_cents, amount_due_cents, billing_period_start, billing_period_end, due_date,
                 line_items, tax_breakdown, po_number, collection_method, metadata, finalized_at, paid_at,
                 created_at, updated_at)
             SELECT contract_id, api_key_prefix, invoice_number, 'partner', status, currency,
                 subtotal_cents, tax_cents, 0, total_cents, credit_applied_cents,
                 0, amount_due_cents, billing_period_start, billing_period_end, due_date,
                 line_items, tax_breakdown, po_number, collection_method, metadata, $19,
                 CASE WHEN status = 'paid' THEN $19 END, $19, $19
             FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
                 WITH ORDINALITY AS new
                 (contract_id, api_key_prefix, invoice_number, status, currency, subtotal_cents, tax_cents,
                  total_cents, credit_applied_cents, amount_due_cents, billing_period_start, billing_period_end,
                  due_date, line_items, tax_breakdown, po_number, collection_method, metadata, position)
             ORDER BY position
             RETURNING id, contract_id",
            &[
                (&cents(|new| new.contract_id), Type::INT8_ARRAY),
                (&prefixes, Type::TEXT_ARRAY),
                (&numbers, Type::TEXT_ARRAY),
                (&statuses, Type::TEXT_ARRAY),
                (&currencies, Type::TEXT_ARRAY),
                (&cents(|new| new.subtotal_cents), Type::INT8_ARRAY),
                (&cents(|new| new.tax_cents), Type::INT8_ARRAY),
                (&cents(|new| new.total_cents), Type::INT8_ARRAY),
                (&cents(|new| new.credit_applied_cents), Type::INT8_ARRAY),
                (&cents(|new| new.amount_due_cents), Type::INT8_ARRAY),
                (&instants(|new| new.period.start), Type::TIMESTAMPTZ_ARRAY),
                (&instants(|new| new.period.end), Type::TIMESTAMPTZ_ARRAY),
                (&instants(|new| new.due_at), Type::TIMESTAMPTZ_ARRAY),
                (&lines, Type::JSONB_ARRAY),
                (&taxes, Type::JSONB_ARRAY),
                (&po_numbers, Type::TEXT_ARRAY),
                (&methods, Type::TEXT_ARRAY),
                (&metadata, Type::JSONB_ARRAY),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    check_count("partner_invoices::insert_all", invoices.len(), rows.len())?;
    let mut ids = HashMap::with_capacity(rows.len());
    for row in &rows {
        let contract_id: i64 = row.try_get("contract_id")?;
        ids.insert(contract_id, row.try_get("id")?);
    }
    let of = |new: &NewInvoice<'_>| ids.get(&new.contract_id).copied();
    let in_order: Vec<i64> = invoices.iter().filter_map(of).collect();
    check_count("partner_invoices::insert_all", invoices.len(), ids.len())?;
    Ok(in_order)
}

fn check_count(statement: &'static str, expected: usize, changed: usize) -> Result<(), Error> {
    let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    Error::check_row_count(statement, count(expected), count(changed))
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
