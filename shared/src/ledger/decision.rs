//! What an event changes: decided from the facts and what is stored, without any I/O.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Error;
use super::announcements;
use super::parts::{self, Parts};
use super::payments;
use super::same_second::Seconds;
use super::users::{self, UserChanges};
use domain::money::div_half_even_cents;
use domain::payment::outside::pay_back;
use domain::payment::{self, FeeEstimate, Payment, Refund};
use domain::revenue::entries::{self, Replacement, RevenueEntry};
use domain::revenue::movement::{self, DiscountStep, Movement, SubscriptionVersion};
use domain::stripe_objects::balance::{self, DailyBalance, DailyKey};
use domain::stripe_objects::catalog::{CouponSnapshot, Discount, DiscountSnapshot, Price};
use domain::stripe_objects::customer::{CheckoutSession, Customer};
use domain::stripe_objects::invoice::{CreditNote, InvoiceStatus};
use domain::stripe_objects::objects::{Keep, Kind, Objects, Verdict};
use domain::stripe_objects::partial::Lookup;
use domain::stripe_objects::snapshot::{Snapshot, earliest};
use domain::stripe_objects::subscription::{
    DiscountProfile, PlanEvidence, Subscription, is_ended, plan_name,
};
use store::catalog::Plans;
use store::ledger::{Partial, State, Subject};
use store::outbox::NewMessage;
use store::subscriptions::Computed;
use stripe::event::Event;

/// Everything to write for one event.
#[derive(Debug, Default)]
pub(super) struct LedgerChanges {
    /// The objects that changed. Also written: customers whose user is unknown, since the application may have named them
    /// since, and subscriptions whose plan may have.
    pub(super) objects: Objects,
    /// Customers whose user, or whose user's plan, has to be decided again.
    pub(super) affected_customers: BTreeSet<String>,
    /// The user that each of these customers had before.
    pub(super) former_users: BTreeMap<String, i32>,
    /// Subscriptions that only a session of this event has named so far.
    pub(super) named_by_session: Vec<(String, CheckoutSession)>,
    /// What the ledger adds to each changed subscription.
    pub(super) computed: BTreeMap<String, Computed>,
    pub(super) versions: Vec<SubscriptionVersion>,
    /// All movements of each changed customer.
    pub(super) movements: BTreeMap<String, Vec<Movement>>,
    /// Customers (of the predecessor's rows) that had subscriptions of this customer under another key.
    pub(super) former_customers: BTreeSet<String>,
    /// What is due of each invoice that is written, and what came outside Stripe, in minor units.
    pub(super) invoice_figures: BTreeMap<String, (i64, i64)>,
    pub(super) users: UserChanges,
    pub(super) payments: Vec<Payment>,
    pub(super) obsolete_payments: Vec<String>,
    pub(super) store_credits: Vec<Refund>,
    /// Refunds that changed and are not a credit, whatever an earlier snapshot said.
    pub(super) revoked_credits: Vec<String>,
    pub(super) entries: Replacement,
    pub(super) balance_daily: BTreeMap<DailyKey, DailyBalance>,
    /// Prices, coupons and discounts that were unknown before.
    pub(super) learned: Vec<String>,
    /// What the written rows do not show.
    pub(super) partial: Partial,
    /// The unfinished look-ups of each row that was judged.
    pub(super) lookups: BTreeMap<Subject, Vec<Lookup>>,
    pub(super) messages: Vec<NewMessage>,
}

/// The kinds of object that are fetched when nothing decides which of their snapshots came last.
const FETCHED_WHEN_UNDECIDED: [&str; 7] = [
    "customer",
    "subscription",
    "invoice",
    "payment_intent",
    "charge",
    "refund",
    "dispute",
];

/// What one event says, or one fetch.
pub(super) struct Said<'a> {
    pub(super) event: Option<&'a Event>,
    pub(super) facts: Objects,
}

