//! `POST /usage/events/{idempotency_key}/void`: an event taken back; its row stays and counts nowhere.

use std::sync::Arc;

use axum::extract::State;
use domain::usage::{VoidRequest, VoidUsage};
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path};
use serde::{Deserialize, Serialize};
use store::usage_events;
use utoipa::{IntoParams, ToSchema};

use crate::{Clients, unprocessable};

/// Whoever holds a service token; it names nobody.
const ACTOR: &str = "service";

/// The event of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EventPath {
    /// The key that the event was sent with.
    idempotency_key: String,
}

/// An event that was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VoidedUsage {
    idempotency_key: String,
    /// Whose event it is: `user:<id>` or `partner:<prefix>`.
    subject: String,
    /// When it was taken back first.
    voided_at: Timestamp,
    /// Why the event was voided, as the first request said.
    reason: String,
}

/// Voids an event. Answers when and why it was first voided, the same every time.
#[utoipa::path(post, path = "/usage/events/{idempotency_key}/void")]
pub(crate) async fn post(
    State(app): State<Arc<Clients>>,
    Path(EventPath { idempotency_key }): Path<EventPath>,
    Now(now): Now,
    Json(body): Json<VoidUsage>,
) -> Result<Json<VoidedUsage>, Error> {
    let wanted = VoidRequest::new(body).map_err(unprocessable)?;
    if idempotency_key.chars().any(char::is_control) {
        // No event has such a key, and Postgres would not take U+0000 for a text.
        return Err(Error::NotFound);
    }
    let subject = wanted.subject.to_string();
    let client = app.database.client().await?;
    let db = &**client;
    usage_events::void(db, &subject, &idempotency_key, &wanted.reason, ACTOR, now).await?;
    let voided = usage_events::voided(db, &subject, &idempotency_key).await?;
    let voided = voided.ok_or(Error::NotFound)?;
    Ok(Json(VoidedUsage {
        idempotency_key,
        subject,
        voided_at: voided.voided_at,
        reason: voided.reason,
    }))
}
