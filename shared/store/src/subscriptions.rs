//! `subscriptions` and `subscription_versions`: what is shown, and the history behind it.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::{self, columns};
use super::list::{self, Order, sorted};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::customer::CheckoutSession;
use domain::stripe_objects::subscription::{
    Entitlement, RecurringRevenue, Subscription, is_entitled,
};

columns! {
    /// A subscription as a list shows it. Amounts in minor units of `currency`, or 10⁻⁶ of one.
    pub struct ListedSubscription of "subscriptions" {
        pub id: i64,
        /// The application's user; null until that is known.
        pub user_id: Option<i32>,
        pub stripe_customer_id: Option<String>,
        pub stripe_subscription_id: Option<String>,
        /// Stripe's word, also one we do not know.
        pub status: String,
        /// Name of the plan; `unknown` when nothing names one.
        pub plan_name: String,
        /// Currency of every amount; null until a price is known.
        pub currency: Option<Currency>,
        /// Price of a billing cycle, in minor units.
        pub current_plan_price_cents: Option<i64>,
        /// The interval of the first item's price.
        pub billing_cycle: Option<String>,
        /// MRR in minor units, rounded half-even.
        pub mrr_cents: i64,
        /// MRR in 10⁻⁶ of a minor unit; 0 in a status that does not count.
        pub mrr_microcents: i64,
        /// MRR if the status counted, in 10⁻⁶ of a minor unit.
        pub potential_mrr_microcents: i64,
        /// Computed without a price or coupon that is not known yet.
        pub mrr_provisional: bool,
        /// Items as they are stored: each with its price and quantity.
        pub items: Value,
        /// Discounts of the subscription itself, not of its items.
        pub discounts: Value,
        /// Whether a next period will be billed.
        pub auto_renew: Option<bool>,
        pub current_period_start: Option<Timestamp>,
        /// First instant after the current period.
        pub current_period_end: Option<Timestamp>,
        pub cancel_at_period_end: bool,
        /// When it is set to end.
        pub cancel_at: Option<Timestamp>,
        pub cancellation_reason: Option<String>,
        pub trial_start: Option<Timestamp>,
        pub trial_end: Option<Timestamp>,
        pub started_at: Option<Timestamp>,
        pub paused_at: Option<Timestamp>,
        /// When somebody asked for the end.
        pub canceled_at: Option<Timestamp>,
        pub ended_at: Option<Timestamp>,
        /// When the subscription was created at Stripe.
        pub created_at: Timestamp,
        pub updated_at: Option<Timestamp>,
    }
}

/// A stored row: the snapshot, `None` while only a checkout session has named the subscription.
#[derive(Debug, Clone)]
pub struct StoredSubscription {
    pub stripe_subscription_id: String,
    pub snapshot: Option<Subscription>,
    pub plan_name: Option<String>,
}

/// What the ledger adds to a snapshot.
#[derive(Debug, Clone)]
pub struct Computed {
    pub revenue: RecurringRevenue,
    pub mrr_cents: i64,
    pub plan_name: Option<String>,
}

