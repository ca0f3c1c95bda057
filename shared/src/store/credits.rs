//! `credits`: store credit that a refund was issued as.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::list::{self, Object, Order, Page, Rows, Span, sorted};
use super::{Error, columns};
use crate::payment::Refund;

/// Inserts the credit of a refund, or brings it up to date: nothing of it remains when the refund
/// failed. The user is the payment's.
///
/// # Errors
/// When the statement fails.
pub async fn upsert_for_refund(db: &impl GenericClient, refund: &Refund) -> Result<(), Error> {
    let remaining_cents = if refund.counts() {
        refund.amount_cents
    } else {
        0
    };
    db.execute_typed(
        "-- credits::upsert_for_refund
         INSERT INTO credits (stripe_refund_id, stripe_customer_id, user_id, invoice_id,
             amount_cents, remaining_cents, currency, reason, description, created_by, created_at)
         SELECT $1, payment.stripe_customer_id, payment.user_id, payment.invoice_id, $2, $3, $4,
             'refund', 'Refund issued as store credit', 'stripe', $5
         FROM (SELECT) AS one LEFT JOIN LATERAL (
             SELECT stripe_customer_id, user_id, invoice_id FROM payment_history
             WHERE stripe_payment_intent_id = $6 OR stripe_charge_id = $7
             ORDER BY superseded, id LIMIT 1
         ) AS payment ON true
         ON CONFLICT (stripe_refund_id) DO UPDATE SET
             stripe_customer_id = excluded.stripe_customer_id, user_id = excluded.user_id,
             invoice_id = excluded.invoice_id,
             remaining_cents = least(credits.remaining_cents, excluded.remaining_cents)",
        &[
            (&refund.stripe_refund_id, Type::TEXT),
            (&refund.amount_cents, Type::INT8),
            (&remaining_cents, Type::INT8),
            (&refund.currency.as_str(), Type::TEXT),
            (&refund.created_at, Type::TIMESTAMPTZ),
            (&refund.stripe_payment_intent_id, Type::TEXT),
            (&refund.stripe_charge_id, Type::TEXT),
        ],
    )
    .await?;
    Ok(())
}

/// Takes back the credits of refunds that turned out not to be issued as credit, as far as nothing
/// of them has been used.
///
/// # Errors
/// When the statement fails.
pub async fn delete_unused(
    db: &impl GenericClient,
    stripe_refund_ids: &[String],
) -> Result<(), Error> {
    db.execute_typed(
        "-- credits::delete_unused
         DELETE FROM credits
         WHERE stripe_refund_id = ANY($1) AND applied_to_invoice_id IS NULL
           AND NOT EXISTS (SELECT FROM credit_applications WHERE credit_id = credits.id)",
        &[(&stripe_refund_ids, Type::TEXT_ARRAY)],
    )
    .await?;
    Ok(())
}

/// Which credits a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub user_id: Option<i32>,
    pub api_key_prefix: Option<&'a str>,
    /// Of `created_at`.
    pub created: Span,
}

/// A page of credits.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64>, Error> {
    list::read(
        db,
        "-- credits::list
             SELECT id, user_id, api_key_prefix, stripe_customer_id, stripe_refund_id, invoice_id,
                    amount_cents, remaining_cents, currency, reason, description,
                    applied_to_invoice_id, expires_at, voided_at, created_by, created_at,
                    created_at AS listed_at
             FROM credits
             WHERE true",
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            sorted("user_id", &filter.user_id, Type::INT4),
            sorted("api_key_prefix", &filter.api_key_prefix, Type::TEXT),
        ],
        filter.created,
        page,
    )
    .await
}

/// What was taken from credits for an invoice, in the order in which it was taken.
///
/// # Errors
/// When the statement fails.
pub async fn applied_to(db: &impl GenericClient, invoice_id: i64) -> Result<Vec<Object>, Error> {
    let rows = db
        .query_typed(
            "-- credits::applied_to
             SELECT credit_applications.credit_id, credit_applications.amount_cents,
                    credits.currency, credits.reason, credits.description,
                    credit_applications.applied_at
             FROM credit_applications JOIN credits ON credits.id = credit_applications.credit_id
             WHERE credit_applications.invoice_id = $1
             ORDER BY credit_applications.id",
            &[(&invoice_id, Type::INT8)],
        )
        .await?;
    rows.iter().map(columns::object).collect()
}

/// What remains of the credits of a customer and of its user, per currency; expired and voided ones are nothing.
///
/// # Errors
/// When the statement fails.
pub async fn balances(
    db: &impl GenericClient,
    stripe_customer_id: &str,
    user_id: Option<i32>,
    now: Timestamp,
) -> Result<Vec<Object>, Error> {
    let rows = db
        .query_typed(
            "-- credits::balances
             SELECT currency, CAST(sum(remaining_cents) AS BIGINT) AS remaining_cents
             FROM credits
             WHERE (stripe_customer_id = $1 OR user_id = $2) AND voided_at IS NULL
               AND (expires_at IS NULL OR expires_at > $3)
             GROUP BY currency HAVING sum(remaining_cents) > 0 ORDER BY currency",
            &[
                (&stripe_customer_id, Type::TEXT),
                (&user_id, Type::INT4),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    rows.iter().map(columns::object).collect()
}
