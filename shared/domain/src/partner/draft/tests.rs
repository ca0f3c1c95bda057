//! Random histories of a contract: changes, late and voided usage, voided invoices and waived periods, in memory.

use jiff::ToSpan;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::partner::pricing::LineKind;
use crate::partner::terms::{Amend, Change, Members};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn members(value: Value) -> Members {
    value.as_object().unwrap().clone()
}

/// An event of usage.
#[derive(Debug, Clone)]
struct Used {
    at: Timestamp,
    ingested_at: Timestamp,
    units: i64,
}

#[derive(Debug, Clone)]
struct Invoice {
    draft: Draft,
    is_void: bool,
}

/// A partner, its contract, what it used and what it was billed.
struct World {
    history: History,
    next_id: i64,
    used: Vec<Used>,
    invoices: Vec<Invoice>,
    waived: Vec<Period>,
}

const LOOKED_AT: Rules = Rules {
    cap_cents: None,
    catch_up: 3,
    reviewed: true,
};

impl World {
    fn new(terms: Value) -> World {
        let mut since_ever =
            json!({"contract_start_date": "2025-01-11", "unit_source": "usage_events"});
        for (name, value) in terms.as_object().unwrap() {
            since_ever[name] = value.clone();
        }
        let change = Change {
            id: 1,
            effective_from: None,
            members: members(since_ever),
            created_at: at("2025-01-01T00:00:00Z"),
        };
        let at_once = json!({"api_key_prefix": "dp_pk_alpha", "payment_method": "wire"});
        World {
            history: History::new(members(at_once), vec![change]).unwrap(),
            next_id: 2,
            used: Vec::new(),
            invoices: Vec::new(),
            waived: Vec::new(),
        }
    }

    fn live(&self) -> impl Iterator<Item = &Invoice> {
        self.invoices.iter().filter(|invoice| !invoice.is_void)
    }

    fn billed(&self) -> Billed {
        let invoiced = self
            .live()
            .filter(|invoice| invoice.draft.kind == DraftKind::Period);
        let mut totals: Vec<(Currency, i64)> = self
            .live()
            .map(|invoice| (invoice.draft.bill.currency, invoice.draft.bill.total_cents))
            .collect();
        totals.reverse();
        Billed {
            invoiced: invoiced.map(|invoice| invoice.draft.period).collect(),
            usage: self
                .live()
                .flat_map(|invoice| invoice.draft.billed.clone())
                .collect(),
            waived: self.waived.clone(),
            totals_before: totals,
        }
    }

    /// What a stretch counts.
    fn count(&self, window: &Window<'_>) -> Usage {
        let counts = |used: &&Used| {
            window.period.contains(used.at)
                && window
                    .ingested_until
                    .is_none_or(|until| used.ingested_at <= until)
        };
        let units = self.used.iter().filter(counts).map(|used| used.units).sum();
        Usage { units, requests: 0 }
    }

    fn drafts(&self, now: Timestamp, rules: &Rules) -> Drafts {
        let billed = self.billed();
        let plan = Plan::new(&self.history, &billed, now).unwrap();
        let counted: Vec<Usage> = plan
            .windows()
            .iter()
            .map(|window| self.count(window))
            .collect();
        plan.drafts(&counted, rules).unwrap()
    }

    /// A run: what is drafted is issued.
    fn run(&mut self, now: Timestamp) -> usize {
        let drafts = self.drafts(now, &LOOKED_AT).drafts;
        let issued = drafts.len();
        self.invoices
            .extend(drafts.into_iter().map(|draft| Invoice {
                draft,
                is_void: false,
            }));
        issued
    }

    fn write(&mut self, now: Timestamp, value: Value) {
        let wanted = Amend {
            members: members(value),
            effective_from: None,
            reviewed: false,
        };
        let billed = self.billed();
        // What is refused changes nothing.
        let Ok(mut amendment) = self.history.amend(&wanted, &billed.invoiced, now) else {
            return;
        };
        for change in &mut amendment.added {
            change.id = self.next_id;
            self.next_id += 1;
        }
        self.history = self.history.amended(&amendment).unwrap();
    }
}

fn per_deed(more: Value) -> Value {
    let mut terms = json!({"pricing_model": "per_deed", "per_deed_price_cents": 250});
    for (name, value) in more.as_object().unwrap() {
        terms[name] = value.clone();
    }
    terms
}

fn used(day: &str, units: i64) -> Used {
    let at = at(&format!("{day}T12:00:00Z"));
    Used {
        at,
        ingested_at: at,
        units,
    }
}

