//! The envelope of a Stripe event, read without any of Stripe's types.
//!
//! Envelopes vary as much as objects do (`created` is text in thin events, `api_version` may be
//! absent), so only the id and the type are demanded.

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The longest accepted event id, in bytes; Stripe's have about 30.
const MAX_ID_BYTES: usize = 255;

/// Why a signed body is not an event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the body is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// The body is JSON, but not an object.
    #[error("the body is not an event")]
    NotAnObject,
    #[error("the body is not an event: `{0}` is missing or not a text")]
    NotAnEvent(&'static str),
}

/// A Stripe event. Source: <https://docs.stripe.com/api/events/object>.
#[derive(Debug, Clone)]
pub struct Event {
    pub event_id: String,
    pub event_type: String,
    pub api_version: Option<String>,
    pub livemode: Option<bool>,
    /// The account that the event names (`acct_…`): `account`, otherwise the last account in `context`.
    pub account: Option<String>,
    pub created_at: Option<Timestamp>,
    /// `data.object`; null in a thin event, and when `data` is not an object.
    pub object: Value,
    /// `data.previous_attributes`; only `*.updated` events have it.
    pub previous_attributes: Option<Value>,
    /// What a `v2.core.event` names without carrying it; `None` for one that carries its object.
    pub thin: Option<Thin>,
}

/// What a thin event names. Source: <https://docs.stripe.com/event-destinations#thin-events>.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Thin {
    /// The event with the object (`evt_…`); Stripe keeps it for 30 days.
    pub snapshot_event: Option<String>,
    /// The type and the id of the object, as it is now.
    pub related_object: Option<(String, String)>,
}

impl Event {
    /// Parses a body whose signature has been checked.
    ///
    /// # Errors
    /// When the body is not JSON, or has no id or type.
    pub fn parse(body: &[u8]) -> Result<Event, Error> {
        // Validating UTF-8 once instead of text by text takes a fifth of the time.
        let value = match std::str::from_utf8(body) {
            Ok(text) => serde_json::from_str(text),
            Err(_not_utf8) => serde_json::from_slice(body),
        };
        from_value(value.map_err(Error::NotJson)?)
    }

    /// Reads an event that has been parsed: EventBridge's `detail`, or an archived payload.
    ///
    /// # Errors
    /// When the value has no id or type.
    pub fn from_value(value: Value) -> Result<Event, Error> {
        from_value(value)
    }

    /// Digests of what the event shows and of what was before.
    #[must_use]
    pub fn digests(&self) -> Digests {
        let previous = self.previous_attributes.as_ref();
        let previous = previous.filter(|previous| {
            previous
                .as_object()
                .is_some_and(|changed| !changed.is_empty())
        });
        Digests {
            state: digest(&self.object),
            previous: previous.map(|previous| digest(&laid_over(&self.object, previous))),
        }
    }

    /// The type of the snapshot event that a thin event stands for; `None` for any other.
    #[must_use]
    pub fn snapshot_type(&self) -> Option<&str> {
        self.thin.as_ref()?;
        self.event_type.strip_prefix("v1.")
    }

    /// The id of the object the event is about.
    #[must_use]
    pub fn object_id(&self) -> Option<&str> {
        self.object.get("id").and_then(Value::as_str)
    }
}

/// What an event shows, digested: the first eight bytes of a SHA-256 of the object without its nulls. Two states of one
/// object within one second with the same digest are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of `data.object`.
    pub state: i64,
    /// Of `data.object` with `data.previous_attributes` laid over it; `None` without them.
    pub previous: Option<i64>,
}

fn digest(object: &Value) -> i64 {
    let canonical = without_nulls(object.clone()).to_string();
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(canonical));
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, member)| !member.is_null());
            Value::Object(
                members
                    .map(|(name, member)| (name, without_nulls(member)))
                    .collect(),
            )
        }
        Value::Array(members) => Value::Array(members.into_iter().map(without_nulls).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

/// The object before a change: Stripe names in `previous` what was different. Of an object only the members that changed,
/// of a list every member; a member of a list may name only what changed of it.
fn laid_over(object: &Value, previous: &Value) -> Value {
    match (object, previous) {
        (Value::Object(object), Value::Object(previous)) => {
            let mut before = object.clone();
            for (name, value) in previous {
                let now = object.get(name).unwrap_or(&Value::Null);
                before.insert(name.clone(), laid_over(now, value));
            }
            Value::Object(before)
        }
        (Value::Array(object), Value::Array(previous)) if object.len() == previous.len() => {
            let members = object.iter().zip(previous);
            let before = members.map(|(now, before)| match before.get("id") {
                Some(id) if now.get("id") != Some(id) => before.clone(),
                _ => laid_over(now, before),
            });
            Value::Array(before.collect())
        }
        _ => previous.clone(),
    }
}

fn from_value(value: Value) -> Result<Event, Error> {
    let Value::Object(mut envelope) = value else {
        return Err(Error::NotAnObject);
    };
    let event_id =
        text(envelope.remove("id")).filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES);
    let is_thin = envelope.get("object").and_then(Value::as_str) == Some("v2.core.event");
    let thin = is_thin.then(|| Thin {
        snapshot_event: text(envelope.remove("snapshot_event")),
        related_object: envelope.get("related_object").and_then(|related| {
            let member = |name| related.get(name)?.as_str().map(str::to_owned);
            Some((member("type")?, member("id")?))
        }),
    });
    // An event with an unusual `data` is still an event: it is kept and never lost.
    let mut data = match envelope.remove("data") {
        Some(Value::Object(data)) => data,
        _ => Map::new(),
    };
    Ok(Event {
        event_id: event_id.ok_or(Error::NotAnEvent("id"))?,
        event_type: text(envelope.remove("type")).ok_or(Error::NotAnEvent("type"))?,
        api_version: text(envelope.remove("api_version")),
        livemode: envelope.get("livemode").and_then(Value::as_bool),
        account: text(envelope.remove("account"))
            .or_else(|| account_of_context(envelope.get("context")?.as_str()?)),
        created_at: envelope.get("created").and_then(instant),
        object: data.remove("object").unwrap_or_default(),
        previous_attributes: data
            .remove("previous_attributes")
            .filter(|attributes| !attributes.is_null()),
        thin,
    })
}

