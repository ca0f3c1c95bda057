//! Reconciliation: compares an object as Stripe shows it with the ledger's rows of it.

use std::fmt;

use crate::money::Currency;
use crate::payment::{Charge, Dispute, FeeSource, InvoicePayment, Payment, PaymentIntent, Refund};
use crate::revenue::entries::RevenueEntry;
use crate::stripe_objects::balance::{BalanceTransaction, Payout, TaxRate};
use crate::stripe_objects::invoice::{Invoice, InvoiceStatus};
use crate::stripe_objects::status::IntentStatus;
use crate::stripe_objects::subscription::{Item, Subscription};

/// How Stripe and the ledger differ; stored in `reconciliation_items.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Stripe has it, the ledger does not.
    MissingInDb,
    /// The ledger has it, and Stripe says that there is no such object.
    MissingInStripe,
    AmountDiffers,
    CurrencyDiffers,
    StatusDiffers,
    FeeDiffers,
    /// A payment of no invoice, and money outside Stripe of the same customer and amount within a week. Both count.
    PossibleDoublePayment,
    /// A figure of a month that changed when the archive was read again.
    Restated,
}

impl Kind {
    /// The word that is stored in the column.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::MissingInDb => "missing_in_db",
            Kind::MissingInStripe => "missing_in_stripe",
            Kind::AmountDiffers => "amount_differs",
            Kind::CurrencyDiffers => "currency_differs",
            Kind::StatusDiffers => "status_differs",
            Kind::FeeDiffers => "fee_differs",
            Kind::PossibleDoublePayment => "possible_double_payment",
            Kind::Restated => "restated",
        }
    }
}

/// What a difference is about; stored in `reconciliation_items.object_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectType {
    Charge,
    PaymentIntent,
    Refund,
    Dispute,
    Invoice,
    /// The link between an invoice and what pays it.
    InvoicePayment,
    Subscription,
    /// The ledger's own row of a payment (`payment_history`), derived from the objects.
    Payment,
    Payout,
    BalanceTransaction,
    TaxRate,
    /// A day of `revenue_daily`.
    RevenueDaily,
    /// A subject's day of `usage_daily`.
    UsageDaily,
    /// An invoice whose total is compared with the sum of its lines.
    InvoiceTotal,
    /// A number of our invoice series.
    InvoiceNumber,
}

impl ObjectType {
    /// Every type, in the order of the variants.
    pub const ALL: [ObjectType; 15] = [
        ObjectType::Charge,
        ObjectType::PaymentIntent,
        ObjectType::Refund,
        ObjectType::Dispute,
        ObjectType::Invoice,
        ObjectType::InvoicePayment,
        ObjectType::Subscription,
        ObjectType::Payment,
        ObjectType::Payout,
        ObjectType::BalanceTransaction,
        ObjectType::TaxRate,
        ObjectType::RevenueDaily,
        ObjectType::UsageDaily,
        ObjectType::InvoiceTotal,
        ObjectType::InvoiceNumber,
    ];

    /// The word that is stored in the column: Stripe's word for Stripe's objects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectType::Charge => "charge",
            ObjectType::PaymentIntent => "payment_intent",
            ObjectType::Refund => "refund",
            ObjectType::Dispute => "dispute",
            ObjectType::Invoice => "invoice",
            ObjectType::InvoicePayment => "invoice_payment",
            ObjectType::Subscription => "subscription",
            ObjectType::Payment => "payment",
            ObjectType::Payout => "payout",
            ObjectType::BalanceTransaction => "balance_transaction",
            ObjectType::TaxRate => "tax_rate",
            ObjectType::RevenueDaily => "revenue_daily",
            ObjectType::UsageDaily => "usage_daily",
            ObjectType::InvoiceTotal => "invoice_total",
            ObjectType::InvoiceNumber => "invoice_number",
        }
    }

    /// The type that a stored word names; `None` for any other word.
    #[must_use]
    pub fn parse(word: &str) -> Option<ObjectType> {
        ObjectType::ALL
            .into_iter()
            .find(|object_type| object_type.as_str() == word)
    }
}

/// One difference. The values are what a person compares: a status, or an amount in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Discrepancy {
    pub kind: Kind,
    pub object_type: ObjectType,
    /// Stripe's id, or what identifies the ledger's row.
    pub object_id: String,
    /// The currency of the amounts; `None` when the values are not amounts.
    pub currency: Option<Currency>,
    pub stripe_value: Option<String>,
    pub ledger_value: Option<String>,
}

