//! Movements of recurring revenue: what the snapshots of a customer's subscriptions add up to.
//!
//! Movements are a function of the set of snapshots, so a late event may rewrite them: the whole
//! customer is computed again and only the difference is written.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::{self, Currency};
use crate::stripe_objects::partial::{Missing, Reason};
use crate::stripe_objects::snapshot::{BEGUN, FETCHED};
use crate::stripe_objects::subscription::{DiscountProfile, is_ended};

/// One snapshot of a subscription, with what recurring revenue needs of it. Amounts in millionths of a minor unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionVersion {
    pub stripe_subscription_id: String,
    pub stripe_customer_id: String,
    pub source_event_id: String,
    pub source_created_at: Timestamp,
    pub source_rank: i32,
    /// The time of the event; for an ended subscription the time it ended.
    pub occurred_at: Timestamp,
    pub status: String,
    pub currency: Option<Currency>,
    pub mrr_microcents: i64,
    pub potential_mrr_microcents: i64,
    pub mrr_provisional: bool,
    /// The ids of what may still change its amounts: unknown prices and coupons, its discounts, and the customer whose
    /// discounts it has.
    pub waits_for: Vec<String>,
    /// What the amounts need and nobody knows.
    pub missing: Vec<Missing>,
    /// The plan that this snapshot names.
    pub plan_name: Option<String>,
    /// A later snapshot of the same second replaces this one.
    pub overruled: bool,
    /// It will end at its period's end or at a date, and has not ended yet.
    pub set_to_cancel: bool,
    /// Whether its status counts. Like the next two, `None` for a snapshot stored before this column existed.
    pub is_counted: Option<bool>,
    /// `potential_mrr_microcents` after every coupon.
    pub all_discounts_microcents: Option<i64>,
    /// `potential_mrr_microcents` before any coupon.
    pub no_discounts_microcents: Option<i64>,
    /// What changes after the snapshot without an event, as its discounts start and end; earliest first, `None` when
    /// nothing does.
    pub discount_steps: Option<Vec<DiscountStep>>,
}

/// What a subscription is worth from an instant on. Amounts in millionths of a minor unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscountStep {
    pub at: Timestamp,
    pub mrr_microcents: i64,
    pub potential_mrr_microcents: i64,
    pub all_discounts_microcents: i64,
}

impl SubscriptionVersion {
    /// The snapshot as it is from one of its steps on. Whatever an event of that second says is later.
    fn after(&self, step: &DiscountStep) -> SubscriptionVersion {
        SubscriptionVersion {
            occurred_at: step.at,
            source_created_at: step.at,
            source_rank: -1,
            mrr_microcents: step.mrr_microcents,
            potential_mrr_microcents: step.potential_mrr_microcents,
            all_discounts_microcents: Some(step.all_discounts_microcents),
            discount_steps: None,
            ..self.clone()
        }
    }

    /// Whether the other one is this snapshot, as it was or will be judged.
    #[must_use]
    pub fn is_of_the_same_snapshot(&self, other: &SubscriptionVersion) -> bool {
        self.source_event_id == other.source_event_id
            && self.stripe_subscription_id == other.stripe_subscription_id
    }

    /// Whether the snapshot shows only the first items.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.missing.iter().any(|one| one.reason == Reason::Items)
    }

    fn is_beginning(&self) -> bool {
        self.source_event_id.starts_with(BEGUN)
    }

    fn is_from_an_event(&self) -> bool {
        !self.is_beginning() && !self.source_event_id.starts_with(FETCHED)
    }

    /// Whether a `customer.subscription.created` event brought it; the second part of its rank.
    fn is_creation(&self) -> bool {
        self.source_rank.rem_euclid(100) == 1
    }

    /// The snapshot with the amount it counts under a discount profile. A snapshot stored before the profiles existed
    /// counts the same under each.
    #[must_use]
    pub fn under(mut self, profile: DiscountProfile) -> SubscriptionVersion {
        let potential = match profile {
            DiscountProfile::Stripe => None,
            DiscountProfile::AllDiscounts => self.all_discounts_microcents,
            DiscountProfile::NoDiscounts => self.no_discounts_microcents,
        };
        if let (Some(potential), Some(is_counted)) = (potential, self.is_counted) {
            self.mrr_microcents = if is_counted { potential } else { 0 };
            self.potential_mrr_microcents = potential;
            let steps = self.discount_steps.take();
            self.discount_steps = steps.filter(|_| profile == DiscountProfile::AllDiscounts);
            for step in self.discount_steps.iter_mut().flatten() {
                let potential = step.all_discounts_microcents;
                step.mrr_microcents = if is_counted { potential } else { 0 };
                step.potential_mrr_microcents = potential;
            }
        }
        self
    }
}

