//! Account statements: what a partner was billed and what it paid or was credited, with the balance after each entry.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::money::{self, Currency, Money};

/// What changes a partner's balance: one entry of an account statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEntry {
    pub at: Timestamp,
    /// `invoice`, `payment`, `credit`, `credit_note`, `void` or `adjustment`.
    pub kind: String,
    pub invoice_number: String,
    /// The reference of the payment or credit, where it has one.
    pub reference: Option<String>,
    /// In minor units: positive when it adds to what the partner owes, negative when it reduces it.
    pub amount: Money,
}

/// A line of an account statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// What was owed before the first entry.
    Opening {
        /// The start that was asked for.
        at: Option<Timestamp>,
        balance: Money,
    },
    /// An entry, and what was owed after it.
    Entry { entry: AccountEntry, balance: Money },
    /// What is owed after the last entry.
    Closing {
        /// The end that was asked for.
        at: Option<Timestamp>,
        balance: Money,
    },
}

/// The lines of `[from, to)`, currency by currency: the opening balance, the entries, the closing balance. A currency
/// without entries before `to` has no lines, except `default`, which always has them.
pub fn lines(
    entries: Vec<AccountEntry>,
    default: Currency,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<Vec<Line>, money::Error> {
    let mut by_currency = BTreeMap::from([(default.to_string(), (default, Vec::new()))]);
    for entry in entries {
        if to.is_none_or(|to| entry.at < to) {
            let currency = entry.amount.currency;
            let of_currency = by_currency.entry(currency.to_string());
            of_currency
                .or_insert_with(|| (currency, Vec::new()))
                .1
                .push(entry);
        }
    }
    let mut lines = Vec::new();
    for (currency, mut entries) in by_currency.into_values() {
        // Entries of the same instant keep the order in which they came.
        entries.sort_by_key(|entry: &AccountEntry| entry.at);
        let before = entries.partition_point(|entry| from.is_some_and(|from| entry.at < from));
        let mut balance = Money::zero(currency);
        for entry in entries.drain(..before) {
            balance = balance.checked_add(entry.amount)?;
        }
        lines.push(Line::Opening { at: from, balance });
        for entry in entries {
            balance = balance.checked_add(entry.amount)?;
            lines.push(Line::Entry { entry, balance });
        }
        lines.push(Line::Closing { at: to, balance });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str, kind: &str, amount_cents: i64, currency: &str) -> AccountEntry {
        AccountEntry {
            at: at.parse().unwrap(),
            kind: kind.to_owned(),
            invoice_number: "API-1".to_owned(),
            reference: None,
            amount: Money::new(amount_cents, Currency::parse(currency).unwrap()),
        }
    }

    /// The balances, with the kind of each line.
    fn balances(
        entries: &[AccountEntry],
        from: Option<&str>,
        to: Option<&str>,
    ) -> Vec<(String, String)> {
        let instant = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let lines = lines(entries.to_vec(), Currency::USD, instant(from), instant(to)).unwrap();
        let shown = lines.into_iter().map(|line| match line {
            Line::Opening { balance, .. } => ("opening".to_owned(), balance.format()),
            Line::Entry { entry, balance } => (entry.kind, balance.format()),
            Line::Closing { balance, .. } => ("closing".to_owned(), balance.format()),
        });
        shown.collect()
    }

    #[test]
    fn each_currency_runs_from_its_opening_to_its_closing_balance() {
        let entries = [
            entry("2025-11-01T00:00:00Z", "invoice", 100, "USD"),
            entry("2025-10-01T00:00:00Z", "invoice", 1_000, "USD"),
            entry("2025-10-05T00:00:00Z", "payment", -1_000, "USD"),
            entry("2025-10-02T00:00:00Z", "invoice", 70, "EUR"),
            entry("2025-12-01T00:00:00Z", "payment", -100, "USD"),
        ];
        let row = |kind: &str, balance: &str| (kind.to_owned(), balance.to_owned());
        assert_eq!(
            balances(
                &entries,
                Some("2025-10-02T00:00:00Z"),
                Some("2025-12-01T00:00:00Z")
            ),
            [
                row("opening", "€0.00"),
                row("invoice", "€0.70"),
                row("closing", "€0.70"),
                row("opening", "$10.00"),
                row("payment", "$0.00"),
                row("invoice", "$1.00"),
                row("closing", "$1.00"),
            ]
        );
        assert_eq!(
            balances(&[], None, None),
            [row("opening", "$0.00"), row("closing", "$0.00")]
        );
    }

    #[test]
    fn a_balance_beyond_the_range_is_an_error() {
        let entries = [
            entry("2025-10-01T00:00:00Z", "invoice", i64::MAX, "USD"),
            entry("2025-10-02T00:00:00Z", "invoice", 1, "USD"),
        ];
        assert!(lines(entries.to_vec(), Currency::USD, None, None).is_err());
    }
}
