//! Which usage of a partner is billed, and why other usage is not. Verdicts, counting and the report of unbilled usage all
//! ask here, so that usage is either on an invoice or listed.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};

use crate::partner::contract::{Contract, ContractStatus, PricingModel, UnitSource};
use crate::partner::cycle;
use crate::partner::terms::{History, zone as zone_of};
use crate::period::Period;
use crate::words::words;

words!(
    /// Where usage comes from.
    UsageSource {
        /// The gateway's log of requests.
        ApiUsage = "api_usage",
        /// The metered events.
        UsageEvents = "usage_events",
    }
);
words!(
    /// Why usage is on no invoice.
    UnbillableReason {
        /// The prefix has no contract.
        NoContract = "no_contract",
        /// It happened before the contract began.
        BeforeStart = "before_start",
        /// It happened after the contract had ended.
        AfterEnd = "after_end",
        /// It happened while the contract was suspended.
        Suspended = "suspended",
        /// Its period is never billed.
        Waived = "waived",
        /// The contract counts units elsewhere.
        SourceNotCounted = "source_not_counted",
        /// The contract does not count events of this type.
        EventTypeNotCounted = "event_type_not_counted",
        /// It arrived too long after its period was invoiced.
        TooLate = "too_late",
    }
);

/// What becomes of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// An invoice counts it.
    Billed,
    /// Usage has no price, and never had one or has none then: nothing is lost.
    Unpriced,
    /// No invoice counts it.
    Unbillable(UnbillableReason),
}

/// Whether usage costs something.
fn is_priced(terms: &Contract) -> bool {
    match terms.pricing_model {
        PricingModel::Flat => false,
        PricingModel::PerDeed
        | PricingModel::Hybrid
        | PricingModel::PerRequest
        | PricingModel::Tiered => true,
    }
}

/// Whether the terms count usage of a source.
#[must_use]
pub fn counts_source(terms: &Contract, source: UsageSource) -> bool {
    match (terms.pricing_model, source) {
        // Requests are rows of the gateway's, whatever counts units.
        (PricingModel::PerRequest, UsageSource::ApiUsage) => true,
        (PricingModel::PerRequest, UsageSource::UsageEvents) => false,
        (_, UsageSource::ApiUsage) => match terms.unit_source {
            UnitSource::ApiUsage | UnitSource::Both => true,
            UnitSource::UsageEvents => false,
        },
        (_, UsageSource::UsageEvents) => match terms.unit_source {
            UnitSource::UsageEvents | UnitSource::Both => true,
            UnitSource::ApiUsage => false,
        },
    }
}

/// What the terms of a day make of usage of a source, and of events of a type. `None` without a type asks whether any
/// type counts.
fn on_day(history: &History, day: Date, source: UsageSource, event_type: Option<&str>) -> Coverage {
    let terms = history.on(day);
    let first = terms.contract_start_date.max(terms.billed_from);
    let reason = if first.is_none_or(|first| day < first) {
        UnbillableReason::BeforeStart
    } else {
        match terms.status {
            ContractStatus::Suspended => UnbillableReason::Suspended,
            ContractStatus::Canceled => UnbillableReason::AfterEnd,
            ContractStatus::Active if !is_priced(terms) => return Coverage::Unpriced,
            ContractStatus::Active if !counts_source(terms, source) => {
                UnbillableReason::SourceNotCounted
            }
            ContractStatus::Active => {
                let types = terms.billable_event_types.as_ref();
                let is_counted = |event_type: &str| {
                    types.is_none_or(|types| types.iter().any(|counted| counted == event_type))
                };
                match (source, event_type) {
                    (UsageSource::UsageEvents, Some(event_type)) if !is_counted(event_type) => {
                        UnbillableReason::EventTypeNotCounted
                    }
                    _ => return Coverage::Billed,
                }
            }
        }
    };
    Coverage::Unbillable(reason)
}

/// What becomes of a partner's usage of an instant: of which contract (`None` when the prefix has none), and which of its
/// periods are never billed.
///
/// # Errors
/// When the contract's time zone is not known.
pub fn coverage(
    history: Option<&History>,
    waived: &[Period],
    instant: Timestamp,
    source: UsageSource,
    event_type: Option<&str>,
) -> Result<Coverage, cycle::Error> {
    let Some(history) = history else {
        return Ok(Coverage::Unbillable(UnbillableReason::NoContract));
    };
    if !was_ever_priced(history) {
        return Ok(Coverage::Unpriced);
    }
    if waived.iter().any(|period| period.contains(instant)) {
        return Ok(Coverage::Unbillable(UnbillableReason::Waived));
    }
    let day = history.day_of(instant)?;
    Ok(on_day(history, day, source, event_type))
}

