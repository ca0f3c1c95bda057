//! Subscriptions: their snapshots, their monthly recurring revenue, and the plan of a user.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::money::{self, Currency};
use crate::stripe_objects::catalog::{
    self, Coupon, Discount, ExactAmount, Price, minus_to_zero, plus, times, whole, zero,
};
use crate::stripe_objects::objects::Ids;
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
    pub quantity: i64,
    pub discounts: Vec<Discount>,
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
    pub items: Vec<Item>,
    pub discounts: Vec<Discount>,
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
        for discount in self.unknown_discounts() {
            ids.discounts.extend(discount.stripe_discount_id.clone());
            ids.coupons.extend(discount.stripe_coupon_id.clone());
        }
    }

    fn absorb(&mut self, earlier: &Subscription) {
        earliest(&mut self.ended_at, earlier.ended_at);
    }
}

impl Subscription {
    /// The ids of the prices, coupons and discounts it names that are not known yet.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let prices = self
            .items
            .iter()
            .filter(|item| !item.price.is_complete())
            .map(|item| item.price.stripe_price_id.clone());
        let terms = self
            .unknown_discounts()
            .filter_map(|discount| {
                let coupon = discount.stripe_coupon_id.as_ref();
                coupon.or(discount.stripe_discount_id.as_ref()).cloned()
            })
            .chain(prices);
        let distinct: BTreeSet<String> = terms.collect();
        distinct.into_iter().collect()
    }

    /// The discounts, of the subscription and its items, that are known by id only.
    pub fn unknown_discounts(&self) -> impl Iterator<Item = &Discount> {
        let of_items = self.items.iter().flat_map(|item| &item.discounts);
        of_items
            .chain(&self.discounts)
            .filter(|discount| discount.coupon.is_none())
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

    /// The recurring revenue by `docs/money.md`: each item per month, exact; discounts; rounded
    /// half-even once, to 10⁻⁶ of a minor unit.
    ///
    /// # Errors
    /// When an amount is not a decimal or out of range.
    pub fn recurring_revenue(&self, profile: DiscountProfile) -> Result<RecurringRevenue, Error> {
        let mut is_provisional = false;
        let mut total = zero();
        for item in &self.items {
            let amount = item.price.amount(item.quantity)?;
            is_provisional |= amount.is_none();
            let monthly = item.price.per_month(&amount.unwrap_or_else(zero))?;
            let discounted = self.discount(
                monthly,
                &item.discounts,
                &item.price,
                profile,
                &mut is_provisional,
            )?;
            total = plus(&total, &discounted)?;
        }
        // A fixed amount is normalised by the first item's interval (rule 4 of `docs/money.md`).
        if let Some(first) = self.items.first() {
            total = self.discount(
                total,
                &self.discounts,
                &first.price,
                profile,
                &mut is_provisional,
            )?;
        }
        let micro = times(&total, &whole(1_000_000))?;
        let rounded = money::div_half_even(*micro.numer(), *micro.denom())?;
        let potential = i64::try_from(rounded)
            .map_err(|_too_large| Error::Catalog(catalog::Error::OutOfRange))?;
        let has_ended = is_ended(&self.status) || self.ended_at.is_some();
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

    fn discount(
        &self,
        amount: ExactAmount,
        discounts: &[Discount],
        price: &Price,
        profile: DiscountProfile,
        is_provisional: &mut bool,
    ) -> Result<ExactAmount, Error> {
        let mut reduced = amount;
        if profile == DiscountProfile::NoDiscounts {
            return Ok(reduced);
        }
        for discount in discounts {
            let Some(coupon) = &discount.coupon else {
                *is_provisional = true;
                continue;
            };
            if profile == DiscountProfile::Stripe && coupon.duration != "forever" {
                continue;
            }
            let is_of_amount = coupon.percent_off.is_none() && coupon.amount_off_cents.is_some();
            if is_of_amount && coupon.currency.is_some() && coupon.currency != self.currency {
                // The amount it takes off in the subscription's currency is not known.
                *is_provisional = true;
                continue;
            }
            reduced = reduce(reduced, coupon, price)?;
        }
        Ok(reduced)
    }

    /// The unit amount × quantity of the first item per interval, in minor units; `None` unless it is a whole number.
    /// The predecessor showed it as `current_plan_price_cents`.
    #[must_use]
    pub fn plan_price_cents(&self) -> Option<i64> {
        let item = self.items.first()?;
        let amount = item.price.amount(item.quantity).ok().flatten()?;
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

fn reduce(amount: ExactAmount, coupon: &Coupon, price: &Price) -> Result<ExactAmount, Error> {
    if let Some(percent_off) = &coupon.percent_off {
        let kept_percent = minus_to_zero(&whole(100), &catalog::exact(percent_off)?)?;
        return Ok(times(&amount, &(kept_percent / whole(100)))?);
    }
    if let Some(amount_off) = coupon.amount_off_cents {
        let monthly = price.per_month(&whole(amount_off))?;
        return Ok(minus_to_zero(&amount, &monthly)?);
    }
    Ok(amount)
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
            }),
        }
    }

    fn subscription(status: &str, items: Vec<Item>, discounts: Vec<Discount>) -> Subscription {
        Subscription {
            stripe_subscription_id: "sub_1".into(),
            stripe_customer_id: "cus_1".into(),
            status: status.into(),
            currency: Some(Currency::parse("usd").unwrap()),
            items,
            discounts,
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
            .recurring_revenue(DiscountProfile::Stripe)
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
                .recurring_revenue(DiscountProfile::Stripe)
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
            let revenue = once.recurring_revenue(profile).unwrap();
            assert_eq!(revenue.mrr_microcents, expected * MICRO, "{profile:?}");
        }
    }

    #[test]
    fn an_unknown_coupon_makes_the_figure_provisional() {
        let unknown = Discount {
            stripe_discount_id: Some("di_1".into()),
            stripe_coupon_id: None,
            coupon: None,
        };
        let revenue = subscription("active", vec![item("100", "month", 1, 1)], vec![unknown])
            .recurring_revenue(DiscountProfile::Stripe)
            .unwrap();
        assert!(revenue.is_provisional);
        assert_eq!(revenue.mrr_microcents, 100 * MICRO);
    }

    #[test]
    fn an_amount_that_does_not_fit_is_an_error_and_not_a_figure() {
        let huge = item("79228162514264337593543950335", "day", 1, i64::MAX);
        let huge = subscription("active", vec![huge], vec![]);
        assert!(huge.recurring_revenue(DiscountProfile::Stripe).is_err());
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
