//! `GET /admin/revenue`: the dashboard's figures, now or as of a past instant.

use std::collections::{BTreeMap, BTreeSet};

use domain::money::{Currency, Money};
use domain::period::{Month, day_of};
use domain::revenue::figures::{
    self, Cash, ExactCash, Mrr, churn_window_start, conversion, customer_churn_bps,
    minor_unit_factor,
};
use domain::stripe_objects::catalog::{ExactAmount, exact};
use futures_util::future::{join, join4};
use jiff::Timestamp;
use jiff::civil::Date;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::value::RawValue;
use store::revenue_report::{
    self, Churned, MonthAtRates, MonthOfCash, MrrStanding, SubscriptionCounts,
};
use tokio_postgres::GenericClient;

use crate::Clients;
use crate::sections::{FieldError, Nulls, Section, SectionError, log, part, sections};

/// Months in `monthly_breakdown`, the current one included.
const MONTHS: usize = 12;

const MRR_DEFINITION: &str = "Stripe's: subscriptions that are active or past_due, trials and metered prices \
    excluded, forever discounts taken off, per month; ARR is twelve times the exact MRR";
const CHURN_DEFINITION: &str = "Stripe's, over the 30 days before as_of: customers whose MRR in the currency fell to \
    zero and stayed there, by customers who paid at any time in them; null when nobody did. churned_mrr_cents is what \
    they paid a month before they left";

/// Decimal major units, written from integers: the twin the predecessor's dashboard reads.
type Dollars = Box<RawValue>;

#[derive(Serialize)]
struct Report {
    currency: Currency,
    as_of: Timestamp,
    overview: Option<Overview>,
    monthly_breakdown: Option<Vec<MonthRow>>,
    mrr_arr: Option<MrrArr>,
    churn: Option<Churn>,
    subscriptions: Option<Subscriptions>,
    by_currency: Option<Vec<CurrencyRow>>,
    /// Currencies with figures that `overview`, `monthly_breakdown` and `mrr_arr` leave out for want of a rate.
    unconverted_currencies: Option<Vec<Currency>>,
    estimated_fees: Option<bool>,
    errors: Vec<FieldError>,
}

#[derive(Serialize)]
struct Overview {
    total_revenue_cents: i64,
    monthly_revenue_cents: i64,
    stripe_fees_cents: i64,
    refunds_cents: i64,
    disputes_cents: i64,
    net_monthly_revenue_cents: i64,
}

#[derive(Serialize)]
struct MonthRow {
    month: Month,
    revenue_cents: i64,
    revenue_dollars: Dollars,
    fees_cents: i64,
    refunds_cents: i64,
    disputes_cents: i64,
    net_cents: i64,
}

#[derive(Serialize)]
struct MrrArr {
    mrr_cents: i64,
    mrr_dollars: Dollars,
    arr_cents: i64,
    arr_dollars: Dollars,
    definition: &'static str,
}

#[derive(Serialize)]
struct Churn {
    customer_churn_bps: Option<i64>,
    churned_mrr_cents: i64,
    churned_customers: i64,
    definition: &'static str,
}

#[derive(Serialize)]
struct Subscriptions {
    active: i64,
    trialing: i64,
    past_due: i64,
}

#[derive(Serialize)]
struct CurrencyRow {
    currency: Currency,
    overview: Option<Overview>,
    mrr_arr: Option<MrrArr>,
}

/// Cash by currency and month.
struct CashRead {
    whole_days: Vec<MonthOfCash>,
    /// Of the day a past instant lies in, up to that instant; nothing when the report is of now.
    part_of_day: Vec<MonthOfCash>,
}

impl CashRead {
    fn rows(&self) -> impl Iterator<Item = &MonthOfCash> {
        self.whole_days.iter().chain(&self.part_of_day)
    }
}

/// Checks the token, reads the parameters, reads each section by itself and answers with those that could be read.
/// 503 only when the database cannot be reached at all.
pub(crate) async fn get(
    app: &Clients,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    app.jwt.require_admin(request.headers(), now).await?;
    let query = Query::parse(request, &["currency", "as_of"])?;
    let currency = query.currency("currency")?;
    let as_of = query.instant("as_of")?;
    if as_of.is_some_and(|as_of| as_of > now) {
        return Err(Error::invalid_parameter(
            "as_of",
            "an instant that has passed",
        ));
    }
    let client = app.database.client().await?;
    let moment = match as_of {
        None => Moment::Now(now),
        Some(as_of) => Moment::Past(as_of),
    };
    let currency = currency.unwrap_or(app.reporting_currency);
    let report = report(&**client, currency, moment).await;
    api::json(StatusCode::OK, &report)
}