/// Decides what events change that are applied together; `seconds` are the other archived events of their seconds. The
/// order and the number of the events do not matter, except for which of them is said to have brought a fact. `reads_again`
/// says that the events were applied before, maybe by a release that read less of them.
pub(super) fn decide(
    mut said: Vec<Said<'_>>,
    seconds: &Seconds,
    stored: &State,
    estimate: FeeEstimate,
    reads_again: bool,
) -> Result<LedgerChanges, Error> {
    let catalog = Catalog::of(said.iter().map(|one| &one.facts), stored);
    for Said { facts, .. } in &mut said {
        catalog.complete(facts.subscriptions.values_mut());
        // Everybody that an event names is a customer, even if no event about the customer ever comes.
        for customer in facts.ids().customers {
            facts.customers.keep(Customer::named(&customer));
        }
    }
    let mut all = stored.objects.clone();
    let mut changes = LedgerChanges::default();
    let mut verdicts = Vec::new();
    let mut parts = Parts::default();
    if reads_again {
        for one in &said {
            let reread = all.read_again(&one.facts);
            changes.objects.replace(reread);
        }
    }
    for one in &said {
        let Said { event, facts } = one;
        let mut verdict = match event {
            Some(event) => seconds.verdict(event, &said, &all, stored, &changes.versions),
            None => None,
        };
        if let Some(verdict) = &mut verdict {
            catalog.complete(verdict.objects.subscriptions.values_mut());
        }
        second_looks(facts, &all, verdict.as_ref(), &mut parts);
        let changed = all.merge(facts, verdict.as_ref());
        changes.objects.replace(changed);
        verdicts.extend(verdict);
        versions(facts, stored, &mut changes)?;
    }
    learn(stored, &mut changes);
    customers(&all, stored, &mut changes);
    let subscribed = said.iter().flat_map(|one| one.facts.subscriptions.keys());
    history(&all.subscriptions, stored, &verdicts, &mut changes)?;
    subscriptions(subscribed, &all, stored, &mut parts, &mut changes)?;
    transactions(&mut all, stored, &mut changes)?;
    refunds(&all, &mut changes)?;
    invoices(&mut all, stored, &mut parts, &mut changes)?;
    payments(&all, stored, estimate, &mut changes)?;
    payment_parts(&all, &mut parts, &changes);
    parts.settle(&all, stored, &mut changes);
    changes.users = users::decide(&all, stored, &changes);
    changes.messages = announcements::announce(&said, &changes);
    Ok(changes)
}

/// Which prices, coupons and discounts were unknown before.
fn learn(stored: &State, changes: &mut LedgerChanges) {
    let State {
        objects: stored, ..
    } = stored;
    let changed = &changes.objects;
    let new_prices = changed.prices.iter().filter(|(id, new)| {
        new.price.is_complete()
            && !stored.prices.get(*id).is_some_and(|known| {
                known.price.is_complete()
                    && known.price.currency_options == new.price.currency_options
            })
    });
    let new_coupons = changed.coupons.iter().filter(|(id, new)| {
        let known = stored.coupons.get(*id);
        known.is_none_or(|known| known.coupon != new.coupon)
    });
    let terms = |discount: &DiscountSnapshot| {
        let ids = [
            discount.stripe_coupon_id.clone(),
            discount.stripe_customer_id.clone(),
            discount.stripe_subscription_id.clone(),
        ];
        (ids, discount.created_at, discount.ended_at)
    };
    let new_discounts = changed.discounts.iter().filter(|(id, new)| {
        let known = stored.discounts.get(*id);
        known.is_none_or(|known| terms(known) != terms(new))
    });
    let new_discounts: Vec<_> = new_discounts.collect();
    // What a customer has, its subscriptions without discounts of their own have.
    let of_customers = new_discounts.iter().filter_map(|(_, discount)| {
        let is_of_customer = discount.stripe_subscription_id.is_none();
        discount
            .stripe_customer_id
            .as_ref()
            .filter(|_| is_of_customer)
    });
    // A customer that was only named until now may have had discounts all along.
    let seen_customers = changed.customers.iter().filter(|(id, new)| {
        let known = stored.customers.get(*id);
        new.version.is_seen() && known.is_some_and(|known| !known.version.is_seen())
    });
    let seen_customers: Vec<&String> = seen_customers.map(|(id, _)| id).collect();
    let learned: BTreeSet<&String> = new_prices
        .map(|(id, _)| id)
        .chain(new_coupons.map(|(id, _)| id))
        .chain(of_customers)
        .chain(new_discounts.iter().map(|(id, _)| *id))
        .chain(seen_customers.iter().copied())
        .collect();
    changes.learned = learned.into_iter().cloned().collect();
}

