//! What rows do not show of their objects, and the look-ups that bring it. A row has a reason exactly while an unfinished
//! look-up names the row and the reason: both are written in one transaction, and follow from the facts alone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::decision::LedgerChanges;
use domain::payment::{Charge, Dispute, Payment};
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::balance::{BalanceTransaction, Payout, SourceKind, TaxRate};
use domain::stripe_objects::invoice::{
    CreditNote, Invoice, InvoiceMoney, InvoiceStatus, tax_rate_ids,
};
use domain::stripe_objects::objects::{Kind, Objects};
use domain::stripe_objects::partial::{Lookup, Missing, Reason, Stake};
use domain::stripe_objects::subscription::Subscription;
use serde_json::Value;
use store::ledger::{Partial, State, Subject};
use store::subscriptions::Computed;
use stripe::event::Event;

/// How long an event that another one announces may take before it is asked for.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// What was found out about the parts of objects, by their ids.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// What is missing of each object that was looked at, except for its last second.
    judged: BTreeMap<String, Vec<Lookup>>,
    /// Whether the last second of an object is undecided, where that was judged anew.
    undecided: BTreeMap<String, bool>,
}

impl Parts {
    pub(super) fn judge(&mut self, id: &str, lookups: Vec<Lookup>) {
        self.judged
            .entry(id.to_owned())
            .or_default()
            .extend(lookups);
    }

    pub(super) fn set_undecided(&mut self, id: &str, is_undecided: bool) {
        self.undecided.insert(id.to_owned(), is_undecided);
    }

    /// All look-ups of an object; `None` of one that was not judged.
    fn lookups(&self, id: &str, all: &Objects, stored: &Partial) -> Option<Vec<Lookup>> {
        let judged = self.judged.get(id);
        let undecided = self.undecided.get(id);
        if judged.is_none() && undecided.is_none() {
            return None;
        }
        let mut lookups = judged.cloned().unwrap_or_default();
        if undecided
            .copied()
            .unwrap_or_else(|| is_undecided(id, stored))
        {
            lookups.extend(second_look(id, all));
        }
        Some(lookups)
    }

    /// Whether the reasons of an object are others than those stored.
    pub(super) fn differ(&self, id: &str, all: &Objects, stored: &Partial) -> bool {
        let lookups = self.lookups(id, all, stored);
        lookups.is_some_and(|lookups| {
            stored.get(id).map_or(&[][..], Vec::as_slice) != reasons(&lookups)
        })
    }

    /// Adds the reasons and the look-ups of every object that was judged, and the rows whose reasons change.
    pub(super) fn settle(&self, all: &Objects, stored: &State, changes: &mut LedgerChanges) {
        let judged: BTreeSet<&String> = self.judged.keys().chain(self.undecided.keys()).collect();
        for id in judged {
            if self.differ(id, all, &stored.partial) && changes.objects.version(id).is_none() {
                changes.objects.replace(all.only(id));
            }
        }
        // What was not judged stays as it is.
        let written: BTreeSet<String> = changes.objects.keys().cloned().collect();
        let kept = stored
            .partial
            .iter()
            .filter(|(id, _)| written.contains(*id));
        changes.partial = kept
            .map(|(id, reasons)| (id.clone(), reasons.clone()))
            .collect();
        for id in self.judged.keys().chain(self.undecided.keys()) {
            let Some(lookups) = self.lookups(id, all, &stored.partial) else {
                continue;
            };
            let Some(subject) = subject(id, all) else {
                continue;
            };
            if !lookups.is_empty() || stored.partial.contains_key(id) {
                changes.partial.insert(id.clone(), reasons(&lookups));
                changes.lookups.insert(subject, lookups);
            }
        }
    }
}

/// The row of an object, as look-ups name it.
pub(super) fn subject(id: &str, all: &Objects) -> Option<Subject> {
    let (object_type, version) = all.version(id)?;
    Some(Subject {
        id: id.to_owned(),
        object_type,
        event_id: version.event_id.clone(),
    })
}

pub(super) fn is_undecided(id: &str, stored: &Partial) -> bool {
    let reasons = stored.get(id);
    reasons.is_some_and(|reasons| reasons.contains(&Reason::Undecidable))
}

/// The object itself, since nothing decides which of its snapshots came last.
pub(super) fn second_look(id: &str, all: &Objects) -> Option<Lookup> {
    let (kind, version) = all.version(id)?;
    Some(at_once(
        kind,
        id,
        Reason::Undecidable,
        version.created_at,
        None,
    ))
}

/// Sorted, each once.
pub(super) fn reasons(lookups: &[Lookup]) -> Vec<Reason> {
    let mut words: Vec<Reason> = lookups.iter().map(|lookup| lookup.reason).collect();
    words.sort_by_key(|reason| reason.as_str());
    words.dedup();
    words
}