const WAITS: Rules = Rules {
    cap_cents: None,
    catch_up: 3,
    reviewed: false,
};

/// `key reason total` of each draft.
fn told(drafts: &Drafts) -> Vec<String> {
    let told = drafts.drafts.iter().map(|draft| {
        let reason = draft.reason.map_or("-", DraftReason::as_str);
        format!("{} {reason} {}", draft.key(), draft.bill.total_cents)
    });
    told.collect()
}

#[test]
fn three_missed_periods_are_issued_with_the_newest_and_four_wait() {
    let flat = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "contract_start_date": "2016-01-01"});
    let drafts = World::new(flat).drafts(at("2025-11-01T00:05:00Z"), &WAITS);
    assert_eq!(drafts.drafts.len(), 118);
    assert!(
        drafts
            .drafts
            .iter()
            .all(|draft| draft.reason == Some(DraftReason::CatchUp))
    );
    for (start, waits) in [("2025-07-01", false), ("2025-06-01", true)] {
        let flat = json!({"pricing_model": "flat", "monthly_flat_fee_cents": 10_000, "contract_start_date": start});
        let drafts = World::new(flat).drafts(at("2025-11-01T00:05:00Z"), &WAITS);
        assert_eq!(
            drafts.drafts.iter().any(|draft| draft.reason.is_some()),
            waits,
            "{start}"
        );
    }
    // Months that come to nothing are no past periods.
    let mut world = World::new(per_deed(json!({})));
    world.used = vec![used("2025-02-10", 1), used("2025-10-10", 2)];
    let drafts = world.drafts(at("2025-11-01T00:05:00Z"), &WAITS);
    assert_eq!(told(&drafts), ["2025-02-01 - 250", "2025-10-01 - 500"]);
    assert_eq!(drafts.nothing_to_bill, 8);
}

#[test]
fn late_usage_goes_on_the_oldest_draft_that_comes_to_something_or_waits() {
    let mut world = World::new(per_deed(json!({})));
    world.used = vec![used("2025-01-20", 1)];
    world.run(at("2025-02-01T00:05:00Z"));
    world.used.push(used("2025-01-21", 2));
    // February comes to nothing, March to something.
    world.used.push(used("2025-03-10", 1));
    let drafts = world.drafts(at("2025-04-01T00:05:00Z"), &WAITS);
    assert_eq!(told(&drafts), ["2025-03-01 - 750"]);
    // Nothing but the correction: the newest carries it.
    world.used.pop();
    let drafts = world.drafts(at("2025-04-01T00:05:00Z"), &WAITS);
    assert_eq!(told(&drafts), ["2025-03-01 - 500"]);
    // Nothing has ended: the next invoice carries it.
    assert_eq!(
        told(&world.drafts(at("2025-02-10T00:05:00Z"), &WAITS)),
        [""; 0]
    );
    world.write(
        at("2025-02-10T00:00:00Z"),
        json!({"contract_end_date": "2025-02-10"}),
    );
    let ended = world.drafts(at("2025-02-11T00:05:00Z"), &WAITS);
    assert_eq!(
        told(&ended),
        ["2025-02-01 - 500"],
        "as long as there is a last period"
    );
    world.waived = vec![ended.drafts[0].period];
    let after = world.drafts(at("2025-02-11T00:05:00Z"), &WAITS);
    assert_eq!(
        told(&after),
        ["2025-01-11-correction late_usage_after_the_last_invoice 500"]
    );
    // A waived correction is none.
    let january = world.invoices[0].draft.period;
    world.waived.push(january);
    assert_eq!(
        told(&world.drafts(at("2025-02-11T00:05:00Z"), &WAITS)),
        [""; 0]
    );
}

#[test]
fn usage_that_arrives_after_396_days_corrects_nothing() {
    let mut world = World::new(per_deed(json!({})));
    world.used = vec![used("2025-01-20", 1)];
    world.run(at("2025-02-01T00:05:00Z"));
    let late = |ingested_at: &str| Used {
        ingested_at: at(ingested_at),
        ..used("2025-01-21", 2)
    };
    world.used.push(late("2026-03-04T00:00:00Z"));
    world.used.push(late("2026-03-04T00:00:01Z"));
    // However late the next invoice comes.
    let drafts = world.drafts(at("2027-06-01T00:05:00Z"), &WAITS);
    assert_eq!(told(&drafts), ["2027-05-01 - 500"]);
}

