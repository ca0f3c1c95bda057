//! `POST /usage/events`: one event or a batch, each with a verdict, each counted once for ever.

use std::sync::Arc;

use axum::extract::State;
use domain::partner::coverage::UnbillableReason;
use domain::usage::{Event, Rejection, UsageEvent};
use jiff::Timestamp;
use lambda_http::RequestExt;
use lambda_http::http::request::Parts;
use lambda_http::request::RequestContext;
use runtime::api::Error;
use runtime::api::extract::{Json, JsonBytes, Now, Query, object, object_of};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shared::publishing::publish_after_commit;
use utoipa::{IntoParams, ToSchema};

use crate::ingest::{Candidate, Verdict, ingest};
use crate::{BODIES, Clients, unprocessable};

/// Most events of a batch.
const EVENTS_MAX: usize = 1_000;

/// Whether a batch is all or nothing; and the predecessor's parameters of one event, with the key and the time that it
/// had not, for a request without a body.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventQuery {
    /// Whether one event that cannot be stored keeps all of the batch out.
    atomic: Option<bool>,
    /// Without a body: the event's key; the header `Idempotency-Key` will do.
    idempotency_key: Option<String>,
    /// Without a body: who used it.
    #[param(value_type = Option<i64>)]
    user_id: Option<String>,
    /// Without a body: who used it.
    api_key_prefix: Option<String>,
    /// Without a body: what was used.
    event_type: Option<String>,
    /// Without a body: the thing it was used on.
    resource_id: Option<String>,
    /// Without a body: whether it counts.
    #[param(value_type = Option<bool>)]
    billable: Option<String>,
    /// Without a body: how many units.
    #[param(value_type = Option<i64>)]
    cost_units: Option<String>,
    /// Without a body: per unit, in minor units.
    #[param(value_type = Option<i64>)]
    unit_price_cents: Option<String>,
    /// Without a body: when it happened.
    occurred_at: Option<String>,
    /// Without a body: a JSON object.
    metadata: Option<String>,
}

/// One event, or a batch of 1 to 1000.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(
    dead_code,
    reason = "it is read event by event, so that one that is wrong keeps no other out"
)]
#[serde(untagged)]
pub(crate) enum UsageEvents {
    One(UsageEvent),
    Batch(UsageBatch),
}

/// A batch of events.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as its events are")]
pub(crate) struct UsageBatch {
    /// 1 to 1000 events; each gets its own verdict.
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<UsageEvent>,
}

/// What a request brings.
enum Input {
    One(Value),
    Batch(Vec<Value>),
    /// A batch whose events are all as they should be.
    Read(Vec<UsageEvent>),
}

/// An event as it was sent: its key, when that is a text, and what could be read.
type Said = (Option<String>, Result<UsageEvent, Rejection>);

fn said(value: Value) -> Said {
    let idempotency_key = value["idempotency_key"].as_str().map(str::to_owned);
    let read = object_of::<UsageEvent>(value);
    let read = read.map_err(|(field, message)| Rejection { field, message });
    (idempotency_key, read)
}

/// A verdict for each event, in the order sent, and the number of each verdict.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageVerdicts {
    results: Vec<UsageVerdict>,
    accepted: usize,
    duplicate: usize,
    conflict: usize,
    rejected: usize,
    late: usize,
    unbillable: usize,
}

/// The verdict on one event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageVerdict {
    /// As sent; null when that was no text.
    idempotency_key: Option<String>,
    verdict: VerdictWord,
    /// The member at fault, of an event that was not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// What was expected of that member; absent when the event was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<String>,
    /// Why no invoice counts an event that was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<UnbillableReason>,
}

/// The possible verdicts on an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum VerdictWord {
    Accepted,
    /// Accepted into a period that is invoiced: it goes on the next invoice.
    Late,
    /// Stored, and counted by no invoice as long as `reason` holds.
    Unbillable,
    /// The same event was stored before; it is counted once.
    Duplicate,
    /// An event with this key and other content was stored before; this one is not stored.
    Conflict,
    /// It cannot be read; `field` and `message` say why.
    Rejected,
}