/// When the figures are asked for: what runs now is summed as it is, the past from what was recorded on the way.
#[derive(Clone, Copy)]
enum Moment {
    Now(Timestamp),
    Past(Timestamp),
}

impl Moment {
    fn instant(self) -> Timestamp {
        match self {
            Moment::Now(instant) | Moment::Past(instant) => instant,
        }
    }

    fn day(self) -> Date {
        day_of(self.instant())
    }

    /// The last day that counts as a whole.
    fn whole_days_until(self) -> Date {
        match self {
            Moment::Now(_) => self.day(),
            Moment::Past(_) => self.day().yesterday().unwrap_or(Date::MIN),
        }
    }
}

async fn report(db: &impl GenericClient, currency: Currency, moment: Moment) -> Report {
    // The statements go out together: one round trip, one connection.
    let (cash, mrr, churn, subscriptions) = join4(
        cash(db, moment),
        mrr(db, moment),
        churn(db, currency, moment),
        subscriptions(db, moment),
    )
    .await;
    let cash = cash.inspect_err(|error| log("overview", error));
    let mrr = mrr.inspect_err(|error| log("mrr_arr", error));

    let in_cash = cash.iter().flat_map(CashRead::rows).map(|row| row.currency);
    let in_mrr = mrr.iter().flatten().map(|(currency, _)| *currency);
    let others: BTreeSet<Currency> = in_cash
        .chain(in_mrr)
        .filter(|other| *other != currency)
        .collect();
    let rates = if others.is_empty() {
        Ok(Rates::default())
    } else {
        rates(db, currency, moment, &others).await
    };
    let rates = rates.inspect_err(|error| log("unconverted_currencies", error));

    let months = sections(&cash, &rates, |cash, rates| {
        monthly_cash(cash, currency, moment, rates)
    });
    let mut nulls = Nulls::default();
    let months_overview = part(&months, |months| overview(months, moment));
    let overview = nulls.keep("overview", months_overview);
    let breakdown = part(&months, |months| {
        monthly_breakdown(months, currency, moment)
    });
    let monthly_breakdown = nulls.keep("monthly_breakdown", breakdown);
    let converted = sections(&mrr, &rates, |mrr, rates| {
        mrr_arr(&converted_mrr(mrr, currency, rates)?, currency)
    });
    let mrr_arr = nulls.keep("mrr_arr", converted);
    let churn = nulls.keep("churn", churn);
    let subscriptions = nulls.keep("subscriptions", subscriptions);
    let by_currency = nulls.keep("by_currency", by_currency(&cash, &mrr, moment));
    let missing = part(&rates, |rates| Ok(rates.missing(&others)));
    let unconverted_currencies = nulls.keep("unconverted_currencies", missing);
    let estimated = part(&cash, |cash| Ok(has_estimated_fees(cash, moment)));
    let estimated_fees = nulls.keep("estimated_fees", estimated);
    Report {
        currency,
        as_of: moment.instant(),
        overview,
        monthly_breakdown,
        mrr_arr,
        churn,
        subscriptions,
        by_currency,
        unconverted_currencies,
        estimated_fees,
        errors: nulls.errors,
    }
}

async fn cash(db: &impl GenericClient, moment: Moment) -> Section<CashRead> {
    let whole_days = revenue_report::cash_by_month(db, moment.whole_days_until());
    Ok(match moment {
        Moment::Now(_) => CashRead {
            whole_days: whole_days.await?,
            part_of_day: Vec::new(),
        },
        Moment::Past(as_of) => {
            let part_of_day = revenue_report::cash_of_part_of_day(db, moment.day(), as_of);
            let (whole_days, part_of_day) = join(whole_days, part_of_day).await;
            CashRead {
                whole_days: whole_days?,
                part_of_day: part_of_day?,
            }
        }
    })
}

async fn mrr(db: &impl GenericClient, moment: Moment) -> Section<Vec<(Currency, i64)>> {
    Ok(match moment {
        Moment::Now(_) => revenue_report::mrr_now(db).await?,
        Moment::Past(as_of) => revenue_report::standing(db, as_of)
            .await?
            .iter()
            .map(|standing| (standing.currency, standing.mrr_microcents))
            .collect(),
    })
}

