//! `GET /admin/revenue…`: the dashboard's figures, the MRR bridge and the cohorts.

use std::sync::Arc;

use axum::extract::State;
use domain::revenue::mrr_bridge::Granularity;
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Query};
use runtime::api::list::SpanQuery;
use serde::Deserialize;
use shared::figures::asked::{Longest, past};
use shared::figures::cohorts::{self, Cohorts};
use shared::figures::mrr_movements::{self, MrrMovements, Profile};
use shared::figures::revenue::{self, Moment, Revenue};
use store::Reads;
use utoipa::IntoParams;

use crate::Clients;
use crate::parameters::FiguresQuery;

/// Answers the dashboard's figures, now or as of a past instant.
#[utoipa::path(get, path = "/admin/revenue")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Query(figures): Query<FiguresQuery>,
    Now(now): Now,
) -> Result<Json<Revenue>, Error> {
    let moment = match figures.as_of() {
        None => Moment::Now(now),
        Some(as_of) => {
            past(Some(as_of), now)?;
            Moment::Past(as_of)
        }
    };
    let client = app.database.client().await?;
    let report = revenue::report(&client, figures.currency(&app), moment, now);
    let report = app.database.each_in_time(&client, Reads::Several, report);
    Ok(Json(report.await))
}

/// The periods and the discount profile of the bridge.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
pub(crate) struct BridgeQuery {
    /// The length of its periods; a month when not given. Of days at most 366 are shown.
    #[param(inline)]
    granularity: Option<Granularity>,
    /// Which discounts are taken off; `stripe` when not given.
    #[param(inline)]
    profile: Option<Profile>,
}

/// Answers the MRR bridge of each day, week or month, oldest first.
#[utoipa::path(get, path = "/admin/revenue/movements")]
pub(crate) async fn movements(
    State(app): State<Arc<Clients>>,
    Query(bridge): Query<BridgeQuery>,
    Query(figures): Query<FiguresQuery>,
    Query(span): Query<SpanQuery>,
    Now(now): Now,
) -> Result<Json<MrrMovements>, Error> {
    let granularity = bridge.granularity.unwrap_or(Granularity::Month);
    let longest = match granularity {
        Granularity::Day => Longest::Days,
        Granularity::Week | Granularity::Month => Longest::Months,
    };
    let asked = figures.range(span.span()?, longest, now)?;
    let profile = bridge.profile.unwrap_or_default();
    let client = app.database.client().await?;
    let currency = figures.currency(&app);
    let report = mrr_movements::report(&client, currency, profile, granularity, asked, now);
    let report = app.database.each_in_time(&client, Reads::Several, report);
    Ok(Json(report.await))
}

/// Answers cohorts: customers by the month of their first MRR, and how many still pay in each later month.
#[utoipa::path(get, path = "/admin/revenue/cohorts")]
pub(crate) async fn cohorts(
    State(app): State<Arc<Clients>>,
    Query(figures): Query<FiguresQuery>,
    Query(span): Query<SpanQuery>,
    Now(now): Now,
) -> Result<Json<Cohorts>, Error> {
    let asked = figures.range(span.span()?, Longest::Months, now)?;
    let client = app.database.client().await?;
    let report = cohorts::report(&client, figures.currency(&app), asked);
    let report = app.database.each_in_time(&client, Reads::One, report);
    Ok(Json(report.await))
}
