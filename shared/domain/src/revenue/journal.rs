//! The journal: every revenue entry as a debit and a credit, for the general ledger of an accounting package.
//!
//! Cash basis, like the revenue figures. Everything sold is revenue on the day its money arrived, tax included (the tax
//! report says how much of it is tax). Refunds, disputes and fees have separate accounts, so that each account adds up
//! to the figure with the same name in the revenue report.

use jiff::civil::Date;

use crate::money::{self, Money};
use crate::payment::key::PaymentKey;
use crate::revenue::entries::{EntryKind, RevenueEntry};

/// An account of the chart of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Asset: the balance at Stripe, before it is paid out.
    StripeBalance,
    /// Asset: paid outside Stripe, by wire, check or ACH.
    PaidOutsideStripe,
    /// Income: captured payments, with tax.
    Revenue,
    /// Contra income: refunds to customers.
    Refunds,
    /// Contra income: withdrawn less reinstated.
    Disputes,
    /// Expense: fees that Stripe has named.
    StripeFees,
    /// Expense: assumed until Stripe names the fee. Then it is reversed here and booked as a Stripe fee.
    EstimatedStripeFees,
    /// Expense: Stripe's fees for disputes.
    DisputeFees,
}

impl Account {
    /// Every account, in the order of their codes.
    pub const ALL: [Account; 8] = [
        Account::StripeBalance,
        Account::PaidOutsideStripe,
        Account::Revenue,
        Account::Refunds,
        Account::Disputes,
        Account::StripeFees,
        Account::EstimatedStripeFees,
        Account::DisputeFees,
    ];

    /// The account's number, as the journal names it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Account::StripeBalance => "1010",
            Account::PaidOutsideStripe => "1020",
            Account::Revenue => "4000",
            Account::Refunds => "4100",
            Account::Disputes => "4200",
            Account::StripeFees => "6010",
            Account::EstimatedStripeFees => "6020",
            Account::DisputeFees => "6030",
        }
    }
}

/// One line of the journal: an amount on one side of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The day of the entry, UTC.
    pub date: Date,
    /// The account that is booked.
    pub account: Account,
    /// Never negative; zero when the line is a credit.
    pub debit: Money,
    /// Never negative; zero when the line is a debit.
    pub credit: Money,
    /// The id of the payment, refund or dispute behind the line.
    pub reference: String,
}

/// The two lines of an entry, which cancel out. Empty for an entry that moves no money.
pub fn lines(entry: &RevenueEntry) -> Result<Vec<Line>, money::Error> {
    let reason = match entry.kind {
        EntryKind::Gross => Account::Revenue,
        EntryKind::Refund => Account::Refunds,
        EntryKind::Dispute | EntryKind::DisputeReinstated => Account::Disputes,
        EntryKind::Fee if entry.is_estimated => Account::EstimatedStripeFees,
        EntryKind::Fee => Account::StripeFees,
        EntryKind::DisputeFee | EntryKind::DisputeFeeReinstated => Account::DisputeFees,
        EntryKind::Failed => return Ok(Vec::new()),
    };
    let amount = Money::new(entry.amount_cents, entry.currency);
    // Gross comes in, everything else goes out. A reinstatement is an entry with a negative amount.
    let received = if entry.kind == EntryKind::Gross {
        amount
    } else {
        amount.checked_neg()?
    };
    if received.amount_cents == 0 {
        return Ok(Vec::new());
    }
    let reference = match entry.kind {
        EntryKind::Gross | EntryKind::Fee | EntryKind::Failed => &entry.payment_key,
        EntryKind::Refund
        | EntryKind::Dispute
        | EntryKind::DisputeReinstated
        | EntryKind::DisputeFee
        | EntryKind::DisputeFeeReinstated => &entry.source_id,
    };
    let line = |account: Account, debit: Money, credit: Money| Line {
        date: entry.day(),
        account,
        debit,
        credit,
        reference: reference.clone(),
    };
    let zero = Money::zero(entry.currency);
    let balance = balance(&entry.payment_key);
    Ok(if received.amount_cents > 0 {
        vec![line(balance, received, zero), line(reason, zero, received)]
    } else {
        let paid = received.checked_neg()?;
        vec![line(reason, paid, zero), line(balance, zero, paid)]
    })
}

