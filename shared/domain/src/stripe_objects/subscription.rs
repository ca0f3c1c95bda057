//! Subscriptions: their snapshots, their monthly recurring revenue, and the plan of a user.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::money::{self, Currency};
use crate::stripe_objects::catalog::{
    self, Discount, ExactAmount, Price, minus_to_zero, plus, times, whole, zero,
};
use crate::stripe_objects::objects::Ids;
use crate::stripe_objects::partial::{Missing, Reason};
use crate::stripe_objects::snapshot::{BEGUN, FETCHED, Snapshot, Version, earliest};
use crate::stripe_objects::status::SubscriptionStatus;

/// Why recurring revenue could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("an amount of the subscription cannot be read")]
    Catalog(#[from] catalog::Error),
    #[error("the recurring revenue is out of range")]
    Money(#[from] money::Error),
}

/// One item of a subscription: a price and a quantity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    #[serde(flatten)]
    pub price: Price,
    /// Whole units, as Stripe cuts them off.
    pub quantity: i64,
    /// The exact quantity; `None` when `quantity` is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity_decimal: Option<String>,
    pub discounts: Vec<Discount>,
}

impl Item {
    /// The exact quantity.
    ///
    /// # Errors
    /// When it is not a decimal number.
    pub fn units(&self) -> Result<ExactAmount, catalog::Error> {
        match &self.quantity_decimal {
            Some(quantity) => catalog::exact(quantity),
            None => Ok(whole(self.quantity)),
        }
    }
}

/// A subscription as one snapshot shows it.
/// Source: <https://docs.stripe.com/api/subscriptions/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub stripe_subscription_id: String,
    pub stripe_customer_id: String,
    /// Stripe's word; an unknown one is kept.
    pub status: String,
    pub currency: Option<Currency>,
    /// The items of this snapshot; those last shown when it shows none.
    pub items: Vec<Item>,
    /// When the items were shown.
    pub items_shown_at: Option<Timestamp>,
    /// False when this snapshot shows only the first of its items, or none of a live subscription; `None` in rows of
    /// before this was kept.
    pub items_complete: Option<bool>,
    pub discounts: Vec<Discount>,
    /// The discounts of its customer, which count while it has none itself. `None` while the customer is not known.
    pub inherited_discounts: Option<Vec<Discount>>,
    pub current_period_start: Option<Timestamp>,
    pub current_period_end: Option<Timestamp>,
    pub cancel_at_period_end: bool,
    pub cancellation_reason: Option<String>,
    pub cancel_at: Option<Timestamp>,
    pub canceled_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub trial_start: Option<Timestamp>,
    pub trial_end: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub paused_at: Option<Timestamp>,
    /// Stripe's `pause_collection.behavior`; `None` when collection is not paused.
    pub pause_behavior: Option<String>,
    pub metadata: Value,
    pub created_at: Timestamp,
    pub version: Version,
}

/// Which discounts reduce recurring revenue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountProfile {
    /// Only `forever` coupons: the default, as in Stripe's dashboard.
    Stripe,
    AllDiscounts,
    NoDiscounts,
}

/// The recurring revenue of one subscription, in millionths of a minor unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurringRevenue {
    /// The MRR that counts in the subscription's status.
    pub mrr_microcents: i64,
    /// The MRR it would have if its status counted; 0 once it has ended.
    pub potential_mrr_microcents: i64,
    /// Computed without a tier or coupon that is unknown, or known in another currency only.
    pub is_provisional: bool,
}

/// The rank of a status within one second, ×100, plus the rank of the event's type.
#[must_use]
pub fn rank(status: &str, event_type: &str) -> i32 {
    let status_rank = match SubscriptionStatus::of(status) {
        SubscriptionStatus::Incomplete => 0,
        SubscriptionStatus::Trialing => 1,
        SubscriptionStatus::Active | SubscriptionStatus::Unknown => 2,
        SubscriptionStatus::PastDue => 3,
        SubscriptionStatus::Unpaid | SubscriptionStatus::Paused => 4,
        SubscriptionStatus::Canceled | SubscriptionStatus::IncompleteExpired => 5,
    };
    let type_rank = match event_type {
        "customer.subscription.created" => 1,
        "customer.subscription.deleted" => 3,
        _ => 2,
    };
    status_rank * 100 + type_rank
}

