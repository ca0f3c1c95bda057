//! Dated terms: what of a contract holds on a day.
//!
//! The terms of a day are the fold of all changes that are in force on it, oldest first; a null member restores its
//! default. A change names only what it changes, so that a tax entered today survives a price entered earlier for
//! January. Who the partner is, texts, numbers, limits and how it pays are not dated: they hold at once.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::partner::contract::{Contract, ContractStatus, Invalid, MEMBERS};
use crate::partner::cycle::{self, Calendar};
use crate::partner::status_codes::StatusCodes;
use crate::period::Period;

/// The members that are dated: what prices, counts, taxes or times, and the status.
pub const DATED: [&str; 17] = [
    "pricing_model",
    "currency",
    "monthly_flat_fee_cents",
    "per_deed_price_cents",
    "per_1000_requests_cents",
    "tiers",
    "tier_mode",
    "included_units",
    "minimum_commitment_cents",
    "unit_source",
    "billable_event_types",
    "billable_status_codes",
    "billing_cycle",
    "timezone",
    "taxes",
    STATUS,
    START,
];
const STATUS: &str = "status";
const START: &str = "contract_start_date";
const END: &str = "contract_end_date";
const CODES: &str = "billable_status_codes";
const FROM: &str = "effective_from";

/// Members as JSON, by name.
pub type Members = Map<String, Value>;

/// A change of dated members.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The id in `contract_changes`; 0 of one that is not stored.
    pub id: i64,
    /// The first day on which it holds; `None` of the first, since ever.
    pub effective_from: Option<Date>,
    /// What it changes; null restores a default.
    pub members: Members,
    pub created_at: Timestamp,
}

impl Change {
    /// A change that only sets a status.
    fn is_status_alone(&self) -> bool {
        self.members.len() == 1 && self.members.contains_key(STATUS)
    }

    fn sets(&self, status: ContractStatus) -> bool {
        self.members.get(STATUS).and_then(Value::as_str) == Some(status.as_str())
    }
}

/// The terms from a day on, until the next span begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The first day; `None` in the first span, since ever.
    pub from: Option<Date>,
    pub terms: Contract,
}

/// All that was, is and will be agreed with a partner. Valid on every day.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    at_once: Members,
    changes: Vec<Change>,
    spans: Vec<Span>,
}

/// A member that is not valid from a day on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invalid}{}", .day.map(|day| format!(" (from {day} on)")).unwrap_or_default())]
pub struct InvalidFrom {
    pub invalid: Invalid,
    /// The first day on which it is not; `None` when it never is.
    pub day: Option<Date>,
}

/// A contract as it is stored: its row, and the changes that are not revoked.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow {
    /// The id in `api_partner_contracts`.
    pub id: i64,
    /// The members that people write, as the row has them.
    pub members: Members,
    /// When a suspended contract was suspended; that day is the last one billed.
    pub suspended_at: Option<Timestamp>,
    /// When a canceled contract was canceled; that day is the last one billed.
    pub canceled_at: Option<Timestamp>,
    /// The suspensions that have ended, of a row from before changes were dated.
    pub suspensions: Vec<Suspension>,
    pub updated_at: Option<Timestamp>,
    /// The day on which terms became dated, or the row was written.
    pub terms_since: Date,
    /// The day that the row's columns are the terms of; `None` while its changes are not stored.
    pub projected_on: Option<Date>,
    pub changes: Vec<Change>,
}

/// A suspension that has ended. Its first and last day are billed, the days between are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// When the contract was suspended.
    pub suspended_at: Timestamp,
    /// When the contract was resumed.
    pub resumed_at: Timestamp,
}

/// A contract, with what its row says beyond the stored changes because somebody else wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredContract {
    /// The id in `api_partner_contracts`.
    pub id: i64,
    pub history: History,
    /// What has to be stored so that the changes say all that the row does.
    pub unstored: Amendment,
}

