//! The stored rows that the facts of one event may change, read under its locks in one flight.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures_util::try_join;
use jiff::Timestamp;
use tokio_postgres::GenericClient;

use super::Error;
use domain::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund};
use domain::revenue::entries::RevenueEntry;
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::catalog::{CouponSnapshot, DiscountSnapshot, PriceSnapshot};
use domain::stripe_objects::customer::CheckoutSession;
use domain::stripe_objects::invoice::{CreditNote, Invoice};
use domain::stripe_objects::snapshot::Snapshot;
use domain::stripe_objects::subscription::Subscription;
use store::catalog::Plans;
use store::customers::StoredCustomer;
use store::subscriptions::StoredSubscription;
use store::{
    self, catalog, checkout_sessions, customers, invoices, locks, payment_facts, subscriptions,
};
use stripe::reader::Facts;

/// The ids an event names: what to lock, and where to start reading.
#[derive(Debug, Default, Clone)]
pub(super) struct NamedIds {
    pub(super) customers: Vec<String>,
    pub(super) sessions: Vec<String>,
    pub(super) subscriptions: Vec<String>,
    pub(super) credit_notes: Vec<String>,
    pub(super) prices: Vec<String>,
    pub(super) coupons: Vec<String>,
    pub(super) discounts: Vec<String>,
    pub(super) payments: payment_facts::PaymentIds,
}

impl NamedIds {
    pub(super) fn of(facts: &Facts) -> NamedIds {
        let mut named = NamedIds::default();
        for customer in &facts.customers {
            named.customers.push(customer.stripe_customer_id.clone());
        }
        named.customers.extend(
            facts
                .user_links
                .iter()
                .map(|(customer, _)| customer.clone()),
        );
        for session in &facts.checkout_sessions {
            named
                .sessions
                .push(session.stripe_checkout_session_id.clone());
            named.customers.extend(session.stripe_customer_id.clone());
            named
                .subscriptions
                .extend(session.stripe_subscription_id.clone());
            named
                .payments
                .intents
                .extend(session.stripe_payment_intent_id.clone());
        }
        for subscription in &facts.subscriptions {
            named
                .subscriptions
                .push(subscription.stripe_subscription_id.clone());
            named
                .customers
                .push(subscription.stripe_customer_id.clone());
            named.catalog_of(subscription);
        }
        for invoice in &facts.invoices {
            named
                .payments
                .invoices
                .push(invoice.stripe_invoice_id.clone());
            named.customers.extend(invoice.stripe_customer_id.clone());
        }
        for note in &facts.credit_notes {
            named.credit_notes.push(note.stripe_credit_note_id.clone());
            named.payments.invoices.push(note.stripe_invoice_id.clone());
            named.customers.extend(note.stripe_customer_id.clone());
        }
        for intent in &facts.payment_intents {
            named
                .payments
                .intents
                .push(intent.stripe_payment_intent_id.clone());
            named
                .payments
                .charges
                .extend(intent.latest_charge_id.clone());
            named.customers.extend(intent.stripe_customer_id.clone());
        }
        for charge in &facts.charges {
            named.payments.charges.push(charge.stripe_charge_id.clone());
            named
                .payments
                .intents
                .extend(charge.stripe_payment_intent_id.clone());
            named.customers.extend(charge.stripe_customer_id.clone());
        }
        for refund in &facts.refunds {
            named.payments.refunds.push(refund.stripe_refund_id.clone());
            named
                .payments
                .charges
                .extend(refund.stripe_charge_id.clone());
            named
                .payments
                .intents
                .extend(refund.stripe_payment_intent_id.clone());
        }
        for dispute in &facts.disputes {
            named
                .payments
                .disputes
                .push(dispute.stripe_dispute_id.clone());
            named
                .payments
                .charges
                .extend(dispute.stripe_charge_id.clone());
            named
                .payments
                .intents
                .extend(dispute.stripe_payment_intent_id.clone());
        }
        for link in &facts.invoice_payments {
            named.payments.invoices.push(link.stripe_invoice_id.clone());
            named
                .payments
                .intents
                .extend(link.stripe_payment_intent_id.clone());
            named.payments.charges.extend(link.stripe_charge_id.clone());
            named.customers.extend(link.stripe_customer_id.clone());
        }
        named.prices.extend(facts.prices.iter().map(Snapshot::key));
        named
            .coupons
            .extend(facts.coupons.iter().map(Snapshot::key));
        for discount in &facts.discounts {
            named.discounts.push(discount.key());
            // What waits for the discount will wait for its coupon next; what waits for that coupon waits now.
            named.coupons.extend(discount.stripe_coupon_id.clone());
        }
        named.normalise();
        named
    }