fn customers(all: &Objects, stored: &State, changes: &mut LedgerChanges) {
    for (id, customer) in &all.customers {
        let user_id = stored.users_of_customers.get(id).copied().flatten();
        // The application may have named the customer since: look again as long as the user is unknown.
        if !changes.objects.customers.contains_key(id) && user_id.is_some() {
            continue;
        }
        let before = stored.objects.customers.get(id);
        let is_relinked = before.is_none_or(|before| before.link != customer.link);
        if is_relinked || user_id.is_none() {
            changes.affected_customers.insert(id.clone());
        }
        if let Some(user_id) = user_id.filter(|_| is_relinked) {
            changes.former_users.insert(id.clone(), user_id);
        }
        let written = &mut changes.objects.customers;
        written.insert(id.clone(), customer.clone());
    }
}

/// The versions that the snapshots add to the history.
fn versions(facts: &Objects, stored: &State, changes: &mut LedgerChanges) -> Result<(), Error> {
    for subscription in facts.subscriptions.values() {
        // It says nothing of what is paid for it.
        if subscription.is_without_items() {
            continue;
        }
        let versions = &mut changes.versions;
        versions.push(version(subscription, &stored.plans)?);
        if let Some(begun) = subscription.begun() {
            versions.push(version(&begun, &stored.plans)?);
        }
    }
    Ok(())
}

fn subscriptions<'a>(
    subscribed: impl Iterator<Item = &'a String>,
    all: &Objects,
    stored: &State,
    parts: &mut Parts,
    changes: &mut LedgerChanges,
) -> Result<(), Error> {
    // A session may name the plan of a stored subscription. So may an earlier snapshot that arrives late.
    let mut touched: BTreeSet<String> = subscribed.cloned().collect();
    for session in changes.objects.checkout_sessions.values() {
        let Some(id) = &session.stripe_subscription_id else {
            continue;
        };
        if all.subscriptions.contains_key(id) {
            touched.insert(id.clone());
            continue;
        }
        let named_last = newest_session(&all.checkout_sessions, id).unwrap_or(session);
        let named = (id.clone(), named_last.clone());
        changes.named_by_session.push(named);
        let affected = session.stripe_customer_id.clone();
        changes.affected_customers.extend(affected);
    }
    for id in touched {
        let Some(subscription) = all.subscriptions.get(&id) else {
            continue;
        };
        let changed = &changes.versions;
        let is_changed = |version: &&SubscriptionVersion| {
            let same = |other: &SubscriptionVersion| version.is_of_the_same_snapshot(other);
            changed.iter().any(same)
        };
        let unchanged = stored.versions.iter().filter(|one| !is_changed(one));
        let versions: Vec<&SubscriptionVersion> = unchanged.chain(changed).collect();
        let sessions = all.checkout_sessions.values();
        let known = versions.iter().copied();
        let computed = computed(subscription, sessions, known, &stored.plans)?;
        let lookups = parts::of_subscription(subscription, versions.into_iter(), &computed);
        parts.judge(&id, lookups);
        let customer = subscription.stripe_customer_id.clone();
        changes.affected_customers.insert(customer);
        changes.computed.insert(id.clone(), computed);
        let written = &mut changes.objects.subscriptions;
        written.insert(id, subscription.clone());
    }
    Ok(())
}

/// What the ledger adds to the snapshot shown. The plan is the one it names, otherwise the one that a paid session of
/// it names, otherwise the last one that an earlier snapshot named.
pub(super) fn computed<'a>(
    subscription: &Subscription,
    sessions: impl Iterator<Item = &'a CheckoutSession>,
    versions: impl Iterator<Item = &'a SubscriptionVersion>,
    plans: &Plans,
) -> Result<Computed, Error> {
    let id = subscription.stripe_subscription_id.as_str();
    let session = sessions
        .filter(|session| session.stripe_subscription_id.as_deref() == Some(id))
        .filter(|session| session.paid_plan().is_some())
        .max_by_key(|session| (session.created_at, &session.stripe_checkout_session_id));
    let evidence = PlanEvidence {
        plan_prices: &plans.by_price,
        session_plan: session.and_then(CheckoutSession::paid_plan),
        known_plans: &plans.names,
    };
    let named_before = || {
        versions
            .filter(|version| version.stripe_subscription_id == id && version.plan_name.is_some())
            .max_by_key(|version| {
                let order = (version.source_created_at, version.source_rank);
                (!version.overruled, order, &version.source_event_id)
            })
            .and_then(|version| version.plan_name.clone())
    };
    let revenue = subscription.current_revenue()?;
    Ok(Computed {
        mrr_cents: div_half_even_cents(i128::from(revenue.mrr_microcents), 1_000_000)?,
        plan_name: plan_name(&subscription.items, &subscription.metadata, &evidence)
            .or_else(named_before),
        revenue,
    })
}