/// What an amendment does to the stored changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amendment {
    /// Ids of changes that are taken back.
    pub revoked: Vec<i64>,
    /// Changes to add, in this order.
    pub added: Vec<Change>,
}

impl Amendment {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty() && self.added.is_empty()
    }
}

/// What somebody wants changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amend {
    /// Dated members, `contract_end_date` among them; a null restores a default.
    pub members: Members,
    /// From which day on; the usual one when not given.
    pub effective_from: Option<Date>,
    /// Somebody has looked at what it does to days before the running cycle.
    pub reviewed: bool,
}

/// Why terms are not amended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Invalid(#[from] InvalidFrom),
    /// Something from the latest start on has been invoiced.
    #[error("something from the latest start on has been invoiced")]
    Invoiced,
    /// A contract that has ended cannot be suspended.
    #[error("a contract that has ended cannot be suspended")]
    Ended,
    #[error(transparent)]
    Cycle(#[from] cycle::Error),
}

fn refused(field: &str, expected: impl Into<String>) -> Refused {
    let invalid = Invalid {
        field: field.to_owned(),
        expected: expected.into(),
    };
    Refused::Invalid(InvalidFrom { invalid, day: None })
}

impl History {
    /// The fold of these changes, with the members that are not dated.
    ///
    /// # Errors
    /// Names the first member that is not valid, and the day.
    pub fn new(at_once: Members, mut changes: Vec<Change>) -> Result<History, InvalidFrom> {
        // A stable sort: those that are not stored yet come after those that are, in their own order.
        changes.sort_by_key(|change| {
            let id = if change.id == 0 { i64::MAX } else { change.id };
            (change.effective_from, id)
        });
        let mut members = at_once.clone();
        members.retain(|name, _| !is_dated(name) && name != "tax_rate_bps");
        let at_once = members.clone();
        let mut spans: Vec<Span> = Vec::new();
        let mut left = changes.iter().peekable();
        while let Some(change) = left.next() {
            for (name, value) in &change.members {
                members.insert(name.clone(), value.clone());
            }
            let day = change.effective_from;
            if left.peek().is_some_and(|next| next.effective_from == day) {
                continue;
            }
            let terms = Contract::parse(&members);
            let terms = terms.map_err(|invalid| InvalidFrom { invalid, day })?;
            // The first holds since ever, also when it has a day.
            let from = day.filter(|_| !spans.is_empty());
            spans.push(Span { from, terms });
        }
        if spans.is_empty() {
            let invalid = Invalid {
                field: START.to_owned(),
                expected: "a contract has terms".to_owned(),
            };
            return Err(InvalidFrom { invalid, day: None });
        }
        Ok(History {
            at_once,
            changes,
            spans,
        })
    }

    /// The terms, oldest first.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The changes, in the order in which they hold.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The terms of a day.
    #[must_use]
    pub fn on(&self, day: Date) -> &Contract {
        let held = |span: &&Span| span.from.is_none_or(|from| from <= day);
        let span = self.spans.iter().rev().find(held);
        // Expect safety: the first span holds since ever.
        &span.unwrap_or(&self.spans[0]).terms
    }

    /// The day that an instant falls into, in the time zone of then.
    ///
    /// # Errors
    /// When the time zone is not known.
    pub fn day_of(&self, instant: Timestamp) -> Result<Date, cycle::Error> {
        for span in self.spans.iter().rev() {
            let day = zone(&span.terms)?.to_datetime(instant).date();
            if span.from.is_none_or(|from| from <= day) {
                return Ok(day);
            }
        }
        Ok(zone(&self.spans[0].terms)?.to_datetime(instant).date())
    }

    /// The terms of an instant's day.
    ///
    /// # Errors
    /// When the time zone is not known.
    pub fn at(&self, instant: Timestamp) -> Result<&Contract, cycle::Error> {
        Ok(self.on(self.day_of(instant)?))
    }

