//! Decides from the archived events which of two snapshots of one object in one second came last.

use super::Error;
use super::state::Found;
use domain::stripe_objects::objects::{Objects, Verdict};
use domain::stripe_objects::snapshot::{Contender, latest_of_second};
use stripe::event::Event;
use stripe::reader;

/// Judges the second of `event` when another snapshot of its object shares it; otherwise `None`.
pub(super) fn verdict(event: &Event, found: &Found<'_>) -> Result<Option<Verdict>, Error> {
    let state = &found.opened.state;
    let (Some(object_id), Some(created_at)) = (event.object_id(), event.created_at) else {
        return Ok(None);
    };
    let shown = state.objects.version(object_id);
    let shares_second = shown
        .is_some_and(|(_, shown)| shown.is_seen() && shown.created_at == created_at)
        || state.versions.iter().any(|version| {
            version.stripe_subscription_id == object_id && version.source_created_at == created_at
        });
    if !shares_second {
        return Ok(None);
    }
    let others = found.opened.others_of_second.iter().cloned();
    let others = others
        .map(Event::from_value)
        .collect::<Result<Vec<_>, _>>()?;
    let mut contenders: Vec<(&Event, Objects, i32)> = Vec::new();
    for archived in others.iter().chain([event]) {
        // An archived event was applied, so it can be read. An ignored one has no facts.
        let facts = reader::read(archived)?;
        if let Some((_, version)) = facts.version(object_id) {
            let rank = version.rank;
            contenders.push((archived, facts, rank));
        }
    }
    let views: Vec<Contender<'_>> = contenders
        .iter()
        .map(|(archived, _, rank)| Contender {
            rank: *rank,
            event_id: &archived.event_id,
            object: &archived.object,
            previous_attributes: archived.previous_attributes.as_ref(),
        })
        .collect();
    let Some(latest) = latest_of_second(&views) else {
        return Ok(None);
    };
    let mut verdict = Verdict {
        object_id: object_id.to_owned(),
        winner: latest.event_id,
        objects: Objects::default(),
        overruled: Vec::new(),
        is_decided: latest.is_decided,
    };
    for (archived, facts, _) in contenders {
        if archived.event_id == verdict.winner {
            verdict.objects = facts;
        } else {
            verdict.overruled.push(archived.event_id.clone());
        }
    }
    Ok(Some(verdict))
}
