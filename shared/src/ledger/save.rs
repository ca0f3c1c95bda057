//! Writes what was decided, and then what only its rows can say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::json;

use super::Error;
use super::decision::{self, Catalog, LedgerChanges, computed, version};
use super::flight::Scope;
use super::parts;
use super::same_second::Seconds;
use super::state::Found;
use domain::money::Currency;
use domain::payment::FeeEstimate;
use domain::revenue::entries::DailyDelta;
use domain::revenue::movement::{self, SubscriptionVersion};
use domain::stripe_objects::invoice::InvoiceStatus;
use domain::stripe_objects::objects::{Ids, Objects};
use domain::stripe_objects::partial::Lookup;
use domain::stripe_objects::snapshot::Snapshot;
use domain::stripe_objects::subscription::Subscription;
use store::fetched_objects::{self, FetchedObject};
use store::ledger::{self, Opening, Partial, State, Subject, Writes};
use store::outbox::Message;
use store::{self, stripe_events, subscriptions};
use stripe::event::Event;
use stripe::reader;
use tokio_postgres::GenericClient;

impl Found<'_> {
    /// Decides what the facts change, writes it and returns the messages that were new. Of `fetched` is kept what waits
    /// for its terms; `deferred` are look-ups of thin events.
    pub(super) async fn apply(
        self,
        fetched: &[FetchedObject],
        deferred: BTreeMap<Subject, Vec<Lookup>>,
        estimate: FeeEstimate,
        now: Timestamp,
    ) -> Result<Vec<Message>, Error> {
        let Found {
            scope,
            said,
            opened,
        } = self;
        let state = opened.state;
        if said.iter().all(|one| one.facts.ids().is_empty()) {
            let mut writes = Writes::default();
            writes.lookups(&deferred)?;
            return Ok(scope.close(&writes, now).await?);
        }
        let others = opened.others_of_second;
        let seconds = Seconds::read(scope.client(), others, &said, &state).await?;
        let mut changes = decision::decide(said, &seconds, &state, estimate, false)?;
        changes.lookups.extend(deferred);
        let mut writes = writes(&changes)?;
        writes.fetched(fetched)?;
        save(scope, &changes, &writes, now).await
    }

    /// Decides and writes what the events mean that were applied before, announces nothing and returns the change of each
    /// day.
    pub(super) async fn read_again(
        self,
        estimate: FeeEstimate,
        now: Timestamp,
    ) -> Result<BTreeMap<(Date, Currency), DailyDelta>, Error> {
        let Found {
            scope,
            said,
            opened,
        } = self;
        let state = opened.state;
        let seconds = Seconds::read(scope.client(), Vec::new(), &said, &state).await?;
        let mut changes = decision::decide(said, &seconds, &state, estimate, true)?;
        changes.messages.clear();
        let writes = writes(&changes)?;
        save(scope, &changes, &writes, now).await?;
        Ok(changes.entries.daily)
    }
}

async fn save(
    scope: Scope<'_>,
    changes: &LedgerChanges,
    writes: &Writes,
    now: Timestamp,
) -> Result<Vec<Message>, Error> {
    if changes.learned.is_empty() && changes.former_customers.is_empty() {
        return Ok(scope.close(writes, now).await?);
    }
    let messages = write_all(scope.client(), changes, writes, now).await?;
    scope.close(&Writes::default(), now).await?;
    Ok(messages)
}

/// Writes the changes, and the histories that follow from them without being theirs.
async fn write_all(
    db: &impl GenericClient,
    changes: &LedgerChanges,
    writes: &Writes,
    now: Timestamp,
) -> Result<Vec<Message>, Error> {
    let messages = ledger::close(db, writes, now).await?;
    if !changes.learned.is_empty() {
        reprice(db, &changes.learned, now).await?;
    }
    let versions = changes.versions.iter();
    let moved: Vec<String> = versions
        .map(|one| one.stripe_subscription_id.clone())
        .collect();
    let mut movements = BTreeMap::new();
    for former in &changes.former_customers {
        let named = Ids {
            customers: vec![former.clone()],
            subscriptions: moved.clone(),
            ..Ids::default()
        };
        let mut versions = ledger::read(db, &named).await?.versions;
        versions.retain(|version| version.stripe_customer_id == *former);
        movements.insert(former.clone(), movement::movements(&versions)?);
    }
    let mut writes = Writes::default();
    writes.movements(&movements)?;
    if !writes.is_empty() {
        ledger::close(db, &writes, now).await?;
    }
    Ok(messages)
}

