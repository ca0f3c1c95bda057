//! Usage: reads usage events, computes what remains of a plan's units, and prices additional units.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::money::{self, Currency, Money};
use crate::partner::contract::API_KEY_PREFIX_CHARS;

/// The longest idempotency key, in characters.
pub const KEY_CHARS: usize = 255;
/// The most units an event or reservation may have.
pub const UNITS_MAX: i64 = 1_000_000_000;
/// The most an event may cost, in minor units. The sum of a day still fits.
pub const AMOUNT_MAX_CENTS: i64 = 1_000_000_000_000_000;
/// How far a sender's clock may be ahead of ours.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
const METADATA_BYTES: usize = 16 * 1024;
/// The shares of a limit, in percent, at which an alert is sent.
pub const THRESHOLDS_PCT: [i32; 2] = [80, 100];

/// Who used something: a user or a partner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The user's id (`users.id`) in the host application.
    User(i32),
    /// The prefix of a partner's API key.
    Partner(String),
}

impl Subject {
    /// Reads `user:<id>` or `partner:<prefix>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Subject> {
        if let Some(id) = text.strip_prefix("user:") {
            return parse_user_id(id).map(Subject::User);
        }
        let prefix = text.strip_prefix("partner:")?;
        is_text(prefix, 1, API_KEY_PREFIX_CHARS).then(|| Subject::Partner(prefix.to_owned()))
    }

    /// The user's id; `None` for a partner.
    #[must_use]
    pub fn user_id(&self) -> Option<i32> {
        match self {
            Subject::User(id) => Some(*id),
            Subject::Partner(_) => None,
        }
    }

    /// The partner's prefix; `None` for a user.
    #[must_use]
    pub fn api_key_prefix(&self) -> Option<&str> {
        match self {
            Subject::User(_) => None,
            Subject::Partner(prefix) => Some(prefix),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(id) => write!(formatter, "user:{id}"),
            Subject::Partner(prefix) => write!(formatter, "partner:{prefix}"),
        }
    }
}

/// Reads a user's id from a path or a parameter: digits without sign or leading zero, 1 to 2³¹ − 1.
#[must_use]
pub fn parse_user_id(text: &str) -> Option<i32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|id| plain && *id > 0)
}

/// Why a body is refused: the member at fault and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The name of the member; empty when the body as a whole is at fault.
    pub field: String,
    /// What the member has to be.
    pub message: String,
}

impl Rejection {
    fn of(field: &str, message: impl Into<String>) -> Rejection {
        Rejection {
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

/// A usage event as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The sender's key; together with the subject it identifies the event for ever.
    pub idempotency_key: String,
    /// The user or partner who used it.
    pub subject: Subject,
    /// The kind of usage, a word the sender chooses.
    pub event_type: String,
    /// The id of the thing it was used on.
    pub resource_id: Option<String>,
    /// Whether it counts against limits and on invoices.
    pub billable: bool,
    /// The number of units it counts for.
    pub cost_units: i64,
    /// The price of a unit in minor units of the subject's currency.
    pub unit_price_cents: Option<i64>,
    /// When the usage happened, in microseconds.
    pub occurred_at: Timestamp,
    /// Any JSON the sender adds.
    pub metadata: Option<Value>,
    /// What the sender said, normalised: equal for every retry. The same key with another payload is a conflict.
    pub payload: String,
}

/// A usage event as a sender writes it. A member that is null counts as absent.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageEvent {
    /// The sender's key; together with the subject it identifies the event for ever, so that a retry counts once.
    #[schema(required, nullable = false, min_length = 1, max_length = 255)]
    pub idempotency_key: Option<String>,
    /// The user who used it (`users.id` of the host application). Exactly one of this and `api_key_prefix`.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub user_id: Option<i64>,
    /// The partner who used it, by the prefix of its API key.
    #[schema(min_length = 1, max_length = 255)]
    pub api_key_prefix: Option<String>,
    /// The kind of usage, a word the sender chooses.
    #[schema(required, nullable = false, min_length = 1, max_length = 100)]
    pub event_type: Option<String>,
    /// The id of the thing it was used on.
    #[schema(max_length = 255)]
    pub resource_id: Option<String>,
    /// Whether it counts against limits and on invoices; true when absent.
    pub billable: Option<bool>,
    /// The number of units it counts for; 1 when absent.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub cost_units: Option<i64>,
    /// The price of a unit in minor units of the subject's currency.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000_i64)]
    pub unit_price_cents: Option<i64>,
    /// When the usage happened, since 1970 and at most five minutes ahead; now when absent.
    #[schema(format = DateTime)]
    pub occurred_at: Option<String>,
    /// Any JSON object the sender adds, at most 16 KiB.
    pub metadata: Option<Map<String, Value>>,
}

/// The members of [`Event::payload`]. The time is null when the sender left it out.
#[derive(Serialize)]
struct Payload<'a> {
    api_key_prefix: Option<&'a str>,
    billable: bool,
    cost_units: i64,
    event_type: &'a str,
    metadata: Option<&'a Value>,
    occurred_at: Option<Timestamp>,
    resource_id: Option<&'a str>,
    unit_price_cents: Option<i64>,
    user_id: Option<i32>,
}

