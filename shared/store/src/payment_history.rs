//! `payment_history` and `revenue_entries`: one row per payment, and the lines that explain what
//! it adds to `revenue_daily`. Both are derived from the payment facts, never written by an event.

use jiff::Timestamp;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::{self, FromRow, columns};
use super::list::{self, Order, few, sorted};
use super::mirror::mirrored;
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::payment::{FeeSource, Payment, PaymentStatus};

columns! {
    /// A payment as lists show it. Amounts in minor units of `currency`.
    #[schema(as = Payment)]
    pub struct PaymentSummary of "payment_history" {
        pub id: i64,
        /// The intent, the charge of a payment without one, or what stands for money that came outside Stripe: its
        /// payment record, otherwise the invoice.
        pub payment_key: String,
        pub invoice_id: Option<i64>,
        pub user_id: Option<i32>,
        pub stripe_payment_intent_id: Option<String>,
        /// The charge of the newest attempt; null without one.
        pub stripe_charge_id: Option<String>,
        pub stripe_customer_id: Option<String>,
        pub stripe_invoice_id: Option<String>,
        pub amount_cents: i64,
        pub currency: Currency,
        pub status: PaymentStatus,
        /// `card`, `us_bank_account`, …, `out_of_band`; `wire`, `check` or `ach` of one we noted.
        pub payment_method: Option<String>,
        /// What the bank knows a payment outside Stripe by.
        pub reference: Option<String>,
        /// Null when the predecessor did not know it.
        pub stripe_fee_cents: Option<i64>,
        /// Whether the fee is Stripe's actual one or an estimate; null without a fee.
        pub fee_source: Option<FeeSource>,
        /// The amount less fee, refunds and what is disputed.
        pub net_amount_cents: Option<i64>,
        pub failure_code: Option<String>,
        /// Why the card's issuer declined, as Stripe words it.
        pub decline_code: Option<String>,
        pub failure_message: Option<String>,
        /// When the newest refund was made.
        pub refunded_at: Option<Timestamp>,
        pub refund_reason: Option<String>,
        /// Sum of the refunds that count, in minor units.
        pub refund_amount_cents: Option<i64>,
        pub succeeded_at: Option<Timestamp>,
        /// Of the newest dispute; Stripe's word.
        pub dispute_status: Option<String>,
        /// Sum of the open and the lost disputes, in minor units.
        pub disputed_amount_cents: i64,
        pub created_at: Timestamp,
        pub updated_at: Option<Timestamp>,
    }
}

columns! {
    /// A payment as booked on the Stripe balance: amounts in minor units of `settlement_currency`, its currency.
    pub struct Settlement of "payment_history" {
        pub stripe_balance_transaction_id: Option<String>,
        pub settlement_currency: Option<Currency>,
        pub settlement_amount_cents: Option<i64>,
        pub settlement_fee_cents: Option<i64>,
        /// A decimal number, as Stripe printed it.
        pub exchange_rate: Option<String>,
    }
}

/// A payment with its amounts in the currency of the Stripe balance.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct SettledPayment {
    #[serde(flatten)]
    pub payment: PaymentSummary,
    #[serde(flatten)]
    pub settlement: Settlement,
}

impl FromRow for SettledPayment {
    fn from_row(row: &Row) -> Result<SettledPayment, Error> {
        Ok(SettledPayment {
            payment: PaymentSummary::from_row(row)?,
            settlement: Settlement::from_row(row)?,
        })
    }
}

mirrored!(Payment => "payment_history" by "(payment_key)" {
    payment_key,
    stripe_payment_intent_id,
    stripe_charge_id,
    stripe_customer_id,
    stripe_invoice_id,
    user_id,
    amount_cents,
    currency,
    status,
    payment_method,
    stripe_fee_cents,
    fee_source,
    net_amount_cents,
    failure_code,
    decline_code,
    failure_message,
    refunded_at,
    refund_reason,
    refund_amount_cents,
    stripe_balance_transaction_id,
    succeeded_at,
    dispute_status,
    disputed_amount_cents,
    created_at,
    ..settlement: Option<domain::payment::Settlement>,
    !released_cents,
    !charges_short_of_refunds,
    !not_convertible,
    !entries,
}
const IS_PARTIAL: bool = false;
const LOOKED_UP: &'static [(&'static str, &'static str)] = &[
    ("invoice_id",
     "(SELECT id FROM invoices WHERE invoices.stripe_invoice_id = new.stripe_invoice_id AND NOT superseded)"),
    // The customer's user, else the checkout session's, else the payment's own.
    ("user_id",
     "COALESCE((SELECT user_id FROM customers WHERE customers.stripe_customer_id = new.stripe_customer_id),
               (SELECT max(user_id) FROM checkout_sessions
                WHERE checkout_sessions.stripe_payment_intent_id = new.stripe_payment_intent_id),
               new.user_id)"),
];
);

