//! `parked_events`: Stripe events that could not be applied yet, kept in DynamoDB until they can.
//!
//! One item per event: `event_id` (key), `body` or, beyond 350 KB, `body_s3_key`, `reason`, `attempts`,
//! `next_attempt_at` (Unix seconds), `due` (`"1"`; hash key of the index `due`, whose range key is
//! `next_attempt_at`; absent once poisoned, so that the index holds only what is to be retried), `received_at` (in the
//! index too), `poisoned_at`, `ttl`.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, Select};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_types::SdkConfig;
use jiff::{SignedDuration, Timestamp};

use super::{CALL_TIMEOUT, Error};
use crate::config::{self, Environment};

const SERVICE: &str = "DynamoDB";
const INDEX: &str = "due";
/// All attributes but the body.
const STATE_ATTRIBUTES: &str =
    "event_id, reason, attempts, next_attempt_at, received_at, poisoned_at";
/// The largest body kept in the item. An item may have 400 KB, with names and the other attributes.
const BODY_BYTES_INLINE: usize = 350 * 1024;
/// After this many failures an event needs a person: it is kept, but no longer retried.
const ATTEMPTS_UNTIL_POISONED: u32 = 8;
/// The pause after the first failure; it doubles with each. Eight attempts span ten hours.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// How long an event is kept: longer than any investigation. It is the only copy once Stripe's 30 days are over.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(400 * 24);

/// The table, the bucket for large bodies, and the clients that reach them.
#[derive(Debug, Clone)]
pub struct ParkedEvents {
    dynamodb: aws_sdk_dynamodb::Client,
    /// What a client of S3 is made from when a body is too large for the table.
    sdk: SdkConfig,
    table: String,
    bucket: String,
}

/// The state of a parked event, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedState {
    /// Stripe's event id (`evt_…`).
    pub event_id: String,
    /// Why it was parked, or why the last attempt failed.
    pub reason: String,
    /// Failed attempts to apply it since it was parked.
    pub attempts: u32,
    /// When the next attempt is due. Has no meaning once the event is poisoned.
    pub next_attempt_at: Timestamp,
    /// When the event was first parked.
    pub received_at: Timestamp,
    /// When retries ended; `None` while the event is retried.
    pub poisoned_at: Option<Timestamp>,
}

/// A parked event whose body may be unreadable.
#[derive(Debug)]
pub struct Read {
    /// The attempts so far and the next one.
    pub state: ParkedState,
    /// The body as received.
    pub body: Result<String, Error>,
}

/// An event whose next attempt is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Stripe's event id (`evt_…`).
    pub event_id: String,
    /// When the event was first parked.
    pub received_at: Timestamp,
}

impl ParkedState {
    /// Whether the next attempt is due at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.is_poisoned() && self.next_attempt_at <= now
    }

    /// Whether it is no longer retried.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned_at.is_some()
    }

    /// Whether one more failure poisons it.
    pub fn is_on_last_attempt(&self) -> bool {
        self.attempts + 1 >= ATTEMPTS_UNTIL_POISONED
    }
}

/// A parked event with the body Stripe signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    /// The attempts so far and the next one.
    pub state: ParkedState,
    /// The body as received.
    pub body: String,
}

type Item = HashMap<String, AttributeValue>;

impl ParkedEvents {
    /// The table `PARKED_EVENTS_TABLE` and the bucket `DOCUMENT_BUCKET`, with short time-outs.
    pub fn from_env(
        environment: &Environment,
        sdk: &SdkConfig,
    ) -> Result<ParkedEvents, config::Error> {
        let sdk = super::impatient(sdk);
        Ok(ParkedEvents {
            dynamodb: aws_sdk_dynamodb::Client::new(&sdk),
            sdk,
            table: environment.required("PARKED_EVENTS_TABLE")?,
            bucket: environment.required("DOCUMENT_BUCKET")?,
        })
    }

