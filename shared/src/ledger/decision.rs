//! What an event changes: decided from the facts and what is stored, without any I/O.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Error;
use super::announcements;
use super::neighbourhood::Neighbourhood;
use super::same_second::Verdict;
use domain::money::div_half_even_cents;
use domain::payment::key::PaymentKey;
use domain::payment::{
    self, Charge, Dispute, FeeEstimate, InvoicePayment, Payment, PaymentFacts, PaymentIntent,
    Refund,
};
use domain::revenue::entries::{self, Replacement, RevenueEntry};
use domain::revenue::movement::{self, Movement, SubscriptionVersion};
use domain::stripe_objects::catalog::{
    CouponSnapshot, Discount, DiscountSnapshot, Price, PriceSnapshot,
};
use domain::stripe_objects::customer::{CheckoutSession, Customer};
use domain::stripe_objects::invoice::{CreditNote, Invoice, InvoiceStatus};
use domain::stripe_objects::snapshot::Snapshot;
use domain::stripe_objects::subscription::{
    DiscountProfile, PlanEvidence, Subscription, is_ended, plan_name,
};
use store::catalog::Plans;
use store::outbox::NewMessage;
use store::stripe_lookups::Lookup;
use store::subscriptions::Computed;
use stripe::event::Event;
use stripe::reader::Facts;

/// Everything to write for one event.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub(super) customers: Vec<Customer>,
    /// Customers whose user, or whose user's plan, has to be decided again.
    pub(super) affected_customers: BTreeSet<String>,
    /// The user that each of these customers had before.
    pub(super) former_users: BTreeMap<String, i32>,
    pub(super) sessions: Vec<CheckoutSession>,
    /// Subscriptions that only a session of this event has named so far.
    pub(super) named_by_session: Vec<(String, CheckoutSession)>,
    pub(super) subscriptions: Vec<(Subscription, Computed)>,
    pub(super) versions: Vec<SubscriptionVersion>,
    /// All movements of each changed customer.
    pub(super) movements: BTreeMap<String, Vec<Movement>>,
    /// Customers (of the predecessor's rows) that had subscriptions of this customer under another key.
    pub(super) former_customers: BTreeSet<String>,
    pub(super) invoices: Vec<(Invoice, i64)>,
    pub(super) credit_notes: Vec<CreditNote>,
    pub(super) intents: Vec<PaymentIntent>,
    pub(super) charges: Vec<Charge>,
    pub(super) refunds: Vec<Refund>,
    pub(super) disputes: Vec<(Dispute, i64)>,
    pub(super) invoice_payments: Vec<InvoicePayment>,
    pub(super) payments: Vec<Payment>,
    pub(super) obsolete_payments: Vec<String>,
    pub(super) store_credits: Vec<Refund>,
    /// Refunds that changed and are not a credit, whatever an earlier snapshot said.
    pub(super) revoked_credits: Vec<String>,
    pub(super) entries: Replacement,
    pub(super) prices: Vec<PriceSnapshot>,
    pub(super) coupons: Vec<CouponSnapshot>,
    pub(super) discounts: Vec<DiscountSnapshot>,
    /// Prices, coupons and discounts that were unknown before.
    pub(super) learned: Vec<String>,
    /// `(kind, id)` pairs whose open look-ups become exactly `lookups`.
    pub(super) looked_up: Vec<(&'static str, String)>,
    pub(super) lookups: Vec<Lookup>,
    pub(super) messages: Vec<NewMessage>,
}

/// The look-up of what a price costs in its other currencies. A separate kind: events about a price answer a look-up of
/// its tiers, but never carry these.
const CURRENCY_OPTIONS: &str = "price_currency_options";