/// Gives the snapshots that show only the first items the amounts of the next one that shows all. A function of the set of
/// versions: their order does not matter.
pub fn complete_cut_lists(versions: &mut [&mut SubscriptionVersion]) {
    let place = |version: &SubscriptionVersion| {
        let event = version.source_event_id.clone();
        (version.source_created_at, version.source_rank, event)
    };
    let next: Vec<Option<SubscriptionVersion>> = versions
        .iter()
        .map(|version| {
            version.is_cut().then_some(())?;
            let others = versions.iter().map(|other| &**other);
            let whole = others.filter(|other| {
                other.stripe_subscription_id == version.stripe_subscription_id
                    && !other.is_cut()
                    && !other.overruled
                    && !is_ended(&other.status)
                    && place(other) > place(version)
            });
            whole.min_by_key(|other| place(other)).cloned()
        })
        .collect();
    for (version, next) in versions.iter_mut().zip(next) {
        if let Some(next) = next {
            let is_counted = version.is_counted.unwrap_or(true);
            version.potential_mrr_microcents = next.potential_mrr_microcents;
            version.mrr_microcents = if is_counted {
                next.potential_mrr_microcents
            } else {
                0
            };
            version.all_discounts_microcents = next.all_discounts_microcents;
            version.no_discounts_microcents = next.no_discounts_microcents;
            version.mrr_provisional = next.mrr_provisional;
        }
    }
}

/// The kind of a movement, by rule 6 of `docs/money.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    New,
    Expansion,
    Contraction,
    Churn,
    Reactivation,
}

impl Kind {
    /// The word that is stored in `mrr_movements.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::New => "new",
            Kind::Expansion => "expansion",
            Kind::Contraction => "contraction",
            Kind::Churn => "churn",
            Kind::Reactivation => "reactivation",
        }
    }

    /// The kind that a stored word names; `None` for any other word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Kind> {
        [
            Kind::New,
            Kind::Expansion,
            Kind::Contraction,
            Kind::Churn,
            Kind::Reactivation,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

/// One movement of a customer in one currency at one instant, netted over the subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    pub occurred_at: Timestamp,
    /// The subscription whose revenue changed most.
    pub stripe_subscription_id: String,
    pub kind: Kind,
    pub currency: Currency,
    /// `after - before`: negative for contraction and churn.
    pub delta_microcents: i64,
    pub before_microcents: i64,
    pub after_microcents: i64,
    pub cause_event_id: String,
}

/// Decides which beginnings count that fetched subscriptions imply ([`Subscription::begun`]). The first one of a
/// subscription counts, unless an event shows the beginning itself, or shows that the subscription did not count yet at
/// a later time. A function of the set of versions: their order does not matter.
///
/// [`Subscription::begun`]: crate::stripe_objects::subscription::Subscription::begun
pub fn choose_beginnings(versions: &mut [&mut SubscriptionVersion]) {
    let counted: Vec<bool> = versions
        .iter()
        .map(|version| {
            if !version.is_beginning() {
                return true;
            }
            let of_it = || {
                versions
                    .iter()
                    .map(|other| &**other)
                    .filter(|other| other.stripe_subscription_id == version.stripe_subscription_id)
            };
            let is_first = of_it()
                .filter(|other| other.is_beginning())
                .all(|other| version.source_event_id <= other.source_event_id);
            let has_creation_event = of_it()
                .any(|other| other.is_from_an_event() && !other.overruled && other.is_creation());
            let is_denied = first_from_events(of_it()).is_some_and(|first| {
                let is_counted = first.is_counted.unwrap_or(first.mrr_microcents > 0);
                !is_counted || first.occurred_at <= version.occurred_at
            });
            is_first && !has_creation_event && !is_denied
        })
        .collect();
    for (version, is_counted) in versions.iter_mut().zip(counted) {
        if version.is_beginning() {
            version.overruled = !is_counted;
        }
    }
}

