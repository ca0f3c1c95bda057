//! One batch in one transaction: each event once, the rollup, and the alerts it gives rise to.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ptr;

use domain::money::Currency;
use domain::partner::coverage::{Coverage, UnbillableReason, UsageSource, coverage};
use domain::partner::draft::last_instant;
use domain::partner::terms::History;
use domain::period::{Month, Period};
use domain::usage::{Event, Subject};
use futures_util::try_join;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use store::usage_events::NewEvent;
use store::usage_terms::{InvoicedPeriod, PartnerTerms, UserPlan};
use store::{contracts, locks, outbox, usage_events, usage_terms, waived_periods};
use tokio_postgres::{Client, Transaction};

use crate::meter::{Meter, standings};
use crate::{ATTEMPTS, alerts};

/// An event that may be written.
#[derive(Debug)]
pub(crate) struct Candidate {
    event: Event,
    subject: String,
    payload_sha256: String,
}

impl Candidate {
    pub(crate) fn new(event: Event) -> Candidate {
        Candidate {
            subject: event.subject.to_string(),
            payload_sha256: sha256(&event.payload),
            event,
        }
    }

    fn key(&self) -> (&str, &str) {
        (&self.subject, &self.event.idempotency_key)
    }
}

/// The verdict on one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// Accepted into a month that is invoiced: it goes on the next invoice.
    Late,
    /// Accepted, and counted by no invoice.
    Unbillable(UnbillableReason),
    /// The same event was stored before.
    Duplicate,
    /// An event with this key and other content was stored before.
    Conflict,
}

/// The outcome of a batch.
#[derive(Debug)]
pub(crate) struct Ingested {
    /// The verdict on each candidate, in the order given.
    pub(crate) verdicts: Vec<Verdict>,
    /// To be published after the commit.
    pub(crate) messages: Vec<outbox::Message>,
    /// `false` when a conflict made an atomic batch be taken back.
    pub(crate) is_stored: bool,
}

/// The hex digest of what a sender said.
pub(crate) fn sha256(payload: &str) -> String {
    hex::encode(Sha256::digest(payload.as_bytes()))
}