/// Whether the status entitles the user to the plan.
#[must_use]
pub fn is_entitled(status: &str) -> bool {
    matches!(
        SubscriptionStatus::of(status),
        SubscriptionStatus::Trialing | SubscriptionStatus::Active | SubscriptionStatus::PastDue
    )
}

/// Whether a status is final.
#[must_use]
pub fn is_ended(status: &str) -> bool {
    matches!(
        SubscriptionStatus::of(status),
        SubscriptionStatus::Canceled | SubscriptionStatus::IncompleteExpired
    )
}

impl Snapshot for Subscription {
    fn key(&self) -> String {
        self.stripe_subscription_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.subscriptions.push(self.stripe_subscription_id.clone());
        ids.customers.push(self.stripe_customer_id.clone());
        // The terms that it has by id only.
        let incomplete = self.items.iter().filter(|item| !item.price.is_complete());
        ids.prices
            .extend(incomplete.map(|item| item.price.stripe_price_id.clone()));
        // A customer's discounts are found by the customer.
        if self.inherits() {
            ids.discounts.push(self.stripe_customer_id.clone());
        }
        for discount in self.all_discounts() {
            ids.discounts.extend(discount.stripe_discount_id.clone());
            if !self.is_complete(discount) {
                ids.coupons.extend(discount.stripe_coupon_id.clone());
            }
        }
    }

    fn absorb(&mut self, earlier: &Subscription) {
        earliest(&mut self.ended_at, earlier.ended_at);
        // A snapshot without items says nothing of them: those last shown stay, whichever came first.
        let shown = |one: &Subscription| (one.items_shown_at, one.items.len());
        let shows_none = self.items_shown_at < Some(self.version.created_at);
        if shows_none && shown(earlier) > shown(self) {
            self.items.clone_from(&earlier.items);
            self.items_shown_at = earlier.items_shown_at;
        }
    }
}

