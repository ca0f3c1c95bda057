//! `POST /usage/events`: one event or a batch, each with a verdict, each counted once for ever.

use domain::usage::{Event, Rejection};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::request::RequestContext;
use lambda_http::{Body, Request, RequestExt, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::ingest::{Candidate, Verdict, ingest};
use crate::{App, json_body};

/// Most events of a batch.
const EVENTS_MAX: usize = 1_000;

/// The predecessor's parameters of one event, and the key and time that it had not.
const PARAMETERS: &[&str] = &[
    "idempotency_key",
    "user_id",
    "api_key_prefix",
    "event_type",
    "resource_id",
    "billable",
    "cost_units",
    "unit_price_cents",
    "occurred_at",
    "metadata",
    "atomic",
];

/// What a request brings.
enum Input {
    One(Value),
    Batch(Vec<Value>),
}

#[derive(Serialize)]
struct Answer {
    results: Vec<EventResult>,
    accepted: usize,
    duplicate: usize,
    conflict: usize,
    rejected: usize,
    late: usize,
}

#[derive(Serialize)]
struct EventResult {
    idempotency_key: Option<String>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Reads every event, writes those that can be read, and answers what became of each.
pub(crate) async fn post(
    app: &App,
    request: &Request,
    body: &[u8],
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let (input, atomic) = input(request, body)?;
    let (values, is_batch) = match input {
        Input::One(value) => (vec![value], false),
        Input::Batch(values) => (values, true),
    };
    let mut results = Vec::with_capacity(values.len());
    let mut candidates = Vec::with_capacity(values.len());
    let mut places = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let idempotency_key = value["idempotency_key"].as_str().map(str::to_owned);
        let (field, message) = match Event::read(value, now) {
            Ok(event) => {
                candidates.push(Candidate::new(event));
                places.push(index);
                (None, None)
            }
            Err(rejection) if atomic || !is_batch => {
                return Err(json_body::unprocessable(placed(rejection, index, is_batch)));
            }
            Err(rejection) if rejection.field.is_empty() => {
                (Some("events".to_owned()), Some(rejection.message))
            }
            Err(rejection) => (Some(rejection.field), Some(rejection.message)),
        };
        results.push(EventResult {
            idempotency_key,
            verdict: "rejected",
            field,
            message,
        });
    }
    if !candidates.is_empty() {
        let verdicts = store(app, &candidates, atomic, now).await?;
        for (index, verdict) in places.into_iter().zip(verdicts) {
            if verdict == Verdict::Conflict && (atomic || !is_batch) {
                return Err(conflict(index, is_batch));
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
    let answer = Answer {
        accepted: count("accepted"),
        duplicate: count("duplicate"),
        conflict: count("conflict"),
        rejected: count("rejected"),
        late: count("late"),
        results,
    };
    api::json(StatusCode::OK, &answer)
}

/// Writes the candidates and publishes what follows from them.
async fn store(
    app: &App,
    candidates: &[Candidate],
    atomic: bool,
    now: Timestamp,
) -> Result<Vec<Verdict>, Error> {
    let mut client = app.database.client().await?;
    let ingested = ingest(&mut client, candidates, atomic, now)
        .await
        .map_err(beyond_the_range)?;
    if !ingested.messages.is_empty() {
        app.publish(&client, &ingested.messages, now).await;
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

fn tell(result: &mut EventResult, verdict: Verdict) {
    result.verdict = match verdict {
        Verdict::Accepted => "accepted",
        Verdict::Late => "late",
        Verdict::Duplicate => "duplicate",
        Verdict::Conflict => {
            result.field = Some("idempotency_key".to_owned());
            result.message = Some(KEY_REUSED.to_owned());
            "conflict"
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

/// What the request brings, and whether it is all or nothing.
fn input(request: &Request, body: &[u8]) -> Result<(Input, bool), Error> {
    let is_query = body.iter().all(u8::is_ascii_whitespace);
    let known: &[&str] = if is_query { PARAMETERS } else { &["atomic"] };
    let query = Query::parse(request, known)?;
    let atomic = query.one_of("atomic", &["true", "false"])? == Some("true");
    let input = if is_query {
        Input::One(Value::Object(of_query(request, &query)?))
    } else {
        of_body(json_body::object(body)?)?
    };
    Ok((input, atomic))
}

fn of_body(mut body: Value) -> Result<Input, Error> {
    let Some(events) = body.get_mut("events").map(Value::take) else {
        return Ok(Input::One(body));
    };
    let refused = |field: &str, detail: String| {
        Err(Error::Unprocessable {
            field: field.to_owned(),
            detail,
        })
    };
    let other = body.as_object().and_then(|members| {
        let mut names = members.keys();
        names.find(|name| *name != "events").cloned()
    });
    if let Some(other) = other {
        return refused(&other, "events stands alone".to_owned());
    }
    if let Value::Array(events) = events
        && (1..=EVENTS_MAX).contains(&events.len())
    {
        return Ok(Input::Batch(events));
    }
    refused("events", format!("a list of 1 to {EVENTS_MAX} events"))
}

/// The predecessor's form of one event: no body, everything in the query.
fn of_query(request: &Request, query: &Query) -> Result<Map<String, Value>, Error> {
    let mut event = Map::new();
    let names = PARAMETERS.iter().filter(|name| **name != "atomic");
    for (name, text) in names.filter_map(|name| Some((*name, query.get(name)?))) {
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
            _ => text.into(),
        };
        event.insert(name.to_owned(), value);
    }
    if !event.contains_key("idempotency_key")
        && let Some(key) = key_beside_the_query(request)?
    {
        event.insert("idempotency_key".to_owned(), key.into());
    }
    Ok(event)
}

/// The `Idempotency-Key` header, else the gateway's id of the request. The id is new for every request: it keeps an
/// event of a sender that has no keys, and protects no retry.
fn key_beside_the_query(request: &Request) -> Result<Option<String>, Error> {
    if let Some(header) = request.headers().get("idempotency-key") {
        let text = header.to_str().map_err(|_not_ascii| {
            Error::invalid_parameter("idempotency-key", "visible ASCII characters")
        })?;
        return Ok(Some(text.to_owned()));
    }
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() {
        return Ok(context.request_id.clone());
    }
    Ok(None)
}
