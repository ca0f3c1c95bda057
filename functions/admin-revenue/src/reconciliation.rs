//! `/admin/reconciliation…`: the runs that compared the ledger with Stripe, what they found, and what of it is accepted.

use documents::csv_export::{Cell, Writer};
use futures_util::TryStreamExt;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::members::{self, Members};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::Value;
use store::audit_log::{self, Entry};
use store::list::Object;
use store::reconciliation_runs;
use tokio_postgres::Client;

use crate::{Clients, exports, list, write};

/// The columns of the file.
const HEADER: [&str; 14] = [
    "id",
    "run_id",
    "kind",
    "resolution",
    "object_type",
    "object_id",
    "currency",
    "stripe_value",
    "ledger_value",
    "detail",
    "found_at",
    "resolved_at",
    "accepted_by",
    "accepted_reason",
];

#[derive(Serialize)]
struct Run {
    #[serde(flatten)]
    run: Object,
    /// In the order in which they were found.
    items: Vec<Object>,
    next_cursor: Option<String>,
}

/// The runs, newest first.
pub(crate) async fn list(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["limit", "cursor"])?;
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(reconciliation_runs::list(&**client, &page).await?)
}

/// `{run_id}` is one run with a page of its items, `{run_id}.csv` all its items as a file: a segment of the gateway's
/// path is a parameter as a whole, so the two are one route.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    run_id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let (run_id, is_file) = match run_id.strip_suffix(".csv") {
        Some(run_id) => (run_id, true),
        None => (run_id, false),
    };
    let known: &[&str] = if is_file { &[] } else { &["limit", "cursor"] };
    let query = Query::parse(request, known)?;
    let limit = query.limit()?;
    let after: i64 = query.cursor()?.unwrap_or_default();
    let run_id = api::parse_id(run_id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let run = reconciliation_runs::get(&**client, run_id).await?;
    let run = run.ok_or(Error::NotFound)?;
    if is_file {
        // All of them: in the answer, or behind a link when they are many.
        let transaction = client.transaction().await.map_err(store::Error::from)?;
        let items = reconciliation_runs::all_items(&transaction, run_id).await?;
        let (name, items) = (
            format!("reconciliation-{run_id}.csv"),
            items.map_err(Error::from),
        );
        return exports::answer(app, request, now, &name, &HEADER, items, write_item).await;
    }
    let limit = usize::from(limit);
    let rows = i64::from(query.limit()?) + 1;
    let mut items = reconciliation_runs::items(&**client, run_id, after, rows).await?;
    let is_last = items.len() <= limit;
    items.truncate(limit);
    let next = items.last().filter(|_| !is_last).map(id_of);
    let run = Run {
        run,
        next_cursor: next.as_ref().map(api::cursor).transpose()?,
        items,
    };
    api::json(StatusCode::OK, &run)
}

/// Accepts an open item with a reason: the same difference of the same object is not reported again.
pub(crate) async fn accept(
    app: &Clients,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::key(request)?;
    let members = Members::parse(request, &["reason"])?;
    let reason = members::required("reason", members.text("reason")?)?;
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let before = reconciliation_runs::lock_item(&transaction, id).await?;
    let before = before.ok_or(Error::NotFound)?;
    if before["resolution"] != "open" {
        return Err(Error::Conflict {
            code: "item_resolved",
            detail: "this item was healed or accepted before".to_owned(),
        });
    }
    let actor = write::actor(&principal);
    reconciliation_runs::accept_item(&transaction, id, actor, reason, now).await?;
    let after = reconciliation_runs::lock_item(&transaction, id).await?;
    let entry = Entry {
        actor,
        action: "reconciliation_item.accept",
        target: format!("reconciliation_item:{id}"),
        before: Some(Value::Object(before)),
        after: after.clone().map(Value::Object),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::OK, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(answer)
}

fn write_item(writer: &mut Writer, item: &Object) -> Result<(), Error> {
    let cells = HEADER.iter().map(|column| cell(&item[*column]));
    writer.row(cells).map_err(exports::unwritten)
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Empty,
        // Also an amount in a column of texts: a negative one is no formula.
        Value::String(text) if text.parse::<i64>().is_ok() => Cell::value(text),
        Value::String(text) => Cell::from(text.as_str()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cell::value(value)
        }
    }
}

/// Ours: a number in every row.
fn id_of(item: &Object) -> i64 {
    item["id"].as_i64().unwrap_or(i64::MAX)
}
