//! Plan changes per month, and what they changed MRR by.

use std::collections::BTreeMap;

use domain::period::Month;
use domain::revenue::plan_change::Change;
use serde::Serialize;
use store::fields;
use store::reports::{self, Scope};
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::{Section, Table, mrr_cents, sum};

/// What the figures mean.
pub const DEFINITION: &str = "per month: new (a subscription counts for the first time), upgrade, downgrade and switch \
    (another plan at more, less or the same MRR), canceled (ended after having counted), with what they changed MRR by";

fields! {
    /// Changes of one kind between two plans, in one month.
    pub struct PlanChanges {
        pub month: Month,
        pub change: Change,
        /// Null for a new subscription, or where nothing names the plan.
        pub from_plan: Option<String>,
        /// Null for one that ended, or where nothing names the plan.
        pub to_plan: Option<String>,
        pub subscriptions: i64,
        pub mrr_delta_cents: i64,
    }
}

/// Sums over all months.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PlanChangesTotals {
    pub subscriptions: i64,
    pub mrr_delta_cents: i64,
}

/// By month, change and plans.
pub async fn table(db: &Client, scope: &Scope) -> Section<Table<PlanChanges, PlanChangesTotals>> {
    type Key = (Month, Change, Option<String>, Option<String>);
    let mut sums: BTreeMap<Key, (i64, i128)> = BTreeMap::new();
    for change in reports::plan_changes_of(db, scope).await? {
        let month = Month::of(change.occurred_at);
        let key = (month, change.change, change.from_plan, change.to_plan);
        let (count, delta) = sums.entry(key).or_default();
        *count += 1;
        *delta += change.delta_microcents;
    }
    let mut rows = Vec::new();
    for ((month, change, from_plan, to_plan), (subscriptions, delta)) in sums {
        rows.push(PlanChanges {
            month,
            change,
            from_plan,
            to_plan,
            subscriptions,
            mrr_delta_cents: mrr_cents(delta)?,
        });
    }
    let totals = PlanChangesTotals {
        subscriptions: sum(&rows, |row| row.subscriptions)?,
        mrr_delta_cents: sum(&rows, |row| row.mrr_delta_cents)?,
    };
    Ok(Table { rows, totals })
}
