//! What a run is asked for: `detail:{"since","until","heal"}`.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The window when none is asked for …
const SPAN: SignedDuration = SignedDuration::from_hours(3 * 24);
/// … which ends this long ago: what is younger may be on its way.
const SETTLING: SignedDuration = SignedDuration::from_mins(15);
/// What the sums operators know are about.
const LAST_DAY: SignedDuration = SignedDuration::from_hours(24);

/// Objects created in `[since, until)`, whole seconds as Stripe has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    /// Whether what differs is put right.
    pub(super) heal: bool,
}

/// A member of `detail` that is not what it has to be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{member}` has to be {expected}")]
pub struct Invalid {
    member: String,
    expected: &'static str,
}

impl Window {
    /// Reads `detail`; what is not given is the last three days up to a quarter of an hour ago, healed.
    ///
    /// # Errors
    /// When a member is unknown or not valid: a run over another window than was meant helps nobody.
    pub(super) fn parse(detail: &Value, now: Timestamp) -> Result<Window, Invalid> {
        let none = serde_json::Map::new();
        let members = match detail {
            Value::Null => &none,
            Value::Object(members) => members,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(invalid("detail", "an object"));
            }
        };
        if let Some(unknown) = members
            .keys()
            .find(|name| !["since", "until", "heal"].contains(&name.as_str()))
        {
            return Err(invalid(unknown, "left out: it is not known"));
        }
        let until = instant(members.get("until"), "until")?;
        let until = until.unwrap_or_else(|| now.saturating_sub(SETTLING).unwrap_or(now));
        let since = instant(members.get("since"), "since")?;
        let since = since.unwrap_or_else(|| until.saturating_sub(SPAN).unwrap_or(until));
        let heal = match members.get("heal") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(heal)) => *heal,
            Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                return Err(invalid("heal", "true or false"));
            }
        };
        let (since, until) = (whole_second(since), whole_second(until));
        if until > now {
            return Err(invalid("until", "an instant that has passed"));
        }
        if since >= until {
            return Err(invalid("since", "an instant before `until`"));
        }
        Ok(Window { since, until, heal })
    }

    /// Where the last 24 hours of the window begin.
    pub(super) fn last_day_from(&self) -> Timestamp {
        let from = self.until.saturating_sub(LAST_DAY).unwrap_or(self.since);
        from.max(self.since)
    }
}

fn instant(value: Option<&Value>, member: &str) -> Result<Option<Timestamp>, Invalid> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let instant = value.as_str().and_then(|text| text.parse().ok());
            instant
                .map(Some)
                .ok_or_else(|| invalid(member, "an RFC 3339 instant"))
        }
    }
}

fn invalid(member: &str, expected: &'static str) -> Invalid {
    Invalid {
        member: member.to_owned(),
        expected,
    }
}

fn whole_second(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_window_is_the_last_three_days_up_to_a_quarter_of_an_hour_ago() {
        let now = at("2026-03-02T06:00:00.5Z");
        for detail in [Value::Null, json!({}), json!({"since": null, "heal": true})] {
            let window = Window::parse(&detail, now).unwrap();
            assert_eq!(window.since, at("2026-02-27T05:45:00Z"));
            assert_eq!(window.until, at("2026-03-02T05:45:00Z"));
            assert!(window.heal);
            assert_eq!(window.last_day_from(), at("2026-03-01T05:45:00Z"));
        }
        let detail = json!({"since": "2026-03-02T01:00:00+01:00", "until": "2026-03-02T01:00:00Z", "heal": false});
        let window = Window::parse(&detail, now).unwrap();
        assert_eq!(window.since, at("2026-03-02T00:00:00Z"));
        assert_eq!(window.last_day_from(), window.since);
        assert!(!window.heal);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        let now = at("2026-03-02T06:00:00Z");
        for (detail, member) in [
            (json!([]), "detail"),
            (json!({"sinse": "2026-03-01T00:00:00Z"}), "sinse"),
            (json!({"since": "yesterday"}), "since"),
            (json!({"since": 5}), "since"),
            (json!({"until": "2026-03-02T06:00:01Z"}), "until"),
            (json!({"since": "2026-03-02T05:45:00Z"}), "since"),
            (json!({"heal": "yes"}), "heal"),
        ] {
            let error = Window::parse(&detail, now).unwrap_err();
            assert_eq!(error.member, member, "{detail}");
        }
    }
}
