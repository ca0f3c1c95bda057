//! `GET /admin/reports/{report}`: what finance asks for, as JSON and, as `{report}.csv`, the same figures as a file.

use std::sync::Arc;

use axum::extract::State;
use documents::csv_export;
use domain::money::Currency;
use domain::period::Month;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::extract::{Attachment, JsonOr, Now, Path, Query};
use runtime::api::list::{LimitQuery, SpanQuery};
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use shared::figures::aging::{self, AgingBucket, AgingTotals};
use shared::figures::asked::{Longest, past};
use shared::figures::disputes::{self, DisputesTotals};
use shared::figures::failed_payments::{self, FailedPayments, FailedPaymentsTotals};
use shared::figures::fees::{self, FeesOfSource, FeesTotals};
use shared::figures::partners::{self, PartnersTotals};
use shared::figures::plan_changes::{self, PlanChanges, PlanChangesTotals};
use shared::figures::provisional::{self, Provisional};
use shared::figures::refunds::{self, RefundsOfReason, RefundsTotals};
use shared::figures::tax::{self, TaxTotals};
use shared::figures::top_customers::{self, TopCustomer, TopCustomersTotals};
use shared::figures::{self, About, Report, Section, Table};
use store::Reads;
use store::reports::{Disputes, PartnerRevenue, Scope, Tax};
use store::row::Fields;
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::parameters::{FiguresQuery, unknown_parameter};

/// A report of finance's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ReportName {
    TopCustomers,
    FailedPayments,
    Refunds,
    Disputes,
    Fees,
    Tax,
    Partners,
    PlanChanges,
    Aging,
}

impl ReportName {
    fn as_str(self) -> &'static str {
        match self {
            ReportName::TopCustomers => "top-customers",
            ReportName::FailedPayments => "failed-payments",
            ReportName::Refunds => "refunds",
            ReportName::Disputes => "disputes",
            ReportName::Fees => "fees",
            ReportName::Tax => "tax",
            ReportName::Partners => "partners",
            ReportName::PlanChanges => "plan-changes",
            ReportName::Aging => "aging",
        }
    }
}

/// A report, as JSON or as a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReportFile {
    name: ReportName,
    is_csv: bool,
}

impl<'de> Deserialize<'de> for ReportFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReportFile, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (name, is_csv) = match text.strip_suffix(".csv") {
            Some(name) => (name, true),
            None => (text.as_str(), false),
        };
        let name: Result<_, serde::de::value::Error> =
            ReportName::deserialize(name.into_deserializer());
        let name = name.map_err(D::Error::custom)?;
        Ok(ReportFile { name, is_csv })
    }
}

/// The report of a path.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ReportPath {
    /// The report's name: `top-customers`, `failed-payments`, `refunds`, `disputes`, `fees`, `tax`, `partners`,
    /// `plan-changes` or `aging`; with `.csv` appended for a file.
    #[param(value_type = String, example = "fees",
        pattern = r"^(top-customers|failed-payments|refunds|disputes|fees|tax|partners|plan-changes|aging)(\.csv)?$")]
    report: ReportFile,
}

/// A report of finance's; rows and totals are null when they could not be read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum FinanceReport {
    TopCustomers(Report<TopCustomer, TopCustomersTotals>),
    FailedPayments(Report<FailedPayments, FailedPaymentsTotals>),
    Refunds(Report<RefundsOfReason, RefundsTotals>),
    Disputes(Report<Disputes, DisputesTotals>),
    Fees(Report<FeesOfSource, FeesTotals>),
    Tax(Report<Tax, TaxTotals>),
    Partners(Report<PartnerRevenue, PartnersTotals>),
    PlanChanges(Report<PlanChanges, PlanChangesTotals>),
    Aging(Report<AgingBucket, AgingTotals>),
}

type Answer = JsonOr<Attachment, FinanceReport>;