/// Decides what the facts change.
pub(super) fn decide(
    event: Option<&Event>,
    facts: &Facts,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    estimate: FeeEstimate,
) -> Result<Decision, Error> {
    let mut decision = Decision::default();
    catalog(facts, stored, verdict, &mut decision);
    customers(facts, stored, verdict, &mut decision);
    subscriptions(event, facts, stored, verdict, &mut decision)?;
    let mirror = PaymentMirror::merge(facts, stored, verdict, &mut decision)?;
    let links = &mirror.links;
    let invoices = invoices(facts, stored, verdict, links, &mut decision)?;
    payments(&mirror, &invoices, stored, estimate, &mut decision)?;
    if let Some(event) = event {
        decision.messages = announcements::announce(event, facts, &decision);
    }
    Ok(decision)
}

/// All rows of one kind after the event, and those that changed.
struct Merged<T> {
    all: BTreeMap<String, T>,
    changed: Vec<T>,
}

/// The facts of one kind in the winning snapshot of the second.
fn won<'a, T>(verdict: Option<&'a Verdict>, read: impl Fn(&'a Facts) -> &'a Vec<T>) -> &'a [T] {
    verdict.map_or(&[], |verdict| read(&verdict.facts))
}

/// Joins incoming snapshots with the stored rows. Where the second has a verdict, its winner is the later snapshot;
/// otherwise the version decides.
fn merge<'a, T: Snapshot + 'a>(
    stored: impl IntoIterator<Item = &'a T>,
    incoming: &[T],
    verdict: Option<&Verdict>,
    won: &[T],
) -> Merged<T> {
    let mut all: BTreeMap<String, T> = stored
        .into_iter()
        .map(|row| (row.key(), row.clone()))
        .collect();
    let before = all.clone();
    for snapshot in incoming {
        let key = snapshot.key();
        let joined = match all.remove(&key) {
            Some(row) => join(row, snapshot.clone(), verdict, won),
            None => snapshot.clone(),
        };
        all.insert(key, joined);
    }
    let changed = all
        .iter()
        .filter(|(key, row)| before.get(*key) != Some(*row))
        .map(|(_, row)| row.clone())
        .collect();
    Merged { all, changed }
}

fn join<T: Snapshot>(row: T, snapshot: T, verdict: Option<&Verdict>, won: &[T]) -> T {
    let key = row.key();
    let judged = verdict
        .filter(|verdict| verdict.object_id == key)
        .filter(|_| row.version().created_at == snapshot.version().created_at)
        .and_then(|verdict| Some((verdict, won.iter().find(|fact| fact.key() == key)?)));
    match judged {
        Some((verdict, winner)) => {
            // A snapshot inside another object's event of that second was not judged.
            let is_judged = verdict.has_heard(&row.version().event_id);
            let mut later = if is_judged || row.version() < winner.version() {
                winner.clone()
            } else {
                row.clone()
            };
            later.absorb(winner);
            later.absorb(&row);
            later.absorb(&snapshot);
            later
        }
        None => row.join(snapshot),
    }
}

fn catalog(
    facts: &Facts,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    decision: &mut Decision,
) {
    decision.prices = merge(
        &stored.prices,
        &facts.prices,
        verdict,
        won(verdict, |facts| &facts.prices),
    )
    .changed;
    decision.coupons = merge(
        &stored.coupons,
        &facts.coupons,
        verdict,
        won(verdict, |facts| &facts.coupons),
    )
    .changed;
    decision.discounts = merge(
        &stored.discounts,
        &facts.discounts,
        verdict,
        won(verdict, |facts| &facts.discounts),
    )
    .changed;
    let Decision {
        prices,
        coupons,
        discounts,
        ..
    } = decision;
    let new_prices = prices
        .iter()
        .filter(|price| price.price.is_complete())
        .filter(|price| {
            let mut before = stored.prices.iter();
            !before.any(|known| {
                known.key() == price.key()
                    && known.price.is_complete()
                    && known.price.currency_options == price.price.currency_options
            })
        })
        .map(Snapshot::key);
    let new_coupons = coupons
        .iter()
        .map(Snapshot::key)
        .filter(|id| !stored.coupons.iter().any(|known| known.key() == *id));
    let new_discounts = discounts
        .iter()
        .filter(|discount| discount.stripe_coupon_id.is_some())
        .filter(|discount| {
            let mut before = stored.discounts.iter();
            !before.any(|known| known.key() == discount.key() && known.stripe_coupon_id.is_some())
        })
        .map(Snapshot::key);
    let learned: BTreeSet<String> = new_prices.chain(new_coupons).chain(new_discounts).collect();
    decision.learned = learned.into_iter().collect();
    for price in &facts.prices {
        let id = price.price.stripe_price_id.clone();
        if price.price.currency_options.is_some() {
            decision.looked_up.push((CURRENCY_OPTIONS, id.clone()));
        }
        if price.price.is_complete() {
            decision.looked_up.push(("price", id));
        }
    }
}