/// The account that the money of a payment is on: the key says whether Stripe collected it.
fn balance(payment_key: &str) -> Account {
    if PaymentKey::of(payment_key).is_collected_by_stripe() {
        Account::StripeBalance
    } else {
        Account::PaidOutsideStripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    fn entry(kind: EntryKind, payment_key: &str, amount_cents: i64) -> RevenueEntry {
        RevenueEntry {
            payment_key: payment_key.to_owned(),
            kind,
            source_id: "src_1".to_owned(),
            occurred_at: "2026-03-09T23:59:59Z".parse().unwrap(),
            currency: Currency::USD,
            amount_cents,
            is_estimated: false,
        }
    }

    #[test]
    fn every_entry_is_a_debit_and_a_credit_of_the_same_amount() {
        use Account::{
            DisputeFees, Disputes, EstimatedStripeFees, PaidOutsideStripe, Refunds, Revenue,
            StripeBalance, StripeFees,
        };
        let estimated = RevenueEntry {
            is_estimated: true,
            ..entry(EntryKind::Fee, "pi_1", 117)
        };
        for (entry, debit, credit, amount_cents, reference) in [
            (
                entry(EntryKind::Gross, "pi_1", 2_999),
                StripeBalance,
                Revenue,
                2_999,
                "pi_1",
            ),
            (
                entry(EntryKind::Gross, "ch_1", 1),
                StripeBalance,
                Revenue,
                1,
                "ch_1",
            ),
            (
                entry(EntryKind::Gross, "in_1", 500),
                PaidOutsideStripe,
                Revenue,
                500,
                "in_1",
            ),
            (
                entry(EntryKind::Gross, "manual:9", 500),
                PaidOutsideStripe,
                Revenue,
                500,
                "manual:9",
            ),
            (
                entry(EntryKind::Fee, "pi_1", 117),
                StripeFees,
                StripeBalance,
                117,
                "pi_1",
            ),
            (estimated, EstimatedStripeFees, StripeBalance, 117, "pi_1"),
            (
                entry(EntryKind::Refund, "pi_1", 1_000),
                Refunds,
                StripeBalance,
                1_000,
                "src_1",
            ),
            (
                entry(EntryKind::Dispute, "pi_1", 1_999),
                Disputes,
                StripeBalance,
                1_999,
                "src_1",
            ),
            (
                entry(EntryKind::DisputeReinstated, "pi_1", -1_999),
                StripeBalance,
                Disputes,
                1_999,
                "src_1",
            ),
            (
                entry(EntryKind::DisputeFee, "pi_1", 1_500),
                DisputeFees,
                StripeBalance,
                1_500,
                "src_1",
            ),
            (
                entry(EntryKind::DisputeFeeReinstated, "pi_1", -1_500),
                StripeBalance,
                DisputeFees,
                1_500,
                "src_1",
            ),
        ] {
            let amount = Money::new(amount_cents, Currency::USD);
            let zero = Money::zero(Currency::USD);
            let expected = [(debit, amount, zero), (credit, zero, amount)];
            let lines = lines(&entry).unwrap();
            let found: Vec<_> = lines
                .iter()
                .map(|line| (line.account, line.debit, line.credit))
                .collect();
            assert_eq!(found, expected, "{entry:?}");
            assert!(
                lines
                    .iter()
                    .all(|line| line.reference == reference && line.date == entry.day())
            );
        }
    }

    #[test]
    fn what_moves_no_money_is_not_booked() {
        assert_eq!(lines(&entry(EntryKind::Failed, "pi_1", 0)).unwrap(), []);
        assert_eq!(lines(&entry(EntryKind::Fee, "in_1", 0)).unwrap(), []);
        assert!(lines(&entry(EntryKind::Refund, "pi_1", i64::MIN)).is_err());
    }

    #[test]
    fn no_two_accounts_share_a_code() {
        let mut codes = Account::ALL.map(Account::code);
        assert!(codes.is_sorted());
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