/// Answers a report for finance, as JSON or as a CSV. When it could not be read, its rows are null and a file is refused.
/// `aging` shows one instant and takes no `from` and `to`. Only `top-customers` takes a `limit`.
#[utoipa::path(get, path = "/admin/reports/{report}")]
pub(crate) async fn get(
    State(app): State<Arc<Clients>>,
    Path(ReportPath { report }): Path<ReportPath>,
    Query(figures): Query<FiguresQuery>,
    Query(span): Query<SpanQuery>,
    Query(limit): Query<LimitQuery>,
    Now(now): Now,
) -> Result<Answer, Error> {
    let span = span.span()?;
    let limit = limit.limit();
    let currency = figures.currency(&app);
    let as_of = past(figures.as_of(), now)?;
    if report.name != ReportName::TopCustomers && limit.is_some() {
        return Err(unknown_parameter("limit", "only top-customers has one"));
    }
    let period = if report.name == ReportName::Aging {
        let given = span.from.map(|_| "from").or(span.to.map(|_| "to"));
        if let Some(name) = given {
            return Err(unknown_parameter(name, "aging is of an instant"));
        }
        None
    } else {
        Some(figures.range(span, Longest::Months, now)?)
    };
    let mut to = Asking {
        report,
        currency,
        period: period.map(|asked| (asked.range.start, asked.to())),
        as_of,
        provisional: None,
    };
    let client = app.database.client().await?;
    let db = &*client;
    let read = async {
        if !report.is_csv {
            let provisional = match &period {
                Some(asked) => provisional::of_range(db, asked, now).await,
                None => provisional::list(db, &[Month::of(as_of)], true, as_of, now).await,
            };
            to.provisional = provisional.ok();
        }
        let to = &to;
        let Some(asked) = period else {
            let table = aging::table(db, currency, as_of).await;
            return to.answer(table, aging::DEFINITION, FinanceReport::Aging);
        };
        let scope = &Scope {
            currency,
            range: asked.range,
            as_of,
        };
        match report.name {
            ReportName::Aging | ReportName::TopCustomers => {
                let limit = i64::from(limit.unwrap_or(LimitQuery::DEFAULT));
                let table = top_customers::table(db, scope, limit).await;
                to.answer(
                    table,
                    top_customers::DEFINITION,
                    FinanceReport::TopCustomers,
                )
            }
            ReportName::FailedPayments => to.answer(
                failed_payments::table(db, scope).await,
                failed_payments::DEFINITION,
                FinanceReport::FailedPayments,
            ),
            ReportName::Refunds => to.answer(
                refunds::table(db, scope).await,
                refunds::DEFINITION,
                FinanceReport::Refunds,
            ),
            ReportName::Disputes => to.answer(
                disputes::table(db, scope).await,
                disputes::DEFINITION,
                FinanceReport::Disputes,
            ),
            ReportName::Fees => to.answer(
                fees::table(db, scope).await,
                fees::DEFINITION,
                FinanceReport::Fees,
            ),
            ReportName::Tax => to.answer(
                tax::table(db, scope).await,
                tax::DEFINITION,
                FinanceReport::Tax,
            ),
            ReportName::Partners => to.answer(
                partners::table(db, scope).await,
                partners::DEFINITION,
                FinanceReport::Partners,
            ),
            ReportName::PlanChanges => to.answer(
                plan_changes::table(db, scope).await,
                plan_changes::DEFINITION,
                FinanceReport::PlanChanges,
            ),
        }
    };
    app.database
        .each_in_time(&client, Reads::Several, read)
        .await
}

/// Which report is asked for, and how.
struct Asking {
    report: ReportFile,
    currency: Currency,
    period: Option<(Timestamp, Timestamp)>,
    as_of: Timestamp,
    provisional: Option<Vec<Provisional>>,
}

impl Asking {
    fn answer<R: Fields, T>(
        &self,
        table: Section<Table<R, T>>,
        definition: &'static str,
        report: fn(Report<R, T>) -> FinanceReport,
    ) -> Result<Answer, Error> {
        let name = self.report.name.as_str();
        if self.report.is_csv {
            let bytes = figures::csv(self.currency, table)?;
            return Ok(JsonOr::File(Attachment {
                content_type: csv_export::CONTENT_TYPE,
                filename: format!("{name}.csv"),
                text: text(bytes)?,
            }));
        }
        let about = About {
            report: name,
            currency: self.currency,
            period: self.period,
            as_of: self.as_of,
            definition,
            provisional: self.provisional.as_deref(),
        };
        Ok(JsonOr::Json(report(Report::new(about, table))))
    }
}

/// A CSV as the text that it is.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| Error::Internal(Box::new(error)))
}
