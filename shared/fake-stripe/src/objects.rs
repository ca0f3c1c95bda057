//! The objects of a Stripe account as the fake keeps them: independent of any API shape.
//!
//! Amounts are minor units of `currency` (lower case, as Stripe writes it), times are Unix
//! seconds, ids are Stripe's. An object embeds copies of what it names (a subscription its prices,
//! a discount its coupon), so that a snapshot of it can be rendered on its own later.

use std::collections::BTreeMap;

/// Key and value pairs a caller attached.
pub type Metadata = BTreeMap<String, String>;

/// One slice of a tiered price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The last quantity of the slice; none means without end.
    pub up_to: Option<i64>,
    /// Per unit, in minor units.
    pub unit_amount: i64,
    /// Once for the slice, in minor units.
    pub flat_amount: i64,
}

/// A product: what prices are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    pub id: String,
    pub name: String,
    pub created: i64,
}

/// A price, recurring or one-time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub id: String,
    pub product: String,
    pub currency: String,
    pub unit_amount: i64,
    /// `day`, `week`, `month` or `year`; none is a one-time price.
    pub interval: Option<String>,
    pub interval_count: i64,
    /// `graduated` or `volume` with its slices.
    pub tiers: Option<(String, Vec<Tier>)>,
    pub lookup_key: Option<String>,
    pub nickname: Option<String>,
    pub metadata: Metadata,
    pub active: bool,
    pub created: i64,
}

impl Price {
    /// What `quantity` costs for one period, in minor units.
    #[must_use]
    pub fn amount(&self, quantity: i64) -> i64 {
        let Some((mode, tiers)) = &self.tiers else {
            return self.unit_amount * quantity;
        };
        if mode == "volume" {
            let tier = tiers
                .iter()
                .find(|tier| tier.up_to.is_none_or(|last| quantity <= last));
            return tier.map_or(0, |tier| tier.unit_amount * quantity + tier.flat_amount);
        }
        let mut total = 0;
        let mut from = 0;
        for tier in tiers {
            let last = tier.up_to.unwrap_or(quantity).min(quantity);
            if last > from {
                total += (last - from) * tier.unit_amount + tier.flat_amount;
                from = last;
            }
        }
        total
    }
}

/// A coupon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    pub id: String,
    pub name: String,
    /// Basis points: 5000 is 50 %.
    pub percent_off_bps: Option<i64>,
    pub amount_off: Option<i64>,
    pub currency: Option<String>,
    /// `forever`, `once` or `repeating`.
    pub duration: String,
    pub duration_in_months: Option<i64>,
    pub created: i64,
}

/// A coupon attached to a customer or to one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discount {
    pub id: String,
    pub coupon: Coupon,
    pub customer: String,
    pub subscription: Option<String>,
    pub start: i64,
    pub end: Option<i64>,
}

/// A customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub id: String,
    pub email: Option<String>,
    pub name: Option<String>,
    pub currency: Option<String>,
    pub delinquent: bool,
    pub deleted: bool,
    pub invoice_prefix: String,
    pub next_invoice_sequence: i64,
    pub metadata: Metadata,
    pub created: i64,
}

/// One line of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    pub price: Price,
    pub quantity: i64,
    pub created: i64,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub id: String,
    pub customer: String,
    pub items: Vec<Item>,
    pub status: &'static str,
    pub currency: String,
    pub collection_method: &'static str,
    /// The anchor periods are counted from, and how many have begun since.
    pub billing_cycle_anchor: i64,
    pub cycles: i64,
    pub current_period_start: i64,
    pub current_period_end: i64,
    pub trial_start: Option<i64>,
    pub trial_end: Option<i64>,
    pub cancel_at_period_end: bool,
    pub cancel_at: Option<i64>,
    pub canceled_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub cancellation_reason: Option<&'static str>,
    pub discounts: Vec<Discount>,
    /// `void`, `keep_as_draft` or `mark_uncollectible`.
    pub pause_behavior: Option<String>,
    pub latest_invoice: Option<String>,
    /// Tax on every line, exclusive.
    pub tax_bps: i64,
    pub metadata: Metadata,
    pub created: i64,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: String,
    pub description: String,
    pub amount: i64,
    pub quantity: i64,
    pub price: Option<Price>,
    pub period_start: i64,
    pub period_end: i64,
    pub proration: bool,
    pub subscription: Option<String>,
    pub subscription_item: Option<String>,
    pub invoice_item: Option<String>,
    /// The discount's id and what it takes off.
    pub discount: Option<(String, i64)>,
    pub tax: i64,
}

/// An invoice with its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub id: String,
    pub customer: String,
    pub customer_email: Option<String>,
    pub customer_name: Option<String>,
    pub subscription: Option<String>,
    pub subscription_metadata: Metadata,
    pub number: Option<String>,
    pub status: &'static str,
    pub billing_reason: &'static str,
    pub collection_method: &'static str,
    pub currency: String,
    pub lines: Vec<Line>,
    pub discounts: Vec<Discount>,
    pub tax_bps: i64,
    pub subtotal: i64,
    pub discount_total: i64,
    pub tax_total: i64,
    pub total: i64,
    pub amount_due: i64,
    pub amount_paid: i64,
    pub pre_payment_credit: i64,
    pub post_payment_credit: i64,
    pub out_of_band: bool,
    pub attempt_count: i64,
    pub next_payment_attempt: Option<i64>,
    pub due_date: Option<i64>,
    pub period_start: i64,
    pub period_end: i64,
    pub finalized_at: Option<i64>,
    pub paid_at: Option<i64>,
    pub voided_at: Option<i64>,
    pub uncollectible_at: Option<i64>,
    pub payment_intent: Option<String>,
    pub charge: Option<String>,
    pub metadata: Metadata,
    pub created: i64,
}

