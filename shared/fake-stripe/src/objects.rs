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
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: i64,
}

/// A price, recurring or one-time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub(crate) id: String,
    pub(crate) product: String,
    pub(crate) currency: String,
    pub(crate) unit_amount: i64,
    /// `day`, `week`, `month` or `year`; none is a one-time price.
    pub(crate) interval: Option<String>,
    pub(crate) interval_count: i64,
    /// `graduated` or `volume` with its slices.
    pub(crate) tiers: Option<(String, Vec<Tier>)>,
    pub(crate) lookup_key: Option<String>,
    pub(crate) nickname: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) active: bool,
    pub(crate) created: i64,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coupon {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Basis points: 5000 is 50 %.
    pub(crate) percent_off_bps: Option<i64>,
    pub(crate) amount_off: Option<i64>,
    pub(crate) currency: Option<String>,
    /// `forever`, `once` or `repeating`.
    pub(crate) duration: String,
    pub(crate) duration_in_months: Option<i64>,
    /// The products it is for; none means all.
    pub(crate) products: Vec<String>,
    pub(crate) created: i64,
}

/// A coupon attached to a customer or to one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discount {
    pub(crate) id: String,
    pub(crate) coupon: Coupon,
    pub(crate) customer: String,
    pub(crate) subscription: Option<String>,
    pub(crate) start: i64,
    pub(crate) end: Option<i64>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub(crate) id: String,
    pub(crate) email: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) currency: Option<String>,
    pub(crate) delinquent: bool,
    pub(crate) deleted: bool,
    pub(crate) invoice_prefix: String,
    pub(crate) next_invoice_sequence: i64,
    pub(crate) metadata: Metadata,
    /// What its subscriptions have that have no discount of their own.
    pub(crate) discount: Option<Discount>,
    pub(crate) created: i64,
}

/// One line of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub(crate) id: String,
    pub(crate) price: Price,
    pub(crate) quantity: i64,
    pub(crate) created: i64,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) items: Vec<Item>,
    pub(crate) status: &'static str,
    pub(crate) currency: String,
    pub(crate) collection_method: &'static str,
    /// The anchor periods are counted from, and how many have begun since.
    pub(crate) billing_cycle_anchor: i64,
    pub(crate) cycles: i64,
    pub(crate) current_period_start: i64,
    pub(crate) current_period_end: i64,
    pub(crate) trial_start: Option<i64>,
    pub(crate) trial_end: Option<i64>,
    pub(crate) cancel_at_period_end: bool,
    pub(crate) cancel_at: Option<i64>,
    pub(crate) canceled_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
    pub(crate) cancellation_reason: Option<&'static str>,
    pub(crate) discounts: Vec<Discount>,
    /// `void`, `keep_as_draft` or `mark_uncollectible`.
    pub(crate) pause_behavior: Option<String>,
    pub(crate) latest_invoice: Option<String>,
    /// Tax on every line, exclusive.
    pub(crate) tax_bps: i64,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
}

/// One line of an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) amount: i64,
    pub(crate) quantity: i64,
    pub(crate) price: Option<Price>,
    pub(crate) period_start: i64,
    pub(crate) period_end: i64,
    pub(crate) proration: bool,
    pub(crate) subscription: Option<String>,
    pub(crate) subscription_item: Option<String>,
    pub(crate) invoice_item: Option<String>,
    /// The discount's id and what it takes off.
    pub(crate) discount: Option<(String, i64)>,
    pub(crate) tax: i64,
}

/// An invoice with its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) customer_email: Option<String>,
    pub(crate) customer_name: Option<String>,
    pub(crate) subscription: Option<String>,
    pub(crate) subscription_metadata: Metadata,
    pub(crate) number: Option<String>,
    pub(crate) status: &'static str,
    pub(crate) billing_reason: &'static str,
    pub(crate) collection_method: &'static str,
    pub(crate) currency: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) discounts: Vec<Discount>,
    pub(crate) tax_bps: i64,
    pub(crate) tax_rate: Option<String>,
    pub(crate) subtotal: i64,
    pub(crate) discount_total: i64,
    pub(crate) tax_total: i64,
    pub(crate) total: i64,
    pub(crate) amount_due: i64,
    pub(crate) amount_paid: i64,
    pub(crate) pre_payment_credit: i64,
    pub(crate) post_payment_credit: i64,
    /// What of `amount_paid` came outside Stripe.
    pub(crate) outside: i64,
    pub(crate) attempt_count: i64,
    pub(crate) next_payment_attempt: Option<i64>,
    pub(crate) due_date: Option<i64>,
    pub(crate) period_start: i64,
    pub(crate) period_end: i64,
    pub(crate) finalized_at: Option<i64>,
    pub(crate) paid_at: Option<i64>,
    pub(crate) voided_at: Option<i64>,
    pub(crate) uncollectible_at: Option<i64>,
    pub(crate) payment_intent: Option<String>,
    pub(crate) charge: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
}