async fn subscriptions(db: &impl GenericClient, moment: Moment) -> Section<Subscriptions> {
    let SubscriptionCounts {
        active,
        trialing,
        past_due,
    } = match moment {
        Moment::Now(_) => revenue_report::subscriptions_now(db).await?,
        Moment::Past(as_of) => revenue_report::subscriptions_at(db, as_of).await?,
    };
    Ok(Subscriptions {
        active,
        trialing,
        past_due,
    })
}

async fn churn(db: &impl GenericClient, currency: Currency, moment: Moment) -> Section<Churn> {
    let until = moment.instant();
    let churned = revenue_report::churned(db, currency, churn_window_start(until), until);
    let (churned, paying) = match moment {
        Moment::Now(_) => join(churned, revenue_report::paying_customers_now(db, currency)).await,
        Moment::Past(as_of) => {
            let (churned, standing) = join(churned, revenue_report::standing(db, as_of)).await;
            let paying = standing.map(|standing| MrrStanding::of(&standing, currency).customers);
            (churned, paying)
        }
    };
    let Churned {
        customers,
        mrr_microcents,
    } = churned?;
    Ok(Churn {
        customer_churn_bps: customer_churn_bps(customers, paying?)?,
        churned_mrr_cents: Mrr::of_microcents(mrr_microcents).mrr_cents()?,
        churned_customers: customers,
        definition: CHURN_DEFINITION,
    })
}

/// What other currencies are converted with. A currency counts as convertible when every day it has cash on, and the
/// day of the report, has a rate; else it stays out of the reporting currency's figures altogether.
#[derive(Default)]
struct Rates {
    /// Minor units of the currency to minor units of the reporting currency, on the day of the report.
    factors: BTreeMap<Currency, ExactAmount>,
    /// Cash of whole days at each day's rate, in minor units of the reporting currency.
    whole_days: BTreeMap<(Currency, Month), ExactCash>,
}

impl Rates {
    fn missing(&self, others: &BTreeSet<Currency>) -> Vec<Currency> {
        others
            .iter()
            .filter(|currency| !self.factors.contains_key(currency))
            .copied()
            .collect()
    }
}

async fn rates(
    db: &impl GenericClient,
    reporting: Currency,
    moment: Moment,
    others: &BTreeSet<Currency>,
) -> Section<Rates> {
    let on_the_day = revenue_report::rates_on(db, reporting, moment.day());
    let at_rates = revenue_report::cash_at_rates(db, reporting, moment.whole_days_until());
    let (on_the_day, at_rates) = join(on_the_day, at_rates).await;
    let mut rates = Rates::default();
    for (currency, rate) in on_the_day? {
        if others.contains(&currency) {
            let factor = conversion(currency, reporting, &rate)?;
            rates.factors.insert(currency, factor);
        }
    }
    for month in at_rates? {
        if month.days_without_rate > 0 {
            rates.factors.remove(&month.currency);
        }
        let key = (month.currency, month.month);
        rates.whole_days.insert(key, converted(&month, reporting)?);
    }
    Ok(rates)
}

fn converted(month: &MonthAtRates, reporting: Currency) -> Result<ExactCash, figures::Error> {
    let at_rates = ExactCash {
        gross: exact(&month.gross)?,
        fees: exact(&month.fees)?,
        refunds: exact(&month.refunds)?,
        disputes: exact(&month.disputes)?,
    };
    at_rates.times(&minor_unit_factor(month.currency, reporting))
}

/// Exact cash per month in the reporting currency, other currencies included where they can be converted.
type MonthlyCash = BTreeMap<Month, ExactCash>;

fn monthly_cash(
    cash: &CashRead,
    reporting: Currency,
    moment: Moment,
    rates: &Rates,
) -> Section<MonthlyCash> {
    let mut months = MonthlyCash::from([(Month::of(moment.instant()), ExactCash::default())]);
    let mut add = |row: &MonthOfCash, at_rates: Option<&ExactCash>| -> Section<()> {
        let own = ExactCash::from(row.cash);
        let amount = if row.currency == reporting {
            own
        } else if let Some(factor) = rates.factors.get(&row.currency) {
            match at_rates {
                Some(at_rates) => at_rates.clone(),
                None => own.times(factor)?,
            }
        } else {
            return Ok(());
        };
        let sum = months.entry(row.month).or_default();
        *sum = sum.plus(&amount)?;
        Ok(())
    };
    for row in &cash.whole_days {
        add(row, rates.whole_days.get(&(row.currency, row.month)))?;
    }
    for row in &cash.part_of_day {
        // The day of the report, at its rate.
        add(row, None)?;
    }
    Ok(months)
}

