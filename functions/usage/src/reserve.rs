//! `POST /usage/reserve`: units of a user's quota, taken before they are used; never one too many.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use domain::money::{self, Currency, Money};
use domain::period::Month;
use domain::usage::{PlanTerms, Reservation, ReservationRequest, UsageStanding};
use futures_util::try_join;
use jiff::Timestamp;
use runtime::api::extract::{Json, Now};
use runtime::api::{self, Error};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::publishing::publish_after_commit;
use store::usage_events::{NewEvent, Stored};
use store::{locks, outbox, usage_events, usage_terms};
use tokio_postgres::{Client, Transaction};
use utoipa::openapi::RefOr;
use utoipa::{IntoResponses, ToSchema};

use crate::ingest::sha256;
use crate::limit_check::OveragePrice;
use crate::meter::{Meter, standings};
use crate::{ATTEMPTS, Clients, alerts, unprocessable};

/// The member of an event's metadata in which an allowed reservation keeps its answer.
const VERDICT: &str = "reservation";

/// Why a reservation could not be decided.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such user")]
    NoSuchUser,
    #[error("plan_limits has no plan named {0}")]
    NoSuchPlan(String),
    #[error("the key was used before for something else")]
    KeyReused,
    #[error("the reservation of this key was voided: another one needs another key")]
    Voided,
    #[error("the answer that the reservation got is not readable any more")]
    Unreadable(#[source] serde_json::Error),
    #[error("the price is out of range")]
    Price(#[from] money::Error),
    #[error("the quota cannot be read or written")]
    Store(#[from] store::Error),
}

/// A reservation that was made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Reserved {
    /// True: what is not allowed is a 402.
    allowed: bool,
    /// Units used this month, these included.
    used: i64,
    /// Units included per month; null is unlimited.
    limit: Option<i64>,
    /// Units left of them; null is unlimited.
    remaining: Option<i64>,
    /// True when some of the units are beyond the limit, and the next three say what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    overage: Option<bool>,
    /// How many of the units are beyond the limit; absent when none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    overage_units: Option<i64>,
    /// What those cost in all, in minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    price_cents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    currency: Option<Currency>,
}

/// What the 402 offers instead.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReservationDenied {
    /// Always false: nothing was reserved.
    allowed: bool,
    /// Units used this month.
    used: i64,
    /// Units included per month.
    limit: Option<i64>,
    /// Units left of them: fewer than were asked for.
    remaining: Option<i64>,
    /// What units beyond the limit cost, where the plan sells them: send `accept_overage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    overage: Option<OveragePrice>,
    /// The plan to change to, where there is a larger one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    upgrade: Option<PlanUpgrade>,
    /// The first instant of the next month.
    resets_at: Timestamp,
}

/// The next larger plan, which would allow the reservation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlanUpgrade {
    plan: String,
    /// What the plan costs per month, in minor units of `currency`; null when no price is known.
    price_cents: Option<i64>,
    currency: Currency,
    /// So many units beyond the limit cost as much as the plan.
    breakeven_units: Option<i64>,
}

/// Why units are not reserved.
#[derive(Debug)]
pub(crate) enum ReserveError {
    /// 402: nothing is stored, so that the key may come again.
    Denied(ReservationDenied),
    /// A refusal that every route can give.
    Refused(Error),
}

/// The codes of a reservation's refusals besides 402.
const REFUSALS: [(u16, &str, &str); 3] = [
    (404, "not_found", "there is no such user"),
    (
        409,
        "idempotency_key_reused",
        "the key was used before for something else",
    ),
    (
        409,
        "reservation_voided",
        "the reservation of this key was voided: another one needs another key",
    ),
];

impl<E: api::CommonError> From<E> for ReserveError {
    fn from(error: E) -> ReserveError {
        ReserveError::Refused(error.into())
    }
}

