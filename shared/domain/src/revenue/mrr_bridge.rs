//! The MRR bridge: what moved recurring revenue in each period, and the ratios drawn from it (`docs/money.md`, rules 6 to 11).
//!
//! Everything is exact, in micro-minor-units of one currency, until the last step.

use std::collections::BTreeMap;

use jiff::civil::{Date, Weekday};
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::money::{self, div_half_even, narrow};
use crate::period::{Month, Period, day_of, start_of_day};
use crate::revenue::figures::CHURN_WINDOW;
use crate::revenue::movement::{Kind, Movement};

/// How many millionths a minor unit has.
const MICROS: i128 = 1_000_000;

const NO_OPENING: &str = "there was no MRR at the opening";
const NOBODY_AT_OPENING: &str = "nobody paid at the opening";
const NOBODY_IN_WINDOW: &str = "nobody paid in the 30 days";
const NOBODY_PAYS: &str = "nobody pays at the end";
const NO_CHURN: &str = "no customer churned in the 30 days";
const NO_LOSS: &str = "there was neither contraction nor churn";
const NOT_READ: &str = "it could not be read";

/// Why a figure of the MRR bridge could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The amount does not fit into 64 bits; never replaced by another number.
    #[error("a figure of the bridge is out of range")]
    Money(#[from] money::Error),
}

/// The length of the periods of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// A civil day in UTC.
    Day,
    /// An ISO week: Monday to Sunday, UTC.
    Week,
    /// A calendar month, UTC.
    Month,
}

impl Granularity {
    /// The word in answers and in the `granularity` parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Granularity::Day => "day",
            Granularity::Week => "week",
            Granularity::Month => "month",
        }
    }

    /// The name of the period that begins on `day`: `2025-10-05`, `2025-W40` or `2025-10`.
    fn name(self, day: Date) -> String {
        match self {
            Granularity::Day => day.to_string(),
            Granularity::Week => {
                let week = day.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Granularity::Month => Month::of_day(day).to_string(),
        }
    }

    fn day_after(self, day: Date) -> Date {
        match self {
            Granularity::Day => day.saturating_add(1.day()),
            Granularity::Week => {
                let monday = day.weekday().since(Weekday::Monday);
                day.saturating_add((7 - i64::from(monday)).days())
            }
            Granularity::Month => Month::of_day(day).next().first_day(),
        }
    }
}

/// A calendar period, or the part of it inside the requested range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The name of the calendar period: `2025-10-05`, `2025-W40` or `2025-10`.
    pub name: String,
    /// The part that counts, `[start, end)`.
    pub period: Period,
}

/// The periods of a range, oldest first and without gaps. The first and the last are cut at the edges of the range.
pub fn spans(granularity: Granularity, range: Period) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let day = day_of(start);
        let end = start_of_day(granularity.day_after(day)).min(range.end);
        let Ok(period) = Period::new(start, end) else {
            // The end of the calendar.
            break;
        };
        spans.push(Span {
            name: granularity.name(day),
            period,
        });
        start = end;
    }
    spans
}

/// A movement of one customer, with what the bridge needs of it. Amounts in millionths of a minor unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The instant of the movement.
    pub occurred_at: Timestamp,
    /// The kind of the movement.
    pub kind: Kind,
    /// The customer's MRR before the movement.
    pub before_microcents: i64,
    /// The customer's MRR after the movement.
    pub after_microcents: i64,
}

impl From<&Movement> for Step {
    fn from(movement: &Movement) -> Step {
        Step {
            occurred_at: movement.occurred_at,
            kind: movement.kind,
            before_microcents: movement.before_microcents,
            after_microcents: movement.after_microcents,
        }
    }
}

/// What is not MRR yet or will soon stop being MRR, at the end of a period. Amounts in millionths of a minor unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pending {
    /// The MRR that subscriptions in trial would have.
    pub trial_microcents: i128,
    /// The MRR of subscriptions that are set to end, including those in trial.
    pub canceling_microcents: i128,
}

/// A time during which a subscription was in trial or set to end: from one snapshot of it to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// The time of the snapshot that shows it.
    pub from: Timestamp,
    /// The time of the next snapshot; `None` for the last one.
    pub until: Option<Timestamp>,
    /// What the subscription adds to trial MRR, in millionths of a minor unit.
    pub trial_microcents: i64,
    /// What it takes off committed MRR, in millionths of a minor unit.
    pub canceling_microcents: i64,
}

