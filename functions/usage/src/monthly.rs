//! `GET /usage/…/monthly`: what was used, by month and type, newest first.

use std::collections::BTreeMap;

use domain::money::Currency;
use domain::period::Month;
use domain::usage::{Subject, parse_user_id};
use futures_util::try_join;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use store::usage_daily::{MonthOfType, Totals};
use store::{api_usage, usage_daily, usage_terms};

use crate::App;

/// Months shown when no range is asked for, the current one included.
const MONTHS: usize = 12;
const MONTHS_MAX: usize = 60;
/// The type under which the gateway's requests are shown.
const API_REQUEST: &str = "api_request";

#[derive(Serialize)]
struct MonthRow {
    month: Month,
    currency: Currency,
    #[serde(flatten)]
    totals: Sums,
    by_event_type: BTreeMap<String, Sums>,
}

#[derive(Serialize, Default, Clone, Copy)]
struct Sums {
    events: i64,
    units: i64,
    billable_units: i64,
    amount_cents: i64,
}

impl Sums {
    fn add(&mut self, totals: Totals) {
        // Sums of what Postgres has summed: a month beyond the range would have failed there.
        self.events = self.events.saturating_add(totals.events);
        self.units = self.units.saturating_add(totals.units);
        self.billable_units = self.billable_units.saturating_add(totals.billable_units);
        self.amount_cents = self.amount_cents.saturating_add(totals.amount_cents);
    }
}

/// A user's months.
pub(crate) async fn user(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let user_id =
        parse_user_id(id).ok_or_else(|| Error::invalid_parameter("id", "a user's number"))?;
    let (from, to) = range(&Query::parse(request, &["from", "to"])?, now)?;
    let client = app.database.client().await?;
    let subject = Subject::User(user_id).to_string();
    let rows = usage_daily::by_month(&**client, &subject, from, to).await?;
    api::json(StatusCode::OK, &months(rows))
}

/// A partner's months: its events, and the requests in the gateway's log where the contract counts them.
pub(crate) async fn partner(
    app: &App,
    request: &Request,
    prefix: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let subject = Subject::parse(&format!("partner:{prefix}")).ok_or(Error::NotFound)?;
    let (from, to) = range(&Query::parse(request, &["from", "to"])?, now)?;
    let client = app.database.client().await?;
    let db = &**client;
    let subject = subject.to_string();
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
    api::json(StatusCode::OK, &months(rows))
}

/// One row per month and currency, newest first: currencies are never added up.
fn months(rows: Vec<MonthOfType>) -> Vec<MonthRow> {
    let mut months: BTreeMap<(std::cmp::Reverse<Month>, Currency), MonthRow> = BTreeMap::new();
    for row in rows {
        let key = (std::cmp::Reverse(row.month), row.currency);
        let month = months.entry(key).or_insert_with(|| MonthRow {
            month: row.month,
            currency: row.currency,
            totals: Sums::default(),
            by_event_type: BTreeMap::new(),
        });
        month.totals.add(row.totals);
        month
            .by_event_type
            .entry(row.event_type)
            .or_default()
            .add(row.totals);
    }
    months.into_values().collect()
}

/// The first day and the day after the last. Dates are `[from, to)`; a month as `to` is the last one shown.
fn range(query: &Query, now: Timestamp) -> Result<(Date, Date), Error> {
    let to = day(query, "to", |month| month.next().first_day())?
        .unwrap_or_else(|| Month::of(now).next().first_day());
    let last_day = to.yesterday().unwrap_or(to);
    let from = match day(query, "from", Month::first_day)? {
        Some(from) => from,
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
        return Err(Error::invalid_parameter(
            "from",
            format!("at most {MONTHS_MAX} months"),
        ));
    }
    Ok((from, to))
}

fn day(
    query: &Query,
    name: &str,
    of_month: impl FnOnce(Month) -> Date,
) -> Result<Option<Date>, Error> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    if let Ok(month) = Month::parse(text) {
        return Ok(Some(of_month(month)));
    }
    match text.parse::<Date>() {
        // jiff reads the date of an instant, too. A year of margin lets every range be computed.
        Ok(date) if date.to_string() == text && date.checked_add(1.year()).is_ok() => {
            Ok(Some(date))
        }
        _ => Err(Error::invalid_parameter(
            name,
            "a date 2025-11-01 or a month 2025-11",
        )),
    }
}