/// The history with the new versions, and the movements that follow from it.
fn history(
    merged: &BTreeMap<String, Subscription>,
    stored: &State,
    verdicts: &[Verdict],
    changes: &mut LedgerChanges,
) -> Result<(), Error> {
    if changes.versions.is_empty() {
        return Ok(());
    }
    let key = |version: &SubscriptionVersion| {
        (
            version.stripe_subscription_id.clone(),
            version.source_event_id.clone(),
        )
    };
    let mut versions: BTreeMap<(String, String), SubscriptionVersion> = stored
        .versions
        .iter()
        .map(|version| (key(version), version.clone()))
        .collect();
    let before = versions.clone();
    for version in &changes.versions {
        versions.insert(key(version), version.clone());
    }
    for version in versions.values_mut() {
        // The predecessor's rows have another key until Stripe names the customer.
        if let Some(subscription) = merged.get(&version.stripe_subscription_id)
            && version.stripe_customer_id != subscription.stripe_customer_id
        {
            changes
                .former_customers
                .insert(version.stripe_customer_id.clone());
            version
                .stripe_customer_id
                .clone_from(&subscription.stripe_customer_id);
        }
        let judged = verdicts.iter().rev().find(|verdict| {
            verdict.object_id == version.stripe_subscription_id
                && verdict.created_at == version.source_created_at
        });
        if let Some(verdict) = judged {
            version.overruled = verdict.overruled.contains(&version.source_event_id);
        }
    }
    movement::choose_beginnings(&mut versions.values_mut().collect::<Vec<_>>());
    movement::complete_cut_lists(&mut versions.values_mut().collect::<Vec<_>>());
    changes.versions = versions
        .iter()
        .filter(|(key, version)| before.get(*key) != Some(*version))
        .map(|(_, version)| version.clone())
        .collect();
    let customers: BTreeSet<String> = changes
        .versions
        .iter()
        .map(|version| version.stripe_customer_id.clone())
        .collect();
    for customer in customers {
        let of_customer: Vec<SubscriptionVersion> = versions
            .values()
            .filter(|version| version.stripe_customer_id == customer)
            .cloned()
            .collect();
        changes
            .movements
            .insert(customer, movement::movements(&of_customer)?);
    }
    Ok(())
}

/// The version that one snapshot adds to the history.
pub(super) fn version(
    subscription: &Subscription,
    plans: &Plans,
) -> Result<SubscriptionVersion, Error> {
    let created_at = subscription.version.created_at;
    let of_profile = |profile| subscription.recurring_revenue(profile, created_at);
    let revenue = of_profile(DiscountProfile::Stripe)?;
    let all_discounts = of_profile(DiscountProfile::AllDiscounts)?;
    let no_discounts = of_profile(DiscountProfile::NoDiscounts)?;
    let evidence = PlanEvidence {
        plan_prices: &plans.by_price,
        session_plan: None,
        known_plans: &plans.names,
    };
    let ended_at = subscription
        .ended_at
        .filter(|_| is_ended(&subscription.status));
    let has_ended = is_ended(&subscription.status) || subscription.ended_at.is_some();
    let set_to_cancel = subscription.cancel_at_period_end || subscription.cancel_at.is_some();
    Ok(SubscriptionVersion {
        stripe_subscription_id: subscription.stripe_subscription_id.clone(),
        stripe_customer_id: subscription.stripe_customer_id.clone(),
        source_event_id: subscription.version.event_id.clone(),
        source_created_at: created_at,
        source_rank: subscription.version.rank,
        occurred_at: ended_at.unwrap_or(created_at),
        status: subscription.status.clone(),
        currency: subscription.currency,
        mrr_microcents: revenue.mrr_microcents,
        potential_mrr_microcents: revenue.potential_mrr_microcents,
        mrr_provisional: revenue.is_provisional,
        waits_for: subscription.waits_for(),
        missing: subscription.missing(),
        plan_name: plan_name(&subscription.items, &subscription.metadata, &evidence),
        overruled: false,
        set_to_cancel: set_to_cancel && !has_ended,
        is_counted: Some(subscription.counts() && !has_ended),
        all_discounts_microcents: Some(all_discounts.potential_mrr_microcents),
        no_discounts_microcents: Some(no_discounts.potential_mrr_microcents),
        discount_steps: discount_steps(subscription)?,
    })
}