    /// Whether a day is billed as far as status, start and `billed_from` go.
    #[must_use]
    pub fn is_billed(&self, day: Date) -> bool {
        let terms = self.on(day);
        let first = terms.contract_start_date.max(terms.billed_from);
        terms.status == ContractStatus::Active && first.is_some_and(|first| first <= day)
    }

    /// The latest start: when the contract began, or came back for the last time.
    #[must_use]
    pub fn latest_start(&self) -> Option<Date> {
        self.spans.last()?.terms.contract_start_date
    }

    /// From which day on the contract has ended for good; `None` while it is open.
    #[must_use]
    pub fn ended_on(&self) -> Option<Date> {
        let is_over = |span: &&Span| span.terms.status == ContractStatus::Canceled;
        let over: Vec<&Span> = self.spans.iter().rev().take_while(is_over).collect();
        over.last()?.from
    }

    /// The next change that is not in force on a day, with all that it changes.
    #[must_use]
    pub fn next_change(&self, today: Date) -> Option<(Date, Members)> {
        let next = self
            .changes
            .iter()
            .filter_map(|change| change.effective_from);
        let day = next.filter(|day| *day > today).min()?;
        let mut members = Members::new();
        let on_day = |change: &&Change| change.effective_from == Some(day);
        for change in self.changes.iter().filter(on_day) {
            members.extend(change.members.clone());
        }
        Some((day, members))
    }

    /// The history with an amendment.
    ///
    /// # Errors
    /// Names the first member that is not valid any more, and the day.
    pub fn amended(&self, amendment: &Amendment) -> Result<History, InvalidFrom> {
        let mut changes = self.changes.clone();
        changes.retain(|change| change.id == 0 || !amendment.revoked.contains(&change.id));
        changes.extend(amendment.added.iter().cloned());
        History::new(self.at_once.clone(), changes)
    }

    /// The same changes under other members that are not dated.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn with_at_once(&self, at_once: Members) -> Result<History, InvalidFrom> {
        History::new(at_once, self.changes.clone())
    }
}

/// The time zone of some terms.
pub(crate) fn zone(terms: &Contract) -> Result<TimeZone, cycle::Error> {
    TimeZone::get(&terms.timezone).map_err(|_not_in_the_database| cycle::Error::TimeZone)
}

fn tomorrow(day: Date) -> Date {
    day.saturating_add(1.day())
}

fn yesterday(day: Date) -> Date {
    day.saturating_sub(1.day())
}

/// What the columns of a contract's row say on a day.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// The terms of the day. The status is that of the day's end: what ends a day's billing is said on the day, as it
    /// always was, and the day itself is billed.
    pub terms: Contract,
    /// When it was suspended; `None` while it is not.
    pub suspended_at: Option<Timestamp>,
    /// When it was canceled; `None` while it is not.
    pub canceled_at: Option<Timestamp>,
}