impl Spell {
    /// Adds the spell to each of `ends` (oldest first) at which it was current. A change at an end itself comes after
    /// the end.
    pub fn add_to(&self, ends: &[Timestamp], pending: &mut [Pending]) {
        let first = ends.partition_point(|end| *end <= self.from);
        for (end, pending) in ends.iter().zip(pending).skip(first) {
            if self.until.is_some_and(|until| until < *end) {
                break;
            }
            pending.trial_microcents += i128::from(self.trial_microcents);
            pending.canceling_microcents += i128::from(self.canceling_microcents);
        }
    }
}

/// The exact sums of a period. Losses are positive here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    new: i128,
    expansion: i128,
    contraction: i128,
    churned: i128,
    reactivation: i128,
    customers_gained: i64,
    customers_lost: i64,
    /// Only of customers who were present at the opening.
    retained_expansion: i128,
    retained_contraction: i128,
    retained_churned: i128,
    /// Customers present at the opening who pay nothing at the end.
    customers_left: i64,
    /// Customers who stopped within the 30 days before the end, and did not come back by then.
    customers_left_in_window: i64,
}

/// Adds up movements, customer by customer, into periods. Its memory depends on the number of periods, not of
/// movements.
#[derive(Debug)]
pub struct MrrBridge {
    spans: Vec<Span>,
    sums: Vec<Sums>,
    opening_microcents: i128,
    opening_customers: i64,
}

impl MrrBridge {
    /// For these periods, oldest first. The opening figures are those at the start of the first period.
    pub fn new(spans: Vec<Span>, opening_microcents: i64, opening_customers: i64) -> MrrBridge {
        MrrBridge {
            sums: vec![Sums::default(); spans.len()],
            spans,
            opening_microcents: i128::from(opening_microcents),
            opening_customers,
        }
    }

    /// The first instant whose movements are needed: 30 days before the end of the first period, or its start.
    pub fn needs_from(&self) -> Timestamp {
        let Some(first) = self.spans.first() else {
            return Timestamp::MAX;
        };
        let window = window_start(first.period.end);
        window.min(first.period.start)
    }

    /// The first instant whose movements are not needed any more.
    pub fn needs_until(&self) -> Timestamp {
        self.spans
            .last()
            .map_or(Timestamp::MIN, |last| last.period.end)
    }

    /// The end of each period.
    pub fn ends(&self) -> Vec<Timestamp> {
        self.spans.iter().map(|span| span.period.end).collect()
    }

    /// Replaces one customer's share in the opening figures of [`MrrBridge::new`]. `counted` and `steps` are all movements
    /// of the customer before the first period, oldest first: as they were counted, and as they count here.
    pub fn reopen_customer(&mut self, counted: &[Step], steps: &[Step]) {
        let Some(first) = self.spans.first() else {
            return;
        };
        let paid_before = |steps: &[Step]| {
            let last = steps
                .iter()
                .rfind(|step| step.occurred_at < first.period.start);
            last.map_or(0, |step| step.after_microcents)
        };
        let (counted, counts) = (paid_before(counted), paid_before(steps));
        self.opening_microcents += i128::from(counts) - i128::from(counted);
        self.opening_customers += i64::from(counts > 0) - i64::from(counted > 0);
    }

    /// Adds all movements of one customer from [`MrrBridge::needs_from`] on, oldest first. Others are ignored.
    pub fn add_customer(&mut self, steps: &[Step]) {
        for (index, step) in steps.iter().enumerate() {
            self.add_to_window(step, steps.get(index + 1));
        }
        let mut remaining = steps;
        while let Some(first) = remaining.first() {
            let place = self.span_of(first.occurred_at);
            let count = remaining
                .iter()
                .take_while(|step| self.span_of(step.occurred_at) == place)
                .count();
            let (of_span, later) = remaining.split_at(count);
            if let Some(sums) = place.and_then(|place| self.sums.get_mut(place)) {
                sums.add(of_span);
            }
            remaining = later;
        }
    }

    fn span_of(&self, instant: Timestamp) -> Option<usize> {
        let place = self
            .spans
            .partition_point(|span| span.period.end <= instant);
        let span = self.spans.get(place)?;
        span.period.contains(instant).then_some(place)
    }

