//! `GET /usage/limit-check/…`: what is left of this month's limit.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::period::Month;
use domain::usage::{PlanTerms, UsageStanding};
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path};
use serde::{Deserialize, Serialize};
use shared::publishing::publish_after_commit;
use store::usage_terms::{self, UserPlan};
use tokio_postgres::GenericClient;
use utoipa::{IntoParams, ToSchema};

use crate::meter::{Meter, standings};
use crate::parameters::{PartnerPath, UserId};
use crate::{Clients, alerts};

/// A plan that users have and `plan_limits` has not.
#[derive(Debug, thiserror::Error)]
#[error("plan_limits has no plan named {0}")]
struct NoSuchPlan(String);

/// The user of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct UserPath {
    /// `users.id` of the host application.
    #[param(value_type = i32, minimum = 1)]
    id: String,
}

impl UserPath {
    /// The user's id as a number.
    pub(crate) fn id(&self) -> Result<UserId, Error> {
        UserId::parse(&self.id).ok_or_else(|| Error::invalid_parameter("id", "a user's number"))
    }
}

/// Where a user stands in the month.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserLimit {
    user_id: i32,
    /// Name of the user's plan, as in `plan_limits`.
    plan: String,
    /// Units used this month.
    used: i64,
    /// Units included per month; null is unlimited.
    limit: Option<i64>,
    /// Units left of them; null is unlimited.
    remaining_free_units: Option<i64>,
    /// The highest of 80 and 100 percent of the limit that is reached.
    threshold: Option<i32>,
    /// What units beyond the limit cost; null when the plan sells none.
    overage: Option<OveragePrice>,
    /// The first instant of the next month.
    resets_at: Timestamp,
}

/// What a unit beyond the limit costs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OveragePrice {
    /// The price of one unit beyond the limit, in minor units of `currency`.
    pub(crate) price_cents: i64,
    pub(crate) currency: Currency,
}

impl OveragePrice {
    pub(crate) fn of(terms: &PlanTerms) -> Option<OveragePrice> {
        let price_cents = terms.overage_price_cents?;
        Some(OveragePrice {
            price_cents,
            currency: terms.currency,
        })
    }
}

/// Answers how much of a user's month is used and left. Changes nothing.
#[utoipa::path(get, path = "/usage/limit-check/user/{id}")]
pub(crate) async fn user(
    State(app): State<Arc<Clients>>,
    Path(path): Path<UserPath>,
    Now(now): Now,
) -> Result<Json<UserLimit>, Error> {
    let UserId(user_id) = path.id()?;
    let client = app.database.client().await?;
    let (plan, terms, standing) = of_user(&**client, user_id, now).await?;
    Ok(Json(UserLimit {
        user_id,
        plan,
        used: standing.used,
        limit: standing.limit,
        remaining_free_units: standing.remaining(),
        threshold: standing.threshold_pct(),
        overage: OveragePrice::of(&terms),
        resets_at: Month::of(now).end(),
    }))
}

/// A user's plan, its terms, and where the user stands in the month. 404 for a user that is not there, 503 for a plan
/// that is not.
pub(crate) async fn of_user(
    db: &impl GenericClient,
    user_id: i32,
    now: Timestamp,
) -> Result<(String, PlanTerms, UsageStanding), Error> {
    let plans = usage_terms::of_users(db, &[user_id]).await?;
    let UserPlan {
        plan_name, terms, ..
    } = plans.into_iter().next().ok_or(Error::NotFound)?;
    let Some(terms) = terms else {
        return Err(Error::NotConfigured(Box::new(NoSuchPlan(plan_name))));
    };
    let meter = Meter::of_user(user_id, terms.included_units);
    let standing = standing(db, meter, now).await?;
    Ok((plan_name, terms, standing))
}

/// Where a partner stands in the month.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartnerLimit {
    api_key_prefix: String,
    /// Whether another request may be made.
    allowed: bool,
    /// Requests made this month.
    used: i64,
    /// Requests allowed per month; null is unlimited.
    limit: Option<i64>,
    /// Requests left of them; null is unlimited.
    remaining: Option<i64>,
    /// The highest of 80 and 100 percent of the limit that is reached.
    threshold: Option<i32>,
    /// The first instant of the next month.
    resets_at: Timestamp,
}

/// Whether a partner may make another request. The gateway's own log raises no alert when it is written; it is raised
/// here, where the gateway asks.
#[utoipa::path(get, path = "/usage/limit-check/partner/{prefix}")]
pub(crate) async fn partner(
    State(app): State<Arc<Clients>>,
    Path(PartnerPath { prefix }): Path<PartnerPath>,
    Now(now): Now,
) -> Result<Json<PartnerLimit>, Error> {
    let mut client = app.database.client().await?;
    let terms = usage_terms::of_partners(&**client, &[prefix.as_str()]).await?;
    let terms = terms.into_iter().next().ok_or(Error::NotFound)?;
    let standing = standing(&**client, Meter::of_partner(terms), now).await?;
    let month = Month::of(now);
    if standing.threshold_pct().is_some() {
        let transaction = client.transaction().await.map_err(store::Error::from)?;
        let subject = prefix.subject().to_string();
        let reached = [(subject.as_str(), standing)];
        let messages = alerts::raise(&transaction, &reached, month, now).await?;
        transaction.commit().await.map_err(store::Error::from)?;
        if !messages.is_empty() {
            let bus = Some(&app.event_bus);
            publish_after_commit(&app.database, client, bus, &messages, now).await;
        }
    }
    Ok(Json(PartnerLimit {
        api_key_prefix: prefix.as_str().to_owned(),
        allowed: standing.limit.is_none_or(|limit| standing.used < limit),
        used: standing.used,
        limit: standing.limit,
        remaining: standing.remaining(),
        threshold: standing.threshold_pct(),
        resets_at: month.end(),
    }))
}

async fn standing(
    db: &impl GenericClient,
    meter: Meter,
    now: Timestamp,
) -> Result<UsageStanding, store::Error> {
    let limit = meter.limit;
    let standings = standings(db, &[meter], Month::of(now)).await?;
    Ok(standings
        .into_iter()
        .next()
        .unwrap_or(UsageStanding { used: 0, limit }))
}
