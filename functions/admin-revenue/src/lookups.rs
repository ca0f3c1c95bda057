//! `/admin/lookups…`: what rows wait for, because Stripe has shown only a part of an object.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::stripe_objects::partial::Reason;
use runtime::api::Error;
use runtime::api::extract::{Json, NoMembers, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::write::{Write, Writer, Written};
use store::stripe_lookups::{self, Filter, ListedLookup};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::NumberPath;

/// How far a look-up is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LookupState {
    /// It will be fetched, or was tried up to twice.
    Open,
    /// It failed three times or more, and is tried again.
    Failing,
    /// Stripe says that there is no such object; it is asked for daily.
    Absent,
    /// It was fetched.
    Done,
}

/// Which look-ups are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LookupsQuery {
    /// Only those in this state; all that are unfinished when not given.
    #[param(inline)]
    state: Option<LookupState>,
    /// Only those for this reason.
    #[param(inline)]
    reason: Option<Reason>,
    /// Only those with an amount in this currency.
    #[param(inline)]
    currency: Option<Currency>,
}

/// Lists look-ups, newest first. `from` and `to` bound the instant that a figure counts the amount at, otherwise the
/// instant at which the part was first missed.
#[utoipa::path(get, path = "/admin/lookups")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<LookupsQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<ListedLookup>>, Error> {
    let filter = Filter {
        state: asked.state.map(|state| match state {
            LookupState::Open => "open",
            LookupState::Failing => "failing",
            LookupState::Absent => "absent",
            LookupState::Done => "done",
        }),
        reason: asked.reason.map(Reason::as_str),
        currency: asked.currency.as_ref().map(Currency::as_str),
        at: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = stripe_lookups::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

runtime::refusals! {
    /// Why a look-up is not made due.
    pub(crate) enum RetryError {
        /// Nothing is left to fetch.
        Done = 409 "lookup_done" "this look-up was answered before",
    }
}

/// Makes a look-up due now, whatever has failed before: the next redrive fetches it, within a minute.
#[utoipa::path(post, path = "/admin/lookups/{id}/retry")]
pub(crate) async fn retry(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Written<ListedLookup>, RetryError> {
    writer
        .run(|cx| Box::pin(retry_lookup(cx, path.number())))
        .await
}

async fn retry_lookup(cx: Write<'_>, id: i64) -> Result<ListedLookup, RetryError> {
    let before = stripe_lookups::find(cx.db, id).await?;
    let before = before.ok_or(Error::NotFound)?;
    let after = stripe_lookups::retry(cx.db, id, cx.now).await?;
    let after = after.ok_or(RetryError::Done)?;
    cx.audit(
        "lookup.retry",
        format!("lookup:{id}"),
        Some(json!(before)),
        Some(json!(after)),
    )
    .await?;
    Ok(after)
}
