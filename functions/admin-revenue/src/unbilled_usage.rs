//! `GET /admin/reports/unbilled-usage`: partners' usage that is on no invoice, and why.

use std::sync::Arc;

use axum::extract::State;
use documents::csv_export::{self, Cell};
use domain::period::Period;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Attachment, Json, Now, Query};
use runtime::api::list::SpanQuery;
use serde::Serialize;
use shared::unbilled_usage::{self, UnbilledUsage};
use utoipa::ToSchema;

use crate::Clients;
use crate::reports::text;

/// Usage that is on no invoice.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnbilledUsageReport {
    /// `[from, to)`, by when it was used.
    from: Timestamp,
    to: Timestamp,
    rows: Vec<UnbilledUsage>,
}

async fn read(
    app: &Clients,
    span: SpanQuery,
    now: Timestamp,
) -> Result<(Period, Vec<UnbilledUsage>), Error> {
    let span = span.span()?;
    let last = unbilled_usage::looked_for(now);
    let period = Period::new(span.from.unwrap_or(last.start), span.to.unwrap_or(last.end))
        .map_err(|_empty| Error::invalid_parameter("from", "before to"))?;
    let client = app.database.client().await?;
    let rows = unbilled_usage::list(&**client, period, now).await?;
    Ok((period, rows))
}

/// Answers partners' usage that is on no invoice, by prefix, month and reason; of the last 396 days when no range is
/// given. The gateway's requests are listed only outside billed days.
#[utoipa::path(get, path = "/admin/reports/unbilled-usage")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Query(span): Query<SpanQuery>,
    Now(now): Now,
) -> Result<Json<UnbilledUsageReport>, Error> {
    let (period, rows) = read(&app, span, now).await?;
    Ok(Json(UnbilledUsageReport {
        from: period.start,
        to: period.end,
        rows,
    }))
}

const HEADER: [&str; 7] = [
    "api_key_prefix",
    "source",
    "event_type",
    "reason",
    "month",
    "events",
    "units",
];

/// Answers the same as a CSV.
#[utoipa::path(get, path = "/admin/reports/unbilled-usage.csv")]
pub(crate) async fn file(
    State(app): State<Arc<Clients>>,
    Query(span): Query<SpanQuery>,
    Now(now): Now,
) -> Result<Attachment, Error> {
    let (_, rows) = read(&app, span, now).await?;
    let rows = rows.into_iter().map(|row| {
        vec![
            Cell::from(row.api_key_prefix.as_str()),
            Cell::value(row.source.as_str()),
            Cell::from(row.event_type.as_str()),
            Cell::value(row.reason.as_str()),
            Cell::value(row.month),
            Cell::from(row.events),
            Cell::from(row.units),
        ]
    });
    let bytes = csv_export::write(&HEADER, rows);
    Ok(Attachment {
        content_type: csv_export::CONTENT_TYPE,
        filename: "unbilled-usage.csv".to_owned(),
        text: text(bytes.map_err(|error| Error::Internal(Box::new(error)))?)?,
    })
}
