//! Customers by the month they began in, and what is left of them month by month.

use domain::money::Currency;
use domain::revenue::cohort::{self, CohortFigures};
use jiff::Timestamp;
use serde::Serialize;
use store::movement_report;
use tokio_postgres::Client;
use utoipa::ToSchema;

use super::asked::{Asked, after};
use super::sections::{FieldError, Nulls, Section};

const DEFINITION: &str = "a customer belongs to the month of the first movement in the currency, and stays there. \
    customers and mrr_cents of a cohort: how many began in it, and with what. Of each month from the starting one on: \
    who of them pays at its end (as_of in the last), also after having been away, and their MRR; retention by the \
    customers and by the MRR of the cohort, null when it has none";

/// The cohorts of one currency that began in `[from, to)`; null when they could not be read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Cohorts {
    pub currency: Currency,
    pub from: Timestamp,
    pub to: Timestamp,
    pub as_of: Timestamp,
    pub order: &'static str,
    pub cohorts: Option<Vec<CohortFigures>>,
    pub definition: &'static str,
    pub errors: Vec<FieldError>,
}

/// The cohorts of a range, oldest first.
pub async fn report(db: &Client, currency: Currency, asked: Asked) -> Cohorts {
    let mut nulls = Nulls::default();
    let cohorts = cohorts(db, currency, asked).await;
    Cohorts {
        currency,
        from: asked.range.start,
        to: asked.to(),
        as_of: asked.as_of,
        order: "oldest first",
        cohorts: nulls.keep("cohorts", cohorts),
        definition: DEFINITION,
        errors: nulls.errors,
    }
}

async fn cohorts(db: &Client, currency: Currency, asked: Asked) -> Section<Vec<CohortFigures>> {
    let end = after(asked.as_of);
    let mut cohorts = cohort::Cohorts::new(asked.range, end);
    movement_report::add_cohorts(db, currency, asked.range, end, &mut cohorts).await?;
    Ok(cohorts.figures()?)
}