impl Event {
    /// Validates what a sender wrote.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn new(said: UsageEvent, now: Timestamp) -> Result<Event, Rejection> {
        let idempotency_key = key(said.idempotency_key)?;
        let subject = subject_of(said.user_id, said.api_key_prefix)?;
        let event_type = required(said.event_type, "event_type")?;
        let event_type = text(event_type, "event_type", 1, 100)?;
        let resource_id = said.resource_id;
        let resource_id = resource_id.map(|id| text(id, "resource_id", 0, 255));
        let resource_id = resource_id.transpose()?;
        let billable = said.billable.unwrap_or(true);
        let cost_units = within(said.cost_units, "cost_units", 0, UNITS_MAX)?.unwrap_or(1);
        let price = said.unit_price_cents;
        let unit_price_cents = within(price, "unit_price_cents", 0, AMOUNT_MAX_CENTS)?;
        let amount = i128::from(cost_units) * i128::from(unit_price_cents.unwrap_or(0));
        if amount > i128::from(AMOUNT_MAX_CENTS) {
            return Err(Rejection::of(
                "unit_price_cents",
                format!("cost_units × unit_price_cents is at most {AMOUNT_MAX_CENTS}"),
            ));
        }
        let said_at = said.occurred_at.as_deref();
        let said_at = said_at.map(|text| occurred_at(text, now)).transpose()?;
        let metadata = said.metadata.map(metadata).transpose()?;
        let payload = Payload {
            api_key_prefix: subject.api_key_prefix(),
            billable,
            cost_units,
            event_type: &event_type,
            metadata: metadata.as_ref(),
            occurred_at: said_at,
            resource_id: resource_id.as_deref(),
            unit_price_cents,
            user_id: subject.user_id(),
        };
        Ok(Event {
            payload: canonical(&payload),
            idempotency_key,
            subject,
            event_type,
            resource_id,
            billable,
            cost_units,
            unit_price_cents,
            occurred_at: said_at.unwrap_or_else(|| to_microseconds(now)),
            metadata,
        })
    }
}

/// A request to reserve units of a user's quota, as the caller writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The user whose quota is used (`users.id` of the host application).
    #[schema(required, nullable = false, minimum = 1, maximum = 2_147_483_647)]
    pub user_id: Option<i64>,
    /// How many units to reserve.
    #[schema(required, nullable = false, minimum = 1, maximum = 1_000_000_000)]
    pub units: Option<i64>,
    /// The kind of usage the units are for.
    #[schema(required, nullable = false, min_length = 1, max_length = 100)]
    pub event_type: Option<String>,
    /// The caller's key. A reservation that was allowed gets the same answer on every retry.
    #[schema(required, nullable = false, min_length = 1, max_length = 255)]
    pub idempotency_key: Option<String>,
    /// Whether units beyond the limit may be charged; false when absent.
    pub accept_overage: Option<bool>,
}