impl History {
    /// What the columns say on this day.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn project(&self, today: Date) -> Result<Projection, cycle::Error> {
        let ends = tomorrow(today);
        let mut terms = self.on(today).clone();
        terms.status = self.on(ends).status;
        let canceled = self
            .changes
            .iter()
            .filter(|change| change.sets(ContractStatus::Canceled));
        let in_force = self.since(ContractStatus::Canceled, ends);
        let next = canceled
            .filter_map(|change| change.effective_from)
            .find(|from| *from > ends);
        terms.contract_end_date = match in_force {
            Some(change) => change.effective_from.map(yesterday),
            None => next.map(yesterday),
        }
        // One that was canceled before it began has no last day.
        .filter(|last_day| {
            terms
                .contract_start_date
                .is_none_or(|start| start <= *last_day)
        });
        let at = |change: Option<&Change>| -> Result<Option<Timestamp>, cycle::Error> {
            let Some((change, from)) =
                change.and_then(|change| Some((change, change.effective_from?)))
            else {
                return Ok(None);
            };
            let last_day = yesterday(from);
            if self.day_of(change.created_at)? == last_day {
                return Ok(Some(change.created_at));
            }
            cycle::midnight(last_day, &zone(self.on(last_day))?).map(Some)
        };
        Ok(Projection {
            suspended_at: at(self.since(ContractStatus::Suspended, ends))?,
            canceled_at: at(in_force)?,
            terms,
        })
    }

    /// The change since which a status holds on a day; `None` when another one does.
    fn since(&self, status: ContractStatus, day: Date) -> Option<&Change> {
        let of_day = self.changes.iter();
        let of_day = of_day.filter(|change| change.effective_from.is_none_or(|from| from <= day));
        let statuses: Vec<&Change> = of_day
            .filter(|change| change.members.contains_key(STATUS))
            .collect();
        let held = statuses
            .iter()
            .rev()
            .take_while(|change| change.sets(status));
        held.last().copied()
    }
}

