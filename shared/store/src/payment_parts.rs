//! What belongs to one payment, as it is shown: its charges, refunds and disputes.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::columns::{self, columns};
use domain::money::Currency;
use domain::payment::RefundSource;

columns! {
    /// An attempt to pay: a charge. Amounts in minor units of `currency`, words are Stripe's.
    pub struct PaymentAttempt of "payment_attempts" {
        pub stripe_charge_id: String,
        pub stripe_payment_intent_id: Option<String>,
        /// What the customer was asked for.
        pub amount_cents: i64,
        /// What was captured of it.
        pub amount_captured_cents: i64,
        pub currency: Currency,
        pub status: String,
        /// Whether the money was taken.
        pub captured: bool,
        pub failure_code: Option<String>,
        /// Why the card's issuer declined, as Stripe words it.
        pub decline_code: Option<String>,
        pub failure_message: Option<String>,
        pub payment_method: Option<String>,
        pub attempted_at: Timestamp,
        /// Earliest event that shows the capture.
        pub succeeded_at: Option<Timestamp>,
    }
}

columns! {
    /// A refund. Words are Stripe's.
    pub struct PaymentRefund of "refunds" {
        pub stripe_refund_id: String,
        pub stripe_charge_id: Option<String>,
        pub stripe_payment_intent_id: Option<String>,
        /// In minor units of `currency`.
        pub amount_cents: i64,
        pub currency: Currency,
        pub reason: Option<String>,
        /// One that is `failed` or `canceled` counts nowhere.
        pub status: String,
        /// A refund at Stripe, or what a credit note paid back outside Stripe, of which this payment may be a part.
        pub source: RefundSource,
        pub created_at: Timestamp,
        pub failed_at: Option<Timestamp>,
    }
}

columns! {
    /// A dispute. Amounts in minor units of `currency`, words are Stripe's.
    pub struct PaymentDispute of "disputes" {
        pub stripe_dispute_id: String,
        pub stripe_charge_id: Option<String>,
        pub stripe_payment_intent_id: Option<String>,
        pub amount_cents: i64,
        pub currency: Currency,
        pub reason: Option<String>,
        pub status: String,
        /// What Stripe charged for the dispute, in the payment's currency.
        pub fee_cents: i64,
        /// When money first went.
        pub funds_withdrawn_at: Option<Timestamp>,
        /// When money first came back.
        pub funds_reinstated_at: Option<Timestamp>,
        /// The last instant at which evidence may be submitted; null when Stripe names none.
        pub evidence_due_by: Option<Timestamp>,
        pub closed_at: Option<Timestamp>,
        pub created_at: Timestamp,
    }
}

/// The charges of a payment, first to last.
///
/// # Errors
/// When the statement fails.
pub async fn attempts(
    db: &impl GenericClient,
    stripe_payment_intent_id: Option<&str>,
    stripe_charge_id: Option<&str>,
) -> Result<Vec<PaymentAttempt>, Error> {
    columns::all(
        db,
        &format!(
            "-- payment_parts::attempts
             SELECT {} FROM payment_attempts
             WHERE stripe_payment_intent_id = $1 OR stripe_charge_id = $2
             ORDER BY attempted_at, stripe_charge_id",
            PaymentAttempt::COLUMNS
        ),
        &[
            (&stripe_payment_intent_id, Type::TEXT),
            (&stripe_charge_id, Type::TEXT),
        ],
    )
    .await
}

/// The refunds of a payment with these charges, and what credit notes paid back of it, first to last.
///
/// # Errors
/// When the statement fails.
pub async fn refunds(
    db: &impl GenericClient,
    payment_key: &str,
    stripe_payment_intent_id: Option<&str>,
    stripe_charge_ids: &[&str],
) -> Result<Vec<PaymentRefund>, Error> {
    columns::all(
        db,
        &format!(
            "-- payment_parts::refunds
             SELECT {} FROM refunds
             WHERE stripe_payment_intent_id = $1 OR stripe_charge_id = ANY($2)
                OR stripe_refund_id = ANY(ARRAY(SELECT source_id FROM revenue_entries
                                                WHERE payment_key = $3 AND kind = 'refund'))
             ORDER BY created_at, stripe_refund_id",
            PaymentRefund::COLUMNS
        ),
        &[
            (&stripe_payment_intent_id, Type::TEXT),
            (&stripe_charge_ids, Type::TEXT_ARRAY),
            (&payment_key, Type::TEXT),
        ],
    )
    .await
}

/// The disputes of a payment with these charges, first to last.
///
/// # Errors
/// When the statement fails.
pub async fn disputes(
    db: &impl GenericClient,
    stripe_payment_intent_id: Option<&str>,
    stripe_charge_ids: &[&str],
) -> Result<Vec<PaymentDispute>, Error> {
    columns::all(
        db,
        // What an earlier release has booked has no entry for each balance transaction.
        "-- payment_parts::disputes
         SELECT stripe_dispute_id, stripe_charge_id, stripe_payment_intent_id, amount_cents, currency, reason, status,
                CAST(coalesce((SELECT sum(entry.amount_cents) FROM balance_transactions AS moved
                               JOIN revenue_entries AS entry
                                   ON entry.payment_key = moved.payment_key AND entry.kind = 'dispute_fee'
                                      AND entry.source_id = moved.stripe_balance_transaction_id
                               WHERE moved.source_id = disputes.stripe_dispute_id), fee_cents) AS bigint) AS fee_cents,
                funds_withdrawn_at, funds_reinstated_at, evidence_due_by, closed_at, created_at
         FROM disputes
         WHERE stripe_payment_intent_id = $1 OR stripe_charge_id = ANY($2)
         ORDER BY created_at, stripe_dispute_id",
        &[
            (&stripe_payment_intent_id, Type::TEXT),
            (&stripe_charge_ids, Type::TEXT_ARRAY),
        ],
    )
    .await
}