/// Stores usage events, each counted once, for ever. Every valid event of a batch is stored, and the answer has a
/// verdict for each. A single event, or a batch with `atomic`, is refused when any of it cannot be stored.
#[utoipa::path(
    post,
    path = "/usage/events",
    request_body(content = UsageEvents, description = "Left out when the query has the event")
)]
pub(crate) async fn post(
    State(app): State<Arc<Clients>>,
    Query(query): Query<EventQuery>,
    parts: Parts,
    JsonBytes(body): JsonBytes,
    Now(now): Now,
) -> Result<Json<UsageVerdicts>, EventsError> {
    let atomic = query.atomic == Some(true);
    let (events, is_batch): (Vec<Said>, bool) = match input(&parts, &query, &body)? {
        Input::One(value) => (vec![said(value)], false),
        Input::Batch(values) => (values.into_iter().map(said).collect(), true),
        Input::Read(events) => {
            let said = |event: UsageEvent| (event.idempotency_key.clone(), Ok(event));
            (events.into_iter().map(said).collect(), true)
        }
    };
    let mut results = Vec::with_capacity(events.len());
    let mut candidates = Vec::with_capacity(events.len());
    let mut places = Vec::with_capacity(events.len());
    for (index, (idempotency_key, read)) in events.into_iter().enumerate() {
        let (field, message) = match read.and_then(|said| Event::new(said, now)) {
            Ok(event) => {
                candidates.push(Candidate::new(event));
                places.push(index);
                (None, None)
            }
            Err(rejection) if atomic || !is_batch => {
                return Err(unprocessable(placed(rejection, index, is_batch)).into());
            }
            Err(rejection) if rejection.field.is_empty() => {
                (Some("events".to_owned()), Some(rejection.message))
            }
            Err(rejection) => (Some(rejection.field), Some(rejection.message)),
        };
        results.push(UsageVerdict {
            idempotency_key,
            verdict: VerdictWord::Rejected,
            field,
            message,
            reason: None,
        });
    }
    if !candidates.is_empty() {
        let verdicts = store(&app, &candidates, atomic, now).await?;
        for (index, verdict) in places.into_iter().zip(verdicts) {
            if verdict == Verdict::Conflict && (atomic || !is_batch) {
                return Err(conflict(index, is_batch).into());
            }
            tell(&mut results[index], verdict);
        }
    }
    let count = |verdict| {
        results
            .iter()
            .filter(|result| result.verdict == verdict)
            .count()
    };
    Ok(Json(UsageVerdicts {
        accepted: count(VerdictWord::Accepted),
        duplicate: count(VerdictWord::Duplicate),
        conflict: count(VerdictWord::Conflict),
        rejected: count(VerdictWord::Rejected),
        late: count(VerdictWord::Late),
        unbillable: count(VerdictWord::Unbillable),
        results,
    }))
}

runtime::refusals! {
    /// Why no event of a request was stored.
    pub(crate) enum EventsError {
        /// Of one event alone, or of an atomic batch.
        KeyReused = 409 "idempotency_key_reused" "the key was used before with another payload",
    }
}

/// Writes the candidates and publishes what follows from them.
async fn store(
    app: &Clients,
    candidates: &[Candidate],
    atomic: bool,
    now: Timestamp,
) -> Result<Vec<Verdict>, Error> {
    let mut client = app.database.client().await?;
    let ingested = ingest(&mut client, candidates, atomic, now)
        .await
        .map_err(beyond_the_range)?;
    if !ingested.messages.is_empty() {
        let bus = Some(&app.event_bus);
        publish_after_commit(&app.database, client, bus, &ingested.messages, now).await;
    }
    Ok(ingested.verdicts)
}

/// Each event is in range and their sum of a day is not: nothing of the batch is stored.
fn beyond_the_range(error: store::Error) -> Error {
    if error.sqlstate() == Some("22003") {
        return Error::Unprocessable {
            field: "cost_units".to_owned(),
            detail: "the sum of the day is out of range".to_owned(),
        };
    }
    Error::from(error)
}

fn tell(result: &mut UsageVerdict, verdict: Verdict) {
    result.verdict = match verdict {
        Verdict::Accepted => VerdictWord::Accepted,
        Verdict::Late => VerdictWord::Late,
        Verdict::Unbillable(reason) => {
            result.reason = Some(reason);
            VerdictWord::Unbillable
        }
        Verdict::Duplicate => VerdictWord::Duplicate,
        Verdict::Conflict => {
            result.field = Some("idempotency_key".to_owned());
            result.message = Some(KEY_REUSED.to_owned());
            VerdictWord::Conflict
        }
    };
}

const KEY_REUSED: &str = "the key was used before with another payload";

fn conflict(index: usize, is_batch: bool) -> Error {
    let detail = if is_batch {
        format!("events[{index}].idempotency_key: {KEY_REUSED}")
    } else {
        format!("idempotency_key: {KEY_REUSED}")
    };
    Error::Conflict {
        code: "idempotency_key_reused",
        detail,
    }
}

