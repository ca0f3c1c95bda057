//! The statements of `GET /admin/revenue/movements` besides the rollup: the movements in a window, what was in trial or
//! set to end at an instant, and the customers of cohorts.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::Error;
use super::mirror;
use super::subscriptions;
use domain::money::Currency;
use domain::period::Period;
use domain::revenue::cohort::{Cohorts, Level};
use domain::revenue::movement::{self, Kind, SubscriptionVersion};
use domain::revenue::mrr_bridge::{MrrBridge, Pending, Spell, Step};
use domain::stripe_objects::subscription::DiscountProfile;

/// Adds the movements in `currency` that the bridge needs, customer by customer, except those of the customers in
/// `added`. Reads the window through the index, whatever comes before it, and holds one customer at a time.
pub async fn add_movements(
    db: &Client,
    currency: Currency,
    added: &BTreeSet<String>,
    bridge: &mut MrrBridge,
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
        if !added.contains(of_row) {
            steps.push(step(&row)?);
        }
    }
    bridge.add_customer(&steps);
    Ok(())
}

/// Adds the customers, with their share of the opening, who ever paid something else under `profile` than under the
/// default one; returns who they are. The ledger stores movements of the default profile only, so the movements of
/// these customers are computed again, one customer at a time. A profile changes nothing for all others. Empty under
/// the default profile.
pub async fn add_discounted(
    db: &Client,
    currency: Currency,
    profile: DiscountProfile,
    bridge: &mut MrrBridge,
) -> Result<BTreeSet<String>, Error> {
    let mut discounted = BTreeSet::new();
    let differ = match profile {
        DiscountProfile::Stripe => return Ok(discounted),
        DiscountProfile::AllDiscounts => "all_discounts_differ",
        DiscountProfile::NoDiscounts => "no_discounts_differ",
    };
    let until = bridge.needs_until();
    let rows = db
        .query_typed_raw(
            &format!(
                "-- movement_report::add_discounted
                 SELECT to_json(version) AS version FROM (
                     SELECT stripe_customer_id AS customer FROM subscription_versions WHERE {differ}
                     UNION SELECT stripe_customer_id FROM subscription_versions
                     WHERE discount_steps IS NOT NULL
                 ) AS discounted
                 -- One customer at a time, whatever the planner thinks of how much history each has.
                 CROSS JOIN LATERAL (
                     SELECT {}
                     FROM subscription_versions
                     WHERE stripe_customer_id = discounted.customer AND occurred_at < $1
                     OFFSET 0
                 ) AS version
                 ORDER BY version.stripe_customer_id",
                subscriptions::VERSION_COLUMNS
            ),
            [(&until as &(dyn ToSql + Sync), Type::TIMESTAMPTZ)],
        )
        .await?;
    let mut rows = pin!(rows);
    let mut versions: Vec<SubscriptionVersion> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let version = mirror::one::<SubscriptionVersion>(row.try_get("version")?)?;
        let former = versions.first().map(|first| &first.stripe_customer_id);
        if former.is_some_and(|former| *former != version.stripe_customer_id) {
            add_customer(currency, profile, &versions, bridge)?;
            versions.clear();
        }
        if versions.is_empty() {
            discounted.insert(version.stripe_customer_id.clone());
        }
        versions.push(version);
    }
    add_customer(currency, profile, &versions, bridge)?;
    Ok(discounted)
}

fn add_customer(
    currency: Currency,
    profile: DiscountProfile,
    versions: &[SubscriptionVersion],
    bridge: &mut MrrBridge,
) -> Result<(), Error> {
    let until = bridge.needs_until();
    let counted = steps(currency, versions, until)?;
    let versions: Vec<SubscriptionVersion> = versions
        .iter()
        .map(|version| version.clone().under(profile))
        .collect();
    let steps = steps(currency, &versions, until)?;
    bridge.reopen_customer(&counted, &steps);
    bridge.add_customer(&steps);
    Ok(())
}

/// The movements that the snapshots of one customer give.
fn steps(
    currency: Currency,
    versions: &[SubscriptionVersion],
    until: Timestamp,
) -> Result<Vec<Step>, Error> {
    let movements = movement::movements(versions).map_err(|_out_of_range| Error::Unreadable {
        table: "subscription_versions",
        column: "mrr_microcents",
        row: versions
            .first()
            .map(|version| version.stripe_customer_id.clone())
            .unwrap_or_default(),
    })?;
    let of_currency = movements
        .iter()
        // A discount may end later than what is asked for.
        .filter(|movement| movement.currency == currency && movement.occurred_at < until);
    Ok(of_currency.map(Step::from).collect())
}

