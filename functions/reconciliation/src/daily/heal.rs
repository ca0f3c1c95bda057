//! What differs put right: first by the events that never arrived, which know when each thing happened, then by the
//! objects themselves.

use std::collections::BTreeSet;

use domain::reconciliation::{Kind, ObjectType};
use runtime::telemetry::log_failure;
use serde_json::{Map, Value, json};
use shared::ledger::{self, Outcome};
use store::reconciliation_runs::{self, OpenItem};
use store::stripe_events;
use stripe::client;
use stripe::event::Event;
use tokio_postgres::Client;

use crate::missed_webhooks;

use super::subject::Subject;
use super::walk::{PAGES, page};
use super::{Run, Stop};

/// Items read at once.
const ITEMS: i64 = 100;
/// Items one after the other that Stripe does not answer for, before the others are left to the next run.
const UNANSWERED_IN_A_ROW: u32 = 3;

/// Objects created before the window that are looked at because of an event in it.
struct OlderObjects {
    seen: BTreeSet<(Subject, String)>,
    /// False after the first that could not be looked at: the events are applied all the same.
    is_looking: bool,
}

impl Run<'_> {
    pub(super) async fn heal(&mut self) -> Result<(), store::Error> {
        let caught_up = self.catch_up().await;
        self.note("events", caught_up)?;
        let healed = self.heal_items().await;
        self.note("healing", healed)
    }

    /// Looks at the older objects that events of the window name which are not in the inbox, and applies these events. In
    /// which order does not matter.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let app = self.app;
        self.tally.examined = 0;
        let mut older = OlderObjects {
            seen: BTreeSet::new(),
            is_looking: true,
        };
        // Up to now: one that is on its way is a duplicate when it arrives.
        let created = json!({"gte": self.window.since.as_second()});
        let params = Map::from_iter([("created".to_owned(), created)]);
        let mut pages = app.stripe.pages(&["events"], params, PAGES, self.now);
        while let Some(events) = page(&mut pages, self.deadline).await? {
            let ids: Vec<String> = events.iter().filter_map(id).map(str::to_owned).collect();
            let missing = {
                let client = app.database.client().await?;
                let db: &Client = &client;
                stripe_events::missing(db, &ids).await?
            };
            for event in events {
                if let Some(event_id) = id(&event)
                    && missing.iter().any(|missing| missing == event_id)
                {
                    if self.is_ours(&event) {
                        self.look_at_older(&event, &mut older).await?;
                    }
                    self.catch_up_with(&event).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether the object of an event is looked at. One that is no event is parked, which says why.
    fn is_ours(&self, event: &Value) -> bool {
        Event::from_value(event.clone())
            .is_ok_and(|event| self.app.account.foreign(&event).is_none())
    }

    /// Notes how the object of a lost event differs, when it was created before the window and no list has it.
    async fn look_at_older(&mut self, event: &Value, older: &mut OlderObjects) -> Result<(), Stop> {
        let object = &event["data"]["object"];
        let is_between = |at: &Value, from: i64, to: i64| {
            at.as_i64()
                .is_some_and(|second| (from..to).contains(&second))
        };
        let (since, until) = (self.window.since.as_second(), self.window.until.as_second());
        if !is_between(&event["created"], since, until) || !is_between(&object["created"], 0, since)
        {
            return Ok(());
        }
        let subject = object["object"].as_str().and_then(Subject::of_object);
        let (Some(subject), Some(object_id)) = (subject, id(object)) else {
            return Ok(());
        };
        if !older.is_looking || !older.seen.insert((subject, object_id.to_owned())) {
            return Ok(());
        }
        match self.examine(subject, object_id, None).await {
            Ok(is_well) => {
                self.tally.compared += 1;
                self.tally.matched += i64::from(is_well);
                Ok(())
            }
            Err(stop @ (Stop::Stripe(_) | Stop::TooMany(_))) => {
                older.is_looking = false;
                Ok(self.note("older_objects", Err(stop))?)
            }
            Err(stop) => Err(stop),
        }
    }

    /// One bad event holds up nobody: it is parked, and the redrive gives it its attempts.
    async fn catch_up_with(&mut self, event: &Value) -> Result<(), Stop> {
        match missed_webhooks::apply_or_park(self.app, std::slice::from_ref(event), self.now).await
        {
            Ok(outcomes) => {
                for outcome in outcomes {
                    match outcome {
                        Some(Outcome::Duplicate | Outcome::Foreign) => {}
                        Some(Outcome::Applied | Outcome::Ignored | Outcome::Deferred) => {
                            self.tally.events_applied += 1
                        }
                        None => self.tally.events_failed += 1,
                    }
                }
            }
            Err(missed_webhooks::Error::Database(error)) => return Err(error.into()),
            Err(error @ missed_webhooks::Error::ParkedEvents(_)) => {
                self.tally.events_failed += 1;
                log_failure("a missed event is not applied", &error);
            }
        }
        Ok(())
    }

    /// Item by item, in the order in which they were found. One that cannot be healed does not hold up the others.
    async fn heal_items(&mut self) -> Result<(), Stop> {
        let mut after = 0;
        let mut unanswered = 0;
        loop {
            let items = {
                let client = self.app.database.client().await?;
                let db: &Client = &client;
                reconciliation_runs::open_items(db, self.run_id, after, ITEMS).await?
            };
            let Some(last) = items.last() else {
                return Ok(());
            };
            after = last.id;
            for item in &items {
                if self.deadline.is_reached() {
                    return Err(Stop::Deadline);
                }
                let Err(stop) = self.heal_item(item).await else {
                    unanswered = 0;
                    continue;
                };
                unanswered += 1;
                let holds_for_all = match &stop {
                    Stop::Deadline | Stop::TooMany(_) => true,
                    Stop::Stripe(client::Error::RateLimited { .. }) => true,
                    Stop::Stripe(error) => {
                        super::is_refused(error) || unanswered == UNANSWERED_IN_A_ROW
                    }
                    Stop::Database(error) => error.is_unavailable(),
                };
                if holds_for_all {
                    return Err(stop);
                }
                self.note("healing", Err(stop))?;
            }
        }
    }

    /// Healed is what is found and differs no more, whoever put it right.
    async fn heal_item(&mut self, item: &OpenItem) -> Result<(), Stop> {
        let of_item = ObjectType::parse(&item.object_type)
            .and_then(|object_type| Subject::of_item(object_type, &item.object_id));
        let Some((subject, id)) = of_item else {
            return Ok(());
        };
        // Somebody has to find out why a payout is not the sum of its transactions.
        if subject == Subject::Payout && item.kind == Kind::AmountDiffers.as_str() {
            return Ok(());
        }
        let differs = |found: &[domain::reconciliation::Discrepancy]| {
            found.iter().any(|one| {
                one.kind.as_str() == item.kind
                    && one.object_type.as_str() == item.object_type
                    && one.object_id == item.object_id
            })
        };
        let examined = self.look(subject, id).await?;
        let mut found = examined.discrepancies;
        if !found.is_empty() {
            // Nothing is deleted because Stripe does not know it: somebody looks at it.
            let Some(object) = &examined.object else {
                return Ok(());
            };
            self.apply(object).await?;
            let rows = self.rows(subject, id).await?;
            found = self.compared(subject, id, object, &rows)?;
            if differs(&found) {
                return Ok(());
            }
        }
        // What an event that came late has left of the object is another difference.
        self.tell_all(found).await?;
        if subject == Subject::Charge
            && let Some(object) = &examined.object
        {
            self.settle_charge(object).await?;
        }
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        reconciliation_runs::heal_item(db, item.id, self.now).await?;
        Ok(())
    }

    /// The fee of a charge that an event has brought and the list of the balance had passed by then.
    async fn settle_charge(&mut self, charge: &Value) -> Result<(), Stop> {
        let transaction = charge.get("balance_transaction");
        let Some((id, transaction)) = transaction.and_then(|one| Some((id(one)?, one))) else {
            return Ok(());
        };
        let subject = Subject::BalanceTransaction;
        if !self.rows(subject, id).await?.has(subject, id) {
            self.apply(transaction).await?;
            self.tally.fees_settled += 1;
        }
        Ok(())
    }

    /// Applies an object of Stripe through the webhook's projection.
    pub(super) async fn apply(&self, object: &Value) -> Result<(), Stop> {
        self.apply_all(std::slice::from_ref(object)).await
    }

    /// Applies objects of Stripe in one transaction.
    pub(super) async fn apply_all(&self, objects: &[Value]) -> Result<(), Stop> {
        let mut client = self.app.database.client().await?;
        let estimate = self.app.fee_estimate;
        ledger::ingest_fetched(&mut client, objects, self.now, estimate).await?;
        Ok(())
    }
}

fn id(object: &Value) -> Option<&str> {
    object.get("id")?.as_str()
}