/// The earliest snapshot that an event brought of a subscription that had not ended.
fn first_from_events<'a>(
    versions: impl Iterator<Item = &'a SubscriptionVersion>,
) -> Option<&'a SubscriptionVersion> {
    versions
        .filter(|version| version.is_from_an_event() && !version.overruled)
        .filter(|version| !is_ended(&version.status))
        .min_by_key(|version| order(version))
}

/// The versions, with each beginning as the first event shows it, if there is one: it knows better than a later fetch
/// what was paid then.
#[must_use]
pub fn with_beginnings_from_events(
    versions: &[SubscriptionVersion],
) -> Cow<'_, [SubscriptionVersion]> {
    let is_valid_beginning =
        |version: &SubscriptionVersion| version.is_beginning() && !version.overruled;
    if !versions.iter().any(is_valid_beginning) {
        return Cow::Borrowed(versions);
    }
    let mut corrected = versions.to_vec();
    for beginning in corrected
        .iter_mut()
        .filter(|version| is_valid_beginning(version))
    {
        let of_it = versions
            .iter()
            .filter(|other| other.stripe_subscription_id == beginning.stripe_subscription_id);
        if let Some(first) = first_from_events(of_it) {
            *beginning = SubscriptionVersion {
                source_event_id: beginning.source_event_id.clone(),
                source_created_at: beginning.source_created_at,
                source_rank: beginning.source_rank,
                occurred_at: beginning.occurred_at,
                status: beginning.status.clone(),
                set_to_cancel: false,
                overruled: false,
                ..first.clone()
            };
        }
    }
    Cow::Owned(corrected)
}

/// The versions, with one more for each step of the discounts that comes before the next snapshot of its subscription.
fn with_discount_steps(versions: &[SubscriptionVersion]) -> Cow<'_, [SubscriptionVersion]> {
    if versions
        .iter()
        .all(|version| version.discount_steps.is_none())
    {
        return Cow::Borrowed(versions);
    }
    let mut stepped = versions.to_vec();
    for version in versions.iter().filter(|version| !version.overruled) {
        let others = versions.iter().filter(|other| {
            other.stripe_subscription_id == version.stripe_subscription_id && !other.overruled
        });
        let place = |version: &SubscriptionVersion| {
            (
                version.occurred_at,
                version.source_created_at,
                version.source_rank,
            )
        };
        let next = others
            .filter(|other| {
                (place(other), &other.source_event_id) > (place(version), &version.source_event_id)
            })
            .map(|other| other.occurred_at)
            .min();
        let steps = version.discount_steps.iter().flatten();
        let lasting = steps.filter(|step| next.is_none_or(|next| step.at < next));
        stepped.extend(lasting.map(|step| version.after(step)));
    }
    Cow::Owned(stepped)
}

/// The movements of one customer, oldest first.
pub fn movements(versions: &[SubscriptionVersion]) -> Result<Vec<Movement>, money::Error> {
    let versions = &*with_beginnings_from_events(versions);
    let versions = &*with_discount_steps(versions);
    let currencies: BTreeSet<Currency> = versions
        .iter()
        .filter_map(|version| version.currency)
        .collect();
    let mut movements = Vec::new();
    for currency in currencies {
        movements.extend(movements_in(currency, versions)?);
    }
    movements.sort_by_key(|movement| (movement.occurred_at, movement.currency));
    Ok(movements)
}

fn movements_in(
    currency: Currency,
    versions: &[SubscriptionVersion],
) -> Result<Vec<Movement>, money::Error> {
    let mut current: BTreeMap<&str, i64> = BTreeMap::new();
    let mut has_paid_before = false;
    let mut movements = Vec::new();
    for (occurred_at, changes) in changes_by_instant(currency, versions) {
        let before = sum(current.values())?;
        let mut largest: Option<(i64, &SubscriptionVersion)> = None;
        for version in changes {
            let subscription = version.stripe_subscription_id.as_str();
            let previous = current
                .insert(subscription, version.mrr_microcents)
                .unwrap_or(0);
            let moved = version
                .mrr_microcents
                .checked_sub(previous)
                .and_then(i64::checked_abs)
                .ok_or(money::Error::OutOfRange)?;
            let is_larger = largest.is_none_or(|(most, other)| {
                (moved, &version.source_event_id) > (most, &other.source_event_id)
            });
            if is_larger {
                largest = Some((moved, version));
            }
        }
        let after = sum(current.values())?;
        let Some((_, cause)) = largest.filter(|_| after != before) else {
            continue;
        };
        movements.push(Movement {
            occurred_at,
            stripe_subscription_id: cause.stripe_subscription_id.clone(),
            kind: kind(before, after, has_paid_before),
            currency,
            delta_microcents: after.checked_sub(before).ok_or(money::Error::OutOfRange)?,
            before_microcents: before,
            after_microcents: after,
            cause_event_id: cause.source_event_id.clone(),
        });
        has_paid_before |= after > 0;
    }
    Ok(movements)
}