/// What was in trial and what was set to end just before each of `ends`, oldest first, by each subscription's newest
/// snapshot at that time. Reads the snapshots that say so, through their index, and the snapshot after each.
///
/// A snapshot older than three years before the first end is ignored: a trial lasts two years at most, and a
/// subscription is announced again with each of its periods, none longer than three years.
/// <https://docs.stripe.com/api/subscriptions/create>
pub async fn pending(
    db: &Client,
    currency: Currency,
    profile: DiscountProfile,
    ends: &[Timestamp],
) -> Result<Vec<Pending>, Error> {
    let mut pending = vec![Pending::default(); ends.len()];
    let (Some(first), Some(last)) = (ends.first(), ends.last()) else {
        return Ok(pending);
    };
    let code = currency.as_str();
    let is_all = profile == DiscountProfile::AllDiscounts;
    let is_none = profile == DiscountProfile::NoDiscounts;
    let rows = db
        .query_typed_raw(
            "-- movement_report::pending
             SELECT spell.occurred_at, later.until,
                    CASE WHEN spell.is_trial THEN spell.potential_microcents ELSE 0 END AS trial_microcents,
                    CASE WHEN spell.set_to_cancel AND spell.is_worth
                         THEN spell.potential_microcents ELSE 0 END AS canceling_microcents
             FROM (
                 SELECT stripe_subscription_id, occurred_at, source_created_at, source_rank,
                        source_event_id, status = 'trialing' AS is_trial, set_to_cancel,
                        coalesce(CASE WHEN $5 THEN all_discounts_microcents
                                      WHEN $6 THEN no_discounts_microcents END,
                                 potential_mrr_microcents) AS potential_microcents,
                        status = 'trialing' OR coalesce(is_counted, mrr_microcents > 0) AS is_worth
                 FROM subscription_versions
                 WHERE currency = $1 AND occurred_at >= $2::timestamptz - interval '3 years'
                   AND occurred_at < $3 AND (status = 'trialing' OR set_to_cancel) AND NOT overruled
                 OFFSET 0
             ) AS spell
             CROSS JOIN LATERAL (
                 SELECT min(next.occurred_at) AS until FROM subscription_versions AS next
                 WHERE next.stripe_subscription_id = spell.stripe_subscription_id AND NOT next.overruled
                   -- Nothing comes after the end.
                   AND (next.status IN ('canceled', 'incomplete_expired')
                        OR (next.occurred_at, next.source_created_at, next.source_rank,
                            next.source_event_id)
                         > (spell.occurred_at, spell.source_created_at, spell.source_rank,
                            spell.source_event_id))
             ) AS later
             WHERE later.until IS NULL OR later.until >= $4",
            [
                (&code as &(dyn ToSql + Sync), Type::TEXT),
                (first, Type::TIMESTAMPTZ),
                (last, Type::TIMESTAMPTZ),
                (first, Type::TIMESTAMPTZ),
                (&is_all, Type::BOOL),
                (&is_none, Type::BOOL),
            ],
        )
        .await?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await? {
        let spell = Spell {
            from: row.try_get("occurred_at")?,
            until: row.try_get("until")?,
            trial_microcents: row.try_get("trial_microcents")?,
            canceling_microcents: row.try_get("canceling_microcents")?,
        };
        spell.add_to(ends, &mut pending);
    }
    Ok(pending)
}

/// Adds the customers whose first movement in `currency` is in `range`, each with its movements before `end`.
pub async fn add_cohorts(
    db: &Client,
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
             -- One customer at a time: what other cohorts moved is not read.
             CROSS JOIN LATERAL (
                 SELECT stripe_customer_id, occurred_at, after_microcents FROM mrr_movements
                 WHERE mrr_movements.stripe_customer_id = began.stripe_customer_id
                   AND mrr_movements.currency = began.currency AND mrr_movements.occurred_at < $4
                 OFFSET 0
             ) AS moved
             WHERE began.occurred_at >= $1 AND began.occurred_at < $2 AND began.currency = $3
               -- There is one per customer and currency.
               AND began.kind = 'new'
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