    /// Adds the prices, coupons and discounts that a subscription names by id only.
    fn catalog_of(&mut self, subscription: &Subscription) {
        for item in &subscription.items {
            if !item.price.is_complete() {
                self.prices.push(item.price.stripe_price_id.clone());
            }
        }
        let discounts = subscription.items.iter().flat_map(|item| &item.discounts);
        for discount in discounts.chain(&subscription.discounts) {
            if discount.coupon.is_none() {
                self.discounts.extend(discount.stripe_discount_id.clone());
                self.coupons.extend(discount.stripe_coupon_id.clone());
            }
        }
    }

    fn normalise(&mut self) {
        for ids in [
            &mut self.customers,
            &mut self.sessions,
            &mut self.subscriptions,
            &mut self.credit_notes,
            &mut self.prices,
            &mut self.coupons,
            &mut self.discounts,
            &mut self.payments.intents,
            &mut self.payments.charges,
            &mut self.payments.refunds,
            &mut self.payments.disputes,
            &mut self.payments.invoices,
        ] {
            ids.sort_unstable();
            ids.dedup();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock_keys().is_empty()
    }

    /// The keys of everything whose rows are read and written. Sessions, refunds, disputes and credit notes are written
    /// under their own lock and, when it is named, the lock of the object they belong to.
    fn lock_keys(&self) -> Vec<String> {
        [
            &self.customers,
            &self.sessions,
            &self.subscriptions,
            &self.credit_notes,
            &self.prices,
            &self.coupons,
            &self.discounts,
            &self.payments.intents,
            &self.payments.charges,
            &self.payments.refunds,
            &self.payments.disputes,
            &self.payments.invoices,
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
    }
}

/// What is stored about the named ids and what they lead to.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    pub(super) locked: BTreeSet<String>,
    pub(super) customers: BTreeMap<String, StoredCustomer>,
    pub(super) sessions: Vec<CheckoutSession>,
    pub(super) subscriptions: BTreeMap<String, StoredSubscription>,
    pub(super) versions: Vec<SubscriptionVersion>,
    pub(super) plans: Plans,
    pub(super) invoices: Vec<Invoice>,
    pub(super) credit_notes: Vec<CreditNote>,
    pub(super) intents: Vec<PaymentIntent>,
    pub(super) charges: Vec<Charge>,
    pub(super) refunds: Vec<Refund>,
    pub(super) disputes: Vec<Dispute>,
    pub(super) invoice_payments: Vec<InvoicePayment>,
    /// When each invoice was paid with money, by invoice.
    pub(super) invoices_paid_at: BTreeMap<String, Timestamp>,
    pub(super) entries: Vec<RevenueEntry>,
    pub(super) prices: Vec<PriceSnapshot>,
    pub(super) coupons: Vec<CouponSnapshot>,
    pub(super) discounts: Vec<DiscountSnapshot>,
}

impl Neighbourhood {
    /// The first [`Neighbourhood::load`] of a transaction. Called before the writes that must be undone when the locks
    /// have to be taken again.
    pub(super) async fn load_first(
        db: &impl GenericClient,
        named: &NamedIds,
    ) -> Result<Neighbourhood, Error> {
        let begin = async { Ok(locks::begin(db).await?) };
        let (_, loaded) = try_join!(begin, Neighbourhood::load(db, named))?;
        Ok(loaded)
    }

    /// Loads more ids. Releases the held locks first, so that all are taken in one order.
    pub(super) async fn load_anew(
        db: &impl GenericClient,
        named: &NamedIds,
    ) -> Result<Neighbourhood, Error> {
        let release = async { Ok(locks::release(db).await?) };
        let (_, loaded) = try_join!(release, Neighbourhood::load(db, named))?;
        Ok(loaded)
    }