/// The differences of one object. Keeps at most one of each kind: the first that was found.
struct Comparison {
    object_type: ObjectType,
    object_id: String,
    currency: Option<Currency>,
    found: Vec<Discrepancy>,
}

impl Comparison {
    fn new(object_type: ObjectType, object_id: &str, currency: Option<Currency>) -> Comparison {
        Comparison {
            object_type,
            object_id: object_id.to_owned(),
            currency,
            found: Vec::new(),
        }
    }

    /// Compares what the object is worth, and then what `rest` compares. Without a row in the ledger the object is
    /// missing.
    fn of_money<T>(
        object_type: ObjectType,
        object_id: &str,
        (stripe, ledger): (&T, Option<&T>),
        money: fn(&T) -> (Currency, i64),
        rest: impl FnOnce(&mut Comparison, &T),
    ) -> Vec<Discrepancy> {
        let (currency, amount_cents) = money(stripe);
        let mut comparison = Comparison::new(object_type, object_id, Some(currency));
        let Some(ledger) = ledger else {
            return comparison.missing(Kind::MissingInDb, amount_cents);
        };
        comparison.expect_amount((currency, amount_cents), money(ledger));
        rest(&mut comparison, ledger);
        comparison.found
    }

    fn missing(mut self, kind: Kind, value: impl fmt::Display) -> Vec<Discrepancy> {
        let value = Some(value.to_string());
        let (stripe_value, ledger_value) = match kind {
            Kind::MissingInStripe => (None, value),
            Kind::MissingInDb
            | Kind::AmountDiffers
            | Kind::CurrencyDiffers
            | Kind::StatusDiffers
            | Kind::FeeDiffers
            | Kind::PossibleDoublePayment
            | Kind::Restated => (value, None),
        };
        self.push(kind, stripe_value, ledger_value);
        self.found
    }

    fn expect<T: PartialEq + fmt::Display>(&mut self, kind: Kind, stripe: T, ledger: T) {
        if stripe != ledger {
            self.push(kind, Some(stripe.to_string()), Some(ledger.to_string()));
        }
    }

    /// Compares the amount of the whole object.
    fn expect_amount(&mut self, stripe: (Currency, i64), ledger: (Currency, i64)) {
        let (stripe_currency, ledger_currency) = (stripe.0.as_str(), ledger.0.as_str());
        self.expect(Kind::CurrencyDiffers, stripe_currency, ledger_currency);
        self.expect(Kind::AmountDiffers, stripe.1, ledger.1);
    }

    fn expect_status(&mut self, stripe: &str, ledger: &str) {
        self.expect(Kind::StatusDiffers, stripe, ledger);
    }

    /// Compares the amount of a part of the object; the values name the part.
    fn expect_part(&mut self, kind: Kind, part: &str, stripe: i64, ledger: i64) {
        if stripe != ledger {
            let named = |value| Some(format!("{part} {value}"));
            self.push(kind, named(stripe), named(ledger));
        }
    }

    fn push(&mut self, kind: Kind, stripe_value: Option<String>, ledger_value: Option<String>) {
        if self.found.iter().any(|found| found.kind == kind) {
            return;
        }
        self.found.push(Discrepancy {
            kind,
            object_type: self.object_type,
            object_id: self.object_id.clone(),
            currency: self.currency,
            stripe_value,
            ledger_value,
        });
    }
}

/// An object that is in the ledger but not at Stripe.
#[must_use]
pub fn missing_in_stripe(object_type: ObjectType, object_id: &str) -> Vec<Discrepancy> {
    Comparison::new(object_type, object_id, None).missing(Kind::MissingInStripe, object_id)
}

/// Compares a charge, and the ids of the balance transactions it names: with one that the ledger does not know, the fee
/// differs.
#[must_use]
pub fn charge(stripe: &Charge, ledger: Option<&Charge>) -> Vec<Discrepancy> {
    Comparison::of_money(
        ObjectType::Charge,
        &stripe.stripe_charge_id,
        (stripe, ledger),
        |charge| (charge.currency, charge.amount_cents),
        |comparison, ledger| {
            comparison.expect_part(
                Kind::AmountDiffers,
                "captured",
                stripe.amount_captured_cents,
                ledger.amount_captured_cents,
            );
            comparison.expect_status(charge_status(stripe), charge_status(ledger));
            // Its figures are another comparison.
            let unknown = |id: &&String| !ledger.names_transaction(id);
            if let Some(id) = stripe.transaction_ids().find(unknown) {
                let known = ledger.stripe_balance_transaction_id.clone();
                comparison.push(Kind::FeeDiffers, Some(id.clone()), known);
            }
        },
    )
}