    /// A customer who stops counts at every end within the next 30 days, unless they are back by then.
    fn add_to_window(&mut self, step: &Step, next: Option<&Step>) {
        if step.after_microcents > 0 {
            return;
        }
        let stopped_at = step.occurred_at;
        let first = self
            .spans
            .partition_point(|span| span.period.end <= stopped_at);
        for (span, sums) in self.spans.iter().zip(&mut self.sums).skip(first) {
            let end = span.period.end;
            let is_back = next.is_some_and(|next| next.occurred_at < end);
            if is_back || stopped_at < window_start(end) {
                break;
            }
            sums.customers_left_in_window += 1;
        }
    }

    /// The figures of the periods, oldest first. `pending` has an element for the end of each period, in the same
    /// order; `None` leaves the figures about trials and cancellations undefined.
    pub fn periods(&self, pending: Option<&[Pending]>) -> Result<Vec<PeriodFigures>, Error> {
        let mut opening = self.opening_microcents;
        let mut customers = self.opening_customers;
        let mut periods = Vec::with_capacity(self.spans.len());
        for (place, (span, sums)) in self.spans.iter().zip(&self.sums).enumerate() {
            let closing = opening + sums.net();
            let customers_at_end = customers + sums.customers_gained - sums.customers_lost;
            let edges = Edges {
                opening,
                closing,
                customers,
                customers_at_end,
            };
            let pending = pending.and_then(|pending| pending.get(place));
            periods.push(figures(span, sums, edges, pending)?);
            opening = closing;
            customers = customers_at_end;
        }
        Ok(periods)
    }
}

impl Sums {
    /// The movements of one customer in the period, oldest first.
    fn add(&mut self, steps: &[Step]) {
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
            return;
        };
        let was_present = first.before_microcents > 0;
        for step in steps {
            let change = i128::from(step.after_microcents) - i128::from(step.before_microcents);
            match step.kind {
                Kind::New => {
                    self.new += change;
                    self.customers_gained += 1;
                }
                Kind::Reactivation => {
                    self.reactivation += change;
                    self.customers_gained += 1;
                }
                Kind::Expansion => {
                    self.expansion += change;
                    if was_present {
                        self.retained_expansion += change;
                    }
                }
                Kind::Contraction => {
                    self.contraction -= change;
                    if was_present {
                        self.retained_contraction -= change;
                    }
                }
                Kind::Churn => {
                    self.churned -= change;
                    self.customers_lost += 1;
                    if was_present {
                        self.retained_churned -= change;
                    }
                }
            }
        }
        if was_present && last.after_microcents <= 0 {
            self.customers_left += 1;
        }
    }

    fn net(&self) -> i128 {
        self.new + self.expansion + self.reactivation - self.contraction - self.churned
    }
}

/// The figures at the edges of a period.
#[derive(Debug, Clone, Copy)]
struct Edges {
    opening: i128,
    closing: i128,
    customers: i64,
    customers_at_end: i64,
}

/// One period of the MRR bridge. `opening + new + expansion − contraction − churned + reactivation + fx = closing`,
/// exactly. An undefined figure is null and `null_reasons` says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PeriodFigures {
    /// `2025-10-05`, `2025-W40` or `2025-10`.
    pub period: String,
    pub opening_mrr_cents: i64,
    pub new_mrr_cents: i64,
    pub expansion_mrr_cents: i64,
    /// A loss, shown as a positive number.
    pub contraction_mrr_cents: i64,
    /// A loss, shown as a positive number.
    pub churned_mrr_cents: i64,
    pub reactivation_mrr_cents: i64,
    /// Always 0: each currency has its bridge and nothing is converted.
    pub fx_mrr_cents: i64,
    pub closing_mrr_cents: i64,
    pub gross_churn_bps: Option<i64>,
    pub net_churn_bps: Option<i64>,
    pub grr_bps: Option<i64>,
    pub nrr_bps: Option<i64>,
    pub customer_churn_classic_bps: Option<i64>,
    pub customer_churn_stripe_bps: Option<i64>,
    pub arpa_cents: Option<i64>,
    pub ltv_cents: Option<i64>,
    pub quick_ratio_bps: Option<i64>,
    pub trial_mrr_cents: Option<i64>,
    pub committed_mrr_cents: Option<i64>,
    /// The reason for each figure that is null, by its member's name.
    pub null_reasons: BTreeMap<&'static str, &'static str>,
}

