//! The stored rows that some facts may change, read under their locks.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Error;
use super::decision::Said;
use super::flight::Scope;
use super::same_second;
use domain::stripe_objects::customer::UserLink;
use domain::stripe_objects::objects::{Ids, Keep, Objects};
use store::ledger::{Archived, Opened, Opening, State};

/// How often everything is locked anew because more turned out to be needed.
const ROUNDS: usize = 5;

/// What some facts meet in the ledger, and the open transaction that has it locked.
pub(super) struct Found<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) said: Vec<Said<'a>>,
    pub(super) opened: Opened,
}

impl<'a> Found<'a> {
    /// Archives the events, each with its body and its outcome, locks what the facts lead to and reads it. What was
    /// archived before says nothing new and is left out; `None` when that is all of it.
    ///
    /// What was read under the locks may lead to more, when it has changed since it was locked or was not known to
    /// belong together. Then all locks are released and the longer list is locked, so that everybody locks in one order.
    pub(super) async fn open(
        mut scope: Scope<'a>,
        events: &[Archived<'_>],
        mut said: Vec<Said<'a>>,
        now: Timestamp,
    ) -> Result<Option<Found<'a>>, Error> {
        let facts = || said.iter().map(|one| &one.facts);
        let own = events.iter().filter_map(|one| one.event.object_id());
        let own: BTreeSet<&str> = own.collect();
        let mut opening = Opening {
            events,
            named: ids(&said),
            shared: BTreeSet::new(),
            shown_transactions: facts()
                .flat_map(|one| one.balance_transactions.keys().cloned())
                .collect(),
            users: facts().flat_map(linked).map(|link| link.user_id).collect(),
            decides_plans: facts().any(|one| {
                !one.customers.is_empty()
                    || !one.subscriptions.is_empty()
                    || !one.checkout_sessions.is_empty()
            }),
        };
        // Whoever uses a coupon or a tax rate shares it; whoever may change it has it alone.
        let is_shared = |key: &&String| !own.contains(key.as_str()) && !events.is_empty();
        let terms = opening.named.coupons.iter();
        opening.shared = terms
            .chain(&opening.named.tax_rates)
            .filter(is_shared)
            .cloned()
            .collect();
        for round in 0..ROUNDS {
            let opened = match round {
                0 => scope.open(&opening, now).await?,
                _ => scope.open_again(&opening, now).await?,
            };
            let Some(opened) = opened else {
                return Ok(None);
            };
            if !opened.undigested.is_empty() {
                scope
                    .digest(&same_second::digested(opened.undigested)?)
                    .await?;
                continue;
            }
            if !widen(&mut opening, &said, &opened) {
                let mut seen = BTreeSet::new();
                // Without events to archive, they are read from the archive.
                said.retain(|one| {
                    events.is_empty()
                        || one.event.is_none_or(|event| {
                            let id = &event.event_id;
                            opened.new_events.contains(id) && seen.insert(id)
                        })
                });
                return Ok(Some(Found {
                    scope,
                    said,
                    opened,
                }));
            }
        }
        Err(Error::Store(store::Error::Contended))
    }
}