impl Subscription {
    /// The ids of what may still change its amounts: the prices and coupons that are not known, its discounts, which
    /// may end, and its customer, whose discounts it has while it has none itself.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let mut terms = BTreeSet::new();
        let prices = self.items.iter().map(|item| &item.price);
        let unknown = prices.filter(|price| !price.is_complete());
        terms.extend(unknown.map(|price| price.stripe_price_id.clone()));
        for discount in self.all_discounts() {
            // Nothing of an ended one changes, but it shows its coupons.
            if discount.coupon.is_some() && self.has_ended() {
                continue;
            }
            if !self.is_complete(discount) {
                terms.extend(discount.stripe_coupon_id.clone());
            }
            terms.extend(discount.stripe_discount_id.clone());
        }
        if self.inherits() {
            terms.insert(self.stripe_customer_id.clone());
        }
        terms.into_iter().collect()
    }

    /// What its recurring revenue needs and nobody knows, sorted.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let mut missing = BTreeSet::new();
        let mut miss = |reason, stripe_id: &String| {
            let stripe_id = stripe_id.clone();
            missing.insert(Missing { reason, stripe_id });
        };
        let id = &self.stripe_subscription_id;
        if self.items_complete == Some(false) {
            miss(Reason::Items, id);
            // Of a snapshot without items nothing is computed: those that it has come with their terms.
            if self.items_shown_at != Some(self.version.created_at) {
                return missing.into_iter().collect();
            }
        }
        for price in self.items.iter().map(|item| &item.price) {
            if !price.is_complete() {
                // When a price per unit has no amount, its amount is in another currency.
                let reason = match price.billing_scheme.as_deref() {
                    Some("per_unit") => Reason::Currency,
                    _ => Reason::Tiers,
                };
                miss(reason, &price.stripe_price_id);
            }
        }
        let of_items = self.items.iter().flat_map(|item| &item.discounts);
        let is_unknown = |discount: &Discount| discount.coupon.is_none();
        if of_items.chain(&self.discounts).any(is_unknown) {
            miss(Reason::Discounts, id);
        }
        for coupon in self.incomplete_coupons() {
            miss(Reason::Coupon, coupon);
        }
        if self.inherits() {
            match &self.inherited_discounts {
                None => miss(Reason::Customer, &self.stripe_customer_id),
                Some(discounts) if discounts.iter().any(is_unknown) => {
                    miss(Reason::Discounts, &self.stripe_customer_id);
                }
                Some(_) => {}
            }
        }
        missing.into_iter().collect()
    }

    /// Whether it says nothing of what is paid for it: it is live, and no snapshot so far shows any item.
    #[must_use]
    pub fn is_without_items(&self) -> bool {
        self.items.is_empty() && !self.has_ended()
    }

    /// The discounts of its items, its own, and those it inherits.
    fn all_discounts(&self) -> impl Iterator<Item = &Discount> {
        let of_items = self.items.iter().flat_map(|item| &item.discounts);
        of_items.chain(self.effective_discounts())
    }

    /// The discounts of the whole subscription: its own, otherwise its customer's.
    fn effective_discounts(&self) -> &[Discount] {
        if self.discounts.is_empty() {
            self.inherited_discounts.as_deref().unwrap_or_default()
        } else {
            &self.discounts
        }
    }

    /// Whether it has its customer's discounts.
    #[must_use]
    pub fn inherits(&self) -> bool {
        self.discounts.is_empty() && !self.has_ended()
    }

    fn has_ended(&self) -> bool {
        is_ended(&self.status) || self.ended_at.is_some()
    }

    fn is_complete(&self, discount: &Discount) -> bool {
        let coupon = discount.coupon.as_ref();
        coupon.is_some_and(|coupon| coupon.is_complete(self.currency))
    }

    /// The coupons of its discounts of which something is not known, as far as their ids are.
    fn incomplete_coupons(&self) -> impl Iterator<Item = &String> {
        let live = self.all_discounts().filter(|_| !self.has_ended());
        let unknown = live.filter(|discount| !self.is_complete(discount));
        unknown.filter_map(|discount| discount.stripe_coupon_id.as_ref())
    }

    /// The instants after this snapshot at which one of its discounts starts or ends, earliest first.
    #[must_use]
    pub fn discount_changes(&self) -> Vec<Timestamp> {
        if self.has_ended() {
            return Vec::new();
        }
        let known = self
            .all_discounts()
            .filter(|discount| discount.coupon.is_some());
        let instants = known.flat_map(|discount| [discount.starts_at, discount.ends_at()]);
        let later = instants
            .flatten()
            .filter(|at| *at > self.version.created_at);
        let distinct: BTreeSet<Timestamp> = later.collect();
        distinct.into_iter().collect()
    }

    /// What a fetched snapshot implies about the time before it: the subscription at the time money was first expected
    /// (its creation, or the end of its trial). `None` when money was never expected, or when an event brought the
    /// snapshot: events report the past themselves. The object shows no changes in between; it is assumed to have been
    /// as it is now.
    #[must_use]
    pub fn begun(&self) -> Option<Subscription> {
        let never_paid_for = matches!(
            SubscriptionStatus::of(&self.status),
            SubscriptionStatus::Incomplete
                | SubscriptionStatus::IncompleteExpired
                | SubscriptionStatus::Trialing
                | SubscriptionStatus::Paused
        );
        let fetch = self.version.event_id.strip_prefix(FETCHED)?;
        let begun_at = self
            .trial_end
            .map_or(self.created_at, |end| end.max(self.created_at));
        let has_passed = begun_at <= self.version.created_at
            && self.ended_at.is_none_or(|ended_at| begun_at < ended_at);
        (has_passed && !never_paid_for).then(|| Subscription {
            status: "active".to_owned(),
            ended_at: None,
            canceled_at: None,
            cancel_at: None,
            cancel_at_period_end: false,
            paused_at: None,
            pause_behavior: None,
            version: Version {
                created_at: begun_at,
                // Any event of that second knows more.
                rank: -1,
                event_id: format!("{BEGUN}{fetch}"),
            },
            ..self.clone()
        })
    }

    /// Whether money is expected in this status: `active` and `past_due`, unless collection is paused in a way that
    /// voids the invoices.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(
            SubscriptionStatus::of(&self.status),
            SubscriptionStatus::Active | SubscriptionStatus::PastDue
        ) && self.pause_behavior.as_deref() != Some("void")
    }

    /// What it is worth now, as far as is known: after every change of its discounts that counts in the default profile.
    ///
    /// # Errors
    /// As [`Subscription::recurring_revenue`].
    pub fn current_revenue(&self) -> Result<RecurringRevenue, Error> {
        let changes = self.discount_changes();
        let last = changes.last().copied().unwrap_or(self.version.created_at);
        self.recurring_revenue(DiscountProfile::Stripe, last)
    }

    /// The recurring revenue at an instant by `docs/money.md`: each item per month, exact; the discounts that count then,
    /// each item's first; rounded half-even once, to 10⁻⁶ of a minor unit.
    ///
    /// # Errors
    /// When an amount is not a decimal or out of range.
    pub fn recurring_revenue(
        &self,
        profile: DiscountProfile,
        at: Timestamp,
    ) -> Result<RecurringRevenue, Error> {
        let mut is_provisional = self.inherits() && self.inherited_discounts.is_none();
        is_provisional |= self.items_complete == Some(false);
        let mut monthly = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let amount = item.price.amount(&item.units()?)?;
            is_provisional |= amount.is_none();
            monthly.push(item.price.per_month(&amount.unwrap_or_else(zero))?);
        }
        if profile != DiscountProfile::NoDiscounts {
            for (item, amount) in self.items.iter().zip(&mut monthly) {
                let (items, amounts) = (std::slice::from_ref(item), std::slice::from_mut(amount));
                for discount in item.discounts.iter().filter(|one| one.counts_at(at)) {
                    is_provisional |= !self.reduce(items, amounts, discount, profile)?;
                }
            }
            for discount in self.effective_discounts() {
                if discount.counts_at(at) {
                    is_provisional |= !self.reduce(&self.items, &mut monthly, discount, profile)?;
                }
            }
        }
        let mut total = zero();
        for amount in &monthly {
            total = plus(&total, amount)?;
        }
        let micro = times(&total, &whole(1_000_000))?;
        let rounded = money::div_half_even(*micro.numer(), *micro.denom())?;
        let potential = i64::try_from(rounded)
            .map_err(|_too_large| Error::Catalog(catalog::Error::OutOfRange))?;
        let has_ended = self.has_ended();
        Ok(RecurringRevenue {
            mrr_microcents: if self.counts() && !has_ended {
                potential
            } else {
                0
            },
            potential_mrr_microcents: if has_ended { 0 } else { potential },
            is_provisional: is_provisional && !has_ended,
        })
    }

    /// Takes a discount off the items that its coupon is for, each of which costs `monthly`. False when that is not known
    /// exactly.
    fn reduce(
        &self,
        items: &[Item],
        monthly: &mut [ExactAmount],
        discount: &Discount,
        profile: DiscountProfile,
    ) -> Result<bool, Error> {
        let Some(coupon) = &discount.coupon else {
            return Ok(false);
        };
        if profile == DiscountProfile::Stripe && coupon.duration != "forever" {
            return Ok(true);
        }
        let Some(amount_off) = coupon.amount_in(self.currency) else {
            return Ok(false);
        };
        let is_reduced = |item: &Item| coupon.reduces(item.price.stripe_product_id.as_deref());
        let mut total = zero();
        for (_, amount) in items
            .iter()
            .zip(&*monthly)
            .filter(|(item, _)| is_reduced(item))
        {
            total = plus(&total, amount)?;
        }
        let kept = match &coupon.percent_off {
            Some(percent_off) => {
                minus_to_zero(&whole(100), &catalog::exact(percent_off)?)? / whole(100)
            }
            // Normalised by the first item that it is for, and spread over all of them.
            None => match items.iter().find(|item| is_reduced(item)) {
                Some(first) if total > zero() => {
                    let off = first.price.per_month(&whole(amount_off))?;
                    minus_to_zero(&total, &off)? / total
                }
                _ => whole(1),
            },
        };
        for (_, amount) in items
            .iter()
            .zip(monthly)
            .filter(|(item, _)| is_reduced(item))
        {
            *amount = times(amount, &kept)?;
        }
        // Which of several products it is for decides the amount.
        let products: BTreeSet<_> = self
            .items
            .iter()
            .map(|item| &item.price.stripe_product_id)
            .collect();
        Ok(coupon.applies_to.is_some() || products.len() < 2)
    }

    /// The unit amount × quantity of the first item per interval, in minor units; `None` unless it is a whole number.
    /// The predecessor showed it as `current_plan_price_cents`.
    #[must_use]
    pub fn plan_price_cents(&self) -> Option<i64> {
        let item = self.items.first()?;
        let amount = item.price.amount(&item.units().ok()?).ok().flatten()?;
        if amount.is_integer() {
            i64::try_from(amount.to_integer()).ok()
        } else {
            None
        }
    }

    /// `monthly`, `annual`, or the interval (`every 3 months`), as in the predecessor's column.
    #[must_use]
    pub fn billing_cycle(&self) -> Option<String> {
        let price = &self.items.first()?.price;
        let interval = price.interval.as_deref()?;
        Some(match (interval, price.interval_count.unwrap_or(1)) {
            ("month", 1) => "monthly".to_owned(),
            ("month", 3) => "quarterly".to_owned(),
            ("year", 1) => "annual".to_owned(),
            ("week", 1) => "weekly".to_owned(),
            ("day", 1) => "daily".to_owned(),
            (interval, count) => format!("every {count} {interval}s"),
        })
    }
}

