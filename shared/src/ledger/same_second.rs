//! Decides from the archived events which of two snapshots of one object in one second came last.

use tokio_postgres::GenericClient;

use super::Error;
use super::neighbourhood::Neighbourhood;
use domain::stripe_objects::snapshot::{Contender, Snapshot, Version, latest_of_second};
use store::stripe_events;
use stripe::event::Event;
use stripe::reader::{self, Facts};

/// What the archived events of one second show about one object.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) object_id: String,
    /// The event with the last snapshot of the second.
    pub(super) winner: String,
    /// The facts of that event.
    pub(super) facts: Facts,
    /// The other events of the second.
    pub(super) overruled: Vec<String>,
    pub(super) is_decided: bool,
}

impl Verdict {
    /// Whether the snapshot of this event was judged.
    pub(super) fn has_heard(&self, event_id: &str) -> bool {
        self.winner == event_id || self.overruled.iter().any(|other| other == event_id)
    }
}

/// Judges the second of `event` when another snapshot of its object shares it; otherwise `None`.
pub(super) async fn verdict(
    db: &impl GenericClient,
    event: &Event,
    neighbourhood: &Neighbourhood,
) -> Result<Option<Verdict>, Error> {
    let (Some(object_id), Some(created_at)) = (event.object_id(), event.created_at) else {
        return Ok(None);
    };
    let shown = neighbourhood.shown(object_id);
    let shares_second = shown.is_some_and(|shown| shown.created_at == created_at)
        || neighbourhood.versions.iter().any(|version| {
            version.stripe_subscription_id == object_id && version.source_created_at == created_at
        });
    if !shares_second {
        return Ok(None);
    }
    let mut contenders: Vec<(Event, Facts, i32)> = Vec::new();
    for payload in stripe_events::of_second(db, object_id, created_at).await? {
        let archived = Event::from_value(payload)?;
        // An archived event was applied, so it can be read. An ignored one has no facts.
        let facts = reader::read(&archived)?;
        if let Some(rank) = rank_of(&facts, object_id) {
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
        facts: Facts::default(),
        overruled: Vec::new(),
        is_decided: latest.is_decided,
    };
    for (archived, facts, _) in contenders {
        if archived.event_id == verdict.winner {
            verdict.facts = facts;
        } else {
            verdict.overruled.push(archived.event_id);
        }
    }
    Ok(Some(verdict))
}

impl Neighbourhood {
    /// The version of the stored row of an object of any kind.
    fn shown(&self, object_id: &str) -> Option<&Version> {
        fn of<'a, T: Snapshot + 'a>(
            rows: impl IntoIterator<Item = &'a T>,
            object_id: &str,
        ) -> Option<&'a Version> {
            rows.into_iter()
                .find(|row| row.key() == object_id)
                .map(Snapshot::version)
        }
        let snapshots = self
            .subscriptions
            .values()
            .filter_map(|row| row.snapshot.as_ref());
        of(
            self.customers.values().map(|stored| &stored.customer),
            object_id,
        )
        .or_else(|| of(snapshots, object_id))
        .or_else(|| of(&self.invoices, object_id))
        .or_else(|| of(&self.intents, object_id))
        .or_else(|| of(&self.charges, object_id))
        .or_else(|| of(&self.refunds, object_id))
        .or_else(|| of(&self.disputes, object_id))
        .or_else(|| of(&self.sessions, object_id))
        .or_else(|| of(&self.credit_notes, object_id))
        .or_else(|| of(&self.prices, object_id))
        .or_else(|| of(&self.coupons, object_id))
        .filter(|version| version.is_seen())
    }
}

fn rank_of(facts: &Facts, object_id: &str) -> Option<i32> {
    fn of<T: Snapshot>(facts: &[T], object_id: &str) -> Option<i32> {
        facts
            .iter()
            .find(|fact| fact.key() == object_id)
            .map(|fact| fact.version().rank)
    }
    of(&facts.customers, object_id)
        .or_else(|| of(&facts.subscriptions, object_id))
        .or_else(|| of(&facts.invoices, object_id))
        .or_else(|| of(&facts.payment_intents, object_id))
        .or_else(|| of(&facts.charges, object_id))
        .or_else(|| of(&facts.refunds, object_id))
        .or_else(|| of(&facts.disputes, object_id))
        .or_else(|| of(&facts.checkout_sessions, object_id))
        .or_else(|| of(&facts.credit_notes, object_id))
        .or_else(|| of(&facts.prices, object_id))
        .or_else(|| of(&facts.coupons, object_id))
}
