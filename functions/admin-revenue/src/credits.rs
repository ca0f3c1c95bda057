//! `/admin/credits…`: what is given to users and partners to be taken off their invoices.

use domain::money::Currency;
use domain::partner::credit::CreditReason;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::members::{self, Members};
use runtime::api::{self, Error, Query};
use store::audit_log::{self, Entry};
use store::credits::{self, Filter, NewCredit};
use tokio_postgres::Client;

use crate::{App, list, write};

/// The largest credit, in minor units: sums of many fit.
const LARGEST_CENTS: i64 = 1_000_000_000_000_000;

pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(
        request,
        &["user_id", "api_key_prefix", "from", "to", "limit", "cursor"],
    )?;
    let filter = Filter {
        user_id: query.integer("user_id")?,
        api_key_prefix: query.text("api_key_prefix")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    let client = app.database.client().await?;
    list::answer(credits::list(&**client, &filter, &page).await?)
}

/// Grants a credit to a user or to a partner: 201.
pub(crate) async fn create(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::key(request)?;
    let members = Members::parse(
        request,
        &[
            "user_id",
            "api_key_prefix",
            "amount_cents",
            "currency",
            "reason",
            "description",
            "expires_at",
        ],
    )?;
    let credit = read(&members, write::actor(&principal))?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    // Not before: the same request gets its first answer also when the credit has expired since.
    if credit.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(members::invalid("expires_at", "an instant to come"));
    }
    let Some(id) = credits::insert(&transaction, &credit, now).await? else {
        return Err(match credit.user_id {
            Some(_) => members::invalid("user_id", "there is no such user"),
            None => members::invalid("api_key_prefix", "no contract has this prefix"),
        });
    };
    let after = credits::lock(&transaction, id).await?;
    let entry = Entry {
        actor: write::actor(&principal),
        action: "credit.create",
        target: format!("credit:{id}"),
        before: None,
        after: Some(write::audited(&after)?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::CREATED, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(answer)
}

/// Takes a credit back of which nothing has been used.
pub(crate) async fn void(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::required_key(request)?;
    Members::parse(request, &[])?;
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let before = credits::lock(&transaction, id).await?;
    let before = before.ok_or(Error::NotFound)?;
    if !credits::void(&transaction, id, now).await? {
        let (code, detail) = if before.voided_at.is_none() {
            ("credit_used", "something of this credit has been used")
        } else {
            ("credit_voided", "this credit was voided before")
        };
        let detail = detail.to_owned();
        return Err(Error::Conflict { code, detail });
    }
    let after = credits::lock(&transaction, id).await?;
    let entry = Entry {
        actor: write::actor(&principal),
        action: "credit.void",
        target: format!("credit:{id}"),
        before: Some(write::audited(&before)?),
        after: Some(write::audited(&after)?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::OK, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(answer)
}

fn read<'a>(members: &'a Members, created_by: &'a str) -> Result<NewCredit<'a>, Error> {
    let user_id = match members.integer("user_id")? {
        Some(id) => Some(
            i32::try_from(id)
                .map_err(|_too_large| members::invalid("user_id", "a user's number"))?,
        ),
        None => None,
    };
    let api_key_prefix = members.text("api_key_prefix")?;
    match (user_id, api_key_prefix) {
        (Some(_), Some(_)) => Err(members::invalid(
            "api_key_prefix",
            "a credit is a user's or a partner's",
        )),
        (None, None) => Err(members::invalid(
            "user_id",
            "it, or api_key_prefix, is missing",
        )),
        (Some(_), None) | (None, Some(_)) => Ok(()),
    }?;
    let amount_cents = members::required("amount_cents", members.integer("amount_cents")?)?;
    if !(1..=LARGEST_CENTS).contains(&amount_cents) {
        let expected = format!("a whole number from 1 to {LARGEST_CENTS}");
        return Err(members::invalid("amount_cents", expected));
    }
    let currency: Currency = members::required("currency", members.currency("currency")?)?;
    let reason = members.one_of("reason", CreditReason::WORDS)?;
    Ok(NewCredit {
        user_id,
        api_key_prefix,
        amount_cents,
        currency,
        reason: members::required("reason", reason.and_then(CreditReason::parse))?,
        description: members.text("description")?,
        expires_at: members.moment("expires_at")?,
        created_by,
    })
}