impl StoredRow {
    /// The contract, as changes. Where the row says more than the stored changes do (it has none yet, or the host has
    /// written its columns), that is read as the changes which a person would have entered on the day it was written.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn read(&self, now: Timestamp) -> Result<StoredContract, Invalid> {
        let row = Contract::parse(&self.members)?;
        let (history, unstored) = if self.changes.is_empty() {
            let added = self.changes_of_row(&row)?;
            let history = History::new(self.members.clone(), added.clone());
            let revoked = Vec::new();
            (
                history.map_err(|error| error.invalid)?,
                Amendment { revoked, added },
            )
        } else {
            let history = History::new(self.members.clone(), self.changes.clone());
            let history = history.map_err(|error| error.invalid)?;
            let unstored = self.written_by_host(&history, &row, now)?;
            let with_host = history.amended(&unstored).map_err(|error| error.invalid)?;
            (with_host, unstored)
        };
        Ok(StoredContract {
            id: self.id,
            history,
            unstored,
        })
    }

    /// The contract as its changes say, whatever its columns do.
    ///
    /// # Errors
    /// Names the first member that is not valid.
    pub fn read_changes(&self) -> Result<StoredContract, Invalid> {
        let history = History::new(self.members.clone(), self.changes.clone());
        Ok(StoredContract {
            id: self.id,
            history: history.map_err(|error| error.invalid)?,
            unstored: Amendment::default(),
        })
    }

    /// A row without changes: its terms since ever, then its suspensions and its end.
    fn changes_of_row(&self, row: &Contract) -> Result<Vec<Change>, Invalid> {
        let unreadable = |_error: cycle::Error| Invalid {
            field: "timezone".to_owned(),
            expected: "an IANA time zone".to_owned(),
        };
        let zone = zone(row).map_err(unreadable)?;
        let day_of = |instant: Timestamp| zone.to_datetime(instant).date();
        let since_ever = Timestamp::UNIX_EPOCH;
        let mut members = row.dated();
        members.retain(|_, value| !value.is_null());
        members.insert(STATUS.to_owned(), json!(ContractStatus::Active));
        // Each of the gateway's rows counted, until the cycle in which that changes.
        let counts_each_row = !self.members.get(CODES).is_some_and(Value::is_string);
        if counts_each_row {
            members.insert(CODES.to_owned(), json!(StatusCodes::All));
        }
        let change = |effective_from, status: ContractStatus, created_at| Change {
            id: 0,
            effective_from: Some(effective_from),
            members: Members::from_iter([(STATUS.to_owned(), json!(status))]),
            created_at,
        };
        let mut changes = vec![Change {
            id: 0,
            effective_from: None,
            members,
            created_at: since_ever,
        }];
        let canceled_at = match (row.status, self.canceled_at) {
            // Without a date it was never active here.
            (ContractStatus::Canceled, None) => {
                row.billed_from.map(yesterday).map(|day| (day, since_ever))
            }
            (_, canceled_at) => canceled_at.map(|at| (day_of(at), at)),
        };
        let ended = row.contract_end_date.map(|day| (day, since_ever));
        let last = [canceled_at, ended].into_iter().flatten().min();
        let is_before_end = |day: Date| last.is_none_or(|(last, _)| day <= last);
        let mut since = |status, last_day: Date, at| {
            if is_before_end(last_day) {
                changes.push(change(tomorrow(last_day), status, at));
            }
        };
        for suspension in &self.suspensions {
            let (first, last) = (suspension.suspended_at, suspension.resumed_at);
            // The days of both are billed.
            if tomorrow(day_of(first)) < day_of(last) {
                since(ContractStatus::Suspended, day_of(first), first);
                since(ContractStatus::Active, yesterday(day_of(last)), last);
            }
        }
        let suspended_at = match (row.status, self.suspended_at) {
            (ContractStatus::Suspended, None) => {
                row.billed_from.map(yesterday).map(|day| (day, since_ever))
            }
            (_, suspended_at) => suspended_at.map(|at| (day_of(at), at)),
        };
        if let Some((day, at)) = suspended_at {
            since(ContractStatus::Suspended, day, at);
        }
        if let Some((day, at)) = last {
            changes.push(change(tomorrow(day), ContractStatus::Canceled, at));
        }
        if counts_each_row && let Some(anchor) = row.contract_start_date.or(row.billed_from) {
            let cycle =
                cycle::cycle_of(self.terms_since, anchor.first_of_month(), row.billing_cycle);
            changes.push(Change {
                id: 0,
                effective_from: Some(cycle),
                members: Members::from_iter([(CODES.to_owned(), Value::Null)]),
                created_at: since_ever,
            });
        }
        Ok(changes)
    }

    /// What the columns say that the changes do not.
    fn written_by_host(
        &self,
        history: &History,
        row: &Contract,
        now: Timestamp,
    ) -> Result<Amendment, Invalid> {
        let Some(projected_on) = self.projected_on else {
            return Ok(Amendment::default());
        };
        let unreadable = |error: &dyn std::fmt::Display| Invalid {
            field: "timezone".to_owned(),
            expected: error.to_string(),
        };
        let projected = history
            .project(projected_on)
            .map_err(|error| unreadable(&error))?;
        let (ours, theirs) = (columns(&projected.terms), columns(row));
        let mut members = Members::new();
        for (name, value) in theirs {
            if ours.get(&name) != Some(&value) {
                members.insert(name, value);
            }
        }
        if members.is_empty() {
            return Ok(Amendment::default());
        }
        let projected_at = projected_on
            .to_zoned(TimeZone::UTC)
            .map(|zoned| zoned.timestamp());
        let is_later =
            |at: &Timestamp| projected_at.as_ref().is_ok_and(|projected| at >= projected);
        let dates = [self.suspended_at, self.canceled_at, self.updated_at];
        let written_at = dates.into_iter().flatten().filter(is_later).max();
        let written_at = written_at.unwrap_or(now).min(now);
        let wanted = Amend {
            members,
            effective_from: None,
            reviewed: true,
        };
        history
            .amend(&wanted, &[], written_at)
            .map_err(|refused| match refused {
                Refused::Invalid(error) => error.invalid,
                other @ (Refused::Invoiced | Refused::Ended | Refused::Cycle(_)) => {
                    unreadable(&other)
                }
            })
    }
}

/// The dated columns of a row, the end among them.
fn columns(terms: &Contract) -> Members {
    let mut members = terms.dated();
    members.insert(END.to_owned(), json!(terms.contract_end_date));
    members
}

/// A history while it is being amended.
struct Amending {
    history: History,
    amendment: Amendment,
    today: Date,
    now: Timestamp,
}