/// What changes at each instant: one snapshot per subscription, nothing after its end.
fn changes_by_instant(
    currency: Currency,
    versions: &[SubscriptionVersion],
) -> BTreeMap<Timestamp, Vec<&SubscriptionVersion>> {
    let mut ends: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for version in versions.iter().filter(|version| is_ended(&version.status)) {
        let end = ends
            .entry(&version.stripe_subscription_id)
            .or_insert(version.occurred_at);
        *end = version.occurred_at.min(*end);
    }
    let mut latest: BTreeMap<(Timestamp, &str), &SubscriptionVersion> = BTreeMap::new();
    for version in versions
        .iter()
        .filter(|v| v.currency == Some(currency) && !v.overruled)
    {
        let subscription = version.stripe_subscription_id.as_str();
        let end = ends.get(subscription);
        if !is_ended(&version.status) && end.is_some_and(|end| version.occurred_at >= *end) {
            continue;
        }
        let shown = latest
            .entry((version.occurred_at, subscription))
            .or_insert(version);
        if order(version) > order(shown) {
            *shown = version;
        }
    }
    let mut changes: BTreeMap<Timestamp, Vec<&SubscriptionVersion>> = BTreeMap::new();
    for ((occurred_at, _), version) in latest {
        changes.entry(occurred_at).or_default().push(version);
    }
    changes
}

fn order(version: &SubscriptionVersion) -> (Timestamp, i32, &str) {
    (
        version.source_created_at,
        version.source_rank,
        &version.source_event_id,
    )
}

fn kind(before: i64, after: i64, has_paid_before: bool) -> Kind {
    if before <= 0 {
        // Tested before "bigger": coming back is not growth.
        if has_paid_before {
            Kind::Reactivation
        } else {
            Kind::New
        }
    } else if after <= 0 {
        Kind::Churn
    } else if after > before {
        Kind::Expansion
    } else {
        Kind::Contraction
    }
}