/// A [`Reservation`] with valid members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRequest {
    /// The sender's key. A reservation that was allowed gets the same answer on every retry.
    pub idempotency_key: String,
    /// The user whose quota is used.
    pub user_id: i32,
    /// The kind of usage the units are for.
    pub event_type: String,
    /// How many units to reserve.
    pub units: i64,
    /// Whether units beyond the limit may be charged.
    pub accept_overage: bool,
    /// What a retry with the same key must repeat. Accepting the overage is not part of it: a key that was refused may
    /// come again with the overage accepted.
    pub payload: String,
}

/// The members of [`ReservationRequest::payload`].
#[derive(Serialize)]
struct ReservationPayload<'a> {
    event_type: &'a str,
    reserve_units: i64,
    user_id: i32,
}

impl ReservationRequest {
    /// Validates what a caller wrote.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn new(said: Reservation) -> Result<ReservationRequest, Rejection> {
        let user_id = required(said.user_id, "user_id").and_then(user_id)?;
        let units = required(said.units, "units")?;
        let units = within(Some(units), "units", 1, UNITS_MAX)?;
        let units = required(units, "units")?;
        let event_type = required(said.event_type, "event_type")?;
        let event_type = text(event_type, "event_type", 1, 100)?;
        let idempotency_key = key(said.idempotency_key)?;
        let accept_overage = said.accept_overage.unwrap_or(false);
        let payload = canonical(&ReservationPayload {
            event_type: &event_type,
            reserve_units: units,
            user_id,
        });
        Ok(ReservationRequest {
            idempotency_key,
            user_id,
            event_type,
            units,
            accept_overage,
            payload,
        })
    }
}

/// A request to void a usage event, as the caller writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VoidUsage {
    /// The subject of the event: `user:<id>` or `partner:<prefix>`.
    #[schema(required, nullable = false, pattern = "^(user|partner):.+$")]
    pub subject: Option<String>,
    /// The reason, for the audit log.
    #[schema(required, nullable = false, min_length = 1, max_length = 500)]
    pub reason: Option<String>,
}

/// A [`VoidUsage`] with valid members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoidRequest {
    /// The subject of the event.
    pub subject: Subject,
    /// The reason, for the audit log.
    pub reason: String,
}

impl VoidRequest {
    /// Validates what a caller wrote.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn new(said: VoidUsage) -> Result<VoidRequest, Rejection> {
        let subject = required(said.subject, "subject")?;
        let subject = text(subject, "subject", 1, 100)?;
        let subject = Subject::parse(&subject)
            .ok_or_else(|| Rejection::of("subject", "user:<id> or partner:<prefix>"))?;
        let reason = text(required(said.reason, "reason")?, "reason", 1, 500)?;
        Ok(VoidRequest { subject, reason })
    }
}

/// What a plan includes and what additional units cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanTerms {
    /// Units per month; `None` for unlimited.
    pub included_units: Option<i64>,
    /// The currency of every price of the plan.
    pub currency: Currency,
    /// The price in minor units of a unit beyond the included ones; `None` when none are sold.
    pub overage_price_cents: Option<i64>,
    /// The plan that is offered at the limit, and its price per month in minor units, if it has one.
    pub upgrade: Option<(String, Option<i64>)>,
}

impl PlanTerms {
    /// How many units beyond the limit cost as much as the upgrade: upgrade price ÷ overage price, **rounded up**.
    /// `None` without two prices, or when the overage is free.
    #[must_use]
    pub fn breakeven_units(&self) -> Option<i64> {
        let (_, upgrade_price_cents) = self.upgrade.as_ref()?;
        let upgrade = (*upgrade_price_cents)?;
        let overage = self.overage_price_cents.filter(|price| *price > 0)?;
        let whole = upgrade.checked_div(overage)?;
        let started = i64::from(upgrade.checked_rem(overage)? > 0);
        whole.checked_add(started)
    }
}

/// The use of a subject in its month. Limit checks show it; quotes and reservations are computed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageStanding {
    /// Units (of a user) or requests (of a partner) used in the month.
    pub used: i64,
    /// The included or allowed number; `None` for unlimited.
    pub limit: Option<i64>,
}

/// What additional units would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// How many of the units are inside the limit.
    pub free_units: i64,
    /// How many of the units are beyond the limit.
    pub overage_units: i64,
    /// The price of the units beyond the limit; `None` when the plan sells none, so that they are not available.
    pub total: Option<Money>,
}

