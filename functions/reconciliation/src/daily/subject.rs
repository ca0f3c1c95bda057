//! The lists of Stripe whose objects the ledger stores one row each.

use domain::payment::key::PaymentKey;
use domain::reconciliation::ObjectType;
use store::reconciliation_window::{self as window, Slice};
use tokio_postgres::Client;

/// A list of Stripe's API whose objects the ledger keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Charge,
    PaymentIntent,
    Refund,
    Dispute,
    Invoice,
    Subscription,
    /// After the objects behind them, which explain most of what is missing of them.
    BalanceTransaction,
    Payout,
    TaxRate,
}

impl Subject {
    pub(super) const ALL: [Subject; 9] = [
        Subject::Charge,
        Subject::PaymentIntent,
        Subject::Refund,
        Subject::Dispute,
        Subject::Invoice,
        Subject::Subscription,
        Subject::BalanceTransaction,
        Subject::Payout,
        Subject::TaxRate,
    ];

    /// Its name in Stripe's paths.
    pub(super) fn list(self) -> &'static str {
        match self {
            Subject::Charge => "charges",
            Subject::PaymentIntent => "payment_intents",
            Subject::Refund => "refunds",
            Subject::Dispute => "disputes",
            Subject::Invoice => "invoices",
            Subject::Subscription => "subscriptions",
            Subject::BalanceTransaction => "balance_transactions",
            Subject::Payout => "payouts",
            Subject::TaxRate => "tax_rates",
        }
    }

    /// What has to be expanded for the projection to learn all it can from one object.
    pub(super) fn expand(self) -> &'static [&'static str] {
        match self {
            Subject::Charge => &["balance_transaction"],
            Subject::Invoice => &["payments"],
            Subject::Subscription => &["discounts"],
            Subject::PaymentIntent
            | Subject::Refund
            | Subject::Dispute
            | Subject::BalanceTransaction
            | Subject::Payout
            | Subject::TaxRate => &[],
        }
    }

    pub(super) fn object_type(self) -> ObjectType {
        match self {
            Subject::Charge => ObjectType::Charge,
            Subject::PaymentIntent => ObjectType::PaymentIntent,
            Subject::Refund => ObjectType::Refund,
            Subject::Dispute => ObjectType::Dispute,
            Subject::Invoice => ObjectType::Invoice,
            Subject::Subscription => ObjectType::Subscription,
            Subject::BalanceTransaction => ObjectType::BalanceTransaction,
            Subject::Payout => ObjectType::Payout,
            Subject::TaxRate => ObjectType::TaxRate,
        }
    }

    /// The list of what Stripe calls `object` in an object.
    pub(super) fn of_object(object: &str) -> Option<Subject> {
        Some(match object {
            "charge" => Subject::Charge,
            "payment_intent" => Subject::PaymentIntent,
            "refund" => Subject::Refund,
            "dispute" => Subject::Dispute,
            "invoice" => Subject::Invoice,
            "subscription" => Subject::Subscription,
            "payout" => Subject::Payout,
            "tax_rate" => Subject::TaxRate,
            _ => return None,
        })
    }

    /// The list and the id of the object at Stripe that an item is about; none when it is about the ledger alone.
    pub(super) fn of_item(object_type: ObjectType, object_id: &str) -> Option<(Subject, &str)> {
        Some(match object_type {
            ObjectType::Charge => (Subject::Charge, object_id),
            ObjectType::PaymentIntent => (Subject::PaymentIntent, object_id),
            ObjectType::Refund => (Subject::Refund, object_id),
            ObjectType::Dispute => (Subject::Dispute, object_id),
            ObjectType::Invoice => (Subject::Invoice, object_id),
            // `<in_…>:<pi_… or ch_…>`
            ObjectType::InvoicePayment => (Subject::Invoice, object_id.split(':').next()?),
            ObjectType::Subscription => (Subject::Subscription, object_id),
            ObjectType::Payment => match PaymentKey::of(object_id) {
                PaymentKey::Intent(id) => (Subject::PaymentIntent, id),
                PaymentKey::Charge(id) | PaymentKey::OutOfBand(id) | PaymentKey::Manual(id) => {
                    (Subject::Charge, id)
                }
            },
            ObjectType::Payout => (Subject::Payout, object_id),
            ObjectType::BalanceTransaction => (Subject::BalanceTransaction, object_id),
            ObjectType::TaxRate => (Subject::TaxRate, object_id),
            ObjectType::RevenueDaily
            | ObjectType::UsageDaily
            | ObjectType::InvoiceTotal
            | ObjectType::InvoiceNumber => return None,
        })
    }

    /// The ids the ledger has of a span.
    pub(super) async fn stored(
        self,
        db: &Client,
        slice: Slice<'_>,
    ) -> Result<Vec<String>, store::Error> {
        match self {
            Subject::Charge => window::charges(db, slice).await,
            Subject::PaymentIntent => window::payment_intents(db, slice).await,
            Subject::Refund => window::refunds(db, slice).await,
            Subject::Dispute => window::disputes(db, slice).await,
            Subject::Invoice => window::invoices(db, slice).await,
            Subject::Subscription => window::subscriptions(db, slice).await,
            Subject::BalanceTransaction => window::balance_transactions(db, slice).await,
            Subject::Payout => window::payouts(db, slice).await,
            Subject::TaxRate => window::tax_rates(db, slice).await,
        }
    }
}
