//! The calendar of a contract: its cycles, which of their days are billed, and which of them are not billed yet.
//!
//! Days are the contract's own: they begin at midnight in its time zone. A cycle begins on the 1st, counted from the month
//! the contract starts, or comes back, in. The billed part of a cycle is the part inside the contract, less suspended days
//! and days that an invoice has billed already. No change of cycle, dates or time zone therefore bills a day twice. A
//! period has one set of terms: where other terms begin within a cycle, so does another period.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

use crate::partner::contract::{BillingCycle, Contract, ContractStatus, PaymentTerms};
use crate::partner::terms::{History, zone};
use crate::period::Period;

/// Why the calendar of a contract cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The contract's time zone is not an IANA name.
    #[error("the contract's time zone is not known")]
    TimeZone,
    /// A day is beyond the range of instants.
    #[error("a day of the contract is beyond the calendar")]
    OutOfRange,
}

/// The days `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Days {
    from: Date,
    to: Date,
}

impl Days {
    fn count(self) -> i64 {
        i64::from((self.to - self.from).get_days())
    }

    /// The days of both; `None` when there are none.
    fn and(self, other: Days) -> Option<Days> {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from < to).then_some(Days { from, to })
    }
}

/// How much of a cycle is billed; fixed amounts are prorated by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How many months the cycle has.
    pub months: i64,
    /// How many of its days are billed.
    pub billed_days: i64,
    /// How many days the cycle has.
    pub cycle_days: i64,
}

impl Share {
    /// Whether every day of the cycle is billed.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.billed_days == self.cycle_days
    }
}

/// The part of one cycle that is to be billed.
#[derive(Debug, Clone, PartialEq)]
pub struct BillingPeriod {
    /// The terms of its first billed day: all of it is billed by them.
    pub terms: Contract,
    /// The first day of the cycle.
    pub cycle_from: Date,
    /// The first day of the next cycle.
    pub cycle_to: Date,
    /// The first billed day.
    pub first_day: Date,
    /// The last billed day.
    pub last_day: Date,
    /// The share of the cycle that is billed.
    pub share: Share,
    /// From the first billed instant to the last: the period of the invoice.
    pub period: Period,
    /// The stretches in which usage is counted: `period` without suspensions. Never empty.
    pub usage: Vec<Period>,
    /// When it can be billed: at the end of its cycle, or when the contract has ended for good.
    pub ends_at: Timestamp,
    /// The day that begins at `ends_at`, in the contract's time zone.
    pub ends_on: Date,
    /// The contract's time zone, in which its days begin.
    pub zone: TimeZone,
}

impl BillingPeriod {
    /// When an invoice of the period is due: the end of the last of the terms' days after the period, in the contract's
    /// time zone. Never before the invoice is issued.
    #[must_use]
    pub fn due_at(&self, terms: PaymentTerms, issued_at: Timestamp) -> Timestamp {
        let Some(days) = terms.days() else {
            return issued_at;
        };
        let due_on = self.ends_on.saturating_add(days.days());
        midnight(due_on, &self.zone)
            .unwrap_or(Timestamp::MAX)
            .max(issued_at)
    }
}

/// A stretch of days with one set of terms, but for the status.
#[derive(Debug, Clone)]
struct Segment {
    days: Days,
    terms: Contract,
    zone: TimeZone,
    /// The first of the month that cycles are counted from.
    anchor: Date,
    /// The days that can be billed, in order and without overlap.
    billed: Vec<Days>,
}

/// The calendar of one contract.
#[derive(Debug, Clone)]
pub struct Calendar {
    /// In order, without gaps.
    segments: Vec<Segment>,
    /// The days on which the contract is over.
    over: Vec<Days>,
    /// The periods that invoices have billed.
    invoiced: Vec<Period>,
}

