//! Payments: the facts Stripe announces about one payment, and the one row they add up to.
//!
//! An intent, its charges, refunds, disputes and invoice links each have a row with the latest snapshot. [`derive`]
//! turns them into the payment and its revenue entries. It is a pure function, so the order in which the facts arrived
//! cannot matter.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::money::{self, Currency, div_half_even};
use crate::payment::key::PaymentKey;
use crate::revenue::entries::{EntryKind, RevenueEntry};
use crate::stripe_objects::balance::{BalanceTransaction, SourceKind};
use crate::stripe_objects::invoice::{Invoice, InvoiceStatus};
use crate::stripe_objects::objects::{Ids, Kind};
use crate::stripe_objects::snapshot::{Snapshot, Version, earliest, known};
use crate::stripe_objects::status::{ChargeStatus, DisputeStatus, IntentStatus, RefundStatus};
use crate::words::words;

pub mod key;
pub mod outside;

/// A payment intent as one snapshot shows it.
/// Source: <https://docs.stripe.com/api/payment_intents/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct PaymentIntent {
    pub stripe_payment_intent_id: String,
    pub stripe_customer_id: Option<String>,
    pub amount_cents: i64,
    pub amount_received_cents: Option<i64>,
    pub currency: Currency,
    pub status: String,
    pub latest_charge_id: Option<String>,
    pub stripe_invoice_id: Option<String>,
    pub payment_method: Option<String>,
    pub failure_code: Option<String>,
    pub decline_code: Option<String>,
    pub failure_message: Option<String>,
    /// The time of the earliest event that shows the success.
    pub succeeded_at: Option<Timestamp>,
    pub canceled_at: Option<Timestamp>,
    /// The user in the intent's metadata (`metadata.user_id`).
    pub user_id: Option<i32>,
    pub created_at: Timestamp,
    pub version: Version,
}

impl Snapshot for PaymentIntent {
    fn key(&self) -> String {
        self.stripe_payment_intent_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.payment_intents
            .push(self.stripe_payment_intent_id.clone());
        ids.charges.extend(self.latest_charge_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
    }

    fn absorb(&mut self, earlier: &PaymentIntent) {
        earliest(&mut self.succeeded_at, earlier.succeeded_at);
        known(&mut self.stripe_invoice_id, &earlier.stripe_invoice_id);
        known(&mut self.stripe_customer_id, &earlier.stripe_customer_id);
    }
}

/// One charge: one attempt at a payment. Source: <https://docs.stripe.com/api/charges/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub stripe_charge_id: String,
    pub stripe_payment_intent_id: Option<String>,
    pub stripe_customer_id: Option<String>,
    pub stripe_invoice_id: Option<String>,
    pub amount_cents: i64,
    pub amount_captured_cents: i64,
    pub currency: Currency,
    /// `pending`, `failed` or `succeeded`.
    pub status: String,
    pub is_captured: bool,
    pub failure_code: Option<String>,
    pub decline_code: Option<String>,
    pub failure_message: Option<String>,
    pub payment_method: Option<String>,
    pub user_id: Option<i32>,
    /// The time of the earliest event that shows the capture.
    pub succeeded_at: Option<Timestamp>,
    /// `amount_refunded` by the time (unix seconds) of the snapshot that showed it, for accounts that get no event for
    /// each refund.
    pub refund_totals: BTreeMap<i64, i64>,
    pub stripe_balance_transaction_id: Option<String>,
    /// What took the charge back that failed after all.
    pub failure_balance_transaction_id: Option<String>,
    pub attempted_at: Timestamp,
    pub version: Version,
}

/// What the balance transaction of a payment's charge says, in the currency of the account's balance.
/// Source: <https://docs.stripe.com/api/balance_transactions/object>.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settlement {
    pub currency: Currency,
    pub amount_cents: i64,
    pub fee_cents: i64,
    /// The rate that Stripe shows, as decimal text; `None` without a conversion.
    pub exchange_rate: Option<String>,
}

/// A refund as one snapshot shows it. Source: <https://docs.stripe.com/api/refunds/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Refund {
    pub stripe_refund_id: String,
    pub stripe_charge_id: Option<String>,
    pub stripe_payment_intent_id: Option<String>,
    pub amount_cents: i64,
    pub currency: Currency,
    pub reason: Option<String>,
    pub status: String,
    pub stripe_balance_transaction_id: Option<String>,
    /// What brought the refund back that failed.
    pub failure_balance_transaction_id: Option<String>,
    pub metadata: Value,
    /// Whether it is a refund at Stripe, or what a credit note paid back outside.
    pub source: RefundSource,
    /// The invoice of the credit note; `None` of a refund at Stripe.
    pub stripe_invoice_id: Option<String>,
    pub created_at: Timestamp,
    pub failed_at: Option<Timestamp>,
    pub version: Version,
}

words!(
    /// Where a row of `refunds` comes from.
    RefundSource {
        Stripe = "stripe",
        /// Money that a credit note paid back outside Stripe; the row's key is the note's.
        CreditNote = "credit_note",
    }
);

/// A dispute as one snapshot shows it. Source: <https://docs.stripe.com/api/disputes/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispute {
    pub stripe_dispute_id: String,
    pub stripe_charge_id: Option<String>,
    pub stripe_payment_intent_id: Option<String>,
    pub amount_cents: i64,
    pub currency: Currency,
    pub reason: Option<String>,
    pub status: String,
    /// What moved its money; `None` while nobody has shown the list.
    pub balance_transaction_ids: Option<BTreeSet<String>>,
    /// When an event announced the withdrawal; the money is what the transactions say.
    pub funds_withdrawn_at: Option<Timestamp>,
    /// When an event announced the reinstatement.
    pub funds_reinstated_at: Option<Timestamp>,
    pub closed_at: Option<Timestamp>,
    pub evidence_due_by: Option<Timestamp>,
    pub created_at: Timestamp,
    pub version: Version,
}

/// The link that says a payment pays an invoice: an intent, a charge or a payment record. One payment may pay several
/// invoices, and several payments one invoice. From API version basil on only `invoice_payment.paid` has it.
/// Source: <https://docs.stripe.com/api/invoice-payment/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct InvoicePayment {
    pub stripe_invoice_id: String,
    pub stripe_payment_intent_id: Option<String>,
    pub stripe_charge_id: Option<String>,
    /// A payment that somebody has reported to Stripe; mostly money that came outside Stripe.
    pub stripe_payment_record_id: Option<String>,
    /// Who reported the payment record, in Stripe's words (`self`, `stripe`); known once it was fetched.
    pub reported_by: Option<String>,
    pub stripe_invoice_payment_id: Option<String>,
    /// Whether Stripe made it with the invoice; it is canceled when the money comes another way.
    pub is_default: Option<bool>,
    pub stripe_customer_id: Option<String>,
    /// The part of the payment that pays this invoice.
    pub amount_paid_cents: Option<i64>,
    pub currency: Option<Currency>,
    /// `open`, `paid` or `canceled`; only paid ones count.
    pub status: Option<String>,
    pub paid_at: Option<Timestamp>,
    pub version: Version,
}

/// Everything that is known about one payment.
#[derive(Debug, Clone, Default)]
pub struct PaymentFacts {
    /// `pi_…`, or `ch_…` for a charge without an intent.
    pub payment_key: String,
    pub intent: Option<PaymentIntent>,
    pub charges: Vec<Charge>,
    pub refunds: Vec<Refund>,
    pub disputes: Vec<Dispute>,
    /// Those of which it is known that they are the payment's.
    pub balance_transactions: Vec<BalanceTransaction>,
    pub invoice_payments: Vec<InvoicePayment>,
    /// When the payment's invoice was paid with money: from API version basil on the link does not say so.
    pub invoice_paid_at: Option<Timestamp>,
}

/// The estimate until Stripe names the fee: `FEE_ESTIMATE_BPS`, `FEE_ESTIMATE_FIXED_CENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeEstimate {
    pub bps: i64,
    /// In minor units; applies to currencies with two decimals only.
    pub fixed_cents: i64,
}

/// One row of `payment_history`.
#[derive(Debug, Clone, PartialEq)]
pub struct Payment {
    pub payment_key: String,
    pub stripe_payment_intent_id: Option<String>,
    pub stripe_charge_id: Option<String>,
    pub stripe_customer_id: Option<String>,
    pub stripe_invoice_id: Option<String>,
    /// The user in the payment's own metadata. The customer's user comes first.
    pub user_id: Option<i32>,
    pub amount_cents: i64,
    pub currency: Currency,
    pub status: PaymentStatus,
    pub payment_method: Option<String>,
    pub stripe_fee_cents: i64,
    pub fee_source: Option<FeeSource>,
    pub net_amount_cents: i64,
    pub failure_code: Option<String>,
    pub decline_code: Option<String>,
    pub failure_message: Option<String>,
    pub refunded_at: Option<Timestamp>,
    pub refund_reason: Option<String>,
    pub refund_amount_cents: i64,
    /// The part of the charge's `amount_refunded` that is no refund: the rest of an authorisation that was captured in
    /// part. In minor units.
    pub released_cents: i64,
    /// The charges whose total says that more went back than the known refunds add up to.
    pub charges_short_of_refunds: Vec<String>,
    /// The balance transactions of disputes whose amounts cannot be stated in the payment's currency.
    pub not_convertible: Vec<String>,
    pub stripe_balance_transaction_id: Option<String>,
    pub settlement: Option<Settlement>,
    pub succeeded_at: Option<Timestamp>,
    pub dispute_status: Option<String>,
    pub disputed_amount_cents: i64,
    pub created_at: Timestamp,
    /// What the payment adds to `revenue_daily`.
    pub entries: Vec<RevenueEntry>,
}

words!(
    /// The states of `payment_history.status`.
    PaymentStatus {
        Pending = "pending",
        Succeeded = "succeeded",
        Failed = "failed",
        Refunded = "refunded",
        PartiallyRefunded = "partially_refunded",
        Disputed = "disputed",
        Canceled = "canceled",
    }
);
words!(
    /// Where a fee comes from.
    FeeSource {
        /// As Stripe's balance transaction says.
        Actual = "actual",
        /// Our estimate, until Stripe names the fee.
        Estimated = "estimated",
    }
);
words!(
    /// How a partner's payment outside Stripe came in.
    ManualPaymentMethod {
        Wire = "wire",
        Check = "check",
        Ach = "ach",
    }
);

/// The rank of an intent's status within one second, ×100, plus the rank of the event's type.
#[must_use]
pub fn intent_rank(status: &str, event_type: &str) -> i32 {
    let status_rank = match IntentStatus::of(status) {
        IntentStatus::Canceled => 2,
        IntentStatus::Succeeded => 3,
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresSource
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::RequiresSourceAction
        | IntentStatus::Processing
        | IntentStatus::RequiresCapture
        | IntentStatus::Unknown => 0,
    };
    let type_rank = match event_type {
        "payment_intent.created" => 1,
        "payment_intent.requires_action" => 2,
        "payment_intent.processing" => 3,
        "payment_intent.payment_failed" => 4,
        "payment_intent.canceled" => 6,
        "payment_intent.succeeded" => 7,
        _ => 5,
    };
    status_rank * 100 + type_rank
}

/// The rank of a charge's state within one second, ×100, plus the rank of the event's type.
#[must_use]
pub fn charge_rank(status: &str, is_refunded: bool, event_type: &str) -> i32 {
    let status_rank = match (ChargeStatus::of(status), is_refunded) {
        (ChargeStatus::Succeeded, true) => 3,
        (ChargeStatus::Succeeded, false) => 2,
        (ChargeStatus::Failed, _) => 1,
        (ChargeStatus::Pending | ChargeStatus::Unknown, _) => 0,
    };
    let type_rank = match event_type {
        "charge.pending" => 1,
        "charge.failed" => 2,
        "charge.succeeded" => 3,
        "charge.captured" => 4,
        "charge.updated" => 5,
        "charge.expired" => 6,
        "charge.refunded" => 7,
        // Read inside another object.
        _ => 0,
    };
    status_rank * 100 + type_rank
}