/// What becomes of a snapshot without an event; `None` when nothing does.
fn discount_steps(subscription: &Subscription) -> Result<Option<Vec<DiscountStep>>, Error> {
    let mut steps = Vec::new();
    for at in subscription.discount_changes() {
        let revenue = subscription.recurring_revenue(DiscountProfile::Stripe, at)?;
        let all_discounts = subscription.recurring_revenue(DiscountProfile::AllDiscounts, at)?;
        steps.push(DiscountStep {
            at,
            mrr_microcents: revenue.mrr_microcents,
            potential_mrr_microcents: revenue.potential_mrr_microcents,
            all_discounts_microcents: all_discounts.potential_mrr_microcents,
        });
    }
    Ok(Some(steps).filter(|steps| !steps.is_empty()))
}

fn newest_session<'a>(
    sessions: &'a BTreeMap<String, CheckoutSession>,
    subscription_id: &str,
) -> Option<&'a CheckoutSession> {
    sessions
        .values()
        .filter(|session| session.stripe_subscription_id.as_deref() == Some(subscription_id))
        .max_by_key(|session| (session.created_at, &session.stripe_checkout_session_id))
}

/// What is known of prices, coupons and discounts: what this event says, and what is stored.
pub(super) struct Catalog {
    prices: Vec<Price>,
    coupons: Kind<CouponSnapshot>,
    discounts: Kind<DiscountSnapshot>,
    /// The customers of whom it is known whether they have a discount.
    customers: BTreeSet<String>,
}