impl UsageStanding {
    /// Units left inside the limit; `None` when there is no limit.
    #[must_use]
    pub fn remaining(self) -> Option<i64> {
        self.limit
            .map(|limit| limit.saturating_sub(self.used).max(0))
    }

    /// The highest of 80 and 100 percent of the limit that use has reached.
    #[must_use]
    pub fn threshold_pct(self) -> Option<i32> {
        self.thresholds_reached().last().copied()
    }

    /// Every threshold that use has reached, ascending. Empty without use, whatever the limit.
    #[must_use]
    pub fn thresholds_reached(self) -> Vec<i32> {
        let Some(limit) = self.limit.filter(|_| self.used > 0) else {
            return Vec::new();
        };
        let used = i128::from(self.used) * 100;
        let is_reached = |pct: &i32| used >= i128::from(limit) * i128::from(*pct);
        THRESHOLDS_PCT.into_iter().filter(is_reached).collect()
    }

    /// The same month after the use of `units` more.
    #[must_use]
    pub fn after(self, units: i64) -> UsageStanding {
        UsageStanding {
            used: self.used.saturating_add(units),
            limit: self.limit,
        }
    }

    /// What `units` more would cost on these terms.
    pub fn quote(self, terms: &PlanTerms, units: i64) -> Result<Quote, money::Error> {
        let free_units = self.remaining().map_or(units, |left| left.min(units));
        let overage_units = units - free_units;
        let nothing = Money::zero(terms.currency);
        let total = match terms.overage_price_cents {
            _ if overage_units == 0 => Some(nothing),
            Some(price) => {
                let total = Money::new(price, terms.currency).checked_mul(overage_units)?;
                if total.amount_cents > AMOUNT_MAX_CENTS {
                    return Err(money::Error::OutOfRange);
                }
                Some(total)
            }
            None => None,
        };
        Ok(Quote {
            free_units,
            overage_units,
            total,
        })
    }
}

/// Whether a text has `min` to `max` characters and no control characters.
fn is_text(text: &str, min: usize, max: usize) -> bool {
    let length = text.chars().count();
    min <= length && length <= max && !text.chars().any(char::is_control)
}

fn required<T>(value: Option<T>, field: &str) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::of(field, "it is required"))
}

fn text(text: String, field: &str, min: usize, max: usize) -> Result<String, Rejection> {
    if is_text(&text, min, max) {
        return Ok(text);
    }
    Err(Rejection::of(
        field,
        format!("a text of {min} to {max} characters without control characters"),
    ))
}

fn key(said: Option<String>) -> Result<String, Rejection> {
    let key = required(said, "idempotency_key")?;
    text(key, "idempotency_key", 1, KEY_CHARS)
}

fn within(number: Option<i64>, field: &str, min: i64, max: i64) -> Result<Option<i64>, Rejection> {
    match number {
        Some(number) if number < min || max < number => {
            let expected = format!("a whole number from {min} to {max}");
            Err(Rejection::of(field, expected))
        }
        number => Ok(number),
    }
}

fn user_id(id: i64) -> Result<i32, Rejection> {
    let id = i32::try_from(id).ok().filter(|id| *id > 0);
    id.ok_or_else(|| Rejection::of("user_id", format!("a whole number from 1 to {}", i32::MAX)))
}

fn subject_of(user: Option<i64>, partner: Option<String>) -> Result<Subject, Rejection> {
    let user = user.map(user_id).transpose()?;
    let partner = partner.map(|prefix| text(prefix, "api_key_prefix", 1, API_KEY_PREFIX_CHARS));
    match (user, partner.transpose()?) {
        (Some(id), None) => Ok(Subject::User(id)),
        (None, Some(prefix)) => Ok(Subject::Partner(prefix)),
        (Some(_), Some(_)) | (None, None) => Err(Rejection::of(
            "user_id",
            "exactly one of user_id and api_key_prefix",
        )),
    }
}

