//! How to find the later of two snapshots of one Stripe object.
//!
//! Nothing in an event puts it in order by itself: `created` has a resolution of one second, and bursts share a second.
//! A row therefore stores the [`Version`] of the snapshot it shows, and only a greater version replaces it. Within one
//! second `data.previous_attributes` is better evidence; [`latest_of_second`] reads it.

use jiff::Timestamp;
use serde_json::Value;

use crate::stripe_objects::objects::Ids;

/// The prefix of the event id in a fetched object's version; an event's id begins with `evt_`.
pub const FETCHED: &str = "fetch:";
/// The prefix of the event id in the version of a beginning that a fetched subscription implies.
pub const BEGUN: &str = "begin:";

/// The version of a snapshot: event time, then rank, then event id, compared in that order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `event.created`; the time of the fetch for a fetched object.
    pub created_at: Timestamp,
    /// Status rank × 100 + type rank of the event; see the ranks in each object's module.
    pub rank: i32,
    pub event_id: String,
}

impl Version {
    /// The version of a row that only another object has named so far: every snapshot is later.
    #[must_use]
    pub fn unseen() -> Self {
        Version {
            created_at: Timestamp::UNIX_EPOCH,
            rank: 0,
            event_id: String::new(),
        }
    }

    /// Whether the snapshot was fetched rather than brought by an event.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.event_id.starts_with(FETCHED)
    }

    /// Whether the row comes from a snapshot of the object itself.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        *self != Version::unseen()
    }
}

/// A mirrored object. The latest snapshot decides, except for facts that never become unknown again.
pub trait Snapshot: Clone + PartialEq {
    /// The object's id at Stripe.
    fn key(&self) -> String;

    /// The version of the snapshot that is shown.
    fn version(&self) -> &Version;

    /// Adds its own id, and those of the objects it names whose rows are read or written with it.
    fn names(&self, ids: &mut Ids);

    /// Takes over what an earlier snapshot knew and what never becomes unknown: links, first times, highest counts. The
    /// order of earlier snapshots does not matter.
    fn absorb(&mut self, earlier: &Self);

    /// Joins both snapshots: the later one, with what the earlier one knew. Of two fetches of an object in one second,
    /// the second (`other`) wins: it was made because the first does not show what Stripe shows now.
    #[must_use]
    fn join(self, other: Self) -> Self {
        let (mine, others) = (self.version(), other.version());
        let is_asked_again = mine.is_fetched() && mine.event_id == others.event_id;
        let (mut later, earlier) = if is_asked_again || mine < others {
            (other, self)
        } else {
            (self, other)
        };
        later.absorb(&earlier);
        later
    }
}

/// One of the snapshots of an object in the same second.
#[derive(Debug, Clone)]
pub struct Contender<'a> {
    pub rank: i32,
    pub event_id: &'a str,
    /// The object in the event (`data.object`).
    pub object: &'a Value,
    /// The event's `data.previous_attributes`; only `*.updated` events have it.
    pub previous_attributes: Option<&'a Value>,
}

/// The outcome of [`latest_of_second`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    pub event_id: String,
    /// False when two different snapshots remain that nothing puts in order. Then the greater event id is shown until
    /// the object has been fetched again.
    pub is_decided: bool,
}

/// Picks the last snapshot of one second. B follows A when B's previous values are A's values and not the other way
/// round. Among those that nothing follows, the greater rank wins, then the greater event id. The order of `contenders`
/// does not matter.
#[must_use]
pub fn latest_of_second(contenders: &[Contender<'_>]) -> Option<Latest> {
    let unfollowed: Vec<&Contender<'_>> = contenders
        .iter()
        .filter(|a| !contenders.iter().any(|b| follows(b, a)))
        .collect();
    // In a cycle each follows another: then all of them contend.
    let remaining: Vec<&Contender<'_>> = if unfollowed.is_empty() {
        contenders.iter().collect()
    } else {
        unfollowed
    };
    let last = remaining.iter().max_by_key(|c| (c.rank, c.event_id))?;
    let is_decided = remaining
        .iter()
        .all(|c| c.rank < last.rank || c.object == last.object);
    Some(Latest {
        event_id: last.event_id.to_owned(),
        is_decided,
    })
}

fn follows(later: &Contender<'_>, earlier: &Contender<'_>) -> bool {
    later.event_id != earlier.event_id
        && starts_from(later, earlier.object)
        && !starts_from(earlier, later.object)
}