fn customers(
    facts: &Facts,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    decision: &mut Decision,
) {
    // Everybody that an event names is a customer, even if no event about the customer ever comes.
    let named = facts
        .checkout_sessions
        .iter()
        .filter_map(|session| session.stripe_customer_id.as_deref())
        .chain(
            facts
                .subscriptions
                .iter()
                .map(|s| s.stripe_customer_id.as_str()),
        )
        .chain(
            facts
                .invoices
                .iter()
                .filter_map(|i| i.stripe_customer_id.as_deref()),
        )
        .chain(
            facts
                .payment_intents
                .iter()
                .filter_map(|i| i.stripe_customer_id.as_deref()),
        )
        .chain(
            facts
                .charges
                .iter()
                .filter_map(|a| a.stripe_customer_id.as_deref()),
        )
        .chain(
            facts
                .credit_notes
                .iter()
                .filter_map(|n| n.stripe_customer_id.as_deref()),
        );
    let mut incoming: Vec<Customer> = named.map(Customer::named).collect();
    incoming.extend(facts.customers.iter().cloned());
    for (customer, link) in &facts.user_links {
        let mut linked = Customer::named(customer);
        linked.link = Some(link.clone());
        incoming.push(linked);
    }
    let rows = stored.customers.values().map(|stored| &stored.customer);
    let merged = merge(
        rows,
        &incoming,
        verdict,
        won(verdict, |facts| &facts.customers),
    );
    let changed: BTreeSet<String> = merged.changed.iter().map(Snapshot::key).collect();
    for (id, customer) in merged.all {
        let before = stored.customers.get(&id);
        let user_id = before.and_then(|stored| stored.user_id);
        // The application may have named the customer since: look again as long as the user is unknown.
        if changed.contains(&id) || user_id.is_none() {
            let is_relinked = before.is_none_or(|stored| stored.customer.link != customer.link);
            if is_relinked || user_id.is_none() {
                decision.affected_customers.insert(id.clone());
            }
            if let Some(user_id) = user_id.filter(|_| is_relinked) {
                decision.former_users.insert(id, user_id);
            }
            decision.customers.push(customer);
        }
    }
}

fn subscriptions(
    event: Option<&Event>,
    facts: &Facts,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    decision: &mut Decision,
) -> Result<(), Error> {
    let sessions = merge(
        &stored.sessions,
        &facts.checkout_sessions,
        verdict,
        won(verdict, |facts| &facts.checkout_sessions),
    );
    decision.sessions = sessions.changed;
    let known = Catalog { facts, stored };
    let mut incoming = facts.subscriptions.clone();
    for subscription in &mut incoming {
        known.complete(subscription);
        known.request_missing(subscription, decision);
        decision
            .versions
            .push(version(subscription, &stored.plans)?);
        if let Some(begun) = subscription.begun() {
            decision.versions.push(version(&begun, &stored.plans)?);
        }
    }
    let rows = stored
        .subscriptions
        .values()
        .filter_map(|row| row.snapshot.as_ref());
    let won = known.complete_all(won(verdict, |facts| &facts.subscriptions));
    let merged = merge(rows, &incoming, verdict, &won);

    // A session may name the plan of a stored subscription. So may an earlier snapshot that arrives late.
    let mut touched: BTreeSet<String> = incoming.iter().map(Snapshot::key).collect();
    for session in &decision.sessions {
        let Some(id) = &session.stripe_subscription_id else {
            continue;
        };
        touched.insert(id.clone());
        if !merged.all.contains_key(id) {
            let named_last = newest_session(&sessions.all, id).unwrap_or(session);
            decision
                .named_by_session
                .push((id.clone(), named_last.clone()));
            decision
                .affected_customers
                .extend(session.stripe_customer_id.clone());
        }
    }
    for id in touched {
        let Some(subscription) = merged.all.get(&id) else {
            continue;
        };
        let versions = stored.versions.iter().chain(&decision.versions);
        let computed = computed(subscription, sessions.all.values(), versions, &stored.plans)?;
        decision
            .affected_customers
            .insert(subscription.stripe_customer_id.clone());
        decision
            .subscriptions
            .push((subscription.clone(), computed));
    }
    history(event, &merged.all, stored, verdict, decision)
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
    let revenue = subscription.recurring_revenue(DiscountProfile::Stripe)?;
    Ok(Computed {
        mrr_cents: div_half_even_cents(i128::from(revenue.mrr_microcents), 1_000_000)?,
        plan_name: plan_name(&subscription.items, &subscription.metadata, &evidence)
            .or_else(named_before),
        revenue,
    })
}