/// The rank of a refund's status within one second.
#[must_use]
pub fn refund_rank(status: &str) -> i32 {
    match RefundStatus::of(status) {
        RefundStatus::Pending => 0,
        RefundStatus::RequiresAction => 100,
        RefundStatus::Succeeded | RefundStatus::Unknown => 200,
        RefundStatus::Failed | RefundStatus::Canceled => 300,
    }
}

/// The rank of a dispute's status within one second.
#[must_use]
pub fn dispute_rank(status: &str) -> i32 {
    match DisputeStatus::of(status) {
        DisputeStatus::WarningNeedsResponse => 0,
        DisputeStatus::WarningUnderReview => 100,
        DisputeStatus::WarningClosed => 200,
        DisputeStatus::NeedsResponse => 300,
        DisputeStatus::UnderReview => 400,
        DisputeStatus::Unknown => 500,
        DisputeStatus::Won
        | DisputeStatus::Lost
        | DisputeStatus::ChargeRefunded
        | DisputeStatus::Prevented => 600,
    }
}

impl Snapshot for Charge {
    fn key(&self) -> String {
        self.stripe_charge_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.charges.push(self.stripe_charge_id.clone());
        ids.payment_intents
            .extend(self.stripe_payment_intent_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
        ids.balance_transactions
            .extend(self.transaction_ids().cloned());
    }

    fn absorb(&mut self, earlier: &Charge) {
        for (at, total) in &earlier.refund_totals {
            let shown = self.refund_totals.entry(*at).or_insert(*total);
            *shown = (*shown).max(*total);
        }
        earliest(&mut self.succeeded_at, earlier.succeeded_at);
        known(
            &mut self.stripe_payment_intent_id,
            &earlier.stripe_payment_intent_id,
        );
        known(&mut self.stripe_customer_id, &earlier.stripe_customer_id);
        known(&mut self.stripe_invoice_id, &earlier.stripe_invoice_id);
        known(
            &mut self.stripe_balance_transaction_id,
            &earlier.stripe_balance_transaction_id,
        );
        known(
            &mut self.failure_balance_transaction_id,
            &earlier.failure_balance_transaction_id,
        );
    }
}

impl Charge {
    /// What the charge's word for its status stands for.
    #[must_use]
    pub fn known_status(&self) -> ChargeStatus {
        ChargeStatus::of(&self.status)
    }

    /// Whether the charge was refused.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.known_status() == ChargeStatus::Failed
    }

    /// Whether the charge was authorised, captured or not.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        self.known_status() == ChargeStatus::Succeeded
    }

    /// Whether the money was taken.
    #[must_use]
    pub fn is_paid(&self) -> bool {
        self.has_succeeded() && self.is_captured
    }

    /// Whether the charge says that this balance transaction is its own.
    #[must_use]
    pub fn names_transaction(&self, id: &str) -> bool {
        self.transaction_ids().any(|known| known == id)
    }

    /// The balance transactions that the charge names.
    pub fn transaction_ids(&self) -> impl Iterator<Item = &String> {
        let ids = [
            &self.stripe_balance_transaction_id,
            &self.failure_balance_transaction_id,
        ];
        ids.into_iter().flatten()
    }

    /// The balance transaction of the charge itself: the one it names, otherwise one that names the charge.
    fn own_transaction<'a>(
        &self,
        transactions: &'a [BalanceTransaction],
    ) -> Option<&'a BalanceTransaction> {
        let is_own = |one: &&BalanceTransaction| match &self.stripe_balance_transaction_id {
            Some(id) => one.stripe_balance_transaction_id == *id,
            None => {
                one.source_kind == Some(SourceKind::Charge)
                    && one.source_id.as_ref() == Some(&self.stripe_charge_id)
            }
        };
        transactions.iter().find(is_own)
    }
}

impl PaymentIntent {
    /// What the intent's word for its status stands for.
    #[must_use]
    pub fn known_status(&self) -> IntentStatus {
        IntentStatus::of(&self.status)
    }
}

impl Snapshot for Refund {
    fn key(&self) -> String {
        self.stripe_refund_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.refunds.push(self.stripe_refund_id.clone());
        ids.charges.extend(self.stripe_charge_id.clone());
        ids.payment_intents
            .extend(self.stripe_payment_intent_id.clone());
        ids.balance_transactions
            .extend(self.transaction_ids().cloned());
    }

    fn absorb(&mut self, earlier: &Refund) {
        earliest(&mut self.failed_at, earlier.failed_at);
        known(
            &mut self.stripe_balance_transaction_id,
            &earlier.stripe_balance_transaction_id,
        );
        known(
            &mut self.failure_balance_transaction_id,
            &earlier.failure_balance_transaction_id,
        );
        known(&mut self.stripe_charge_id, &earlier.stripe_charge_id);
        known(
            &mut self.stripe_payment_intent_id,
            &earlier.stripe_payment_intent_id,
        );
    }
}

impl Refund {
    /// The balance transactions that the refund names.
    pub fn transaction_ids(&self) -> impl Iterator<Item = &String> {
        let ids = [
            &self.stripe_balance_transaction_id,
            &self.failure_balance_transaction_id,
        ];
        ids.into_iter().flatten()
    }

    /// Whether the money has gone back, or is on its way.
    #[must_use]
    pub fn counts(&self) -> bool {
        !matches!(
            RefundStatus::of(&self.status),
            RefundStatus::Failed | RefundStatus::Canceled
        )
    }
}

impl Snapshot for Dispute {
    fn key(&self) -> String {
        self.stripe_dispute_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.disputes.push(self.stripe_dispute_id.clone());
        ids.charges.extend(self.stripe_charge_id.clone());
        ids.payment_intents
            .extend(self.stripe_payment_intent_id.clone());
        ids.balance_transactions
            .extend(self.transaction_ids().cloned());
    }

    fn absorb(&mut self, earlier: &Dispute) {
        if let Some(earlier) = &earlier.balance_transaction_ids {
            let shown = self.balance_transaction_ids.get_or_insert_default();
            shown.extend(earlier.iter().cloned());
        }
        earliest(&mut self.funds_withdrawn_at, earlier.funds_withdrawn_at);
        earliest(&mut self.funds_reinstated_at, earlier.funds_reinstated_at);
        earliest(&mut self.closed_at, earlier.closed_at);
        known(&mut self.stripe_charge_id, &earlier.stripe_charge_id);
        known(
            &mut self.stripe_payment_intent_id,
            &earlier.stripe_payment_intent_id,
        );
    }
}

impl Dispute {
    /// Whether the dispute is an inquiry: no money has moved, and maybe none will.
    #[must_use]
    pub fn is_inquiry(&self) -> bool {
        self.status.starts_with("warning_")
    }

    /// Whether the dispute says that this balance transaction is its own.
    #[must_use]
    pub fn names_transaction(&self, id: &str) -> bool {
        self.transaction_ids().any(|known| known == id)
    }

    /// The balance transactions that the dispute names.
    pub fn transaction_ids(&self) -> impl Iterator<Item = &String> {
        self.balance_transaction_ids.iter().flatten()
    }

    /// Whether the payment is disputed: open or lost, and no inquiry.
    fn is_open_or_lost(&self) -> bool {
        !self.is_inquiry()
            && !matches!(
                DisputeStatus::of(&self.status),
                DisputeStatus::Won | DisputeStatus::ChargeRefunded | DisputeStatus::Prevented
            )
    }
}

impl Snapshot for InvoicePayment {
    fn key(&self) -> String {
        self.link_key()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.invoices.push(self.stripe_invoice_id.clone());
        ids.payment_intents
            .extend(self.stripe_payment_intent_id.clone());
        ids.charges.extend(self.stripe_charge_id.clone());
        ids.invoice_payments
            .extend(self.stripe_payment_record_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
    }

    fn absorb(&mut self, earlier: &InvoicePayment) {
        known(&mut self.stripe_charge_id, &earlier.stripe_charge_id);
        known(&mut self.reported_by, &earlier.reported_by);
        known(&mut self.is_default, &earlier.is_default);
        known(
            &mut self.stripe_invoice_payment_id,
            &earlier.stripe_invoice_payment_id,
        );
        known(&mut self.stripe_customer_id, &earlier.stripe_customer_id);
        known(&mut self.amount_paid_cents, &earlier.amount_paid_cents);
        known(&mut self.currency, &earlier.currency);
        // "canceled" < "open" < "paid": the greater word is also the later one.
        known(&mut self.status, &earlier.status);
        earliest(&mut self.paid_at, earlier.paid_at);
    }
}

impl InvoicePayment {
    /// The key of the link: the invoice and the payment.
    #[must_use]
    pub fn link_key(&self) -> String {
        let payment = self
            .stripe_payment_intent_id
            .as_deref()
            .or(self.stripe_charge_id.as_deref())
            .or(self.stripe_payment_record_id.as_deref())
            .unwrap_or_default();
        format!("{}:{payment}", self.stripe_invoice_id)
    }

    /// What it has paid of the invoice, in minor units; 0 while it is not paid.
    #[must_use]
    pub fn applied_cents(&self) -> i64 {
        let paid = self.amount_paid_cents.filter(|_| self.is_paid());
        paid.unwrap_or(0)
    }

    /// The payment record, when it stands for money that came outside Stripe.
    #[must_use]
    pub fn record_outside_stripe(&self) -> Option<&String> {
        let record = self.stripe_payment_record_id.as_ref();
        record.filter(|_| self.reported_by.as_deref() != Some("stripe"))
    }

    fn is_paid(&self) -> bool {
        self.status.as_deref() == Some("paid")
    }
}

/// The link with the largest part, of equal ones that of the smaller invoice id.
fn main_link<'a>(links: impl Iterator<Item = &'a InvoicePayment>) -> Option<&'a InvoicePayment> {
    links.max_by_key(|link| {
        let id = std::cmp::Reverse(&link.stripe_invoice_id);
        (link.is_paid(), link.applied_cents(), id)
    })
}