impl Catalog {
    pub(super) fn of<'a>(facts: impl Iterator<Item = &'a Objects>, stored: &State) -> Catalog {
        let mut prices = Vec::new();
        let mut coupons = stored.objects.coupons.clone();
        let mut discounts = stored.objects.discounts.clone();
        let mut customers = BTreeSet::new();
        let seen = |customers: &Kind<Customer>| {
            let seen = customers
                .iter()
                .filter(|(_, customer)| customer.version.is_seen());
            seen.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        for facts in facts {
            prices.extend(facts.prices.values().map(|known| known.price.clone()));
            facts
                .coupons
                .values()
                .for_each(|one| coupons.keep(one.clone()));
            facts
                .discounts
                .values()
                .for_each(|one| discounts.keep(one.clone()));
            customers.extend(seen(&facts.customers));
        }
        let stored_prices = stored.objects.prices.values();
        prices.extend(stored_prices.map(|known| known.price.clone()));
        customers.extend(seen(&stored.objects.customers));
        // Whoever has a discount is known to have it.
        let of_customers = discounts
            .values()
            .filter(|one| one.stripe_subscription_id.is_none());
        customers.extend(of_customers.filter_map(|one| one.stripe_customer_id.clone()));
        Catalog {
            customers,
            prices,
            coupons,
            discounts,
        }
    }

    /// Fills in the tiers and coupons that the subscriptions name without carrying them, and what they inherit.
    pub(super) fn complete<'a>(&self, subscriptions: impl Iterator<Item = &'a mut Subscription>) {
        for subscription in subscriptions {
            for item in &mut subscription.items {
                if !item.price.is_complete() {
                    self.complete_price(&mut item.price);
                }
                item.discounts
                    .iter_mut()
                    .for_each(|discount| self.complete_discount(discount));
            }
            subscription
                .discounts
                .iter_mut()
                .for_each(|discount| self.complete_discount(discount));
            let customer = &subscription.stripe_customer_id;
            subscription.inherited_discounts = (subscription.inherits()
                && self.customers.contains(customer))
            .then(|| self.of_customer(customer));
        }
    }

    /// The discounts of a customer that are of no subscription, oldest first.
    fn of_customer(&self, customer: &str) -> Vec<Discount> {
        let of_customer = self.discounts.values().filter(|discount| {
            discount.stripe_customer_id.as_deref() == Some(customer)
                && discount.stripe_subscription_id.is_none()
        });
        let mut of_customer: Vec<&DiscountSnapshot> = of_customer.collect();
        of_customer.sort_by_key(|discount| (discount.created_at, &discount.stripe_discount_id));
        let discounts = of_customer.into_iter().map(|known| {
            let mut discount = Discount {
                stripe_discount_id: Some(known.stripe_discount_id.clone()),
                stripe_coupon_id: None,
                coupon: None,
                starts_at: None,
                ends_at: None,
            };
            self.complete_discount(&mut discount);
            discount
        });
        discounts.collect()
    }

    fn complete_price(&self, price: &mut Price) {
        let same = self.prices.iter();
        let same = same.filter(|known| known.stripe_price_id == price.stripe_price_id);
        let mut same = same.map(|known| known.clone().in_currency(price.currency));
        if let Some(known) = same.find(Price::is_complete) {
            price.tiers = known.tiers;
            price.tiers_mode = known.tiers_mode;
            price.unit_amount_decimal = known.unit_amount_decimal;
        }
    }

    fn complete_discount(&self, discount: &mut Discount) {
        let id = discount.stripe_discount_id.as_ref();
        if let Some(known) = id.and_then(|id| self.discounts.get(id)) {
            if discount.stripe_coupon_id.is_none() {
                discount
                    .stripe_coupon_id
                    .clone_from(&known.stripe_coupon_id);
            }
            // It may have ended since.
            discount.starts_at = known.created_at;
            discount.ends_at = known.ended_at;
        }
        let id = discount.stripe_coupon_id.as_ref();
        let Some(known) = id.and_then(|id| self.coupons.get(id)) else {
            return;
        };
        match &mut discount.coupon {
            Some(coupon) => coupon.absorb(&known.coupon),
            None => discount.coupon = Some(known.coupon.clone()),
        }
    }
}

/// Whose the balance transactions are, and what they add to their days.
fn transactions(
    all: &mut Objects,
    stored: &State,
    changes: &mut LedgerChanges,
) -> Result<(), Error> {
    let moved = payments::assign_transactions(all);
    let written = &mut changes.objects.balance_transactions;
    for id in written.keys().cloned().chain(moved).collect::<Vec<_>>() {
        if let Some(transaction) = all.balance_transactions.get(&id) {
            written.insert(id, transaction.clone());
        }
    }
    changes.balance_daily = balance::daily(&stored.objects.balance_transactions, written)?;
    // When a dispute's money first went and came back, for whoever reads the dispute.
    for transaction in all.balance_transactions.values() {
        let source = transaction.source_id.as_ref();
        let Some(dispute) = source.and_then(|id| all.disputes.get_mut(id)) else {
            continue;
        };
        let first = match transaction.amount_cents {
            ..0 => &mut dispute.funds_withdrawn_at,
            0 => continue,
            1.. => &mut dispute.funds_reinstated_at,
        };
        let before = *first;
        earliest(first, Some(transaction.created_at));
        if *first != before {
            let (id, dispute) = (dispute.key(), dispute.clone());
            changes.objects.disputes.insert(id, dispute);
        }
    }
    Ok(())
}

/// What credit notes have paid back outside Stripe, the refunds that were issued as credit, and those that are not any
/// more.
fn refunds(all: &Objects, changes: &mut LedgerChanges) -> Result<(), Error> {
    for (id, note) in &changes.objects.credit_notes {
        let outside = note.refund_outside()?.map(|refund| (id.clone(), refund));
        changes.objects.refunds.extend(outside);
    }
    // All of them: the payment, its invoice or its customer may be what has just arrived.
    let credits = all
        .refunds
        .values()
        .filter(|refund| is_store_credit(refund));
    changes.store_credits = credits.cloned().collect();
    let changed = changes.objects.refunds.iter();
    let revoked = changed.filter(|(_, refund)| !is_store_credit(refund));
    changes.revoked_credits = revoked.map(|(id, _)| id.clone()).collect();
    Ok(())
}

