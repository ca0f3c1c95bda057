//! What differs put right: first by the events that never arrived, which know when each thing happened, then by the
//! objects themselves.

use serde_json::{Map, Value, json};
use shared::ledger::{self, Outcome};
use shared::reconciliation::ObjectType;
use shared::store::reconciliation_runs::{self, OpenItem};
use shared::store::{self, stripe_events};
use shared::telemetry::log_failure;
use tokio_postgres::Client;

use crate::missed_webhooks;

use super::subject::Subject;
use super::walk::PAGES;
use super::{Run, Stop};

/// Items read at once.
const ITEMS: i64 = 100;

impl Run<'_> {
    pub(super) async fn heal(&mut self) -> Result<(), store::Error> {
        let caught_up = self.catch_up().await;
        self.note("events", caught_up)?;
        let healed = self.heal_items().await;
        self.note("healing", healed)
    }

    /// Applies the events of the window that are not in the inbox. In which order does not matter.
    async fn catch_up(&mut self) -> Result<(), Stop> {
        let app = self.app;
        // Up to now: one that is on its way is a duplicate when it arrives.
        let created = json!({"gte": self.window.since.as_second()});
        let params = Map::from_iter([("created".to_owned(), created)]);
        let mut pages = app.stripe.pages(&["events"], params, PAGES, self.now);
        while let Some(page) = pages.next_page().await? {
            if self.deadline.is_reached() {
                return Err(Stop::Deadline);
            }
            let ids: Vec<String> = page.iter().filter_map(id).map(str::to_owned).collect();
            let missing = {
                let client = app.database.client().await?;
                let db: &Client = &client;
                stripe_events::missing(db, &ids).await?
            };
            for event in page {
                if let Some(event_id) = id(&event)
                    && missing.iter().any(|missing| missing == event_id)
                {
                    self.catch_up_with(event_id, &event).await?;
                }
            }
        }
        Ok(())
    }

    /// One bad event holds up nobody: it is parked, and the redrive gives it its attempts.
    async fn catch_up_with(&mut self, event_id: &str, event: &Value) -> Result<(), Stop> {
        match missed_webhooks::apply_or_park(self.app, event_id, event, self.now).await {
            Ok(Some(Outcome::Duplicate)) => {}
            Ok(Some(Outcome::Applied | Outcome::Ignored)) => self.tally.events_applied += 1,
            Ok(None) => self.tally.events_failed += 1,
            Err(missed_webhooks::Error::Database(error)) => return Err(error.into()),
            Err(error @ missed_webhooks::Error::ParkedEvents(_)) => {
                self.tally.events_failed += 1;
                log_failure("a missed event is not applied", &error);
            }
        }
        Ok(())
    }

    /// Item by item, in the order in which they were found.
    async fn heal_items(&mut self) -> Result<(), Stop> {
        let mut after = 0;
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
                self.heal_item(item).await?;
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
        let differs = |found: &[shared::reconciliation::Discrepancy]| {
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
            self.settle_charge(id, object).await?;
        }
        let client = self.app.database.client().await?;
        let db: &Client = &client;
        reconciliation_runs::heal_item(db, item.id, self.now).await?;
        Ok(())
    }

    /// The fee of a charge that an event has brought and the list of the balance had passed by then.
    async fn settle_charge(&mut self, id: &str, charge: &Value) -> Result<(), Stop> {
        let transaction = charge.get("balance_transaction");
        let Some(transaction) = transaction.filter(|transaction| transaction.is_object()) else {
            return Ok(());
        };
        let rows = self.rows(Subject::Charge, id).await?;
        if rows.attempt(id).is_some_and(|one| one.settlement.is_none()) {
            self.apply(transaction).await?;
            self.tally.fees_settled += 1;
        }
        Ok(())
    }

    /// Applies an object of Stripe through the webhook's projection.
    pub(super) async fn apply(&self, object: &Value) -> Result<(), Stop> {
        let mut client = self.app.database.client().await?;
        let estimate = self.app.fee_estimate;
        let objects = std::slice::from_ref(object);
        ledger::ingest_fetched(&mut client, objects, self.now, estimate).await?;
        Ok(())
    }
}

fn id(object: &Value) -> Option<&str> {
    object.get("id")?.as_str()
}