    /// Parks an event, due at once. An event that is parked already keeps its first body, its attempts and its state.
    /// Returns within two seconds, whether it succeeded or not.
    pub async fn park(
        &self,
        event_id: &str,
        body: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        tokio::time::timeout(CALL_TIMEOUT, self.put(event_id, body, reason, now))
            .await
            .map_err(|elapsed| Error::unavailable(SERVICE, elapsed))?
    }

    async fn put(
        &self,
        event_id: &str,
        body: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut item = Item::from([
            ("event_id".to_owned(), text(event_id)),
            ("reason".to_owned(), text(reason)),
            ("attempts".to_owned(), number(0)),
            ("next_attempt_at".to_owned(), seconds(now)),
            ("due".to_owned(), text("1")),
            ("received_at".to_owned(), seconds(now)),
            ("ttl".to_owned(), expiry(now)),
        ]);
        if body.len() <= BODY_BYTES_INLINE {
            item.insert("body".to_owned(), text(body));
        } else {
            let key = format!("parked/{event_id}.json");
            // The first body stays, like the item it belongs to.
            self.put_body(&key, body).await?;
            item.insert("body_s3_key".to_owned(), text(&key));
        }
        let answer = self
            .dynamodb
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(event_id)")
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(Error::unavailable(SERVICE, error)),
        }
    }

    /// Up to `limit` events whose next attempt is due, longest parked first, as the index shows them. The index lags
    /// behind: an event may have been removed, tried or given up by now. [`ParkedEvents::state_and_body`] shows that.
    pub async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
        let mut due = Vec::new();
        let mut after = None;
        while due.len() < limit {
            let page = self
                .due_query(now)
                .projection_expression("event_id, received_at")
                .limit(i32::try_from(limit - due.len()).unwrap_or(i32::MAX))
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| Error::unavailable(SERVICE, error))?;
            for item in page.items() {
                due.push(Due {
                    event_id: text_of(item, "event_id")?.to_owned(),
                    // Without the attribute the event is read first; that read reports what is wrong.
                    received_at: instant_of(item, "received_at").unwrap_or(Timestamp::MIN),
                });
            }
            after = page.last_evaluated_key;
            if after.is_none() {
                break;
            }
        }
        due.sort_by(|left, right| {
            (left.received_at, &left.event_id).cmp(&(right.received_at, &right.event_id))
        });
        Ok(due)
    }

    /// How many events are due.
    pub async fn count_due(&self, now: Timestamp) -> Result<u64, Error> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self
                .due_query(now)
                .select(Select::Count)
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| Error::unavailable(SERVICE, error))?;
            count += u64::try_from(page.count()).unwrap_or_default();
            after = page.last_evaluated_key;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// When the event was parked that has waited longest among those that are retried; `None` when none is parked.
    /// Reads the index from end to end, which holds only those events.
    pub async fn oldest_received_at(&self) -> Result<Option<Timestamp>, Error> {
        let mut oldest: Option<Timestamp> = None;
        let mut after = None;
        loop {
            let page = self
                .dynamodb
                .query()
                .table_name(&self.table)
                .index_name(INDEX)
                .key_condition_expression("#due = :due")
                .expression_attribute_names("#due", "due")
                .expression_attribute_values(":due", text("1"))
                .projection_expression("received_at")
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| Error::unavailable(SERVICE, error))?;
            for item in page.items() {
                let received_at = instant_of(item, "received_at")?;
                oldest = Some(oldest.map_or(received_at, |oldest| oldest.min(received_at)));
            }
            after = page.last_evaluated_key;
            if after.is_none() {
                return Ok(oldest);
            }
        }
    }

    fn due_query(&self, now: Timestamp) -> QueryFluentBuilder {
        self.dynamodb
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("#due = :due AND next_attempt_at <= :now")
            .expression_attribute_names("#due", "due")
            .expression_attribute_values(":due", text("1"))
            .expression_attribute_values(":now", seconds(now))
    }

    /// Up to `limit` parked and poisoned events without their bodies, longest parked first.
    pub async fn list(&self, limit: usize) -> Result<Vec<ParkedState>, Error> {
        let mut states = Vec::new();
        let mut after = None;
        while states.len() < limit {
            let page = self
                .dynamodb
                .scan()
                .table_name(&self.table)
                .projection_expression(STATE_ATTRIBUTES)
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| Error::unavailable(SERVICE, error))?;
            for item in page.items() {
                states.push(state_of(item)?);
            }
            match page.last_evaluated_key {
                Some(key) => after = Some(key),
                None => break,
            }
        }
        states.sort_by(|left, right| {
            (left.received_at, &left.event_id).cmp(&(right.received_at, &right.event_id))
        });
        states.truncate(limit);
        Ok(states)
    }

    /// One parked or poisoned event with its body. A body that is missing in the bucket is [`Error::Unreadable`].
    pub async fn get(&self, event_id: &str) -> Result<Option<ParkedEvent>, Error> {
        match self.state_and_body(event_id).await? {
            Some(Read { state, body }) => Ok(Some(ParkedEvent { state, body: body? })),
            None => Ok(None),
        }
    }

    /// As [`ParkedEvents::get`], but returns the state even when the body is unreadable.
    pub async fn state_and_body(&self, event_id: &str) -> Result<Option<Read>, Error> {
        let Some(mut item) = self.item(event_id).await? else {
            return Ok(None);
        };
        let state = state_of(&item)?;
        let body = match item.remove("body") {
            Some(AttributeValue::S(body)) => Ok(body),
            _ => match text_of(&item, "body_s3_key") {
                Ok(key) => self.body_in_s3(key).await,
                Err(error) => Err(error),
            },
        };
        Ok(Some(Read { state, body }))
    }

    /// Records that the event could not be applied: the pause doubles, and the eighth failure poisons it. `attempts` is
    /// the number at the time of the attempt: when it has grown since, another run has recorded the same failure, which
    /// counts once. `None` when the event is not parked (any more). Not to be called because the database was
    /// unavailable: that says nothing about the event.
    pub async fn record_failure(
        &self,
        event_id: &str,
        attempts: u32,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<ParkedState>, Error> {
        let Some(before) = self.state(event_id).await? else {
            return Ok(None);
        };
        if before.is_poisoned() || before.attempts != attempts {
            return Ok(Some(before));
        }
        let attempts = before.attempts + 1;
        let poisoned = before.is_on_last_attempt();
        let next = now.saturating_add(pause_after(attempts));
        let next = next.unwrap_or(Timestamp::MAX);
        let update = self
            .dynamodb
            .update_item()
            .table_name(&self.table)
            .key("event_id", text(event_id))
            // Two sweeps at once count one failure, and an event applied meanwhile does not come back.
            .condition_expression("attempts = :before AND attribute_not_exists(poisoned_at)")
            .expression_attribute_values(":before", number(before.attempts))
            .expression_attribute_values(":attempts", number(attempts))
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":ttl", expiry(now))
            .expression_attribute_names("#ttl", "ttl")
            .return_values(ReturnValue::AllNew);
        let update = if poisoned {
            update
                .update_expression(
                    "SET attempts = :attempts, reason = :reason, #ttl = :ttl, poisoned_at = :now REMOVE #due",
                )
                .expression_attribute_names("#due", "due")
                .expression_attribute_values(":now", seconds(now))
        } else {
            update
                .update_expression(
                    "SET attempts = :attempts, reason = :reason, #ttl = :ttl, next_attempt_at = :next",
                )
                .expression_attribute_values(":next", seconds(next))
        };
        match update.send().await {
            Ok(answer) => answer.attributes().map(state_of).transpose(),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                self.state(event_id).await
            }
            Err(error) => Err(Error::unavailable(SERVICE, error)),
        }
    }

    /// Removes an event that was applied, whether or not it was parked. A body in S3 that cannot be deleted is logged:
    /// nothing refers to it any more, and the bucket's lifecycle rule removes it.
    pub async fn remove(&self, event_id: &str) -> Result<(), Error> {
        let answer = self
            .dynamodb
            .delete_item()
            .table_name(&self.table)
            .key("event_id", text(event_id))
            .return_values(ReturnValue::AllOld)
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        let Some(Ok(key)) = answer
            .attributes()
            .and_then(|item| item.get("body_s3_key"))
            .map(AttributeValue::as_s)
        else {
            return Ok(());
        };
        let deleted = self
            .s3()
            .delete_object()
            .bucket(&self.bucket)
            .key(key)
            .send();
        if let Err(error) = deleted.await {
            let error = Error::unavailable("S3", error);
            crate::telemetry::log_failure("the body of an applied event is left behind", &error);
        }
        Ok(())
    }

    /// Whether the table exists and may be read.
    pub async fn check(&self) -> Result<(), Error> {
        self.item("health-check").await.map(drop)
    }

    async fn item(&self, event_id: &str) -> Result<Option<Item>, Error> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("event_id", text(event_id))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        Ok(answer.item)
    }

    async fn state(&self, event_id: &str) -> Result<Option<ParkedState>, Error> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(&self.table)
            .key("event_id", text(event_id))
            .projection_expression(STATE_ATTRIBUTES)
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| Error::unavailable(SERVICE, error))?;
        answer.item.as_ref().map(state_of).transpose()
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        super::s3_client(&self.sdk)
    }

    /// Puts the body under `key`. An object that is there already stays as it is, which is no failure.
    async fn put_body(&self, key: &str, body: &str) -> Result<(), Error> {
        let put = self
            .s3()
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .if_none_match("*")
            .content_type("application/json")
            .body(ByteStream::from(body.as_bytes().to_vec()));
        match put.send().await {
            Err(error) if error.code() != Some("PreconditionFailed") => {
                Err(Error::unavailable("S3", error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn body_in_s3(&self, key: &str) -> Result<String, Error> {
        let object = self.s3().get_object().bucket(&self.bucket).key(key).send();
        let object = object.await.map_err(|error| {
            let is_gone = error
                .as_service_error()
                .is_some_and(|error| error.is_no_such_key());
            if is_gone {
                return Error::Unreadable {
                    service: "S3",
                    what: format!("{key} is gone"),
                };
            }
            Error::unavailable("S3", error)
        })?;
        let bytes = object.body.collect().await;
        let bytes = bytes.map_err(|error| Error::unavailable("S3", error))?;
        String::from_utf8(bytes.to_vec()).map_err(|_not_utf8| Error::Unreadable {
            service: "S3",
            what: format!("{key} is not text"),
        })
    }
}

// For the admin routes.
impl ParkedEvents {
    /// Up to `limit` events, newest first, after the position `after` (the time of parking and the id); parked and
    /// poisoned ones, or only those that `filter` asks for. The table has no order in time, so every page reads all of
    /// it: this is for people, and for the few events that are parked in normal operation. Items without `received_at`
    /// and unreadable items are left out.
    pub async fn page(
        &self,
        filter: Filter,
        after: Option<(Timestamp, &str)>,
        limit: usize,
    ) -> Result<Vec<ParkedState>, Error> {
        let mut newest: BTreeMap<(Timestamp, String), ParkedState> = BTreeMap::new();
        let mut start = None;
        loop {
            let page = self
                .dynamodb
                .scan()
                .table_name(&self.table)
                .projection_expression(STATE_ATTRIBUTES)
                .filter_expression("attribute_exists(received_at)")
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| Error::unavailable(SERVICE, error))?;
            for item in page.items() {
                let state = match state_of(item) {
                    Ok(state) => state,
                    Err(error) => {
                        crate::telemetry::log_failure("a parked event is left out", &error);
                        continue;
                    }
                };
                let is_below =
                    after.is_none_or(|after| (state.received_at, state.event_id.as_str()) < after);
                if is_below && filter.shows(&state) {
                    newest.insert((state.received_at, state.event_id.clone()), state);
                    if newest.len() > limit {
                        newest.pop_first();
                    }
                }
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                break;
            }
        }
        Ok(newest.into_values().rev().collect())
    }

    /// Makes a parked or poisoned event due at once, as if it had just been parked. False when it is not parked.
    pub async fn revive(&self, event_id: &str, now: Timestamp) -> Result<bool, Error> {
        let answer = self
            .dynamodb
            .update_item()
            .table_name(&self.table)
            .key("event_id", text(event_id))
            .condition_expression("attribute_exists(received_at)")
            .update_expression(
                "SET attempts = :none, next_attempt_at = :now, #due = :due, #ttl = :ttl REMOVE poisoned_at",
            )
            .expression_attribute_names("#due", "due")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":none", number(0))
            .expression_attribute_values(":now", seconds(now))
            .expression_attribute_values(":due", text("1"))
            .expression_attribute_values(":ttl", expiry(now))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(error) => Err(Error::unavailable(SERVICE, error)),
        }
    }
}

/// Which parked events a page shows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// `true` for events that are no longer retried, `false` for those that are, `None` for both.
    pub is_poisoned: Option<bool>,
    /// Only events parked at this instant or later.
    pub from: Option<Timestamp>,
    /// Only events parked before this instant.
    pub to: Option<Timestamp>,
}