fn charge_status(charge: &Charge) -> &str {
    if charge.has_succeeded() && !charge.is_captured {
        "uncaptured"
    } else {
        &charge.status
    }
}

/// Whether Stripe sends events about an intent in this state. It sends none for a payment that nobody has tried yet.
#[must_use]
pub fn is_announced(intent: &PaymentIntent) -> bool {
    match intent.known_status() {
        IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresSource => {
            intent.failure_code.is_some()
        }
        IntentStatus::RequiresConfirmation | IntentStatus::RequiresCapture => false,
        IntentStatus::RequiresAction
        | IntentStatus::RequiresSourceAction
        | IntentStatus::Processing
        | IntentStatus::Canceled
        | IntentStatus::Succeeded
        | IntentStatus::Unknown => true,
    }
}

/// Compares a payment intent with the ledger's row.
#[must_use]
pub fn payment_intent(stripe: &PaymentIntent, ledger: Option<&PaymentIntent>) -> Vec<Discrepancy> {
    if !is_announced(stripe) {
        return Vec::new();
    }
    Comparison::of_money(
        ObjectType::PaymentIntent,
        &stripe.stripe_payment_intent_id,
        (stripe, ledger),
        |intent| (intent.currency, intent.amount_cents),
        |comparison, ledger| {
            if let (Some(stripe), Some(ledger)) =
                (stripe.amount_received_cents, ledger.amount_received_cents)
            {
                comparison.expect_part(Kind::AmountDiffers, "received", stripe, ledger);
            }
            comparison.expect_status(stripe.status.as_str(), ledger.status.as_str());
        },
    )
}

/// Compares a refund with the ledger's row.
#[must_use]
pub fn refund(stripe: &Refund, ledger: Option<&Refund>) -> Vec<Discrepancy> {
    Comparison::of_money(
        ObjectType::Refund,
        &stripe.stripe_refund_id,
        (stripe, ledger),
        |refund| (refund.currency, refund.amount_cents),
        |comparison, ledger| {
            comparison.expect_status(stripe.status.as_str(), ledger.status.as_str());
        },
    )
}

/// Compares a dispute, and the ids of the balance transactions it caused, with the ledger's row.
#[must_use]
pub fn dispute(stripe: &Dispute, ledger: Option<&Dispute>) -> Vec<Discrepancy> {
    Comparison::of_money(
        ObjectType::Dispute,
        &stripe.stripe_dispute_id,
        (stripe, ledger),
        |dispute| (dispute.currency, dispute.amount_cents),
        |comparison, ledger| {
            comparison.expect_status(stripe.status.as_str(), ledger.status.as_str());
            let unknown = |id: &&String| !ledger.names_transaction(id);
            if let Some(id) = stripe.transaction_ids().find(unknown) {
                comparison.push(Kind::FeeDiffers, Some(id.clone()), None);
            }
        },
    )
}

/// The ledger's row of an invoice that is at Stripe.
#[derive(Debug, Clone, PartialEq)]
pub struct InvoiceRow {
    pub invoice: Invoice,
    /// The stored amount that remains to be paid.
    pub amount_due_cents: i64,
    /// We issued the invoice and Stripe collects it. There it consists of other items (tax and credits are items too),
    /// its total is what was due, and a draft is not an open invoice yet.
    pub is_ours: bool,
}

