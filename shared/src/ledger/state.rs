//! The stored rows that some facts may change, read under their locks.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Error;
use super::flight::Scope;
use domain::stripe_objects::customer::UserLink;
use domain::stripe_objects::objects::{Ids, Keep, Objects};
use store::ledger::{Opened, Opening, State};
use stripe::event::Event;

/// How often everything is locked anew because more turned out to be needed.
const ROUNDS: usize = 5;

/// What some facts meet in the ledger, and the open transaction that has it locked.
pub(super) struct Found<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) facts: Objects,
    pub(super) opened: Opened,
}

impl<'a> Found<'a> {
    /// Archives the events, locks what the facts lead to and reads it; `None` when the events were archived before.
    ///
    /// What was read under the locks may lead to more, when it has changed since it was locked or was not known to
    /// belong together. Then all locks are released and the longer list is locked, so that everybody locks in one order.
    pub(super) async fn open(
        mut scope: Scope<'a>,
        events: &[(&Event, &str, &'static str)],
        mut facts: Objects,
        now: Timestamp,
    ) -> Result<Option<Found<'a>>, Error> {
        let decides_plans = !facts.customers.is_empty()
            || !facts.subscriptions.is_empty()
            || !facts.checkout_sessions.is_empty();
        let own: BTreeSet<&str> = events
            .iter()
            .filter_map(|(event, ..)| event.object_id())
            .collect();
        let mut opening = Opening {
            events,
            named: facts.ids(),
            shared: BTreeSet::new(),
            balance_transactions: facts.settlements.keys().cloned().collect(),
            users: linked(&facts).map(|link| link.user_id).collect(),
            decides_plans,
        };
        // Whoever uses a coupon shares it; whoever may change it has it alone.
        let is_shared = |coupon: &&String| !own.contains(coupon.as_str()) && !events.is_empty();
        opening.shared = opening
            .named
            .coupons
            .iter()
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
            attach_settlements(&mut facts, &opened.state);
            if !widen(&mut opening, &facts, &opened) {
                return Ok(Some(Found {
                    scope,
                    facts,
                    opened,
                }));
            }
        }
        Err(Error::Store(store::Error::Contended))
    }
}

/// Adds to the opening what was needed and not locked, or not read; whether there was anything.
fn widen(opening: &mut Opening<'_>, facts: &Objects, opened: &Opened) -> bool {
    let Opened { state, locked, .. } = opened;
    let mut wider = opening.named.clone();
    wider.append(facts.ids());
    // A balance transaction leads to its charge, and that to its customer and more.
    let mut is_wider = !facts.ids().are_among(&opening.named);
    let reached = reached(state);
    let all_locked = [
        &reached.customers,
        &reached.coupons,
        &reached.payment_intents,
        &reached.charges,
    ];
    is_wider |= !all_locked
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
    let changed = facts.coupons.iter().filter(|(id, coupon)| {
        let known = state.objects.coupons.get(*id);
        opening.shared.contains(*id)
            && known.is_none_or(|known| {
                let mut joined = Objects::default();
                joined.coupons.keep(known.clone());
                joined.coupons.keep((*coupon).clone());
                joined.coupons.get(*id) != Some(known)
            })
    });
    let changed: Vec<String> = changed.map(|(id, _)| id.clone()).collect();
    for coupon in changed {
        opening.shared.remove(&coupon);
        is_wider = true;
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
/// charge when it has no intent.
fn reached(state: &State) -> Ids {
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

/// Adds fetched balance transactions to their charges, as if the charges had carried them.
fn attach_settlements(facts: &mut Objects, state: &State) {
    for charge in state.objects.charges.values() {
        let id = charge.stripe_balance_transaction_id.as_ref();
        if let Some(settlement) = id.and_then(|id| facts.settlements.get(id)) {
            let mut charge = charge.clone();
            charge.settlement = Some(settlement.clone());
            facts.charges.keep(charge);
        }
    }
}
