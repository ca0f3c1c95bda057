//! Money that credit notes pay back outside Stripe: which payments it reduces.

use std::collections::BTreeMap;

use crate::money;
use crate::payment::{Payment, PaymentStatus};
use crate::revenue::entries::{EntryKind, RevenueEntry};
use crate::stripe_objects::invoice::CreditNote;

/// Takes what the notes of one invoice pay back outside Stripe off its payments outside Stripe: off the record that a note
/// names, otherwise off the oldest payments of which something is left. Returns the entries of what is left of a note then,
/// which belongs to no payment: their key is the note's id.
///
/// # Errors
/// When a sum is out of range.
pub fn pay_back(
    payments: &mut [Payment],
    notes: &[&CreditNote],
) -> Result<Vec<RevenueEntry>, money::Error> {
    payments.sort_by(|one, other| {
        (one.succeeded_at, &one.payment_key).cmp(&(other.succeeded_at, &other.payment_key))
    });
    let mut notes: Vec<&CreditNote> = notes.iter().filter(|n| n.is_issued()).copied().collect();
    notes.sort_by_key(|note| (note.created_at, &note.stripe_credit_note_id));
    let mut of_nobody = Vec::new();
    for note in notes {
        let mut rest = note.paid_back_outside_cents()?;
        let mut taken: BTreeMap<usize, i64> = BTreeMap::new();
        let mut take = |place: usize, payment: &Payment, wanted: i64, rest: &mut i64| {
            let already = taken.entry(place).or_default();
            let left = payment.amount_cents - payment.refund_amount_cents - *already;
            let part = wanted.min(left).min(*rest).max(0);
            *already += part;
            *rest -= part;
        };
        for (record, amount_cents) in note.refunded_records() {
            let known = payments.iter().enumerate();
            let mut named = known.filter(|(_, payment)| payment.payment_key == record);
            if let Some((place, payment)) = named.next() {
                take(place, payment, amount_cents, &mut rest);
            }
        }
        for (place, payment) in payments.iter().enumerate() {
            take(place, payment, rest, &mut rest);
        }
        for (place, amount_cents) in taken.into_iter().filter(|(_, amount)| *amount > 0) {
            refund(&mut payments[place], note, amount_cents)?;
        }
        if rest > 0 {
            of_nobody.push(entry(&note.stripe_credit_note_id, note, rest));
        }
    }
    Ok(of_nobody)
}

fn entry(payment_key: &str, note: &CreditNote, amount_cents: i64) -> RevenueEntry {
    RevenueEntry {
        payment_key: payment_key.to_owned(),
        kind: EntryKind::Refund,
        source_id: note.stripe_credit_note_id.clone(),
        occurred_at: note.created_at,
        currency: note.currency,
        amount_cents,
        is_estimated: false,
    }
}