/// Whether the change that `contender` announces starts from `object`.
fn starts_from(contender: &Contender<'_>, object: &Value) -> bool {
    match contender.previous_attributes {
        Some(Value::Object(previous)) if !previous.is_empty() => {
            previous
                .iter()
                .all(|(key, value)| agrees(value, object.get(key).unwrap_or(&Value::Null)))
                && previous.iter().any(|(key, value)| {
                    !agrees(value, contender.object.get(key).unwrap_or(&Value::Null))
                })
        }
        _ => false,
    }
}

/// Whether `actual` has every value `previous` names; Stripe lists only what changed in objects.
fn agrees(previous: &Value, actual: &Value) -> bool {
    match (previous, actual) {
        (Value::Object(previous), Value::Object(actual)) => previous
            .iter()
            .all(|(key, value)| agrees(value, actual.get(key).unwrap_or(&Value::Null))),
        (Value::Array(previous), Value::Array(actual)) => {
            previous.len() == actual.len()
                && previous
                    .iter()
                    .zip(actual)
                    .all(|(previous, actual)| agrees(previous, actual))
        }
        _ => previous == actual,
    }
}

/// Joins a fact that can only become known, such as a link. `None` means "not known yet"; of two different values the
/// greater wins, in any order.
pub fn known<T: Ord + Clone>(fact: &mut Option<T>, other: &Option<T>) {
    if *fact < *other {
        fact.clone_from(other);
    }
}

/// Joins the time of a first occurrence: the earlier one, where known.
pub fn earliest(fact: &mut Option<Timestamp>, other: Option<Timestamp>) {
    *fact = match (*fact, other) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (known, None) | (None, known) => known,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn latest(contenders: &[(&str, i32, Value, Option<Value>)]) -> Latest {
        let forward: Vec<Contender<'_>> = contenders
            .iter()
            .map(|(event_id, rank, object, previous)| Contender {
                rank: *rank,
                event_id,
                object,
                previous_attributes: previous.as_ref(),
            })
            .collect();
        let mut backward = forward.clone();
        backward.reverse();
        let outcome = latest_of_second(&forward).unwrap();
        assert_eq!(
            latest_of_second(&backward).unwrap(),
            outcome,
            "the order must not matter"
        );
        outcome
    }

    #[test]
    fn previous_attributes_order_a_chain_against_the_event_ids() {
        let outcome = latest(&[
            (
                "evt_9",
                1,
                json!({"quantity": 2}),
                Some(json!({"quantity": 1})),
            ),
            (
                "evt_5",
                1,
                json!({"quantity": 3}),
                Some(json!({"quantity": 2})),
            ),
            (
                "evt_1",
                1,
                json!({"quantity": 4}),
                Some(json!({"quantity": 3})),
            ),
        ]);
        assert_eq!(
            outcome,
            Latest {
                event_id: "evt_1".into(),
                is_decided: true
            }
        );
    }

    #[test]
    fn an_update_follows_the_creation_it_started_from_whatever_the_rank() {
        let outcome = latest(&[
            ("evt_2", 900, json!({"status": "past_due"}), None),
            (
                "evt_1",
                300,
                json!({"status": "active"}),
                Some(json!({"status": "past_due"})),
            ),
        ]);
        assert_eq!(outcome.event_id, "evt_1");
    }

    #[test]
    fn there_and_back_again_is_undecidable() {
        let outcome = latest(&[
            (
                "evt_1",
                1,
                json!({"quantity": 2}),
                Some(json!({"quantity": 1})),
            ),
            (
                "evt_2",
                1,
                json!({"quantity": 1}),
                Some(json!({"quantity": 2})),
            ),
        ]);
        assert_eq!(
            outcome,
            Latest {
                event_id: "evt_2".into(),
                is_decided: false
            }
        );
    }

    #[test]
    fn equal_snapshots_need_no_decision() {
        let object = json!({"quantity": 2});
        let outcome = latest(&[
            ("evt_1", 1, object.clone(), None),
            ("evt_2", 1, object, None),
        ]);
        assert_eq!(
            outcome,
            Latest {
                event_id: "evt_2".into(),
                is_decided: true
            }
        );
    }

    #[test]
    fn nested_previous_values_are_compared_where_they_are_named() {
        let object = |price: &str| json!({"items": {"data": [{"price": {"id": price, "x": 1}}]}});
        let previous = json!({"items": {"data": [{"price": {"id": "price_a"}}]}});
        let outcome = latest(&[
            ("evt_9", 1, object("price_a"), None),
            ("evt_1", 1, object("price_b"), Some(previous)),
        ]);
        assert_eq!(outcome.event_id, "evt_1");
    }
}
