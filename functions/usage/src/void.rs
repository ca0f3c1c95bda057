//! `POST /usage/events/{idempotency_key}/void`: an event taken back; its row stays and counts nowhere.

use domain::usage::VoidRequest;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde_json::json;
use store::usage_events;

use crate::{App, json_body};

/// Whoever holds a service token; it names nobody.
const ACTOR: &str = "service";

/// Takes the event back unless it has been; answers when and why it was, the same every time.
pub(crate) async fn post(
    app: &App,
    request: &Request,
    body: &[u8],
    idempotency_key: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    Query::parse(request, &[])?;
    let wanted = VoidRequest::read(json_body::object(body)?).map_err(json_body::unprocessable)?;
    if idempotency_key.chars().any(char::is_control) {
        // No event has such a key, and Postgres would not take U+0000 for a text.
        return Err(Error::NotFound);
    }
    let subject = wanted.subject.to_string();
    let client = app.database.client().await?;
    let db = &**client;
    usage_events::void(db, &subject, idempotency_key, &wanted.reason, ACTOR, now).await?;
    let voided = usage_events::voided(db, &subject, idempotency_key).await?;
    let voided = voided.ok_or(Error::NotFound)?;
    let answer = json!({
        "idempotency_key": idempotency_key,
        "subject": subject,
        "voided_at": voided.voided_at,
        "reason": voided.reason,
    });
    api::json(StatusCode::OK, &answer)
}