    /// Locks, then reads. The statements leave in one flight and run in this order, each seeing what was committed
    /// before it started: the locks are held when the first row is read.
    pub(super) async fn load(
        db: &impl GenericClient,
        named: &NamedIds,
    ) -> Result<Neighbourhood, Error> {
        if named.is_empty() {
            return Ok(Neighbourhood::default());
        }
        let lock_keys = named.lock_keys();
        let payments = &named.payments;
        let has_subscriptions = !named.subscriptions.is_empty();
        let has_payments = !payments.intents.is_empty()
            || !payments.charges.is_empty()
            || !payments.refunds.is_empty()
            || !payments.disputes.is_empty()
            || !payments.invoices.is_empty();
        let (
            locked,
            customers,
            sessions,
            subscriptions,
            versions,
            plans,
            invoices,
            credit_notes,
            intents,
            charges,
            refunds,
            disputes,
            invoice_payments,
            invoices_paid_at,
            entries,
            prices,
            coupons,
            discounts,
        ) = try_join!(
            locks::take(db, &lock_keys),
            when(
                !named.customers.is_empty(),
                customers::get(db, &named.customers)
            ),
            when(
                has_subscriptions || !named.sessions.is_empty(),
                checkout_sessions::get(
                    db,
                    &named.sessions,
                    &named.subscriptions,
                    &payments.intents
                )
            ),
            when(
                has_subscriptions,
                subscriptions::get(db, &named.subscriptions)
            ),
            when(
                has_subscriptions,
                subscriptions::versions(db, &named.customers, &named.subscriptions)
            ),
            when(has_subscriptions, catalog::plans(db)),
            when(
                !payments.invoices.is_empty(),
                invoices::get(db, &payments.invoices)
            ),
            when(
                !payments.invoices.is_empty(),
                invoices::credit_notes(db, &named.credit_notes, &payments.invoices)
            ),
            when(has_payments, payment_facts::intents(db, payments)),
            when(has_payments, payment_facts::charges(db, payments)),
            when(has_payments, payment_facts::refunds(db, payments)),
            when(has_payments, payment_facts::disputes(db, payments)),
            when(has_payments, payment_facts::invoice_payments(db, payments)),
            when(has_payments, payment_facts::invoices_paid_at(db, payments)),
            when(has_payments, payment_facts::entries(db, payments)),
            when(!named.prices.is_empty(), catalog::prices(db, &named.prices)),
            when(
                !named.coupons.is_empty() || !named.discounts.is_empty(),
                catalog::coupons(db, &named.coupons, &named.discounts)
            ),
            when(
                !named.discounts.is_empty(),
                catalog::discounts(db, &named.discounts)
            ),
        )?;
        Ok(Neighbourhood {
            locked,
            customers: customers
                .into_iter()
                .map(|stored| (stored.customer.stripe_customer_id.clone(), stored))
                .collect(),
            sessions,
            subscriptions: subscriptions
                .into_iter()
                .map(|stored| (stored.stripe_subscription_id.clone(), stored))
                .collect(),
            versions,
            plans,
            invoices,
            credit_notes,
            intents,
            charges,
            refunds,
            disputes,
            invoice_payments,
            invoices_paid_at,
            entries,
            prices,
            coupons,
            discounts,
        })
    }

    /// `named` with the customers and payments that the load reached beyond the locks; `None` when there are none. A
    /// payment is locked by its intent, or by its charge when it has no intent.
    pub(super) fn beyond_locks(&self, named: &NamedIds) -> Option<NamedIds> {
        let mut wider = named.clone();
        let payments = &mut wider.payments;
        for intent in &self.intents {
            wider.customers.extend(intent.stripe_customer_id.clone());
            payments
                .intents
                .push(intent.stripe_payment_intent_id.clone());
        }
        for charge in &self.charges {
            wider.customers.extend(charge.stripe_customer_id.clone());
            match &charge.stripe_payment_intent_id {
                Some(intent) => payments.intents.push(intent.clone()),
                None => payments.charges.push(charge.stripe_charge_id.clone()),
            }
        }
        for link in &self.invoice_payments {
            match &link.stripe_payment_intent_id {
                Some(intent) => payments.intents.push(intent.clone()),
                None => payments.charges.extend(link.stripe_charge_id.clone()),
            }
        }
        // A discount names its coupon: what waits for that coupon waits now.
        let coupons = self.discounts.iter().map(|known| &known.stripe_coupon_id);
        wider.coupons.extend(coupons.flatten().cloned());
        wider.normalise();
        let reached = [
            &wider.customers,
            &wider.coupons,
            &wider.payments.intents,
            &wider.payments.charges,
        ];
        let all_locked = reached
            .into_iter()
            .flatten()
            .all(|key| self.locked.contains(key));
        // A charge leads to the intent that names it only when the charge itself is named.
        let all_named = self
            .invoice_payments
            .iter()
            .filter(|link| link.stripe_payment_intent_id.is_none())
            .filter_map(|link| link.stripe_charge_id.as_ref())
            .all(|charge| named.payments.charges.contains(charge));
        if all_locked && all_named {
            None
        } else {
            Some(wider)
        }
    }
}

/// Adds fetched balance transactions to their charges, as if the charges had carried them.
pub(super) async fn attach_settlements(
    db: &impl GenericClient,
    facts: &mut Facts,
    named: &mut NamedIds,
) -> Result<(), Error> {
    let ids: Vec<String> = facts.settlements.iter().map(|(id, _)| id.clone()).collect();
    named
        .payments
        .charges
        .extend(payment_facts::charges_of_balance_transactions(db, &ids).await?);
    named.normalise();
    let stored = payment_facts::charges(db, &named.payments).await?;
    for (id, settlement) in &facts.settlements {
        for charge in &stored {
            if charge.stripe_balance_transaction_id.as_ref() == Some(id) {
                let mut charge = charge.clone();
                charge.settlement = Some(settlement.clone());
                facts.charges.push(charge);
            }
        }
    }
    facts.settlements.clear();
    *named = NamedIds::of(facts);
    Ok(())
}

/// Runs the statement if it is needed; otherwise returns an empty result.
async fn when<T: Default>(
    is_needed: bool,
    statement: impl Future<Output = Result<T, store::Error>>,
) -> Result<T, store::Error> {
    if is_needed {
        statement.await
    } else {
        Ok(T::default())
    }
}