fn figures(
    span: &Span,
    sums: &Sums,
    edges: Edges,
    pending: Option<&Pending>,
) -> Result<PeriodFigures, Error> {
    let Edges {
        opening,
        closing,
        customers,
        customers_at_end,
    } = edges;
    let movements = [
        sums.new,
        sums.expansion,
        -sums.contraction,
        -sums.churned,
        sums.reactivation,
    ];
    let (opening_cents, closing_cents) = (round(opening)?, round(closing)?);
    let [new, expansion, contraction, churned, reactivation] = displayed(
        movements,
        i128::from(closing_cents) - i128::from(opening_cents),
    );
    let lost = sums.churned + sums.contraction;
    let gained = sums.expansion + sums.reactivation;
    let retained_losses = sums.retained_churned + sums.retained_contraction;
    // Everybody who paid 30 days ago or has begun since then either pays at the end or has stopped.
    let left = i128::from(sums.customers_left_in_window);
    let in_window = left + i128::from(customers_at_end);

    let mut reasons = BTreeMap::new();
    let mut or_null = |name, figure: Option<i64>, reason| {
        if figure.is_none() {
            reasons.insert(name, reason);
        }
        figure
    };
    let of_opening = |part| ratio(part, opening, 10_000);
    let gross = or_null("gross_churn_bps", of_opening(lost)?, NO_OPENING);
    let net = or_null("net_churn_bps", of_opening(lost - gained)?, NO_OPENING);
    let grr = of_opening(opening - retained_losses)?;
    let grr = or_null("grr_bps", grr, NO_OPENING);
    let nrr = of_opening(opening - retained_losses + sums.retained_expansion)?;
    let nrr = or_null("nrr_bps", nrr, NO_OPENING);
    let classic = ratio(
        i128::from(sums.customers_left),
        i128::from(customers),
        10_000,
    )?;
    let classic = or_null("customer_churn_classic_bps", classic, NOBODY_AT_OPENING);
    let stripe = ratio(left, in_window, 10_000)?;
    let stripe = or_null("customer_churn_stripe_bps", stripe, NOBODY_IN_WINDOW);
    let divisor = i128::from(customers_at_end) * MICROS;
    let arpa = or_null("arpa_cents", ratio(closing, divisor, 1)?, NOBODY_PAYS);
    // ARPA ÷ churn in one division, so that it is rounded once.
    let ltv = ratio(closing, mul(divisor, left)?, in_window)?;
    let no_ltv = if customers_at_end == 0 {
        NOBODY_PAYS
    } else {
        NO_CHURN
    };
    let ltv = or_null("ltv_cents", ltv, no_ltv);
    let quick = ratio(sums.new + sums.expansion, lost, 10_000)?;
    let quick = or_null("quick_ratio_bps", quick, NO_LOSS);
    let (trial, committed) = match pending {
        None => (None, None),
        Some(pending) => {
            let trial = pending.trial_microcents;
            let committed = closing + trial - pending.canceling_microcents;
            (Some(round(trial)?), Some(round(committed)?))
        }
    };
    let trial = or_null("trial_mrr_cents", trial, NOT_READ);
    let committed = or_null("committed_mrr_cents", committed, NOT_READ);
    Ok(PeriodFigures {
        period: span.name.clone(),
        opening_mrr_cents: opening_cents,
        new_mrr_cents: narrow(new)?,
        expansion_mrr_cents: narrow(expansion)?,
        contraction_mrr_cents: narrow(-contraction)?,
        churned_mrr_cents: narrow(-churned)?,
        reactivation_mrr_cents: narrow(reactivation)?,
        fx_mrr_cents: 0,
        closing_mrr_cents: closing_cents,
        gross_churn_bps: gross,
        net_churn_bps: net,
        grr_bps: grr,
        nrr_bps: nrr,
        customer_churn_classic_bps: classic,
        customer_churn_stripe_bps: stripe,
        arpa_cents: arpa,
        ltv_cents: ltv,
        quick_ratio_bps: quick,
        trial_mrr_cents: trial,
        committed_mrr_cents: committed,
        null_reasons: reasons,
    })
}

