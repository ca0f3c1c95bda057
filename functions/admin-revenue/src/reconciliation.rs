//! `/admin/reconciliation…`: the runs that compared the ledger with Stripe, what they found, and what of it is accepted.

use std::sync::Arc;

use axum::extract::State;
use documents::csv_export::{Cell, Writer};
use futures_util::TryStreamExt;
use runtime::api::extract::{FileAnswer, Json, JsonOr, Now, Path, Query, RequestId};
use runtime::api::list::{ListOf, PageQuery};
use runtime::api::values::{ObjectId, PlainText};
use runtime::api::{self, Error};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use shared::csv_rows::cell;
use shared::write::{Write, Writer as WriteUnderKey, Written};
use store::reconciliation_runs::{self, ReconciliationItem, ReconciliationRun};
use store::row::{Field, Fields as _};
use utoipa::{IntoParams, ToSchema};

use crate::parameters::unknown_parameter;
use crate::{Clients, exports};

/// A run with a page of what it found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReconciliationRunItems {
    #[serde(flatten)]
    run: ReconciliationRun,
    /// In the order in which they were found.
    items: Vec<ReconciliationItem>,
    /// What to pass as `cursor` for the next page; null on the last.
    next_cursor: Option<String>,
}

/// Lists the runs, newest first.
#[utoipa::path(get, path = "/admin/reconciliation")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ReconciliationRun>>, Error> {
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = reconciliation_runs::list(&**client, &page).await?;
    Ok(Json(ListOf::new(rows.rows, rows.next.as_ref())?))
}

/// `{run_id}` or `{run_id}.csv`: a segment of the gateway's path is a parameter as a whole, so the two are one route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunFile {
    run_id: i64,
    is_csv: bool,
}

impl<'de> Deserialize<'de> for RunFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunFile, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (run_id, is_csv) = match text.strip_suffix(".csv") {
            Some(run_id) => (run_id, true),
            None => (text.as_str(), false),
        };
        match api::parse_id(run_id) {
            Some(run_id) => Ok(RunFile { run_id, is_csv }),
            None => Err(D::Error::custom("a number")),
        }
    }
}

/// The run of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RunPath {
    /// The run's number; with `.csv` appended, all its items as a file.
    #[param(value_type = String, pattern = r"^[1-9][0-9]*(\.csv)?$", example = "7")]
    run_id: RunFile,
}

/// Answers one run with a page of its items, or all its items as a file.
#[utoipa::path(get, path = "/admin/reconciliation/{run_id}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(RunPath { run_id }): Path<RunPath>,
    Query(page): Query<PageQuery>,
    RequestId(request_id): RequestId,
    Now(now): Now,
) -> Result<JsonOr<FileAnswer, ReconciliationRunItems>, Error> {
    let RunFile { run_id, is_csv } = run_id;
    if is_csv && page.is_given() {
        let detail = "the file has no pages: it has no limit and no cursor";
        return Err(unknown_parameter("limit", detail));
    }
    let (limit, after) = page.after()?;
    let mut client = app.database.client().await?;
    let run = reconciliation_runs::get(&**client, run_id).await?;
    let run = run.ok_or(Error::NotFound)?;
    if is_csv {
        // All of them: in the answer, or behind a link when they are many.
        let transaction = client.transaction().await.map_err(store::Error::from)?;
        let items = reconciliation_runs::all_items(&transaction, run_id).await?;
        let file = exports::File {
            app: &app,
            request_id: &request_id,
            name: &format!("reconciliation-{run_id}.csv"),
            now,
        };
        let items = items.map_err(Error::from);
        let file = file
            .of(ReconciliationItem::NAMES, items, write_item)
            .await?;
        return Ok(JsonOr::File(file));
    }
    let rows = i64::from(limit) + 1;
    let mut items = reconciliation_runs::items(&**client, run_id, after.unwrap_or(0), rows).await?;
    let is_last = items.len() <= usize::from(limit);
    items.truncate(usize::from(limit));
    let next = items.last().filter(|_| !is_last).map(|item| item.id);
    Ok(JsonOr::Json(ReconciliationRunItems {
        run,
        next_cursor: next.as_ref().map(api::cursor).transpose()?,
        items,
    }))
}

/// The item of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ItemPath {
    /// Our number of the item.
    #[param(inline)]
    id: ObjectId,
}

/// Why a difference is accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptItem {
    /// Why the difference is right, for the audit log.
    reason: PlainText,
}

runtime::refusals! {
    /// Why an item is not accepted.
    pub(crate) enum AcceptError {
        /// Nothing is left to accept.
        Resolved = 409 "item_resolved" "this item was healed or accepted before",
    }
}

/// Accepts an open item with a reason: the same difference of the same object is not reported again.
#[utoipa::path(post, path = "/admin/reconciliation/items/{id}/accept")]
pub(crate) async fn accept(
    writer: WriteUnderKey,
    Path(ItemPath { id }): Path<ItemPath>,
    Json(AcceptItem { reason }): Json<AcceptItem>,
) -> Result<Written<ReconciliationItem>, AcceptError> {
    writer.run(|cx| Box::pin(accept_item(cx, id, reason))).await
}

async fn accept_item(
    cx: Write<'_>,
    ObjectId(id): ObjectId,
    PlainText(reason): PlainText,
) -> Result<ReconciliationItem, AcceptError> {
    let before = reconciliation_runs::lock_item(cx.db, id).await?;
    let before = before.ok_or(Error::NotFound)?;
    if before.resolution != "open" {
        return Err(AcceptError::Resolved);
    }
    reconciliation_runs::accept_item(cx.db, id, cx.actor, &reason, cx.now).await?;
    let after = reconciliation_runs::lock_item(cx.db, id).await?;
    let after = after.ok_or(Error::NotFound)?;
    cx.audit(
        "reconciliation_item.accept",
        format!("reconciliation_item:{id}"),
        Some(json!(before)),
        Some(json!(after)),
    )
    .await?;
    Ok(after)
}

fn write_item(writer: &mut Writer, item: &ReconciliationItem) -> Result<(), Error> {
    let cells = item.fields().into_iter().map(|field| {
        if let Field::Text(text) = &field {
            return Cell::number_or_text(text);
        }
        cell(field)
    });
    writer.row(cells).map_err(exports::unwritten)
}