/// Compares an invoice with the ledger's row.
#[must_use]
pub fn invoice(stripe: &Invoice, ledger: Option<&InvoiceRow>) -> Vec<Discrepancy> {
    let mut comparison = Comparison::new(
        ObjectType::Invoice,
        &stripe.stripe_invoice_id,
        Some(stripe.currency),
    );
    let Some(row) = ledger else {
        return comparison.missing(Kind::MissingInDb, stripe.total_cents);
    };
    let ledger = &row.invoice;
    if row.is_ours {
        if stripe.status == InvoiceStatus::Draft {
            return comparison.found;
        }
        let (stripe, ledger) = (stripe.currency.as_str(), ledger.currency.as_str());
        comparison.expect(Kind::CurrencyDiffers, stripe, ledger);
    } else {
        comparison.expect_amount(
            (stripe.currency, stripe.total_cents),
            (ledger.currency, ledger.total_cents),
        );
        for (part, stripe, ledger) in [
            ("subtotal", stripe.subtotal_cents, ledger.subtotal_cents),
            ("tax", stripe.tax_cents, ledger.tax_cents),
            ("discount", stripe.discount_cents, ledger.discount_cents),
        ] {
            comparison.expect_part(Kind::AmountDiffers, part, stripe, ledger);
        }
    }
    let (paid, ledger_paid) = (stripe.amount_paid_cents, ledger.amount_paid_cents);
    comparison.expect_part(Kind::AmountDiffers, "paid", paid, ledger_paid);
    // Stripe's own figure already knows every credit note.
    if let Ok(due_cents) = stripe.amount_due_cents(&[]) {
        comparison.expect_part(Kind::AmountDiffers, "due", due_cents, row.amount_due_cents);
    }
    comparison.expect_status(stripe.status.as_str(), ledger.status.as_str());
    comparison.found
}

/// Compares what came outside Stripe for an invoice, in minor units; `stripe` follows from Stripe's list of its payments.
#[must_use]
pub fn outside_stripe(invoice: &Invoice, stripe: i64, ledger: i64) -> Vec<Discrepancy> {
    let id = &invoice.stripe_invoice_id;
    let mut comparison = Comparison::new(ObjectType::Invoice, id, Some(invoice.currency));
    comparison.expect_part(Kind::AmountDiffers, "outside Stripe", stripe, ledger);
    comparison.found
}

/// Compares a link that says an invoice has been paid.
#[must_use]
pub fn invoice_payment(
    stripe: &InvoicePayment,
    ledger: Option<&InvoicePayment>,
) -> Vec<Discrepancy> {
    if stripe.status.as_deref() != Some("paid") {
        return Vec::new();
    }
    let comparison = Comparison::new(
        ObjectType::InvoicePayment,
        &stripe.link_key(),
        stripe.currency,
    );
    let payment = stripe.stripe_payment_intent_id.as_deref();
    let payment = payment.or(stripe.stripe_charge_id.as_deref());
    let payment = payment.or(stripe.stripe_payment_record_id.as_deref());
    match ledger {
        Some(_) => comparison.found,
        None => comparison.missing(Kind::MissingInDb, payment.unwrap_or_default()),
    }
}

/// The ledger's row of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriptionRow {
    /// `None` while only a checkout session has named the subscription.
    pub snapshot: Option<Subscription>,
    /// The stored MRR in millionths of a minor unit.
    pub mrr_microcents: i64,
    /// The MRR computed from the snapshot; `None` when it cannot be computed yet.
    pub computed_mrr_microcents: Option<i64>,
}

/// Compares a subscription: its state, its items, and whether the stored MRR is the one its items give.
#[must_use]
pub fn subscription(stripe: &Subscription, ledger: Option<&SubscriptionRow>) -> Vec<Discrepancy> {
    let mut comparison = Comparison::new(
        ObjectType::Subscription,
        &stripe.stripe_subscription_id,
        stripe.currency,
    );
    let Some(row) = ledger else {
        return comparison.missing(Kind::MissingInDb, &stripe.status);
    };
    let Some(ledger) = &row.snapshot else {
        comparison.push(
            Kind::StatusDiffers,
            Some(stripe.status.clone()),
            Some("incomplete, named by a checkout session only".to_owned()),
        );
        return comparison.found;
    };
    if let (Some(stripe), Some(ledger)) = (stripe.currency, ledger.currency) {
        comparison.expect(Kind::CurrencyDiffers, stripe.as_str(), ledger.as_str());
    }
    comparison.expect_status(&subscription_state(stripe), &subscription_state(ledger));
    comparison.expect(Kind::AmountDiffers, items(stripe), items(ledger));
    if let Some(computed) = row.computed_mrr_microcents {
        comparison.expect_part(
            Kind::AmountDiffers,
            "MRR in millionths",
            computed,
            row.mrr_microcents,
        );
    }
    comparison.found
}

fn subscription_state(subscription: &Subscription) -> String {
    let mut state = subscription.status.clone();
    if let Some(end) = subscription.current_period_end {
        state.push_str(&format!(" until {end}"));
    }
    if subscription.cancel_at_period_end {
        state.push_str(", ends then");
    }
    state
}

