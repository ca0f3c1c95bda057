//! Stripe's balance: its transactions, and the payouts that take them to the bank.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use crate::money::{self, Currency};
use crate::payment::Settlement;
use crate::period::day_of;
use crate::stripe_objects::objects::{Ids, Kind};
use crate::stripe_objects::snapshot::{Snapshot, Version, known};
use crate::words::words;

/// A movement of the account's balance. Stripe never changes one. Amounts in minor units of `currency`, that of the
/// balance. Source: <https://docs.stripe.com/api/balance_transactions/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct BalanceTransaction {
    pub stripe_balance_transaction_id: String,
    /// Stripe's `type`.
    pub kind: String,
    /// What Stripe's reports group it under.
    pub reporting_category: String,
    /// Which of the account's balances moved: `payments` for most accounts.
    pub balance_type: String,
    pub currency: Currency,
    /// Before the fee; negative when money went out.
    pub amount_cents: i64,
    pub fee_cents: i64,
    /// The amount less the fee.
    pub net_cents: i64,
    /// What the fee is made of, as Stripe lists it.
    pub fee_details: Value,
    /// The rate that Stripe shows, as decimal text; `None` without a conversion.
    pub exchange_rate: Option<String>,
    /// The object that moved it.
    pub source_id: Option<String>,
    /// What it is to its payment; `None` when it belongs to none.
    pub source_kind: Option<SourceKind>,
    /// The payment it belongs to, as far as the objects known tell.
    pub payment_key: Option<String>,
    pub description: Option<String>,
    pub created_at: Timestamp,
    /// When its money may be paid out.
    pub available_at: Option<Timestamp>,
    /// The payout it went out with; `None` until that has been listed.
    pub stripe_payout_id: Option<String>,
    pub version: Version,
}

words!(
    /// What a balance transaction is to its payment.
    SourceKind {
        Charge = "charge",
        /// Takes back a charge that failed after all.
        ChargeFailure = "charge_failure",
        Refund = "refund",
        /// Brings back a refund that failed.
        RefundFailure = "refund_failure",
        /// Of a dispute: withdrawn or reinstated.
        Dispute = "dispute",
    }
);

impl Snapshot for BalanceTransaction {
    fn key(&self) -> String {
        self.stripe_balance_transaction_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.balance_transactions
            .push(self.stripe_balance_transaction_id.clone());
        let Some(source) = &self.source_id else {
            return;
        };
        match Source::of(source) {
            Some(Source::Charge) => ids.charges.push(source.clone()),
            Some(Source::Refund) => ids.refunds.push(source.clone()),
            Some(Source::Dispute) => ids.disputes.push(source.clone()),
            None => {}
        }
    }

    fn absorb(&mut self, earlier: &BalanceTransaction) {
        known(&mut self.stripe_payout_id, &earlier.stripe_payout_id);
        known(&mut self.payment_key, &earlier.payment_key);
        known(&mut self.source_kind, &earlier.source_kind);
        // It was there when it was first shown. What earlier releases kept is dated by what it did.
        if earlier.version.is_seen() {
            self.created_at = self.created_at.min(earlier.created_at);
        }
    }
}

/// What kind of object an id of `source` names, of those that belong to payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Charge,
    Refund,
    Dispute,
}

impl Source {
    /// Reads the prefix of the id; `None` for any other object.
    #[must_use]
    pub fn of(id: &str) -> Option<Source> {
        match id.split_once('_')?.0 {
            "ch" | "py" => Some(Source::Charge),
            "re" | "pyr" => Some(Source::Refund),
            "dp" | "du" => Some(Source::Dispute),
            _ => None,
        }
    }
}

impl BalanceTransaction {
    /// What a charge's transaction says of its payment.
    #[must_use]
    pub fn settlement(&self) -> Settlement {
        Settlement {
            currency: self.currency,
            amount_cents: self.amount_cents,
            fee_cents: self.fee_cents,
            exchange_rate: self.exchange_rate.clone(),
        }
    }

    /// What the transaction is to its payment, by itself: when no object names it.
    #[must_use]
    pub fn kind_by_category(&self) -> Option<SourceKind> {
        match self.reporting_category.as_str() {
            "charge" => Some(SourceKind::Charge),
            "charge_failure" => Some(SourceKind::ChargeFailure),
            "refund" | "partial_capture_reversal" => Some(SourceKind::Refund),
            "refund_failure" => Some(SourceKind::RefundFailure),
            "dispute" | "dispute_reversal" => Some(SourceKind::Dispute),
            _ => None,
        }
    }

    fn daily_key(&self) -> DailyKey {
        DailyKey {
            day: day_of(self.created_at),
            balance_type: self.balance_type.clone(),
            currency: self.currency,
            reporting_category: self.reporting_category.clone(),
        }
    }
}