/// The payment that these facts add up to; `None` while they do not name one (a refund whose charge has not arrived).
pub fn derive(
    facts: &PaymentFacts,
    estimate: FeeEstimate,
) -> Result<Option<Payment>, money::Error> {
    let paid_charge = facts
        .charges
        .iter()
        .filter(|charge| charge.is_paid())
        .max_by_key(|charge| (&charge.version, &charge.stripe_charge_id));
    let newest_charge = facts
        .charges
        .iter()
        .max_by_key(|charge| (charge.attempted_at, &charge.stripe_charge_id));
    let shown_charge = paid_charge.or(newest_charge);
    let intent = facts.intent.as_ref();
    // An older invoice goes on naming the intent it was made with when the money has come another way.
    let is_canceled = intent.is_some_and(|intent| intent.known_status() == IntentStatus::Canceled);
    let paid_links = || {
        let links = facts.invoice_payments.iter();
        links.filter(|link| link.is_paid() && !is_canceled)
    };
    let paid_link = main_link(paid_links());
    // What is known of the payment from its invoices alone.
    let has_applied = paid_links().any(|link| link.amount_paid_cents.is_some());
    let applied_cents = sum(paid_links().map(InvoicePayment::applied_cents))?;
    let applied_cents = has_applied.then_some(applied_cents);

    let Some(currency) = intent
        .map(|intent| intent.currency)
        .or(shown_charge.map(|charge| charge.currency))
        .or(paid_link.and_then(|link| link.currency))
    else {
        return Ok(None);
    };
    let Some(created_at) = intent
        .map(|intent| intent.created_at)
        .or(facts.charges.iter().map(|charge| charge.attempted_at).min())
        .or(paid_link.and_then(|link| link.paid_at))
    else {
        return Ok(None);
    };
    let intent_paid = intent.filter(|intent| intent.known_status() == IntentStatus::Succeeded);
    let is_paid = intent_paid.is_some() || paid_charge.is_some() || paid_link.is_some();
    let Some(amount_cents) = intent_paid
        .map(|intent| intent.amount_received_cents.unwrap_or(intent.amount_cents))
        .or(paid_charge.map(|charge| charge.amount_captured_cents))
        .or(applied_cents)
        .or(intent.map(|intent| intent.amount_cents))
        .or(newest_charge.map(|charge| charge.amount_cents))
    else {
        return Ok(None);
    };
    let succeeded_at = if is_paid {
        Some(succeeded_at(facts, created_at))
    } else {
        None
    };

    let captured_cents = intent_paid
        .and_then(|intent| intent.amount_received_cents)
        .or(paid_charge.map(|charge| charge.amount_captured_cents));
    let release = captured_cents.and_then(|captured| Release::of(facts, paid_charge, captured));
    let mut charges_short_of_refunds = Vec::new();
    let refunds = if is_paid {
        let (refunds, short) = refunds(facts, release.as_ref());
        charges_short_of_refunds = short;
        refunds
    } else {
        Vec::new()
    };
    let refund_amount_cents = sum(refunds.iter().map(|refund| refund.amount_cents))?;
    let rate = Rate::of(facts, paid_charge, currency);
    let fees = fees(facts, paid_charge, &rate)?;
    let (disputes, not_convertible) = match is_paid {
        true => disputes(facts, &rate)?,
        false => (Vec::new(), Vec::new()),
    };
    let disputed_amount_cents = sum(disputes.iter().map(|moved| moved.amount_cents))?;
    let (own_fee_cents, fee_source) = match (is_paid, fees.of_charge) {
        (true, Some(known)) => (known, Some(FeeSource::Actual)),
        (true, None) => (
            estimated_fee(amount_cents, currency, estimate)?,
            Some(FeeSource::Estimated),
        ),
        (false, _) => (0, (!fees.others.is_empty()).then_some(FeeSource::Actual)),
    };
    let other_fees = fees.others.iter().map(|fee| fee.amount_cents);
    let stripe_fee_cents = sum(other_fees.chain([own_fee_cents]))?;
    let is_disputed = facts.disputes.iter().any(Dispute::is_open_or_lost);
    let status = if is_paid {
        if is_disputed {
            PaymentStatus::Disputed
        } else if refund_amount_cents >= amount_cents && refund_amount_cents > 0 {
            PaymentStatus::Refunded
        } else if refund_amount_cents > 0 {
            PaymentStatus::PartiallyRefunded
        } else {
            PaymentStatus::Succeeded
        }
    } else {
        unpaid_status(intent, newest_charge)
    };
    let net_amount_cents = if is_paid {
        sum([
            amount_cents,
            -stripe_fee_cents,
            -refund_amount_cents,
            -disputed_amount_cents,
        ]
        .into_iter())?
    } else {
        -stripe_fee_cents
    };
    let has_failed = matches!(status, PaymentStatus::Failed | PaymentStatus::Canceled);
    let newest_refund = refunds
        .iter()
        .max_by_key(|refund| (refund.created_at, &refund.source_id));
    let newest_dispute = facts
        .disputes
        .iter()
        .max_by_key(|d| (d.created_at, &d.stripe_dispute_id));
    let intent_failure = intent.filter(|intent| has_failed && intent.failure_code.is_some());
    let charge_failure = newest_charge.filter(|charge| has_failed && charge.has_failed());

    let mut payment = Payment {
        payment_key: facts.payment_key.clone(),
        stripe_payment_intent_id: intent
            .map(|intent| intent.stripe_payment_intent_id.clone())
            .or_else(|| {
                let key = PaymentKey::of(&facts.payment_key);
                key.intent_id().map(str::to_owned)
            })
            .or_else(|| shown_charge.and_then(|a| a.stripe_payment_intent_id.clone())),
        stripe_charge_id: shown_charge
            .map(|charge| charge.stripe_charge_id.clone())
            .or_else(|| intent.and_then(|intent| intent.latest_charge_id.clone()))
            .or_else(|| paid_link.and_then(|link| link.stripe_charge_id.clone())),
        stripe_customer_id: first_known([
            intent.and_then(|intent| intent.stripe_customer_id.clone()),
            shown_charge.and_then(|charge| charge.stripe_customer_id.clone()),
            facts
                .invoice_payments
                .iter()
                .filter_map(|l| l.stripe_customer_id.clone())
                .max(),
        ]),
        stripe_invoice_id: main_link(facts.invoice_payments.iter())
            .map(|link| link.stripe_invoice_id.clone()),
        user_id: intent
            .and_then(|intent| intent.user_id)
            .or(shown_charge.and_then(|charge| charge.user_id)),
        amount_cents,
        currency,
        status,
        payment_method: first_known([
            shown_charge.and_then(|charge| charge.payment_method.clone()),
            intent.and_then(|intent| intent.payment_method.clone()),
        ]),
        stripe_fee_cents,
        fee_source,
        net_amount_cents,
        failure_code: first_known([
            intent_failure.and_then(|intent| intent.failure_code.clone()),
            charge_failure.and_then(|charge| charge.failure_code.clone()),
        ]),
        decline_code: first_known([
            intent_failure.and_then(|intent| intent.decline_code.clone()),
            charge_failure.and_then(|charge| charge.decline_code.clone()),
        ]),
        failure_message: first_known([
            intent_failure.and_then(|intent| intent.failure_message.clone()),
            charge_failure.and_then(|charge| charge.failure_message.clone()),
        ]),
        refunded_at: newest_refund.map(|refund| refund.created_at),
        refund_reason: newest_refund.and_then(|refund| refund.reason.clone()),
        refund_amount_cents,
        released_cents: release.as_ref().map_or(0, Release::in_totals_cents),
        charges_short_of_refunds,
        not_convertible,
        stripe_balance_transaction_id: paid_charge
            .and_then(|charge| charge.stripe_balance_transaction_id.clone()),
        settlement: paid_charge
            .and_then(|charge| charge.own_transaction(&facts.balance_transactions))
            .map(BalanceTransaction::settlement),
        succeeded_at,
        dispute_status: newest_dispute.map(|dispute| dispute.status.clone()),
        disputed_amount_cents,
        created_at,
        entries: Vec::new(),
    };
    let parts = Parts {
        own_fee_cents,
        fees: fees.others,
        refunds,
        disputes,
    };
    payment.entries = entries(&payment, facts, &parts);
    Ok(Some(payment))
}

/// A refund that counts as cash: an announced one, or one that shows only in the charge's total.
struct CountedRefund {
    source_id: String,
    amount_cents: i64,
    reason: Option<String>,
    created_at: Timestamp,
}

/// The rest of an authorisation that was captured in part. Stripe releases it with the capture and shows it as a
/// refund, although that money never came: in `amount_refunded` from then on, and mostly as a separate refund object.
/// Source: <https://docs.stripe.com/payments/place-a-hold-on-a-payment-method>.
struct Release<'a> {
    /// `None` while only the intent is known.
    charge: Option<&'a Charge>,
    /// In minor units of the payment's currency, like the next.
    amount_cents: i64,
    captured_cents: i64,
    /// The latest of the facts that announce the capture, each at its earliest event.
    captured_at: Option<Timestamp>,
}

impl<'a> Release<'a> {
    fn of(
        facts: &'a PaymentFacts,
        paid_charge: Option<&'a Charge>,
        captured_cents: i64,
    ) -> Option<Release<'a>> {
        // The intent may show the capture before the charge does.
        let authorised = facts
            .charges
            .iter()
            .filter(|charge| charge.has_succeeded())
            .max_by_key(|charge| (charge.attempted_at, &charge.stripe_charge_id));
        let charge = paid_charge.or(authorised);
        let intent = facts.intent.as_ref();
        let authorised_cents = charge
            .map(|charge| charge.amount_cents)
            .or(intent.map(|intent| intent.amount_cents))?;
        let is_in_part = captured_cents > 0 && captured_cents < authorised_cents;
        is_in_part.then(|| Release {
            charge,
            amount_cents: authorised_cents - captured_cents,
            captured_cents,
            captured_at: charge
                .and_then(|charge| charge.succeeded_at)
                .max(intent.and_then(|intent| intent.succeeded_at)),
        })
    }

    /// How much of it is in the charge's `amount_refunded`: all, or nothing where the account's log leaves it out. From
    /// the capture on no total that includes it is below it.
    fn in_totals_cents(&self) -> i64 {
        let Some(charge) = self.charge else {
            return 0;
        };
        // A charge shown in the second of its capture may have been read before it, unless its own event shows the
        // capture.
        let since = charge
            .succeeded_at
            .map(Timestamp::as_second)
            .or(self.captured_at.map(|at| at.as_second() + 1));
        let newest = charge.refund_totals.iter().next_back();
        let is_held = newest.is_some_and(|(newest_at, _)| {
            charge
                .refund_totals
                .range(since.unwrap_or(*newest_at).min(*newest_at)..)
                .all(|(_, total)| *total >= self.amount_cents)
        });
        if is_held { self.amount_cents } else { 0 }
    }

    /// The refund object that stands for it, if one of those that count does: the first with its amount, since nothing
    /// is refunded before the capture. It may also be missing while a later refund has the same amount. So the refund
    /// must be from the time of the capture, or more than the captured amount would have gone back, or the objects must
    /// add up to a total that includes it.
    fn refund<'b>(&self, counted: &[&'b Refund]) -> Option<&'b Refund> {
        let first = counted
            .iter()
            .filter(|refund| refund.amount_cents == self.amount_cents)
            .min_by_key(|refund| (refund.created_at, &refund.stripe_refund_id))?;
        let sum_until = |at: i64| -> i128 {
            let made = counted.iter().filter(|r| r.created_at.as_second() <= at);
            made.map(|refund| i128::from(refund.amount_cents)).sum()
        };
        let is_of_the_capture = self.captured_at.is_some_and(|at| first.created_at <= at);
        let is_too_much = sum_until(i64::MAX) > i128::from(self.captured_cents);
        let adds_up = self.in_totals_cents() > 0
            && self
                .charge
                .and_then(|charge| charge.refund_totals.last_key_value())
                .is_some_and(|(at, total)| sum_until(*at) == i128::from(*total));
        (is_of_the_capture || is_too_much || adds_up).then_some(*first)
    }
}

/// What went back: the refunds that count, and what the charges' totals say beyond all that are known. Also the charges
/// whose newest total says more.
fn refunds(
    facts: &PaymentFacts,
    release: Option<&Release<'_>>,
) -> (Vec<CountedRefund>, Vec<String>) {
    let counted: Vec<&Refund> = facts.refunds.iter().filter(|r| r.counts()).collect();
    let released = release.and_then(|release| release.refund(&counted));
    let is_released = |refund: &&Refund| released.is_some_and(|released| released == *refund);
    let of_objects = counted.iter().filter(|refund| !is_released(refund));
    let mut refunds: Vec<CountedRefund> = of_objects
        .map(|refund| CountedRefund {
            source_id: refund.stripe_refund_id.clone(),
            amount_cents: refund.amount_cents,
            reason: refund.reason.clone(),
            created_at: refund.created_at,
        })
        .collect();
    let mut short = Vec::new();
    for charge in &facts.charges {
        let released_cents = release
            .filter(|release| release.charge == Some(charge))
            .map_or(0, Release::in_totals_cents);
        let of_charge = facts.refunds.iter().filter(|refund| {
            let id = refund.stripe_charge_id.as_ref();
            id.is_none_or(|id| *id == charge.stripe_charge_id) && !is_released(refund)
        });
        let of_charge: Vec<&Refund> = of_charge.collect();
        let shortfalls = shortfalls(charge, &of_charge, released_cents);
        if !shortfalls.is_empty() {
            short.push(charge.stripe_charge_id.clone());
        }
        refunds.extend(shortfalls);
    }
    (refunds, short)
}