fn was_ever_priced(history: &History) -> bool {
    history.spans().iter().any(|span| is_priced(&span.terms))
}

/// A stretch of time in which usage of a source has one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoveredSpan {
    pub period: Period,
    /// Why usage of it is on no invoice; `None` when it is, or costs nothing.
    pub reason: Option<UnbillableReason>,
    /// Whether an invoice counts it.
    pub is_billed: bool,
    /// Of billed events, the types that count; `None` for all.
    pub counted_types: Option<Vec<String>>,
}

/// [`coverage`] of a stretch of time: where it changes, the next span begins.
///
/// # Errors
/// When a day is beyond the calendar.
pub fn spans(
    history: Option<&History>,
    waived: &[Period],
    period: Period,
    source: UsageSource,
) -> Result<Vec<CoveredSpan>, cycle::Error> {
    let mut edges = vec![period.start];
    if let Some(history) = history {
        for span in history.spans() {
            let zone = zone_of(&span.terms)?;
            let first = span.terms.contract_start_date.max(span.terms.billed_from);
            for day in [span.from, first].into_iter().flatten() {
                edges.push(cycle::midnight(day, &zone)?);
                // Where the time zone changes, the day begins when the later of the two says so.
                edges.push(cycle::midnight(
                    day,
                    &zone_of(history.on(day.saturating_sub(1.day())))?,
                )?);
            }
        }
    }
    edges.extend(waived.iter().flat_map(|waived| [waived.start, waived.end]));
    edges.retain(|edge| period.contains(*edge));
    edges.sort_unstable();
    edges.dedup();
    let mut spans: Vec<CoveredSpan> = Vec::new();
    for (place, start) in edges.iter().enumerate() {
        let end = edges.get(place + 1).copied().unwrap_or(period.end);
        let covered = coverage(history, waived, *start, source, None)?;
        let (reason, counted_types) = match (covered, history) {
            (Coverage::Unbillable(reason), _) => (Some(reason), None),
            (Coverage::Billed, Some(history)) if source == UsageSource::UsageEvents => {
                (None, history.at(*start)?.billable_event_types.clone())
            }
            (Coverage::Billed | Coverage::Unpriced, _) => (None, None),
        };
        let is_billed = covered == Coverage::Billed;
        match spans.last_mut() {
            Some(last)
                if last.reason == reason
                    && last.is_billed == is_billed
                    && last.counted_types == counted_types =>
            {
                last.period.end = end;
            }
            Some(_) | None => spans.push(CoveredSpan {
                period: Period { start: *start, end },
                reason,
                is_billed,
                counted_types,
            }),
        }
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::partner::terms::{Change, Members};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn history(changes: &[(Option<&str>, Value)]) -> History {
        let changes = (1..).zip(changes).map(|(id, (from, members))| Change {
            id,
            effective_from: from.map(|from| from.parse().unwrap()),
            members: members.as_object().unwrap().clone(),
            created_at: Timestamp::UNIX_EPOCH,
        });
        let prefix = Members::from_iter([("api_key_prefix".to_owned(), json!("dp_pk_alpha"))]);
        History::new(prefix, changes.collect()).unwrap()
    }

    fn per_deed(more: Value) -> Value {
        let mut members = json!({"pricing_model": "per_deed", "per_deed_price_cents": 100, "unit_source": "usage_events",
                                 "contract_start_date": "2025-10-11", "billable_event_types": ["deed"]});
        for (name, value) in more.as_object().unwrap() {
            members[name] = value.clone();
        }
        members
    }

    fn of_event(history: Option<&History>, instant: &str, event_type: &str) -> Coverage {
        let waived = [Period::new(at("2025-12-01T00:00:00Z"), at("2026-01-01T00:00:00Z")).unwrap()];
        let source = UsageSource::UsageEvents;
        coverage(history, &waived, at(instant), source, Some(event_type)).unwrap()
    }

    #[test]
    fn usage_that_no_invoice_counts_has_a_reason() {
        let contract = history(&[
            (None, per_deed(json!({"timezone": "America/New_York"}))),
            (Some("2025-11-11"), json!({"status": "suspended"})),
            (Some("2025-11-20"), json!({"status": "active"})),
            (Some("2026-01-01"), json!({"billable_event_types": null})),
            (Some("2026-02-01"), json!({"unit_source": "api_usage"})),
            (Some("2026-03-01"), json!({"status": "canceled"})),
        ]);
        let reason = Coverage::Unbillable;
        for (instant, event_type, covered) in [
            (
                "2025-10-11T03:59:59Z",
                "deed",
                reason(UnbillableReason::BeforeStart),
            ),
            ("2025-10-11T04:00:00Z", "deed", Coverage::Billed),
            (
                "2025-10-11T04:00:00Z",
                "search",
                reason(UnbillableReason::EventTypeNotCounted),
            ),
            ("2025-11-11T04:59:59Z", "deed", Coverage::Billed),
            (
                "2025-11-11T05:00:00Z",
                "deed",
                reason(UnbillableReason::Suspended),
            ),
            ("2025-11-20T05:00:00Z", "deed", Coverage::Billed),
            (
                "2025-12-10T00:00:00Z",
                "deed",
                reason(UnbillableReason::Waived),
            ),
            ("2026-01-10T00:00:00Z", "search", Coverage::Billed),
            (
                "2026-02-10T00:00:00Z",
                "deed",
                reason(UnbillableReason::SourceNotCounted),
            ),
            (
                "2026-03-10T00:00:00Z",
                "deed",
                reason(UnbillableReason::AfterEnd),
            ),
        ] {
            assert_eq!(
                of_event(Some(&contract), instant, event_type),
                covered,
                "{instant} {event_type}"
            );
        }
        assert_eq!(
            of_event(None, "2025-11-01T00:00:00Z", "deed"),
            reason(UnbillableReason::NoContract)
        );
    }

    #[test]
    fn usage_of_a_contract_that_never_had_a_price_is_nobodys_loss() {
        let flat = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 5, "contract_start_date": "2025-10-11"});
        let contract = history(&[(None, flat)]);
        assert_eq!(
            of_event(Some(&contract), "2020-01-01T00:00:00Z", "deed"),
            Coverage::Unpriced
        );
        // Requests are counted by the gateway.
        let per_request = json!({"pricing_model": "per_request", "per_1000_requests_cents": 5,
                                 "contract_start_date": "2025-10-11", "unit_source": "both"});
        let contract = history(&[(None, per_request)]);
        let reason = Coverage::Unbillable(UnbillableReason::SourceNotCounted);
        assert_eq!(
            of_event(Some(&contract), "2025-11-01T00:00:00Z", "deed"),
            reason
        );
        let source = UsageSource::ApiUsage;
        let served = coverage(
            Some(&contract),
            &[],
            at("2025-11-01T00:00:00Z"),
            source,
            None,
        );
        assert_eq!(served, Ok(Coverage::Billed));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The spans say of each instant what [`coverage`] says of it.
        #[test]
        fn spans_are_the_coverage_of_their_instants(
            changes in proptest::collection::vec((0_i64..300, 0_usize..6), 0..8),
            zone in 0_usize..3,
            hours in proptest::collection::vec(0_i64..24 * 400, 30),
        ) {
            let zone = ["UTC", "America/New_York", "Asia/Kolkata"][zone];
            let mut all = vec![(None, per_deed(json!({"timezone": zone})))];
            let start: Date = "2025-09-01".parse().unwrap();
            for (days, what) in changes {
                let members = [
                    json!({"status": "suspended"}), json!({"status": "active"}), json!({"status": "canceled"}),
                    json!({"unit_source": "api_usage"}), json!({"billable_event_types": ["deed", "lien"]}),
                    json!({"pricing_model": "flat", "monthly_flat_fee_cents": 1}),
                ][what].clone();
                all.push((Some(start.saturating_add(days.days()).to_string()), members));
            }
            let borrowed: Vec<(Option<&str>, Value)> =
                all.iter().map(|(from, members)| (from.as_deref(), members.clone())).collect();
            let contract = history(&borrowed);
            let period = Period::new(at("2025-08-01T00:00:00Z"), at("2026-10-01T00:00:00Z")).unwrap();
            let waived = [Period::new(at("2025-12-05T10:00:00Z"), at("2026-01-01T00:00:00Z")).unwrap()];
            for source in [UsageSource::ApiUsage, UsageSource::UsageEvents] {
                let spans = spans(Some(&contract), &waived, period, source).unwrap();
                prop_assert_eq!(spans[0].period.start, period.start);
                prop_assert_eq!(spans.last().unwrap().period.end, period.end);
                for pair in spans.windows(2) {
                    prop_assert_eq!(pair[0].period.end, pair[1].period.start);
                }
                for hour in &hours {
                    let instant = period.start + jiff::SignedDuration::from_hours(*hour);
                    let of_instant = spans.iter().find(|span| span.period.contains(instant)).unwrap();
                    let reason = match coverage(Some(&contract), &waived, instant, source, None).unwrap() {
                        Coverage::Unbillable(reason) => Some(reason),
                        Coverage::Billed | Coverage::Unpriced => None,
                    };
                    prop_assert_eq!(of_instant.reason, reason, "{}", instant);
                }
            }
        }
    }
}
