//! A list of Stripe and the ledger's rows of the same span, side by side from the newest to the oldest.

use std::collections::BTreeSet;

use domain::stripe_objects::objects::Objects;
use futures_util::join;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use store::reconciliation_window::{self as window, Slice};
use stripe::client::{self, Pages};
use stripe::reader;
use tokio_postgres::Client;

use super::rows::Rows;
use super::subject::Subject;
use super::tally::NotChecked;
use super::{Run, Stop};
use crate::{Deadline, fetch};

/// More pages than any account's window has; the deadline comes first.
pub(super) const PAGES: u32 = 1_000_000;
/// Objects compared at once, in five pages: each comparison takes the same statements, however many it is about.
const BATCH: usize = 500;
/// Ids of the ledger read at once.
const SLICE: usize = 1_000;
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// An object of a list, and what the reader makes of it.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) object: Value,
    pub(super) facts: Objects,
}

impl Run<'_> {
    /// Compares everything of one list. Objects come newest first; the span between the oldest of one batch and that
    /// of the batch before is compared as soon as it is known that no more of it can come.
    pub(super) async fn walk(&mut self, subject: Subject) -> Result<(), Stop> {
        let app = self.app;
        let path = [subject.list()];
        let mut params = self.window.params();
        if subject == Subject::Subscription {
            // Without it, those that have ended are left out.
            params.insert("status".to_owned(), "all".into());
        }
        if subject == Subject::Invoice {
            params.insert("expand".to_owned(), json!(["data.payments"]));
        }
        let mut pages = app.stripe.pages(&path, params.clone(), PAGES, self.now);
        let mut upper = self.window.until;
        let mut held: Vec<Value> = Vec::new();
        self.tally.examined = 0;
        let deadline = self.deadline;
        let mut next = match batch(&mut pages, deadline).await {
            // Before basil an invoice named its payment itself.
            Err(Stop::Stripe(error)) if fetch::is_unknown_expansion(&error) => {
                params.remove("expand");
                pages = app.stripe.pages(&path, params, PAGES, self.now);
                batch(&mut pages, deadline).await?
            }
            answer => answer?,
        };
        while let Some(objects) = next {
            held.extend(objects);
            let (span, from) = complete(&mut held)?.unwrap_or((Vec::new(), upper));
            // Stripe is at the next batch meanwhile.
            let (compared, following) = join!(
                self.compare_span(subject, span, from, upper),
                batch(&mut pages, deadline)
            );
            compared?;
            upper = from;
            next = following?;
        }
        let since = self.window.since;
        self.compare_span(subject, held, since, upper).await
    }

    /// All of Stripe's objects created in `[from, to)` with all of the ledger's.
    async fn compare_span(
        &mut self,
        subject: Subject,
        objects: Vec<Value>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<(), Stop> {
        if from >= to {
            return Ok(());
        }
        let mut ids = Vec::with_capacity(objects.len());
        let mut listed = Vec::with_capacity(objects.len());
        for object in objects {
            let id = object.get("id").and_then(Value::as_str);
            let id = id.ok_or(client::Error::Unreadable("an object has no id"))?;
            let id = id.to_owned();
            ids.push(id.clone());
            match reader::read_fetched(&object, self.now) {
                Ok(facts) => listed.push(Listed { id, object, facts }),
                // It does not keep the others from being compared.
                Err(error) => self.tally.not_checked.push(NotChecked {
                    what: subject.list(),
                    reason: format!("{id}: {error}"),
                    is_failure: false,
                }),
            }
        }
        let (rows, mut stored) = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            let rows = Rows::load(db, subject, &ids, self.app.fee_estimate).await?;
            (rows, self.stored(db, subject, from, to, "").await?)
        };
        if subject == Subject::Charge {
            for one in &listed {
                self.sum(one)?;
            }
        }
        if subject == Subject::BalanceTransaction {
            let before = listed.len();
            let (known, well) = self.take_in(listed, &rows).await?;
            listed = known;
            self.tally.compared += i64::try_from(before - listed.len()).unwrap_or(i64::MAX);
            self.tally.matched += well;
        }
        let known: BTreeSet<String> = ids.into_iter().collect();
        for one in listed {
            if !rows.is_comparable(subject, &one.id, &one.facts) {
                continue;
            }
            self.tally.compared += 1;
            let is_equal = rows.compare(subject, &one.id, &one.facts).is_empty()
                && !rows.is_unexplained(subject, &one.id);
            if is_equal || self.examine(subject, &one.id, Some(one.object)).await? {
                self.tally.matched += 1;
            }
        }
        loop {
            let last = stored.last().cloned();
            let is_last_slice = stored.len() < SLICE;
            for id in stored {
                if !known.contains(&id) {
                    self.examine(subject, &id, None).await?;
                }
            }
            let Some(last) = last.filter(|_| !is_last_slice) else {
                return Ok(());
            };
            let client = self.app.database.client().await?;
            stored = self.stored(&client, subject, from, to, &last).await?;
        }
    }

    /// Payments that were tried in the window and begun before it: their charges are in the lists, they are not.
    pub(super) async fn walk_older_payments(&mut self) -> Result<(), Stop> {
        self.tally.examined = 0;
        let mut after = String::new();
        loop {
            let (ids, rows) = {
                let client = self.app.database.client().await?;
                let db: &Client = &client;
                let ids = window::older_payments(db, self.slice(&after)).await?;
                let estimate = self.app.fee_estimate;
                let rows = Rows::load(db, Subject::PaymentIntent, &ids, estimate).await?;
                (ids, rows)
            };
            for id in &ids {
                if !rows.is_as_derived(id) {
                    self.examine(Subject::PaymentIntent, id, None).await?;
                }
            }
            match ids.last() {
                Some(last) if ids.len() == SLICE => last.clone_into(&mut after),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// The next rows of the whole window: those whose id is after this one.
    fn slice<'a>(&self, after: &'a str) -> Slice<'a> {
        Slice {
            from: self.window.since,
            to: self.window.until,
            after,
            limit: i64::try_from(SLICE).unwrap_or(i64::MAX),
        }
    }

    async fn stored(
        &self,
        db: &Client,
        subject: Subject,
        from: Timestamp,
        to: Timestamp,
        after: &str,
    ) -> Result<Vec<String>, Stop> {
        let slice = Slice {
            from,
            to,
            ..self.slice(after)
        };
        Ok(subject.stored(db, slice).await?)
    }

    /// Adds a charge of the last 24 hours to the sum that operators know.
    fn sum(&mut self, charge: &Listed) -> Result<(), Stop> {
        if created(&charge.object)? < self.window.last_day_from() {
            return Ok(());
        }
        for one in charge.facts.charges.values() {
            if one.status == "succeeded" && one.is_captured {
                let sum = self.tally.charged.entry(one.currency).or_default();
                *sum =
                    sum.checked_add(one.amount_captured_cents)
                        .ok_or(client::Error::Unreadable(
                            "the charges' sum is out of range",
                        ))?;
            }
        }
        Ok(())
    }
}