fn items(subscription: &Subscription) -> String {
    let item = |item: &Item| {
        let whole = item.quantity.to_string();
        let quantity = item.quantity_decimal.as_ref().unwrap_or(&whole);
        format!("{quantity} × {}", item.price.stripe_price_id)
    };
    let mut items: Vec<String> = subscription.items.iter().map(item).collect();
    items.sort_unstable();
    items.join(", ")
}

/// The ledger's row of a payment in `payment_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRow {
    pub payment_key: String,
    pub currency: Option<Currency>,
    pub amount_cents: i64,
    pub refund_amount_cents: i64,
    pub disputed_amount_cents: i64,
    pub net_amount_cents: i64,
    pub stripe_fee_cents: i64,
    /// `actual` or `estimated`; see [`crate::payment::FeeSource`].
    pub fee_source: Option<String>,
    pub status: String,
}

/// Compares a payment: what its objects add up to, with its row and its revenue entries. An estimated fee is not
/// compared.
#[must_use]
pub fn payment(
    derived: &Payment,
    row: Option<&PaymentRow>,
    entries: &[RevenueEntry],
) -> Vec<Discrepancy> {
    let mut comparison = Comparison::new(
        ObjectType::Payment,
        &derived.payment_key,
        Some(derived.currency),
    );
    let Some(row) = row else {
        return comparison.missing(Kind::MissingInDb, derived.amount_cents);
    };
    comparison.expect(
        Kind::CurrencyDiffers,
        derived.currency.as_str(),
        row.currency
            .as_ref()
            .map_or("", |currency| currency.as_str()),
    );
    comparison.expect(Kind::AmountDiffers, derived.amount_cents, row.amount_cents);
    let is_estimated = derived.fee_source == Some(FeeSource::Estimated);
    if !(is_estimated && row.fee_source.as_deref() == Some(FeeSource::Estimated.as_str())) {
        comparison.expect(
            Kind::FeeDiffers,
            derived.stripe_fee_cents,
            row.stripe_fee_cents,
        );
        let source = |source: Option<&'static str>| source.unwrap_or("none");
        comparison.expect(
            Kind::FeeDiffers,
            source(derived.fee_source.map(FeeSource::as_str)),
            row.fee_source.as_deref().unwrap_or("none"),
        );
    }
    for (part, derived, row) in [
        (
            "refunded",
            derived.refund_amount_cents,
            row.refund_amount_cents,
        ),
        (
            "disputed",
            derived.disputed_amount_cents,
            row.disputed_amount_cents,
        ),
    ] {
        comparison.expect_part(Kind::AmountDiffers, part, derived, row);
    }
    // An estimated fee changes the net as well.
    if !is_estimated {
        comparison.expect_part(
            Kind::AmountDiffers,
            "net",
            derived.net_amount_cents,
            row.net_amount_cents,
        );
    }
    comparison.expect_status(derived.status.as_str(), row.status.as_str());
    let lines = |entries: &[RevenueEntry]| {
        let mut lines: Vec<RevenueEntry> = entries
            .iter()
            .filter(|entry| !entry.is_estimated)
            .cloned()
            .collect();
        lines.sort_unstable();
        lines
    };
    let (expected, stored) = (lines(&derived.entries), lines(entries));
    if expected != stored {
        let differing = expected
            .iter()
            .find(|line| !stored.contains(line))
            .or_else(|| stored.iter().find(|line| !expected.contains(line)));
        let key = differing.map(|line| (line.kind, line.source_id.as_str()));
        let value = |lines: &[RevenueEntry]| {
            let line = lines
                .iter()
                .find(|line| Some((line.kind, line.source_id.as_str())) == key)?;
            Some(format!(
                "entry {} {} on {}",
                line.kind.as_str(),
                line.amount_cents,
                line.day()
            ))
        };
        let (expected, stored) = (value(&expected), value(&stored));
        comparison.push(Kind::AmountDiffers, expected, stored);
    }
    comparison.found
}

