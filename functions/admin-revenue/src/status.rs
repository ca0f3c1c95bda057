//! `GET /admin/status`: how far the ledger is, and what waits.

use std::sync::Arc;

use axum::extract::State;
use runtime::api::Error;
use runtime::api::extract::{Json, Now};
use shared::figures::status::{self, Status};
use store::Reads;

use crate::Clients;

/// Answers how far the ledger is, and what waits: events, look-ups at Stripe, domain events, the last comparison.
#[utoipa::path(get, path = "/admin/status")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Now(now): Now,
) -> Result<Json<Status>, Error> {
    let parked = crate::events::table(&app)?;
    let client = app.database.client().await?;
    let report = status::report(&client, parked, now);
    let report = app.database.each_in_time(&client, Reads::Several, report);
    Ok(Json(report.await))
}
