//! `GET /usage/limit-check/…`: what is left of this month's limit.

use domain::period::Month;
use domain::usage::{PlanTerms, Standing, Subject, parse_user_id};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde_json::json;
use store::usage_terms::{self, UserPlan};
use tokio_postgres::GenericClient;

use crate::meter::{Meter, standings};
use crate::{App, alerts};

/// A plan that users have and `plan_limits` has not.
#[derive(Debug, thiserror::Error)]
#[error("plan_limits has no plan named {0}")]
struct NoSuchPlan(String);

/// Where a user stands. Reads only.
pub(crate) async fn user(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    Query::parse(request, &[])?;
    let user_id =
        parse_user_id(id).ok_or_else(|| Error::invalid_parameter("id", "a user's number"))?;
    let client = app.database.client().await?;
    let (plan_name, terms, standing) = of_user(&**client, user_id, now).await?;
    let overage = terms
        .overage_price_cents
        .map(|price_cents| json!({"price_cents": price_cents, "currency": terms.currency}));
    let answer = json!({
        "user_id": user_id,
        "plan": plan_name,
        "used": standing.used,
        "limit": standing.limit,
        "remaining_free_units": standing.remaining(),
        "threshold": standing.threshold_pct(),
        "overage": overage,
        "resets_at": Month::of(now).end(),
    });
    api::json(StatusCode::OK, &answer)
}

/// A user's plan, its terms, and where the user stands in the month. 404 for a user that is not there, 503 for a plan
/// that is not.
pub(crate) async fn of_user(
    db: &impl GenericClient,
    user_id: i32,
    now: Timestamp,
) -> Result<(String, PlanTerms, Standing), Error> {
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

/// Whether a partner may make another request. The gateway's own log raises no alert when it is written; it is raised
/// here, where the gateway asks.
pub(crate) async fn partner(
    app: &App,
    request: &Request,
    prefix: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    Query::parse(request, &[])?;
    let subject = Subject::parse(&format!("partner:{prefix}")).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let terms = usage_terms::of_partners(&**client, &[prefix]).await?;
    let terms = terms.into_iter().next().ok_or(Error::NotFound)?;
    let meter = Meter::of_partner(terms);
    let standing = standing(&**client, meter, now).await?;
    let month = Month::of(now);
    if standing.threshold_pct().is_some() {
        let transaction = client.transaction().await.map_err(store::Error::from)?;
        let reached = [(subject.to_string(), standing)];
        let reached = reached
            .each_ref()
            .map(|(subject, standing)| (subject.as_str(), *standing));
        let messages = alerts::raise(&transaction, &reached, month, now).await?;
        transaction.commit().await.map_err(store::Error::from)?;
        if !messages.is_empty() {
            app.publish(&client, &messages, now).await;
        }
    }
    let answer = json!({
        "api_key_prefix": prefix,
        "allowed": standing.limit.is_none_or(|limit| standing.used < limit),
        "used": standing.used,
        "limit": standing.limit,
        "remaining": standing.remaining(),
        "threshold": standing.threshold_pct(),
        "resets_at": month.end(),
    });
    api::json(StatusCode::OK, &answer)
}

async fn standing(
    db: &impl GenericClient,
    meter: Meter,
    now: Timestamp,
) -> Result<Standing, store::Error> {
    let limit = meter.limit;
    let standings = standings(db, &[meter], Month::of(now)).await?;
    Ok(standings
        .into_iter()
        .next()
        .unwrap_or(Standing { used: 0, limit }))
}