/// Compares a balance transaction with the ledger's row.
#[must_use]
pub fn balance_transaction(
    stripe: &BalanceTransaction,
    ledger: Option<&BalanceTransaction>,
) -> Vec<Discrepancy> {
    Comparison::of_money(
        ObjectType::BalanceTransaction,
        &stripe.stripe_balance_transaction_id,
        (stripe, ledger),
        |transaction| (transaction.currency, transaction.amount_cents),
        |comparison, ledger| {
            comparison.expect(Kind::FeeDiffers, stripe.fee_cents, ledger.fee_cents);
            let state = |one: &BalanceTransaction| {
                let source = one.source_id.as_deref().unwrap_or("no source");
                format!("{} of {source} at {}", one.kind, one.created_at)
            };
            comparison.expect_status(&state(stripe), &state(ledger));
        },
    )
}

/// Compares a payout with the ledger's row. Whether its amount is the sum of its transactions is another question.
#[must_use]
pub fn payout_row(stripe: &Payout, ledger: Option<&Payout>) -> Vec<Discrepancy> {
    let currency = Some(stripe.currency);
    let mut comparison = Comparison::new(ObjectType::Payout, &stripe.stripe_payout_id, currency);
    let Some(ledger) = ledger else {
        return comparison.missing(Kind::MissingInDb, stripe.amount_cents);
    };
    let state = |payout: &Payout| format!("{} {}", payout.status, payout.amount_cents);
    comparison.expect_status(&state(stripe), &state(ledger));
    comparison.expect(
        Kind::CurrencyDiffers,
        stripe.currency.as_str(),
        ledger.currency.as_str(),
    );
    comparison.found
}

/// Compares a tax rate with the ledger's row.
#[must_use]
pub fn tax_rate(stripe: &TaxRate, ledger: Option<&TaxRate>) -> Vec<Discrepancy> {
    let mut comparison = Comparison::new(ObjectType::TaxRate, &stripe.stripe_tax_rate_id, None);
    let state = |rate: &TaxRate| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let inclusive = match rate.inclusive {
            Some(true) => "inclusive",
            Some(false) | None => "exclusive",
        };
        let (percentage, name) = (part(&rate.percentage), part(&rate.display_name));
        format!(
            "{percentage} % {inclusive} {name} {}",
            part(&rate.jurisdiction)
        )
    };
    let Some(ledger) = ledger else {
        return comparison.missing(Kind::MissingInDb, state(stripe));
    };
    comparison.expect_status(&state(stripe), &state(ledger));
    comparison.found
}

/// Compares a payout with the sum of its balance transactions, both net and in the payout's currency.
#[must_use]
pub fn payout(
    payout_id: &str,
    currency: Option<Currency>,
    amount_cents: i64,
    sum_cents: i64,
) -> Vec<Discrepancy> {
    let mut comparison = Comparison::new(ObjectType::Payout, payout_id, currency);
    comparison.expect(Kind::AmountDiffers, amount_cents, sum_cents);
    comparison.found
}

/// The share of Stripe's objects that matched, in basis points, rounded down so that 10000 means all of them; `None`
/// when nothing could be compared.
#[must_use]
pub fn completeness_bps(matched: i64, compared: i64) -> Option<i32> {
    let share = i128::from(matched)
        .checked_mul(10_000)?
        .checked_div(i128::from(compared))?;
    i32::try_from(share).ok()
}