fn occurred_at(text: &str, now: Timestamp) -> Result<Timestamp, Rejection> {
    let refused = |message: &str| Err(Rejection::of("occurred_at", message));
    // jiff would also read a time zone in brackets, which RFC 3339 does not allow.
    let read = Some(text).filter(|text| text.len() <= 40 && !text.contains('['));
    let Some(instant) = read.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return refused("an instant as RFC 3339 has it, 2025-11-01T00:00:00Z");
    };
    if instant < Timestamp::UNIX_EPOCH {
        return refused("an instant since 1970");
    }
    if instant.duration_since(now) > CLOCK_SKEW {
        return refused("an instant that has passed, give or take five minutes");
    }
    Ok(to_microseconds(instant))
}

/// Cuts an instant to the microseconds that Postgres keeps; cut, not rounded, so that the last instant of a day stays
/// in it.
fn to_microseconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(instant.as_microsecond()).unwrap_or(instant)
}

fn metadata(object: Map<String, Value>) -> Result<Value, Rejection> {
    let refused = |message: &str| Err(Rejection::of("metadata", message));
    let value = Value::Object(object);
    let text = canonical(&value);
    if text.len() > METADATA_BYTES {
        return refused("at most 16 KiB");
    }
    // Postgres cannot store U+0000 in a text. The parsed value is only searched when the text could have one.
    if text.contains("\\u0000") && has_nul(&value) {
        return refused("texts without U+0000");
    }
    Ok(value)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// JSON with sorted members, so that equal payloads are equal texts.
fn canonical(payload: &impl Serialize) -> String {
    // Expect safety: names are texts, and numbers are whole or were read from JSON; nothing here can fail to serialize.
    serde_json::to_string(payload).expect("a payload is JSON")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: &str = "2025-11-20T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn read(changes: Value) -> Result<Event, Rejection> {
        let mut event = json!({"idempotency_key": "k", "user_id": 42, "event_type": "deed"});
        for (name, value) in changes.as_object().unwrap() {
            event[name] = value.clone();
        }
        Event::new(serde_json::from_value(event).unwrap(), now())
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let event = read(json!({})).unwrap();
        assert_eq!(event.subject, Subject::User(42));
        assert!(event.billable);
        assert_eq!((event.cost_units, event.unit_price_cents), (1, None));
        assert_eq!(event.occurred_at, now());
        let spelled_out = json!({"billable": true, "cost_units": 1, "resource_id": null});
        assert_eq!(read(spelled_out).unwrap(), event);
    }

    #[test]
    fn a_member_that_is_wrong_is_named() {
        let long = |length: usize| "x".repeat(length);
        for (changes, field) in [
            (json!({"idempotency_key": null}), "idempotency_key"),
            (json!({"idempotency_key": ""}), "idempotency_key"),
            (json!({"idempotency_key": long(256)}), "idempotency_key"),
            (json!({"idempotency_key": "a\nb"}), "idempotency_key"),
            (json!({"user_id": null}), "user_id"),
            (json!({"api_key_prefix": "dp_pk_alpha"}), "user_id"),
            (json!({"user_id": 0}), "user_id"),
            (json!({"user_id": -1}), "user_id"),
            (json!({"user_id": 2_147_483_648_i64}), "user_id"),
            (
                json!({"user_id": null, "api_key_prefix": ""}),
                "api_key_prefix",
            ),
            (
                json!({"user_id": null, "api_key_prefix": long(256)}),
                "api_key_prefix",
            ),
            (json!({"event_type": ""}), "event_type"),
            (json!({"event_type": long(101)}), "event_type"),
            (json!({"event_type": null}), "event_type"),
            (json!({"event_type": "a\u{0}"}), "event_type"),
            (json!({"resource_id": long(256)}), "resource_id"),
            (json!({"cost_units": -1}), "cost_units"),
            (json!({"cost_units": 1_000_000_001}), "cost_units"),
            (json!({"unit_price_cents": -1}), "unit_price_cents"),
            (
                json!({"unit_price_cents": 1_000_001, "cost_units": 1_000_000_000}),
                "unit_price_cents",
            ),
            (json!({"occurred_at": "2025-11-20"}), "occurred_at"),
            (
                json!({"occurred_at": "2025-11-20T12:05:00.000001Z"}),
                "occurred_at",
            ),
            (json!({"occurred_at": "2025-11-20T12:00:00"}), "occurred_at"),
            (
                json!({"occurred_at": "2025-11-20T12:00:00Z[UTC]"}),
                "occurred_at",
            ),
            (
                json!({"occurred_at": "2025-02-29T12:00:00Z"}),
                "occurred_at",
            ),
            (
                json!({"occurred_at": "1969-12-31T23:59:59Z"}),
                "occurred_at",
            ),
            (json!({"metadata": {"x": long(16 * 1024)}}), "metadata"),
            (json!({"metadata": {"x": [{"y": "\u{0}"}]}}), "metadata"),
            (json!({"metadata": {"\u{0}": 1}}), "metadata"),
        ] {
            let rejection = read(changes.clone()).expect_err(&changes.to_string());
            assert_eq!(rejection.field, field, "{changes}");
            assert!(!rejection.message.is_empty());
        }
    }

    #[test]
    fn the_edges_of_every_range_are_accepted() {
        for changes in [
            json!({"idempotency_key": "é".repeat(255)}),
            json!({"user_id": 2_147_483_647}),
            json!({"user_id": null, "api_key_prefix": "p".repeat(255)}),
            json!({"event_type": "x".repeat(100)}),
            json!({"resource_id": ""}),
            json!({"cost_units": 0}),
            json!({"cost_units": 1_000_000_000, "unit_price_cents": 1_000_000}),
            json!({"unit_price_cents": 1_000_000_000_000_000_i64}),
            json!({"occurred_at": "2025-11-20T12:05:00Z"}),
            json!({"occurred_at": "2024-02-29t23:59:59.999999999z"}),
            json!({"occurred_at": "1970-01-01T00:00:00Z"}),
            json!({"metadata": {}}),
            json!({"metadata": {"path": "C:\\u0000"}}),
        ] {
            if let Err(rejection) = read(changes.clone()) {
                panic!("{changes}: {rejection:?}");
            }
        }
    }

    #[test]
    fn the_last_instant_of_a_day_stays_in_it() {
        let event = read(json!({"occurred_at": "2024-02-29T23:59:59.9999999Z"})).unwrap();
        assert_eq!(event.occurred_at.to_string(), "2024-02-29T23:59:59.999999Z");
    }

    #[test]
    fn a_retry_is_the_same_payload_and_nothing_else_is() {
        let payload = |changes: Value| read(changes).unwrap().payload;
        let plain = payload(json!({}));
        // The time at which it was read is not part of what the sender said.
        let said = json!({"event_type": "deed", "user_id": 42, "idempotency_key": "k"});
        let later = Event::new(
            serde_json::from_value(said).unwrap(),
            "2025-11-21T00:00:00Z".parse().unwrap(),
        );
        assert_eq!(later.unwrap().payload, plain);
        assert_eq!(
            payload(json!({"metadata": {"a": 1, "b": 2}})),
            payload(json!({"metadata": {"b": 2, "a": 1}}))
        );
        assert_eq!(
            payload(json!({"occurred_at": "2025-11-20T13:00:00+01:00"})),
            payload(json!({"occurred_at": "2025-11-20T12:00:00Z"}))
        );
        for other in [
            json!({"cost_units": 2}),
            json!({"event_type": "page"}),
            json!({"billable": false}),
            json!({"unit_price_cents": 0}),
            json!({"resource_id": "r"}),
            json!({"metadata": {}}),
            json!({"occurred_at": NOW}),
        ] {
            assert_ne!(payload(other.clone()), plain, "{other}");
        }
    }

    #[test]
    fn a_subject_is_read_as_it_is_written() {
        for text in [
            "user:1",
            "user:2147483647",
            "partner:dp_pk_alpha",
            "partner:a:b",
        ] {
            assert_eq!(Subject::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "", "user:", "user:0", "user:01", "user:-1", "user:+1", "user:x", "partner:",
            "legacy:1", "42",
        ] {
            assert_eq!(Subject::parse(text), None, "{text}");
        }
    }

    fn free_plan() -> PlanTerms {
        PlanTerms {
            included_units: Some(5),
            currency: Currency::USD,
            overage_price_cents: Some(500),
            upgrade: Some(("professional".to_owned(), Some(2_999))),
        }
    }

    #[test]
    fn a_quote_takes_the_free_units_first() {
        let terms = free_plan();
        for (used, units, free, overage, total) in [
            (0, 5, 5, 0, 0),
            (0, 6, 5, 1, 500),
            (4, 3, 1, 2, 1_000),
            (5, 1, 0, 1, 500),
            (9, 2, 0, 2, 1_000),
        ] {
            let standing = UsageStanding {
                used,
                limit: terms.included_units,
            };
            let quote = standing.quote(&terms, units).unwrap();
            assert_eq!((quote.free_units, quote.overage_units), (free, overage));
            assert_eq!(quote.total, Some(Money::new(total, Currency::USD)));
        }
        let none_sold = PlanTerms {
            overage_price_cents: None,
            ..free_plan()
        };
        let standing = UsageStanding {
            used: 5,
            limit: Some(5),
        };
        assert_eq!(standing.quote(&none_sold, 1).unwrap().total, None);
        let unlimited = UsageStanding {
            used: 1_000,
            limit: None,
        };
        let quote = unlimited.quote(&none_sold, 7).unwrap();
        assert_eq!((quote.free_units, quote.overage_units), (7, 0));
        assert_eq!(quote.total, Some(Money::zero(Currency::USD)));
    }

    #[test]
    fn a_price_beyond_the_range_is_an_error() {
        let terms = PlanTerms {
            overage_price_cents: Some(1_000_001),
            ..free_plan()
        };
        let standing = UsageStanding {
            used: 5,
            limit: Some(5),
        };
        assert_eq!(
            standing.quote(&terms, UNITS_MAX),
            Err(money::Error::OutOfRange)
        );
    }

    #[test]
    fn the_break_even_is_rounded_up() {
        // 2999 ÷ 500 = 5.998
        assert_eq!(free_plan().breakeven_units(), Some(6));
        let with = |overage, upgrade: Option<Option<i64>>| PlanTerms {
            overage_price_cents: overage,
            upgrade: upgrade.map(|price| ("plan".to_owned(), price)),
            ..free_plan()
        };
        assert_eq!(
            with(Some(500), Some(Some(3_000))).breakeven_units(),
            Some(6)
        );
        assert_eq!(
            with(Some(500), Some(Some(3_001))).breakeven_units(),
            Some(7)
        );
        for terms in [
            with(Some(0), Some(Some(3_000))),
            with(None, Some(Some(3_000))),
            with(Some(500), Some(None)),
            with(Some(500), None),
        ] {
            assert_eq!(terms.breakeven_units(), None);
        }
    }

    #[test]
    fn thresholds_are_reached_at_exactly_their_share() {
        for (used, limit, reached) in [
            (0, Some(0), None),
            (1, Some(0), Some(100)),
            (3, Some(5), None),
            (4, Some(5), Some(80)),
            (5, Some(5), Some(100)),
            (9, Some(5), Some(100)),
            (79, Some(100), None),
            (80, Some(100), Some(80)),
            (2, Some(3), None),
            (i64::MAX, Some(i64::MAX), Some(100)),
            (1_000_000, None, None),
        ] {
            assert_eq!(
                UsageStanding { used, limit }.threshold_pct(),
                reached,
                "{used} of {limit:?}"
            );
        }
        assert_eq!(
            UsageStanding {
                used: 5,
                limit: Some(5)
            }
            .thresholds_reached(),
            [80, 100]
        );
    }

    proptest! {
        #[test]
        fn every_unit_is_free_or_charged_and_no_free_one_is_left_over(
            used in 0..200_i64, limit in proptest::option::of(0..100_i64), units in 1..200_i64
        ) {
            let terms = PlanTerms { included_units: limit, ..free_plan() };
            let standing = UsageStanding { used, limit };
            let quote = standing.quote(&terms, units).unwrap();
            prop_assert_eq!(quote.free_units + quote.overage_units, units);
            prop_assert_eq!(quote.total.unwrap().amount_cents, quote.overage_units * 500);
            // Nothing is charged while free units are left.
            prop_assert!(quote.overage_units == 0 || standing.after(quote.free_units).remaining() == Some(0));
        }
    }
}