/// Rounds millionths to whole minor units that add up to `total`. Each is rounded towards zero; the remainder goes unit
/// by unit to those that lost most, in its direction (largest remainder by absolute value, ties to the earlier one).
/// Zero stays zero.
fn displayed(movements: [i128; 5], total: i128) -> [i128; 5] {
    let mut cents = movements.map(|movement| movement / MICROS);
    let mut undistributed = total - cents.iter().sum::<i128>();
    let step = undistributed.signum();
    let mut order: Vec<usize> = (0..movements.len())
        .filter(|place| movements[*place] != 0)
        .collect();
    // Those with a remainder in the right direction come first. There are enough of them, except for one unit when both
    // edges were halves and every movement is whole: that unit goes to the largest.
    order.sort_by_key(|place| {
        let remainder = movements[*place] % MICROS * step;
        let size = movements[*place].abs();
        (std::cmp::Reverse(remainder), std::cmp::Reverse(size))
    });
    for place in order {
        if undistributed == 0 {
            break;
        }
        cents[place] += step;
        undistributed -= step;
    }
    cents
}

/// `part × scale ÷ whole`, half-even; `None` when `whole` is zero.
fn ratio(part: i128, whole: i128, scale: i128) -> Result<Option<i64>, Error> {
    if whole == 0 {
        return Ok(None);
    }
    Ok(Some(narrow(div_half_even(mul(part, scale)?, whole)?)?))
}

fn mul(left: i128, right: i128) -> Result<i128, Error> {
    Ok(left.checked_mul(right).ok_or(money::Error::OutOfRange)?)
}

fn round(microcents: i128) -> Result<i64, Error> {
    Ok(narrow(div_half_even(microcents, MICROS)?)?)
}