/// What the totals of a charge say beyond the known refunds, each step by the first snapshot that shows it. Of a
/// snapshot counts the smallest shortfall from it on: what later facts explain disappears, as does a total that falls
/// again because a refund failed.
fn shortfalls(charge: &Charge, refunds: &[&Refund], released_cents: i64) -> Vec<CountedRefund> {
    // A refund that failed some time was in the totals until then.
    let explained = |at: i64| -> i128 {
        let made = refunds.iter().filter(|refund| {
            let failed_before = refund
                .failed_at
                .is_some_and(|failed| failed.as_second() < at);
            refund.created_at.as_second() <= at && (refund.counts() || !failed_before)
        });
        made.map(|refund| i128::from(refund.amount_cents)).sum()
    };
    let mut lasting: Vec<(i64, i64)> = Vec::new();
    let mut smallest_later = i64::MAX;
    for (at, total) in charge.refund_totals.iter().rev() {
        let shortfall = i128::from(*total) - i128::from(released_cents) - explained(*at);
        let shortfall = i64::try_from(shortfall.max(0)).unwrap_or(i64::MAX);
        smallest_later = smallest_later.min(shortfall);
        lasting.push((*at, smallest_later));
    }
    let mut counted = 0;
    let mut shown = Vec::new();
    for (at, shortfall) in lasting.into_iter().rev() {
        if shortfall > counted {
            shown.push(CountedRefund {
                source_id: format!("{}@{at}", charge.stripe_charge_id),
                amount_cents: shortfall - counted,
                reason: None,
                created_at: Timestamp::from_second(at).unwrap_or(charge.attempted_at),
            });
            counted = shortfall;
        }
    }
    shown
}

/// The earliest instant at which a fact shows the success; without such a fact the charge's creation.
fn succeeded_at(facts: &PaymentFacts, created_at: Timestamp) -> Timestamp {
    let shown = facts
        .charges
        .iter()
        .map(|charge| charge.succeeded_at)
        .chain([
            facts.intent.as_ref().and_then(|intent| intent.succeeded_at),
            facts.invoice_paid_at,
        ])
        .chain(
            facts
                .invoice_payments
                .iter()
                .filter(|link| link.is_paid())
                .map(|l| l.paid_at),
        )
        .flatten()
        .min();
    let charged = facts
        .charges
        .iter()
        .filter(|a| a.is_paid())
        .map(|a| a.attempted_at)
        .min();
    shown.or(charged).unwrap_or(created_at)
}

fn unpaid_status(intent: Option<&PaymentIntent>, newest: Option<&Charge>) -> PaymentStatus {
    let failed_charge = newest.filter(|charge| charge.has_failed());
    let Some(intent) = intent else {
        let Some(charge) = newest else {
            return PaymentStatus::Pending;
        };
        let was_released = charge
            .refund_totals
            .values()
            .next_back()
            .is_some_and(|t| *t > 0);
        return match charge.known_status() {
            ChargeStatus::Failed => PaymentStatus::Failed,
            // An authorization that was released instead of captured.
            ChargeStatus::Succeeded if was_released => PaymentStatus::Canceled,
            ChargeStatus::Succeeded | ChargeStatus::Pending | ChargeStatus::Unknown => {
                PaymentStatus::Pending
            }
        };
    };
    match intent.known_status() {
        IntentStatus::Canceled => PaymentStatus::Canceled,
        IntentStatus::Processing
        | IntentStatus::RequiresAction
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresCapture
        | IntentStatus::RequiresSourceAction => {
            let failed_since = failed_charge
                .is_some_and(|charge| charge.version.created_at > intent.version.created_at);
            if failed_since {
                PaymentStatus::Failed
            } else {
                PaymentStatus::Pending
            }
        }
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresSource
        | IntentStatus::Succeeded
        | IntentStatus::Unknown => {
            if failed_charge.is_some() || intent.failure_code.is_some() {
                PaymentStatus::Failed
            } else {
                PaymentStatus::Pending
            }
        }
    }
}

fn estimated_fee(
    amount_cents: i64,
    currency: Currency,
    estimate: FeeEstimate,
) -> Result<i64, money::Error> {
    let share = div_half_even(i128::from(amount_cents) * i128::from(estimate.bps), 10_000)?;
    let fixed = if currency.exponent() == 2 {
        estimate.fixed_cents
    } else {
        0
    };
    let fee = share + i128::from(fixed);
    i64::try_from(fee).map_err(|_large| money::Error::OutOfRange)
}

/// How amounts of the account's balance are stated in the payment's currency: by the ratio of what was charged to what that
/// settled at (`docs/money.md`), which is exact and independent of the currencies' exponents.
struct Rate {
    /// The payment's currency.
    currency: Currency,
    /// The currency that was settled in, what was charged and what that settled at; `None` while it is not known.
    settled: Option<(Currency, i64, i64)>,
}

impl Rate {
    fn of(facts: &PaymentFacts, paid_charge: Option<&Charge>, currency: Currency) -> Rate {
        let transactions = &facts.balance_transactions;
        let by_charge = |charge: &Charge| {
            let own = charge.own_transaction(transactions)?;
            let charged_cents = match charge.is_paid() {
                true => charge.amount_captured_cents,
                false => charge.amount_cents,
            };
            Some((own.currency, charged_cents, own.amount_cents))
        };
        // Of a charge that failed after all, what took it back settled at the same rate.
        let by_failure = |charge: &Charge| {
            let id = charge.failure_balance_transaction_id.as_ref()?;
            let failure = transactions
                .iter()
                .find(|one| one.stripe_balance_transaction_id == *id)?;
            Some((failure.currency, charge.amount_cents, -failure.amount_cents))
        };
        let unpaid = || {
            let mut charges: Vec<&Charge> = facts.charges.iter().collect();
            charges.sort_by_key(|charge| (charge.attempted_at, &charge.stripe_charge_id));
            let mut newest_first = charges.into_iter().rev();
            newest_first.find_map(|charge| by_charge(charge).or_else(|| by_failure(charge)))
        };
        Rate {
            currency,
            settled: paid_charge.map_or_else(unpaid, by_charge),
        }
    }

