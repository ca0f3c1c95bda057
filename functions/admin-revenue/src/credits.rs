//! `/admin/credits…`: what is given to users and partners to be taken off their invoices.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Json, NoMembers, Path, Query};
use runtime::api::list::{ListOf, PageQuery, SpanQuery};
use runtime::api::values::{Moment, ObjectId, PlainText};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::write::{Created, Write, Writer, Written};
use store::credits::{self, Filter, NewCredit};
use store::list::Object;
use utoipa::{IntoParams, ToSchema};

use crate::Clients;

/// The largest credit, in minor units: sums of many fit.
const LARGEST_CENTS: i64 = 1_000_000_000_000_000;

/// Store credit of a user or a partner.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credit {
    id: i64,
    /// Whose: `users.id` of the host application; null for a partner's.
    user_id: Option<i32>,
    /// Whose: the prefix of a partner's API key; null for a user's.
    api_key_prefix: Option<String>,
    stripe_customer_id: Option<String>,
    /// The refund that was issued as this credit.
    stripe_refund_id: Option<String>,
    /// The invoice whose refund it is.
    invoice_id: Option<i64>,
    /// As granted, in minor units.
    amount_cents: i64,
    /// What is left of it.
    remaining_cents: i64,
    currency: Currency,
    /// `refund`, `promotional`, `goodwill` or `chargeback`.
    reason: Option<String>,
    description: Option<String>,
    /// The invoice from which it was taken off last.
    applied_to_invoice_id: Option<i64>,
    expires_at: Option<Timestamp>,
    voided_at: Option<Timestamp>,
    /// Who granted it; `stripe` for a refund's.
    created_by: Option<String>,
    created_at: Timestamp,
}

impl Credit {
    fn of(row: Object) -> Result<Credit, Error> {
        let credit = serde_json::from_value(Value::Object(row));
        credit.map_err(|error| Error::Internal(Box::new(error)))
    }
}

/// Whose credits are shown.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CreditsQuery {
    /// Only a user's.
    #[param(minimum = 0)]
    user_id: Option<i32>,
    /// Only a partner's.
    #[param(inline)]
    api_key_prefix: Option<PlainText>,
}

/// Credits, newest first.
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
    let credits = rows.rows.into_iter().map(Credit::of);
    let credits = credits.collect::<Result<_, _>>()?;
    Ok(Json(ListOf::new(credits, rows.next.as_ref())?))
}

/// A credit to be granted, to a user or to a partner.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantCredit {
    /// Whose: `users.id` of the host application. Exactly one of this and `api_key_prefix`.
    user_id: Option<i32>,
    /// Whose: the prefix of a partner's API key.
    api_key_prefix: Option<PlainText>,
    /// In minor units.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    amount_cents: i64,
    currency: Currency,
    reason: CreditReason,
    description: Option<PlainText>,
    /// When it lapses, an instant to come; never when not given.
    expires_at: Option<Moment>,
}

/// Why a credit is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CreditReason {
    /// Instead of money back.
    Refund,
    Promotional,
    Goodwill,
    /// Instead of a dispute.
    Chargeback,
}

impl CreditReason {
    fn as_str(self) -> &'static str {
        match self {
            CreditReason::Refund => "refund",
            CreditReason::Promotional => "promotional",
            CreditReason::Goodwill => "goodwill",
            CreditReason::Chargeback => "chargeback",
        }
    }
}

impl GrantCredit {
    /// What a type cannot say: exactly one owner, an amount within range.
    fn check(&self) -> Result<(), Error> {
        match (self.user_id, &self.api_key_prefix) {
            (Some(_), Some(_)) => {
                let detail = "a credit is a user's or a partner's";
                return Err(Error::invalid_member("api_key_prefix", detail));
            }
            (None, None) => {
                let detail = "it, or api_key_prefix, is missing";
                return Err(Error::invalid_member("user_id", detail));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if (1..=LARGEST_CENTS).contains(&self.amount_cents) {
            return Ok(());
        }
        let detail = format!("a whole number from 1 to {LARGEST_CENTS}");
        Err(Error::invalid_member("amount_cents", detail))
    }
}

/// Grants a credit to a user or to a partner.
#[utoipa::path(post, path = "/admin/credits")]
pub(crate) async fn create(
    writer: Writer,
    Json(credit): Json<GrantCredit>,
) -> Result<Created<Credit>, Error> {
    credit.check()?;
    writer.run(|cx| Box::pin(grant(cx, credit))).await
}

async fn grant(cx: Write<'_>, credit: GrantCredit) -> Result<Credit, Error> {
    let expires_at = credit.expires_at.map(|Moment(at)| at);
    // Not before: the same request gets its first answer also when the credit has expired since.
    if expires_at.is_some_and(|expiry| expiry <= cx.now) {
        return Err(Error::invalid_member("expires_at", "an instant to come"));
    }
    let new = NewCredit {
        user_id: credit.user_id,
        api_key_prefix: credit.api_key_prefix.as_ref().map(PlainText::as_str),
        amount_cents: credit.amount_cents,
        currency: credit.currency,
        reason: credit.reason.as_str(),
        description: credit.description.as_ref().map(PlainText::as_str),
        expires_at,
        created_by: cx.actor,
    };
    let Some(id) = credits::insert(cx.db, &new, cx.now).await? else {
        return Err(match credit.user_id {
            Some(_) => Error::invalid_member("user_id", "there is no such user"),
            None => Error::invalid_member("api_key_prefix", "no contract has this prefix"),
        });
    };
    let after = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    let audited = Some(Value::Object(after.clone()));
    cx.audit("credit.create", format!("credit:{id}"), None, audited)
        .await?;
    Credit::of(after)
}

/// The credit of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CreditPath {
    /// The credit's number.
    #[param(inline)]
    id: ObjectId,
}

runtime::refusals! {
    /// Why a credit is not voided.
    pub(crate) enum VoidError {
        /// Something of it was taken off an invoice.
        Used = 409 "credit_used" "something of this credit has been used",
        /// It was before.
        Voided = 409 "credit_voided" "this credit was voided before",
    }
}

/// Takes a credit back of which nothing has been used.
#[utoipa::path(post, path = "/admin/credits/{id}/void")]
pub(crate) async fn void(
    writer: Writer,
    Path(CreditPath { id }): Path<CreditPath>,
    Json(NoMembers {}): Json<NoMembers>,
) -> Result<Written<Credit>, VoidError> {
    writer.run(|cx| Box::pin(take_back(cx, id))).await
}

async fn take_back(cx: Write<'_>, ObjectId(id): ObjectId) -> Result<Credit, VoidError> {
    let before = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    if !credits::void(cx.db, id, cx.now).await? {
        return Err(if before["voided_at"].is_null() {
            VoidError::Used
        } else {
            VoidError::Voided
        });
    }
    let after = credits::lock(cx.db, id).await?.ok_or(Error::NotFound)?;
    let (was, is) = (Value::Object(before), Value::Object(after.clone()));
    cx.audit("credit.void", format!("credit:{id}"), Some(was), Some(is))
        .await?;
    Ok(Credit::of(after)?)
}