/// A payment of an invoice.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct PaymentOfInvoice {
    #[serde(flatten)]
    pub payment: PaymentSummary,
    /// What it has paid of this invoice, in minor units; one payment may pay several invoices.
    pub applied_cents: i64,
}

impl FromRow for PaymentOfInvoice {
    fn from_row(row: &Row) -> Result<PaymentOfInvoice, Error> {
        Ok(PaymentOfInvoice {
            payment: PaymentSummary::from_row(row)?,
            applied_cents: row.try_get("applied_cents")?,
        })
    }
}

columns! {
    /// An invoice of a payment.
    pub struct PaidInvoice of "invoices" {
        /// Our number of the invoice; null while only the payment has named it.
        pub invoice_id: Option<i64>,
        /// The number that is printed.
        pub invoice_number: Option<String>,
        pub stripe_invoice_id: Option<String>,
        /// What the payment has paid of it, in minor units.
        pub applied_cents: i64,
    }
}

/// Payments and their invoices, as the links between them say.
const LINKED: &str = "
    FROM invoice_payments AS link
    JOIN payment_history AS payment
        ON payment.payment_key = coalesce(link.stripe_payment_intent_id, link.stripe_payment_record_id,
                                          link.stripe_charge_id)
        OR link.stripe_payment_intent_id IS NULL AND payment.stripe_charge_id = link.stripe_charge_id
    WHERE NOT payment.superseded";

/// The payments of an invoice, newest first; at most 500.
///
/// # Errors
/// When the statement fails.
pub async fn of_invoice(
    db: &impl GenericClient,
    invoice_id: i64,
) -> Result<Vec<PaymentOfInvoice>, Error> {
    columns::all(
        db,
        &format!(
            "-- payment_history::of_invoice
             WITH applied AS (
                 SELECT payment.id AS payment_id,
                        max(link.amount_paid_cents) FILTER (WHERE link.status = 'paid') AS applied_cents
                 {LINKED} AND link.stripe_invoice_id = (SELECT stripe_invoice_id FROM invoices WHERE id = $1)
                 GROUP BY payment.id
             )
             SELECT {}, coalesce(applied.applied_cents,
                                 CASE WHEN invoice_id = $1 AND succeeded_at IS NOT NULL THEN amount_cents ELSE 0 END)
                        AS applied_cents
             FROM payment_history LEFT JOIN applied ON payment_id = id
             WHERE NOT superseded AND id = ANY (ARRAY(
                 SELECT payment_id FROM applied
                 UNION SELECT id FROM payment_history WHERE invoice_id = $1))
             ORDER BY created_at DESC, id DESC LIMIT 500",
            PaymentSummary::COLUMNS
        ),
        &[(&invoice_id, Type::INT8)],
    )
    .await
}

/// The invoices that a payment pays, the largest part first.
///
/// # Errors
/// When the statement fails.
pub async fn invoices_of(
    db: &impl GenericClient,
    payment: &PaymentSummary,
) -> Result<Vec<PaidInvoice>, Error> {
    columns::all(
        db,
        &format!(
            "-- payment_history::invoices_of
             WITH linked AS (
                 SELECT link.stripe_invoice_id,
                        max(link.amount_paid_cents) FILTER (WHERE link.status = 'paid') AS applied_cents
                 {LINKED} AND payment.id = $1
                 GROUP BY link.stripe_invoice_id
             ), applied AS (
                 SELECT invoices.id AS invoice_id, stripe_invoice_id, applied_cents
                 FROM linked
                 LEFT JOIN invoices USING (stripe_invoice_id)
                 WHERE invoices.superseded IS NOT TRUE
                 UNION ALL
                 SELECT invoice_id, stripe_invoice_id, NULL FROM payment_history
                 WHERE id = $1 AND invoice_id IS NOT NULL AND NOT EXISTS (
                     SELECT FROM linked WHERE linked.stripe_invoice_id = payment_history.stripe_invoice_id)
             )
             SELECT invoice_id, invoice_number, applied.stripe_invoice_id,
                    coalesce(applied_cents, CASE WHEN invoice_id = $2 THEN $3 ELSE 0::bigint END) AS applied_cents
             FROM applied LEFT JOIN invoices ON invoices.id = invoice_id
             ORDER BY 4 DESC, 3, 1",
        ),
        &[
            (&payment.id, Type::INT8),
            (&payment.invoice_id, Type::INT8),
            (
                &payment.succeeded_at.map_or(0, |_| payment.amount_cents),
                Type::INT8,
            ),
        ],
    )
    .await
}