/// The history with the new versions, and the movements that follow from it.
fn history(
    event: Option<&Event>,
    merged: &BTreeMap<String, Subscription>,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    decision: &mut Decision,
) -> Result<(), Error> {
    if decision.versions.is_empty() {
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
    for version in &decision.versions {
        versions.insert(key(version), version.clone());
    }
    for version in versions.values_mut() {
        // The predecessor's rows have another key until Stripe names the customer.
        if let Some(subscription) = merged.get(&version.stripe_subscription_id)
            && version.stripe_customer_id != subscription.stripe_customer_id
        {
            decision
                .former_customers
                .insert(version.stripe_customer_id.clone());
            version
                .stripe_customer_id
                .clone_from(&subscription.stripe_customer_id);
        }
        if let Some(verdict) = verdict
            && verdict.object_id == version.stripe_subscription_id
            && event.and_then(|event| event.created_at) == Some(version.source_created_at)
        {
            version.overruled = verdict.overruled.contains(&version.source_event_id);
        }
    }
    movement::choose_beginnings(&mut versions.values_mut().collect::<Vec<_>>());
    decision.versions = versions
        .iter()
        .filter(|(key, version)| before.get(*key) != Some(*version))
        .map(|(_, version)| version.clone())
        .collect();
    let customers: BTreeSet<String> = decision
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
        decision
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
    let revenue = subscription.recurring_revenue(DiscountProfile::Stripe)?;
    let all_discounts = subscription.recurring_revenue(DiscountProfile::AllDiscounts)?;
    let no_discounts = subscription.recurring_revenue(DiscountProfile::NoDiscounts)?;
    let evidence = PlanEvidence {
        plan_prices: &plans.by_price,
        session_plan: None,
        known_plans: &plans.names,
    };
    let created_at = subscription.version.created_at;
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
        plan_name: plan_name(&subscription.items, &subscription.metadata, &evidence),
        overruled: false,
        set_to_cancel: set_to_cancel && !has_ended,
        is_counted: Some(subscription.counts() && !has_ended),
        all_discounts_microcents: Some(all_discounts.potential_mrr_microcents),
        no_discounts_microcents: Some(no_discounts.potential_mrr_microcents),
    })
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

/// What is known of prices and coupons: the facts of this event and what is stored.
pub(super) struct Catalog<'a> {
    pub(super) facts: &'a Facts,
    pub(super) stored: &'a Neighbourhood,
}