/// What is put on the customer's next invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceItem {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) subscription: Option<String>,
    pub(crate) invoice: Option<String>,
    pub(crate) line: Line,
    pub(crate) currency: String,
    pub(crate) created: i64,
}

/// Which payment paid how much of which invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoicePayment {
    pub(crate) id: String,
    pub(crate) invoice: String,
    pub(crate) payment: PaymentOfInvoice,
    /// Made with the invoice; canceled when the money comes another way.
    pub(crate) is_default: bool,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) paid_at: Option<i64>,
    pub(crate) created: i64,
}

/// What pays an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentOfInvoice {
    Intent(String),
    Record(String),
}

impl PaymentOfInvoice {
    pub(crate) fn intent(&self) -> Option<&str> {
        match self {
            PaymentOfInvoice::Intent(id) => Some(id),
            PaymentOfInvoice::Record(_) => None,
        }
    }
}

/// A payment that was reported to Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRecord {
    pub(crate) id: String,
    pub(crate) customer: Option<String>,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    /// `self`, or `stripe` for a payment that Stripe itself has reported.
    pub(crate) reported_by: &'static str,
    pub(crate) reference: String,
    pub(crate) created: i64,
}

/// Why a payment was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    pub(crate) code: &'static str,
    pub(crate) decline_code: &'static str,
    pub(crate) message: &'static str,
}

/// What the bank says of a debit that fails.
pub const NO_FUNDS_ON_ACCOUNT: Decline = Decline {
    code: "insufficient_funds",
    decline_code: "insufficient_funds",
    message: "The account has insufficient funds.",
};

/// The decline the operations use when the caller does not name one.
pub const INSUFFICIENT_FUNDS: Decline = Decline {
    code: "card_declined",
    decline_code: "insufficient_funds",
    message: "Your card has insufficient funds.",
};

/// A payment intent. Its charges are kept beside it, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentIntent {
    pub(crate) id: String,
    pub(crate) customer: Option<String>,
    pub(crate) amount: i64,
    pub(crate) amount_received: i64,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) invoice: Option<String>,
    pub(crate) charges: Vec<String>,
    pub(crate) last_error: Option<Decline>,
    pub(crate) canceled_at: Option<i64>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
}

/// A charge: one attempt at a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub(crate) id: String,
    pub(crate) payment_intent: String,
    pub(crate) invoice: Option<String>,
    pub(crate) customer: Option<String>,
    pub(crate) amount: i64,
    pub(crate) amount_refunded: i64,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) decline: Option<Decline>,
    pub(crate) balance_transaction: Option<String>,
    /// What took back a debit that failed.
    pub(crate) failure_balance_transaction: Option<String>,
    /// `card` or `us_bank_account`.
    pub(crate) method: &'static str,
    /// Newer versions capture asynchronously: the id shows only once this is set.
    pub(crate) settled: bool,
    pub(crate) disputed: bool,
    pub(crate) refunds: Vec<Refund>,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    pub(crate) id: String,
    pub(crate) charge: String,
    pub(crate) payment_intent: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) failure_reason: Option<&'static str>,
    pub(crate) balance_transaction: Option<String>,
    pub(crate) failure_balance_transaction: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
}

/// A dispute with the balance transactions it caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    pub(crate) id: String,
    pub(crate) charge: String,
    pub(crate) payment_intent: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) reason: &'static str,
    pub(crate) status: &'static str,
    pub(crate) has_evidence: bool,
    pub(crate) due_by: i64,
    pub(crate) balance_transactions: Vec<BalanceTransaction>,
    pub(crate) created: i64,
}

