//! Decides from the archived events which of two snapshots of one object in one second came last.

use jiff::Timestamp;
use serde_json::Value;

use super::Error;
use super::decision::Said;
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::objects::{Objects, Verdict};
use domain::stripe_objects::snapshot::{Contender, latest_of_second};
use store::ledger::State;
use stripe::event::Event;
use stripe::reader;

/// The archived events that show an object in a second in which an event to be applied shows it, too.
#[derive(Default)]
pub(super) struct Seconds(Vec<(Event, Objects)>);

impl Seconds {
    /// Reads the payloads.
    ///
    /// # Errors
    /// When one cannot be read. An archived event was applied, so it can be; an ignored one has no facts.
    pub(super) fn read(payloads: Vec<Value>) -> Result<Seconds, Error> {
        let read = |payload| {
            let event = Event::from_value(payload)?;
            let facts = reader::read(&event)?;
            Ok((event, facts))
        };
        Ok(Seconds(
            payloads
                .into_iter()
                .map(read)
                .collect::<Result<_, Error>>()?,
        ))
    }

    /// Judges the second of `event` when another snapshot of its object shares it; otherwise `None`. `said` are the
    /// events that are applied with it.
    pub(super) fn verdict(
        &self,
        event: &Event,
        said: &[Said<'_>],
        shown: &Objects,
        stored: &State,
        versions: &[SubscriptionVersion],
    ) -> Result<Option<Verdict>, Error> {
        let (Some(object_id), Some(created_at)) = (event.object_id(), event.created_at) else {
            return Ok(None);
        };
        let shown = shown.version(object_id);
        let mut versions = stored.versions.iter().chain(versions);
        let shares_second = shown
            .is_some_and(|(_, shown)| shown.is_seen() && shown.created_at == created_at)
            || versions.any(|version| {
                version.stripe_subscription_id == object_id
                    && version.source_created_at == created_at
            });
        if !shares_second {
            return Ok(None);
        }
        let archived = self.0.iter().map(|(event, facts)| (event, facts));
        let applied = said.iter().filter_map(|one| Some((one.event?, &one.facts)));
        let contenders: Vec<(&Event, &Objects, i32)> = archived
            .chain(applied)
            .filter(|(other, _)| {
                other.object_id() == Some(object_id) && other.created_at == Some(created_at)
            })
            .filter_map(|(other, facts)| {
                let (_, version) = facts.version(object_id)?;
                Some((other, facts, version.rank))
            })
            .collect();
        Ok(judge(object_id, created_at, &contenders))
    }
}

fn judge(
    object_id: &str,
    created_at: Timestamp,
    contenders: &[(&Event, &Objects, i32)],
) -> Option<Verdict> {
    let views: Vec<Contender<'_>> = contenders
        .iter()
        .map(|(event, _, rank)| Contender {
            rank: *rank,
            event_id: &event.event_id,
            object: &event.object,
            previous_attributes: event.previous_attributes.as_ref(),
        })
        .collect();
    let latest = latest_of_second(&views)?;
    let mut verdict = Verdict {
        object_id: object_id.to_owned(),
        created_at,
        winner: latest.event_id,
        objects: Objects::default(),
        overruled: Vec::new(),
        is_decided: latest.is_decided,
    };
    for (event, facts, _) in contenders {
        if event.event_id == verdict.winner {
            verdict.objects = (*facts).clone();
        } else {
            verdict.overruled.push(event.event_id.clone());
        }
    }
    Some(verdict)
}