/// What is missing of the charges and disputes of the payments that were derived, and of payouts.
fn payment_parts(all: &Objects, parts: &mut Parts, changes: &LedgerChanges) {
    for (id, charge) in &all.charges {
        let key = charge.stripe_payment_intent_id.as_ref().unwrap_or(id);
        let mut payments = changes.payments.iter();
        let payment = payments.find(|payment| payment.payment_key == *key);
        parts.judge(id, parts::of_charge(charge, all, payment));
    }
    let not_convertible = changes.payments.iter();
    let not_convertible = not_convertible.flat_map(|payment| &payment.not_convertible);
    let not_convertible: BTreeSet<&String> = not_convertible.collect();
    for (id, dispute) in &all.disputes {
        parts.judge(id, parts::of_dispute(dispute, all, &not_convertible));
    }
    for (id, payout) in &all.payouts {
        parts.judge(id, parts::of_payout(payout));
    }
}

fn is_store_credit(refund: &Refund) -> bool {
    refund
        .metadata
        .get("credit")
        .and_then(|credit| credit.as_str())
        == Some("true")
}

fn invoices(
    all: &mut Objects,
    stored: &State,
    parts: &mut Parts,
    changes: &mut LedgerChanges,
) -> Result<(), Error> {
    // Only the invoice says whose a payment record is.
    for (key, link) in &mut all.invoice_payments {
        let invoice = all.invoices.get(&link.stripe_invoice_id);
        let customer = invoice.and_then(|invoice| invoice.stripe_customer_id.as_ref());
        if link.stripe_payment_record_id.is_some()
            && link.stripe_customer_id.is_none()
            && let Some(customer) = customer
        {
            link.stripe_customer_id = Some(customer.clone());
            let written = &mut changes.objects.invoice_payments;
            written.insert(key.clone(), link.clone());
        }
    }
    let notes = changes.objects.credit_notes.values();
    let credited: BTreeSet<String> = notes.map(|note| note.stripe_invoice_id.clone()).collect();
    for (id, invoice) in &all.invoices {
        let money = invoice.money(all.invoice_payments.values())?;
        parts.judge(id, parts::of_invoice(invoice, &money, &all.tax_rates));
        let before = stored.objects.invoices.get(id).map(|before| {
            let links = stored.objects.invoice_payments.values();
            before.money(links)
        });
        let outside_before = before.transpose()?.map(|before| before.outside_cents);
        let is_touched = changes.objects.invoices.contains_key(id)
            || credited.contains(id)
            || outside_before != Some(money.outside_cents)
            || parts.differ(id, all, &stored.partial);
        if is_touched {
            let notes = all.credit_notes.values();
            let notes = notes.filter(|note| note.stripe_invoice_id == *id).cloned();
            let due_cents = invoice.amount_due_cents(&notes.collect::<Vec<CreditNote>>())?;
            let figures = (due_cents, money.outside_cents);
            changes.invoice_figures.insert(id.clone(), figures);
        }
    }
    for (id, note) in &all.credit_notes {
        parts.judge(id, parts::of_credit_note(note, &all.tax_rates));
    }
    for id in changes.invoice_figures.keys() {
        let invoice = all.invoices.get_key_value(id);
        let invoice = invoice.map(|(id, invoice)| (id.clone(), invoice.clone()));
        changes.objects.invoices.extend(invoice);
    }
    Ok(())
}

/// Notes which objects have a last second that nothing decides. A later second decides what an earlier one left open.
fn second_looks(facts: &Objects, shown: &Objects, verdict: Option<&Verdict>, parts: &mut Parts) {
    let versions = |id: &str| {
        let (kind, version) = facts.version(id)?;
        let shown = shown.version(id);
        let shown_at = shown.map(|(_, shown)| shown.created_at);
        FETCHED_WHEN_UNDECIDED
            .contains(&kind)
            .then_some((version.created_at, shown_at))
    };
    let Some(verdict) = verdict else {
        for id in facts.keys() {
            if let Some((created_at, Some(shown_at))) = versions(id)
                && created_at > shown_at
            {
                parts.set_undecided(id, false);
            }
        }
        return;
    };
    let Some((created_at, shown_at)) = versions(&verdict.object_id) else {
        return;
    };
    // An older undecided second does not affect what is shown.
    if shown_at.is_none_or(|shown_at| shown_at <= created_at) {
        parts.set_undecided(&verdict.object_id, !verdict.is_decided);
    }
}

