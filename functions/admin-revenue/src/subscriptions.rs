//! `GET /admin/subscriptions`: the subscriptions, newest first.

use std::sync::Arc;

use axum::extract::State;
use runtime::api::Error;
use runtime::api::extract::{Json, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use serde::Deserialize;
use store::subscriptions::{self, Filter, ListedSubscription};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;

/// A status of Stripe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SubscriptionState {
    Incomplete,
    IncompleteExpired,
    Trialing,
    Active,
    PastDue,
    Canceled,
    Unpaid,
    Paused,
}

impl SubscriptionState {
    fn as_str(self) -> &'static str {
        match self {
            SubscriptionState::Incomplete => "incomplete",
            SubscriptionState::IncompleteExpired => "incomplete_expired",
            SubscriptionState::Trialing => "trialing",
            SubscriptionState::Active => "active",
            SubscriptionState::PastDue => "past_due",
            SubscriptionState::Canceled => "canceled",
            SubscriptionState::Unpaid => "unpaid",
            SubscriptionState::Paused => "paused",
        }
    }
}

/// Which subscriptions are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct SubscriptionsQuery {
    /// Only those of this status.
    #[param(inline)]
    status: Option<SubscriptionState>,
    /// Only those of a user of the application.
    #[param(minimum = 0)]
    user_id: Option<i32>,
    /// Only those of a customer (`cus_…`).
    #[param(inline)]
    customer: Option<PlainText>,
    /// Only those of a plan.
    #[param(inline)]
    plan: Option<PlainText>,
}

/// Lists subscriptions with their items and discounts, newest first.
#[utoipa::path(get, path = "/admin/subscriptions")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<SubscriptionsQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ListedSubscription>>, Error> {
    let filter = Filter {
        status: asked.status.map(SubscriptionState::as_str),
        user_id: asked.user_id,
        stripe_customer_id: asked.customer.as_ref().map(PlainText::as_str),
        plan_name: asked.plan.as_ref().map(PlainText::as_str),
        created: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = subscriptions::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::new(rows.rows, rows.next.as_ref())?))
}