fn at_once(
    kind: &'static str,
    stripe_id: &str,
    reason: Reason,
    requested_at: Timestamp,
    stake: Option<Stake>,
) -> Lookup {
    Lookup {
        kind,
        stripe_id: stripe_id.to_owned(),
        reason,
        requested_at,
        due_at: requested_at,
        stake,
    }
}

fn in_an_hour(lookup: Lookup) -> Lookup {
    let due_at = lookup.requested_at.checked_add(PATIENCE);
    Lookup {
        due_at: due_at.unwrap_or(lookup.requested_at),
        ..lookup
    }
}

/// The event that a thin event stands for. Without one, and when Stripe has it no more, its object is fetched.
pub(super) fn of_thin_event(event: &Event, now: Timestamp) -> Option<(Subject, Vec<Lookup>)> {
    let snapshot_event = event.thin.as_ref()?.snapshot_event.as_ref();
    let stripe_id = snapshot_event.unwrap_or(&event.event_id);
    let requested_at = event.created_at.unwrap_or(now);
    let lookup = at_once("event", stripe_id, Reason::Event, requested_at, None);
    Some((of_event(event), vec![lookup]))
}

/// The object of an event that cannot be read; `None` when the event does not name it.
pub(super) fn of_unreadable_event(event: &Event, now: Timestamp) -> Option<(Subject, Lookup)> {
    let kind = FETCHED_FOR_EVENTS.iter();
    let object_type = event.object.get("object")?.as_str()?;
    let kind = kind.copied().find(|kind| *kind == object_type)?;
    let requested_at = event.created_at.unwrap_or(now);
    let id = event.object_id()?;
    let lookup = at_once(kind, id, Reason::Unreadable, requested_at, None);
    Some((of_event(event), lookup))
}

/// The kinds of object that are fetched when an event about one cannot be read.
const FETCHED_FOR_EVENTS: [&str; 10] = [
    "charge",
    "coupon",
    "credit_note",
    "customer",
    "dispute",
    "invoice",
    "payment_intent",
    "price",
    "refund",
    "subscription",
];

/// An event that waits, as look-ups name it.
fn of_event(event: &Event) -> Subject {
    Subject {
        id: event.event_id.clone(),
        object_type: "event",
        event_id: event.event_id.clone(),
    }
}

/// The lines after the first ones, and the payments when they do not explain what was paid. An open invoice that was
/// tried in vain names none from API version basil on; that makes no figure provisional.
pub(super) fn of_invoice(
    invoice: &Invoice,
    money: &InvoiceMoney,
    tax_rates: &Kind<TaxRate>,
) -> Vec<Lookup> {
    let id = invoice.stripe_invoice_id.as_str();
    let taxes = Stake {
        currency: invoice.currency,
        at: invoice.finalized_at.unwrap_or(invoice.created_at),
        amount_cents: invoice.tax_cents,
    };
    let mut lookups = of_taxes(&invoice.tax_breakdown, tax_rates, invoice.created_at, taxes);
    if !invoice.lines_complete {
        let requested_at = invoice.created_at;
        lookups.push(at_once(
            "invoice_lines",
            id,
            Reason::Lines,
            requested_at,
            None,
        ));
    }
    let is_tried_in_vain = invoice.status == InvoiceStatus::Open
        && invoice.attempt_count > 0
        && !money.has_payment
        && invoice.names_payment == Some(false);
    if money.unexplained_cents > 0 || is_tried_in_vain {
        let paid_at = invoice.paid_at.or(invoice.finalized_at);
        let paid_at = paid_at.unwrap_or(invoice.created_at);
        let stake = (money.unexplained_cents > 0).then_some(Stake {
            currency: invoice.currency,
            at: paid_at,
            amount_cents: money.unexplained_cents,
        });
        let lookup = at_once("invoice_payments", id, Reason::Payments, paid_at, stake);
        lookups.push(in_an_hour(lookup));
    }
    lookups
}

/// The tax rates that a credit note names and nobody knows.
pub(super) fn of_credit_note(note: &CreditNote, tax_rates: &Kind<TaxRate>) -> Vec<Lookup> {
    let taxes = Stake {
        currency: note.currency,
        at: note.created_at,
        amount_cents: note.tax_cents,
    };
    of_taxes(&note.tax_breakdown, tax_rates, note.created_at, taxes)
}

fn of_taxes(
    tax_breakdown: &Value,
    tax_rates: &Kind<TaxRate>,
    requested_at: Timestamp,
    stake: Stake,
) -> Vec<Lookup> {
    let unknown = tax_rate_ids(tax_breakdown).filter(|id| !tax_rates.contains_key(id));
    let unknown: BTreeSet<String> = unknown.collect();
    let lookups = unknown.iter();
    let lookups =
        lookups.map(|id| at_once("tax_rate", id, Reason::TaxRate, requested_at, Some(stake)));
    lookups.collect()
}