/// What the plan of one subscription is decided from, in the order `docs/stripe.md` gives.
#[derive(Debug, Default)]
pub struct PlanEvidence<'a> {
    /// The pairs of price id and plan in `plan_prices`.
    pub plan_prices: &'a [(String, String)],
    /// The plan in the checkout session's metadata.
    pub session_plan: Option<&'a str>,
    /// The names of the plans in `plan_limits`.
    pub known_plans: &'a [String],
}

/// The plan a subscription buys, or `None` when nothing names it.
#[must_use]
pub fn plan_name(items: &[Item], metadata: &Value, evidence: &PlanEvidence<'_>) -> Option<String> {
    let mapped = items.iter().find_map(|item| {
        evidence
            .plan_prices
            .iter()
            .find(|(price, _)| *price == item.price.stripe_price_id)
            .map(|(_, plan)| plan.clone())
    });
    let named = || items.iter().find_map(|item| item.price.plan.clone());
    let in_metadata = || {
        metadata
            .get("plan")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let in_session = || evidence.session_plan.map(str::to_owned);
    let by_key = || {
        items
            .iter()
            .flat_map(|item| [item.price.lookup_key.as_ref(), item.price.nickname.as_ref()])
            .flatten()
            .find(|key| evidence.known_plans.contains(key))
            .cloned()
    };
    mapped
        .or_else(named)
        .or_else(in_metadata)
        .or_else(in_session)
        .or_else(by_key)
}

/// One subscription of a user, with what the user's plan needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    pub stripe_subscription_id: String,
    pub is_entitled: bool,
    pub plan_name: Option<String>,
    pub started_at: Option<Timestamp>,
}

