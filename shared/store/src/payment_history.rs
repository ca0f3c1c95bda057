//! `payment_history` and `revenue_entries`: one row per payment, and the lines that explain what
//! it adds to `revenue_daily`. Both are derived from the payment facts, never written by an event.

use jiff::Timestamp;
use jiff::civil::Date;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::{self, FromRow, columns};
use super::list::{self, Order, few, sorted};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::payment::{FeeSource, Payment, PaymentStatus};
use domain::revenue::entries::{Replacement, RevenueEntry};

columns! {
    /// A payment as lists show it. Amounts in minor units of `currency`.
    #[schema(as = Payment)]
    pub struct PaymentSummary of "payment_history" {
        pub id: i64,
        /// The intent, the charge of a payment without one, or the invoice that was paid outside Stripe.
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

/// Inserts or replaces the row. The user is the customer's, else the checkout session's, else the
/// payment's own. The invoice is looked up by its Stripe id; when it arrives later,
/// [`link_invoice`] fills it in.
///
/// # Errors
/// When the statement fails.
pub async fn upsert(
    db: &impl GenericClient,
    payment: &Payment,
    now: Timestamp,
) -> Result<(), Error> {
    let settlement = payment.settlement.as_ref();
    let changed = db
        .execute_typed(
            "-- payment_history::upsert
             INSERT INTO payment_history (payment_key, invoice_id, user_id,
                 stripe_payment_intent_id, stripe_charge_id, stripe_customer_id, stripe_invoice_id,
                 amount_cents, currency, status, payment_method, stripe_fee_cents, fee_source,
                 net_amount_cents, failure_code, decline_code, failure_message, refunded_at,
                 refund_reason, refund_amount_cents, stripe_balance_transaction_id,
                 settlement_currency, settlement_amount_cents, settlement_fee_cents,
                 exchange_rate, succeeded_at, dispute_status, disputed_amount_cents, created_at,
                 updated_at)
             VALUES ($1, (SELECT id FROM invoices WHERE stripe_invoice_id = $6 AND NOT superseded),
                 COALESCE(
                     (SELECT user_id FROM customers WHERE stripe_customer_id = $5),
                     (SELECT max(user_id) FROM checkout_sessions
                      WHERE stripe_payment_intent_id = $3),
                     $2),
                 $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                 $22, $23, $24, $25, $26, $27, $28, $29)
             ON CONFLICT (payment_key) DO UPDATE SET
                 invoice_id = excluded.invoice_id, user_id = excluded.user_id,
                 stripe_payment_intent_id = excluded.stripe_payment_intent_id,
                 stripe_charge_id = excluded.stripe_charge_id,
                 stripe_customer_id = excluded.stripe_customer_id,
                 stripe_invoice_id = excluded.stripe_invoice_id,
                 amount_cents = excluded.amount_cents, currency = excluded.currency,
                 status = excluded.status, payment_method = excluded.payment_method,
                 stripe_fee_cents = excluded.stripe_fee_cents, fee_source = excluded.fee_source,
                 net_amount_cents = excluded.net_amount_cents,
                 failure_code = excluded.failure_code, decline_code = excluded.decline_code,
                 failure_message = excluded.failure_message, refunded_at = excluded.refunded_at,
                 refund_reason = excluded.refund_reason,
                 refund_amount_cents = excluded.refund_amount_cents,
                 stripe_balance_transaction_id = excluded.stripe_balance_transaction_id,
                 settlement_currency = excluded.settlement_currency,
                 settlement_amount_cents = excluded.settlement_amount_cents,
                 settlement_fee_cents = excluded.settlement_fee_cents,
                 exchange_rate = excluded.exchange_rate, succeeded_at = excluded.succeeded_at,
                 dispute_status = excluded.dispute_status,
                 disputed_amount_cents = excluded.disputed_amount_cents,
                 created_at = excluded.created_at, updated_at = excluded.updated_at",
            &[
                (&payment.payment_key, Type::TEXT),
                (&payment.user_id, Type::INT4),
                (&payment.stripe_payment_intent_id, Type::TEXT),
                (&payment.stripe_charge_id, Type::TEXT),
                (&payment.stripe_customer_id, Type::TEXT),
                (&payment.stripe_invoice_id, Type::TEXT),
                (&payment.amount_cents, Type::INT8),
                (&payment.currency.as_str(), Type::TEXT),
                (&payment.status.as_str(), Type::TEXT),
                (&payment.payment_method, Type::TEXT),
                (&payment.stripe_fee_cents, Type::INT8),
                (&payment.fee_source.map(FeeSource::as_str), Type::TEXT),
                (&payment.net_amount_cents, Type::INT8),
                (&payment.failure_code, Type::TEXT),
                (&payment.decline_code, Type::TEXT),
                (&payment.failure_message, Type::TEXT),
                (&payment.refunded_at, Type::TIMESTAMPTZ),
                (&payment.refund_reason, Type::TEXT),
                (&payment.refund_amount_cents, Type::INT8),
                (&payment.stripe_balance_transaction_id, Type::TEXT),
                (&settlement.map(|s| s.currency.as_str()), Type::TEXT),
                (&settlement.map(|s| s.amount_cents), Type::INT8),
                (&settlement.map(|s| s.fee_cents), Type::INT8),
                (&settlement.and_then(|s| s.exchange_rate.as_deref()), Type::TEXT),
                (&payment.succeeded_at, Type::TIMESTAMPTZ),
                (&payment.dispute_status, Type::TEXT),
                (&payment.disputed_amount_cents, Type::INT8),
                (&payment.created_at, Type::TIMESTAMPTZ),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("payment_history::upsert", 1, changed)
}

/// Deletes rows that stand for nothing any more: a charge that turned out to belong to an intent,
/// an invoice that was not paid outside Stripe after all.
///
/// # Errors
/// When the statement fails.
pub async fn delete(db: &impl GenericClient, payment_keys: &[String]) -> Result<(), Error> {
    db.execute_typed(
        "-- payment_history::delete
         DELETE FROM payment_history WHERE payment_key = ANY($1)",
        &[(&payment_keys, Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}

/// Fills in `invoice_id` of the payments of an invoice that has just arrived.
///
/// # Errors
/// When the statement fails.
pub async fn link_invoice(db: &impl GenericClient, stripe_invoice_id: &str) -> Result<(), Error> {
    db.execute_typed(
        "-- payment_history::link_invoice
         UPDATE payment_history SET invoice_id = invoices.id
         FROM invoices
         WHERE invoices.stripe_invoice_id = $1 AND NOT invoices.superseded
           AND payment_history.stripe_invoice_id = $1
           AND payment_history.invoice_id IS DISTINCT FROM invoices.id",
        &[(&stripe_invoice_id, Type::TEXT)],
    )
    .await?;
    Ok(())
}

/// Replaces lines, and adds the difference to `revenue_daily` in day order, so that two payments
/// of the same days never wait for each other crosswise.
///
/// # Errors
/// When the statement fails.
pub async fn replace_entries(
    db: &impl GenericClient,
    replacement: &Replacement,
) -> Result<(), Error> {
    fn column<T>(entries: &[RevenueEntry], read: impl Fn(&RevenueEntry) -> T) -> Vec<T> {
        entries.iter().map(read).collect()
    }
    fn keys(entries: &[RevenueEntry]) -> [Vec<String>; 3] {
        [
            column(entries, |entry| entry.payment_key.clone()),
            column(entries, |entry| entry.kind.as_str().to_owned()),
            column(entries, |entry| entry.source_id.clone()),
        ]
    }
    // A line whose amount or instant changes keeps its key: it is updated, not removed.
    let gone: Vec<RevenueEntry> = replacement
        .removed
        .iter()
        .filter(|removed| {
            !replacement
                .added
                .iter()
                .any(|added| is_same_line(added, removed))
        })
        .cloned()
        .collect();
    let gone = keys(&gone);
    let added = keys(&replacement.added);
    let days: Vec<Date> = column(&replacement.added, RevenueEntry::day);
    let instants: Vec<Timestamp> = column(&replacement.added, |entry| entry.occurred_at);
    let currencies = column(&replacement.added, |entry| {
        entry.currency.as_str().to_owned()
    });
    let amounts: Vec<i64> = column(&replacement.added, |entry| entry.amount_cents);
    let estimated: Vec<bool> = column(&replacement.added, |entry| entry.is_estimated);
    let daily = &replacement.daily;
    let daily_days: Vec<Date> = daily.keys().map(|(day, _)| *day).collect();
    let daily_currencies: Vec<&str> = daily
        .keys()
        .map(|(_, currency)| currency.as_str())
        .collect();
    let figure = |read: fn(&domain::revenue::entries::DailyDelta) -> i64| -> Vec<i64> {
        daily.values().map(read).collect()
    };
    let gross = figure(|delta| delta.gross_cents);
    let fees = figure(|delta| delta.fees_cents);
    let refunds = figure(|delta| delta.refunds_cents);
    let disputes = figure(|delta| delta.disputes_cents);
    let payments = figure(|delta| delta.payments);
    let failed = figure(|delta| delta.failed_payments);
    let estimates = figure(|delta| delta.estimated_fees);
    db.execute_typed(
        "-- payment_history::replace_entries
         WITH gone AS (
             DELETE FROM revenue_entries
             USING unnest($1, $2, $3) AS gone (payment_key, kind, source_id)
             WHERE (revenue_entries.payment_key, revenue_entries.kind, revenue_entries.source_id)
                 = (gone.payment_key, gone.kind, gone.source_id)
         ), added AS (
             INSERT INTO revenue_entries (payment_key, kind, source_id, day, currency,
                                          amount_cents, is_estimated, occurred_at)
             SELECT payment_key, kind, source_id, day, currency, amount_cents, is_estimated,
                    occurred_at
             FROM unnest($4, $5, $6, $7, $8, $9, $10, $20) AS added (payment_key, kind, source_id,
                 day, currency, amount_cents, is_estimated, occurred_at)
             ON CONFLICT (payment_key, kind, source_id) DO UPDATE SET
                 day = excluded.day, occurred_at = excluded.occurred_at,
                 currency = excluded.currency,
                 amount_cents = excluded.amount_cents, is_estimated = excluded.is_estimated
         )
         INSERT INTO revenue_daily AS stored (day, currency, gross_cents, fees_cents,
             refunds_cents, disputes_cents, payments, failed_payments, estimated_fees)
         SELECT day, currency, gross_cents, fees_cents, refunds_cents, disputes_cents, payments,
                failed_payments, estimated_fees
         FROM unnest($11, $12, $13, $14, $15, $16, $17, $18, $19) AS delta (day, currency,
             gross_cents, fees_cents, refunds_cents, disputes_cents, payments, failed_payments,
             estimated_fees)
         ORDER BY day, currency
         ON CONFLICT (day, currency) DO UPDATE SET
             gross_cents = stored.gross_cents + excluded.gross_cents,
             fees_cents = stored.fees_cents + excluded.fees_cents,
             refunds_cents = stored.refunds_cents + excluded.refunds_cents,
             disputes_cents = stored.disputes_cents + excluded.disputes_cents,
             payments = stored.payments + excluded.payments,
             failed_payments = stored.failed_payments + excluded.failed_payments,
             estimated_fees = stored.estimated_fees + excluded.estimated_fees",
        &[
            (&gone[0], Type::TEXT_ARRAY),
            (&gone[1], Type::TEXT_ARRAY),
            (&gone[2], Type::TEXT_ARRAY),
            (&added[0], Type::TEXT_ARRAY),
            (&added[1], Type::TEXT_ARRAY),
            (&added[2], Type::TEXT_ARRAY),
            (&days, Type::DATE_ARRAY),
            (&currencies, Type::TEXT_ARRAY),
            (&amounts, Type::INT8_ARRAY),
            (&estimated, Type::BOOL_ARRAY),
            (&daily_days, Type::DATE_ARRAY),
            (&daily_currencies, Type::TEXT_ARRAY),
            (&gross, Type::INT8_ARRAY),
            (&fees, Type::INT8_ARRAY),
            (&refunds, Type::INT8_ARRAY),
            (&disputes, Type::INT8_ARRAY),
            (&payments, Type::INT8_ARRAY),
            (&failed, Type::INT8_ARRAY),
            (&estimates, Type::INT8_ARRAY),
            (&instants, Type::TIMESTAMPTZ_ARRAY),
        ],
    )
    .await?;
    if !replacement.removed.is_empty() {
        delete_empty_days(db, &daily_days, &daily_currencies).await?;
    }
    Ok(())
}

/// A day that a payment has moved away from is as if it had never been.
async fn delete_empty_days(
    db: &impl GenericClient,
    days: &[Date],
    currencies: &[&str],
) -> Result<(), Error> {
    db.execute_typed(
        "-- payment_history::delete_empty_days
         DELETE FROM revenue_daily USING unnest($1, $2) AS moved (day, currency)
         WHERE revenue_daily.day = moved.day AND revenue_daily.currency = moved.currency
           AND gross_cents = 0 AND fees_cents = 0 AND refunds_cents = 0 AND disputes_cents = 0
           AND payments = 0 AND failed_payments = 0 AND estimated_fees = 0
           AND NOT EXISTS (SELECT FROM revenue_entries
                           WHERE revenue_entries.day = moved.day
                             AND revenue_entries.currency = moved.currency)",
        &[(&days, Type::DATE_ARRAY), (&currencies, Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}

fn is_same_line(left: &RevenueEntry, right: &RevenueEntry) -> bool {
    left.payment_key == right.payment_key
        && left.kind == right.kind
        && left.source_id == right.source_id
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