/// The subscriptions with these ids that are there.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn get(
    db: &impl GenericClient,
    subscription_ids: &[String],
) -> Result<Vec<StoredSubscription>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::get
             SELECT stripe_subscription_id, stripe_customer_id, status, currency, items, discounts,
                    current_period_start, current_period_end, cancel_at_period_end,
                    cancellation_reason, cancel_at, canceled_at, ended_at, trial_start, trial_end,
                    started_at, paused_at, pause_behavior, metadata, created_at, plan_name,
                    source_created_at, source_rank, source_event_id
             FROM subscriptions WHERE stripe_subscription_id = ANY($1) AND NOT superseded",
            &[(&subscription_ids, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Inserts or replaces the row.
///
/// # Errors
/// When the statement fails.
pub async fn upsert(
    db: &impl GenericClient,
    subscription: &Subscription,
    computed: &Computed,
    now: Timestamp,
) -> Result<(), Error> {
    let plan_name = computed.plan_name.as_deref().unwrap_or("unknown");
    let auto_renew = !subscription.cancel_at_period_end && subscription.ended_at.is_none();
    let changed = db
        .execute_typed(
            "-- subscriptions::upsert
             INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, user_id, status,
                 currency, items, discounts, current_period_start, current_period_end, plan_name,
                 current_plan_price_cents, billing_cycle, auto_renew, cancel_at_period_end,
                 cancellation_reason, mrr_cents, mrr_microcents, potential_mrr_microcents,
                 mrr_provisional, started_at, trial_start, trial_end, cancel_at, canceled_at,
                 ended_at, paused_at, pause_behavior, metadata, created_at, source_created_at,
                 source_rank, source_event_id, updated_at)
             VALUES ($1, $2, (SELECT user_id FROM customers WHERE stripe_customer_id = $2), $3, $4,
                 $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                 $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)
             ON CONFLICT (stripe_subscription_id) WHERE NOT superseded DO UPDATE SET
                 stripe_customer_id = excluded.stripe_customer_id, user_id = excluded.user_id,
                 status = excluded.status, currency = excluded.currency, items = excluded.items,
                 discounts = excluded.discounts,
                 current_period_start = excluded.current_period_start,
                 current_period_end = excluded.current_period_end,
                 plan_name = excluded.plan_name,
                 current_plan_price_cents = excluded.current_plan_price_cents,
                 billing_cycle = excluded.billing_cycle, auto_renew = excluded.auto_renew,
                 cancel_at_period_end = excluded.cancel_at_period_end,
                 cancellation_reason = excluded.cancellation_reason,
                 mrr_cents = excluded.mrr_cents, mrr_microcents = excluded.mrr_microcents,
                 potential_mrr_microcents = excluded.potential_mrr_microcents,
                 mrr_provisional = excluded.mrr_provisional, started_at = excluded.started_at,
                 trial_start = excluded.trial_start, trial_end = excluded.trial_end,
                 cancel_at = excluded.cancel_at, canceled_at = excluded.canceled_at,
                 ended_at = excluded.ended_at, paused_at = excluded.paused_at,
                 pause_behavior = excluded.pause_behavior, metadata = excluded.metadata,
                 created_at = excluded.created_at,
                 source_created_at = excluded.source_created_at,
                 source_rank = excluded.source_rank, source_event_id = excluded.source_event_id,
                 updated_at = excluded.updated_at",
            &[
                (&subscription.stripe_subscription_id, Type::TEXT),
                (&subscription.stripe_customer_id, Type::TEXT),
                (&subscription.status, Type::TEXT),
                (
                    &subscription.currency.as_ref().map(|c| c.as_str()),
                    Type::TEXT,
                ),
                (&Json(&subscription.items), Type::JSONB),
                (&Json(&subscription.discounts), Type::JSONB),
                (&subscription.current_period_start, Type::TIMESTAMPTZ),
                (&subscription.current_period_end, Type::TIMESTAMPTZ),
                (&plan_name, Type::TEXT),
                (&subscription.plan_price_cents(), Type::INT8),
                (&subscription.billing_cycle(), Type::TEXT),
                (&auto_renew, Type::BOOL),
                (&subscription.cancel_at_period_end, Type::BOOL),
                (&subscription.cancellation_reason, Type::TEXT),
                (&computed.mrr_cents, Type::INT8),
                (&computed.revenue.mrr_microcents, Type::INT8),
                (&computed.revenue.potential_mrr_microcents, Type::INT8),
                (&computed.revenue.is_provisional, Type::BOOL),
                (&subscription.started_at, Type::TIMESTAMPTZ),
                (&subscription.trial_start, Type::TIMESTAMPTZ),
                (&subscription.trial_end, Type::TIMESTAMPTZ),
                (&subscription.cancel_at, Type::TIMESTAMPTZ),
                (&subscription.canceled_at, Type::TIMESTAMPTZ),
                (&subscription.ended_at, Type::TIMESTAMPTZ),
                (&subscription.paused_at, Type::TIMESTAMPTZ),
                (&subscription.pause_behavior, Type::TEXT),
                (&subscription.metadata, Type::JSONB),
                (&subscription.created_at, Type::TIMESTAMPTZ),
                (&subscription.version.created_at, Type::TIMESTAMPTZ),
                (&subscription.version.rank, Type::INT4),
                (&subscription.version.event_id, Type::TEXT),
                (&now, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    Error::check_row_count("subscriptions::upsert", 1, changed)
}

/// Inserts the row of a subscription that only a checkout session has named so far, or brings its
/// plan up to date; does nothing once a subscription event has said more.
///
/// # Errors
/// When the statement fails.
pub async fn upsert_named_by_session(
    db: &impl GenericClient,
    stripe_subscription_id: &str,
    session: &CheckoutSession,
    now: Timestamp,
) -> Result<(), Error> {
    let plan_name = session.paid_plan().unwrap_or("unknown");
    db.execute_typed(
        "-- subscriptions::upsert_named_by_session
         INSERT INTO subscriptions AS stored (stripe_subscription_id, stripe_customer_id, user_id,
             status, plan_name, created_at, started_at, updated_at)
         VALUES ($1, $2, (SELECT user_id FROM customers WHERE stripe_customer_id = $2),
             'incomplete', $3, $4, $4, $5)
         ON CONFLICT (stripe_subscription_id) WHERE NOT superseded DO UPDATE SET
             plan_name = excluded.plan_name, updated_at = excluded.updated_at
         WHERE stored.source_event_id = '' AND stored.status = 'incomplete'",
        &[
            (&stripe_subscription_id, Type::TEXT),
            (&session.stripe_customer_id, Type::TEXT),
            (&plan_name, Type::TEXT),
            (&session.created_at, Type::TIMESTAMPTZ),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}

/// The stored history of these customers and subscriptions.
///
/// # Errors
/// When the statement fails or a row cannot be read.
pub async fn versions(
    db: &impl GenericClient,
    stripe_customer_ids: &[String],
    subscription_ids: &[String],
) -> Result<Vec<SubscriptionVersion>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::versions
             SELECT stripe_subscription_id, stripe_customer_id, source_event_id, source_created_at,
                    source_rank, occurred_at, status, currency, mrr_microcents,
                    potential_mrr_microcents, mrr_provisional, waits_for, plan_name, overruled,
                    set_to_cancel, is_counted, all_discounts_microcents, no_discounts_microcents
             FROM subscription_versions
             WHERE stripe_customer_id = ANY($1) OR stripe_subscription_id = ANY($2)",
            &[
                (&stripe_customer_ids, Type::TEXT_ARRAY),
                (&subscription_ids, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter().map(version_from_row).collect()
}

/// The customers some of whose snapshots wait for one of these prices, coupons and discounts.
///
/// # Errors
/// When the statement fails.
pub async fn waiting_customers(
    db: &impl GenericClient,
    terms: &[String],
) -> Result<Vec<String>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::waiting_customers
             SELECT DISTINCT stripe_customer_id FROM subscription_versions
             WHERE waits_for <> '{}' AND waits_for && ($1 || '{*}'::text[])
             ORDER BY stripe_customer_id",
            &[(&terms, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(row.try_get("stripe_customer_id")?))
        .collect()
}

/// Inserts or replaces one snapshot of the history.
///
/// # Errors
/// When the statement fails.
pub async fn upsert_version(
    db: &impl GenericClient,
    version: &SubscriptionVersion,
) -> Result<(), Error> {
    let changed = db
        .execute_typed(
            "-- subscriptions::upsert_version
             INSERT INTO subscription_versions (stripe_subscription_id, source_event_id,
                 stripe_customer_id, currency, source_created_at, source_rank, occurred_at, status,
                 mrr_microcents, potential_mrr_microcents, mrr_provisional, waits_for, plan_name,
                 overruled, set_to_cancel, is_counted, all_discounts_microcents,
                 no_discounts_microcents)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
             ON CONFLICT (stripe_subscription_id, source_event_id) DO UPDATE SET
                 stripe_customer_id = excluded.stripe_customer_id,
                 mrr_microcents = excluded.mrr_microcents,
                 potential_mrr_microcents = excluded.potential_mrr_microcents,
                 mrr_provisional = excluded.mrr_provisional, waits_for = excluded.waits_for,
                 plan_name = excluded.plan_name, overruled = excluded.overruled,
                 set_to_cancel = excluded.set_to_cancel, is_counted = excluded.is_counted,
                 all_discounts_microcents = excluded.all_discounts_microcents,
                 no_discounts_microcents = excluded.no_discounts_microcents",
            &[
                (&version.stripe_subscription_id, Type::TEXT),
                (&version.source_event_id, Type::TEXT),
                (&version.stripe_customer_id, Type::TEXT),
                (&version.currency.as_ref().map(|c| c.as_str()), Type::TEXT),
                (&version.source_created_at, Type::TIMESTAMPTZ),
                (&version.source_rank, Type::INT4),
                (&version.occurred_at, Type::TIMESTAMPTZ),
                (&version.status, Type::TEXT),
                (&version.mrr_microcents, Type::INT8),
                (&version.potential_mrr_microcents, Type::INT8),
                (&version.mrr_provisional, Type::BOOL),
                (&version.waits_for, Type::TEXT_ARRAY),
                (&version.plan_name, Type::TEXT),
                (&version.overruled, Type::BOOL),
                (&version.set_to_cancel, Type::BOOL),
                (&version.is_counted, Type::BOOL),
                (&version.all_discounts_microcents, Type::INT8),
                (&version.no_discounts_microcents, Type::INT8),
            ],
        )
        .await?;
    Error::check_row_count("subscriptions::upsert_version", 1, changed)
}

/// What a user's plan is decided from: every subscription of the user's customers. One that only
/// a paid checkout session has named so far entitles too.
///
/// # Errors
/// When the statement fails.
pub async fn entitlements(
    db: &impl GenericClient,
    user_id: i32,
) -> Result<Vec<Entitlement>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::entitlements
             SELECT subscriptions.stripe_subscription_id, subscriptions.status,
                    subscriptions.plan_name, subscriptions.started_at,
                    subscriptions.source_event_id = '' AND EXISTS (
                        SELECT FROM checkout_sessions
                        WHERE checkout_sessions.stripe_subscription_id
                                  = subscriptions.stripe_subscription_id
                          AND checkout_sessions.payment_status IN ('paid', 'no_payment_required')
                    ) AS is_bought
             FROM subscriptions
             WHERE subscriptions.user_id = $1 AND subscriptions.stripe_subscription_id IS NOT NULL
               AND NOT subscriptions.superseded",
            &[(&user_id, Type::INT4)],
        )
        .await?;
    rows.iter().map(entitlement_from_row).collect()
}

fn from_row(row: &Row) -> Result<StoredSubscription, Error> {
    const TABLE: &str = "subscriptions";
    let key: String = row.try_get("stripe_subscription_id")?;
    let version = columns::version(row)?;
    let customer: Option<String> = row.try_get("stripe_customer_id")?;
    let plan_name: String = row.try_get("plan_name")?;
    let created_at: Option<Timestamp> = row.try_get("created_at")?;
    let snapshot = match (customer, created_at) {
        (Some(stripe_customer_id), Some(created_at)) if version.is_seen() => Some(Subscription {
            stripe_subscription_id: key.clone(),
            stripe_customer_id,
            status: row.try_get("status")?,
            currency: columns::optional_currency(row, TABLE, "currency", &key)?,
            items: columns::json(row, TABLE, "items", &key)?,
            discounts: columns::json(row, TABLE, "discounts", &key)?,
            current_period_start: row.try_get("current_period_start")?,
            current_period_end: row.try_get("current_period_end")?,
            cancel_at_period_end: row
                .try_get::<_, Option<bool>>("cancel_at_period_end")?
                .unwrap_or(false),
            cancellation_reason: row.try_get("cancellation_reason")?,
            cancel_at: row.try_get("cancel_at")?,
            canceled_at: row.try_get("canceled_at")?,
            ended_at: row.try_get("ended_at")?,
            trial_start: row.try_get("trial_start")?,
            trial_end: row.try_get("trial_end")?,
            started_at: row.try_get("started_at")?,
            paused_at: row.try_get("paused_at")?,
            pause_behavior: row.try_get("pause_behavior")?,
            metadata: row.try_get("metadata")?,
            created_at,
            version,
        }),
        _ => None,
    };
    Ok(StoredSubscription {
        stripe_subscription_id: key,
        snapshot,
        plan_name: Some(plan_name).filter(|plan| plan != "unknown"),
    })
}

pub(super) fn version_from_row(row: &Row) -> Result<SubscriptionVersion, Error> {
    let key: String = row.try_get("stripe_subscription_id")?;
    Ok(SubscriptionVersion {
        stripe_customer_id: row.try_get("stripe_customer_id")?,
        source_event_id: row.try_get("source_event_id")?,
        source_created_at: row.try_get("source_created_at")?,
        source_rank: row.try_get("source_rank")?,
        occurred_at: row.try_get("occurred_at")?,
        status: row.try_get("status")?,
        currency: columns::optional_currency(row, "subscription_versions", "currency", &key)?,
        mrr_microcents: row.try_get("mrr_microcents")?,
        potential_mrr_microcents: row.try_get("potential_mrr_microcents")?,
        mrr_provisional: row.try_get("mrr_provisional")?,
        waits_for: row.try_get("waits_for")?,
        plan_name: row.try_get("plan_name")?,
        overruled: row.try_get("overruled")?,
        set_to_cancel: row.try_get("set_to_cancel")?,
        is_counted: row.try_get("is_counted")?,
        all_discounts_microcents: row.try_get("all_discounts_microcents")?,
        no_discounts_microcents: row.try_get("no_discounts_microcents")?,
        stripe_subscription_id: key,
    })
}

fn entitlement_from_row(row: &Row) -> Result<Entitlement, Error> {
    let status: String = row.try_get("status")?;
    let plan_name: String = row.try_get("plan_name")?;
    let is_bought: bool = row.try_get("is_bought")?;
    Ok(Entitlement {
        stripe_subscription_id: row.try_get("stripe_subscription_id")?,
        is_entitled: is_entitled(&status) || is_bought,
        plan_name: Some(plan_name).filter(|plan| plan != "unknown"),
        started_at: row.try_get("started_at")?,
    })
}

/// Which subscriptions a list shows; `None` for all.
#[derive(Debug, Default)]
pub struct Filter<'a> {
    pub status: Option<&'a str>,
    pub user_id: Option<i32>,
    pub stripe_customer_id: Option<&'a str>,
    pub plan_name: Option<&'a str>,
    /// When the subscription was created.
    pub created: Span,
}

/// A page of subscriptions.
///
/// # Errors
/// When the statement fails.
pub async fn list(
    db: &impl GenericClient,
    filter: &Filter<'_>,
    page: &Page<i64>,
) -> Result<Rows<i64, ListedSubscription>, Error> {
    list::read(
        db,
        &format!(
            "-- subscriptions::list
             SELECT {}, created_at AS listed_at FROM subscriptions WHERE NOT superseded",
            ListedSubscription::COLUMNS
        ),
        Order {
            at: "created_at",
            key: "id",
        },
        &[
            sorted("user_id", &filter.user_id, Type::INT4),
            sorted("stripe_customer_id", &filter.stripe_customer_id, Type::TEXT),
            sorted("plan_name", &filter.plan_name, Type::TEXT),
            sorted("status", &filter.status, Type::TEXT),
        ],
        filter.created,
        page,
    )
    .await
}

/// What a customer pays per month in each currency, in 10⁻⁶ of a minor unit.
///
/// # Errors
/// When the statement fails or a currency cannot be read.
pub async fn mrr_of_customer(
    db: &impl GenericClient,
    stripe_customer_id: &str,
) -> Result<Vec<(Currency, i64)>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::mrr_of_customer
             SELECT currency, CAST(sum(mrr_microcents) AS BIGINT) AS mrr_microcents
             FROM subscriptions
             WHERE stripe_customer_id = $1 AND NOT superseded AND currency IS NOT NULL
               AND mrr_microcents <> 0
             GROUP BY currency ORDER BY currency",
            &[(&stripe_customer_id, Type::TEXT)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let currency = columns::currency(row, "subscriptions", stripe_customer_id)?;
            Ok((currency, row.try_get("mrr_microcents")?))
        })
        .collect()
}