impl Amending {
    fn apply(&mut self, amendment: Amendment) -> Result<(), InvalidFrom> {
        self.history = self.history.amended(&amendment)?;
        self.amendment.revoked.extend(amendment.revoked);
        self.amendment.added.extend(amendment.added);
        Ok(())
    }

    fn add(&mut self, effective_from: Option<Date>, members: Members) -> Result<(), InvalidFrom> {
        let created_at = self.now;
        self.apply(Amendment {
            revoked: Vec::new(),
            added: vec![Change {
                id: 0,
                effective_from,
                members,
                created_at,
            }],
        })
    }

    fn set(&mut self, from: Date, status: ContractStatus) -> Result<(), InvalidFrom> {
        self.add(
            Some(from),
            Members::from_iter([(STATUS.to_owned(), json!(status))]),
        )
    }

    /// Takes back the status of a change; what else it changes stays.
    fn revoke_status(&mut self, change: &Change) -> Result<(), InvalidFrom> {
        if change.id == 0 {
            // It is only about to be added.
            let is_it = |other: &Change| other == change;
            self.amendment.added.retain(|other| !is_it(other));
            let mut changes = self.history.changes.clone();
            changes.retain(|other| !is_it(other));
            self.history = History::new(self.history.at_once.clone(), changes)?;
        } else {
            self.apply(Amendment {
                revoked: vec![change.id],
                added: Vec::new(),
            })?;
        }
        if change.is_status_alone() {
            return Ok(());
        }
        let mut rest = change.members.clone();
        rest.remove(STATUS);
        self.add(change.effective_from, rest)
    }
}

impl History {
    /// What has to be stored so that the members hold as somebody wants. `invoiced` are the periods of its invoices.
    ///
    /// # Errors
    /// Names the member that is not valid, or says what stands in the way.
    pub fn amend(
        &self,
        wanted: &Amend,
        invoiced: &[Period],
        now: Timestamp,
    ) -> Result<Amendment, Refused> {
        let today = self.day_of(now)?;
        let mut amending = Amending {
            history: self.clone(),
            amendment: Amendment::default(),
            today,
            now,
        };
        let mut rest = wanted.members.clone();
        if let Some(start) = rest.remove(START) {
            amending.start(&start, invoiced)?;
        }
        let running = amending.running_cycle(invoiced)?;
        let is_early = |day: Date| day < running.running && !wanted.reviewed;
        if wanted.effective_from.is_some_and(is_early) {
            let running = running.running;
            return Err(refused(
                FROM,
                format!("not before {running}, where the running cycle began, unless reviewed"),
            ));
        }
        if let Some(end) = rest.remove(END) {
            amending.end(&end, is_early)?;
        }
        let mut returned_on = None;
        if let Some(status) = rest.remove(STATUS) {
            returned_on = amending.status(&status, wanted.effective_from)?;
        }
        let from = match (wanted.effective_from, returned_on) {
            (Some(from), _) | (None, Some(from)) => from,
            (None, None) => running.first_open,
        };
        let before = amending.history.on(from).dated();
        rest.retain(|name, value| match before.get(name) {
            Some(known) => known != value,
            None => true,
        });
        if rest.is_empty() {
            return Ok(amending.amendment);
        }
        amending.check_first_day(from)?;
        amending.add(Some(from), rest)?;
        Ok(amending.amendment)
    }
}