/// Writes the candidates in one transaction, and runs it again when it collided with another one. When `atomic`,
/// a conflict takes everything back.
pub(crate) async fn ingest(
    client: &mut Client,
    candidates: &[Candidate],
    atomic: bool,
    now: Timestamp,
) -> Result<Ingested, store::Error> {
    let mut attempt = 1;
    loop {
        match ingest_once(client, candidates, atomic, now).await {
            Err(error) if has_met_another(&error) && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// A key that was taken after it was looked up is found the next time. Only who writes without the subject's meter can.
fn has_met_another(error: &store::Error) -> bool {
    error.is_retryable() || matches!(error, store::Error::Conflict { .. })
}

async fn ingest_once(
    client: &mut Client,
    candidates: &[Candidate],
    atomic: bool,
    now: Timestamp,
) -> Result<Ingested, store::Error> {
    let transaction = client.transaction().await?;
    let ingested = write(&transaction, candidates, atomic, now).await?;
    if ingested.is_stored {
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(ingested)
}

async fn write(
    db: &Transaction<'_>,
    candidates: &[Candidate],
    atomic: bool,
    now: Timestamp,
) -> Result<Ingested, store::Error> {
    let terms = Terms::load(db, candidates, now).await?;
    // Of a key that comes twice the first counts.
    let mut of_keys = HashMap::with_capacity(candidates.len());
    let mut firsts = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        if let Entry::Vacant(entry) = of_keys.entry(candidate.key()) {
            firsts.push(*entry.insert(candidate));
        }
    }
    let events: Vec<NewEvent<'_>> = firsts
        .iter()
        .map(|candidate| terms.row(candidate))
        .collect();

    let month = Month::of(now);
    let meters = terms.meters(&firsts, month);
    // What they add to is read after they are written.
    let taken = usage_events::insert_all(db, &events, now).await?;
    let standings = standings(db, &meters, month).await?;

    let taken: HashMap<(&str, &str), Option<&str>> = taken
        .iter()
        .map(|((subject, key), digest)| ((subject.as_str(), key.as_str()), digest.as_deref()))
        .collect();
    let verdict = |candidate: &Candidate| {
        let key = candidate.key();
        let of_key = of_keys.get(&key).copied();
        let stored = match (taken.get(&key), of_key) {
            (Some(stored), _) => *stored,
            (None, Some(first)) if !ptr::eq(first, candidate) => Some(&*first.payload_sha256),
            (None, _) => return terms.verdict(candidate),
        };
        if stored == Some(candidate.payload_sha256.as_str()) {
            Verdict::Duplicate
        } else {
            Verdict::Conflict
        }
    };
    let verdicts: Vec<Verdict> = candidates.iter().map(verdict).collect();
    if atomic && verdicts.contains(&Verdict::Conflict) {
        return Ok(Ingested {
            verdicts,
            messages: Vec::new(),
            is_stored: false,
        });
    }
    let standings: Vec<_> = meters
        .iter()
        .map(|meter| meter.subject.as_str())
        .zip(standings)
        .collect();
    let messages = alerts::raise(db, &standings, month, now).await?;
    Ok(Ingested {
        verdicts,
        messages,
        is_stored: true,
    })
}

/// What the database says about the subjects of a batch.
struct Terms {
    users: HashMap<i32, UserPlan>,
    partners: HashMap<String, PartnerTerms>,
    contracts: HashMap<String, Contract>,
    invoiced: Vec<InvoicedPeriod>,
    now: Timestamp,
}

/// What is agreed with a partner, on every day.
struct Contract {
    /// `None` when its row cannot be read: then nobody can say what is billed.
    history: Option<History>,
    waived: Vec<Period>,
}

impl Terms {
    /// Locks the subjects' meters and reads their terms, in one flight.
    async fn load(
        db: &Transaction<'_>,
        candidates: &[Candidate],
        now: Timestamp,
    ) -> Result<Terms, store::Error> {
        let subjects: BTreeSet<&str> = candidates
            .iter()
            .map(|candidate| candidate.subject.as_str())
            .collect();
        let subjects: Vec<&str> = subjects.into_iter().collect();
        let user_ids: BTreeSet<i32> = candidates
            .iter()
            .filter_map(|candidate| candidate.event.subject.user_id())
            .collect();
        let user_ids: Vec<i32> = user_ids.into_iter().collect();
        let prefixes: BTreeSet<&str> = candidates
            .iter()
            .filter_map(|candidate| candidate.event.subject.api_key_prefix())
            .collect();
        let prefixes: Vec<&str> = prefixes.into_iter().collect();
        let oldest = candidates
            .iter()
            .map(|candidate| candidate.event.occurred_at)
            .min()
            .unwrap_or(Timestamp::MAX);
        let ((), users, partners, read, waived, invoiced) = try_join!(
            locks::take_meters(db, &subjects),
            usage_terms::of_users(db, &user_ids),
            usage_terms::of_partners(db, &prefixes),
            contracts_of(db, &prefixes),
            waived_of(db, &prefixes),
            usage_terms::invoiced_periods(db, &prefixes, oldest),
        )?;
        let mut contracts = HashMap::new();
        for read in read {
            let of_contract = waived
                .iter()
                .filter(|(prefix, _)| *prefix == read.row.api_key_prefix);
            let contract = Contract {
                history: read.contract(now).ok().map(|contract| contract.history),
                waived: of_contract.map(|(_, period)| *period).collect(),
            };
            contracts.insert(read.row.api_key_prefix, contract);
        }
        Ok(Terms {
            users: users.into_iter().map(|plan| (plan.user_id, plan)).collect(),
            partners: partners
                .into_iter()
                .map(|terms| (terms.api_key_prefix.clone(), terms))
                .collect(),
            contracts,
            invoiced,
            now,
        })
    }

    fn row<'a>(&self, candidate: &'a Candidate) -> NewEvent<'a> {
        let event = &candidate.event;
        NewEvent {
            subject: &candidate.subject,
            idempotency_key: &event.idempotency_key,
            user_id: event.subject.user_id(),
            api_key_prefix: event.subject.api_key_prefix(),
            event_type: &event.event_type,
            resource_id: event.resource_id.as_deref(),
            billable: event.billable,
            cost_units: event.cost_units,
            unit_price_cents: event.unit_price_cents,
            currency: self.currency(&event.subject),
            occurred_at: event.occurred_at,
            metadata: event.metadata.as_ref(),
            payload_sha256: &candidate.payload_sha256,
        }
    }

    /// Of the contract or the plan; USD for who has neither.
    fn currency(&self, subject: &Subject) -> Currency {
        let known = match subject {
            Subject::User(id) => self
                .users
                .get(id)
                .and_then(|plan| plan.terms.as_ref())
                .map(|terms| terms.currency),
            Subject::Partner(prefix) => self.partners.get(prefix).map(|terms| terms.currency),
        };
        known.unwrap_or(Currency::USD)
    }

    /// The limited subjects whose use of the month these events add to.
    fn meters(&self, candidates: &[&Candidate], month: Month) -> Vec<Meter> {
        let mut seen = HashSet::new();
        let mut meters = Vec::new();
        for candidate in candidates {
            let event = &candidate.event;
            if Month::of(event.occurred_at) != month || !seen.insert(&event.subject) {
                continue;
            }
            let meter = match &event.subject {
                Subject::User(id) => self
                    .users
                    .get(id)
                    .and_then(|plan| plan.terms.as_ref())
                    .map(|terms| Meter::of_user(*id, terms.included_units)),
                Subject::Partner(prefix) => self
                    .partners
                    .get(prefix)
                    .filter(|terms| terms.counts_usage_events)
                    .map(|terms| Meter::of_partner(terms.clone())),
            };
            meters.extend(meter.filter(|meter| meter.limit.is_some()));
        }
        meters
    }

    fn verdict(&self, candidate: &Candidate) -> Verdict {
        let event = &candidate.event;
        if let Some(reason) = self.unbillable(event) {
            return Verdict::Unbillable(reason);
        }
        match self.invoiced_period(event) {
            Some(period) if event.billable && self.now > last_instant(period) => {
                Verdict::Unbillable(UnbillableReason::TooLate)
            }
            Some(_) => Verdict::Late,
            None => Verdict::Accepted,
        }
    }

    /// Why no invoice will count a billable event of a partner; what users do is on no invoice of ours.
    fn unbillable(&self, event: &Event) -> Option<UnbillableReason> {
        let prefix = event.subject.api_key_prefix().filter(|_| event.billable)?;
        let contract = self.contracts.get(prefix);
        let (history, waived) = match contract {
            None => (None, [].as_slice()),
            Some(contract) => (Some(contract.history.as_ref()?), contract.waived.as_slice()),
        };
        let source = UsageSource::UsageEvents;
        let event_type = Some(event.event_type.as_str());
        match coverage(history, waived, event.occurred_at, source, event_type) {
            Ok(Coverage::Unbillable(reason)) => Some(reason),
            Ok(Coverage::Billed | Coverage::Unpriced) | Err(_) => None,
        }
    }

    /// The invoiced period that an event falls into.
    fn invoiced_period(&self, event: &Event) -> Option<Period> {
        let is_invoiced = |period: &&InvoicedPeriod| {
            event.subject.api_key_prefix() == Some(period.api_key_prefix.as_str())
                && period.start <= event.occurred_at
                && event.occurred_at < period.end
        };
        let period = self.invoiced.iter().find(is_invoiced)?;
        Period::new(period.start, period.end).ok()
    }
}

/// No statement for no partners.
async fn contracts_of(
    db: &Transaction<'_>,
    prefixes: &[&str],
) -> Result<Vec<contracts::Read>, store::Error> {
    if prefixes.is_empty() {
        return Ok(Vec::new());
    }
    contracts::read(db, contracts::Which::Prefixes(prefixes)).await
}

async fn waived_of(
    db: &Transaction<'_>,
    prefixes: &[&str],
) -> Result<Vec<(String, Period)>, store::Error> {
    if prefixes.is_empty() {
        return Ok(Vec::new());
    }
    waived_periods::of_partners(db, prefixes).await
}
