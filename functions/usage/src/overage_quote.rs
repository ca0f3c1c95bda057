//! `GET /usage/overage/quote`: what units would cost if they were reserved now.

use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::usage::UNITS_MAX;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Query};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::limit_check::of_user;
use crate::parameters::UserId;

/// The parameters of a quote.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct QuoteQuery {
    /// `users.id` of the host application.
    #[param(inline)]
    user_id: UserId,
    /// How many further units to quote.
    #[param(value_type = i64, minimum = 1, maximum = 1_000_000_000)]
    units: Units,
}

#[derive(Debug)]
struct Units(i64);

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Units, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(units @ 1..=UNITS_MAX) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Units(units))
            }
            _ => Err(D::Error::custom(format!("1 to {UNITS_MAX}"))),
        }
    }
}

/// What further units would cost if they were reserved now. Amounts in minor units of `currency`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OverageQuote {
    /// Per unit beyond the limit; null when the plan sells none.
    overage_price_cents: Option<i64>,
    currency: Currency,
    /// How many units the quote is for, as the request says.
    units: i64,
    /// How many of the units are within the limit, and free.
    free_units: i64,
    /// How many of the units are beyond the limit.
    overage_units: i64,
    /// Null when the plan sells no units beyond its limit.
    total_cents: Option<i64>,
}

/// Answers what units would cost if they were reserved now.
#[utoipa::path(get, path = "/usage/overage/quote")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Query(query): Query<QuoteQuery>,
    Now(now): Now,
) -> Result<Json<OverageQuote>, QuoteError> {
    let (UserId(user_id), Units(units)) = (query.user_id, query.units);
    let client = app.database.client().await?;
    let (_, terms, standing) = match of_user(&**client, user_id, now).await {
        Err(Error::NotFound) => return Err(QuoteError::NoSuchUser),
        found => found?,
    };
    let quote = standing
        .quote(&terms, units)
        .map_err(|error| Error::invalid_parameter("units", error.to_string()))?;
    Ok(Json(OverageQuote {
        overage_price_cents: terms.overage_price_cents,
        currency: terms.currency,
        units,
        free_units: quote.free_units,
        overage_units: quote.overage_units,
        total_cents: quote.total.map(|total| total.amount_cents),
    }))
}

runtime::refusals! {
    /// Why there is no quote.
    pub(crate) enum QuoteError {
        /// The host application has no such user.
        NoSuchUser = 404 "not_found" "there is nothing here",
    }
}