impl History {
    /// The changes by which a partner comes back whose contract ends before its new start: all dated members have the
    /// values given, or their defaults. `None` when the contract has not ended by then, or nothing says when it starts.
    #[must_use]
    pub fn returned(&self, mut members: Members, now: Timestamp) -> Option<Amendment> {
        let start: Date = members.get(START)?.as_str()?.parse().ok()?;
        if self.ended_on()? > start {
            return None;
        }
        let end: Option<Date> = members
            .remove(END)
            .and_then(|end| end.as_str().and_then(|end| end.parse().ok()));
        members.insert(STATUS.to_owned(), json!(ContractStatus::Active));
        for name in DATED {
            members.entry(name).or_insert(Value::Null);
        }
        members.retain(|name, _| is_dated(name));
        let change = |effective_from, members| Change {
            id: 0,
            effective_from: Some(effective_from),
            members,
            created_at: now,
        };
        let mut added = vec![change(start, members)];
        if let Some(end) = end {
            let canceled =
                Members::from_iter([(STATUS.to_owned(), json!(ContractStatus::Canceled))]);
            added.push(change(tomorrow(end), canceled));
        }
        Some(Amendment {
            revoked: Vec::new(),
            added,
        })
    }
}

/// Where changes without a date begin.
struct Running {
    /// The first day of the cycle that runs today.
    running: Date,
    /// The same, or the first day of the first cycle that is not invoiced if that is later.
    first_open: Date,
}

impl Amending {
    fn running_cycle(&self, invoiced: &[Period]) -> Result<Running, Refused> {
        let calendar = Calendar::new(&self.history, invoiced)?;
        let running = calendar.cycle_first_day(self.today);
        let first_open = calendar.first_open_cycle(self.today)?;
        Ok(Running {
            running,
            first_open,
        })
    }

    /// Moves the latest start.
    fn start(&mut self, start: &Value, invoiced: &[Period]) -> Result<(), Refused> {
        let day: Option<Date> = start.as_str().and_then(|text| text.parse().ok());
        let before = self.history.latest_start();
        if day == before {
            return Ok(());
        }
        let Some(day) = day else {
            return Err(refused(START, "it is missing"));
        };
        let of_change = |change: &&Change| change.members.get(START).is_some_and(Value::is_string);
        let starts = self.history.changes.iter().rev().find(of_change).cloned();
        let first = before.map_or(day, |before| before.min(day));
        let zone = zone(self.history.on(first))?;
        let from = cycle::midnight(first, &zone)?;
        if before.is_some() && invoiced.iter().any(|period| period.end > from) {
            return Err(Refused::Invoiced);
        }
        match starts {
            // A return: it moves as a whole.
            Some(change) if change.effective_from.is_some() => {
                let revoked = Amendment {
                    revoked: vec![change.id],
                    added: Vec::new(),
                };
                self.apply(revoked)?;
                if self.history.is_billed(yesterday(day)) || self.history.is_billed(day) {
                    return Err(refused(START, "after the day on which the contract ended"));
                }
                let mut members = change.members;
                members.insert(START.to_owned(), start.clone());
                self.add(Some(day), members)?;
            }
            Some(_) | None => {
                let members = Members::from_iter([(START.to_owned(), start.clone())]);
                self.add(None, members)?;
            }
        }
        Ok(())
    }

    /// Moves, sets or takes away the last billed day.
    fn end(&mut self, end: &Value, is_early: impl Fn(Date) -> bool) -> Result<(), Refused> {
        let last_day: Option<Date> = end.as_str().and_then(|text| text.parse().ok());
        let from = last_day.map(tomorrow);
        let before = self.history.ended_on();
        if from == before {
            return Ok(());
        }
        if last_day.is_some_and(|day| Some(day) < self.history.latest_start()) {
            return Err(refused(END, "not before contract_start_date"));
        }
        if let Some(before) = before {
            if before > self.today {
                let ends = |change: &&Change| {
                    change.sets(ContractStatus::Canceled)
                        && change.effective_from.is_some_and(|from| from >= before)
                };
                let ends: Vec<Change> = self.history.changes.iter().filter(ends).cloned().collect();
                for change in ends {
                    self.revoke_status(&change)?;
                }
            } else if from.is_none_or(|from| from > before) {
                self.set(before, ContractStatus::Active)?;
            }
        }
        if let Some(from) = from {
            if is_early(from) {
                return Err(refused(
                    END,
                    "not before the running cycle, unless reviewed",
                ));
            }
            self.set(from, ContractStatus::Canceled)?;
        }
        Ok(())
    }