fn ids(said: &[Said<'_>]) -> Ids {
    let mut ids = Ids::default();
    for one in said {
        ids.append(one.facts.ids());
    }
    ids.normalise();
    ids
}

/// Adds to the opening what was needed and not locked, or not read; whether there was anything.
fn widen(opening: &mut Opening<'_>, said: &[Said<'_>], opened: &Opened) -> bool {
    let Opened { state, locked, .. } = opened;
    let mut wider = ids(said);
    // A balance transaction leads to its charge, and that to its customer and more.
    let mut is_wider = !wider.are_among(&opening.named);
    wider.append(opening.named.clone());
    let reached = reached(state, &opening.named);
    let needs_lock = [
        &reached.customers,
        &reached.coupons,
        &reached.payment_intents,
        &reached.charges,
        &reached.invoice_payments,
        &reached.invoices,
    ];
    is_wider |= !needs_lock
        .into_iter()
        .flatten()
        .all(|key| locked.contains(key));
    // A charge leads to the intent that names it only when the charge itself is named.
    let links = state.objects.invoice_payments.values();
    let mut of_links = links
        .filter(|link| link.stripe_payment_intent_id.is_none())
        .filter_map(|link| link.stripe_charge_id.as_ref());
    is_wider |= !of_links.all(|charge| opening.named.charges.contains(charge));
    // The customer of a subscription may get another plan.
    let subscribers = state
        .objects
        .subscriptions
        .values()
        .map(|one| &one.stripe_customer_id);
    let subscribers: Vec<String> = subscribers.cloned().collect();
    is_wider |= !subscribers
        .iter()
        .all(|customer| opening.named.customers.contains(customer));
    wider.append(reached);
    wider.customers.extend(subscribers);
    wider.normalise();
    // A coupon that somebody else may use is about to change.
    let mut coupons = state.objects.coupons.clone();
    for (id, coupon) in said.iter().flat_map(|one| &one.facts.coupons) {
        coupons.keep(coupon.clone());
        if coupons.get(id) != state.objects.coupons.get(id) {
            is_wider |= opening.shared.remove(id);
        }
    }
    if opening.decides_plans {
        let stored = state.users_of_customers.values().flatten().copied();
        let linked = linked(&state.objects).map(|link| link.user_id);
        for user in stored.chain(linked) {
            if !locked.contains(&format!("user:{user}")) {
                opening.users.push(user);
                is_wider = true;
            }
        }
    }
    if is_wider {
        opening.named = wider;
    }
    is_wider
}

/// The customers, coupons and payments that the stored objects lead to. A payment is locked by its intent, or by its
/// charge or payment record when it has no intent.
fn reached(state: &State, named: &Ids) -> Ids {
    let mut reached = Ids::default();
    for intent in state.objects.payment_intents.values() {
        reached.customers.extend(intent.stripe_customer_id.clone());
        let id = intent.stripe_payment_intent_id.clone();
        reached.payment_intents.push(id);
    }
    for charge in state.objects.charges.values() {
        reached.customers.extend(charge.stripe_customer_id.clone());
        match &charge.stripe_payment_intent_id {
            Some(intent) => reached.payment_intents.push(intent.clone()),
            None => reached.charges.push(charge.stripe_charge_id.clone()),
        }
    }
    for link in state.objects.invoice_payments.values() {
        match &link.stripe_payment_intent_id {
            Some(intent) => reached.payment_intents.push(intent.clone()),
            None => reached.charges.extend(link.stripe_charge_id.clone()),
        }
        // What one of its invoices pays back reduces the record.
        if let Some(record) = &link.stripe_payment_record_id {
            reached.invoice_payments.push(record.clone());
            reached.invoices.push(link.stripe_invoice_id.clone());
        }
    }
    // A balance transaction leads to the refund or dispute behind it, and that to its payment.
    for (id, refund) in &state.objects.refunds {
        if named.refunds.contains(id) {
            reached.charges.extend(refund.stripe_charge_id.clone());
            let intent = refund.stripe_payment_intent_id.clone();
            reached.payment_intents.extend(intent);
        }
    }
    for (id, dispute) in &state.objects.disputes {
        if named.disputes.contains(id) {
            reached.charges.extend(dispute.stripe_charge_id.clone());
            let intent = dispute.stripe_payment_intent_id.clone();
            reached.payment_intents.extend(intent);
        }
    }
    // A discount names its coupon: what waits for that coupon waits now.
    let discounts = state.objects.discounts.values();
    let coupons = discounts.filter_map(|known| known.stripe_coupon_id.clone());
    reached.coupons.extend(coupons);
    reached
}

fn linked(objects: &Objects) -> impl Iterator<Item = &UserLink> {
    let customers = objects.customers.values();
    customers.filter_map(|customer| customer.link.as_ref())
}