impl super::Window {
    /// What every list of the window is asked with.
    pub(super) fn params(&self) -> Map<String, Value> {
        let created = json!({
            "gte": self.since.as_second(),
            "lt": self.until.as_second(),
        });
        Map::from_iter([("created".to_owned(), created)])
    }
}

/// The objects of the next page of a list; none after the last. None is asked for near the deadline.
pub(super) async fn page(
    pages: &mut Pages<'_>,
    deadline: Deadline,
) -> Result<Option<Vec<Value>>, Stop> {
    if deadline.is_reached() {
        return Err(Stop::Deadline);
    }
    Ok(pages.next_page().await?)
}

/// The objects of the next pages of a list; none after the last.
pub(super) async fn batch(
    pages: &mut Pages<'_>,
    deadline: Deadline,
) -> Result<Option<Vec<Value>>, Stop> {
    let mut objects = Vec::new();
    while objects.len() < BATCH {
        match page(pages, deadline).await? {
            Some(page) => objects.extend(page),
            None => break,
        }
    }
    Ok((!objects.is_empty()).then_some(objects))
}

/// Takes what lies in whole seconds out of what is held, newest first, and says from when on that is everything: more
/// of the last second may follow.
fn complete(held: &mut Vec<Value>) -> Result<Option<(Vec<Value>, Timestamp)>, Stop> {
    let Some(last) = held.last() else {
        return Ok(None);
    };
    let oldest = created(last)?;
    let mut complete = 0;
    for object in held.iter() {
        if created(object)? <= oldest {
            break;
        }
        complete += 1;
    }
    if complete == 0 {
        return Ok(None);
    }
    let rest = held.split_off(complete);
    let span = std::mem::replace(held, rest);
    Ok(Some((span, oldest.checked_add(SECOND).unwrap_or(oldest))))
}

fn created(object: &Value) -> Result<Timestamp, Stop> {
    let seconds = object.get("created").and_then(Value::as_i64);
    let created = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(created.ok_or(client::Error::Unreadable(
        "an object does not say when it was created",
    ))?)
}