impl From<Refusal> for ReserveError {
    fn from(refusal: Refusal) -> ReserveError {
        ReserveError::Refused(match refusal {
            Refusal::NoSuchUser => Error::NotFound,
            refusal @ Refusal::NoSuchPlan(_) => Error::NotConfigured(Box::new(refusal)),
            refusal @ Refusal::Unreadable(_) => Error::Internal(Box::new(refusal)),
            Refusal::KeyReused => Error::Conflict {
                code: "idempotency_key_reused",
                detail: format!("idempotency_key: {refusal}"),
            },
            Refusal::Voided => Error::Conflict {
                code: "reservation_voided",
                detail: refusal.to_string(),
            },
            Refusal::Price(error) => Error::invalid_member("units", error.to_string()),
            Refusal::Store(error) => Error::from(error),
        })
    }
}

impl IntoResponse for ReserveError {
    fn into_response(self) -> axum::response::Response {
        let error = match self {
            ReserveError::Refused(error) => error,
            ReserveError::Denied(offer) => Error::payment_required(&offer),
        };
        error.into_response()
    }
}

impl IntoResponses for ReserveError {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut responses = api::refusals_of(&REFUSALS);
        responses.extend(api::payment_required::<ReservationDenied>());
        responses
    }
}

/// The decision on a reservation.
enum Decision {
    /// The answer, kept for whoever asks again, and what to publish.
    Allowed(Reserved, Vec<outbox::Message>),
    /// Nothing is stored, so that the key may come again.
    Denied(ReservationDenied),
}

/// Reserves units of a user's quota before they are used, and never more than it has. The same key again gets the first
/// decision.
#[utoipa::path(post, path = "/usage/reserve")]
pub(crate) async fn post(
    State(app): State<Arc<Clients>>,
    Now(now): Now,
    Json(body): Json<Reservation>,
) -> Result<Json<Reserved>, ReserveError> {
    let wanted = ReservationRequest::new(body).map_err(unprocessable)?;
    let mut client = app.database.client().await?;
    match reserve(&mut client, &wanted, now).await? {
        Decision::Allowed(answer, messages) => {
            if !messages.is_empty() {
                let bus = Some(&app.event_bus);
                publish_after_commit(&app.database, client, bus, &messages, now).await;
            }
            Ok(Json(answer))
        }
        Decision::Denied(offer) => Err(ReserveError::Denied(offer)),
    }
}

