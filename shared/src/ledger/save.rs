//! Writes a changes: everything in one flight, then what depends on what was written.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use futures_util::future::try_join_all;
use futures_util::try_join;
use jiff::Timestamp;
use tokio_postgres::Transaction;

use super::Error;
use super::decision::{Catalog, LedgerChanges, computed, missing_terms, version};
use super::state::LedgerState;
use domain::revenue::entries::Replacement;
use domain::revenue::movement::{self, SubscriptionVersion};
use domain::stripe_objects::invoice::InvoiceStatus;
use domain::stripe_objects::objects::Objects;
use domain::stripe_objects::snapshot::Snapshot;
use domain::stripe_objects::subscription::{Subscription, user_plan};
use store::{
    self, credits, customers, fetched_objects, invoices, locks, mirror, mrr_movements, outbox,
    partner_invoices, payment_history, stripe_events, stripe_lookups, subscriptions,
};
use stripe::event::Event;
use stripe::reader;

/// A statement that is about to be sent.
type Write<'a> = Pin<Box<dyn Future<Output = Result<(), store::Error>> + Send + 'a>>;

/// The statements of one flight are answered before the next flight leaves. With more than this number the executor
/// does not promise to send them in order.
const FLIGHT: usize = 30;

/// Writes the changes and returns the messages that were new.
pub(super) async fn save(
    db: &Transaction<'_>,
    changes: &LedgerChanges,
    now: Timestamp,
) -> Result<Vec<outbox::Message>, Error> {
    let mut writes = writes(db, changes, now);
    while writes.len() > FLIGHT {
        let later = writes.split_off(FLIGHT);
        try_join_all(writes).await?;
        writes = later;
    }
    let (_, messages) = try_join!(
        try_join_all(writes),
        outbox::insert_all(db, &changes.messages, now)
    )?;
    if !changes.learned.is_empty() {
        reprice(db, &changes.learned, now).await?;
    }
    for former in &changes.former_customers {
        let versions = subscriptions::versions(db, std::slice::from_ref(former), &[]).await?;
        mrr_movements::replace(db, former, &movement::movements(&versions)?).await?;
    }
    for customer in &changes.affected_customers {
        decide_plan_of_user(db, customer, changes.former_users.get(customer).copied()).await?;
    }
    Ok(messages)
}

/// The writes, in the order of who reads whom: customers, then what names them, then payments, which read invoices and
/// sessions.
fn writes<'a>(
    db: &'a Transaction<'_>,
    changes: &'a LedgerChanges,
    now: Timestamp,
) -> Vec<Write<'a>> {
    let mut writes: Vec<Write<'a>> = Vec::new();
    let objects = &changes.objects;
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.customers.values(),
        now,
    )));
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.checkout_sessions.values(),
        now,
    )));
    writes.push(Box::pin(mirror::upsert(db, objects.prices.values(), now)));
    writes.push(Box::pin(mirror::upsert(db, objects.coupons.values(), now)));
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.discounts.values(),
        now,
    )));
    for (id, session) in &changes.named_by_session {
        writes.push(Box::pin(subscriptions::upsert_named_by_session(
            db, id, session, now,
        )));
    }
    let computed = |(id, subscription)| Some((subscription, changes.computed.get(id)?));
    let subscriptions = objects.subscriptions.iter().filter_map(computed);
    writes.push(Box::pin(subscriptions::upsert(db, subscriptions, now)));
    writes.push(Box::pin(mirror::upsert(db, &changes.versions, now)));
    for (customer, movements) in &changes.movements {
        writes.push(Box::pin(mrr_movements::replace(db, customer, movements)));
    }
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.credit_notes.values(),
        now,
    )));
    // An invoice of ours, announced before the run that handed it to Stripe has stored the link.
    let collected = objects.invoices.values();
    for (invoice, id) in collected.filter_map(|invoice| Some((invoice, invoice.collects()?))) {
        let (stripe_id, customer) = (&invoice.stripe_invoice_id, &invoice.stripe_customer_id);
        let customer = customer.as_deref();
        let linked = partner_invoices::link_stripe(db, id, stripe_id, customer);
        writes.push(Box::pin(linked));
    }
    let due = |(id, invoice)| Some((invoice, *changes.amounts_due.get(id)?));
    let invoices = objects.invoices.iter().filter_map(due);
    writes.push(Box::pin(invoices::upsert(db, invoices, now)));
    for (id, invoice) in &objects.invoices {
        if invoice.status == InvoiceStatus::Void {
            writes.push(Box::pin(credits::give_back_void(db, id)));
        }
    }
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.payment_intents.values(),
        now,
    )));
    writes.push(Box::pin(mirror::upsert(db, objects.charges.values(), now)));
    writes.push(Box::pin(mirror::upsert(db, objects.refunds.values(), now)));
    writes.push(Box::pin(mirror::upsert(db, objects.disputes.values(), now)));
    writes.push(Box::pin(mirror::upsert(
        db,
        objects.invoice_payments.values(),
        now,
    )));
    if !changes.obsolete_payments.is_empty() {
        writes.push(Box::pin(payment_history::delete(
            db,
            &changes.obsolete_payments,
        )));
    }
    for payment in &changes.payments {
        writes.push(Box::pin(payment_history::upsert(db, payment, now)));
    }
    for id in objects.invoices.keys() {
        writes.push(Box::pin(payment_history::link_invoice(db, id)));
    }
    if changes.entries != Replacement::default() {
        writes.push(Box::pin(payment_history::replace_entries(
            db,
            &changes.entries,
        )));
    }
    for refund in &changes.store_credits {
        writes.push(Box::pin(credits::upsert_for_refund(db, refund)));
    }
    if !changes.revoked_credits.is_empty() {
        writes.push(Box::pin(credits::delete_unused(
            db,
            &changes.revoked_credits,
        )));
    }
    if !changes.looked_up.is_empty() || !changes.lookups.is_empty() {
        writes.push(Box::pin(stripe_lookups::replace(
            db,
            &changes.looked_up,
            &changes.lookups,
        )));
    }
    writes
}