/// The summary line that operators know. `None` stands for a list of Stripe's that could not be read to its end.
#[must_use]
pub fn sums_line(stripe_cents: Option<i64>, ledger_cents: i64) -> String {
    let stripe = stripe_cents.map_or_else(|| "not known".to_owned(), |cents| cents.to_string());
    format!("Stripe 24h: {stripe} vs DB 24h: {ledger_cents}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stripe_objects::snapshot::Version;
    use jiff::Timestamp;

    fn succeeded_charge() -> Charge {
        Charge {
            stripe_charge_id: "ch_1".to_owned(),
            stripe_payment_intent_id: None,
            stripe_customer_id: None,
            stripe_invoice_id: None,
            amount_cents: 1_000,
            amount_captured_cents: 1_000,
            currency: Currency::USD,
            status: "succeeded".to_owned(),
            is_captured: true,
            failure_code: None,
            decline_code: None,
            failure_message: None,
            payment_method: None,
            user_id: None,
            succeeded_at: None,
            refund_totals: BTreeMap::new(),
            stripe_balance_transaction_id: Some("txn_1".to_owned()),
            failure_balance_transaction_id: None,
            attempted_at: Timestamp::UNIX_EPOCH,
            version: Version::unseen(),
        }
    }

    fn values_of(found: &[Discrepancy]) -> Vec<(Kind, Option<&str>, Option<&str>)> {
        found
            .iter()
            .map(|one| {
                (
                    one.kind,
                    one.stripe_value.as_deref(),
                    one.ledger_value.as_deref(),
                )
            })
            .collect()
    }

    #[test]
    fn a_charge_is_compared_by_what_money_depends_on() {
        assert_eq!(charge(&succeeded_charge(), Some(&succeeded_charge())), []);
        let found = charge(&succeeded_charge(), None);
        assert_eq!(values_of(&found), [(Kind::MissingInDb, Some("1000"), None)]);
        assert_eq!(found[0].object_id, "ch_1");
        type Change = fn(&mut Charge);
        let cases: [(Change, Kind, &str, &str); 6] = [
            (|a| a.amount_cents = 1, Kind::AmountDiffers, "1000", "1"),
            (
                |a| a.amount_captured_cents = 5,
                Kind::AmountDiffers,
                "captured 1000",
                "captured 5",
            ),
            (
                |a| a.currency = Currency::parse("EUR").unwrap(),
                Kind::CurrencyDiffers,
                "USD",
                "EUR",
            ),
            (
                |a| a.status = "failed".to_owned(),
                Kind::StatusDiffers,
                "succeeded",
                "failed",
            ),
            (
                |a| a.is_captured = false,
                Kind::StatusDiffers,
                "succeeded",
                "uncaptured",
            ),
            (
                |a| a.stripe_balance_transaction_id = Some("txn_2".to_owned()),
                Kind::FeeDiffers,
                "txn_1",
                "txn_2",
            ),
        ];
        for (change, kind, stripe, ledger) in cases {
            let mut row = succeeded_charge();
            change(&mut row);
            let found = charge(&succeeded_charge(), Some(&row));
            assert_eq!(values_of(&found), [(kind, Some(stripe), Some(ledger))]);
        }
        // A kind is reported once, several kinds are reported each.
        let mut row = succeeded_charge();
        (row.amount_cents, row.amount_captured_cents) = (1, 1);
        row.status = "pending".to_owned();
        let kinds: Vec<Kind> = charge(&succeeded_charge(), Some(&row))
            .iter()
            .map(|d| d.kind)
            .collect();
        assert_eq!(kinds, [Kind::AmountDiffers, Kind::StatusDiffers]);
    }

    #[test]
    fn a_transaction_that_an_event_should_have_named_is_told() {
        let mut row = succeeded_charge();
        row.stripe_balance_transaction_id = None;
        let found = charge(&succeeded_charge(), Some(&row));
        assert_eq!(values_of(&found), [(Kind::FeeDiffers, Some("txn_1"), None)]);
        // What the ledger knows more is no difference: a later version may have left it out.
        row = succeeded_charge();
        row.failure_balance_transaction_id = Some("txn_2".to_owned());
        assert_eq!(charge(&succeeded_charge(), Some(&row)), []);
    }

    #[test]
    fn a_payout_is_the_sum_of_its_transactions() {
        assert_eq!(payout("po_1", None, 500, 500), []);
        let found = payout("po_1", Some(Currency::USD), 500, 400);
        assert_eq!(
            values_of(&found),
            [(Kind::AmountDiffers, Some("500"), Some("400"))]
        );
    }

    #[test]
    fn completeness_is_rounded_down_so_that_all_means_all() {
        for (matched, compared, bps) in [
            (5_000, 5_000, Some(10_000)),
            (99_999, 100_000, Some(9_999)),
            (0, 3, Some(0)),
            (1, 3, Some(3_333)),
            (0, 0, None),
        ] {
            assert_eq!(completeness_bps(matched, compared), bps);
        }
    }

    #[test]
    fn the_line_is_the_one_operators_know() {
        assert_eq!(
            sums_line(Some(87_500), 87_500),
            "Stripe 24h: 87500 vs DB 24h: 87500"
        );
        assert_eq!(
            sums_line(None, 87_500),
            "Stripe 24h: not known vs DB 24h: 87500"
        );
    }

    #[test]
    fn every_object_type_is_read_as_it_is_written() {
        for object_type in ObjectType::ALL {
            assert_eq!(ObjectType::parse(object_type.as_str()), Some(object_type));
        }
        assert_eq!(ObjectType::parse("customer"), None);
    }
}