/// A rejection with the event's place in its batch.
fn placed(rejection: Rejection, index: usize, is_batch: bool) -> Rejection {
    let field = match (is_batch, rejection.field.as_str()) {
        (false, _) => rejection.field,
        (true, "") => format!("events[{index}]"),
        (true, field) => format!("events[{index}].{field}"),
    };
    Rejection { field, ..rejection }
}

/// What the request brings.
fn input(parts: &Parts, query: &EventQuery, body: &[u8]) -> Result<Input, Error> {
    let of_query = of_query(query)?;
    if body.iter().all(u8::is_ascii_whitespace) {
        let mut event = of_query;
        if !event.contains_key("idempotency_key")
            && let Some(key) = key_beside_the_query(parts)?
        {
            event.insert("idempotency_key".to_owned(), key.into());
        }
        return Ok(Input::One(Value::Object(event)));
    }
    if let Some(parameter) = of_query.keys().next() {
        return Err(Error::BadRequest {
            code: "unknown_parameter",
            field: Some(parameter.clone()),
            detail: "known parameters beside a body: atomic".to_owned(),
        });
    }
    match read(body) {
        Some(events) => Ok(Input::Read(events)),
        None => of_body(object(body, BODIES)?),
    }
}

/// The events of a batch in which nothing is wrong, read straight into their members: most batches, in half the time.
/// `None` of any other body: the longer way finds what is wrong, and where.
fn read(body: &[u8]) -> Option<Vec<UsageEvent>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Batch<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    // Serde would take a list for an object, member by member.
    let is_object = |text: &[u8]| text.trim_ascii_start().starts_with(b"{");
    let batch: Batch<'_> = serde_json::from_slice(body).ok()?;
    if !is_object(body) || !(1..=EVENTS_MAX).contains(&batch.events.len()) {
        return None;
    }
    let event = |event: &&RawValue| {
        let text = event.get();
        is_object(text.as_bytes()).then(|| serde_json::from_str(text).ok())?
    };
    batch.events.iter().map(event).collect()
}

fn of_body(mut body: Map<String, Value>) -> Result<Input, Error> {
    let Some(events) = body.remove("events") else {
        return Ok(Input::One(Value::Object(body)));
    };
    if let Some(other) = body.keys().next() {
        return Err(Error::invalid_member(other.as_str(), "events stands alone"));
    }
    if let Value::Array(events) = events
        && (1..=EVENTS_MAX).contains(&events.len())
    {
        return Ok(Input::Batch(events));
    }
    Err(Error::invalid_member(
        "events",
        format!("a list of 1 to {EVENTS_MAX} events"),
    ))
}

/// The predecessor's form of one event: no body, everything in the query.
fn of_query(query: &EventQuery) -> Result<Map<String, Value>, Error> {
    let mut event = Map::new();
    let members = [
        ("idempotency_key", &query.idempotency_key),
        ("user_id", &query.user_id),
        ("api_key_prefix", &query.api_key_prefix),
        ("event_type", &query.event_type),
        ("resource_id", &query.resource_id),
        ("billable", &query.billable),
        ("cost_units", &query.cost_units),
        ("unit_price_cents", &query.unit_price_cents),
        ("occurred_at", &query.occurred_at),
        ("metadata", &query.metadata),
    ];
    for (name, text) in members {
        let Some(text) = text else {
            continue;
        };
        let expected = |what: &str| Error::invalid_parameter(name, what);
        let value = match name {
            "user_id" | "cost_units" | "unit_price_cents" => {
                let number = text.parse::<i64>();
                number
                    .map_err(|_not_whole| expected("a whole number"))?
                    .into()
            }
            // As Python writes them, too.
            "billable" => match text.to_ascii_lowercase().as_str() {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => return Err(expected("true or false")),
            },
            "metadata" => {
                serde_json::from_str(text).map_err(|_quotes_it| expected("a JSON object"))?
            }
            _ => text.as_str().into(),
        };
        event.insert(name.to_owned(), value);
    }
    Ok(event)
}

/// The `Idempotency-Key` header, else the gateway's id of the request. The id is new for every request: it keeps an
/// event of a sender that has no keys, and protects no retry.
fn key_beside_the_query(parts: &Parts) -> Result<Option<String>, Error> {
    if let Some(header) = parts.headers.get("idempotency-key") {
        let text = header.to_str().map_err(|_not_ascii| {
            Error::invalid_parameter("idempotency-key", "visible ASCII characters")
        })?;
        return Ok(Some(text.to_owned()));
    }
    if let Some(RequestContext::ApiGatewayV2(context)) = parts.request_context_ref() {
        return Ok(context.request_id.clone());
    }
    Ok(None)
}
