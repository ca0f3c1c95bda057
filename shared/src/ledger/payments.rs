//! Which objects belong to one payment.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use domain::payment::key::PaymentKey;
use domain::payment::{Charge, InvoicePayment, PaymentFacts};
use domain::stripe_objects::balance::{BalanceTransaction, Source, SourceKind};
use domain::stripe_objects::objects::Objects;

/// Everything known of each payment, by payment key.
pub(super) fn facts(
    objects: &Objects,
    invoices_paid_at: &BTreeMap<&str, Timestamp>,
) -> Vec<PaymentFacts> {
    let mut keys: BTreeSet<&str> = objects.payment_intents.keys().map(String::as_str).collect();
    for charge in objects.charges.values() {
        keys.insert(
            charge
                .stripe_payment_intent_id
                .as_deref()
                .unwrap_or(&charge.stripe_charge_id),
        );
    }
    for link in objects.invoice_payments.values() {
        let charge = link.stripe_charge_id.as_deref();
        let of_charge = || charge.map(|charge| key_of_charge(objects, charge));
        keys.extend(link.stripe_payment_intent_id.as_deref().or_else(of_charge));
    }
    keys.into_iter()
        .map(|key| payment(objects, key, invoices_paid_at))
        .collect()
}

/// The payment that a charge belongs to. While the charge itself is unknown, the intent may name it.
fn key_of_charge<'a>(objects: &'a Objects, charge: &'a str) -> &'a str {
    let of_charge = objects
        .charges
        .get(charge)
        .and_then(|charge| charge.stripe_payment_intent_id.as_deref());
    let of_intent = || {
        let mut intents = objects.payment_intents.values();
        intents
            .find(|intent| intent.latest_charge_id.as_deref() == Some(charge))
            .map(|intent| intent.stripe_payment_intent_id.as_str())
    };
    of_charge.or_else(of_intent).unwrap_or(charge)
}

/// Sets of each balance transaction which payment it belongs to and what it is to it: as the charge, refund or dispute says
/// that names it, otherwise by its source. Returns those of which that is new.
pub(super) fn assign_transactions(objects: &mut Objects) -> Vec<String> {
    let mut named: BTreeMap<&str, (SourceKind, Option<String>)> = BTreeMap::new();
    for charge in objects.charges.values() {
        let key = || Some(key_of_charge(objects, &charge.stripe_charge_id).to_owned());
        for (id, kind) in [
            (&charge.stripe_balance_transaction_id, SourceKind::Charge),
            (
                &charge.failure_balance_transaction_id,
                SourceKind::ChargeFailure,
            ),
        ] {
            named.extend(id.iter().map(|id| (id.as_str(), (kind, key()))));
        }
    }
    for refund in objects.refunds.values() {
        let key = || {
            let (intent, charge) = (&refund.stripe_payment_intent_id, &refund.stripe_charge_id);
            key_of(objects, intent.as_deref(), charge.as_deref())
        };
        for (id, kind) in [
            (&refund.stripe_balance_transaction_id, SourceKind::Refund),
            (
                &refund.failure_balance_transaction_id,
                SourceKind::RefundFailure,
            ),
        ] {
            named.extend(id.iter().map(|id| (id.as_str(), (kind, key()))));
        }
    }
    for dispute in objects.disputes.values() {
        let key = || {
            let (intent, charge) = (&dispute.stripe_payment_intent_id, &dispute.stripe_charge_id);
            key_of(objects, intent.as_deref(), charge.as_deref())
        };
        let ids = dispute.transaction_ids();
        named.extend(ids.map(|id| (id.as_str(), (SourceKind::Dispute, key()))));
    }
    let mut found = BTreeMap::new();
    for (id, transaction) in &objects.balance_transactions {
        let belongs = match named.get(id.as_str()) {
            Some((kind, key)) => (Some(*kind), key.clone()),
            None => by_source(objects, transaction),
        };
        found.insert(id.clone(), belongs);
    }
    let mut changed = Vec::new();
    for (id, transaction) in &mut objects.balance_transactions {
        let Some((kind, Some(key))) = found.remove(id) else {
            continue;
        };
        if transaction.source_kind != kind || transaction.payment_key.as_ref() != Some(&key) {
            transaction.source_kind = kind;
            transaction.payment_key = Some(key);
            changed.push(id.clone());
        }
    }
    changed
}