/// `acct_2` of `org_1/acct_1/acct_2`; an organisation alone names no account.
fn account_of_context(context: &str) -> Option<String> {
    let mut parts = context.rsplit('/');
    parts
        .find(|part| part.starts_with("acct_"))
        .map(str::to_owned)
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// An instant in unix seconds, or as RFC 3339 text in thin events.
fn instant(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(seconds) => Timestamp::from_second(seconds.as_i64()?).ok(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_has_the_digest_of_what_was_shown_then() {
        let event = |object: &str, previous: &str| {
            let body = format!(
                r#"{{"id":"e","type":"t","data":{{"object":{object},"previous_attributes":{previous}}}}}"#
            );
            Event::parse(body.as_bytes()).unwrap().digests()
        };
        let before = r#"{"id":"x","a":1,"b":{"c":1,"d":2},"list":[{"id":"m","p":{"q":1,"r":2}}]}"#;
        for (after, previous) in [
            (
                r#"{"id":"x","a":2,"b":{"c":1,"d":2},"list":[{"id":"m","p":{"q":1,"r":2}}]}"#,
                r#"{"a":1}"#,
            ),
            // Of an object only what changed; what was not there is null.
            (
                r#"{"id":"x","a":1,"b":{"c":1,"d":3},"n":7,"list":[{"id":"m","p":{"q":1,"r":2}}]}"#,
                r#"{"b":{"d":2},"n":null}"#,
            ),
            // Of a list all of it, or of each member what changed.
            (
                r#"{"id":"x","a":1,"b":{"c":1,"d":2},"list":[{"id":"n"},{"id":"o"}]}"#,
                r#"{"list":[{"id":"m","p":{"q":1,"r":2}}]}"#,
            ),
            (
                r#"{"id":"x","a":1,"b":{"c":1,"d":2},"list":[{"id":"n"}]}"#,
                r#"{"list":[{"id":"m","p":{"q":1,"r":2}}]}"#,
            ),
            (
                r#"{"id":"x","a":1,"b":{"c":1,"d":2},"list":[{"id":"m","p":{"q":3,"r":2}}]}"#,
                r#"{"list":[{"p":{"q":1}}]}"#,
            ),
        ] {
            let (before, after) = (event(before, "null"), event(after, previous));
            assert_eq!(after.previous, Some(before.state), "{previous}");
            assert_ne!(after.state, before.state);
        }
        assert_eq!(event(before, "{}").previous, None);
    }

    #[test]
    fn an_envelope_needs_an_id_and_a_type_and_nothing_else() {
        let event = Event::parse(br#"{"id":"evt_1","type":"a.b"}"#).unwrap();
        assert_eq!(
            (event.event_id.as_str(), event.event_type.as_str()),
            ("evt_1", "a.b")
        );
        assert_eq!(event.created_at, None);
        for (body, problem) in [
            (
                &br#"{"type":"a.b"}"#[..],
                "the body is not an event: `id` is missing or not a text",
            ),
            (
                br#"{"id":7,"type":"a.b"}"#,
                "the body is not an event: `id` is missing or not a text",
            ),
            (
                br#"{"id":"evt_1"}"#,
                "the body is not an event: `type` is missing or not a text",
            ),
            (b"[]", "the body is not an event"),
            (br#"["evt_1","a.b"]"#, "the body is not an event"),
            (b"7", "the body is not an event"),
            (b"\"evt_1\"", "the body is not an event"),
            (b"null", "the body is not an event"),
            (b"", "the body is not JSON"),
            (br#"{"id":"evt_1","type":"a.b"}}"#, "the body is not JSON"),
            (b"\xff\xfe", "the body is not JSON"),
        ] {
            assert_eq!(Event::parse(body).unwrap_err().to_string(), problem);
        }
    }

    #[test]
    fn data_that_is_no_object_leaves_the_event_without_one() {
        for data in [
            "7",
            "\"x\"",
            "[]",
            "[{\"object\":{}}]",
            "null",
            "true",
            "{}",
        ] {
            let body = format!(r#"{{"id":"evt_1","type":"a.b","data":{data}}}"#);
            for event in [
                Event::parse(body.as_bytes()).unwrap(),
                Event::from_value(serde_json::from_str(&body).unwrap()).unwrap(),
            ] {
                assert_eq!(event.event_id, "evt_1", "{data}");
                assert_eq!(
                    (event.object, event.previous_attributes),
                    (Value::Null, None),
                    "{data}"
                );
            }
        }
        let body =
            br#"{"id":"evt_1","type":"a.b","data":{"object":[7],"previous_attributes":"x"}}"#;
        let event = Event::parse(body).unwrap();
        assert_eq!(event.object, serde_json::json!([7]));
        assert_eq!(event.previous_attributes, Some("x".into()));
    }

    #[test]
    fn a_thin_event_is_recognised() {
        let body = br#"{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.error",
                        "created":"2025-01-02T03:04:05Z","related_object":{"id":"x"}}"#;
        let event = Event::parse(body).unwrap();
        assert!(event.thin.is_some());
        assert_eq!(
            event.created_at.unwrap().to_string(),
            "2025-01-02T03:04:05Z"
        );
    }
}