fn sum<'a>(amounts: impl Iterator<Item = &'a i64>) -> Result<i64, money::Error> {
    amounts.copied().try_fold(0_i64, |total, amount| {
        total.checked_add(amount).ok_or(money::Error::OutOfRange)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(subscription: &str, at: i64, status: &str, mrr: i64) -> SubscriptionVersion {
        let at = Timestamp::from_second(at).unwrap();
        SubscriptionVersion {
            stripe_subscription_id: subscription.into(),
            stripe_customer_id: "cus_1".into(),
            source_event_id: format!("evt_{subscription}_{at}"),
            source_created_at: at,
            source_rank: 0,
            occurred_at: at,
            status: status.into(),
            currency: Some(Currency::parse("usd").unwrap()),
            mrr_microcents: mrr,
            potential_mrr_microcents: mrr,
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

    fn summary(versions: &[SubscriptionVersion]) -> Vec<(i64, &'static str, i64)> {
        movements(versions)
            .unwrap()
            .iter()
            .map(|m| {
                (
                    m.occurred_at.as_second(),
                    m.kind.as_str(),
                    m.delta_microcents,
                )
            })
            .collect()
    }

    #[test]
    fn the_worked_example_moves_as_written() {
        let history = [
            version("gold", 1, "active", 16_666_666_667),
            version("silver", 2, "active", 6_000_000_000),
            version("silver", 3, "canceled", 0),
            version("gold", 4, "canceled", 0),
            version("gold2", 5, "active", 15_000_000_000),
        ];
        let expected = [
            (1, "new", 16_666_666_667),
            (2, "expansion", 6_000_000_000),
            (3, "contraction", -6_000_000_000),
            (4, "churn", -16_666_666_667),
            (5, "reactivation", 15_000_000_000),
        ];
        assert_eq!(summary(&history), expected);
        let mut reversed = history;
        reversed.reverse();
        assert_eq!(summary(&reversed), expected, "a function of the set");
    }

    #[test]
    fn a_switch_within_one_second_is_one_netted_movement() {
        let history = [
            version("old", 1, "active", 100),
            version("old", 5, "canceled", 0),
            version("new", 5, "active", 300),
        ];
        assert_eq!(summary(&history), [(1, "new", 100), (5, "expansion", 200)]);
    }

    #[test]
    fn nothing_after_the_end_brings_a_subscription_back() {
        let mut end = version("sub", 10, "canceled", 0);
        end.occurred_at = Timestamp::from_second(5).unwrap();
        let history = [
            version("sub", 1, "active", 100),
            version("sub", 7, "active", 100),
            end,
        ];
        assert_eq!(summary(&history), [(1, "new", 100), (5, "churn", -100)]);
    }

    #[test]
    fn currencies_move_on_their_own() {
        let mut euro = version("euro", 2, "active", 50);
        euro.currency = Some(Currency::parse("eur").unwrap());
        let history = [version("dollar", 1, "active", 100), euro];
        assert_eq!(summary(&history), [(1, "new", 100), (2, "new", 50)]);
    }

    /// What a fetch at second 100 shows of a subscription created at second 1.
    fn fetched(mrr: i64, status: &str) -> [SubscriptionVersion; 2] {
        let mut begun = version("sub", 1, "active", mrr);
        begun.source_event_id = "begin:sub:100".into();
        begun.source_rank = -1;
        begun.is_counted = Some(true);
        let shown = if status == "active" { mrr } else { 0 };
        let mut fetched = version("sub", 100, status, shown);
        fetched.source_event_id = "fetch:sub:100".into();
        [begun, fetched]
    }

    fn moves_of(versions: &[SubscriptionVersion]) -> Vec<(i64, &'static str, i64)> {
        let mut backward = versions.to_vec();
        backward.reverse();
        let mut forward = versions.to_vec();
        for versions in [&mut forward, &mut backward] {
            choose_beginnings(&mut versions.iter_mut().collect::<Vec<_>>());
        }
        assert_eq!(summary(&forward), summary(&backward));
        summary(&forward)
    }

    #[test]
    fn a_fetched_subscription_has_paid_since_its_beginning() {
        assert_eq!(moves_of(&fetched(300, "active")), [(1, "new", 300)]);
        let [begun, mut ended] = fetched(300, "canceled");
        ended.occurred_at = Timestamp::from_second(50).unwrap();
        assert_eq!(
            moves_of(&[begun, ended]),
            [(1, "new", 300), (50, "churn", -300)]
        );
    }

    #[test]
    fn the_event_of_the_creation_knows_better_than_a_fetch() {
        let [begun, shown] = fetched(300, "active");
        let mut created = version("sub", 1, "incomplete", 0);
        created.source_rank = 1;
        let paid = version("sub", 4, "active", 200);
        assert_eq!(
            moves_of(&[begun, shown, created, paid]),
            [(4, "new", 200), (100, "expansion", 100)]
        );
    }

    #[test]
    fn the_first_event_that_is_known_says_what_was_paid_for_before_it() {
        let [begun, shown] = fetched(300, "active");
        let renewed = version("sub", 60, "active", 200);
        assert_eq!(
            moves_of(&[begun.clone(), shown.clone(), renewed]),
            [(1, "new", 200), (100, "expansion", 100)]
        );
        let in_trial = version("sub", 60, "trialing", 0);
        assert_eq!(moves_of(&[begun, shown, in_trial]), [(100, "new", 300)]);
    }

    #[test]
    fn of_two_fetches_the_first_tells_the_beginning() {
        let [begun, shown] = fetched(300, "active");
        let [mut later_begun, mut later] = fetched(500, "active");
        later_begun.source_event_id = "begin:sub:200".into();
        later.source_event_id = "fetch:sub:200".into();
        later.occurred_at = Timestamp::from_second(200).unwrap();
        later.source_created_at = later.occurred_at;
        assert_eq!(
            moves_of(&[begun, shown, later_begun, later]),
            [(1, "new", 300), (200, "expansion", 200)]
        );
    }

    #[test]
    fn no_change_is_no_row() {
        let history = [
            version("sub", 1, "active", 100),
            version("sub", 2, "past_due", 100),
        ];
        assert_eq!(summary(&history), [(1, "new", 100)]);
    }
}