impl Calendar {
    /// The calendar of a contract; `invoiced` are the periods that its invoices have billed.
    ///
    /// # Errors
    /// When a time zone is not known.
    pub fn new(history: &History, invoiced: &[Period]) -> Result<Calendar, Error> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut over = Vec::new();
        let mut spans = history.spans().iter().peekable();
        while let Some(span) = spans.next() {
            let next = spans.peek().and_then(|next| next.from);
            let days = Days {
                from: span.from.unwrap_or(Date::MIN),
                to: next.unwrap_or(Date::MAX),
            };
            if span.terms.status == ContractStatus::Canceled {
                over.push(days);
            }
            let same = segments.last_mut().filter(|before| {
                let status = before.terms.status;
                let terms = Contract {
                    status,
                    ..span.terms.clone()
                };
                before.terms == terms
            });
            let segment = match same {
                Some(segment) => {
                    segment.days.to = days.to;
                    segment
                }
                None => {
                    let anchor = anchor(&span.terms, days.from, segments.last());
                    segments.push(Segment {
                        days,
                        zone: zone(&span.terms)?,
                        terms: span.terms.clone(),
                        anchor,
                        billed: Vec::new(),
                    });
                    let last = segments.len() - 1;
                    &mut segments[last]
                }
            };
            // A contract of the predecessor without a start date is billed from the upgrade on.
            let first = span.terms.contract_start_date.max(span.terms.billed_from);
            let inside = first.and_then(|first| {
                days.and(Days {
                    from: first,
                    to: Date::MAX,
                })
            });
            if span.terms.status == ContractStatus::Active {
                segment.billed.extend(inside);
            }
        }
        Ok(Calendar {
            segments,
            over,
            invoiced: invoiced.to_vec(),
        })
    }

    /// The parts of cycles that have ended by `now` and are not billed yet, oldest first.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn unbilled(&self, now: Timestamp) -> Result<Vec<BillingPeriod>, Error> {
        let mut periods = Vec::new();
        for segment in &self.segments {
            let today = segment.zone.to_datetime(now).date();
            for billed in &segment.billed {
                let mut cycle = segment.cycle_of(billed.from);
                while cycle.from <= today && cycle.from < billed.to {
                    // Where billed days of a cycle lie apart, they are one period.
                    let is_new = periods.last().is_none_or(|last: &BillingPeriod| {
                        last.cycle_from != cycle.from || last.last_day < segment.days.from
                    });
                    if is_new
                        && let Some(period) = self.billing_period(segment, cycle)?
                        && period.ends_at <= now
                    {
                        periods.push(period);
                    }
                    cycle = segment.cycle_of(cycle.to);
                }
            }
        }
        Ok(periods)
    }

    /// The part of the cycle containing `now` that will be billed when it ends; `None` when no day of it will be
    /// billed.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn current(&self, now: Timestamp) -> Result<Option<BillingPeriod>, Error> {
        let Some((segment, today)) = self.segment_at(now) else {
            return Ok(None);
        };
        self.billing_period(segment, segment.cycle_of(today))
    }

    /// Whether the newest billed cycle that ended by `now` has been invoiced to its last day.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn is_last_ended_invoiced(&self, now: Timestamp) -> Result<bool, Error> {
        let bare = Calendar {
            invoiced: Vec::new(),
            ..self.clone()
        };
        let ended = bare.unbilled(now)?;
        let Some(last) = ended.last() else {
            return Ok(false);
        };
        let unbilled = self.unbilled(now)?;
        Ok(unbilled
            .last()
            .is_none_or(|period| period.last_day < last.first_day))
    }

    /// Whether the contract is over at `now`.
    #[must_use]
    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.segment_at(now)
            .is_some_and(|(_, today)| self.is_over(today))
    }

    /// The first day of the cycle that contains a day.
    #[must_use]
    pub fn cycle_first_day(&self, day: Date) -> Date {
        self.segment_of(day).cycle_of(day).from
    }

    /// The first day of the cycle after the one that contains a day.
    #[must_use]
    pub fn next_cycle_first_day(&self, day: Date) -> Date {
        self.segment_of(day).cycle_of(day).to
    }

    /// The first day of the cycle that contains a day, or of the first cycle after it of which nothing is invoiced.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn first_open_cycle(&self, day: Date) -> Result<Date, Error> {
        let mut first = self.cycle_first_day(day);
        loop {
            let from = self.edge(first)?;
            if self.invoiced.iter().all(|period| period.end <= from) {
                return Ok(first);
            }
            first = self.next_cycle_first_day(first);
        }
    }

    /// The billed part of the contract's days, as instants, oldest first: also of days that are still to come.
    ///
    /// # Errors
    /// When a day is beyond the calendar.
    pub fn billed_days(&self, until: Timestamp) -> Result<Vec<(Period, &Contract)>, Error> {
        let mut periods = Vec::new();
        for segment in &self.segments {
            for days in &segment.billed {
                let start = self.edge(days.from)?;
                let end = if days.to == Date::MAX {
                    until
                } else {
                    self.edge(days.to)?.min(until)
                };
                if let Ok(period) = Period::new(start, end) {
                    periods.push((period, &segment.terms));
                }
            }
        }
        Ok(periods)
    }

    fn is_over(&self, day: Date) -> bool {
        self.over
            .iter()
            .any(|days| days.from <= day && day < days.to)
    }

    /// The segment that an instant falls into, and its day.
    fn segment_at(&self, instant: Timestamp) -> Option<(&Segment, Date)> {
        self.segments.iter().rev().find_map(|segment| {
            let day = segment.zone.to_datetime(instant).date();
            (segment.days.from <= day).then_some((segment, day))
        })
    }

    fn segment_of(&self, day: Date) -> &Segment {
        let holds = |segment: &&Segment| segment.days.from <= day;
        // The first begins before every day.
        let found = self.segments.iter().rev().find(holds);
        found.unwrap_or(&self.segments[0])
    }

    /// The part of a cycle that is not billed yet.
    fn billing_period(
        &self,
        segment: &Segment,
        cycle: Days,
    ) -> Result<Option<BillingPeriod>, Error> {
        let inside = segment.billed.iter().filter_map(|days| days.and(cycle));
        let mut billed: Vec<Days> = inside.collect();
        for invoiced in &self.invoiced {
            let days = Days {
                from: nearest_day(invoiced.start, &segment.zone),
                to: nearest_day(invoiced.end, &segment.zone),
            };
            billed = without(billed, days);
        }
        let (Some(first), Some(last)) = (billed.first(), billed.last()) else {
            return Ok(None);
        };
        let mut usage = Vec::new();
        for days in &billed {
            let (start, end) = (self.edge(days.from)?, self.edge(days.to)?);
            usage.push(Period::new(start, end).map_err(|_empty| Error::OutOfRange)?);
        }
        let (Some(start), Some(end)) = (usage.first(), usage.last()) else {
            return Ok(None);
        };
        // A suspended contract may go on within the cycle; one that is over will not.
        let ends_on = if self.is_over(last.to) {
            last.to
        } else {
            cycle.to.min(segment.days.to)
        };
        Ok(Some(BillingPeriod {
            terms: segment.terms.clone(),
            cycle_from: cycle.from,
            cycle_to: cycle.to,
            first_day: first.from,
            last_day: last.to.saturating_sub(1.day()),
            share: Share {
                months: segment.terms.billing_cycle.months(),
                billed_days: billed.iter().map(|days| days.count()).sum(),
                cycle_days: cycle.count(),
            },
            period: Period {
                start: start.start,
                end: end.end,
            },
            ends_at: self.edge(ends_on)?,
            ends_on,
            zone: segment.zone.clone(),
            usage,
        }))
    }

    /// The first instant of a day, or the edge of the invoice that billed up to it or from it on: after a change of the
    /// time zone the two are hours apart, and usage in between is counted once.
    fn edge(&self, day: Date) -> Result<Timestamp, Error> {
        let zone = &self.segment_of(day).zone;
        let edges = self
            .invoiced
            .iter()
            .flat_map(|period| [period.start, period.end]);
        let mut at_this_day = edges.filter(|edge| nearest_day(*edge, zone) == day);
        if let Some(edge) = at_this_day.next() {
            return Ok(edge);
        }
        midnight(day, zone)
    }
}