#[test]
fn late_usage_of_a_former_currency_waits() {
    let mut world = World::new(per_deed(json!({})));
    world.used = vec![used("2025-01-20", 1)];
    world.run(at("2025-02-01T00:05:00Z"));
    world.write(at("2025-02-10T00:00:00Z"), json!({"currency": "EUR"}));
    world
        .used
        .extend([used("2025-01-21", 2), used("2025-02-20", 1)]);
    let drafts = world.drafts(at("2025-03-01T00:05:00Z"), &WAITS);
    assert_eq!(
        told(&drafts),
        [
            "2025-02-01 - 250",
            "2025-01-11-correction late_usage_in_a_former_currency 500"
        ]
    );
    assert_eq!(drafts.drafts[1].bill.currency, Currency::USD);
}

#[test]
fn the_running_invoice_is_the_next_one_if_the_cycle_ended_now() {
    let mut world = World::new(per_deed(json!({"tax_percent": "10"})));
    world.used = vec![used("2025-01-20", 1)];
    world.run(at("2025-02-01T00:05:00Z"));
    world.used.extend([
        used("2025-01-21", 2),
        used("2025-02-10", 4),
        used("2025-02-20", 8),
    ]);
    let billed = world.billed();
    let now = at("2025-02-10T12:00:00Z");
    let (plan, period) = Plan::current(&world.history, &billed, now).unwrap();
    let counted: Vec<Usage> = plan
        .windows()
        .iter()
        .map(|window| world.count(window))
        .collect();
    assert_eq!(
        plan.usage_of(period.as_ref(), &counted).units,
        4,
        "up to this instant"
    );
    let drafts = plan.drafts(&counted, &LOOKED_AT).unwrap();
    let lines: Vec<(LineKind, i64)> = drafts.drafts[0]
        .bill
        .lines
        .iter()
        .map(|line| (line.kind, line.total_cents))
        .collect();
    assert_eq!(
        lines,
        [(LineKind::Usage, 1_000), (LineKind::Adjustment, 500)]
    );
    assert_eq!(drafts.drafts[0].bill.total_cents, 1_650);
    let wrong = plan.drafts(&counted[1..], &LOOKED_AT);
    assert!(matches!(wrong, Err(Error::Counts { .. })));
}

