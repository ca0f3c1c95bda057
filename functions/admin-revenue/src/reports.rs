//! `GET /admin/reports/{report}`: what finance asks for, as JSON and, as `{report}.csv`, the same figures as a file.

use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use shared::figures::asked::{Longest, past};
use shared::figures::{
    self, About, Section, Table, aging, disputes, failed_payments, fees, partners, plan_changes,
    refunds, tax, top_customers,
};
use store::reports::Scope;
use store::row::Fields;

use crate::{Clients, attachment, revenue};

/// The reports of a period.
const OF_A_PERIOD: [&str; 8] = [
    TOP_CUSTOMERS,
    "failed-payments",
    "refunds",
    "disputes",
    "fees",
    "tax",
    "partners",
    "plan-changes",
];
const TOP_CUSTOMERS: &str = "top-customers";
const AGING: &str = "aging";

/// The rows and totals of a report; null when they could not be read. A file has no null: it is refused then.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    name: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let (name, is_csv) = match name.strip_suffix(".csv") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let known: &[&str] = match name {
        AGING => &["currency", "as_of"],
        TOP_CUSTOMERS => &["from", "to", "limit", "currency", "as_of"],
        _ => &["from", "to", "currency", "as_of"],
    };
    let mut of_a_period = OF_A_PERIOD.into_iter();
    let report = match name {
        AGING => AGING,
        name => of_a_period
            .find(|known| *known == name)
            .ok_or(Error::NotFound)?,
    };
    let query = Query::parse(request, known)?;
    let currency = query.currency("currency")?;
    let currency = currency.unwrap_or(app.reporting_currency);
    let limit = i64::from(query.limit()?);
    let as_of = past(query.instant("as_of")?, now)?;
    let mut answer = Answer {
        is_csv,
        about: About {
            report,
            currency,
            period: None,
            as_of,
            definition: aging::DEFINITION,
        },
    };
    if report == AGING {
        let client = app.database.client().await?;
        return answer.of(aging::table(&client, currency, as_of).await);
    }
    let asked = revenue::asked(&query, Longest::Months, now)?;
    answer.about.period = Some((asked.range.start, asked.to()));
    let scope = &Scope {
        currency,
        range: asked.range,
        as_of,
    };
    let db = &*app.database.client().await?;
    match report {
        TOP_CUSTOMERS => answer
            .with(top_customers::DEFINITION)
            .of(top_customers::table(db, scope, limit).await),
        "failed-payments" => answer
            .with(failed_payments::DEFINITION)
            .of(failed_payments::table(db, scope).await),
        "refunds" => answer
            .with(refunds::DEFINITION)
            .of(refunds::table(db, scope).await),
        "disputes" => answer
            .with(disputes::DEFINITION)
            .of(disputes::table(db, scope).await),
        "fees" => answer
            .with(fees::DEFINITION)
            .of(fees::table(db, scope).await),
        "tax" => answer.with(tax::DEFINITION).of(tax::table(db, scope).await),
        "partners" => answer
            .with(partners::DEFINITION)
            .of(partners::table(db, scope).await),
        _ => answer
            .with(plan_changes::DEFINITION)
            .of(plan_changes::table(db, scope).await),
    }
}

/// How a report is answered.
struct Answer {
    is_csv: bool,
    about: About,
}

impl Answer {
    fn with(mut self, definition: &'static str) -> Answer {
        self.about.definition = definition;
        self
    }

    fn of<R: Fields + Serialize, T: Serialize>(
        self,
        table: Section<Table<R, T>>,
    ) -> Result<Response<Body>, Error> {
        let About {
            report, currency, ..
        } = self.about;
        if self.is_csv {
            let bytes = figures::csv(currency, table)?;
            return attachment::csv(&format!("{report}.csv"), bytes);
        }
        let report = figures::Report::new(self.about, table);
        api::json(StatusCode::OK, &report)
    }
}