fn overview(months: &MonthlyCash, moment: Moment) -> Section<Overview> {
    let mut total = ExactCash::default();
    for cash in months.values() {
        total = total.plus(cash)?;
    }
    let month = match months.get(&Month::of(moment.instant())) {
        Some(cash) => cash.round()?,
        None => Cash::default(),
    };
    Ok(Overview {
        total_revenue_cents: total.round()?.gross_cents,
        monthly_revenue_cents: month.gross_cents,
        stripe_fees_cents: month.fees_cents,
        refunds_cents: month.refunds_cents,
        disputes_cents: month.disputes_cents,
        net_monthly_revenue_cents: month.net_cents()?,
    })
}

fn monthly_breakdown(
    months: &MonthlyCash,
    currency: Currency,
    moment: Moment,
) -> Section<Vec<MonthRow>> {
    Month::of(moment.instant())
        .last(MONTHS)
        .into_iter()
        .map(|month| {
            let cash = match months.get(&month) {
                Some(cash) => cash.round()?,
                None => Cash::default(),
            };
            Ok(MonthRow {
                month,
                revenue_cents: cash.gross_cents,
                revenue_dollars: dollars(cash.gross_cents, currency)?,
                fees_cents: cash.fees_cents,
                refunds_cents: cash.refunds_cents,
                disputes_cents: cash.disputes_cents,
                net_cents: cash.net_cents()?,
            })
        })
        .collect()
}

fn converted_mrr(
    mrr: &[(Currency, i64)],
    reporting: Currency,
    rates: &Rates,
) -> Result<Mrr, figures::Error> {
    let mut sum = Mrr::zero();
    for (currency, microcents) in mrr {
        if *currency == reporting {
            sum = sum.plus_converted(*microcents, &ExactAmount::from_integer(1))?;
        } else if let Some(factor) = rates.factors.get(currency) {
            sum = sum.plus_converted(*microcents, factor)?;
        }
    }
    Ok(sum)
}

fn mrr_arr(mrr: &Mrr, currency: Currency) -> Section<MrrArr> {
    let (mrr_cents, arr_cents) = (mrr.mrr_cents()?, mrr.arr_cents()?);
    Ok(MrrArr {
        mrr_cents,
        mrr_dollars: dollars(mrr_cents, currency)?,
        arr_cents,
        arr_dollars: dollars(arr_cents, currency)?,
        definition: MRR_DEFINITION,
    })
}

/// Every currency with figures, the reporting one included, each by itself and never converted. What could not be
/// read is null in every row.
fn by_currency(
    cash: &Section<CashRead>,
    mrr: &Section<Vec<(Currency, i64)>>,
    moment: Moment,
) -> Section<Vec<CurrencyRow>> {
    if cash.is_err() && mrr.is_err() {
        return Err(SectionError::DependsOn);
    }
    let in_cash = cash.iter().flat_map(CashRead::rows).map(|row| row.currency);
    let in_mrr = mrr.iter().flatten().map(|(currency, _)| *currency);
    let currencies: BTreeSet<Currency> = in_cash.chain(in_mrr).collect();
    currencies
        .into_iter()
        .map(|currency| {
            let overview = match cash {
                Ok(cash) => {
                    let own = monthly_cash(cash, currency, moment, &Rates::default())?;
                    Some(overview(&own, moment)?)
                }
                Err(_logged) => None,
            };
            let mrr_arr = match mrr {
                Ok(mrr) => {
                    let own = converted_mrr(mrr, currency, &Rates::default())?;
                    Some(mrr_arr(&own, currency)?)
                }
                Err(_logged) => None,
            };
            Ok(CurrencyRow {
                currency,
                overview,
                mrr_arr,
            })
        })
        .collect()
}

/// Whether any fee of the months shown, in any currency, is not yet Stripe's own figure.
fn has_estimated_fees(cash: &CashRead, moment: Moment) -> bool {
    let shown = Month::of(moment.instant()).last(MONTHS);
    cash.rows()
        .any(|row| row.estimated_fees > 0 && shown.contains(&row.month))
}

fn dollars(amount_cents: i64, currency: Currency) -> Result<Dollars, serde_json::Error> {
    RawValue::from_string(Money::new(amount_cents, currency).to_decimal())
}