/// Which payments a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<PaymentStatus>,
    pub user_id: Option<i32>,
    pub stripe_customer_id: Option<&'a str>,
    pub invoice_id: Option<i64>,
    /// When the payment was created.
    pub created: Span,
}

/// A page of payments.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, PaymentSummary>, Error> {
    list::read(
        db,
        &format!(
            "-- payment_history::list
             SELECT {}, created_at AS listed_at FROM payment_history WHERE NOT superseded",
            PaymentSummary::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            few("invoice_id", &filter.invoice_id, Type::INT8),
            sorted("user_id", &filter.user_id, Type::INT4),
            sorted("stripe_customer_id", &filter.stripe_customer_id, Type::TEXT),
            sorted(
                "status",
                &filter.status.map(PaymentStatus::as_str),
                Type::TEXT,
            ),
        ],
        filter.created,
        page,
    )
    .await
}

/// One payment, by our id, or by that of its intent, its invoice (out of band) or any of its charges.
///
/// # Errors
/// When the statement fails.
pub async fn find(
    db: &impl GenericClient,
    id: Option<i64>,
    key: Option<&str>,
) -> Result<Option<SettledPayment>, Error> {
    columns::first(
        db,
        &format!(
            "-- payment_history::find
             SELECT {}, {}
             FROM payment_history
             WHERE NOT superseded AND (id = $1 OR payment_key = $2 OR stripe_charge_id = $2
                 OR stripe_payment_intent_id = (SELECT stripe_payment_intent_id
                                                FROM payment_attempts WHERE stripe_charge_id = $2))
             ORDER BY id LIMIT 1",
            PaymentSummary::COLUMNS,
            Settlement::COLUMNS
        ),
        &[(&id, Type::INT8), (&key, Type::TEXT)],
    )
    .await
}

/// Inserts the row of a payment that was made outside Stripe for an invoice Stripe does not know. `reference` is what
/// it is known by at the bank.
///
/// # Errors
/// When the statement fails, also when there is a row with this key.
pub async fn insert_manual(
    db: &impl GenericClient,
    payment: &Payment,
    invoice_id: i64,
    reference: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- payment_history::insert_manual
             INSERT INTO payment_history (payment_key, invoice_id, amount_cents, currency, status,
                 payment_method, reference, stripe_fee_cents, fee_source, net_amount_cents,
                 refund_amount_cents, disputed_amount_cents, succeeded_at, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            &[
                (&payment.payment_key, Type::TEXT),
                (&invoice_id, Type::INT8),
                (&payment.amount_cents, Type::INT8),
                (&payment.currency.as_str(), Type::TEXT),
                (&payment.status.as_str(), Type::TEXT),
                (&payment.payment_method, Type::TEXT),
                (&reference, Type::TEXT),
                (&payment.stripe_fee_cents, Type::INT8),
                (&payment.fee_source.map(FeeSource::as_str), Type::TEXT),
                (&payment.net_amount_cents, Type::INT8),
                (&payment.refund_amount_cents, Type::INT8),
                (&payment.disputed_amount_cents, Type::INT8),
                (&payment.succeeded_at, Type::TIMESTAMPTZ),
                (&payment.created_at, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_history::insert_manual", 1, changed)
}

/// How many payments outside Stripe an invoice has: with the invoice locked, the next one's number less one.
///
/// # Errors
/// When the statement fails.
pub async fn count_manual(db: &impl GenericClient, invoice_id: i64) -> Result<i64, Error> {
    let rows = db
        .query_typed(
            "-- payment_history::count_manual
             SELECT count(*) AS payments FROM payment_history
             WHERE invoice_id = $1 AND payment_key LIKE 'manual:%'",
            &[(&invoice_id, Type::INT8)],
        )
        .await?;
    match rows.first() {
        Some(row) => Ok(row.try_get("payments")?),
        None => Ok(0),
    }
}