/// Copies a customer's user to the rows that name the customer, and decides the user's plan.
async fn decide_plan_of_user(
    db: &Transaction<'_>,
    stripe_customer_id: &str,
    former_user: Option<i32>,
) -> Result<(), Error> {
    let (_, user_id) = try_join!(
        customers::spread_user(db, stripe_customer_id),
        customers::user_of(db, stripe_customer_id),
    )?;
    let users: BTreeSet<i32> = user_id.into_iter().chain(former_user).collect();
    for user in users {
        let (_, _, entitlements) = try_join!(
            locks::take_user(db, user),
            customers::fill_user(db, user),
            subscriptions::entitlements(db, user),
        )?;
        match user_plan(&entitlements) {
            Some(plan) => customers::set_user_plan(db, user, &plan).await?,
            None => customers::restore_user_plan(db, user).await?,
        }
    }
    Ok(())
}

/// Recomputes what waited for these prices, coupons and discounts: the whole history of each customer concerned, from
/// the archived events.
async fn reprice(db: &Transaction<'_>, learned: &[String], now: Timestamp) -> Result<(), Error> {
    for customer in subscriptions::waiting_customers(db, learned).await? {
        let customers = [customer];
        let (_, versions) = try_join!(
            locks::take(db, &customers),
            subscriptions::versions(db, &customers, &[])
        )?;
        let waiting: Vec<String> = versions
            .iter()
            .filter(|version| !version.waits_for.is_empty())
            .map(|version| version.source_event_id.clone())
            .collect();
        let mut repriced = versions.clone();
        let mut lookups = Vec::new();
        let mut unknown = BTreeSet::new();
        for facts in archived(db, &waiting).await? {
            let (of_event, subscriptions) = reprice_event(db, &facts, now).await?;
            for subscription in &subscriptions {
                lookups.extend(missing_terms(subscription));
                if subscription.unknown_discounts().next().is_some() {
                    unknown.insert(subscription.stripe_subscription_id.clone());
                }
            }
            for version in of_event {
                for stored in &mut repriced {
                    if stored.stripe_subscription_id == version.stripe_subscription_id
                        && stored.source_event_id == version.source_event_id
                    {
                        let overruled = stored.overruled;
                        *stored = version.clone();
                        stored.overruled = overruled;
                    }
                }
            }
        }
        movement::choose_beginnings(&mut repriced.iter_mut().collect::<Vec<_>>());
        for (before, after) in versions.iter().zip(&repriced) {
            if before != after {
                mirror::upsert(db, [after], now).await?;
            }
        }
        fetched_objects::delete_complete(db, &waiting).await?;
        let answered: Vec<(&'static str, String)> = repriced
            .iter()
            .map(|version| &version.stripe_subscription_id)
            .filter(|id| !unknown.contains(*id))
            .map(|id| ("subscription_discounts", id.clone()))
            .collect();
        stripe_lookups::replace(db, &answered, &lookups).await?;
        let [customer] = customers;
        mrr_movements::replace(db, &customer, &movement::movements(&repriced)?).await?;
    }
    Ok(())
}

/// The facts of the archived events and fetched objects behind these versions.
async fn archived(db: &Transaction<'_>, waiting: &[String]) -> Result<Vec<Objects>, Error> {
    let (payloads, fetched) = try_join!(
        stripe_events::payloads(db, waiting),
        fetched_objects::get(db, waiting)
    )?;
    let mut facts = Vec::new();
    for payload in payloads {
        facts.push(reader::read(&Event::from_value(payload)?)?);
    }
    for object in fetched {
        facts.push(reader::read_fetched(&object.payload, object.fetched_at)?);
    }
    Ok(facts)
}

/// The versions that one archived event makes with what is known now, and what it shows. Writes the shown row if it shows
/// this event.
async fn reprice_event(
    db: &Transaction<'_>,
    facts: &Objects,
    now: Timestamp,
) -> Result<(Vec<SubscriptionVersion>, Vec<Subscription>), Error> {
    let stored = LedgerState::load(db, &facts.ids()).await?;
    let mut subscriptions = facts.subscriptions.clone();
    Catalog::of(facts, &stored).complete(subscriptions.values_mut());
    let subscriptions: Vec<Subscription> = subscriptions.into_values().collect();
    let mut versions = Vec::new();
    for mut completed in subscriptions.iter().cloned() {
        versions.push(version(&completed, &stored.plans)?);
        if let Some(begun) = completed.begun() {
            versions.push(version(&begun, &stored.plans)?);
        }
        let id = &completed.stripe_subscription_id;
        let Some(shown) = stored.objects.subscriptions.get(id) else {
            continue;
        };
        if shown.version() != completed.version() {
            continue;
        }
        completed.absorb(shown);
        let sessions = stored.objects.checkout_sessions.values();
        let history = stored.versions.iter();
        let computed = computed(&completed, sessions, history, &stored.plans)?;
        subscriptions::upsert(db, [(&completed, &computed)], now).await?;
    }
    Ok((versions, subscriptions))
}
