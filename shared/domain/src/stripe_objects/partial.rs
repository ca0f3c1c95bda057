//! Why a row shows only a part of its object, and what has to be fetched for the rest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::Currency;
use crate::words::words;

words!(
    /// What an event left out. Stored in `partial` of each mirrored row, and in `stripe_lookups.reason`.
    Reason {
        /// Which payments paid an invoice.
        Payments = "payments",
        /// The lines of an invoice after the first ones.
        Lines = "lines",
        /// A tax rate that an invoice or a credit note names.
        TaxRate = "tax_rate",
        /// The balance transaction of a charge, and with it the fee.
        Fee = "fee",
        /// Refunds that a charge's total contains.
        Refunds = "refunds",
        /// The balance transactions of a dispute, or what converts them.
        Transactions = "transactions",
        /// The balance transactions of a payout.
        PayoutTransactions = "payout_transactions",
        /// The items of a subscription after the first ones.
        Items = "items",
        /// The tiers of a price.
        Tiers = "tiers",
        /// What a price costs in the subscription's currency.
        Currency = "currency",
        /// Discounts that are named by their ids.
        Discounts = "discounts",
        /// What a coupon takes off, or for what.
        Coupon = "coupon",
        /// Whether the customer has a discount.
        Customer = "customer",
        /// Which of two snapshots of one second came last.
        Undecidable = "undecidable",
        /// The event that a thin event stands for, or the object that it is about. No row has this reason.
        Event = "event",
        /// The object of an event that is parked, since it cannot be read. No row has this reason.
        Unreadable = "unreadable",
    }
);

/// A fact that a snapshot leaves out, and the object that has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Missing {
    pub reason: Reason,
    /// The id of the object to fetch.
    pub stripe_id: String,
}

/// A fetch that a row waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// What is fetched: `invoice_payments`, `price`, …
    pub kind: &'static str,
    /// Of which object.
    pub stripe_id: String,
    pub reason: Reason,
    /// The time of the snapshot that left it out: nothing is fetched with an earlier time.
    pub requested_at: Timestamp,
    /// Not before. An event may bring it until then.
    pub due_at: Timestamp,
    /// What a figure may be wrong by; `None` when none is.
    pub stake: Option<Stake>,
}

/// An amount that may change once the look-up is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stake {
    pub currency: Currency,
    /// The instant that the figure counts it at.
    pub at: Timestamp,
    /// In minor units.
    pub amount_cents: i64,
}