/// A movement of the account's balance, in the settlement currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalanceTransaction {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) kind: &'static str,
    pub(crate) reporting_category: &'static str,
    pub(crate) amount: i64,
    pub(crate) fee: i64,
    pub(crate) currency: String,
    /// Millionths: 1_080_000 is 1.08.
    pub(crate) exchange_rate_micros: Option<i64>,
    pub(crate) description: Option<String>,
    /// The automatic payout it went out with.
    pub(crate) payout: Option<String>,
    pub(crate) created: i64,
}

/// A payout to the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    pub(crate) id: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    /// Whether Stripe has assigned its transactions.
    pub(crate) reconciliation_status: &'static str,
    /// Made by Stripe of all that is available; only of these the transactions can be listed.
    pub(crate) automatic: bool,
    pub(crate) balance_transaction: String,
    pub(crate) arrival_date: i64,
    pub(crate) created: i64,
}

/// A tax rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaxRate {
    pub(crate) id: String,
    pub(crate) display_name: String,
    /// Basis points: 2000 is 20 %.
    pub(crate) bps: i64,
    pub(crate) country: String,
    pub(crate) jurisdiction: String,
    pub(crate) inclusive: bool,
    pub(crate) created: i64,
}

/// A credit note on an invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditNote {
    pub(crate) id: String,
    pub(crate) invoice: String,
    pub(crate) customer: String,
    pub(crate) number: String,
    /// With tax.
    pub(crate) amount: i64,
    pub(crate) tax: i64,
    pub(crate) tax_rate: Option<String>,
    pub(crate) currency: String,
    pub(crate) status: &'static str,
    pub(crate) pre_payment: bool,
    /// Whether the amount was paid back outside Stripe; otherwise it is a credit.
    pub(crate) out_of_band: bool,
    pub(crate) reason: Option<String>,
    pub(crate) voided_at: Option<i64>,
    pub(crate) created: i64,
}

/// A Checkout session that was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) customer_email: Option<String>,
    pub(crate) customer_name: Option<String>,
    pub(crate) client_reference_id: Option<String>,
    pub(crate) mode: &'static str,
    pub(crate) subscription: Option<String>,
    pub(crate) payment_intent: Option<String>,
    pub(crate) invoice: Option<String>,
    pub(crate) amount_total: i64,
    pub(crate) currency: String,
    pub(crate) metadata: Metadata,
    pub(crate) created: i64,
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
    PaymentRecord(PaymentRecord),
    /// The intent with its charges, oldest first: the oldest shape shows them inside.
    PaymentIntent(PaymentIntent, Vec<Charge>),
    Charge(Charge),
    Refund(Refund),
    Dispute(Dispute),
    BalanceTransaction(BalanceTransaction),
    Payout(Payout),
    TaxRate(TaxRate),
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
            Object::PaymentRecord(record) => &record.id,
            Object::PaymentIntent(intent, _) => &intent.id,
            Object::Charge(charge) => &charge.id,
            Object::Refund(refund) => &refund.id,
            Object::Dispute(dispute) => &dispute.id,
            Object::BalanceTransaction(transaction) => &transaction.id,
            Object::Payout(payout) => &payout.id,
            Object::TaxRate(rate) => &rate.id,
            Object::CreditNote(note) => &note.id,
            Object::Session(session) => &session.id,
        }
    }
}

/// An object that is kept on a shelf of its kind.
pub(crate) trait Stored: Clone {
    fn id(&self) -> &str;
    fn created(&self) -> i64;
    fn into_object(self) -> Object;
}

macro_rules! stored {
    ($($kind:ident => $wrap:expr;)*) => {$(
        impl Stored for $kind {
            fn id(&self) -> &str {
                &self.id
            }

            fn created(&self) -> i64 {
                self.created
            }

            fn into_object(self) -> Object {
                $wrap(self)
            }
        }
    )*};
}

stored! {
    Product => Object::Product;
    Price => Object::Price;
    Coupon => Object::Coupon;
    Customer => Object::Customer;
    Subscription => Object::Subscription;
    Invoice => |invoice| Object::Invoice(Box::new(invoice));
    InvoiceItem => |item| Object::InvoiceItem(Box::new(item));
    InvoicePayment => Object::InvoicePayment;
    PaymentRecord => Object::PaymentRecord;
    Charge => Object::Charge;
    Refund => Object::Refund;
    Dispute => Object::Dispute;
    BalanceTransaction => Object::BalanceTransaction;
    Payout => Object::Payout;
    TaxRate => Object::TaxRate;
    CreditNote => Object::CreditNote;
    Session => Object::Session;
}