/// What Stripe's reports group a transaction under whose version does not say so yet, by its type, its source and the
/// sign of its amount. Source: <https://docs.stripe.com/reports/reporting-categories>.
#[must_use]
pub fn reporting_category(kind: &str, source_id: Option<&str>, amount_cents: i64) -> &'static str {
    let source = source_id.and_then(Source::of);
    match (kind, source) {
        ("charge" | "payment", _) => "charge",
        ("payment_failure_refund" | "payment_reversal", _) => "charge_failure",
        ("refund" | "payment_refund", _) => "refund",
        ("refund_failure", _) | ("adjustment", Some(Source::Refund)) => "refund_failure",
        ("adjustment", Some(Source::Dispute)) if amount_cents > 0 => "dispute_reversal",
        ("adjustment", Some(Source::Dispute)) => "dispute",
        ("payout", _) => "payout",
        ("payout_cancel" | "payout_failure", _) => "payout_reversal",
        ("topup", _) => "topup",
        ("topup_reversal", _) => "topup_reversal",
        ("stripe_fee" | "stripe_fx_fee", _) => "fee",
        ("application_fee", _) => "platform_earning",
        ("tax_fee", _) => "tax",
        ("network_cost", _) => "network_cost",
        ("transfer", _) => "transfer",
        ("transfer_refund" | "transfer_cancel" | "transfer_failure", _) => "transfer_reversal",
        ("reserve_transaction" | "reserved_funds", _) => "risk_reserved_funds",
        ("contribution", _) => "contribution",
        _ => "other_adjustment",
    }
}

/// A row of `balance_daily`: what moved a balance on a day (UTC), by reporting category.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DailyKey {
    pub day: Date,
    pub balance_type: String,
    pub currency: Currency,
    pub reporting_category: String,
}

/// What changes in a row of `balance_daily`, in minor units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DailyBalance {
    pub amount_cents: i64,
    pub fee_cents: i64,
    pub net_cents: i64,
    /// The number of transactions.
    pub count: i64,
}

/// How `balance_daily` changes when these transactions replace those stored: the changes that are not nothing.
///
/// # Errors
/// When a sum is out of range.
pub fn daily(
    stored: &Kind<BalanceTransaction>,
    changed: &Kind<BalanceTransaction>,
) -> Result<BTreeMap<DailyKey, DailyBalance>, money::Error> {
    let mut days: BTreeMap<DailyKey, DailyBalance> = BTreeMap::new();
    for (id, transaction) in changed {
        let before = stored.get(id).map(|before| (before, -1));
        for (one, sign) in before.into_iter().chain([(transaction, 1)]) {
            let day = days.entry(one.daily_key()).or_default();
            for (sum, amount) in [
                (&mut day.amount_cents, one.amount_cents),
                (&mut day.fee_cents, one.fee_cents),
                (&mut day.net_cents, one.net_cents),
                (&mut day.count, 1),
            ] {
                let signed = amount.checked_mul(sign).ok_or(money::Error::OutOfRange)?;
                *sum = sum.checked_add(signed).ok_or(money::Error::OutOfRange)?;
            }
        }
    }
    days.retain(|_, day| *day != DailyBalance::default());
    Ok(days)
}

/// A payout to the bank as one snapshot shows it. Amounts in minor units of `currency`.
/// Source: <https://docs.stripe.com/api/payouts/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Payout {
    pub stripe_payout_id: String,
    pub amount_cents: i64,
    pub currency: Currency,
    /// Stripe's word.
    pub status: String,
    /// Made by Stripe of what is available. Only of these it can list the transactions.
    pub automatic: bool,
    /// `standard` or `instant`.
    pub method: Option<String>,
    /// The day (UTC) on which the bank is to have it.
    pub arrival_on: Option<Date>,
    /// What the banks know it by.
    pub trace_id: Option<String>,
    /// Whether Stripe has assigned its transactions; Stripe's word.
    pub reconciliation_status: Option<String>,
    pub stripe_balance_transaction_id: Option<String>,
    pub failure_balance_transaction_id: Option<String>,
    pub failure_code: Option<String>,
    pub created_at: Timestamp,
    /// When its transactions were listed whole; `None` until then.
    pub transactions_listed_at: Option<Timestamp>,
    pub version: Version,
}

impl Snapshot for Payout {
    fn key(&self) -> String {
        self.stripe_payout_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.payouts.push(self.stripe_payout_id.clone());
    }

    fn absorb(&mut self, earlier: &Payout) {
        known(
            &mut self.transactions_listed_at,
            &earlier.transactions_listed_at,
        );
        known(&mut self.trace_id, &earlier.trace_id);
    }
}

impl Payout {
    /// The rank of a payout's status within one second, ×100, plus the rank of the event's type. A paid one can still
    /// fail.
    #[must_use]
    pub fn rank(status: &str, event_type: &str) -> i32 {
        let status_rank = match status {
            "in_transit" => 1,
            "paid" => 2,
            "failed" | "canceled" => 3,
            _ => 0,
        };
        let type_rank = match event_type {
            "payout.created" => 0,
            "payout.reconciliation_completed" => 2,
            _ => 1,
        };
        status_rank * 100 + type_rank
    }