impl Filter {
    fn shows(&self, state: &ParkedState) -> bool {
        self.is_poisoned
            .is_none_or(|is_poisoned| is_poisoned == state.is_poisoned())
            && self.from.is_none_or(|from| from <= state.received_at)
            && self.to.is_none_or(|to| state.received_at < to)
    }
}

fn pause_after(attempts: u32) -> SignedDuration {
    FIRST_PAUSE.saturating_mul(1_i32 << attempts.saturating_sub(1).min(10))
}

fn state_of(item: &Item) -> Result<ParkedState, Error> {
    let poisoned_at = match item.get("poisoned_at") {
        Some(_) => Some(instant_of(item, "poisoned_at")?),
        None => None,
    };
    Ok(ParkedState {
        event_id: text_of(item, "event_id")?.to_owned(),
        reason: text_of(item, "reason")?.to_owned(),
        attempts: number_of(item, "attempts")?,
        next_attempt_at: instant_of(item, "next_attempt_at")?,
        received_at: instant_of(item, "received_at")?,
        poisoned_at,
    })
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

fn number(value: u32) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn seconds(instant: Timestamp) -> AttributeValue {
    AttributeValue::N(instant.as_second().to_string())
}

fn expiry(now: Timestamp) -> AttributeValue {
    seconds(now.saturating_add(KEPT_FOR).unwrap_or(Timestamp::MAX))
}

fn unreadable(attribute: &str) -> Error {
    Error::Unreadable {
        service: SERVICE,
        what: format!("a parked event's {attribute}"),
    }
}

fn text_of<'a>(item: &'a Item, attribute: &str) -> Result<&'a str, Error> {
    match item.get(attribute) {
        Some(AttributeValue::S(value)) => Ok(value),
        _ => Err(unreadable(attribute)),
    }
}

fn number_of<T: std::str::FromStr>(item: &Item, attribute: &str) -> Result<T, Error> {
    match item.get(attribute) {
        Some(AttributeValue::N(value)) => {
            value.parse().map_err(|_not_a_number| unreadable(attribute))
        }
        _ => Err(unreadable(attribute)),
    }
}

fn instant_of(item: &Item, attribute: &str) -> Result<Timestamp, Error> {
    Timestamp::from_second(number_of(item, attribute)?)
        .map_err(|_out_of_range| unreadable(attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_five_minutes() {
        let minutes: Vec<i64> = (1..=7).map(|n| pause_after(n).as_mins()).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320]);
        assert!(pause_after(u32::MAX) > SignedDuration::ZERO);
    }
}
