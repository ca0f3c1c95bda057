//! How to find the later of two snapshots of one Stripe object.
//!
//! Nothing in an event puts it in order by itself: `created` has a resolution of one second, and bursts share a second.
//! A row therefore stores the [`Version`] of the snapshot it shows, and only a greater version replaces it. Within one
//! second `data.previous_attributes` is better evidence; [`latest_of_second`] reads it.

use std::collections::BTreeMap;

use jiff::Timestamp;

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
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    pub rank: i32,
    pub event_id: &'a str,
    /// A digest of the object as the event shows it.
    pub state: i64,
    /// A digest of the object as it was before, if the event says; only `*.updated` events do.
    pub previous: Option<i64>,
}

/// The outcome of [`latest_of_second`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    pub event_id: String,
    /// False when two different snapshots remain that nothing puts in order. Then the greater event id is shown until
    /// the object has been fetched again.
    pub is_decided: bool,
}

/// Picks the last snapshot of one second. B follows A when what was before B is what A shows. Among those that nothing
/// follows, the greater rank wins, then the greater event id. The order of `contenders` does not matter.
#[must_use]
pub fn latest_of_second(contenders: &[Contender<'_>]) -> Option<Latest> {
    // Two events that start from one state both follow it.
    let mut starts: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for contender in contenders {
        if let Some(previous) = contender.previous {
            starts.entry(previous).or_default().push(contender.event_id);
        }
    }
    let is_followed = |one: &Contender<'_>| {
        let followers = starts.get(&one.state);
        followers.is_some_and(|followers| followers.iter().any(|other| *other != one.event_id))
    };
    let unfollowed = contenders.iter().filter(|one| !is_followed(one));
    let unfollowed: Vec<&Contender<'_>> = unfollowed.collect();
    // In a cycle each follows another: then all of them contend.
    let remaining = match unfollowed.is_empty() {
        true => contenders.iter().collect(),
        false => unfollowed,
    };
    let last = remaining
        .iter()
        .max_by_key(|one| (one.rank, one.event_id))?;
    let is_decided = remaining
        .iter()
        .all(|one| one.rank < last.rank || one.state == last.state);
    Some(Latest {
        event_id: last.event_id.to_owned(),
        is_decided,
    })
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

    fn latest(contenders: &[(&str, i32, i64, Option<i64>)]) -> Latest {
        let forward: Vec<Contender<'_>> = contenders
            .iter()
            .map(|&(event_id, rank, state, previous)| Contender {
                rank,
                event_id,
                state,
                previous,
            })
            .collect();
        let mut backward = forward.clone();
        backward.reverse();
        let outcome = latest_of_second(&forward).unwrap();
        let reversed = latest_of_second(&backward).unwrap();
        assert_eq!(reversed, outcome, "the order must not matter");
        outcome
    }

    fn is(event_id: &str, is_decided: bool) -> Latest {
        let event_id = event_id.to_owned();
        Latest {
            event_id,
            is_decided,
        }
    }

    #[test]
    fn the_last_is_what_nothing_follows() {
        for (contenders, expected) in [
            // A chain against the event ids.
            (
                &[
                    ("evt_9", 1, 2, Some(1)),
                    ("evt_5", 1, 3, Some(2)),
                    ("evt_1", 1, 4, Some(3)),
                ][..],
                is("evt_1", true),
            ),
            // An update follows the creation it started from, whatever the ranks.
            (
                &[("evt_2", 900, 1, None), ("evt_1", 300, 2, Some(1))],
                is("evt_1", true),
            ),
            // There and back again: each follows the other.
            (
                &[("evt_1", 1, 2, Some(1)), ("evt_2", 1, 1, Some(2))],
                is("evt_2", false),
            ),
            // Equal snapshots need no decision.
            (
                &[("evt_1", 1, 2, None), ("evt_2", 1, 2, None)],
                is("evt_2", true),
            ),
            // Without evidence the greater rank, then the greater id.
            (
                &[("evt_1", 2, 2, None), ("evt_2", 1, 3, None)],
                is("evt_1", true),
            ),
            (
                &[("evt_1", 1, 2, None), ("evt_2", 1, 3, None)],
                is("evt_2", false),
            ),
            // Both started from the same.
            (
                &[
                    ("evt_1", 1, 1, None),
                    ("evt_2", 1, 2, Some(1)),
                    ("evt_3", 1, 3, Some(1)),
                ],
                is("evt_3", false),
            ),
            // An event that starts from what it shows itself follows nothing.
            (&[("evt_1", 1, 1, Some(1))], is("evt_1", true)),
        ] {
            assert_eq!(latest(contenders), expected, "{contenders:?}");
        }
    }
}