    /// Whether Stripe has assigned the transactions that the payout consists of, or soon will have.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        self.reconciliation_status.as_deref() == Some("completed")
            || self.automatic && self.status == "paid"
    }
}

/// A tax rate as one snapshot shows it. Source: <https://docs.stripe.com/api/tax_rates/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct TaxRate {
    pub stripe_tax_rate_id: String,
    pub display_name: Option<String>,
    /// Decimal text: `20` is 20 %.
    pub percentage: Option<String>,
    /// Two letters, ISO 3166.
    pub country: Option<String>,
    pub state: Option<String>,
    pub jurisdiction: Option<String>,
    /// `vat`, `sales_tax`, …; Stripe's word.
    pub tax_type: Option<String>,
    pub inclusive: Option<bool>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
}

impl Snapshot for TaxRate {
    fn key(&self) -> String {
        self.stripe_tax_rate_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.tax_rates.push(self.stripe_tax_rate_id.clone());
    }

    fn absorb(&mut self, _earlier: &TaxRate) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(created_at: &str, category: &str, amount_cents: i64) -> BalanceTransaction {
        BalanceTransaction {
            stripe_balance_transaction_id: "txn_1".into(),
            kind: "charge".into(),
            reporting_category: category.into(),
            balance_type: "payments".into(),
            currency: Currency::USD,
            amount_cents,
            fee_cents: 30,
            net_cents: amount_cents - 30,
            fee_details: Value::Null,
            exchange_rate: None,
            source_id: Some("ch_1".into()),
            source_kind: None,
            payment_key: None,
            description: None,
            created_at: created_at.parse().unwrap(),
            available_at: None,
            stripe_payout_id: None,
            version: Version::unseen(),
        }
    }

    fn kind(transaction: BalanceTransaction) -> Kind<BalanceTransaction> {
        Kind::from([(transaction.key(), transaction)])
    }

    #[test]
    fn a_day_counts_a_transaction_once() {
        let first = kind(transaction("2026-10-31T23:59:59Z", "charge", 1_000));
        let days = daily(&Kind::new(), &first).unwrap();
        let shown: Vec<_> = days
            .iter()
            .map(|(key, day)| (key.day.to_string(), day.net_cents, day.count))
            .collect();
        assert_eq!(shown, [("2026-10-31".to_owned(), 970, 1)]);

        // Another snapshot of the same says nothing new.
        assert_eq!(daily(&first, &first).unwrap(), BTreeMap::new());

        // One that was dated otherwise moves.
        let second = kind(transaction("2026-11-01T00:00:00Z", "charge", 1_000));
        let days = daily(&first, &second).unwrap();
        let shown: Vec<_> = days
            .values()
            .map(|day| (day.amount_cents, day.fee_cents, day.count))
            .collect();
        assert_eq!(shown, [(-1_000, -30, -1), (1_000, 30, 1)]);
    }

    #[test]
    fn a_category_follows_from_type_source_and_sign() {
        for (kind, source, amount, category) in [
            ("charge", Some("ch_1"), 500, "charge"),
            ("payment", Some("py_1"), 500, "charge"),
            (
                "payment_failure_refund",
                Some("py_1"),
                -500,
                "charge_failure",
            ),
            ("payment_refund", Some("pyr_1"), -500, "refund"),
            ("adjustment", Some("re_1"), 500, "refund_failure"),
            ("adjustment", Some("dp_1"), -500, "dispute"),
            ("adjustment", Some("du_1"), 500, "dispute_reversal"),
            ("adjustment", None, 500, "other_adjustment"),
            ("payout", Some("po_1"), -500, "payout"),
            ("stripe_fee", None, -70, "fee"),
        ] {
            let found = reporting_category(kind, source, amount);
            assert_eq!(found, category, "{kind} of {source:?}");
        }
    }

    #[test]
    fn a_payout_has_transactions_once_it_is_paid_or_reconciled() {
        let payout = |status: &str, automatic: bool, reconciliation: Option<&str>| Payout {
            stripe_payout_id: "po_1".into(),
            amount_cents: 500,
            currency: Currency::USD,
            status: status.into(),
            automatic,
            method: None,
            arrival_on: None,
            trace_id: None,
            reconciliation_status: reconciliation.map(str::to_owned),
            stripe_balance_transaction_id: None,
            failure_balance_transaction_id: None,
            failure_code: None,
            created_at: Timestamp::UNIX_EPOCH,
            transactions_listed_at: None,
            version: Version::unseen(),
        };
        for (status, automatic, reconciliation, expected) in [
            ("paid", true, Some("completed"), true),
            ("in_transit", true, Some("completed"), true),
            ("paid", true, Some("in_progress"), true),
            ("paid", false, Some("not_applicable"), false),
            ("paid", true, None, true),
            ("pending", true, None, false),
            ("paid", false, None, false),
        ] {
            let payout = payout(status, automatic, reconciliation);
            assert_eq!(payout.has_transactions(), expected, "{payout:?}");
        }
    }
}
