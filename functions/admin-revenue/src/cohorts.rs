//! `GET /admin/revenue/cohorts`: customers by the month they began in, and what is left of them month by month.

use domain::money::Currency;
use domain::revenue::cohort::{CohortFigures, Cohorts};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::movement_report;
use tokio_postgres::GenericClient;

use crate::Clients;
use crate::asked::{Asked, Longest, after};
use crate::sections::{FieldError, Nulls, Section};

const DEFINITION: &str = "a customer belongs to the month of the first movement in the currency, and stays there. \
    customers and mrr_cents of a cohort: how many began in it, and with what. Of each month from the starting one on: \
    who of them pays at its end (as_of in the last), also after having been away, and their MRR; retention by the \
    customers and by the MRR of the cohort, null when it has none";

#[derive(Serialize)]
struct Report {
    currency: Currency,
    from: Timestamp,
    to: Timestamp,
    as_of: Timestamp,
    order: &'static str,
    cohorts: Option<Vec<CohortFigures>>,
    definition: &'static str,
    errors: Vec<FieldError>,
}

/// Checks the token, reads the parameters and answers with the cohorts that began in `[from, to)`.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["from", "to", "currency", "as_of"])?;
    let currency = query
        .currency("currency")?
        .unwrap_or(app.reporting_currency);
    let asked = Asked::parse(&query, Longest::Months, now)?;
    let client = app.database.client().await?;
    let mut nulls = Nulls::default();
    let cohorts = cohorts(&**client, currency, asked).await;
    let report = Report {
        currency,
        from: asked.range.start,
        to: asked.to(),
        as_of: asked.as_of,
        order: "oldest first",
        cohorts: nulls.keep("cohorts", cohorts),
        definition: DEFINITION,
        errors: nulls.errors,
    };
    api::json(StatusCode::OK, &report)
}

async fn cohorts(
    db: &impl GenericClient,
    currency: Currency,
    asked: Asked,
) -> Section<Vec<CohortFigures>> {
    let end = after(asked.as_of);
    let mut cohorts = Cohorts::new(asked.range, end);
    movement_report::add_cohorts(db, currency, asked.range, end, &mut cohorts).await?;
    Ok(cohorts.figures()?)
}