/// The fee, until a balance transaction says it, and the refunds that only the total shows.
pub(super) fn of_charge(charge: &Charge, all: &Objects, payment: Option<&Payment>) -> Vec<Lookup> {
    let id = charge.stripe_charge_id.as_str();
    let attempted_at = charge.attempted_at;
    let mut lookups = Vec::new();
    let of_payment = payment.filter(|one| one.stripe_charge_id.as_deref() == Some(id));
    let stake = Some(Stake {
        currency: charge.currency,
        at: of_payment
            .and_then(|payment| payment.succeeded_at)
            .unwrap_or(attempted_at),
        amount_cents: of_payment.map_or(0, |payment| payment.stripe_fee_cents),
    });
    if charge.has_succeeded() || charge.has_failed() {
        let named: BTreeSet<&String> = charge.transaction_ids().collect();
        for transaction in named {
            if !all.balance_transactions.contains_key(transaction) {
                let kind = "balance_transaction";
                lookups.push(at_once(kind, transaction, Reason::Fee, attempted_at, stake));
            }
        }
    }
    let mut transactions = all.balance_transactions.values();
    let is_named = charge.stripe_balance_transaction_id.is_some()
        || transactions.any(|one| {
            one.source_kind == Some(SourceKind::Charge) && one.source_id.as_deref() == Some(id)
        });
    if charge.is_paid() && !is_named {
        // It mostly comes with `charge.updated`.
        let lookup = at_once("charge", id, Reason::Fee, attempted_at, stake);
        lookups.push(in_an_hour(lookup));
    }
    if payment.is_some_and(|one| one.charges_short_of_refunds.iter().any(|short| short == id)) {
        let kind = "charge_refunds";
        lookups.push(at_once(kind, id, Reason::Refunds, attempted_at, None));
    }
    lookups
}

/// What moved a dispute's money, while nobody has shown the list or it cannot be converted.
pub(super) fn of_dispute(
    dispute: &Dispute,
    all: &Objects,
    not_convertible: &BTreeSet<&String>,
) -> Vec<Lookup> {
    let id = dispute.stripe_dispute_id.as_str();
    let is_of_it = |one: &BalanceTransaction| one.source_id.as_deref() == Some(id);
    let is_unknown = dispute.balance_transaction_ids.is_none()
        || dispute
            .transaction_ids()
            .any(|one| !all.balance_transactions.contains_key(one))
        || not_convertible.iter().any(|one| {
            dispute.names_transaction(one)
                || all.balance_transactions.get(*one).is_some_and(is_of_it)
        });
    let stake = Stake {
        currency: dispute.currency,
        at: dispute.created_at,
        amount_cents: dispute.amount_cents,
    };
    let reason = Reason::Transactions;
    let lookup = at_once("dispute", id, reason, dispute.created_at, Some(stake));
    is_unknown.then_some(lookup).into_iter().collect()
}

/// What a payout consists of, until it was listed whole.
pub(super) fn of_payout(payout: &Payout) -> Vec<Lookup> {
    let is_missing = payout.has_transactions() && payout.transactions_listed_at.is_none();
    let (kind, reason) = ("payout_transactions", Reason::PayoutTransactions);
    let lookup = at_once(
        kind,
        &payout.stripe_payout_id,
        reason,
        payout.created_at,
        None,
    );
    is_missing.then_some(lookup).into_iter().collect()
}

/// What the history of a subscription needs and nobody knows. Of its items only those of the snapshot shown are asked for:
/// an earlier one has the amounts of the next that shows all.
pub(super) fn of_subscription<'a>(
    subscription: &Subscription,
    versions: impl Iterator<Item = &'a SubscriptionVersion>,
    computed: &Computed,
) -> Vec<Lookup> {
    let id = subscription.stripe_subscription_id.as_str();
    let of_it = versions.filter(|version| version.stripe_subscription_id == id);
    let missing = of_it.flat_map(|version| &version.missing);
    let missing = missing.filter(|one| one.reason != Reason::Items).cloned();
    let missing: BTreeSet<Missing> = missing.chain(subscription.missing()).collect();
    let shown_at = subscription.version.created_at;
    let stake = subscription.currency.map(|currency| Stake {
        currency,
        at: shown_at,
        amount_cents: computed.mrr_cents,
    });
    let lookups = missing.iter().filter_map(|Missing { reason, stripe_id }| {
        let kind = match reason {
            Reason::Items => "subscription_items",
            Reason::Tiers => "price",
            Reason::Currency => "price_currency_options",
            Reason::Discounts if stripe_id == id => "subscription_discounts",
            Reason::Discounts | Reason::Customer => "customer",
            Reason::Coupon => "coupon",
            // No snapshot of a subscription is short of these.
            Reason::Payments
            | Reason::Lines
            | Reason::TaxRate
            | Reason::Fee
            | Reason::Refunds
            | Reason::Transactions
            | Reason::PayoutTransactions
            | Reason::Undecidable
            | Reason::Event
            | Reason::Unreadable => return None,
        };
        Some(at_once(kind, stripe_id, *reason, shown_at, stake))
    });
    lookups.collect()
}
