//! `GET /usage/overage/quote`: what units would cost if they were reserved now.

use domain::usage::{UNITS_MAX, parse_user_id};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde_json::json;

use crate::App;
use crate::limit_check::of_user;

/// Reads where the user stands and quotes. `total_cents` is null when the plan sells no units beyond its limit.
pub(crate) async fn get(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let query = Query::parse(request, &["user_id", "units"])?;
    let user_id = query
        .get("user_id")
        .and_then(parse_user_id)
        .ok_or_else(|| Error::invalid_parameter("user_id", "a user's number"))?;
    let units_expected = || Error::invalid_parameter("units", format!("1 to {UNITS_MAX}"));
    let units = query.get("units").ok_or_else(units_expected)?;
    let units = match units.parse() {
        Ok(number @ 1..=UNITS_MAX) if units.bytes().all(|byte| byte.is_ascii_digit()) => number,
        _ => return Err(units_expected()),
    };
    let client = app.database.client().await?;
    let (_, terms, standing) = of_user(&**client, user_id, now).await?;
    let quote = standing
        .quote(&terms, units)
        .map_err(|error| Error::invalid_parameter("units", error.to_string()))?;
    let answer = json!({
        "overage_price_cents": terms.overage_price_cents,
        "currency": terms.currency,
        "units": units,
        "free_units": quote.free_units,
        "overage_units": quote.overage_units,
        "total_cents": quote.total.map(|total| total.amount_cents),
    });
    api::json(StatusCode::OK, &answer)
}