    /// An amount of the balance in the payment's currency, half-even; `None` while nothing says what it is worth.
    fn convert(&self, amount_cents: i64, from: Currency) -> Result<Option<i64>, money::Error> {
        if from == self.currency {
            return Ok(Some(amount_cents));
        }
        match self.settled {
            Some((currency, charged_cents, settled_cents))
                if currency == from && settled_cents > 0 =>
            {
                let product = i128::from(amount_cents) * i128::from(charged_cents);
                let converted = div_half_even(product, i128::from(settled_cents))?;
                let converted =
                    i64::try_from(converted).map_err(|_large| money::Error::OutOfRange)?;
                Ok(Some(converted))
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// Money that a balance transaction moved, in the payment's currency.
struct Moved {
    source_id: String,
    amount_cents: i64,
    /// Of disputes only: Stripe's fee for the transaction.
    fee_cents: i64,
    at: Timestamp,
}

/// The fees of a payment, those of disputes apart.
struct Fees {
    /// That of the charge that was paid; `None` while it is not known.
    of_charge: Option<i64>,
    /// All others that are not zero, each with its transaction's date.
    others: Vec<Moved>,
}

fn fees(
    facts: &PaymentFacts,
    paid_charge: Option<&Charge>,
    rate: &Rate,
) -> Result<Fees, money::Error> {
    let own = paid_charge.and_then(|charge| charge.own_transaction(&facts.balance_transactions));
    let of_charge = match own {
        Some(own) => rate.convert(own.fee_cents, own.currency)?,
        None => None,
    };
    let mut others = Vec::new();
    let is_other = |one: &&BalanceTransaction| {
        one.source_kind != Some(SourceKind::Dispute) && Some(*one) != own
    };
    for transaction in facts.balance_transactions.iter().filter(is_other) {
        let fee = rate.convert(transaction.fee_cents, transaction.currency)?;
        if let Some(amount_cents) = fee.filter(|fee| *fee != 0) {
            others.push(Moved {
                source_id: transaction.stripe_balance_transaction_id.clone(),
                amount_cents,
                fee_cents: 0,
                at: transaction.created_at,
            });
        }
    }
    Ok(Fees { of_charge, others })
}

/// What disputes took, less what they gave back, by balance transaction, and the transactions that cannot be converted.
/// Neither a dispute's status nor its dates move any money.
fn disputes(facts: &PaymentFacts, rate: &Rate) -> Result<(Vec<Moved>, Vec<String>), money::Error> {
    let mut moved = Vec::new();
    let mut not_convertible = Vec::new();
    let of_disputes = facts
        .balance_transactions
        .iter()
        .filter(|one| one.source_kind == Some(SourceKind::Dispute));
    for transaction in of_disputes {
        let source_id = transaction.stripe_balance_transaction_id.clone();
        let amount = rate.convert(transaction.amount_cents, transaction.currency)?;
        let fee = rate.convert(transaction.fee_cents, transaction.currency)?;
        match amount.zip(fee) {
            Some((amount_cents, fee_cents)) => moved.push(Moved {
                source_id,
                amount_cents: -amount_cents,
                fee_cents,
                at: transaction.created_at,
            }),
            None => not_convertible.push(source_id),
        }
    }
    Ok((moved, not_convertible))
}

/// What a payment's entries are made of.
struct Parts {
    /// The fee of the charge that was paid, known or estimated; 0 for an unpaid payment.
    own_fee_cents: i64,
    fees: Vec<Moved>,
    refunds: Vec<CountedRefund>,
    disputes: Vec<Moved>,
}

fn entries(payment: &Payment, facts: &PaymentFacts, parts: &Parts) -> Vec<RevenueEntry> {
    let mut entries = Vec::new();
    let mut add = |kind, source_id: &str, at: Timestamp, amount_cents: i64, is_estimated: bool| {
        entries.push(RevenueEntry {
            payment_key: payment.payment_key.clone(),
            kind,
            source_id: source_id.to_owned(),
            occurred_at: at,
            currency: payment.currency,
            amount_cents,
            is_estimated,
        });
    };
    for charge in facts.charges.iter().filter(|charge| charge.has_failed()) {
        let id = &charge.stripe_charge_id;
        add(EntryKind::Failed, id, charge.attempted_at, 0, false);
    }
    let has_failed_charge = facts.charges.iter().any(|charge| charge.has_failed());
    let key = &payment.payment_key;
    if payment.status == PaymentStatus::Failed && !has_failed_charge {
        add(EntryKind::Failed, key, payment.created_at, 0, false);
    }
    for fee in &parts.fees {
        let cents = fee.amount_cents;
        add(EntryKind::Fee, &fee.source_id, fee.at, cents, false);
    }
    let Some(succeeded_at) = payment.succeeded_at else {
        return entries;
    };
    let amount_cents = payment.amount_cents;
    add(EntryKind::Gross, key, succeeded_at, amount_cents, false);
    let is_estimated = payment.fee_source == Some(FeeSource::Estimated);
    let fee_cents = parts.own_fee_cents;
    add(EntryKind::Fee, key, succeeded_at, fee_cents, is_estimated);
    for refund in &parts.refunds {
        let (id, at) = (&refund.source_id, refund.created_at);
        add(EntryKind::Refund, id, at, refund.amount_cents, false);
    }
    for moved in &parts.disputes {
        for (kind, cents) in [
            (EntryKind::Dispute, moved.amount_cents),
            (EntryKind::DisputeFee, moved.fee_cents),
        ] {
            if cents != 0 {
                add(kind, &moved.source_id, moved.at, cents, false);
            }
        }
    }
    entries
}

/// Money that came outside Stripe: no fee, dated when it was paid. `payment_key` is the id of the payment record that
/// stands for it, or of the invoice when none does.
#[must_use]
pub fn out_of_band(
    payment_key: &str,
    amount_cents: i64,
    currency: Currency,
    paid_at: Timestamp,
) -> Payment {
    let entry = |kind, amount_cents| RevenueEntry {
        payment_key: payment_key.to_owned(),
        kind,
        source_id: payment_key.to_owned(),
        occurred_at: paid_at,
        currency,
        amount_cents,
        is_estimated: false,
    };
    Payment {
        payment_key: payment_key.to_owned(),
        stripe_payment_intent_id: None,
        stripe_charge_id: None,
        stripe_customer_id: None,
        stripe_invoice_id: None,
        user_id: None,
        amount_cents,
        currency,
        status: PaymentStatus::Succeeded,
        payment_method: Some("out_of_band".to_owned()),
        stripe_fee_cents: 0,
        fee_source: Some(FeeSource::Actual),
        net_amount_cents: amount_cents,
        failure_code: None,
        decline_code: None,
        failure_message: None,
        refunded_at: None,
        refund_reason: None,
        refund_amount_cents: 0,
        released_cents: 0,
        charges_short_of_refunds: Vec::new(),
        not_convertible: Vec::new(),
        stripe_balance_transaction_id: None,
        settlement: None,
        succeeded_at: Some(paid_at),
        dispute_status: None,
        disputed_amount_cents: 0,
        created_at: paid_at,
        entries: vec![
            entry(EntryKind::Gross, amount_cents),
            entry(EntryKind::Fee, 0),
        ],
    }
}

/// The payment row of a wire, a check or an ACH transfer for an invoice that Stripe does not know: no fee, dated by the
/// payment itself.
#[must_use]
pub fn manual(
    payment_key: &str,
    method: ManualPaymentMethod,
    amount_cents: i64,
    currency: Currency,
    paid_at: Timestamp,
) -> Payment {
    Payment {
        payment_method: Some(method.as_str().to_owned()),
        ..out_of_band(payment_key, amount_cents, currency, paid_at)
    }
}

/// The payments that came outside Stripe for some invoices: each payment record with all its known links, and what no
/// record stands for, once the invoice is paid.
///
/// # Errors
/// When a sum is out of range.
pub fn outside_stripe<'a>(
    invoices: impl Iterator<Item = &'a Invoice>,
    links: &Kind<InvoicePayment>,
) -> Result<Vec<Payment>, money::Error> {
    let mut of_records: BTreeMap<&String, Vec<&InvoicePayment>> = BTreeMap::new();
    for link in links.values() {
        if let Some(record) = link.record_outside_stripe().filter(|_| link.is_paid()) {
            of_records.entry(record).or_default().push(link);
        }
    }
    let mut payments = Vec::new();
    for (record, links) in of_records {
        let amount_cents = sum(links.iter().map(|link| link.applied_cents()))?;
        let customers = links
            .iter()
            .filter_map(|link| link.stripe_customer_id.clone());
        let currency = links.iter().find_map(|link| link.currency);
        let paid_at = links.iter().filter_map(|link| link.paid_at).min();
        let (Some(currency), Some(paid_at)) = (currency, paid_at) else {
            continue;
        };
        payments.push(Payment {
            stripe_customer_id: customers.max(),
            stripe_invoice_id: main_link(links.iter().copied())
                .map(|link| link.stripe_invoice_id.clone()),
            ..out_of_band(record, amount_cents, currency, paid_at)
        });
    }
    for invoice in invoices {
        let money = invoice.money(links.values())?;
        let paid_at = invoice
            .paid_at
            .filter(|_| invoice.status == InvoiceStatus::Paid);
        if let Some(paid_at) = paid_at.filter(|_| money.unrecorded_cents > 0) {
            let id = &invoice.stripe_invoice_id;
            payments.push(Payment {
                stripe_customer_id: invoice.stripe_customer_id.clone(),
                stripe_invoice_id: Some(id.clone()),
                ..out_of_band(id, money.unrecorded_cents, invoice.currency, paid_at)
            });
        }
    }
    Ok(payments)
}

fn first_known<T, const N: usize>(candidates: [Option<T>; N]) -> Option<T> {
    candidates.into_iter().flatten().next()
}

fn sum(amounts: impl Iterator<Item = i64>) -> Result<i64, money::Error> {
    let mut total = 0_i64;
    for amount in amounts {
        total = total.checked_add(amount).ok_or(money::Error::OutOfRange)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revenue::entries::replacement;

    const ESTIMATE: FeeEstimate = FeeEstimate {
        bps: 290,
        fixed_cents: 30,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn code(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn version(created_at: Timestamp) -> Version {
        Version {
            created_at,
            rank: 0,
            event_id: "evt_1".into(),
        }
    }

    fn intent(status: &str, created_at: &str, currency: &str, amount_cents: i64) -> PaymentIntent {
        let created_at = at(created_at);
        PaymentIntent {
            stripe_payment_intent_id: "pi_1".into(),
            stripe_customer_id: None,
            amount_cents,
            amount_received_cents: Some(if status == "succeeded" {
                amount_cents
            } else {
                0
            }),
            currency: code(currency),
            status: status.into(),
            latest_charge_id: None,
            stripe_invoice_id: None,
            payment_method: None,
            failure_code: None,
            decline_code: None,
            failure_message: None,
            succeeded_at: None,
            canceled_at: None,
            user_id: None,
            created_at,
            version: version(created_at),
        }
    }

    fn charge(id: &str, status: &str, attempted_at: &str, currency: &str, amount: i64) -> Charge {
        let attempted_at = at(attempted_at);
        let succeeds = status == "succeeded";
        Charge {
            stripe_charge_id: id.into(),
            stripe_payment_intent_id: Some("pi_1".into()),
            stripe_customer_id: None,
            stripe_invoice_id: None,
            amount_cents: amount,
            amount_captured_cents: if succeeds { amount } else { 0 },
            currency: code(currency),
            status: status.into(),
            is_captured: succeeds,
            failure_code: None,
            decline_code: None,
            failure_message: None,
            payment_method: None,
            user_id: None,
            succeeded_at: None,
            refund_totals: BTreeMap::new(),
            stripe_balance_transaction_id: Some(format!("txn_{id}")),
            failure_balance_transaction_id: None,
            attempted_at,
            version: version(attempted_at),
        }
    }

    /// A paid intent with its only charge.
    fn paid(instant: &str, currency: &str, amount: i64) -> PaymentFacts {
        PaymentFacts {
            payment_key: "pi_1".into(),
            intent: Some(PaymentIntent {
                succeeded_at: Some(at(instant)),
                ..intent("succeeded", instant, currency, amount)
            }),
            charges: vec![charge("ch_1", "succeeded", instant, currency, amount)],
            ..PaymentFacts::default()
        }
    }

    fn settled(currency: &str, amount_cents: i64, fee_cents: i64, rate: &str) -> Settlement {
        Settlement {
            currency: code(currency),
            amount_cents,
            fee_cents,
            exchange_rate: (!rate.is_empty()).then(|| rate.into()),
        }
    }

    fn refund(id: &str, status: &str, created_at: &str, amount_cents: i64) -> Refund {
        let created_at = at(created_at);
        Refund {
            stripe_refund_id: id.into(),
            stripe_charge_id: Some("ch_1".into()),
            stripe_payment_intent_id: Some("pi_1".into()),
            amount_cents,
            currency: Currency::USD,
            reason: None,
            status: status.into(),
            stripe_balance_transaction_id: None,
            failure_balance_transaction_id: None,
            metadata: Value::Null,
            source: RefundSource::Stripe,
            stripe_invoice_id: None,
            created_at,
            failed_at: None,
            version: version(created_at),
        }
    }

    /// A dispute in which nothing has happened yet.
    fn dispute(status: &str, currency: &str, amount_cents: i64) -> Dispute {
        let created_at = at("2026-02-09T12:00:00Z");
        Dispute {
            stripe_dispute_id: "dp_1".into(),
            stripe_charge_id: Some("ch_1".into()),
            stripe_payment_intent_id: Some("pi_1".into()),
            amount_cents,
            currency: code(currency),
            reason: None,
            status: status.into(),
            balance_transaction_ids: Some(BTreeSet::new()),
            funds_withdrawn_at: None,
            funds_reinstated_at: None,
            closed_at: None,
            evidence_due_by: None,
            created_at,
            version: version(created_at),
        }
    }

    /// A movement of the balance: `amount` and `fee` in its currency.
    fn transaction(
        (id, source_kind): (&str, SourceKind),
        created_at: &str,
        currency: &str,
        amount_cents: i64,
        fee_cents: i64,
    ) -> BalanceTransaction {
        let created_at = at(created_at);
        BalanceTransaction {
            stripe_balance_transaction_id: id.into(),
            kind: "adjustment".into(),
            reporting_category: "other_adjustment".into(),
            balance_type: "payments".into(),
            currency: code(currency),
            amount_cents,
            fee_cents,
            net_cents: amount_cents - fee_cents,
            fee_details: Value::Null,
            exchange_rate: None,
            source_id: None,
            source_kind: Some(source_kind),
            payment_key: Some("pi_1".into()),
            description: None,
            created_at,
            available_at: None,
            stripe_payout_id: None,
            version: version(created_at),
        }
    }

    /// A movement by a dispute, in dollars.
    fn moved(id: &str, created_at: &str, amount_cents: i64, fee_cents: i64) -> BalanceTransaction {
        let of_dispute = (id, SourceKind::Dispute);
        transaction(of_dispute, created_at, "USD", amount_cents, fee_cents)
    }

    fn payment_of(facts: &PaymentFacts) -> Payment {
        derive(facts, ESTIMATE).unwrap().unwrap()
    }

    /// What the payment adds to `revenue_daily`: per day gross, fees, refunds, disputes, payments, failed attempts.
    fn days(payment: &Payment) -> Vec<(String, [i64; 6])> {
        let rows = replacement(&[], &payment.entries).unwrap().daily;
        rows.into_iter()
            .map(|((day, currency), row)| {
                assert_eq!(currency, payment.currency);
                let figures = [
                    row.gross_cents,
                    row.fees_cents,
                    row.refunds_cents,
                    row.disputes_cents,
                    row.payments,
                    row.failed_payments,
                ];
                (day.to_string(), figures)
            })
            .collect()
    }

    fn assert_days(payment: &Payment, expected: &[(&str, [i64; 6])], what: &str) {
        let expected: Vec<(String, [i64; 6])> = expected
            .iter()
            .map(|(day, figures)| ((*day).to_owned(), *figures))
            .collect();
        assert_eq!(days(payment), expected, "{what}");
    }

    #[test]
    fn an_estimate_rounds_half_to_even_and_has_a_fixed_part_in_two_decimals_only() {
        for (currency, amount, fee) in [
            ("USD", 2900, 114),   // 84.1 → 84, + 30
            ("USD", 500, 44),     // 14.5 → 14, + 30
            ("USD", 2500, 102),   // 72.5 → 72, + 30
            ("USD", 3500, 132),   // 101.5 → 102, + 30
            ("USD", 7500, 248),   // 217.5 → 218, + 30
            ("USD", 1, 30),       // 0.029 → 0, + 30
            ("EUR", 3000, 117),   // 87, + 30
            ("ISK", 10_000, 320), // 290, + 30: two decimals at Stripe
            ("JPY", 2999, 87),    // 86.971 → 87
            ("JPY", 2500, 72),    // 72.5 → 72
            ("JPY", 3500, 102),   // 101.5 → 102
            ("KWD", 10_000, 290), // three decimals
        ] {
            let payment = payment_of(&paid("2026-01-15T12:00:00Z", currency, amount));
            let what = format!("{amount} {currency}");
            assert_eq!(payment.stripe_fee_cents, fee, "{what}");
            assert_eq!(payment.fee_source, Some(FeeSource::Estimated), "{what}");
            assert_eq!(payment.net_amount_cents, amount - fee, "{what}");
            assert_days(
                &payment,
                &[("2026-01-15", [amount, fee, 0, 0, 1, 0])],
                &what,
            );
            let estimated: Vec<&RevenueEntry> =
                payment.entries.iter().filter(|e| e.is_estimated).collect();
            assert!(
                matches!(estimated.as_slice(), [fee] if fee.kind == EntryKind::Fee),
                "{what}"
            );
        }
    }

    #[test]
    fn an_actual_fee_is_stated_in_the_currency_of_the_payment() {
        for (currency, amount, settlement, fee) in [
            // The same currency: as it is, whatever the estimate (117) says.
            ("USD", 3000, settled("USD", 3000, 149, ""), 149),
            // 124 × 3000 / 3240 = 114.81
            ("EUR", 3000, settled("USD", 3240, 124, "1.08"), 115),
            // 54.25 settles at 54; 32 × 50 / 54 = 29.63. By the printed rate it would be 29.49.
            ("EUR", 50, settled("USD", 54, 32, "1.085"), 30),
            // Yen have no cents: 88 × 2999 / 2009 = 131.37
            ("JPY", 2999, settled("USD", 2009, 88, "0.0067"), 131),
            // And three decimals: 990 × 10 000 / 3250 = 3046.15
            ("KWD", 10_000, settled("USD", 3250, 990, "3.25"), 3046),
            // Halves go to even: 22.5 and 23.5.
            ("GBP", 500, settled("NZD", 1000, 45, "2"), 22),
            ("GBP", 500, settled("NZD", 1000, 47, "2"), 24),
        ] {
            let mut facts = paid("2026-01-15T12:00:00Z", currency, amount);
            facts.balance_transactions = vec![BalanceTransaction {
                exchange_rate: settlement.exchange_rate.clone(),
                ..transaction(
                    ("txn_ch_1", SourceKind::Charge),
                    "2026-01-14T12:00:00Z",
                    settlement.currency.as_str(),
                    settlement.amount_cents,
                    settlement.fee_cents,
                )
            }];
            let payment = payment_of(&facts);
            let what = format!("{amount} {currency}, {settlement:?}");
            assert_eq!(payment.stripe_fee_cents, fee, "{what}");
            assert_eq!(payment.fee_source, Some(FeeSource::Actual), "{what}");
            assert_eq!(payment.net_amount_cents, amount - fee, "{what}");
            assert_eq!(payment.settlement, Some(settlement), "{what}");
            assert_days(
                &payment,
                &[("2026-01-15", [amount, fee, 0, 0, 1, 0])],
                &what,
            );
            assert!(!payment.entries.iter().any(|e| e.is_estimated), "{what}");
        }
    }

    #[test]
    fn a_refund_in_a_later_month_leaves_gross_in_its_month() {
        // 8000 × 2.9 % = 232, + 30.
        let mut facts = paid("2026-01-31T23:59:59Z", "USD", 8000);
        facts.refunds = vec![refund("re_1", "succeeded", "2026-02-01T00:00:00Z", 3000)];
        let in_part = payment_of(&facts);
        assert_eq!(in_part.status, PaymentStatus::PartiallyRefunded);
        // 8000 − 262 − 3000
        assert_eq!(in_part.net_amount_cents, 4738);
        assert_days(
            &in_part,
            &[
                ("2026-01-31", [8000, 262, 0, 0, 1, 0]),
                ("2026-02-01", [0, 0, 3000, 0, 0, 0]),
            ],
            "in part",
        );

        facts
            .refunds
            .push(refund("re_2", "succeeded", "2026-03-15T08:00:00Z", 5000));
        let whole = payment_of(&facts);
        assert_eq!(whole.status, PaymentStatus::Refunded);
        assert_eq!(whole.refund_amount_cents, 8000);
        // Stripe keeps its fee.
        assert_eq!(whole.net_amount_cents, -262);
        assert_days(
            &whole,
            &[
                ("2026-01-31", [8000, 262, 0, 0, 1, 0]),
                ("2026-02-01", [0, 0, 3000, 0, 0, 0]),
                ("2026-03-15", [0, 0, 5000, 0, 0, 0]),
            ],
            "whole",
        );
    }

    #[test]
    fn a_refund_that_failed_or_was_canceled_counts_nowhere() {
        let gross = ("2026-01-15", [6000, 204, 0, 0, 1, 0]); // 6000 × 2.9 % = 174, + 30
        let first = ("2026-01-20", [0, 0, 1500, 0, 0, 0]);
        let second = ("2026-02-02", [0, 0, 2000, 0, 0, 0]);
        for (status, refunded, net, expected) in [
            ("succeeded", 3500, 2296, vec![gross, first, second]),
            ("pending", 3500, 2296, vec![gross, first, second]),
            ("requires_action", 3500, 2296, vec![gross, first, second]),
            ("failed", 1500, 4296, vec![gross, first]),
            ("canceled", 1500, 4296, vec![gross, first]),
        ] {
            let mut facts = paid("2026-01-15T12:00:00Z", "USD", 6000);
            facts.refunds = vec![
                refund("re_1", "succeeded", "2026-01-20T00:00:00Z", 1500),
                refund("re_2", status, "2026-02-02T00:00:00Z", 2000),
            ];
            let payment = payment_of(&facts);
            assert_eq!(payment.status, PaymentStatus::PartiallyRefunded, "{status}");
            assert_eq!(payment.refund_amount_cents, refunded, "{status}");
            assert_eq!(payment.net_amount_cents, net, "{status}");
            assert_days(&payment, &expected, status);
        }
        let mut facts = paid("2026-01-15T12:00:00Z", "USD", 6000);
        facts.refunds = vec![refund("re_1", "failed", "2026-01-20T00:00:00Z", 6000)];
        let payment = payment_of(&facts);
        assert_eq!(payment.status, PaymentStatus::Succeeded);
        assert_eq!(payment.refunded_at, None);
        assert_days(&payment, &[gross], "the only one failed");
    }

    #[test]
    fn refunds_known_by_the_total_alone_are_its_lasting_steps() {
        let gross = ("2026-01-15", [6000, 204, 0, 0, 1, 0]);
        let totals = |totals: &[(&str, i64)]| -> BTreeMap<i64, i64> {
            totals
                .iter()
                .map(|(day, total)| (at(&format!("{day}T12:00:00Z")).as_second(), *total))
                .collect()
        };
        for (shown, refunded, expected) in [
            (
                totals(&[
                    ("2026-01-15", 0),
                    ("2026-01-20", 1500),
                    ("2026-02-02", 3500),
                ]),
                3500,
                vec![
                    gross,
                    ("2026-01-20", [0, 0, 1500, 0, 0, 0]),
                    ("2026-02-02", [0, 0, 2000, 0, 0, 0]),
                ],
            ),
            // The second one failed on the fourth.
            (
                totals(&[
                    ("2026-01-20", 1500),
                    ("2026-02-02", 3500),
                    ("2026-02-04", 1500),
                ]),
                1500,
                vec![gross, ("2026-01-20", [0, 0, 1500, 0, 0, 0])],
            ),
            (
                totals(&[("2026-01-20", 1500), ("2026-02-04", 0)]),
                0,
                vec![gross],
            ),
        ] {
            let mut facts = paid("2026-01-15T12:00:00Z", "USD", 6000);
            facts.charges[0].refund_totals = shown;
            let payment = payment_of(&facts);
            assert_eq!(payment.refund_amount_cents, refunded);
            assert_eq!(payment.net_amount_cents, 6000 - 204 - refunded);
            assert_days(&payment, &expected, "totals");
        }
        // What is known one by one is in the total.
        let mut facts = paid("2026-01-15T12:00:00Z", "USD", 6000);
        facts.charges[0].refund_totals = totals(&[("2026-01-21", 1500)]);
        facts.refunds = vec![refund("re_1", "succeeded", "2026-01-20T00:00:00Z", 1500)];
        assert_days(
            &payment_of(&facts),
            &[gross, ("2026-01-20", [0, 0, 1500, 0, 0, 0])],
            "both",
        );
    }

    /// Objects never hide a total, and totals never revive a failed refund.
    #[test]
    fn of_a_total_counts_what_the_refunds_do_not_explain() {
        let second = |day: &str| at(&format!("{day}T12:00:00Z")).as_second();
        let failed = |id: &str, day: &str, amount: i64, failed_on: Option<&str>| Refund {
            failed_at: failed_on.map(|day| at(&format!("{day}T12:00:00Z"))),
            ..refund(id, "failed", &format!("{day}T12:00:00Z"), amount)
        };
        let ok = |id: &str, day: &str, amount: i64| {
            refund(id, "succeeded", &format!("{day}T12:00:00Z"), amount)
        };
        let (jan20, feb2, feb4) = ("2026-01-20", "2026-02-02", "2026-02-04");
        // The totals shown, the refunds known, what went back by day, and whether a refund is missing.
        for (what, totals, refunds, expected, is_short) in [
            (
                "eleven of which ten are listed",
                vec![(jan20, 1100)],
                (0..10)
                    .map(|n| ok(&format!("re_{n}"), jan20, 100))
                    .collect(),
                vec![(jan20, 1100)],
                true,
            ),
            (
                "the eleventh comes",
                vec![(jan20, 1100)],
                (0..11)
                    .map(|n| ok(&format!("re_{n}"), jan20, 100))
                    .collect(),
                vec![(jan20, 1100)],
                false,
            ),
            (
                "one known, one not",
                vec![(jan20, 1500), (feb2, 3500)],
                vec![ok("re_1", jan20, 1500)],
                vec![(jan20, 1500), (feb2, 2000)],
                true,
            ),
            (
                "the earlier one is not known",
                vec![(jan20, 1500), (feb2, 3500)],
                vec![ok("re_2", feb2, 2000)],
                vec![(jan20, 1500), (feb2, 2000)],
                true,
            ),
            (
                "a failed refund in a total",
                vec![(jan20, 1500)],
                vec![failed("re_1", jan20, 1500, Some(feb2))],
                vec![],
                false,
            ),
            (
                "a failed refund, nobody knows when",
                vec![(jan20, 1500)],
                vec![failed("re_1", jan20, 1500, None)],
                vec![],
                false,
            ),
            (
                "a failed refund, and another total since",
                vec![(jan20, 1500), (feb4, 900)],
                vec![failed("re_1", jan20, 1500, Some(feb2))],
                vec![(feb4, 900)],
                true,
            ),
        ] {
            let mut facts = paid("2026-01-15T12:00:00Z", "USD", 6000);
            let totals = totals.into_iter().map(|(day, total)| (second(day), total));
            facts.charges[0].refund_totals = totals.collect();
            facts.refunds = refunds;
            let payment = payment_of(&facts);
            let mut days = vec![("2026-01-15", [6000, 204, 0, 0, 1, 0])];
            days.extend(
                expected
                    .iter()
                    .map(|(day, amount)| (*day, [0, 0, *amount, 0, 0, 0])),
            );
            assert_days(&payment, &days, what);
            let refunded: i64 = expected.iter().map(|(_, amount)| amount).sum();
            assert_eq!(payment.refund_amount_cents, refunded, "{what}");
            assert_eq!(
                !payment.charges_short_of_refunds.is_empty(),
                is_short,
                "{what}"
            );
        }
    }

    #[test]
    fn the_rest_of_a_capture_in_part_is_left_out_of_its_refunds() {
        let captured = "2026-01-15T12:00:00Z";
        let day = |day: &str| at(&format!("{day}T12:00:00Z")).as_second();
        let (capture, moment, later) =
            (day("2026-01-15"), day("2026-01-15") + 60, day("2026-02-02"));
        let one = |id: &str, seconds: i64, amount: i64| {
            let created_at = Timestamp::from_second(seconds).unwrap().to_string();
            refund(id, "succeeded", &created_at, amount)
        };
        // What the charge showed, the refund objects, and what of it went back.
        for (what, totals, refunds, refunded) in [
            ("a total", vec![(capture, 4000)], vec![], 0),
            ("no capture shown", vec![(later, 5000)], vec![], 1000),
            (
                "all refunded",
                vec![(capture, 4000), (later, 10_000)],
                vec![],
                6000,
            ),
            (
                "all refunded, the release left out",
                vec![(capture, 0), (later, 6000)],
                vec![],
                6000,
            ),
            (
                "a refund that failed",
                vec![(capture, 4000), (moment, 5000), (later, 4000)],
                vec![],
                0,
            ),
            (
                "an object of the capture",
                vec![],
                vec![one("re_1", capture, 4000)],
                0,
            ),
            (
                "an object made in a moment, that the total holds",
                vec![(capture, 4000), (later, 4000)],
                vec![one("re_1", moment, 4000)],
                0,
            ),
            (
                "more than was captured",
                vec![],
                vec![one("re_1", moment, 4000), one("re_2", later, 3000)],
                3000,
            ),
            (
                "as much as the release, whose object is missing",
                vec![(capture, 4000), (later, 8000)],
                vec![one("re_1", later, 4000)],
                4000,
            ),
            (
                "as much as the release",
                vec![(capture, 4000), (later, 8000)],
                vec![one("re_1", capture, 4000), one("re_2", later, 4000)],
                4000,
            ),
        ] {
            let mut facts = paid(captured, "USD", 6000);
            facts.intent.as_mut().unwrap().amount_cents = 10_000;
            facts.charges[0].amount_cents = 10_000;
            facts.charges[0].refund_totals = totals.into_iter().collect();
            facts.charges[0].succeeded_at = (what != "no capture shown").then(|| at(captured));
            facts.refunds = refunds;
            let payment = payment_of(&facts);
            assert_eq!(payment.amount_cents, 6000, "{what}");
            assert_eq!(payment.refund_amount_cents, refunded, "{what}");
            assert_eq!(payment.net_amount_cents, 6000 - 204 - refunded, "{what}");
        }
    }

    #[test]
    fn a_charge_that_does_not_name_its_transaction_has_the_one_that_names_it() {
        let mut facts = paid("2026-01-15T12:00:00Z", "USD", 5000);
        facts.charges[0].stripe_balance_transaction_id = None;
        let of_charge = ("txn_1", SourceKind::Charge);
        let mut own = transaction(of_charge, "2026-01-15T12:00:00Z", "USD", 5000, 170);
        facts.balance_transactions = vec![own.clone()];
        assert_eq!(
            payment_of(&facts).fee_source,
            Some(FeeSource::Estimated),
            "of another charge"
        );
        own.source_id = Some("ch_1".into());
        facts.balance_transactions = vec![own];
        let payment = payment_of(&facts);
        assert_eq!(payment.fee_source, Some(FeeSource::Actual));
        assert_eq!(payment.stripe_fee_cents, 170);
    }

    #[test]
    fn a_fee_counts_on_its_own_date_unless_it_is_the_charges() {
        let mut facts = paid("2026-01-15T12:00:00Z", "EUR", 5000);
        let of = |id: &str, kind, created_at: &str, amount, fee| {
            transaction((id, kind), created_at, "USD", amount, fee)
        };
        facts.balance_transactions = vec![
            of(
                "txn_ch_1",
                SourceKind::Charge,
                "2026-01-16T00:00:00Z",
                5400,
                187,
            ),
            of(
                "txn_re_1",
                SourceKind::Refund,
                "2026-02-03T00:00:00Z",
                -1080,
                27,
            ),
            // Given back, as fees may be.
            of(
                "txn_re_2",
                SourceKind::RefundFailure,
                "2026-02-09T00:00:00Z",
                1080,
                -27,
            ),
            of(
                "txn_re_3",
                SourceKind::Refund,
                "2026-02-10T00:00:00Z",
                -1080,
                0,
            ),
        ];
        let payment = payment_of(&facts);
        // 187 and 27 × 5000 / 5400 = 173.15 and 25
        assert_eq!(payment.stripe_fee_cents, 173);
        assert_eq!(payment.net_amount_cents, 4827);
        assert_days(
            &payment,
            &[
                ("2026-01-15", [5000, 173, 0, 0, 1, 0]),
                ("2026-02-03", [0, 25, 0, 0, 0, 0]),
                ("2026-02-09", [0, -25, 0, 0, 0, 0]),
            ],
            "in euros",
        );
        // What the charge's own will be is estimated; the others are known all the same, once they can be converted.
        let mut unsettled = facts.clone();
        unsettled.balance_transactions.remove(0);
        let payment = payment_of(&unsettled);
        assert_eq!(payment.fee_source, Some(FeeSource::Estimated));
        assert_eq!(payment.stripe_fee_cents, 175); // 145 + 30
        for one in &mut unsettled.balance_transactions {
            one.currency = code("EUR");
        }
        unsettled.balance_transactions.pop();
        unsettled.balance_transactions.pop();
        assert_eq!(payment_of(&unsettled).stripe_fee_cents, 202); // 145 + 30 + 27
    }

    #[test]
    fn a_debit_that_fails_costs_what_taking_it_back_costs() {
        let mut facts = PaymentFacts {
            payment_key: "pi_1".into(),
            intent: Some(intent(
                "requires_payment_method",
                "2026-01-15T12:00:00Z",
                "USD",
                50_000,
            )),
            charges: vec![charge(
                "ch_1",
                "failed",
                "2026-01-15T12:00:00Z",
                "USD",
                50_000,
            )],
            ..PaymentFacts::default()
        };
        facts.charges[0].failure_balance_transaction_id = Some("txn_2".into());
        let of = |id: &str, kind, created_at: &str, currency: &str, amount, fee| {
            transaction((id, kind), created_at, currency, amount, fee)
        };
        let failed = ("2026-01-15", [0, 0, 0, 0, 0, 1]);
        let (charged, taken_back) = ("2026-01-15T12:00:00Z", "2026-01-20T12:00:00Z");
        for (transactions, fee, days) in [
            (vec![], 0, vec![failed]),
            (
                vec![of(
                    "txn_2",
                    SourceKind::ChargeFailure,
                    taken_back,
                    "USD",
                    -50_000,
                    400,
                )],
                400,
                vec![failed, ("2026-01-20", [0, 400, 0, 0, 0, 0])],
            ),
            // Charged, given back, and then some.
            (
                vec![
                    of("txn_ch_1", SourceKind::Charge, charged, "USD", 50_000, 500),
                    of(
                        "txn_2",
                        SourceKind::ChargeFailure,
                        taken_back,
                        "USD",
                        -50_000,
                        -100,
                    ),
                ],
                400,
                vec![
                    ("2026-01-15", [0, 500, 0, 0, 0, 1]),
                    ("2026-01-20", [0, -100, 0, 0, 0, 0]),
                ],
            ),
            // 432 × 50 000 / 54 000
            (
                vec![of(
                    "txn_2",
                    SourceKind::ChargeFailure,
                    taken_back,
                    "EUR",
                    -54_000,
                    432,
                )],
                400,
                vec![failed, ("2026-01-20", [0, 400, 0, 0, 0, 0])],
            ),
        ] {
            facts.balance_transactions = transactions;
            let payment = payment_of(&facts);
            assert_eq!(payment.status, PaymentStatus::Failed);
            assert_eq!(payment.stripe_fee_cents, fee);
            assert_eq!(payment.net_amount_cents, -fee);
            let source = (fee > 0).then_some(FeeSource::Actual);
            assert_eq!(payment.fee_source, source);
            assert_days(&payment, &days, "a failed debit");
        }
    }

    /// A dispute with what moved its money, and the payment's status, disputed amount, net and days it leads to.
    type Disputed<'a> = (
        &'a str,
        Dispute,
        Vec<BalanceTransaction>,
        PaymentStatus,
        i64,
        i64,
        Vec<(&'a str, [i64; 6])>,
    );

    #[test]
    fn a_dispute_moves_what_its_transactions_move_on_their_dates() {
        use PaymentStatus::{Disputed as Open, Succeeded};
        // 5000 × 2.9 % = 145, + 30.
        let gross = ("2026-01-15", [5000, 175, 0, 0, 1, 0]);
        let announced_at = Some(at("2026-02-11T00:00:00Z"));
        let closed_at = Some(at("2026-03-20T09:00:00Z"));
        let open = || Dispute {
            funds_withdrawn_at: announced_at,
            ..dispute("needs_response", "USD", 5000)
        };
        let closed = |status: &str| Dispute {
            closed_at,
            ..dispute(status, "USD", 5000)
        };
        let withdrawn = || moved("txn_1", "2026-02-10T00:00:00Z", -5000, 1500);
        let gone = ("2026-02-10", [0, 1500, 0, 5000, 0, 0]);
        let back = |fee: i64| moved("txn_2", "2026-04-01T00:00:00Z", 5000, fee);
        let cases: [Disputed<'_>; 12] = [
            (
                "open",
                open(),
                vec![withdrawn()],
                Open,
                5000,
                -175,
                vec![gross, gone],
            ),
            (
                "announced as withdrawn, and nothing moved",
                open(),
                vec![],
                Open,
                0,
                4825,
                vec![gross],
            ),
            (
                "won, its fee kept",
                closed("won"),
                vec![withdrawn(), back(0)],
                Succeeded,
                0,
                4825,
                vec![gross, gone, ("2026-04-01", [0, 0, 0, -5000, 0, 0])],
            ),
            (
                "won, its fee given back",
                closed("won"),
                vec![withdrawn(), back(-1500)],
                Succeeded,
                0,
                4825,
                vec![gross, gone, ("2026-04-01", [0, -1500, 0, -5000, 0, 0])],
            ),
            (
                "won, and the money not back yet",
                closed("won"),
                vec![withdrawn()],
                Succeeded,
                5000,
                -175,
                vec![gross, gone],
            ),
            (
                "won before anything was withdrawn",
                closed("won"),
                vec![],
                Succeeded,
                0,
                4825,
                vec![gross],
            ),
            (
                "lost",
                closed("lost"),
                vec![withdrawn()],
                Open,
                5000,
                -175,
                vec![gross, gone],
            ),
            (
                "lost, and nothing known to have moved",
                closed("lost"),
                vec![],
                Open,
                0,
                4825,
                vec![gross],
            ),
            (
                "lost, and given back in part",
                closed("lost"),
                vec![withdrawn(), moved("txn_2", "2026-04-01T00:00:00Z", 2000, 0)],
                Open,
                3000,
                1825,
                vec![gross, gone, ("2026-04-01", [0, 0, 0, -2000, 0, 0])],
            ),
            (
                "withdrawn, given back, withdrawn again",
                closed("lost"),
                vec![
                    withdrawn(),
                    back(0),
                    moved("txn_3", "2026-04-09T00:00:00Z", -5000, 0),
                ],
                Open,
                5000,
                -175,
                vec![
                    gross,
                    gone,
                    ("2026-04-01", [0, 0, 0, -5000, 0, 0]),
                    ("2026-04-09", [0, 0, 0, 5000, 0, 0]),
                ],
            ),
            (
                "an inquiry",
                dispute("warning_needs_response", "USD", 5000),
                vec![],
                Succeeded,
                0,
                4825,
                vec![gross],
            ),
            (
                "an inquiry that cost a fee all the same",
                closed("warning_closed"),
                vec![moved("txn_1", "2026-02-10T00:00:00Z", 0, 1500)],
                Succeeded,
                0,
                4825,
                vec![gross, ("2026-02-10", [0, 1500, 0, 0, 0, 0])],
            ),
        ];
        for (what, dispute, transactions, status, disputed, net, expected) in cases {
            let mut facts = paid("2026-01-15T12:00:00Z", "USD", 5000);
            facts.disputes = vec![dispute];
            facts.balance_transactions = transactions;
            let payment = payment_of(&facts);
            assert_eq!(payment.status, status, "{what}");
            assert_eq!(payment.disputed_amount_cents, disputed, "{what}");
            assert_eq!(payment.stripe_fee_cents, 175, "{what}");
            assert_eq!(payment.net_amount_cents, net, "{what}");
            assert_days(&payment, &expected, what);
        }
    }

    #[test]
    fn a_dispute_in_another_currency_is_converted_as_the_charge_was() {
        let mut facts = paid("2026-01-15T12:00:00Z", "EUR", 10_000);
        let own = |currency: &str, amount: i64| {
            let of_charge = ("txn_ch_1", SourceKind::Charge);
            transaction(of_charge, "2026-01-15T12:00:00Z", currency, amount, 343)
        };
        let withdrawn = || moved("txn_1", "2026-02-10T00:00:00Z", -10_900, 1500);
        facts.disputes = vec![dispute("needs_response", "EUR", 10_000)];
        // 10 900 and 1500 × 10 000 / 10 800 = 10 092.59 and 1388.89
        facts.balance_transactions = vec![own("USD", 10_800), withdrawn()];
        let payment = payment_of(&facts);
        assert_eq!(payment.disputed_amount_cents, 10_093);
        assert_eq!(payment.not_convertible, [""; 0]);
        let days = days(&payment);
        assert_eq!(days[1], ("2026-02-10".into(), [0, 1389, 0, 10_093, 0, 0]));
        // A capture in part settled at what was captured.
        facts.charges[0].amount_cents = 20_000;
        assert_eq!(payment_of(&facts).disputed_amount_cents, 10_093);

        for (what, transactions) in [
            ("the charge's is unknown", vec![withdrawn()]),
            ("a third currency", vec![own("CHF", 9_500), withdrawn()]),
            (
                "the charge settled at nothing",
                vec![own("USD", 0), withdrawn()],
            ),
        ] {
            facts.balance_transactions = transactions;
            let payment = payment_of(&facts);
            assert_eq!(payment.disputed_amount_cents, 0, "{what}");
            assert_eq!(payment.not_convertible, ["txn_1"], "{what}");
            assert_eq!(payment.status, PaymentStatus::Disputed, "{what}");
            let moved = |entry: &&RevenueEntry| {
                matches!(entry.kind, EntryKind::Dispute | EntryKind::DisputeFee)
            };
            assert_eq!(payment.entries.iter().filter(moved).count(), 0, "{what}");
        }
    }

    /// Numbers that look random and are always the same.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % limit
        }

        fn amount(&mut self, limit: u64) -> i64 {
            i64::try_from(self.below(limit)).unwrap()
        }
    }

    #[test]
    fn the_entries_of_a_payment_add_up_to_its_row_whatever_happened() {
        let mut numbers = Numbers(7);
        for history in 0..1_000 {
            let (is_paid, amount) = (numbers.below(5) > 0, 1 + numbers.amount(100_000));
            let currency = ["USD", "EUR", "JPY"][usize::try_from(numbers.below(3)).unwrap()];
            let mut facts = paid("2026-01-15T12:00:00Z", currency, amount);
            if !is_paid {
                facts.intent.as_mut().unwrap().status = "requires_payment_method".into();
                facts.charges[0].status = "failed".into();
            }
            for number in 0..numbers.below(4) {
                let status = ["succeeded", "failed"][usize::try_from(numbers.below(2)).unwrap()];
                let amount = numbers.amount(50_000);
                let id = format!("re_{number}");
                let mut refund = refund(&id, status, "2026-02-01T00:00:00Z", amount);
                refund.currency = code(currency);
                facts.refunds.push(refund);
            }
            let status = ["lost", "won", "needs_response"];
            let status = status[usize::try_from(numbers.below(3)).unwrap()];
            facts.disputes.push(dispute(status, currency, amount));
            for number in 0..numbers.below(6) {
                let kind = [
                    SourceKind::Charge,
                    SourceKind::ChargeFailure,
                    SourceKind::Refund,
                    SourceKind::RefundFailure,
                    SourceKind::Dispute,
                ][usize::try_from(numbers.below(5)).unwrap()];
                let settled = ["USD", "GBP"][usize::try_from(numbers.below(2)).unwrap()];
                let id = match number {
                    0 => "txn_ch_1".to_owned(),
                    other => format!("txn_{other}"),
                };
                let (moved, fee) = (numbers.amount(200_000) - 100_000, numbers.amount(900) - 300);
                let day = format!("2026-03-{:02}T00:00:00Z", number + 1);
                let one = transaction((&id, kind), &day, settled, moved, fee);
                facts.balance_transactions.push(one);
            }
            let payment = payment_of(&facts);
            let of = |kind: EntryKind| -> i64 {
                let entries = payment.entries.iter().filter(|entry| entry.kind == kind);
                entries.map(|entry| entry.amount_cents).sum()
            };
            let what = format!("{history}: {facts:?}");
            let gross = if is_paid { payment.amount_cents } else { 0 };
            assert_eq!(of(EntryKind::Gross), gross, "{what}");
            assert_eq!(of(EntryKind::Fee), payment.stripe_fee_cents, "{what}");
            assert_eq!(of(EntryKind::Refund), payment.refund_amount_cents, "{what}");
            assert_eq!(
                of(EntryKind::Dispute),
                payment.disputed_amount_cents,
                "{what}"
            );
            let net = gross
                - payment.stripe_fee_cents
                - payment.refund_amount_cents
                - payment.disputed_amount_cents;
            assert_eq!(payment.net_amount_cents, net, "{what}");
            let lines: BTreeSet<_> = payment
                .entries
                .iter()
                .map(|entry| (entry.kind, &entry.source_id))
                .collect();
            assert_eq!(lines.len(), payment.entries.len(), "{what}");
        }
    }

    #[test]
    fn an_intent_that_failed_and_was_retried_is_one_payment() {
        let failed = |id: &str, instant: &str| charge(id, "failed", instant, "USD", 4900);
        let waiting = intent(
            "requires_payment_method",
            "2026-01-30T10:00:00Z",
            "USD",
            4900,
        );
        let mut facts = PaymentFacts {
            payment_key: "pi_1".into(),
            intent: Some(waiting),
            charges: vec![
                failed("ch_1", "2026-01-30T10:00:00Z"),
                failed("ch_2", "2026-01-31T10:00:00Z"),
            ],
            ..PaymentFacts::default()
        };
        let two_failures = [
            ("2026-01-30", [0, 0, 0, 0, 0, 1]),
            ("2026-01-31", [0, 0, 0, 0, 0, 1]),
        ];
        for (status, expected) in [
            ("requires_payment_method", PaymentStatus::Failed),
            ("canceled", PaymentStatus::Canceled),
        ] {
            facts.intent.as_mut().unwrap().status = status.into();
            let payment = payment_of(&facts);
            assert_eq!(payment.status, expected);
            assert_eq!(payment.amount_cents, 4900);
            let unpaid = (payment.stripe_fee_cents, payment.net_amount_cents);
            assert_eq!(unpaid, (0, 0), "{status}");
            assert_eq!(payment.fee_source, None, "{status}");
            assert_eq!(payment.succeeded_at, None, "{status}");
            assert_days(&payment, &two_failures, status);
        }

        let success = at("2026-02-02T10:00:00Z");
        facts.intent = Some(PaymentIntent {
            succeeded_at: Some(success),
            ..intent("succeeded", "2026-01-30T10:00:00Z", "USD", 4900)
        });
        let third = charge("ch_3", "succeeded", "2026-02-02T10:00:00Z", "USD", 4900);
        facts.charges.push(third);
        let payment = payment_of(&facts);
        assert_eq!(payment.status, PaymentStatus::Succeeded);
        assert_eq!(payment.stripe_charge_id.as_deref(), Some("ch_3"));
        assert_eq!(payment.succeeded_at, Some(success));
        // 4900 × 2.9 % = 142.1 → 142, + 30.
        assert_eq!(payment.stripe_fee_cents, 172);
        assert_eq!(payment.net_amount_cents, 4728);
        assert_days(
            &payment,
            &[
                two_failures[0],
                two_failures[1],
                ("2026-02-02", [4900, 172, 0, 0, 1, 0]),
            ],
            "paid at last",
        );
    }

    #[test]
    fn a_payment_is_dated_by_the_earliest_fact_that_shows_its_success() {
        let created = "2026-01-31T23:59:50Z";
        let link = |paid_at: &str| InvoicePayment {
            stripe_invoice_id: "in_1".into(),
            stripe_payment_intent_id: Some("pi_1".into()),
            stripe_charge_id: None,
            stripe_payment_record_id: None,
            reported_by: None,
            stripe_invoice_payment_id: None,
            is_default: None,
            stripe_customer_id: None,
            amount_paid_cents: Some(2900),
            currency: Some(Currency::USD),
            status: Some("paid".into()),
            paid_at: Some(at(paid_at)),
            version: version(at(paid_at)),
        };
        // Announced by the intent, by the charge, by the invoice; nothing announced is fetched.
        let (before, after) = ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z");
        for (by_intent, by_charge, by_invoice, day) in [
            (Some(after), None, None, "2026-02-01"),
            (None, Some(after), None, "2026-02-01"),
            (Some(after), Some(before), None, "2026-01-31"),
            (Some(before), Some(after), Some(after), "2026-01-31"),
            (Some(after), Some(after), Some(before), "2026-01-31"),
            (None, None, Some(after), "2026-02-01"),
            (None, None, None, "2026-01-31"),
        ] {
            let mut facts = paid(created, "USD", 2900);
            facts.intent.as_mut().unwrap().succeeded_at = by_intent.map(at);
            facts.charges[0].succeeded_at = by_charge.map(at);
            facts.invoice_payments = by_invoice.map(link).into_iter().collect();
            let what = format!("{by_intent:?} {by_charge:?} {by_invoice:?}");
            let payment = payment_of(&facts);
            // Three announcements are one payment, counted once.
            assert_days(&payment, &[(day, [2900, 114, 0, 0, 1, 0])], &what);
        }
    }

    #[test]
    fn a_payment_outside_stripe_is_gross_without_a_fee() {
        let paid_at = at("2026-04-13T00:01:00Z");
        let payment = out_of_band("in_1", 12_000, Currency::USD, paid_at);
        assert_eq!(payment.payment_key, "in_1");
        assert_eq!(payment.payment_method.as_deref(), Some("out_of_band"));
        assert_eq!(payment.status, PaymentStatus::Succeeded);
        assert_eq!(payment.stripe_fee_cents, 0);
        assert_eq!(payment.fee_source, Some(FeeSource::Actual));
        assert_eq!(payment.net_amount_cents, 12_000);
        assert_eq!(payment.succeeded_at, Some(paid_at));
        assert_eq!(payment.created_at, paid_at);
        assert!(!payment.entries.iter().any(|entry| entry.is_estimated));
        assert_days(
            &payment,
            &[("2026-04-13", [12_000, 0, 0, 0, 1, 0])],
            "out of band",
        );
    }
}
