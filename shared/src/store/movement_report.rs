//! What `GET /admin/revenue/movements` reads beyond the rollup: a window's movements, and what was in trial or set to
//! end at an instant; and the
//! customers of cohorts.

use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::{Error, subscriptions};
use crate::bridge::{Bridge, Pending, Step};
use crate::cohort::{Cohorts, Level};
use crate::money::Currency;
use crate::movement::{self, Kind, SubscriptionVersion};
use crate::period::Period;
use crate::subscription::DiscountProfile;

/// Adds the movements of `currency` that the bridge needs, customer by customer. Reads the window through the index,
/// whatever lies before it, and holds one customer at a time.
pub async fn add_movements(
    db: &impl GenericClient,
    currency: Currency,
    bridge: &mut Bridge,
) -> Result<(), Error> {
    let (from, until) = (bridge.needs_from(), bridge.needs_until());
    let code = currency.as_str();
    let rows = db
        .query_typed_raw(
            "-- movement_report::add_movements
             SELECT stripe_customer_id, occurred_at, kind, before_microcents, after_microcents
             FROM mrr_movements
             WHERE occurred_at >= $1 AND occurred_at < $2 AND currency = $3
             ORDER BY stripe_customer_id, occurred_at",
            [
                (&from as &(dyn ToSql + Sync), Type::TIMESTAMPTZ),
                (&until, Type::TIMESTAMPTZ),
                (&code, Type::TEXT),
            ],
        )
        .await?;
    let mut rows = pin!(rows);
    let mut customer = String::new();
    let mut steps: Vec<Step> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let of_row: &str = row.try_get("stripe_customer_id")?;
        if of_row != customer {
            bridge.add_customer(&steps);
            steps.clear();
            of_row.clone_into(&mut customer);
        }
        steps.push(step(&row)?);
    }
    bridge.add_customer(&steps);
    Ok(())
}

/// Adds what the snapshots of subscriptions move under another profile, customer by customer, from the first snapshot
/// on: the ledger keeps movements of the default profile only.
pub async fn add_movements_of_profile(
    db: &impl GenericClient,
    currency: Currency,
    profile: DiscountProfile,
    bridge: &mut Bridge,
) -> Result<(), Error> {
    let until = bridge.needs_until();
    let rows = db
        .query_typed_raw(
            "-- movement_report::add_movements_of_profile
             SELECT stripe_subscription_id, stripe_customer_id, source_event_id, source_created_at,
                    source_rank, occurred_at, status, currency, mrr_microcents,
                    potential_mrr_microcents, mrr_provisional, waits_for, plan_name, overruled,
                    set_to_cancel, is_counted, all_discounts_microcents, no_discounts_microcents
             FROM subscription_versions WHERE occurred_at < $1
             ORDER BY stripe_customer_id",
            [(&until as &(dyn ToSql + Sync), Type::TIMESTAMPTZ)],
        )
        .await?;
    let mut rows = pin!(rows);
    let mut versions: Vec<SubscriptionVersion> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let version = subscriptions::version_from_row(&row)?;
        let is_other = versions
            .first()
            .is_some_and(|first| first.stripe_customer_id != version.stripe_customer_id);
        if is_other {
            add_customer(currency, &versions, bridge)?;
            versions.clear();
        }
        versions.push(version.under(profile));
    }
    add_customer(currency, &versions, bridge)
}

fn add_customer(
    currency: Currency,
    versions: &[SubscriptionVersion],
    bridge: &mut Bridge,
) -> Result<(), Error> {
    let movements = movement::movements(versions).map_err(|_out_of_range| Error::Unreadable {
        table: "subscription_versions",
        column: "mrr_microcents",
        row: versions
            .first()
            .map(|version| version.stripe_customer_id.clone())
            .unwrap_or_default(),
    })?;
    let steps: Vec<Step> = movements
        .iter()
        .filter(|movement| movement.currency == currency)
        .map(Step::from)
        .collect();
    bridge.open_with(&steps);
    bridge.add_customer(&steps);
    Ok(())
}