impl Segment {
    fn cycle_of(&self, day: Date) -> Days {
        let cycle = self.terms.billing_cycle;
        let from = cycle_of(day, self.anchor, cycle);
        Days {
            from,
            to: from.saturating_add(cycle.months().months()),
        }
    }
}

/// The month that a stretch's cycles are counted from: the one before's, unless it has another start or another length.
fn anchor(terms: &Contract, from: Date, before: Option<&Segment>) -> Date {
    let start = terms.contract_start_date.or(terms.billed_from);
    let start = start.unwrap_or(Date::ZERO);
    let month = match before {
        Some(before) if before.terms.contract_start_date != terms.contract_start_date => start,
        Some(before) if before.terms.billing_cycle == terms.billing_cycle => return before.anchor,
        Some(_) => from.max(start),
        None => start,
    };
    month.first_of_month()
}

/// The first day of the cycle that contains a day; cycles are counted from the month of `anchor`.
pub(crate) fn cycle_of(day: Date, anchor: Date, cycle: BillingCycle) -> Date {
    let months = |day: Date| i64::from(day.year()) * 12 + i64::from(day.month());
    let into = (months(day) - months(anchor)).rem_euclid(cycle.months());
    day.first_of_month().saturating_sub(into.months())
}

/// The day whose midnight is nearest to the instant.
fn nearest_day(instant: Timestamp, zone: &TimeZone) -> Date {
    let noon = instant
        .saturating_add(SignedDuration::from_hours(12))
        .unwrap_or(Timestamp::MAX);
    zone.to_datetime(noon).date()
}