fn writes(changes: &LedgerChanges) -> Result<Writes, Error> {
    let (objects, partial) = (&changes.objects, &changes.partial);
    let mut writes = Writes::default();
    writes.objects(objects.customers.values(), partial)?;
    writes.objects(objects.checkout_sessions.values(), partial)?;
    writes.objects(objects.prices.values(), partial)?;
    writes.objects(objects.coupons.values(), partial)?;
    writes.objects(objects.discounts.values(), partial)?;
    let named = changes.named_by_session.iter().map(|(id, session)| {
        json!({
            "stripe_subscription_id": id,
            "stripe_customer_id": session.stripe_customer_id,
            "plan_name": session.paid_plan().unwrap_or("unknown"),
            "created_at": session.created_at,
        })
    });
    writes.list("named_by_session", named)?;
    let computed = |(id, subscription)| Some((subscription, changes.computed.get(id)?));
    writes.subscriptions(objects.subscriptions.iter().filter_map(computed), partial)?;
    writes.objects(objects.credit_notes.values(), partial)?;
    let collected = objects.invoices.values().filter_map(|invoice| {
        Some(json!({
            "id": invoice.collects()?,
            "stripe_invoice_id": invoice.stripe_invoice_id,
            "stripe_customer_id": invoice.stripe_customer_id,
        }))
    });
    writes.list("collected", collected)?;
    let figures = |(id, invoice)| {
        let (due, outside) = *changes.invoice_figures.get(id)?;
        Some((invoice, due, outside))
    };
    writes.invoices(objects.invoices.iter().filter_map(figures), partial)?;
    let void = objects.invoices.values();
    let void = void.filter(|invoice| invoice.status == InvoiceStatus::Void);
    writes.list(
        "void_invoices",
        void.map(|invoice| &invoice.stripe_invoice_id),
    )?;
    writes.objects(objects.payment_intents.values(), partial)?;
    writes.objects(objects.charges.values(), partial)?;
    writes.objects(objects.refunds.values(), partial)?;
    writes.objects(objects.disputes.values(), partial)?;
    writes.objects(objects.invoice_payments.values(), partial)?;
    writes.objects(objects.balance_transactions.values(), partial)?;
    writes.objects(objects.payouts.values(), partial)?;
    writes.objects(objects.tax_rates.values(), partial)?;
    writes.list("obsolete_payments", &changes.obsolete_payments)?;
    writes.derived(&changes.payments)?;
    writes.list("invoices_of_payments", objects.invoices.keys())?;
    writes.store_credits(&changes.store_credits)?;
    writes.list("revoked_credits", &changes.revoked_credits)?;
    writes.lookups(&changes.lookups)?;
    writes.list("known_tax_rates", objects.tax_rates.keys())?;
    let users = &changes.users;
    writes.list("relinked_customers", &users.relinked_customers)?;
    writes.list("claimed_users", &users.claimed)?;
    let plan = |(user, plan): &(i32, String)| json!({"user_id": user, "plan": plan});
    writes.list("plans_set", users.plans_set.iter().map(plan))?;
    writes.list("plans_restored", &users.plans_restored)?;
    writes.messages(&changes.messages)?;
    writes.derived(&changes.versions)?;
    writes.movements(&changes.movements)?;
    writes.entries(&changes.entries)?;
    writes.balance_daily(&changes.balance_daily)?;
    Ok(writes)
}

