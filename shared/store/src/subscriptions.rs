//! `subscriptions` and `subscription_versions`: what is shown, and the history behind it.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::Error;
use super::columns::{self, columns};
use super::list::{self, Order, sorted};
use super::mirror::{self, Cells, mirrored};
use domain::money::Currency;
use domain::page::{Page, Rows, Span};
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::snapshot::Version;
use domain::stripe_objects::subscription::{RecurringRevenue, Subscription};

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

/// What the ledger adds to a snapshot.
#[derive(Debug, Clone)]
pub struct Computed {
    pub revenue: RecurringRevenue,
    pub mrr_cents: i64,
    pub plan_name: Option<String>,
}

impl Computed {
    pub(crate) fn cells(&self) -> Cells {
        let plan_name = self.plan_name.as_deref().unwrap_or("unknown");
        let cells: [(&str, Value); 5] = [
            ("plan_name", plan_name.into()),
            ("mrr_cents", self.mrr_cents.into()),
            ("mrr_microcents", self.revenue.mrr_microcents.into()),
            (
                "potential_mrr_microcents",
                self.revenue.potential_mrr_microcents.into(),
            ),
            ("mrr_provisional", self.revenue.is_provisional.into()),
        ];
        Cells::from_iter(cells.map(|(column, value)| (column.to_owned(), value)))
    }
}

mirrored!(Subscription => "subscriptions" by "(stripe_subscription_id) WHERE NOT superseded" {
    stripe_subscription_id,
    stripe_customer_id,
    status,
    currency,
    items,
    items_shown_at,
    items_complete,
    discounts,
    inherited_discounts,
    current_period_start,
    current_period_end,
    cancel_at_period_end or default,
    cancellation_reason,
    cancel_at,
    canceled_at,
    ended_at,
    trial_start,
    trial_end,
    started_at,
    paused_at,
    pause_behavior,
    metadata,
    created_at,
    ..version: Version,
}
const ADDED: &'static [&'static str] = &[
    "plan_name",
    "current_plan_price_cents",
    "billing_cycle",
    "auto_renew",
    "mrr_cents",
    "mrr_microcents",
    "potential_mrr_microcents",
    "mrr_provisional",
];
const LOOKED_UP: &'static [(&'static str, &'static str)] = &[mirror::USER];

fn add(&self, row: &mut Cells) -> Result<(), Error> {
    let auto_renew = !self.cancel_at_period_end && self.ended_at.is_none();
    row.insert("current_plan_price_cents".to_owned(), self.plan_price_cents().into());
    row.insert("billing_cycle".to_owned(), self.billing_cycle().into());
    row.insert("auto_renew".to_owned(), auto_renew.into());
    Ok(())
}
);

mirrored!(SubscriptionVersion
    => "subscription_versions" by "(stripe_subscription_id, source_event_id)" {
    stripe_subscription_id,
    stripe_customer_id,
    source_event_id,
    source_created_at,
    source_rank,
    occurred_at,
    status,
    currency,
    mrr_microcents,
    potential_mrr_microcents,
    mrr_provisional,
    waits_for,
    missing,
    plan_name,
    overruled,
    set_to_cancel,
    is_counted,
    all_discounts_microcents,
    no_discounts_microcents,
    discount_steps,
}
const HAS_UPDATED_AT: bool = false;
const IS_PARTIAL: bool = false;
);

/// The columns of a [`SubscriptionVersion`], for the select list of a statement that reads its rows otherwise than by key.
pub(crate) const VERSION_COLUMNS: &str = "stripe_subscription_id, stripe_customer_id, source_event_id, source_created_at, source_rank, occurred_at, \
    status, currency, mrr_microcents, potential_mrr_microcents, mrr_provisional, waits_for, missing, \
    plan_name, overruled, set_to_cancel, is_counted, all_discounts_microcents, no_discounts_microcents, \
    discount_steps";

/// The customers some of whose snapshots wait for one of these prices, coupons and discounts, each with the subscriptions
/// concerned.
///
/// # Errors
/// When the statement fails.
pub async fn waiting_customers(
    db: &impl GenericClient,
    terms: &[String],
) -> Result<Vec<(String, Vec<String>)>, Error> {
    let rows = db
        .query_typed(
            "-- subscriptions::waiting_customers
             SELECT stripe_customer_id, array_agg(DISTINCT stripe_subscription_id) AS subscription_ids
             FROM subscription_versions
             WHERE waits_for <> '{}' AND waits_for && ($1 || '{*}'::text[])
             GROUP BY stripe_customer_id ORDER BY stripe_customer_id",
            &[(&terms, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("stripe_customer_id")?,
                row.try_get("subscription_ids")?,
            ))
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Columns;

    #[test]
    fn a_version_is_selected_with_every_column_that_is_read() {
        assert_eq!(VERSION_COLUMNS, SubscriptionVersion::names().join(", "));
    }
}