/// The first instant of a day.
pub(crate) fn midnight(day: Date, zone: &TimeZone) -> Result<Timestamp, Error> {
    day.to_zoned(zone.clone())
        .map(|midnight| midnight.timestamp())
        .map_err(|_beyond| Error::OutOfRange)
}

/// The days without those of `cut`.
fn without(days: Vec<Days>, cut: Days) -> Vec<Days> {
    if cut.from >= cut.to {
        return days;
    }
    days.into_iter()
        .flat_map(|days| {
            let before = Days {
                from: days.from,
                to: days.to.min(cut.from),
            };
            let after = Days {
                from: days.from.max(cut.to),
                to: days.to,
            };
            [before, after]
        })
        .filter(|days| days.from < days.to)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::partner::terms::{StoredRow, Suspension};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A row from before changes were dated, with its dates.
    struct Row {
        members: Value,
        suspended_at: Option<Timestamp>,
        canceled_at: Option<Timestamp>,
        suspensions: Vec<Suspension>,
    }

    impl Row {
        fn history(&self) -> History {
            let row = StoredRow {
                id: 1,
                members: self.members.as_object().unwrap().clone(),
                suspended_at: self.suspended_at,
                canceled_at: self.canceled_at,
                suspensions: self.suspensions.clone(),
                updated_at: None,
                terms_since: "2000-01-01".parse().unwrap(),
                projected_on: None,
                changes: Vec::new(),
            };
            row.read(at("2026-01-01T00:00:00Z")).unwrap().history
        }

        fn calendar(&self, invoiced: &[Period]) -> Calendar {
            Calendar::new(&self.history(), invoiced).unwrap()
        }
    }

    fn contract(changes: Value) -> Row {
        let mut members = json!({
            "api_key_prefix": "dp_pk_alpha", "pricing_model": "flat", "monthly_flat_fee_cents": 31_000,
            "contract_start_date": "2025-11-01", "billable_status_codes": "all"
        });
        for (name, value) in changes.as_object().unwrap() {
            members[name] = value.clone();
        }
        Row {
            members,
            suspended_at: None,
            canceled_at: None,
            suspensions: Vec::new(),
        }
    }

    /// `first..last (billed/cycle)` of each period to be billed.
    fn unbilled(contract: &Row, invoiced: &[Period], now: &str) -> Vec<String> {
        let periods = contract.calendar(invoiced).unbilled(at(now)).unwrap();
        periods.iter().map(printed).collect()
    }

    fn printed(period: &BillingPeriod) -> String {
        let Share {
            billed_days,
            cycle_days,
            ..
        } = period.share;
        let (first, last) = (period.first_day, period.last_day);
        format!("{first}..{last} ({billed_days}/{cycle_days})")
    }

    #[test]
    fn every_month_since_the_start_is_billed_when_it_has_ended() {
        let contract = contract(json!({}));
        assert_eq!(
            unbilled(&contract, &[], "2026-02-01T00:00:00Z"),
            [
                "2025-11-01..2025-11-30 (30/30)",
                "2025-12-01..2025-12-31 (31/31)",
                "2026-01-01..2026-01-31 (31/31)"
            ]
        );
        assert_eq!(
            unbilled(&contract, &[], "2026-01-31T23:59:59.999Z").len(),
            2,
            "January goes on"
        );
        assert!(unbilled(&contract, &[], "2025-11-30T23:59:59Z").is_empty());
        assert!(unbilled(&contract, &[], "2024-01-01T00:00:00Z").is_empty());
    }

    #[test]
    fn cycles_are_counted_from_the_month_of_the_start() {
        for (cycle, start, expected) in [
            (
                "quarterly",
                "2025-11-11",
                vec![
                    "2025-11-11..2026-01-31 (82/92)",
                    "2026-02-01..2026-04-30 (89/89)",
                ],
            ),
            (
                "annual",
                "2025-05-01",
                vec!["2025-05-01..2026-04-30 (365/365)"],
            ),
            (
                "annual",
                "2023-03-01",
                vec![
                    "2023-03-01..2024-02-29 (366/366)",
                    "2024-03-01..2025-02-28 (365/365)",
                    "2025-03-01..2026-02-28 (365/365)",
                ],
            ),
        ] {
            let contract = contract(json!({"billing_cycle": cycle, "contract_start_date": start}));
            assert_eq!(unbilled(&contract, &[], "2026-05-03T00:00:00Z"), expected);
        }
    }

    #[test]
    fn a_february_has_the_days_of_its_year() {
        for (start, now, expected) in [
            (
                "2024-02-01",
                "2024-03-01T00:00:00Z",
                "2024-02-01..2024-02-29 (29/29)",
            ),
            (
                "2024-02-11",
                "2024-03-01T00:00:00Z",
                "2024-02-11..2024-02-29 (19/29)",
            ),
            (
                "2025-02-11",
                "2025-03-01T00:00:00Z",
                "2025-02-11..2025-02-28 (18/28)",
            ),
            // A century is no leap year, but 2000 was one.
            (
                "2100-02-28",
                "2100-03-01T00:00:00Z",
                "2100-02-28..2100-02-28 (1/28)",
            ),
            (
                "2000-02-29",
                "2000-03-01T00:00:00Z",
                "2000-02-29..2000-02-29 (1/29)",
            ),
        ] {
            let contract = contract(json!({"contract_start_date": start}));
            assert_eq!(unbilled(&contract, &[], now), [expected]);
        }
    }

    #[test]
    fn only_days_inside_the_contract_are_billed() {
        let march = |changes: Value| {
            let mut contract = contract(json!({"contract_start_date": "2025-03-01"}));
            let mut with = changes.as_object().unwrap().clone();
            contract.suspended_at = with
                .remove("suspended_at")
                .map(|at| at.as_str().unwrap().parse().unwrap());
            contract.canceled_at = with
                .remove("canceled_at")
                .map(|at| at.as_str().unwrap().parse().unwrap());
            if let Some(start) = with.get("start") {
                contract.members["contract_start_date"] = start.clone();
            }
            if let Some(end) = with.get("end") {
                contract.members["contract_end_date"] = end.clone();
            }
            if let Some(from) = with.get("billed_from") {
                contract.members["billed_from"] = from.clone();
            }
            unbilled(&contract, &[], "2025-04-01T00:00:00Z")
        };
        for (changes, expected) in [
            (
                json!({"start": "2025-03-11"}),
                "2025-03-11..2025-03-31 (21/31)",
            ),
            (
                json!({"end": "2025-03-11"}),
                "2025-03-01..2025-03-11 (11/31)",
            ),
            (
                json!({"billed_from": "2025-03-31"}),
                "2025-03-31..2025-03-31 (1/31)",
            ),
            (
                json!({"suspended_at": "2025-03-15T12:00:00Z"}),
                "2025-03-01..2025-03-15 (15/31)",
            ),
            (
                json!({"canceled_at": "2025-03-15T23:59:59Z"}),
                "2025-03-01..2025-03-15 (15/31)",
            ),
            (
                json!({"canceled_at": "2025-03-15T00:00:00Z", "end": "2025-03-10"}),
                "2025-03-01..2025-03-10 (10/31)",
            ),
            (
                json!({"start": "2025-03-10", "end": "2025-03-10"}),
                "2025-03-10..2025-03-10 (1/31)",
            ),
        ] {
            assert_eq!(march(changes.clone()), [expected], "{changes}");
        }
        assert!(march(json!({"start": "2025-04-01"})).is_empty());
        assert!(march(json!({"suspended_at": "2025-02-20T00:00:00Z"})).is_empty());
    }

    #[test]
    fn what_has_ended_for_good_is_billed_at_once_and_what_is_suspended_is_not() {
        let mut contract = contract(json!({"contract_end_date": "2025-11-10"}));
        assert!(unbilled(&contract, &[], "2025-11-10T23:59:59Z").is_empty());
        assert_eq!(
            unbilled(&contract, &[], "2025-11-11T00:00:00Z"),
            ["2025-11-01..2025-11-10 (10/30)"]
        );
        contract.members["contract_end_date"] = Value::Null;
        contract.suspended_at = Some(at("2025-11-10T08:00:00Z"));
        assert!(unbilled(&contract, &[], "2025-11-30T23:00:00Z").is_empty());
        assert_eq!(
            unbilled(&contract, &[], "2025-12-01T00:00:00Z"),
            ["2025-11-01..2025-11-10 (10/30)"]
        );
    }

    #[test]
    fn the_days_of_a_suspension_that_is_over_are_not_billed() {
        let mut contract = contract(json!({}));
        contract.suspensions = vec![Suspension {
            suspended_at: at("2025-11-10T08:00:00Z"),
            resumed_at: at("2025-11-20T08:00:00Z"),
        }];
        let calendar = contract.calendar(&[]);
        let periods = calendar.unbilled(at("2025-12-01T00:00:00Z")).unwrap();
        assert_eq!(printed(&periods[0]), "2025-11-01..2025-11-30 (21/30)");
        let span = |start: &str, end: &str| Period::new(at(start), at(end)).unwrap();
        assert_eq!(
            periods[0].usage,
            [
                span("2025-11-01T00:00:00Z", "2025-11-11T00:00:00Z"),
                span("2025-11-20T00:00:00Z", "2025-12-01T00:00:00Z")
            ]
        );
        contract.suspensions[0].resumed_at = at("2026-01-15T00:00:00Z");
        assert_eq!(
            unbilled(&contract, &[], "2026-02-01T00:00:00Z"),
            [
                "2025-11-01..2025-11-10 (10/30)",
                "2026-01-15..2026-01-31 (17/31)"
            ]
        );
    }

    #[test]
    fn what_is_invoiced_is_not_billed_again_whatever_changes() {
        let mut contract = contract(json!({}));
        let calendar = contract.calendar(&[]);
        let november = calendar.unbilled(at("2025-12-01T00:00:00Z")).unwrap();
        let invoiced = [november[0].period];
        assert!(unbilled(&contract, &invoiced, "2025-12-31T00:00:00Z").is_empty());
        let calendar = contract.calendar(&invoiced);
        assert!(
            calendar
                .is_last_ended_invoiced(at("2025-12-31T00:00:00Z"))
                .unwrap()
        );
        assert!(
            !calendar
                .is_last_ended_invoiced(at("2026-01-01T00:00:00Z"))
                .unwrap()
        );
        // The cycle becomes longer: the rest of it is left.
        contract.members["billing_cycle"] = json!("quarterly");
        assert_eq!(
            unbilled(&contract, &invoiced, "2026-02-01T00:00:00Z"),
            ["2025-12-01..2026-01-31 (62/92)"]
        );
        // The partner moves west: the five hours between the two midnights are counted in December.
        contract.members["billing_cycle"] = json!("monthly");
        contract.members["timezone"] = json!("America/New_York");
        let calendar = contract.calendar(&invoiced);
        let december = calendar.unbilled(at("2026-01-01T05:00:00Z")).unwrap();
        assert_eq!(printed(&december[0]), "2025-12-01..2025-12-31 (31/31)");
        assert_eq!(december[0].usage[0].start, at("2025-12-01T00:00:00Z"));
        assert_eq!(december[0].usage[0].end, at("2026-01-01T05:00:00Z"));
        // A contract that is extended after its last invoice goes on the day after.
        contract.members["timezone"] = json!("UTC");
        let ended = [Period::new(at("2025-11-01T00:00:00Z"), at("2025-11-11T00:00:00Z")).unwrap()];
        assert_eq!(
            unbilled(&contract, &ended, "2025-12-01T00:00:00Z"),
            ["2025-11-11..2025-11-30 (20/30)"]
        );
    }

    #[test]
    fn days_begin_at_midnight_in_the_time_zone_of_the_contract() {
        for (zone, start, end) in [
            ("UTC", "2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z"),
            // Daylight saving ends on 2 November.
            (
                "America/New_York",
                "2025-11-01T04:00:00Z",
                "2025-12-01T05:00:00Z",
            ),
            ("Asia/Tokyo", "2025-10-31T15:00:00Z", "2025-11-30T15:00:00Z"),
            (
                "Pacific/Kiritimati",
                "2025-10-31T10:00:00Z",
                "2025-11-30T10:00:00Z",
            ),
            (
                "Pacific/Niue",
                "2025-11-01T11:00:00Z",
                "2025-12-01T11:00:00Z",
            ),
            (
                "Asia/Kathmandu",
                "2025-10-31T18:15:00Z",
                "2025-11-30T18:15:00Z",
            ),
        ] {
            let contract = contract(json!({"timezone": zone}));
            let calendar = contract.calendar(&[]);
            assert!(
                calendar
                    .unbilled(at(end) - SignedDuration::from_nanos(1))
                    .unwrap()
                    .is_empty()
            );
            let periods = calendar.unbilled(at(end)).unwrap();
            let whole = Period::new(at(start), at(end)).unwrap();
            assert_eq!(periods[0].period, whole, "{zone}");
            assert_eq!(periods[0].usage, [whole], "{zone}");
            assert_eq!(printed(&periods[0]), "2025-11-01..2025-11-30 (30/30)");
        }
        // Where clocks skip midnight, the day begins when they go on.
        let contract =
            contract(json!({"timezone": "Africa/Cairo", "contract_start_date": "2024-04-26"}));
        let calendar = contract.calendar(&[]);
        let april = calendar.unbilled(at("2024-05-01T00:00:00Z")).unwrap();
        assert_eq!(april[0].period.start, at("2024-04-25T22:00:00Z"));
    }

    #[test]
    fn an_invoice_is_due_by_the_terms_and_never_before_it_is_issued() {
        let contract = contract(json!({}));
        let calendar = contract.calendar(&[]);
        let november = &calendar.unbilled(at("2025-12-01T00:05:00Z")).unwrap()[0];
        let issued_at = at("2025-12-01T00:05:00Z");
        for (terms, due) in [
            (PaymentTerms::Immediate, "2025-12-01T00:05:00Z"),
            (PaymentTerms::Net15, "2025-12-16T00:00:00Z"),
            (PaymentTerms::Net30, "2025-12-31T00:00:00Z"),
            (PaymentTerms::Net45, "2026-01-15T00:00:00Z"),
            (PaymentTerms::Net60, "2026-01-30T00:00:00Z"),
            (PaymentTerms::Net90, "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(november.due_at(terms, issued_at), at(due));
        }
        let late = at("2026-02-01T00:05:00Z");
        assert_eq!(november.due_at(PaymentTerms::Net30, late), late);
    }

    #[test]
    fn an_invoice_is_due_at_midnight_also_when_clocks_change_before() {
        for (zone, start, now, due) in [
            // Daylight saving ends on 2 November, and begins on 8 March.
            (
                "America/New_York",
                "2025-10-01",
                "2025-11-01T04:05:00Z",
                "2025-12-01T05:00:00Z",
            ),
            (
                "America/New_York",
                "2026-02-01",
                "2026-03-01T05:05:00Z",
                "2026-03-31T04:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2025-09-01",
                "2025-09-30T22:05:00Z",
                "2025-10-30T23:00:00Z",
            ),
        ] {
            let contract = contract(json!({"timezone": zone, "contract_start_date": start}));
            let calendar = contract.calendar(&[]);
            let period = &calendar.unbilled(at(now)).unwrap()[0];
            assert_eq!(
                period.due_at(PaymentTerms::Net30, at(now)),
                at(due),
                "{zone}"
            );
        }
    }

    #[test]
    fn the_current_period_is_the_whole_cycle_that_goes_on() {
        let contract = contract(json!({"contract_start_date": "2025-11-11"}));
        let calendar = contract.calendar(&[]);
        let current = |now: &str| calendar.current(at(now)).unwrap().as_ref().map(printed);
        assert_eq!(
            current("2025-11-12T00:00:00Z").as_deref(),
            Some("2025-11-11..2025-11-30 (20/30)")
        );
        assert_eq!(
            current("2026-02-28T23:00:00Z").as_deref(),
            Some("2026-02-01..2026-02-28 (28/28)")
        );
        assert_eq!(current("2025-10-12T00:00:00Z"), None);
    }
}
