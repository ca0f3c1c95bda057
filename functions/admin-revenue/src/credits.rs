//! `/admin/credits…`: what is given to users and partners to be taken off their invoices.

use std::sync::Arc;

use axum::extract::State;
use runtime::api::Error;
use runtime::api::extract::{Json, NoMembers, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::PlainText;
use serde::Deserialize;
use shared::actions::credits::{self as actions, GrantCredit, VoidCreditError};
use shared::write::{Created, Writer, Written};
use store::credits::{self, Credit, Filter};
use utoipa::IntoParams;

use crate::Clients;
use crate::parameters::NumberPath;

/// Whose credits are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CreditsQuery {
    /// Only credits of the user with this id.
    #[param(minimum = 0)]
    user_id: Option<i32>,
    /// Only credits of the partner with this API key prefix.
    #[param(inline)]
    api_key_prefix: Option<PlainText>,
}

/// Lists credits of users and partners, newest first.
#[utoipa::path(get, path = "/admin/credits")]
pub(crate) async fn list(
    State(app): State<Arc<Clients>>,
    Query(asked): Query<CreditsQuery>,
    Query(span): Query<SpanQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Json<ListOf<Credit>>, Error> {
    let filter = Filter {
        user_id: asked.user_id,
        api_key_prefix: asked.api_key_prefix.as_ref().map(PlainText::as_str),
        created: span.span()?,
    };
    let page = page.page()?;
    let client = app.database.client().await?;
    let rows = credits::list(&**client, &filter, &page).await?;
    Ok(Json(ListOf::of(rows)?))
}

/// Grants a credit to a user or to a partner.
#[utoipa::path(post, path = "/admin/credits")]
pub(crate) async fn create(
    writer: Writer,
    Json(credit): Json<GrantCredit>,
) -> Result<Created<Credit>, Error> {
    credit.check()?;
    writer.run(|cx| Box::pin(actions::grant(cx, credit))).await
}

/// Voids a credit of which nothing has been used.
#[utoipa::path(post, path = "/admin/credits/{id}/void")]
pub(crate) async fn void(
    writer: Writer,
    Path(path): Path<NumberPath>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Written<Credit>, VoidCreditError> {
    writer
        .run(|cx| Box::pin(actions::void(cx, path.number())))
        .await
}