impl Catalog<'_> {
    /// Fills in the tiers and coupons that the subscription names without carrying them.
    pub(super) fn complete(&self, subscription: &mut Subscription) {
        for item in &mut subscription.items {
            if !item.price.is_complete() {
                let prices = self.facts.prices.iter().chain(&self.stored.prices);
                let mut same = prices
                    .filter(|p| p.price.stripe_price_id == item.price.stripe_price_id)
                    .map(|known| known.price.clone().in_currency(item.price.currency));
                if let Some(known) = same.find(Price::is_complete) {
                    item.price.tiers = known.tiers;
                    item.price.tiers_mode = known.tiers_mode;
                    item.price.unit_amount_decimal = known.unit_amount_decimal;
                }
            }
            item.discounts
                .iter_mut()
                .for_each(|discount| self.complete_discount(discount));
        }
        subscription
            .discounts
            .iter_mut()
            .for_each(|discount| self.complete_discount(discount));
    }

    fn complete_all(&self, subscriptions: &[Subscription]) -> Vec<Subscription> {
        let mut completed = subscriptions.to_vec();
        completed
            .iter_mut()
            .for_each(|subscription| self.complete(subscription));
        completed
    }

    fn complete_discount(&self, discount: &mut Discount) {
        if discount.coupon.is_some() {
            return;
        }
        if discount.stripe_coupon_id.is_none() {
            let mut discounts = self.facts.discounts.iter().chain(&self.stored.discounts);
            discount.stripe_coupon_id = discounts
                .find(|known| {
                    Some(&known.stripe_discount_id) == discount.stripe_discount_id.as_ref()
                })
                .and_then(|known| known.stripe_coupon_id.clone());
        }
        let mut coupons = self.facts.coupons.iter().chain(&self.stored.coupons);
        discount.coupon = coupons
            .find(|known| {
                Some(&known.coupon.stripe_coupon_id) == discount.stripe_coupon_id.as_ref()
            })
            .map(|known| known.coupon.clone());
    }

    /// Requests look-ups of what is still missing.
    fn request_missing(&self, subscription: &Subscription, decision: &mut Decision) {
        let requested_at = subscription.version.created_at;
        for item in subscription
            .items
            .iter()
            .filter(|item| !item.price.is_complete())
        {
            // When a price per unit has no amount, its amount is in another currency.
            let is_single = item.price.billing_scheme.as_deref() == Some("per_unit");
            let (kind, reason) = if is_single {
                (CURRENCY_OPTIONS, "currency")
            } else {
                ("price", "tiers")
            };
            decision.lookups.push(Lookup {
                kind,
                stripe_id: item.price.stripe_price_id.clone(),
                reason,
                requested_at,
            });
        }
        if subscription.unknown_discounts().next().is_some() {
            decision.lookups.push(Lookup {
                kind: "subscription_discounts",
                stripe_id: subscription.stripe_subscription_id.clone(),
                reason: "discounts",
                requested_at,
            });
        }
    }
}

/// The payment facts after the event.
pub(super) struct PaymentMirror {
    pub(super) intents: BTreeMap<String, PaymentIntent>,
    pub(super) charges: BTreeMap<String, Charge>,
    pub(super) refunds: BTreeMap<String, Refund>,
    pub(super) disputes: BTreeMap<String, Dispute>,
    pub(super) links: BTreeMap<String, InvoicePayment>,
}

impl PaymentMirror {
    fn merge(
        facts: &Facts,
        stored: &Neighbourhood,
        verdict: Option<&Verdict>,
        decision: &mut Decision,
    ) -> Result<PaymentMirror, Error> {
        let intents = merge(
            &stored.intents,
            &facts.payment_intents,
            verdict,
            won(verdict, |facts| &facts.payment_intents),
        );
        let charges = merge(
            &stored.charges,
            &facts.charges,
            verdict,
            won(verdict, |facts| &facts.charges),
        );
        let refunds = merge(
            &stored.refunds,
            &facts.refunds,
            verdict,
            won(verdict, |facts| &facts.refunds),
        );
        let disputes = merge(
            &stored.disputes,
            &facts.disputes,
            verdict,
            won(verdict, |facts| &facts.disputes),
        );
        let links = merge(&stored.invoice_payments, &facts.invoice_payments, None, &[]);
        for charge in charges.all.values() {
            request_settlement(charge, decision);
        }
        for dispute in disputes.changed {
            let (withdrawal, reinstatement) = dispute.fees_cents()?;
            decision
                .disputes
                .push((dispute, withdrawal + reinstatement));
        }
        // All of them: the payment, its invoice or its customer may be what has just arrived.
        decision.store_credits = refunds
            .all
            .values()
            .filter(|refund| is_store_credit(refund))
            .cloned()
            .collect();
        decision.revoked_credits = refunds
            .changed
            .iter()
            .filter(|refund| !is_store_credit(refund))
            .map(Snapshot::key)
            .collect();
        decision.intents = intents.changed;
        decision.charges = charges.changed;
        decision.refunds = refunds.changed;
        decision.invoice_payments = links.changed;
        Ok(PaymentMirror {
            intents: intents.all,
            charges: charges.all,
            refunds: refunds.all,
            disputes: disputes.all,
            links: links.all,
        })
    }

