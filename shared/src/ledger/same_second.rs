//! Decides from the archived events which of two snapshots of one object in one second came last.

use serde_json::Value;
use tokio_postgres::GenericClient;

use super::Error;
use super::decision::Said;
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::objects::{Objects, Verdict};
use domain::stripe_objects::snapshot::{Contender, latest_of_second};
use store::ledger::{OfSecond, State};
use store::stripe_events;
use stripe::event::{Digests, Event};
use stripe::reader;

/// The rank of what an event shows of its object, and its digests; `None` when it shows nothing of it.
pub(super) fn shown(event: &Event, facts: &Objects) -> (i32, Option<Digests>) {
    let version = event.object_id().and_then(|id| facts.version(id));
    version.map_or((0, None), |(_, version)| {
        (version.rank, Some(event.digests()))
    })
}

/// The same of events that a former release has archived.
///
/// # Errors
/// When one cannot be read. It was applied, so it can be.
pub(super) fn digested(payloads: Vec<Value>) -> Result<Vec<(String, i32, Option<Digests>)>, Error> {
    let digested = payloads.into_iter().map(|payload| {
        let event = Event::from_value(payload)?;
        let (rank, digests) = shown(&event, &reader::read(&event)?);
        Ok((event.event_id, rank, digests))
    });
    digested.collect()
}

/// What is known of the seconds of the events that are applied together.
pub(super) struct Seconds {
    /// Events that were archived before.
    others: Vec<OfSecond>,
    /// What those of them say that came last without being shown.
    winners: Vec<(String, Objects)>,
}

impl Seconds {
    /// Finds out whose snapshot is the last one of each second; the payload of an archived event is read only when it is
    /// the last one and is not what the ledger shows.
    pub(super) async fn read(
        db: &impl GenericClient,
        others: Vec<OfSecond>,
        said: &[Said<'_>],
        stored: &State,
    ) -> Result<Seconds, Error> {
        let mut seconds = Seconds {
            others,
            winners: Vec::new(),
        };
        let mut unread = Vec::new();
        for event in said.iter().filter_map(|one| one.event) {
            if seconds.is_alone(event, said) {
                continue;
            }
            let Some(judged) = seconds.judge(event, said) else {
                continue;
            };
            let shown = stored.objects.version(&judged.object_id);
            let is_shown = shown.is_some_and(|(_, shown)| shown.event_id == judged.winner);
            let mut events = said.iter().filter_map(|one| one.event);
            let is_said = events.any(|one| one.event_id == judged.winner);
            if !is_shown && !is_said && !unread.contains(&judged.winner) {
                unread.push(judged.winner);
            }
        }
        if !unread.is_empty() {
            for payload in stripe_events::payloads(db, &unread).await? {
                let event = Event::from_value(payload)?;
                let facts = reader::read(&event)?;
                seconds.winners.push((event.event_id, facts));
            }
        }
        Ok(seconds)
    }

    /// Judges the second of `event` when another snapshot of its object shares it; otherwise `None`. `said` are the
    /// events that are applied with it, `all` is what the ledger shows with those of them that came before it.
    pub(super) fn verdict(
        &self,
        event: &Event,
        said: &[Said<'_>],
        all: &Objects,
        stored: &State,
        versions: &[SubscriptionVersion],
    ) -> Option<Verdict> {
        let (object_id, created_at) = (event.object_id()?, event.created_at?);
        let shown = all.version(object_id);
        let mut versions = stored.versions.iter().chain(versions);
        let shares_second = shown
            .is_some_and(|(_, shown)| shown.is_seen() && shown.created_at == created_at)
            || versions.any(|version| {
                version.stripe_subscription_id == object_id
                    && version.source_created_at == created_at
            });
        if !shares_second {
            return None;
        }
        let mut verdict = self.judge(event, said)?;
        let of_said = said.iter().find(|one| {
            one.event
                .is_some_and(|event| event.event_id == verdict.winner)
        });
        let archived = self.winners.iter().find(|(id, _)| *id == verdict.winner);
        verdict.objects = match (of_said, archived) {
            (Some(one), _) => one.facts.clone(),
            (None, Some((_, facts))) => facts.clone(),
            (None, None) => all.only(object_id),
        };
        Some(verdict)
    }

    /// Whether no other event shows the object of `event` in its second.
    fn is_alone(&self, event: &Event, said: &[Said<'_>]) -> bool {
        let is_other = |other: &OfSecond| {
            event.object_id() == Some(&other.object_id)
                && event.created_at == Some(other.created_at)
        };
        let events = said.iter().filter_map(|one| one.event);
        let events = events.filter(|other| {
            other.object_id() == event.object_id() && other.created_at == event.created_at
        });
        events.count() == 1 && !self.others.iter().any(is_other)
    }

    /// Whose snapshot is the last one of the second of `event`, without what that shows.
    fn judge(&self, event: &Event, said: &[Said<'_>]) -> Option<Verdict> {
        let (object_id, created_at) = (event.object_id()?, event.created_at?);
        let others = self.others.iter();
        let others =
            others.filter(|one| one.object_id == object_id && one.created_at == created_at);
        let others = others.filter_map(|one| {
            Some(Contender {
                rank: one.rank?,
                event_id: &one.event_id,
                state: one.state_digest?,
                previous: one.previous_digest,
            })
        });
        let of_said = said.iter().filter_map(|one| {
            let event = one.event?;
            let is_of_second =
                event.object_id() == Some(object_id) && event.created_at == Some(created_at);
            let (rank, digests) = is_of_second.then(|| shown(event, &one.facts))?;
            let Digests { state, previous } = digests?;
            Some(Contender {
                rank,
                event_id: &event.event_id,
                state,
                previous,
            })
        });
        let contenders: Vec<Contender<'_>> = others.chain(of_said).collect();
        let latest = latest_of_second(&contenders)?;
        let overruled = contenders.iter().map(|one| one.event_id);
        let overruled = overruled.filter(|id| *id != latest.event_id);
        Some(Verdict {
            object_id: object_id.to_owned(),
            created_at,
            overruled: overruled.map(str::to_owned).collect(),
            winner: latest.event_id,
            objects: Objects::default(),
            is_decided: latest.is_decided,
        })
    }
}