async fn reserve(
    client: &mut Client,
    wanted: &ReservationRequest,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let mut attempt = 1;
    loop {
        match reserve_once(client, wanted, now).await {
            Err(Refusal::Store(error)) if error.is_retryable() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn reserve_once(
    client: &mut Client,
    wanted: &ReservationRequest,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let decision = decide(&transaction, wanted, now).await?;
    match decision {
        Decision::Allowed(..) => transaction.commit().await,
        Decision::Denied(_) => transaction.rollback().await,
    }
    .map_err(store::Error::from)?;
    Ok(decision)
}

async fn decide(
    db: &Transaction<'_>,
    wanted: &ReservationRequest,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let subject = format!("user:{}", wanted.user_id);
    let digest = sha256(&wanted.payload);
    // What is read under the lock is read in the flight after it.
    let ids = [wanted.user_id];
    let subjects = [subject.as_str()];
    let ((), plans) = try_join!(
        locks::take_meters(db, &subjects),
        usage_terms::of_users(db, &ids),
    )?;
    let plan = plans.into_iter().next().ok_or(Refusal::NoSuchUser)?;
    let month = Month::of(now);
    let limit = plan.terms.as_ref().and_then(|terms| terms.included_units);
    let meters = [Meter::of_user(wanted.user_id, limit)];
    let (earlier, standings) = try_join!(
        usage_events::get(db, &subject, &wanted.idempotency_key),
        standings(db, &meters, month),
    )?;
    if let Some(earlier) = earlier {
        let answer = first_verdict(earlier, &digest)?;
        return Ok(Decision::Allowed(answer, Vec::new()));
    }
    let terms = plan.terms.ok_or(Refusal::NoSuchPlan(plan.plan_name))?;
    let standing = standings
        .into_iter()
        .next()
        .unwrap_or(UsageStanding { used: 0, limit });
    let quote = standing.quote(&terms, wanted.units)?;
    let charge = match quote.total {
        Some(total) if quote.overage_units == 0 || wanted.accept_overage => total,
        Some(_) | None => return Ok(Decision::Denied(offer(&terms, standing, month))),
    };
    let after = standing.after(wanted.units);
    let answer = answer(after, charge, quote.overage_units);
    let verdict = json!({VERDICT: &answer});
    let part_of = json!({"part_of_reservation": wanted.idempotency_key});
    let overage_key = format!("{}:overage", wanted.idempotency_key);
    let event = |key, units, price_cents, metadata| NewEvent {
        subject: &subject,
        idempotency_key: key,
        user_id: Some(wanted.user_id),
        api_key_prefix: None,
        event_type: &wanted.event_type,
        resource_id: None,
        billable: true,
        cost_units: units,
        unit_price_cents: Some(price_cents),
        currency: terms.currency,
        occurred_at: now,
        metadata: Some(metadata),
        payload_sha256: &digest,
    };
    let key = wanted.idempotency_key.as_str();
    let overage_price_cents = terms.overage_price_cents.unwrap_or(0);
    let events = match (quote.free_units, quote.overage_units) {
        (free, 0) => vec![event(key, free, 0, &verdict)],
        (0, beyond) => vec![event(key, beyond, overage_price_cents, &verdict)],
        (free, beyond) => vec![
            event(key, free, 0, &verdict),
            event(&overage_key, beyond, overage_price_cents, &part_of),
        ],
    };
    let taken = usage_events::insert_all(db, &events, now).await?;
    if !taken.is_empty() {
        // Somebody's own key ends in `:overage`.
        return Err(Refusal::KeyReused);
    }
    let messages = alerts::raise(db, &[(&subject, after)], month, now).await?;
    Ok(Decision::Allowed(answer, messages))
}

/// What the key was answered first; a conflict when it stands for something else.
fn first_verdict(earlier: Stored, digest: &str) -> Result<Reserved, Refusal> {
    if earlier.payload_sha256.as_deref() != Some(digest) {
        return Err(Refusal::KeyReused);
    }
    if earlier.voided_at.is_some() {
        return Err(Refusal::Voided);
    }
    let mut metadata = earlier.metadata.unwrap_or_default();
    match metadata.get_mut(VERDICT) {
        Some(answer) => serde_json::from_value(answer.take()).map_err(Refusal::Unreadable),
        None => Err(Refusal::KeyReused),
    }
}

fn answer(after: UsageStanding, charge: Money, overage_units: i64) -> Reserved {
    let is_beyond = overage_units > 0;
    Reserved {
        allowed: true,
        used: after.used,
        limit: after.limit,
        remaining: after.remaining(),
        overage: is_beyond.then_some(true),
        overage_units: is_beyond.then_some(overage_units),
        price_cents: is_beyond.then_some(charge.amount_cents),
        currency: is_beyond.then_some(charge.currency),
    }
}

fn offer(terms: &PlanTerms, standing: UsageStanding, month: Month) -> ReservationDenied {
    let upgrade = terms.upgrade.as_ref();
    ReservationDenied {
        allowed: false,
        used: standing.used,
        limit: standing.limit,
        remaining: standing.remaining(),
        overage: OveragePrice::of(terms),
        upgrade: upgrade.map(|(plan, price_cents)| PlanUpgrade {
            plan: plan.clone(),
            price_cents: *price_cents,
            currency: terms.currency,
            breakeven_units: terms.breakeven_units(),
        }),
        resets_at: month.end(),
    }
}