/// What was in trial and what was set to end just before each of `ends`, by the newest snapshot of each subscription
/// then. Reads the snapshots that say so, through their index, and what came after each.
pub async fn pending(
    db: &impl GenericClient,
    currency: Currency,
    profile: DiscountProfile,
    ends: &[Timestamp],
) -> Result<Vec<Pending>, Error> {
    let is_all = profile == DiscountProfile::AllDiscounts;
    let is_none = profile == DiscountProfile::NoDiscounts;
    let last = ends.iter().max().copied().unwrap_or(Timestamp::MIN);
    let rows = db
        .query_typed(
            "-- movement_report::pending
             WITH spells AS (
                 SELECT version.occurred_at, version.status = 'trialing' AS is_trial,
                        version.set_to_cancel,
                        coalesce(CASE WHEN $4 THEN version.all_discounts_microcents
                                      WHEN $5 THEN version.no_discounts_microcents END,
                                 version.potential_mrr_microcents) AS potential_microcents,
                        version.status = 'trialing'
                            OR coalesce(version.is_counted, version.mrr_microcents > 0) AS is_worth,
                        (SELECT min(later.occurred_at) FROM subscription_versions AS later
                         WHERE later.stripe_subscription_id = version.stripe_subscription_id
                           AND NOT later.overruled
                           -- Nothing comes after the end.
                           AND (later.status IN ('canceled', 'incomplete_expired')
                                OR (later.occurred_at, later.source_created_at, later.source_rank,
                                    later.source_event_id)
                                 > (version.occurred_at, version.source_created_at,
                                    version.source_rank, version.source_event_id))) AS until
                 FROM subscription_versions AS version
                 WHERE version.currency = $1 AND version.occurred_at < $3
                   AND (version.status = 'trialing' OR version.set_to_cancel)
                   AND NOT version.overruled
             )
             SELECT coalesce(sum(spells.potential_microcents) FILTER (WHERE spells.is_trial), 0)::bigint
                        AS trial_microcents,
                    coalesce(sum(spells.potential_microcents)
                        FILTER (WHERE spells.set_to_cancel AND spells.is_worth), 0)::bigint
                        AS canceling_microcents
             FROM unnest($2) WITH ORDINALITY AS ends (at, place)
             LEFT JOIN spells ON spells.occurred_at < ends.at
                 AND (spells.until IS NULL OR spells.until >= ends.at)
             GROUP BY ends.place ORDER BY ends.place",
            &[
                (&currency.as_str(), Type::TEXT),
                (&ends, Type::TIMESTAMPTZ_ARRAY),
                (&last, Type::TIMESTAMPTZ),
                (&is_all, Type::BOOL),
                (&is_none, Type::BOOL),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Pending {
                trial_microcents: row.try_get("trial_microcents")?,
                canceling_microcents: row.try_get("canceling_microcents")?,
            })
        })
        .collect()
}

/// Adds the customers whose first movement in `currency` lies in `range`, each with its movements before `end`.
pub async fn add_cohorts(
    db: &impl GenericClient,
    currency: Currency,
    range: Period,
    end: Timestamp,
    cohorts: &mut Cohorts,
) -> Result<(), Error> {
    let code = currency.as_str();
    let rows = db
        .query_typed_raw(
            "-- movement_report::add_cohorts
             SELECT moved.stripe_customer_id, moved.occurred_at, moved.after_microcents
             FROM mrr_movements AS began
             JOIN mrr_movements AS moved
                 ON moved.stripe_customer_id = began.stripe_customer_id
                AND moved.currency = began.currency
             WHERE began.occurred_at >= $1 AND began.occurred_at < $2 AND began.currency = $3
               -- There is one per customer and currency.
               AND began.kind = 'new' AND moved.occurred_at < $4
             ORDER BY moved.stripe_customer_id, moved.occurred_at",
            [
                (&range.start as &(dyn ToSql + Sync), Type::TIMESTAMPTZ),
                (&range.end, Type::TIMESTAMPTZ),
                (&code, Type::TEXT),
                (&end, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let mut rows = pin!(rows);
    let mut customer = String::new();
    let mut levels: Vec<Level> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let of_row: &str = row.try_get("stripe_customer_id")?;
        if of_row != customer {
            cohorts.add_customer(&levels);
            levels.clear();
            of_row.clone_into(&mut customer);
        }
        levels.push(Level {
            occurred_at: row.try_get("occurred_at")?,
            after_microcents: row.try_get("after_microcents")?,
        });
    }
    cohorts.add_customer(&levels);
    Ok(())
}

fn step(row: &Row) -> Result<Step, Error> {
    let word: &str = row.try_get("kind")?;
    let kind = Kind::parse(word).ok_or_else(|| Error::Unreadable {
        table: "mrr_movements",
        column: "kind",
        row: word.to_owned(),
    })?;
    Ok(Step {
        occurred_at: row.try_get("occurred_at")?,
        kind,
        before_microcents: row.try_get("before_microcents")?,
        after_microcents: row.try_get("after_microcents")?,
    })
}