/// What a transaction is that no object names, and of which payment.
fn by_source(
    objects: &Objects,
    transaction: &BalanceTransaction,
) -> (Option<SourceKind>, Option<String>) {
    let Some(source) = transaction.source_id.as_deref() else {
        return (None, None);
    };
    let key = match Source::of(source) {
        Some(Source::Charge) => Some(key_of_charge(objects, source).to_owned()),
        Some(Source::Refund) => objects.refunds.get(source).and_then(|refund| {
            let (intent, charge) = (&refund.stripe_payment_intent_id, &refund.stripe_charge_id);
            key_of(objects, intent.as_deref(), charge.as_deref())
        }),
        Some(Source::Dispute) => objects.disputes.get(source).and_then(|dispute| {
            let (intent, charge) = (&dispute.stripe_payment_intent_id, &dispute.stripe_charge_id);
            key_of(objects, intent.as_deref(), charge.as_deref())
        }),
        None => None,
    };
    (transaction.kind_by_category(), key)
}

/// The payment of what names an intent, a charge, or both.
fn key_of(objects: &Objects, intent: Option<&str>, charge: Option<&str>) -> Option<String> {
    let of_charge = || charge.map(|charge| key_of_charge(objects, charge));
    intent.or_else(of_charge).map(str::to_owned)
}

fn payment(
    objects: &Objects,
    key: &str,
    invoices_paid_at: &BTreeMap<&str, Timestamp>,
) -> PaymentFacts {
    let intent = objects.payment_intents.get(key);
    let charges: Vec<Charge> = objects
        .charges
        .values()
        .filter(|charge| {
            charge
                .stripe_payment_intent_id
                .as_deref()
                .unwrap_or(&charge.stripe_charge_id)
                == key
        })
        .cloned()
        .collect();
    let charge_ids: BTreeSet<&str> = charges
        .iter()
        .map(|charge| charge.stripe_charge_id.as_str())
        .chain(intent.and_then(|intent| intent.latest_charge_id.as_deref()))
        .chain(PaymentKey::of(key).charge_id())
        .collect();
    let belongs = |intent: Option<&str>, charge: Option<&str>| {
        intent == Some(key)
            || (intent.is_none() && charge.is_some_and(|charge| charge_ids.contains(charge)))
    };
    let links: Vec<InvoicePayment> = objects
        .invoice_payments
        .values()
        .filter(|link| {
            let (intent, charge) = (&link.stripe_payment_intent_id, &link.stripe_charge_id);
            belongs(intent.as_deref(), charge.as_deref())
        })
        .cloned()
        .collect();
    PaymentFacts {
        payment_key: key.to_owned(),
        invoice_paid_at: links
            .iter()
            .filter_map(|link| invoices_paid_at.get(link.stripe_invoice_id.as_str()))
            .min()
            .copied(),
        intent: intent.cloned(),
        balance_transactions: objects
            .balance_transactions
            .values()
            .filter(|one| one.payment_key.as_deref() == Some(key))
            .cloned()
            .collect(),
        refunds: objects
            .refunds
            .values()
            .filter(|refund| {
                let (intent, charge) = (&refund.stripe_payment_intent_id, &refund.stripe_charge_id);
                belongs(intent.as_deref(), charge.as_deref())
            })
            .cloned()
            .collect(),
        disputes: objects
            .disputes
            .values()
            .filter(|dispute| {
                let (intent, charge) =
                    (&dispute.stripe_payment_intent_id, &dispute.stripe_charge_id);
                belongs(intent.as_deref(), charge.as_deref())
            })
            .cloned()
            .collect(),
        invoice_payments: links,
        charges,
    }
}
