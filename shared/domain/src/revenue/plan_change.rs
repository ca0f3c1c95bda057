//! Plan changes of a subscription: when it started to pay, changed its plan, and ended.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::money::Currency;
use crate::revenue::movement::{SubscriptionVersion, with_beginnings_from_events};
use crate::stripe_objects::subscription::is_ended;

/// How the plan of a subscription changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PlanChangeKind)]
pub enum Change {
    /// It counted for the first time.
    New,
    /// Another plan at more MRR.
    Upgrade,
    /// Another plan at less MRR.
    Downgrade,
    /// Another plan at the same MRR.
    Switch,
    /// It ended after having counted.
    Canceled,
}

impl Change {
    /// The word that answers and exports show.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Change::New => "new",
            Change::Upgrade => "upgrade",
            Change::Downgrade => "downgrade",
            Change::Switch => "switch",
            Change::Canceled => "canceled",
        }
    }
}

/// One change, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanChange {
    pub occurred_at: Timestamp,
    pub change: Change,
    /// The plan before; `None` for a new subscription, or when nothing names the plan.
    pub from_plan: Option<String>,
    /// The plan after; `None` for a subscription that ended, or when nothing names the plan.
    pub to_plan: Option<String>,
    /// How much the subscription's MRR changed, in millionths of a minor unit.
    pub delta_microcents: i128,
}

/// The changes of one subscription in a currency, oldest first. `versions` are its snapshots in any order. A snapshot
/// that names no plan keeps the plan before it. A new price or quantity within a plan is no change.
#[must_use]
pub fn plan_changes(currency: Currency, versions: &[SubscriptionVersion]) -> Vec<PlanChange> {
    let versions = &*with_beginnings_from_events(versions);
    let ended_at = versions
        .iter()
        .filter(|version| is_ended(&version.status))
        .map(|version| version.occurred_at)
        .min();
    let mut shown: Vec<&SubscriptionVersion> = versions
        .iter()
        .filter(|version| version.currency == Some(currency) && !version.overruled)
        .filter(|version| {
            is_ended(&version.status) || ended_at.is_none_or(|end| version.occurred_at < end)
        })
        .collect();
    shown.sort_by_key(|version| {
        let order = (version.source_created_at, version.source_rank);
        (version.occurred_at, order, &version.source_event_id)
    });
    // Of several snapshots at one instant the last counts.
    let last_of_instant = shown.iter().enumerate().filter(|(place, version)| {
        let next = shown.get(place + 1);
        next.is_none_or(|next| next.occurred_at != version.occurred_at)
    });
    let mut changes = Vec::new();
    let mut plan: Option<&str> = None;
    let mut mrr = 0_i128;
    let (mut has_begun, mut has_ended) = (false, false);
    for (_, version) in last_of_instant {
        let to_plan = version.plan_name.as_deref().or(plan);
        let to_mrr = i128::from(version.mrr_microcents);
        let change = if is_ended(&version.status) {
            (has_begun && !has_ended).then_some(Change::Canceled)
        } else if !has_begun {
            (to_mrr > 0).then_some(Change::New)
        } else if plan.is_some() && plan != to_plan {
            Some(match to_mrr.cmp(&mrr) {
                std::cmp::Ordering::Greater => Change::Upgrade,
                std::cmp::Ordering::Less => Change::Downgrade,
                std::cmp::Ordering::Equal => Change::Switch,
            })
        } else {
            None
        };
        has_begun |= to_mrr > 0;
        has_ended |= is_ended(&version.status);
        if let Some(change) = change {
            let from = plan.filter(|_| change != Change::New);
            let to = to_plan.filter(|_| change != Change::Canceled);
            changes.push(PlanChange {
                occurred_at: version.occurred_at,
                change,
                from_plan: from.map(str::to_owned),
                to_plan: to.map(str::to_owned),
                delta_microcents: to_mrr - mrr,
            });
        }
        plan = to_plan;
        mrr = to_mrr;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(second: i64, status: &str, plan: Option<&str>, mrr: i64) -> SubscriptionVersion {
        let at = Timestamp::from_second(second).unwrap();
        SubscriptionVersion {
            stripe_subscription_id: "sub_1".into(),
            stripe_customer_id: "cus_1".into(),
            source_event_id: format!("evt_{second}_{mrr}"),
            source_created_at: at,
            source_rank: 0,
            occurred_at: at,
            status: status.into(),
            currency: Some(Currency::USD),
            mrr_microcents: mrr,
            potential_mrr_microcents: mrr,
            mrr_provisional: false,
            waits_for: Vec::new(),
            missing: Vec::new(),
            plan_name: plan.map(str::to_owned),
            overruled: false,
            set_to_cancel: false,
            is_counted: None,
            all_discounts_microcents: None,
            no_discounts_microcents: None,
            discount_steps: None,
        }
    }

    type Row = (i64, &'static str, Option<String>, Option<String>, i128);

    fn rows_of(versions: &[SubscriptionVersion]) -> Vec<Row> {
        plan_changes(Currency::USD, versions)
            .into_iter()
            .map(|change| {
                let at = change.occurred_at.as_second();
                let word = change.change.as_str();
                (
                    at,
                    word,
                    change.from_plan,
                    change.to_plan,
                    change.delta_microcents,
                )
            })
            .collect()
    }

    #[test]
    fn a_life_of_plans_is_told_in_order() {
        let (basic, pro) = (Some("basic".to_owned()), Some("pro".to_owned()));
        let mut history = vec![
            version(1, "trialing", Some("basic"), 0),
            version(2, "active", None, 100),
            version(3, "active", Some("basic"), 150),
            version(4, "active", Some("pro"), 300),
            version(5, "unpaid", Some("pro"), 0),
            version(6, "active", Some("pro"), 300),
            version(7, "active", Some("basic"), 100),
            version(8, "active", Some("pro"), 100),
            version(9, "canceled", Some("pro"), 0),
            version(10, "active", Some("basic"), 100),
        ];
        let expected = [
            (2, "new", None, basic.clone(), 100),
            (4, "upgrade", basic.clone(), pro.clone(), 150),
            (7, "downgrade", pro.clone(), basic.clone(), -200),
            (8, "switch", basic, pro.clone(), 0),
            (9, "canceled", pro, None, -100),
        ];
        assert_eq!(rows_of(&history), expected);
        history.reverse();
        assert_eq!(rows_of(&history), expected, "a function of the set");
    }

    #[test]
    fn a_trial_that_ends_unpaid_is_neither_new_nor_canceled() {
        let history = [
            version(1, "trialing", Some("pro"), 0),
            version(2, "canceled", Some("pro"), 0),
        ];
        assert_eq!(rows_of(&history), []);
    }
}