    /// Everything known of each payment, by payment key.
    pub(super) fn payments(
        &self,
        invoices_paid_at: &BTreeMap<&str, Timestamp>,
    ) -> Vec<PaymentFacts> {
        let mut keys: BTreeSet<&str> = self.intents.keys().map(String::as_str).collect();
        for charge in self.charges.values() {
            keys.insert(
                charge
                    .stripe_payment_intent_id
                    .as_deref()
                    .unwrap_or(&charge.stripe_charge_id),
            );
        }
        for link in self.links.values() {
            let charge = link.stripe_charge_id.as_deref();
            let of_charge = || charge.map(|charge| self.key_of_charge(charge));
            keys.extend(link.stripe_payment_intent_id.as_deref().or_else(of_charge));
        }
        keys.into_iter()
            .map(|key| self.payment(key, invoices_paid_at))
            .collect()
    }

    /// The payment that a charge belongs to. While the charge itself is unknown, the intent may name it.
    fn key_of_charge<'a>(&'a self, charge: &'a str) -> &'a str {
        let of_charge = self
            .charges
            .get(charge)
            .and_then(|charge| charge.stripe_payment_intent_id.as_deref());
        let of_intent = || {
            let mut intents = self.intents.values();
            intents
                .find(|intent| intent.latest_charge_id.as_deref() == Some(charge))
                .map(|intent| intent.stripe_payment_intent_id.as_str())
        };
        of_charge.or_else(of_intent).unwrap_or(charge)
    }

