//! The stored rows that the facts of one event may change, read under its locks in one flight.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures_util::try_join;
use jiff::Timestamp;
use tokio_postgres::GenericClient;

use super::Error;
use domain::revenue::entries::RevenueEntry;
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::objects::{Ids, Keep, Kind, Objects};
use domain::stripe_objects::snapshot::Snapshot;
use store::catalog::Plans;
use store::{
    self, catalog, checkout_sessions, customers, invoices, locks, payment_facts, subscriptions,
};

/// What is stored about the named ids and what they lead to.
#[derive(Debug, Default)]
pub(super) struct LedgerState {
    pub(super) locked: BTreeSet<String>,
    pub(super) objects: Objects,
    /// The user that each stored customer resolves to at present.
    pub(super) users: BTreeMap<String, Option<i32>>,
    pub(super) versions: Vec<SubscriptionVersion>,
    pub(super) plans: Plans,
    /// When each invoice was paid with money, by invoice.
    pub(super) invoices_paid_at: BTreeMap<String, Timestamp>,
    pub(super) entries: Vec<RevenueEntry>,
}

impl LedgerState {
    /// The first [`LedgerState::load`] of a transaction. Called before the writes that must be undone when the locks
    /// have to be taken again.
    pub(super) async fn load_first(
        db: &impl GenericClient,
        named: &Ids,
    ) -> Result<LedgerState, Error> {
        let begin = async { Ok(locks::begin(db).await?) };
        let (_, loaded) = try_join!(begin, LedgerState::load(db, named))?;
        Ok(loaded)
    }

    /// Loads more ids. Releases the held locks first, so that all are taken in one order.
    pub(super) async fn load_anew(
        db: &impl GenericClient,
        named: &Ids,
    ) -> Result<LedgerState, Error> {
        let release = async { Ok(locks::release(db).await?) };
        let (_, loaded) = try_join!(release, LedgerState::load(db, named))?;
        Ok(loaded)
    }

    /// Locks, then reads. The statements leave in one flight and run in this order, each seeing what was committed
    /// before it started: the locks are held when the first row is read.
    pub(super) async fn load(db: &impl GenericClient, named: &Ids) -> Result<LedgerState, Error> {
        if named.is_empty() {
            return Ok(LedgerState::default());
        }
        let lock_keys = named.lock_keys();
        let has_subscriptions = !named.subscriptions.is_empty();
        let has_payments = !named.payment_intents.is_empty()
            || !named.charges.is_empty()
            || !named.refunds.is_empty()
            || !named.disputes.is_empty()
            || !named.invoices.is_empty();
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
                has_subscriptions || !named.checkout_sessions.is_empty(),
                checkout_sessions::get(
                    db,
                    &named.checkout_sessions,
                    &named.subscriptions,
                    &named.payment_intents
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
                !named.invoices.is_empty(),
                invoices::get(db, &named.invoices)
            ),
            when(
                !named.invoices.is_empty(),
                invoices::credit_notes(db, &named.credit_notes, &named.invoices)
            ),
            when(has_payments, payment_facts::intents(db, named)),
            when(has_payments, payment_facts::charges(db, named)),
            when(has_payments, payment_facts::refunds(db, named)),
            when(has_payments, payment_facts::disputes(db, named)),
            when(has_payments, payment_facts::invoice_payments(db, named)),
            when(has_payments, payment_facts::invoices_paid_at(db, named)),
            when(has_payments, payment_facts::entries(db, named)),
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
        let mut users = BTreeMap::new();
        let customers = customers.into_iter().map(|stored| {
            let customer = stored.customer;
            users.insert(customer.stripe_customer_id.clone(), stored.user_id);
            customer
        });
        let objects = Objects {
            customers: by_key(customers),
            checkout_sessions: by_key(sessions),
            subscriptions: by_key(subscriptions.into_iter().filter_map(|row| row.snapshot)),
            invoices: by_key(invoices),
            credit_notes: by_key(credit_notes),
            payment_intents: by_key(intents),
            charges: by_key(charges),
            refunds: by_key(refunds),
            disputes: by_key(disputes),
            invoice_payments: by_key(invoice_payments),
            prices: by_key(prices),
            coupons: by_key(coupons),
            discounts: by_key(discounts),
            settlements: BTreeMap::new(),
        };
        Ok(LedgerState {
            locked,
            objects,
            users,
            versions,
            plans,
            invoices_paid_at,
            entries,
        })
    }

    /// `named` with the customers and payments that the load reached beyond the locks; `None` when there are none. A
    /// payment is locked by its intent, or by its charge when it has no intent.
    pub(super) fn beyond_locks(&self, named: &Ids) -> Option<Ids> {
        let mut wider = named.clone();
        for intent in self.objects.payment_intents.values() {
            wider.customers.extend(intent.stripe_customer_id.clone());
            wider
                .payment_intents
                .push(intent.stripe_payment_intent_id.clone());
        }
        for charge in self.objects.charges.values() {
            wider.customers.extend(charge.stripe_customer_id.clone());
            match &charge.stripe_payment_intent_id {
                Some(intent) => wider.payment_intents.push(intent.clone()),
                None => wider.charges.push(charge.stripe_charge_id.clone()),
            }
        }
        for link in self.objects.invoice_payments.values() {
            match &link.stripe_payment_intent_id {
                Some(intent) => wider.payment_intents.push(intent.clone()),
                None => wider.charges.extend(link.stripe_charge_id.clone()),
            }
        }
        // A discount names its coupon: what waits for that coupon waits now.
        let discounts = self.objects.discounts.values();
        wider
            .coupons
            .extend(discounts.filter_map(|known| known.stripe_coupon_id.clone()));
        wider.normalise();
        let reached = [
            &wider.customers,
            &wider.coupons,
            &wider.payment_intents,
            &wider.charges,
        ];
        let all_locked = reached
            .into_iter()
            .flatten()
            .all(|key| self.locked.contains(key));
        // A charge leads to the intent that names it only when the charge itself is named.
        let all_named = self
            .objects
            .invoice_payments
            .values()
            .filter(|link| link.stripe_payment_intent_id.is_none())
            .filter_map(|link| link.stripe_charge_id.as_ref())
            .all(|charge| named.charges.contains(charge));
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
    facts: &mut Objects,
) -> Result<(), Error> {
    let settlements = std::mem::take(&mut facts.settlements);
    let ids: Vec<String> = settlements.keys().cloned().collect();
    let mut named = facts.ids();
    named
        .charges
        .extend(payment_facts::charges_of_balance_transactions(db, &ids).await?);
    for mut charge in payment_facts::charges(db, &named).await? {
        let id = charge.stripe_balance_transaction_id.as_ref();
        if let Some(settlement) = id.and_then(|id| settlements.get(id)) {
            charge.settlement = Some(settlement.clone());
            facts.charges.keep(charge);
        }
    }
    Ok(())
}

/// Rows by the key of their object.
pub(super) fn by_key<T: Snapshot>(rows: impl IntoIterator<Item = T>) -> Kind<T> {
    rows.into_iter().map(|row| (row.key(), row)).collect()
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