/// What is put on the customer's next invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceItem {
    pub id: String,
    pub customer: String,
    pub subscription: Option<String>,
    pub invoice: Option<String>,
    pub line: Line,
    pub currency: String,
    pub created: i64,
}

/// Which payment paid how much of which invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoicePayment {
    pub id: String,
    pub invoice: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    pub status: &'static str,
    pub paid_at: Option<i64>,
    pub created: i64,
}

/// Why a payment was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    pub code: &'static str,
    pub decline_code: &'static str,
    pub message: &'static str,
}

/// The decline the operations use when the caller does not name one.
pub const INSUFFICIENT_FUNDS: Decline = Decline {
    code: "card_declined",
    decline_code: "insufficient_funds",
    message: "Your card has insufficient funds.",
};

/// A payment intent. Its charges are kept beside it, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentIntent {
    pub id: String,
    pub customer: Option<String>,
    pub amount: i64,
    pub amount_received: i64,
    pub currency: String,
    pub status: &'static str,
    pub invoice: Option<String>,
    pub charges: Vec<String>,
    pub last_error: Option<Decline>,
    pub canceled_at: Option<i64>,
    pub description: Option<String>,
    pub metadata: Metadata,
    pub created: i64,
}

/// A charge: one attempt at a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    pub payment_intent: String,
    pub invoice: Option<String>,
    pub customer: Option<String>,
    pub amount: i64,
    pub amount_refunded: i64,
    pub currency: String,
    pub status: &'static str,
    pub decline: Option<Decline>,
    pub balance_transaction: Option<String>,
    /// Newer versions capture asynchronously: the id shows only once this is set.
    pub settled: bool,
    pub disputed: bool,
    pub refunds: Vec<Refund>,
    pub metadata: Metadata,
    pub created: i64,
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    pub id: String,
    pub charge: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    pub status: &'static str,
    pub reason: Option<String>,
    pub failure_reason: Option<&'static str>,
    pub balance_transaction: Option<String>,
    pub failure_balance_transaction: Option<String>,
    pub metadata: Metadata,
    pub created: i64,
}

/// A dispute with the balance transactions it caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    pub id: String,
    pub charge: String,
    pub payment_intent: String,
    pub amount: i64,
    pub currency: String,
    pub reason: &'static str,
    pub status: &'static str,
    pub has_evidence: bool,
    pub due_by: i64,
    pub balance_transactions: Vec<BalanceTransaction>,
    pub created: i64,
}

/// A movement of the account's balance, in the settlement currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceTransaction {
    pub id: String,
    pub source: String,
    pub kind: &'static str,
    pub reporting_category: &'static str,
    pub amount: i64,
    pub fee: i64,
    pub currency: String,
    /// Millionths: 1_080_000 is 1.08.
    pub exchange_rate_micros: Option<i64>,
    pub description: Option<String>,
    /// The automatic payout it went out with.
    pub payout: Option<String>,
    pub created: i64,
}

/// A payout to the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    pub id: String,
    pub amount: i64,
    pub currency: String,
    pub status: &'static str,
    /// Made by Stripe of all that is available; only of these the transactions can be listed.
    pub automatic: bool,
    pub balance_transaction: String,
    pub arrival_date: i64,
    pub created: i64,
}

/// A credit note on an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditNote {
    pub id: String,
    pub invoice: String,
    pub customer: String,
    pub number: String,
    pub amount: i64,
    pub currency: String,
    pub status: &'static str,
    pub pre_payment: bool,
    pub reason: Option<String>,
    pub voided_at: Option<i64>,
    pub created: i64,
}

/// A Checkout session that was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: String,
    pub customer: String,
    pub customer_email: Option<String>,
    pub customer_name: Option<String>,
    pub client_reference_id: Option<String>,
    pub mode: &'static str,
    pub subscription: Option<String>,
    pub payment_intent: Option<String>,
    pub invoice: Option<String>,
    pub amount_total: i64,
    pub currency: String,
    pub metadata: Metadata,
    pub created: i64,
}

/// A snapshot of any object, complete enough to be rendered on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    Product(Product),
    Price(Price),
    Coupon(Coupon),
    Discount(Discount),
    Customer(Customer),
    Subscription(Subscription),
    Invoice(Box<Invoice>),
    InvoiceItem(Box<InvoiceItem>),
    InvoicePayment(InvoicePayment),
    /// The intent with its charges, oldest first: the oldest shape shows them inside.
    PaymentIntent(PaymentIntent, Vec<Charge>),
    Charge(Charge),
    Refund(Refund),
    Dispute(Dispute),
    BalanceTransaction(BalanceTransaction),
    Payout(Payout),
    CreditNote(CreditNote),
    Session(Session),
}

impl Object {
    /// Stripe's id of the object.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Object::Product(product) => &product.id,
            Object::Price(price) => &price.id,
            Object::Coupon(coupon) => &coupon.id,
            Object::Discount(discount) => &discount.id,
            Object::Customer(customer) => &customer.id,
            Object::Subscription(subscription) => &subscription.id,
            Object::Invoice(invoice) => &invoice.id,
            Object::InvoiceItem(item) => &item.id,
            Object::InvoicePayment(payment) => &payment.id,
            Object::PaymentIntent(intent, _) => &intent.id,
            Object::Charge(charge) => &charge.id,
            Object::Refund(refund) => &refund.id,
            Object::Dispute(dispute) => &dispute.id,
            Object::BalanceTransaction(transaction) => &transaction.id,
            Object::Payout(payout) => &payout.id,
            Object::CreditNote(note) => &note.id,
            Object::Session(session) => &session.id,
        }
    }
}