fn payments(
    all: &Objects,
    stored: &State,
    estimate: FeeEstimate,
    changes: &mut LedgerChanges,
) -> Result<(), Error> {
    let invoices = &all.invoices;
    let paid_now = invoices.values().filter_map(|invoice| {
        let money = invoice.money(all.invoice_payments.values()).ok()?;
        let is_paid = invoice.status == InvoiceStatus::Paid && money.outside_cents == 0;
        let paid_at = invoice.paid_at.filter(|_| is_paid)?;
        Some((invoice.stripe_invoice_id.as_str(), paid_at))
    });
    let paid_before = stored.invoices_paid_at.iter();
    let invoices_paid_at: BTreeMap<&str, Timestamp> = paid_before
        .filter(|(id, _)| !invoices.contains_key(*id))
        .map(|(id, paid_at)| (id.as_str(), *paid_at))
        .chain(paid_now)
        .collect();
    for facts in payments::facts(all, &invoices_paid_at) {
        let payment = payment::derive(&facts, estimate)?;
        changes.payments.extend(payment);
    }
    let mut outside = payment::outside_stripe(invoices.values(), &all.invoice_payments)?;
    let mut of_nobody = paid_back_of_unknown(all)?;
    for id in invoices.keys() {
        let notes = all.credit_notes.values();
        let notes = notes.filter(|note| note.stripe_invoice_id == *id);
        let notes: Vec<&CreditNote> = notes.collect();
        if notes.is_empty() {
            continue;
        }
        let pays = |payment: &Payment| {
            let links = all.invoice_payments.values();
            let mut links = links.filter(|link| link.stripe_invoice_id == *id);
            payment.stripe_invoice_id.as_ref() == Some(id)
                || links.any(|link| link.record_outside_stripe() == Some(&payment.payment_key))
        };
        let (mut of_invoice, others) = outside.into_iter().partition::<Vec<_>, _>(pays);
        of_nobody.extend(pay_back(&mut of_invoice, &notes)?);
        outside = others;
        outside.extend(of_invoice);
    }
    changes.payments.extend(outside);
    let shown: BTreeSet<&str> = changes
        .payments
        .iter()
        .map(|payment| payment.payment_key.as_str())
        .collect();
    let stored_keys = stored
        .entries
        .iter()
        .map(|entry| entry.payment_key.as_str());
    // A charge without a known intent may turn out to have one.
    let joined = stored.objects.charges.iter().filter(|(id, before)| {
        let has_intent = |charge: &payment::Charge| charge.stripe_payment_intent_id.is_some();
        !has_intent(before) && all.charges.get(*id).is_some_and(has_intent)
    });
    let joined = joined.map(|(id, _)| id.as_str());
    let obsolete: BTreeSet<&str> = stored_keys
        .chain(joined)
        .filter(|key| !shown.contains(key))
        .collect();
    changes.obsolete_payments = obsolete.into_iter().map(str::to_owned).collect();
    let derived: Vec<RevenueEntry> = changes
        .payments
        .iter()
        .flat_map(|payment| payment.entries.clone())
        .chain(of_nobody)
        .collect();
    changes.entries = entries::replacement(&stored.entries, &derived)?;
    Ok(())
}

/// What credit notes paid back outside Stripe whose invoice nobody has told: it belongs to no payment yet.
fn paid_back_of_unknown(all: &Objects) -> Result<Vec<RevenueEntry>, Error> {
    let notes = all.credit_notes.values();
    let of_unknown = notes.filter(|note| !all.invoices.contains_key(&note.stripe_invoice_id));
    let of_unknown: Vec<&CreditNote> = of_unknown.collect();
    Ok(pay_back(&mut [], &of_unknown)?)
}