fn window_start(end: Timestamp) -> Timestamp {
    let window: SignedDuration = CHURN_WINDOW;
    end.saturating_sub(window).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::money::Currency;
    use crate::revenue::movement::{SubscriptionVersion, movements};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn range(from: &str, to: &str) -> Period {
        Period::new(at(from), at(to)).unwrap()
    }

    fn months(from: &str, to: &str) -> Vec<Span> {
        spans(Granularity::Month, range(from, to))
    }

    /// `(day of 2025, before, after)` in minor units.
    fn steps(moves: &[(&str, Kind, i64, i64)]) -> Vec<Step> {
        moves
            .iter()
            .map(|(day, kind, before, after)| Step {
                occurred_at: at(&format!("2025-{day}T12:00:00Z")),
                kind: *kind,
                before_microcents: before * 1_000_000,
                after_microcents: after * 1_000_000,
            })
            .collect()
    }

    #[test]
    fn periods_are_civil_and_the_edges_are_cut() {
        let names = |granularity, from, to| -> Vec<String> {
            spans(granularity, range(from, to))
                .into_iter()
                .map(|span| span.name)
                .collect()
        };
        assert_eq!(
            names(
                Granularity::Month,
                "2024-11-15T00:00:00Z",
                "2025-01-01T00:00:01Z"
            ),
            ["2024-11", "2024-12", "2025-01"]
        );
        // 1 January 2027 is a Friday, in the last week of 2026.
        assert_eq!(
            names(
                Granularity::Week,
                "2026-12-27T00:00:00Z",
                "2027-01-05T00:00:00Z"
            ),
            ["2026-W52", "2026-W53", "2027-W01"]
        );
        assert_eq!(
            names(
                Granularity::Day,
                "2024-02-28T23:00:00Z",
                "2024-03-01T00:00:00Z"
            ),
            ["2024-02-28", "2024-02-29"]
        );
        let cut = spans(
            Granularity::Week,
            range("2025-10-01T06:00:00Z", "2025-10-07T00:00:00Z"),
        );
        // Wednesday to Sunday, and the Monday.
        assert_eq!(cut[0].period.start, at("2025-10-01T06:00:00Z"));
        assert_eq!(cut[0].period.end, at("2025-10-06T00:00:00Z"));
        assert_eq!(cut[1].period.end, at("2025-10-07T00:00:00Z"));
    }

    #[test]
    fn the_worked_example_bridges_as_written() {
        // docs/money.md, worked example: 4 × gold yearly 50000, + 2 × silver monthly 3000, silver gone, gold gone, 3 × gold monthly 5000.
        let micro = |day: &str, kind, before, after| Step {
            occurred_at: at(&format!("2025-{day}T00:00:00Z")),
            kind,
            before_microcents: before,
            after_microcents: after,
        };
        let (gold, both) = (16_666_666_667, 22_666_666_667);
        let history = [
            micro("01-10", Kind::New, 0, gold),
            micro("02-10", Kind::Expansion, gold, both),
            micro("03-10", Kind::Contraction, both, gold),
            micro("04-10", Kind::Churn, gold, 0),
            micro("05-10", Kind::Reactivation, 0, 15_000_000_000),
        ];
        let mut bridge =
            MrrBridge::new(months("2025-01-01T00:00:00Z", "2025-06-01T00:00:00Z"), 0, 0);
        bridge.add_customer(&history);
        let periods = bridge.periods(Some(&[Pending::default(); 5])).unwrap();
        let rows: Vec<[i64; 7]> = periods
            .iter()
            .map(|period| {
                [
                    period.opening_mrr_cents,
                    period.new_mrr_cents,
                    period.expansion_mrr_cents,
                    period.contraction_mrr_cents,
                    period.churned_mrr_cents,
                    period.reactivation_mrr_cents,
                    period.closing_mrr_cents,
                ]
            })
            .collect();
        assert_eq!(
            rows,
            [
                [0, 16_667, 0, 0, 0, 0, 16_667],
                [16_667, 0, 6_000, 0, 0, 0, 22_667],
                [22_667, 0, 0, 6_000, 0, 0, 16_667],
                [16_667, 0, 0, 0, 16_667, 0, 0],
                [0, 0, 0, 0, 0, 15_000, 15_000],
            ]
        );
        // March: 6000 of 22666.67 lost; a customer, none of whom left.
        assert_eq!(periods[2].gross_churn_bps, Some(2_647));
        assert_eq!(periods[2].grr_bps, Some(7_353));
        assert_eq!(periods[2].customer_churn_classic_bps, Some(0));
        assert_eq!(periods[2].ltv_cents, None);
        // February: 22666.67 ÷ 16666.67.
        assert_eq!(periods[1].nrr_bps, Some(13_600));
        assert_eq!(periods[1].net_churn_bps, Some(-3_600));
        assert_eq!(periods[3].customer_churn_stripe_bps, Some(10_000));
        assert_eq!(periods[4].nrr_bps, None);
        assert_eq!(periods[4].null_reasons["nrr_bps"], NO_OPENING);
        assert_eq!(periods[4].null_reasons["quick_ratio_bps"], NO_LOSS);
        assert_eq!(periods[3].quick_ratio_bps, Some(0));
    }

    #[test]
    fn both_customer_churns_follow_the_worked_example() {
        // docs/money.md, worked example: 100 customers, 10 leave, 30 join: classic 10.0 %, Stripe's formula 7.69 %.
        let mut bridge = MrrBridge::new(
            months("2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z"),
            100 * 1_000 * 1_000_000,
            100,
        );
        for _ in 0..10 {
            bridge.add_customer(&steps(&[("10-10", Kind::Churn, 1_000, 0)]));
        }
        for _ in 0..30 {
            bridge.add_customer(&steps(&[("10-12", Kind::New, 0, 1_000)]));
        }
        let pending = Pending {
            trial_microcents: 500_000_000,
            canceling_microcents: 1_200_000_000,
        };
        let october = &bridge.periods(Some(&[pending])).unwrap()[0];
        assert_eq!(october.customer_churn_classic_bps, Some(1_000));
        assert_eq!(october.customer_churn_stripe_bps, Some(769));
        assert_eq!(october.closing_mrr_cents, 120_000);
        assert_eq!(october.arpa_cents, Some(1_000));
        // 1000 ÷ (10 ÷ 130).
        assert_eq!(october.ltv_cents, Some(13_000));
        // (30000 + 0) ÷ 10000.
        assert_eq!(october.quick_ratio_bps, Some(30_000));
        assert_eq!(october.gross_churn_bps, Some(1_000));
        assert_eq!(october.nrr_bps, Some(9_000), "who joins is not retained");
        assert_eq!(october.trial_mrr_cents, Some(500));
        assert_eq!(october.committed_mrr_cents, Some(119_300));
        assert!(october.null_reasons.is_empty());
        let unread = &bridge.periods(None).unwrap()[0];
        assert_eq!(unread.trial_mrr_cents, None);
        assert_eq!(unread.null_reasons["committed_mrr_cents"], NOT_READ);
    }

    #[test]
    fn retention_is_of_those_present_at_the_opening() {
        let mut bridge = MrrBridge::new(
            months("2025-10-01T00:00:00Z", "2025-11-01T00:00:00Z"),
            1_000_000_000,
            2,
        );
        // Present at 600: up to 900. Present at 400: gone, and back at 100. Begins at 500, shrinks, ends.
        bridge.add_customer(&steps(&[("10-02", Kind::Expansion, 600, 900)]));
        bridge.add_customer(&steps(&[
            ("10-03", Kind::Churn, 400, 0),
            ("10-20", Kind::Reactivation, 0, 100),
        ]));
        bridge.add_customer(&steps(&[
            ("10-04", Kind::New, 0, 500),
            ("10-05", Kind::Contraction, 500, 200),
            ("10-06", Kind::Churn, 200, 0),
        ]));
        let october = &bridge.periods(None).unwrap()[0];
        assert_eq!(october.closing_mrr_cents, 1_000);
        // (600 churned + 300 contracted) ÷ 1000; less 300 expanded and 100 back.
        assert_eq!(october.gross_churn_bps, Some(9_000));
        assert_eq!(october.net_churn_bps, Some(5_000));
        // (1000 − 400) ÷ 1000, and with the 300 of the first customer.
        assert_eq!(october.grr_bps, Some(6_000));
        assert_eq!(october.nrr_bps, Some(9_000));
        assert_eq!(
            october.customer_churn_classic_bps,
            Some(0),
            "who is back has not left"
        );
        // The one who came and went, by him and the two who pay.
        assert_eq!(october.customer_churn_stripe_bps, Some(3_333));
    }

    #[test]
    fn the_thirty_days_reach_across_periods() {
        let range = range("2025-10-01T00:00:00Z", "2025-12-01T00:00:00Z");
        let mut bridge = MrrBridge::new(spans(Granularity::Week, range), 2_000_000_000, 2);
        assert_eq!(bridge.needs_from(), at("2025-09-06T00:00:00Z"));
        bridge.add_customer(&steps(&[("09-30", Kind::Churn, 1_000, 0)]));
        bridge.add_customer(&steps(&[
            ("10-15", Kind::Churn, 1_000, 0),
            ("10-30", Kind::Reactivation, 0, 1_000),
        ]));
        let periods = bridge.periods(None).unwrap();
        let churn: Vec<Option<i64>> = periods
            .iter()
            .map(|period| period.customer_churn_stripe_bps)
            .collect();
        // Weeks ending on 6, 13, 20, 27 October, 3 November … : 1 of 3, 1 of 3, 2 of 3, 2 of 3, then nobody of 2.
        let (third, two_thirds) = (Some(3_333), Some(6_667));
        let expected = [third, third, two_thirds, two_thirds, Some(0)];
        assert_eq!(churn[..5], expected);
    }

    #[test]
    fn the_remainder_goes_to_the_largest_and_never_to_a_zero() {
        for (movements, total, expected) in [
            // 0.6 + 0.5 = 1.1.
            ([600_000, 500_000, 0, 0, 0], 1, [1, 0, 0, 0, 0]),
            // 1.7 lost, 0.3 gained, −1.4.
            ([300_000, 0, 0, -1_700_000, 0], -1, [0, 0, 0, -1, 0]),
            ([300_000, 0, 0, -1_700_000, 0], -2, [0, 0, 0, -2, 0]),
            // From 0.5, shown as 0, to 1.5, shown as 2: one whole unit is shown as two.
            ([1_000_000, 0, 0, 0, 0], 2, [2, 0, 0, 0, 0]),
            // From 2.5, shown as 2, to 1.5, shown as 2.
            ([0, 0, 0, -1_000_000, 0], 0, [0, 0, 0, 0, 0]),
            ([0, 0, 0, 0, 0], 0, [0, 0, 0, 0, 0]),
        ] {
            assert_eq!(displayed(movements, total), expected, "{movements:?}");
        }
    }

    /// `(subscription, second, counted, amount)`.
    fn version(
        subscription: usize,
        second: i64,
        amount: i64,
        has_ended: bool,
    ) -> SubscriptionVersion {
        let occurred_at = at("2025-01-01T00:00:00Z") + SignedDuration::from_secs(second);
        let status = if has_ended { "canceled" } else { "active" };
        SubscriptionVersion {
            stripe_subscription_id: format!("sub_{subscription}"),
            stripe_customer_id: format!("cus_{}", subscription / 2),
            source_event_id: format!("evt_{subscription}_{second}"),
            source_created_at: occurred_at,
            source_rank: 0,
            occurred_at,
            status: status.to_owned(),
            currency: Some(Currency::USD),
            mrr_microcents: if has_ended { 0 } else { amount },
            potential_mrr_microcents: amount,
            mrr_provisional: false,
            waits_for: Vec::new(),
            missing: Vec::new(),
            plan_name: None,
            overruled: false,
            set_to_cancel: false,
            is_counted: None,
            all_discounts_microcents: None,
            no_discounts_microcents: None,
            discount_steps: None,
        }
    }

    const DAYS: i64 = 86_400;

    fn amount() -> impl Strategy<Value = i64> {
        // Halves of a minor unit meet halves; odd micro-units meet anything.
        prop_oneof![
            Just(0),
            (0_i64..40).prop_map(|halves| halves * 500_000),
            0_i64..50_000_000,
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn every_history_bridges_exactly(
            events in prop::collection::vec(
                (0_usize..6, 0_i64..400 * DAYS, amount(), prop::bool::weighted(0.1)), 1..40),
            granularity in prop::sample::select(vec![Granularity::Day, Granularity::Week, Granularity::Month]),
            from in 0_i64..200 * DAYS,
            length in 1_i64..200 * DAYS,
        ) {
            let start = at("2025-01-01T00:00:00Z") + SignedDuration::from_secs(from);
            let range = Period::new(start, start + SignedDuration::from_secs(length)).unwrap();
            let mut bridge = MrrBridge::new(spans(granularity, range), 0, 0);
            let mut closing = 0_i128;
            let mut paying = 0;
            for customer in 0..3 {
                let versions: Vec<SubscriptionVersion> = events
                    .iter()
                    .filter(|(subscription, ..)| subscription / 2 == customer)
                    .map(|(subscription, second, amount, ended)| version(*subscription, *second, *amount, *ended))
                    .collect();
                let steps: Vec<Step> = movements(&versions).unwrap().iter().map(Step::from).collect();
                bridge.reopen_customer(&[], &steps);
                bridge.add_customer(&steps);
                let last = steps.iter().rfind(|step| step.occurred_at < range.end);
                closing += i128::from(last.map_or(0, |step| step.after_microcents));
                paying += i128::from(last.is_some_and(|step| step.after_microcents > 0));
            }
            let periods = bridge.periods(None).unwrap();
            for period in &periods {
                prop_assert_eq!(
                    period.opening_mrr_cents + period.new_mrr_cents + period.expansion_mrr_cents
                        - period.contraction_mrr_cents - period.churned_mrr_cents
                        + period.reactivation_mrr_cents + period.fx_mrr_cents,
                    period.closing_mrr_cents
                );
                for amount in [period.new_mrr_cents, period.expansion_mrr_cents, period.contraction_mrr_cents,
                               period.churned_mrr_cents, period.reactivation_mrr_cents] {
                    prop_assert!(amount >= 0, "{:?}", period);
                }
                let churns = [period.customer_churn_classic_bps, period.customer_churn_stripe_bps];
                for churn in churns.into_iter().flatten() {
                    prop_assert!((0..=10_000).contains(&churn), "{:?}", period);
                }
            }
            for pair in periods.windows(2) {
                prop_assert_eq!(pair[0].closing_mrr_cents, pair[1].opening_mrr_cents);
            }
            let last = periods.last().unwrap();
            prop_assert_eq!(last.closing_mrr_cents, round(closing).unwrap());
            let arpa = ratio(closing, paying * MICROS, 1).unwrap();
            prop_assert_eq!(last.arpa_cents, arpa);
        }
    }
}