fn terms() -> impl Strategy<Value = Value> {
    let price = 1_i64..1_000;
    (0_usize..5, price, 0_i64..20, 0_i64..5_000, 0_u32..3).prop_map(
        |(model, price, included, minimum, taxes)| {
            let tiers = json!([{"up_to": 10, "unit_price_cents": price, "flat_cents": 3},
                               {"up_to": null, "unit_price_cents": "0.5", "flat_cents": 7}]);
            let taxes: Vec<Value> = (0..taxes)
                .map(|n| json!({"name": format!("Tax {n}"), "percentage": format!("{}.{:03}", 5 + n, 875)}))
                .collect();
            let (name, mode) = [
                ("flat", "volume"),
                ("per_deed", "volume"),
                ("hybrid", "volume"),
                ("tiered", "volume"),
                ("tiered", "graduated"),
            ][model];
            json!({"pricing_model": name, "monthly_flat_fee_cents": price * 31, "per_deed_price_cents": price,
                   "tiers": tiers, "tier_mode": mode, "included_units": included,
                   "minimum_commitment_cents": minimum, "taxes": taxes})
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Use { days_ago: i64, units: i64 },
    Unuse(usize),
    Change(Value),
    Run,
    Void(usize),
    Waive(usize),
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let change = prop_oneof![
        terms(),
        Just(json!({"status": "suspended"})),
        Just(json!({"status": "active"})),
        Just(json!({"status": "canceled"})),
        Just(json!({"contract_end_date": null})),
        Just(json!({"billing_cycle": "quarterly"})),
        Just(json!({"billing_cycle": "monthly"})),
        Just(json!({"timezone": "America/New_York"})),
    ];
    let step = prop_oneof![
        6 => (0_i64..60, 0_i64..40).prop_map(|(days_ago, units)| Step::Use { days_ago, units }),
        1 => (0_usize..40).prop_map(Step::Unuse),
        2 => change.prop_map(Step::Change),
        4 => Just(Step::Run),
        1 => (0_usize..20).prop_map(Step::Void),
        1 => (0_usize..5).prop_map(Step::Waive),
    ];
    proptest::collection::vec((0_i64..25, step), 1..22)
}

fn check_bill(draft: &Draft) {
    let bill = &draft.bill;
    let sum =
        |of: fn(&crate::partner::pricing::RatedLine) -> i64| bill.lines.iter().map(of).sum::<i64>();
    assert_eq!(bill.subtotal_cents, sum(|line| line.total_cents));
    assert_eq!(bill.tax_cents, sum(|line| line.tax_cents));
    assert_eq!(bill.total_cents, bill.subtotal_cents + bill.tax_cents);
    let of_groups: i64 = bill.taxes.iter().map(|group| group.tax_cents).sum();
    assert_eq!(bill.tax_cents, of_groups);
    for group in &bill.taxes {
        let tax_cents = tax::tax_of(group.percentage, group.taxable_cents, 1).unwrap();
        assert_eq!(
            group.tax_cents, tax_cents,
            "it follows from the sum printed beside it"
        );
    }
    let balancing: i64 = bill
        .lines
        .iter()
        .filter(|line| line.kind == LineKind::CarriedOver)
        .map(|line| line.total_cents + line.tax_cents)
        .sum();
    assert_eq!(bill.carried_over_cents, balancing);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Live invoices come to the price of the usage by the terms of its days, whatever happened in between; and what is
    /// issued stays as it is.
    #[test]
    fn live_invoices_are_the_price_of_the_usage(first in terms(), steps in steps()) {
        let mut world = World::new(first);
        let mut now = at("2025-01-15T10:00:00Z");
        for (days, step) in steps {
            now = now.saturating_add(SignedDuration::from_hours(24 * days)).unwrap();
            match step {
                Step::Use { days_ago, units } => {
                    let at = now.saturating_sub(SignedDuration::from_hours(24 * days_ago)).unwrap();
                    world.used.push(Used { at, ingested_at: now, units });
                }
                Step::Unuse(place) if place < world.used.len() => {
                    world.used.remove(place);
                }
                Step::Change(value) => world.write(now, value),
                Step::Run => {
                    world.run(now);
                    prop_assert_eq!(world.run(now), 0, "a second run has nothing to do");
                }
                Step::Void(place) if place < world.invoices.len() => world.invoices[place].is_void = true,
                Step::Waive(place) => {
                    let drafts = world.drafts(now, &WAITS).drafts;
                    let of_period = |draft: &&Draft| draft.kind == DraftKind::Period;
                    world.waived.extend(drafts.iter().filter(of_period).nth(place).map(|draft| draft.period));
                }
                Step::Unuse(_) | Step::Void(_) => {}
            }
            // The running invoice can always be told.
            let billed = world.billed();
            let (plan, _) = Plan::current(&world.history, &billed, now).unwrap();
            let counted: Vec<Usage> = plan.windows().iter().map(|window| world.count(window)).collect();
            plan.drafts(&counted, &LOOKED_AT).unwrap();
        }
        // The contract ends, and everything is billed.
        world.write(now, json!({"status": "active"}));
        world.write(now, json!({"status": "canceled"}));
        let tomorrow = now.to_zoned(TimeZone::UTC).checked_add(2.days()).unwrap().timestamp();
        world.run(tomorrow);
        prop_assert_eq!(world.run(tomorrow), 0);
        for invoice in &world.invoices {
            check_bill(&invoice.draft);
        }
        let mut periods: Vec<Period> = world.billed().invoiced;
        periods.extend(&world.waived);
        periods.sort_by_key(|period| (period.start, period.end));
        for pair in periods.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "no instant is billed twice");
        }
        // Every period, by the terms of its first billed day, as they were when it was billed.
        let billed = world.billed();
        for row in billed.usage.iter().filter(|row| row.terms.is_some()) {
            if world.waived.contains(&row.period) {
                continue;
            }
            let frozen = FrozenTerms::read(row.terms.as_ref().unwrap(), None).unwrap();
            let mut usage = Usage::default();
            for stretch in &frozen.usage {
                usage.units += world.count(&Window::of(&frozen.contract, *stretch)).units;
            }
            let price_cents = pricing::rate_again(&frozen.contract, frozen.share, usage).unwrap();
            let billed_cents: i64 = billed
                .usage
                .iter()
                .filter(|other| other.period == row.period)
                .map(|other| other.amount_cents)
                .sum();
            prop_assert_eq!(billed_cents, price_cents, "{:?}", row.period);
        }
        // What the invoices say is what they have billed.
        for invoice in world.live() {
            let bill = &invoice.draft.bill;
            let lines: i64 = bill
                .lines
                .iter()
                .filter(|line| line.kind != LineKind::CarriedOver)
                .map(|line| line.total_cents)
                .sum();
            let billed: i64 = invoice.draft.billed.iter().map(|row| row.amount_cents).sum();
            prop_assert_eq!(lines, billed);
        }
    }
}