    /// Suspends, ends or resumes. Returns the day of a return.
    fn status(&mut self, status: &Value, on: Option<Date>) -> Result<Option<Date>, Refused> {
        let status = match status.as_str() {
            None => ContractStatus::Active,
            Some(word) => {
                let status = ContractStatus::parse(word);
                status.ok_or_else(|| refused(STATUS, "active, suspended or canceled"))?
            }
        };
        if status != ContractStatus::Active {
            let from = on.unwrap_or_else(|| tomorrow(self.today));
            let held = self.history.on(from).status;
            if held == ContractStatus::Canceled && status == ContractStatus::Suspended {
                return Err(Refused::Ended);
            }
            if held != status {
                self.set(from, status)?;
            }
            return Ok(None);
        }
        let from = on.unwrap_or(self.today);
        if from <= self.today {
            let is_next = |change: &&Change| {
                change.effective_from.is_some_and(|day| day > self.today)
                    && change.members.contains_key(STATUS)
                    && !change.sets(ContractStatus::Active)
            };
            let next: Vec<Change> = self
                .history
                .changes
                .iter()
                .filter(is_next)
                .cloned()
                .collect();
            for change in next {
                self.revoke_status(&change)?;
            }
        }
        if self.history.on(from).status == ContractStatus::Active {
            let was_away = self.history.on(yesterday(from)).status != ContractStatus::Active;
            return Ok(was_away.then_some(from));
        }
        self.set(from, ContractStatus::Active)?;
        Ok(Some(from))
    }

    /// Prices change where a cycle begins, or the contract does.
    fn check_first_day(&self, from: Date) -> Result<(), Refused> {
        let calendar = Calendar::new(&self.history, &[])?;
        let cycle = calendar.cycle_first_day(from);
        let returns = self.history.is_billed(from) && !self.history.is_billed(yesterday(from));
        if cycle == from || returns {
            return Ok(());
        }
        let next = calendar.next_cycle_first_day(from);
        Err(refused(
            FROM,
            format!("the first day of a cycle, such as {cycle} or {next}, or of a return"),
        ))
    }
}

impl Contract {
    /// Its dated members, as they are written; null where they have no value.
    #[must_use]
    pub fn dated(&self) -> Members {
        let members = json!({
            "pricing_model": self.pricing_model,
            "currency": self.currency,
            "monthly_flat_fee_cents": self.monthly_flat_fee_cents,
            "per_deed_price_cents": self.per_deed_price_cents,
            "per_1000_requests_cents": self.per_1000_requests_cents,
            "tiers": self.tiers_as_json(),
            "tier_mode": self.tier_mode,
            "included_units": self.included_units,
            "minimum_commitment_cents": self.minimum_commitment_cents,
            "unit_source": self.unit_source,
            "billable_event_types": self.billable_event_types,
            "billable_status_codes": self.billable_status_codes,
            "billing_cycle": self.billing_cycle,
            "timezone": self.timezone,
            "taxes": self.taxes,
            (STATUS): self.status,
            (START): self.contract_start_date,
        });
        members.as_object().cloned().unwrap_or_default()
    }
}

/// Whether a member is dated; `contract_end_date` is, by the change that it stands for.
#[must_use]
pub fn is_dated(member: &str) -> bool {
    DATED.contains(&member) || member == END
}

/// The members that hold at once.
pub fn at_once() -> impl Iterator<Item = &'static str> {
    MEMBERS.into_iter().filter(|member| !is_dated(member))
}

/// How long after its end usage of an invoiced period is still billed: 396 days, so that an annual cycle's first days
/// have a month as well.
pub const LATE_FOR: SignedDuration = SignedDuration::from_hours(24 * 396);

#[cfg(test)]
mod tests;