/// The plan of a user with these subscriptions (`docs/stripe.md`). `None` leaves `users.plan`
/// alone: no subscription at all, or entitled ones whose plan nothing names.
#[must_use]
pub fn user_plan(entitlements: &[Entitlement]) -> Option<String> {
    if entitlements.is_empty() {
        return None;
    }
    if !entitlements
        .iter()
        .any(|entitlement| entitlement.is_entitled)
    {
        return Some("free".to_owned());
    }
    let newest_known = |only_entitled: bool| {
        entitlements
            .iter()
            .filter(|entitlement| entitlement.is_entitled || !only_entitled)
            .filter(|entitlement| entitlement.plan_name.is_some())
            .max_by_key(|entitlement| (entitlement.started_at, &entitlement.stripe_subscription_id))
            .and_then(|entitlement| entitlement.plan_name.clone())
    };
    newest_known(true).or_else(|| newest_known(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stripe_objects::catalog::Coupon;
    use serde_json::json;

    const MICRO: i64 = 1_000_000;

    fn item(amount: &str, interval: &str, count: i32, quantity: i64) -> Item {
        Item {
            price: Price {
                stripe_price_id: format!("price_{amount}_{interval}"),
                unit_amount_decimal: Some(amount.into()),
                interval: Some(interval.into()),
                interval_count: Some(count),
                ..Price::default()
            },
            quantity,
            quantity_decimal: None,
            discounts: vec![],
        }
    }

    fn coupon(duration: &str, percent: Option<&str>, amount: Option<i64>) -> Discount {
        Discount {
            stripe_discount_id: Some("di_1".into()),
            stripe_coupon_id: Some("half".into()),
            coupon: Some(Coupon {
                stripe_coupon_id: "half".into(),
                percent_off: percent.map(str::to_owned),
                amount_off_cents: amount,
                currency: None,
                duration: duration.into(),
                duration_in_months: None,
                applies_to: Some(vec![]),
                currency_options: None,
            }),
            starts_at: None,
            ends_at: None,
        }
    }

    fn subscription(status: &str, items: Vec<Item>, discounts: Vec<Discount>) -> Subscription {
        Subscription {
            stripe_subscription_id: "sub_1".into(),
            stripe_customer_id: "cus_1".into(),
            status: status.into(),
            currency: Some(Currency::parse("usd").unwrap()),
            items,
            items_shown_at: None,
            items_complete: None,
            discounts,
            inherited_discounts: Some(vec![]),
            current_period_start: None,
            current_period_end: None,
            cancel_at_period_end: false,
            cancellation_reason: None,
            cancel_at: None,
            canceled_at: None,
            ended_at: None,
            trial_start: None,
            trial_end: None,
            started_at: None,
            paused_at: None,
            pause_behavior: None,
            metadata: json!({}),
            created_at: Timestamp::UNIX_EPOCH,
            version: Version::unseen(),
        }
    }

    fn mrr(subscription: &Subscription) -> i64 {
        subscription
            .recurring_revenue(DiscountProfile::Stripe, Timestamp::UNIX_EPOCH)
            .unwrap()
            .mrr_microcents
    }

    #[test]
    fn the_worked_examples_of_recurring_revenue_hold() {
        let yearly = || vec![item("120000", "year", 1, 1)];
        let half_forever = || vec![coupon("forever", Some("50"), None)];
        let half_once = || vec![coupon("once", Some("50"), None)];
        let mixed = vec![
            item("1000", "day", 1, 1),
            item("2000", "week", 1, 1),
            item("6000", "month", 2, 1),
            item("12000", "year", 1, 1),
        ];
        for (name, items, discounts, expected) in [
            ("120000/yr", yearly(), vec![], 10_000 * MICRO),
            (
                "… half off for ever",
                yearly(),
                half_forever(),
                5_000 * MICRO,
            ),
            ("… half off once", yearly(), half_once(), 10_000 * MICRO),
            // 30416.67 + 8666.67 + 3000 + 1000, to 10⁻⁶: 43083.333333.
            ("every interval", mixed, vec![], 43_083_333_333),
            (
                "4 × gold yearly",
                vec![item("50000", "year", 1, 4)],
                vec![],
                16_666_666_667,
            ),
            (
                "100 × monthly",
                vec![item("10000", "month", 1, 100)],
                vec![],
                1_000_000 * MICRO,
            ),
            (
                "50 × yearly",
                vec![item("60000", "year", 1, 50)],
                vec![],
                250_000 * MICRO,
            ),
        ] {
            assert_eq!(
                mrr(&subscription("active", items, discounts)),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn only_active_and_past_due_count_and_the_rest_is_potential() {
        for (status, counted, potential) in [
            ("active", 100 * MICRO, 100 * MICRO),
            ("past_due", 100 * MICRO, 100 * MICRO),
            ("trialing", 0, 100 * MICRO),
            ("incomplete", 0, 100 * MICRO),
            ("unpaid", 0, 100 * MICRO),
            ("paused", 0, 100 * MICRO),
            ("canceled", 0, 0),
            ("incomplete_expired", 0, 0),
        ] {
            let revenue = subscription(status, vec![item("100", "month", 1, 1)], vec![])
                .recurring_revenue(DiscountProfile::Stripe, Timestamp::UNIX_EPOCH)
                .unwrap();
            assert_eq!(
                (revenue.mrr_microcents, revenue.potential_mrr_microcents),
                (counted, potential),
                "{status}"
            );
        }
    }

    #[test]
    fn a_pause_that_voids_invoices_does_not_count_and_others_do() {
        for (behavior, expected) in [
            ("void", 0),
            ("keep_as_draft", 100 * MICRO),
            ("mark_uncollectible", 100 * MICRO),
        ] {
            let mut paused = subscription("active", vec![item("100", "month", 1, 1)], vec![]);
            paused.pause_behavior = Some(behavior.into());
            assert_eq!(mrr(&paused), expected, "{behavior}");
        }
    }

    #[test]
    fn a_fixed_amount_off_is_normalised_and_never_goes_below_zero() {
        let off = |amount| vec![coupon("forever", None, Some(amount))];
        let yearly =
            |amount| subscription("active", vec![item("12000", "year", 1, 1)], off(amount));
        assert_eq!(mrr(&yearly(1200)), 900 * MICRO);
        assert_eq!(mrr(&yearly(99_000)), 0);
    }

    #[test]
    fn the_profiles_differ_in_discounts_alone() {
        let once = subscription(
            "active",
            vec![item("100", "month", 1, 1)],
            vec![coupon("once", Some("50"), None)],
        );
        for (profile, expected) in [
            (DiscountProfile::Stripe, 100),
            (DiscountProfile::AllDiscounts, 50),
            (DiscountProfile::NoDiscounts, 100),
        ] {
            let revenue = once
                .recurring_revenue(profile, Timestamp::UNIX_EPOCH)
                .unwrap();
            assert_eq!(revenue.mrr_microcents, expected * MICRO, "{profile:?}");
        }
    }

    #[test]
    fn an_unknown_coupon_makes_the_figure_provisional() {
        let unknown = Discount {
            stripe_discount_id: Some("di_1".into()),
            stripe_coupon_id: None,
            coupon: None,
            starts_at: None,
            ends_at: None,
        };
        let revenue = subscription("active", vec![item("100", "month", 1, 1)], vec![unknown])
            .recurring_revenue(DiscountProfile::Stripe, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert!(revenue.is_provisional);
        assert_eq!(revenue.mrr_microcents, 100 * MICRO);
    }

    #[test]
    fn an_amount_that_does_not_fit_is_an_error_and_not_a_figure() {
        let huge = item("79228162514264337593543950335", "day", 1, i64::MAX);
        let huge = subscription("active", vec![huge], vec![]);
        assert!(
            huge.recurring_revenue(DiscountProfile::Stripe, Timestamp::UNIX_EPOCH)
                .is_err()
        );
    }

    #[test]
    fn the_plan_is_named_by_the_first_evidence_that_knows() {
        let items = |plan: Option<&str>, nickname: Option<&str>| {
            let mut item = item("100", "month", 1, 1);
            item.price.stripe_price_id = "price_1".into();
            item.price.plan = plan.map(str::to_owned);
            item.price.nickname = nickname.map(str::to_owned);
            vec![item]
        };
        let mapped = [("price_1".to_owned(), "mapped".to_owned())];
        let known = ["professional".to_owned()];
        let evidence = |plan_prices, session_plan| PlanEvidence {
            plan_prices,
            session_plan,
            known_plans: &known,
        };
        for (items, metadata, evidence, expected) in [
            (
                items(Some("price"), None),
                json!({}),
                evidence(&mapped[..], None),
                Some("mapped"),
            ),
            (
                items(Some("price"), None),
                json!({"plan": "sub"}),
                evidence(&[], None),
                Some("price"),
            ),
            (
                items(None, None),
                json!({"plan": "sub"}),
                evidence(&[], Some("cs")),
                Some("sub"),
            ),
            (
                items(None, Some("professional")),
                json!({}),
                evidence(&[], Some("cs")),
                Some("cs"),
            ),
            (
                items(None, Some("professional")),
                json!({}),
                evidence(&[], None),
                Some("professional"),
            ),
            (
                items(None, Some("Pro monthly")),
                json!({}),
                evidence(&[], None),
                None,
            ),
        ] {
            assert_eq!(plan_name(&items, &metadata, &evidence).as_deref(), expected);
        }
    }

    #[test]
    fn the_user_has_the_plan_of_the_newest_entitled_subscription_that_names_one() {
        let entitlement = |id: &str, is_entitled, plan: Option<&str>, at: i64| Entitlement {
            stripe_subscription_id: id.into(),
            is_entitled,
            plan_name: plan.map(str::to_owned),
            started_at: Timestamp::from_second(at).ok(),
        };
        for (entitlements, expected) in [
            (vec![], None),
            (
                vec![entitlement("sub_1", false, Some("pro"), 1)],
                Some("free"),
            ),
            (vec![entitlement("sub_1", true, None, 1)], None),
            (
                vec![
                    entitlement("sub_1", true, Some("pro"), 1),
                    entitlement("sub_2", true, None, 2),
                ],
                Some("pro"),
            ),
            (
                vec![
                    entitlement("sub_1", false, Some("pro"), 1),
                    entitlement("sub_2", true, None, 2),
                ],
                Some("pro"),
            ),
            (
                vec![
                    entitlement("sub_1", true, Some("pro"), 1),
                    entitlement("sub_2", true, Some("enterprise"), 2),
                ],
                Some("enterprise"),
            ),
        ] {
            assert_eq!(user_plan(&entitlements).as_deref(), expected);
        }
    }
}