/// Recomputes what waited for these prices, coupons and discounts: the whole history of each customer concerned, from
/// the archived events.
async fn reprice(db: &impl GenericClient, learned: &[String], now: Timestamp) -> Result<(), Error> {
    for (customer, subscriptions) in subscriptions::waiting_customers(db, learned).await? {
        let opening = Opening {
            named: Ids {
                customers: vec![customer.clone()],
                subscriptions,
                ..Ids::default()
            },
            ..Opening::default()
        };
        let Some(opened) = ledger::open(db, &opening, now).await? else {
            continue;
        };
        let state = opened.state;
        let versions = &state.versions;
        let waiting: Vec<String> = versions
            .iter()
            .filter(|version| !version.waits_for.is_empty())
            .map(|version| version.source_event_id.clone())
            .collect();
        let mut repriced = versions.clone();
        let mut shown = state.objects.subscriptions.clone();
        for facts in archived(db, &waiting).await? {
            let of_event = reprice_event(db, &facts).await?;
            shown.extend(of_event.shown);
            for version in of_event.versions {
                for stored in &mut repriced {
                    if stored.is_of_the_same_snapshot(&version) {
                        let overruled = stored.overruled;
                        *stored = version.clone();
                        stored.overruled = overruled;
                    }
                }
            }
        }
        movement::choose_beginnings(&mut repriced.iter_mut().collect::<Vec<_>>());
        movement::complete_cut_lists(&mut repriced.iter_mut().collect::<Vec<_>>());
        let changed = versions.iter().zip(&repriced);
        let changed = changed.filter(|(before, after)| before != after);
        let changed: Vec<&SubscriptionVersion> = changed.map(|(_, after)| after).collect();
        let mut writes = Writes::default();
        let mut rows = BTreeMap::new();
        let mut partial = Partial::new();
        let mut lookups = BTreeMap::new();
        shown.retain(|_, one| one.stripe_customer_id == customer);
        for (id, subscription) in &shown {
            let sessions = state.objects.checkout_sessions.values();
            let computed = computed(subscription, sessions, repriced.iter(), &state.plans)?;
            let mut wanted = parts::of_subscription(subscription, repriced.iter(), &computed);
            if parts::is_undecided(id, &state.partial) {
                wanted.extend(parts::second_look(id, &state.objects));
            }
            partial.insert(id.clone(), parts::reasons(&wanted));
            lookups.extend(parts::subject(id, &state.objects).map(|subject| (subject, wanted)));
            rows.insert(id, (subscription, computed));
        }
        let rows = rows.values();
        writes.subscriptions(rows.map(|(one, computed)| (*one, computed)), &partial)?;
        writes.derived(changed)?;
        writes.list("repriced", &waiting)?;
        writes.lookups(&lookups)?;
        writes.movements(&BTreeMap::from([(
            customer,
            movement::movements(&repriced)?,
        )]))?;
        ledger::close(db, &writes, now).await?;
    }
    Ok(())
}

/// The facts of the archived events and fetched objects behind these versions.
async fn archived(db: &impl GenericClient, waiting: &[String]) -> Result<Vec<Objects>, Error> {
    let payloads = stripe_events::payloads(db, waiting).await?;
    let fetched = fetched_objects::get(db, waiting).await?;
    let mut facts = Vec::new();
    for payload in payloads {
        facts.push(reader::read(&Event::from_value(payload)?)?);
    }
    for object in fetched {
        facts.push(reader::read_fetched(&object.payload, object.fetched_at)?);
    }
    Ok(facts)
}

#[derive(Default)]
struct Repriced {
    versions: Vec<SubscriptionVersion>,
    /// Those whose rows show this event, with the terms known now.
    shown: Vec<(String, Subscription)>,
}

/// What one archived event says with what is known now.
async fn reprice_event(db: &impl GenericClient, facts: &Objects) -> Result<Repriced, Error> {
    let stored: State = ledger::read(db, &facts.ids()).await?;
    let mut subscriptions = facts.subscriptions.clone();
    Catalog::of(std::iter::once(facts), &stored).complete(subscriptions.values_mut());
    let mut repriced = Repriced::default();
    for (id, mut completed) in subscriptions {
        if !completed.is_without_items() {
            repriced.versions.push(version(&completed, &stored.plans)?);
            if let Some(begun) = completed.begun() {
                repriced.versions.push(version(&begun, &stored.plans)?);
            }
        }
        if let Some(shown) = stored.objects.subscriptions.get(&id)
            && shown.version() == completed.version()
        {
            completed.absorb(shown);
            repriced.shown.push((id, completed));
        }
    }
    Ok(repriced)
}
