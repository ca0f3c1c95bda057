//! `GET /admin/revenue…`: the dashboard's figures, the MRR bridge and the cohorts.

use domain::revenue::mrr_bridge::Granularity;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use shared::figures::asked::{Asked, Longest, past};
use shared::figures::revenue::Moment;
use shared::figures::{cohorts, mrr_movements, revenue};

use crate::Clients;

/// The figures now, or as of a past instant. 503 only when the database cannot be reached at all.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["currency", "as_of"])?;
    let currency = query.currency("currency")?;
    let moment = match query.instant("as_of")? {
        None => Moment::Now(now),
        Some(as_of) => {
            past(Some(as_of), now)?;
            Moment::Past(as_of)
        }
    };
    let client = app.database.client().await?;
    let currency = currency.unwrap_or(app.reporting_currency);
    let report = revenue::report(&client, currency, moment).await;
    api::json(StatusCode::OK, &report)
}

/// The bridge of each day, week or month, oldest first.
pub(crate) async fn movements(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let known = ["from", "to", "granularity", "profile", "currency", "as_of"];
    let query = Query::parse(request, &known)?;
    let granularity = query
        .one_of("granularity", &Granularity::WORDS)?
        .and_then(Granularity::parse)
        .unwrap_or(Granularity::Month);
    let profile = mrr_movements::profile(query.one_of("profile", &mrr_movements::PROFILES)?);
    let currency = query.currency("currency")?;
    let longest = match granularity {
        Granularity::Day => Longest::Days,
        Granularity::Week | Granularity::Month => Longest::Months,
    };
    let asked = asked(&query, longest, now)?;
    let client = app.database.client().await?;
    let currency = currency.unwrap_or(app.reporting_currency);
    let report = mrr_movements::report(&client, currency, profile, granularity, asked).await;
    api::json(StatusCode::OK, &report)
}

/// The cohorts that began in `[from, to)`.
pub(crate) async fn cohorts(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["from", "to", "currency", "as_of"])?;
    let currency = query.currency("currency")?;
    let asked = asked(&query, Longest::Months, now)?;
    let client = app.database.client().await?;
    let currency = currency.unwrap_or(app.reporting_currency);
    api::json(
        StatusCode::OK,
        &cohorts::report(&client, currency, asked).await,
    )
}

/// `from`, `to` and `as_of`.
pub(crate) fn asked(query: &Query, longest: Longest, now: Timestamp) -> Result<Asked, Error> {
    Asked::new(query.from_to()?, query.instant("as_of")?, longest, now)
}
