//! `POST /usage/reserve`: units of a user's quota, taken before they are used; never one too many.

use domain::money::{self, Money};
use domain::period::Month;
use domain::usage::{PlanTerms, ReservationRequest, Standing};
use futures_util::try_join;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde_json::{Map, Value, json};
use store::usage_events::{NewEvent, Stored};
use store::{locks, outbox, usage_events, usage_terms};
use tokio_postgres::{Client, Transaction};

use crate::ingest::sha256;
use crate::meter::{Meter, standings};
use crate::{ATTEMPTS, App, alerts, json_body};

/// The member of an event's metadata in which an allowed reservation keeps its answer.
const VERDICT: &str = "reservation";

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no such user")]
    NoSuchUser,
    #[error("plan_limits has no plan named {0}")]
    NoSuchPlan(String),
    #[error("the key was used before for something else")]
    KeyReused,
    #[error("the price is out of range")]
    Price(#[from] money::Error),
    #[error("the quota cannot be read or written")]
    Store(#[from] store::Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NoSuchUser => Error::NotFound,
            refusal @ Refusal::NoSuchPlan(_) => Error::NotConfigured(Box::new(refusal)),
            Refusal::KeyReused => Error::Conflict {
                code: "idempotency_key_reused",
                detail: format!("idempotency_key: {refusal}"),
            },
            Refusal::Price(error) => Error::Unprocessable {
                field: "units".to_owned(),
                detail: error.to_string(),
            },
            Refusal::Store(error) => Error::from(error),
        }
    }
}

/// What became of a reservation.
enum Decision {
    /// The answer, kept for whoever asks again, and what to publish.
    Allowed(Value, Vec<outbox::Message>),
    /// The members of the 402. Nothing is stored, so that the key may come again.
    Denied(Map<String, Value>),
}

/// Reads the body, decides under the subject's lock, and answers what was decided first under the key.
pub(crate) async fn post(
    app: &App,
    request: &Request,
    body: &[u8],
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    Query::parse(request, &[])?;
    let wanted =
        ReservationRequest::read(json_body::object(body)?).map_err(json_body::unprocessable)?;
    let mut client = app.database.client().await?;
    match reserve(&mut client, &wanted, now).await? {
        Decision::Allowed(answer, messages) => {
            if !messages.is_empty() {
                app.publish(&client, &messages, now).await;
            }
            api::json(StatusCode::OK, &answer)
        }
        Decision::Denied(members) => Err(Error::PaymentRequired { members }),
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
        .unwrap_or(Standing { used: 0, limit });
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
fn first_verdict(earlier: Stored, digest: &str) -> Result<Value, Refusal> {
    if earlier.payload_sha256.as_deref() != Some(digest) {
        return Err(Refusal::KeyReused);
    }
    let mut metadata = earlier.metadata.unwrap_or_default();
    match metadata.get_mut(VERDICT) {
        Some(answer) => Ok(answer.take()),
        None => Err(Refusal::KeyReused),
    }
}

fn answer(after: Standing, charge: Money, overage_units: i64) -> Value {
    let mut answer = json!({
        "allowed": true,
        "used": after.used,
        "limit": after.limit,
        "remaining": after.remaining(),
    });
    if overage_units > 0 {
        answer["overage"] = true.into();
        answer["overage_units"] = overage_units.into();
        answer["price_cents"] = charge.amount_cents.into();
        answer["currency"] = charge.currency.as_str().into();
    }
    answer
}

/// What the 402 offers instead.
fn offer(terms: &PlanTerms, standing: Standing, month: Month) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("allowed".to_owned(), false.into());
    members.insert("used".to_owned(), standing.used.into());
    members.insert("limit".to_owned(), standing.limit.into());
    members.insert("remaining".to_owned(), standing.remaining().into());
    if let Some(price_cents) = terms.overage_price_cents {
        let overage = json!({"price_cents": price_cents, "currency": terms.currency});
        members.insert("overage".to_owned(), overage);
    }
    if let Some((plan, price_cents)) = &terms.upgrade {
        let upgrade = json!({
            "plan": plan,
            "price_cents": price_cents,
            "currency": terms.currency,
            "breakeven_units": terms.breakeven_units(),
        });
        members.insert("upgrade".to_owned(), upgrade);
    }
    members.insert("resets_at".to_owned(), month.end().to_string().into());
    members
}
