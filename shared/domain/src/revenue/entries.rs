//! Revenue entries: what each payment adds to the cash figures of a day, one entry per reason.
//!
//! `revenue_daily` is the sum of the entries, so every figure can be explained to the cent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;

use crate::money::{self, Currency};
use crate::period::day_of;
use crate::words::words;

/// What a payment adds to the cash figures of a day, for one reason. The amount is in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct RevenueEntry {
    pub payment_key: String,
    pub kind: EntryKind,
    /// The id of the charge, refund, balance transaction or invoice that the entry comes from.
    pub source_id: String,
    pub occurred_at: Timestamp,
    pub currency: Currency,
    pub amount_cents: i64,
    /// Whether the amount is an estimated fee, because Stripe has not named the fee yet.
    pub is_estimated: bool,
}

impl RevenueEntry {
    /// The day (UTC) of `revenue_daily` that the entry counts on.
    #[must_use]
    pub fn day(&self) -> Date {
        day_of(self.occurred_at)
    }
}

words!(
    /// Why the entry exists; decides the figure it counts in.
    EntryKind {
        Gross = "gross",
        Fee = "fee",
        Refund = "refund",
        /// What a dispute took; negative when it came back.
        Dispute = "dispute",
        /// Only in rows of earlier releases: what came back.
        DisputeReinstated = "dispute_reinstated",
        DisputeFee = "dispute_fee",
        /// Only in rows of earlier releases: the fee of what came back.
        DisputeFeeReinstated = "dispute_fee_reinstated",
        Failed = "failed",
    }
);

/// What changes in one row of `revenue_daily`, in minor units of the row's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DailyDelta {
    pub gross_cents: i64,
    pub fees_cents: i64,
    pub refunds_cents: i64,
    pub disputes_cents: i64,
    pub payments: i64,
    pub failed_payments: i64,
    /// The number of payments of the day whose fee is an estimate.
    pub estimated_fees: i64,
}

/// How the tables change when the entries of some payments are replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    pub removed: Vec<RevenueEntry>,
    pub added: Vec<RevenueEntry>,
    /// The change of each day that loses or gains entries, even when its figures cancel out: a day exists as long as it
    /// has entries.
    pub daily: BTreeMap<(Date, Currency), DailyDelta>,
}

/// The difference between the stored entries of some payments and the entries they should have.
pub fn replacement(
    stored: &[RevenueEntry],
    derived: &[RevenueEntry],
) -> Result<Replacement, money::Error> {
    let before: BTreeSet<&RevenueEntry> = stored.iter().collect();
    let after: BTreeSet<&RevenueEntry> = derived.iter().collect();
    let mut replacement = Replacement {
        removed: before
            .difference(&after)
            .map(|entry| (*entry).clone())
            .collect(),
        added: after
            .difference(&before)
            .map(|entry| (*entry).clone())
            .collect(),
        daily: BTreeMap::new(),
    };
    for entry in &replacement.removed {
        add(
            replacement
                .daily
                .entry((entry.day(), entry.currency))
                .or_default(),
            entry,
            -1,
        )?;
    }
    for entry in &replacement.added {
        add(
            replacement
                .daily
                .entry((entry.day(), entry.currency))
                .or_default(),
            entry,
            1,
        )?;
    }
    Ok(replacement)
}

fn add(delta: &mut DailyDelta, entry: &RevenueEntry, sign: i64) -> Result<(), money::Error> {
    let figure = match entry.kind {
        EntryKind::Gross => {
            delta.payments += sign;
            &mut delta.gross_cents
        }
        EntryKind::Fee => {
            delta.estimated_fees += if entry.is_estimated { sign } else { 0 };
            &mut delta.fees_cents
        }
        EntryKind::DisputeFee | EntryKind::DisputeFeeReinstated => &mut delta.fees_cents,
        EntryKind::Refund => &mut delta.refunds_cents,
        EntryKind::Dispute | EntryKind::DisputeReinstated => &mut delta.disputes_cents,
        EntryKind::Failed => {
            delta.failed_payments += sign;
            return Ok(());
        }
    };
    let signed = entry
        .amount_cents
        .checked_mul(sign)
        .ok_or(money::Error::OutOfRange)?;
    *figure = figure.checked_add(signed).ok_or(money::Error::OutOfRange)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, day: &str, amount_cents: i64) -> RevenueEntry {
        RevenueEntry {
            payment_key: "pi_1".into(),
            kind,
            source_id: "pi_1".into(),
            occurred_at: format!("{day}T12:00:00Z").parse().unwrap(),
            currency: Currency::USD,
            amount_cents,
            is_estimated: kind == EntryKind::Fee,
        }
    }

    #[test]
    fn equal_lines_change_nothing() {
        let lines = [entry(EntryKind::Gross, "2025-01-01", 100)];
        assert_eq!(replacement(&lines, &lines).unwrap(), Replacement::default());
    }

    #[test]
    fn an_earlier_date_moves_the_whole_payment() {
        let stored = [entry(EntryKind::Gross, "2025-02-01", 100)];
        let derived = [entry(EntryKind::Gross, "2025-01-31", 100)];
        let daily = replacement(&stored, &derived).unwrap().daily;
        let figures: Vec<(String, i64, i64)> = daily
            .iter()
            .map(|((day, _), delta)| (day.to_string(), delta.gross_cents, delta.payments))
            .collect();
        assert_eq!(
            figures,
            [
                ("2025-01-31".into(), 100, 1),
                ("2025-02-01".into(), -100, -1)
            ]
        );
    }

    #[test]
    fn every_kind_survives_its_word() {
        for kind in [
            EntryKind::Gross,
            EntryKind::Fee,
            EntryKind::Refund,
            EntryKind::Dispute,
            EntryKind::DisputeReinstated,
            EntryKind::DisputeFee,
            EntryKind::DisputeFeeReinstated,
            EntryKind::Failed,
        ] {
            assert_eq!(EntryKind::parse(kind.as_str()), Some(kind));
        }
    }
}
