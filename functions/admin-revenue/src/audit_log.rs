//! `GET /admin/audit-log`: who changed what, newest first.

use std::sync::Arc;

use axum::extract::State;
use runtime::api::Error;
use runtime::api::extract::{Json, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use serde::Deserialize;
use store::audit_log::{self, AuditEntry, Filter};
use utoipa::IntoParams;

use crate::Clients;

/// Which entries are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct EntriesQuery {
    /// Only changes by this actor: the `sub` of their token, otherwise its role.
    #[param(inline)]
    actor: Option<PlainText>,
    /// Only this action, such as `credit.void`.
    #[param(inline)]
    action: Option<PlainText>,
    /// Only changes of this object, such as `credit:7`.
    #[param(inline)]
    target: Option<PlainText>,
}

/// Lists who changed what, newest first.
#[utoipa::path(get, path = "/admin/audit-log")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<EntriesQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<AuditEntry>>, Error> {
    let filter = Filter {
        actor: asked.actor.as_ref().map(PlainText::as_str),
        action: asked.action.as_ref().map(PlainText::as_str),
        target: asked.target.as_ref().map(PlainText::as_str),
        at: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = audit_log::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::new(rows.rows, rows.next.as_ref())?))
}