fn refund(payment: &mut Payment, note: &CreditNote, amount_cents: i64) -> Result<(), money::Error> {
    let refunded = payment.refund_amount_cents.checked_add(amount_cents);
    payment.refund_amount_cents = refunded.ok_or(money::Error::OutOfRange)?;
    payment.net_amount_cents = payment
        .net_amount_cents
        .checked_sub(amount_cents)
        .ok_or(money::Error::OutOfRange)?;
    payment.refunded_at = Some(note.created_at);
    payment.refund_reason.clone_from(&note.reason);
    payment.status = if payment.refund_amount_cents >= payment.amount_cents {
        PaymentStatus::Refunded
    } else {
        PaymentStatus::PartiallyRefunded
    };
    let entry = entry(&payment.payment_key, note, amount_cents);
    payment.entries.push(entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::money::Currency;
    use crate::payment::out_of_band;
    use crate::stripe_objects::invoice::NoteRefund;
    use crate::stripe_objects::snapshot::Version;

    fn day(day: i8) -> Timestamp {
        format!("2026-10-{day:02}T12:00:00Z").parse().unwrap()
    }

    fn wire(key: &str, amount_cents: i64, paid: i8) -> Payment {
        out_of_band(key, amount_cents, Currency::USD, day(paid))
    }

    fn note(id: &str, created: i8, out_of_band_cents: i64, records: &[(&str, i64)]) -> CreditNote {
        let records = records.iter().map(|(record, amount_cents)| NoteRefund {
            kind: "payment_record_refund".into(),
            amount_cents: Some(*amount_cents),
            stripe_refund_id: None,
            stripe_payment_record_id: Some((*record).into()),
        });
        CreditNote {
            stripe_credit_note_id: id.into(),
            stripe_invoice_id: "in_1".into(),
            stripe_customer_id: None,
            amount_cents: 0,
            pre_payment_cents: 0,
            tax_cents: 0,
            tax_breakdown: Value::Null,
            out_of_band_cents,
            refunds: records.collect(),
            currency: Currency::USD,
            status: "issued".into(),
            reason: Some("duplicate".into()),
            voided_at: None,
            created_at: day(created),
            version: Version::unseen(),
        }
    }

    /// `[key status refunded net]` of each payment.
    fn shown(payments: &[Payment]) -> Vec<String> {
        let shown = payments.iter().map(|one| {
            let status = one.status.as_str();
            let (refunded, net) = (one.refund_amount_cents, one.net_amount_cents);
            format!("{} {status} {refunded} {net}", one.payment_key)
        });
        shown.collect()
    }

    #[test]
    fn a_wire_that_is_paid_back_in_part_is_refunded_in_part() {
        let mut payments = [wire("in_1", 90_000, 1)];
        let note = note("cn_1", 9, 25_000, &[]);
        assert_eq!(pay_back(&mut payments, &[&note]).unwrap(), []);
        assert_eq!(shown(&payments), ["in_1 partially_refunded 25000 65000"]);
        assert_eq!(payments[0].refunded_at, Some(day(9)));
        assert_eq!(payments[0].refund_reason.as_deref(), Some("duplicate"));
        let refund = payments[0].entries.last().unwrap();
        let line = (refund.kind, refund.source_id.as_str(), refund.amount_cents);
        assert_eq!(line, (EntryKind::Refund, "cn_1", 25_000));
        assert_eq!(refund.occurred_at, day(9));
    }

    #[test]
    fn the_record_that_is_named_then_the_oldest_then_nobody() {
        let payments = || {
            [
                wire("pr_2", 40_000, 2),
                wire("pr_1", 30_000, 1),
                wire("pr_3", 10_000, 3),
            ]
        };
        for (what, notes, expected, of_nobody) in [
            (
                "named",
                vec![note("cn_1", 9, 0, &[("pr_2", 5_000)])],
                [
                    "pr_1 succeeded 0 30000",
                    "pr_2 partially_refunded 5000 35000",
                    "pr_3 succeeded 0 10000",
                ],
                0,
            ),
            (
                "named, and more than it was",
                vec![note("cn_1", 9, 0, &[("pr_3", 12_000)])],
                [
                    "pr_1 partially_refunded 2000 28000",
                    "pr_2 succeeded 0 40000",
                    "pr_3 refunded 10000 0",
                ],
                0,
            ),
            (
                "oldest first, over several",
                vec![note("cn_1", 9, 35_000, &[])],
                [
                    "pr_1 refunded 30000 0",
                    "pr_2 partially_refunded 5000 35000",
                    "pr_3 succeeded 0 10000",
                ],
                0,
            ),
            (
                "two notes, the first of which is the first",
                vec![
                    note("cn_2", 10, 50_000, &[]),
                    note("cn_1", 9, 0, &[("pr_1", 30_000)]),
                ],
                [
                    "pr_1 refunded 30000 0",
                    "pr_2 refunded 40000 0",
                    "pr_3 refunded 10000 0",
                ],
                0,
            ),
            (
                "more than there was, and a record nobody knows",
                vec![note("cn_1", 9, 80_000, &[("pr_9", 1_500)])],
                [
                    "pr_1 refunded 30000 0",
                    "pr_2 refunded 40000 0",
                    "pr_3 refunded 10000 0",
                ],
                1_500,
            ),
        ] {
            let mut payments = payments();
            let notes: Vec<&CreditNote> = notes.iter().collect();
            let rest = pay_back(&mut payments, &notes).unwrap();
            assert_eq!(shown(&payments), expected, "{what}");
            let amount: i64 = rest.iter().map(|entry| entry.amount_cents).sum();
            assert_eq!(amount, of_nobody, "{what}");
            assert!(
                rest.iter().all(|entry| entry.payment_key == "cn_1"),
                "{what}"
            );
        }
    }

    #[test]
    fn a_void_note_and_one_to_the_balance_pay_nothing_back() {
        let mut payments = [wire("in_1", 90_000, 1)];
        let mut void = note("cn_1", 9, 25_000, &[]);
        void.status = "void".into();
        let to_balance = note("cn_2", 9, 0, &[]);
        assert_eq!(pay_back(&mut payments, &[&void, &to_balance]).unwrap(), []);
        assert_eq!(shown(&payments), ["in_1 succeeded 0 90000"]);
    }
}
