//! `GET /usage/…/monthly`: what was used, by month and type, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use domain::money::Currency;
use domain::period::Month;
use domain::usage::Subject;
use futures_util::try_join;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use runtime::api::Error;
use runtime::api::extract::{Json, Now, Path, Query};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use store::usage_daily::{MonthOfType, Totals};
use store::{api_usage, usage_daily, usage_terms};
use utoipa::{IntoParams, ToSchema};

use crate::Clients;
use crate::limit_check::UserPath;
use crate::parameters::{PartnerPath, UserId};

/// Months shown when no range is asked for, the current one included.
const MONTHS: usize = 12;
const MONTHS_MAX: usize = 60;
/// The type under which the gateway's requests are shown.
const API_REQUEST: &str = "api_request";

/// What was used in a month, in one currency.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageMonth {
    month: Month,
    currency: Currency,
    #[serde(flatten)]
    totals: UsageSums,
    /// The same by type of event; the gateway's requests are `api_request`.
    by_event_type: BTreeMap<String, UsageSums>,
}

/// Sums of usage events.
#[derive(Debug, Serialize, Default, Clone, Copy, ToSchema)]
pub(crate) struct UsageSums {
    events: i64,
    units: i64,
    /// Of the units those that count against limits and on invoices.
    billable_units: i64,
    /// What the billable units cost, in minor units of `currency`.
    amount_cents: i64,
}

/// The range shown: the last twelve months when nothing is given, at most sixty.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RangeQuery {
    /// The first day shown, or the month of it.
    #[param(value_type = Option<String>, pattern = "^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$", example = "2025-01")]
    from: Option<DayOrMonth>,
    /// The day after the last one shown, or the last month.
    #[param(value_type = Option<String>, pattern = "^[0-9]{4}-[0-9]{2}(-[0-9]{2})?$", example = "2025-10")]
    to: Option<DayOrMonth>,
}

#[derive(Debug, Clone, Copy)]
enum DayOrMonth {
    Day(Date),
    Month(Month),
}

impl<'de> Deserialize<'de> for DayOrMonth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DayOrMonth, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(month) = Month::parse(&text) {
            return Ok(DayOrMonth::Month(month));
        }
        match text.parse::<Date>() {
            // jiff reads the date of an instant, too. A year of margin lets every range be computed.
            Ok(date) if date.to_string() == text && date.checked_add(1.year()).is_ok() => {
                Ok(DayOrMonth::Day(date))
            }
            _ => Err(D::Error::custom("a date 2025-11-01 or a month 2025-11")),
        }
    }
}

impl UsageSums {
    fn add(&mut self, totals: Totals) {
        // Sums of what Postgres has summed: a month beyond the range would have failed there.
        self.events = self.events.saturating_add(totals.events);
        self.units = self.units.saturating_add(totals.units);
        self.billable_units = self.billable_units.saturating_add(totals.billable_units);
        self.amount_cents = self.amount_cents.saturating_add(totals.amount_cents);
    }
}

/// Answers a user's usage by month, newest first, one entry for each currency.
#[utoipa::path(get, path = "/usage/user/{id}/monthly")]
pub(crate) async fn user(
    State(app): State<Arc<Clients>>,
    Path(path): Path<UserPath>,
    Query(range): Query<RangeQuery>,
    Now(now): Now,
) -> Result<Json<UsageMonths>, Error> {
    let UserId(user_id) = path.id()?;
    let (from, to) = range.days(now)?;
    let client = app.database.client().await?;
    let subject = Subject::User(user_id).to_string();
    let rows = usage_daily::by_month(&**client, &subject, from, to).await?;
    Ok(Json(months(rows)))
}

/// Answers a partner's usage by month, newest first, one entry for each currency: its events, and the requests in the
/// gateway's log when the contract counts them.
#[utoipa::path(get, path = "/usage/partner/{prefix}/monthly")]
pub(crate) async fn partner(
    State(app): State<Arc<Clients>>,
    Path(PartnerPath { prefix }): Path<PartnerPath>,
    Query(range): Query<RangeQuery>,
    Now(now): Now,
) -> Result<Json<UsageMonths>, Error> {
    let (from, to) = range.days(now)?;
    let client = app.database.client().await?;
    let db = &**client;
    let subject = prefix.subject().to_string();
    let prefix = prefix.as_str();
    let prefixes = [prefix];
    let (mut rows, contracts) = try_join!(
        usage_daily::by_month(db, &subject, from, to),
        usage_terms::of_partners(db, &prefixes),
    )?;
    if let Some(contract) = contracts
        .first()
        .filter(|contract| contract.counts_api_usage)
    {
        let requests = api_usage::by_month(db, prefix, from, to).await?;
        rows.extend(requests.into_iter().map(|(month, totals)| MonthOfType {
            month,
            currency: contract.currency,
            event_type: API_REQUEST.to_owned(),
            totals,
        }));
    }
    Ok(Json(months(rows)))
}

/// A subject's months with usage, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageMonths(Vec<UsageMonth>);

/// One row per month and currency, newest first: currencies are never added up.
fn months(rows: Vec<MonthOfType>) -> UsageMonths {
    let mut months: BTreeMap<(std::cmp::Reverse<Month>, Currency), UsageMonth> = BTreeMap::new();
    for row in rows {
        let key = (std::cmp::Reverse(row.month), row.currency);
        let month = months.entry(key).or_insert_with(|| UsageMonth {
            month: row.month,
            currency: row.currency,
            totals: UsageSums::default(),
            by_event_type: BTreeMap::new(),
        });
        month.totals.add(row.totals);
        month
            .by_event_type
            .entry(row.event_type)
            .or_default()
            .add(row.totals);
    }
    UsageMonths(months.into_values().collect())
}

impl RangeQuery {
    /// The first day and the day after the last. Dates are `[from, to)`; a month as `to` is the last one shown.
    fn days(&self, now: Timestamp) -> Result<(Date, Date), Error> {
        let to = match self.to {
            Some(DayOrMonth::Day(day)) => day,
            Some(DayOrMonth::Month(month)) => month.next().first_day(),
            None => Month::of(now).next().first_day(),
        };
        let last_day = to.yesterday().unwrap_or(to);
        let from = match self.from {
            Some(DayOrMonth::Day(day)) => day,
            Some(DayOrMonth::Month(month)) => month.first_day(),
            None => Month::of_day(last_day)
                .last(MONTHS)
                .last()
                .map_or(last_day, |month| month.first_day()),
        };
        if from > to {
            return Err(Error::invalid_parameter("from", "it is not after to"));
        }
        let farthest = Month::of_day(last_day).last(MONTHS_MAX);
        if farthest
            .last()
            .is_some_and(|month| from < month.first_day())
        {
            let detail = format!("at most {MONTHS_MAX} months");
            return Err(Error::invalid_parameter("from", detail));
        }
        Ok((from, to))
    }
}