    fn payment(&self, key: &str, invoices_paid_at: &BTreeMap<&str, Timestamp>) -> PaymentFacts {
        let intent = self.intents.get(key);
        let charges: Vec<Charge> = self
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
        let links: Vec<InvoicePayment> = self
            .links
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
            refunds: self
                .refunds
                .values()
                .filter(|refund| {
                    let (intent, charge) =
                        (&refund.stripe_payment_intent_id, &refund.stripe_charge_id);
                    belongs(intent.as_deref(), charge.as_deref())
                })
                .cloned()
                .collect(),
            disputes: self
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
}

fn is_store_credit(refund: &Refund) -> bool {
    refund
        .metadata
        .get("credit")
        .and_then(|credit| credit.as_str())
        == Some("true")
}

/// Requests a look-up of the fee when a captured charge only names its balance transaction.
fn request_settlement(charge: &Charge, decision: &mut Decision) {
    let Some(id) = &charge.stripe_balance_transaction_id else {
        return;
    };
    decision.looked_up.push(("balance_transaction", id.clone()));
    if charge.settlement.is_none() && charge.has_succeeded() {
        decision.lookups.push(Lookup {
            kind: "balance_transaction",
            stripe_id: id.clone(),
            reason: "fee",
            requested_at: charge.attempted_at,
        });
    }
}

fn invoices(
    facts: &Facts,
    stored: &Neighbourhood,
    verdict: Option<&Verdict>,
    links: &BTreeMap<String, InvoicePayment>,
    decision: &mut Decision,
) -> Result<BTreeMap<String, Invoice>, Error> {
    let notes = merge(
        &stored.credit_notes,
        &facts.credit_notes,
        verdict,
        won(verdict, |facts| &facts.credit_notes),
    );
    let invoices = merge(
        &stored.invoices,
        &facts.invoices,
        verdict,
        won(verdict, |facts| &facts.invoices),
    );
    let mut touched: BTreeSet<String> = invoices.changed.iter().map(Snapshot::key).collect();
    touched.extend(
        notes
            .changed
            .iter()
            .map(|note| note.stripe_invoice_id.clone()),
    );
    for id in touched {
        let Some(invoice) = invoices.all.get(&id) else {
            continue;
        };
        let of_invoice: Vec<CreditNote> = notes
            .all
            .values()
            .filter(|note| note.stripe_invoice_id == id)
            .cloned()
            .collect();
        let amount_due_cents = invoice.amount_due_cents(&of_invoice)?;
        decision.invoices.push((invoice.clone(), amount_due_cents));
    }
    for invoice in invoices.all.values() {
        request_missing_parts(invoice, links, decision);
    }
    if let Some(verdict) = verdict {
        request_decision(verdict, facts, stored, decision);
    } else {
        close_decided(facts, stored, decision);
    }
    decision.credit_notes = notes.changed;
    Ok(invoices.all)
}

/// Requests the lines after the tenth, and the payment of a paid invoice that names none.
fn request_missing_parts(
    invoice: &Invoice,
    links: &BTreeMap<String, InvoicePayment>,
    decision: &mut Decision,
) {
    let stripe_id = &invoice.stripe_invoice_id;
    let requested_at = invoice.created_at;
    let mut request = |kind, is_missing: bool, reason, requested_at| {
        decision.looked_up.push((kind, stripe_id.clone()));
        if is_missing {
            let stripe_id = stripe_id.clone();
            decision.lookups.push(Lookup {
                kind,
                stripe_id,
                reason,
                requested_at,
            });
        }
    };
    request(
        "invoice_lines",
        !invoice.lines_complete,
        "lines",
        requested_at,
    );
    let is_explained = invoice.out_of_band_cents > 0
        || links
            .values()
            .any(|link| link.stripe_invoice_id == *stripe_id);
    let is_missing = invoice.is_paid_with_money() && !is_explained;
    let paid_at = invoice.paid_at.unwrap_or(requested_at);
    request("invoice_payments", is_missing, "payments", paid_at);
}

/// Requests the object when nothing decides which snapshot of its last second is the later one.
fn request_decision(
    verdict: &Verdict,
    facts: &Facts,
    stored: &Neighbourhood,
    decision: &mut Decision,
) {
    let Some((kind, created_at, shown_at)) = primary(&verdict.object_id, facts, stored) else {
        return;
    };
    // An older undecided second does not affect what is shown.
    if shown_at.is_some_and(|shown_at| shown_at > created_at) {
        return;
    }
    decision.looked_up.push((kind, verdict.object_id.clone()));
    if !verdict.is_decided {
        decision.lookups.push(Lookup {
            kind,
            stripe_id: verdict.object_id.clone(),
            reason: "undecidable",
            requested_at: created_at,
        });
    }
}

/// A later second decides what an earlier one left open.
fn close_decided(facts: &Facts, stored: &Neighbourhood, decision: &mut Decision) {
    let keys: Vec<String> = facts
        .subscriptions
        .iter()
        .map(Snapshot::key)
        .chain(facts.invoices.iter().map(Snapshot::key))
        .chain(facts.customers.iter().map(Snapshot::key))
        .chain(facts.payment_intents.iter().map(Snapshot::key))
        .chain(facts.charges.iter().map(Snapshot::key))
        .chain(facts.refunds.iter().map(Snapshot::key))
        .chain(facts.disputes.iter().map(Snapshot::key))
        .collect();
    for key in keys {
        if let Some((kind, created_at, Some(shown_at))) = primary(&key, facts, stored)
            && created_at > shown_at
        {
            decision.looked_up.push((kind, key));
        }
    }
}

/// The kind of an object, the time of the snapshot in the facts, and the time of the stored one.
fn primary(
    id: &str,
    facts: &Facts,
    stored: &Neighbourhood,
) -> Option<(&'static str, Timestamp, Option<Timestamp>)> {
    fn at<'a, T: Snapshot + 'a>(
        rows: impl IntoIterator<Item = &'a T>,
        id: &str,
    ) -> Option<Timestamp> {
        rows.into_iter()
            .find(|row| row.key() == id)
            .map(|row| row.version().created_at)
    }
    let subscriptions = stored
        .subscriptions
        .values()
        .filter_map(|row| row.snapshot.as_ref());
    let customers = stored.customers.values().map(|stored| &stored.customer);
    if let Some(created_at) = at(&facts.subscriptions, id) {
        return Some(("subscription", created_at, at(subscriptions, id)));
    }
    if let Some(created_at) = at(&facts.invoices, id) {
        return Some(("invoice", created_at, at(&stored.invoices, id)));
    }
    if let Some(created_at) = at(&facts.customers, id) {
        return Some(("customer", created_at, at(customers, id)));
    }
    if let Some(created_at) = at(&facts.payment_intents, id) {
        return Some(("payment_intent", created_at, at(&stored.intents, id)));
    }
    if let Some(created_at) = at(&facts.charges, id) {
        return Some(("charge", created_at, at(&stored.charges, id)));
    }
    if let Some(created_at) = at(&facts.refunds, id) {
        return Some(("refund", created_at, at(&stored.refunds, id)));
    }
    let created_at = at(&facts.disputes, id)?;
    Some(("dispute", created_at, at(&stored.disputes, id)))
}

fn payments(
    mirror: &PaymentMirror,
    invoices: &BTreeMap<String, Invoice>,
    stored: &Neighbourhood,
    estimate: FeeEstimate,
    decision: &mut Decision,
) -> Result<(), Error> {
    let paid_now = invoices.values().filter_map(|invoice| {
        let is_paid = invoice.status == InvoiceStatus::Paid && invoice.out_of_band_cents == 0;
        let paid_at = invoice.paid_at.filter(|_| is_paid)?;
        Some((invoice.stripe_invoice_id.as_str(), paid_at))
    });
    let paid_before = stored.invoices_paid_at.iter();
    let invoices_paid_at: BTreeMap<&str, Timestamp> = paid_before
        .filter(|(id, _)| !invoices.contains_key(*id))
        .map(|(id, paid_at)| (id.as_str(), *paid_at))
        .chain(paid_now)
        .collect();
    for facts in mirror.payments(&invoices_paid_at) {
        decision.payments.extend(payment::derive(&facts, estimate)?);
    }
    for invoice in invoices.values() {
        decision.payments.extend(out_of_band(invoice));
    }
    let shown: BTreeSet<&str> = decision
        .payments
        .iter()
        .map(|payment| payment.payment_key.as_str())
        .collect();
    let stored_keys = stored
        .entries
        .iter()
        .map(|entry| entry.payment_key.as_str());
    // A charge without a known intent may turn out to have one.
    let joined = mirror
        .charges
        .values()
        .filter(|charge| charge.stripe_payment_intent_id.is_some())
        .map(|charge| charge.stripe_charge_id.as_str())
        .filter(|charge| {
            stored.charges.iter().any(|before| {
                before.stripe_charge_id == *charge && before.stripe_payment_intent_id.is_none()
            })
        });
    let obsolete: BTreeSet<&str> = stored_keys
        .chain(joined)
        .filter(|key| !shown.contains(key))
        .collect();
    decision.obsolete_payments = obsolete.into_iter().map(str::to_owned).collect();
    let derived: Vec<RevenueEntry> = decision
        .payments
        .iter()
        .flat_map(|payment| payment.entries.clone())
        .collect();
    decision.entries = entries::replacement(&stored.entries, &derived)?;
    Ok(())
}

fn out_of_band(invoice: &Invoice) -> Option<Payment> {
    if invoice.status != InvoiceStatus::Paid || invoice.out_of_band_cents <= 0 {
        return None;
    }
    Some(payment::out_of_band(
        &invoice.stripe_invoice_id,
        invoice.stripe_customer_id.as_deref(),
        invoice.out_of_band_cents,
        invoice.currency,
        invoice.paid_at?,
    ))
}
