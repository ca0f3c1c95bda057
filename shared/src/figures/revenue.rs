//! The dashboard's figures of money, MRR, churn and subscriptions, now or as of a past instant.

use std::collections::{BTreeMap, BTreeSet};

use domain::money::{Currency, Money};
use domain::period::Month;
use domain::revenue::figures::{
    self, Cash, ExactCash, Mrr, conversion, customer_churn_bps, minor_unit_factor,
};
use domain::stripe_objects::catalog::{ExactAmount, exact};
use futures_util::future::{join, join5};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
pub use store::revenue_report::Moment;
use store::revenue_report::{
    self, Churned, MonthAtRates, MonthOfCash, MrrStanding, SubscriptionCounts,
};
use tokio_postgres::Client;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::provisional::{self, Provisional};
use super::sections::{FieldError, Nulls, Section, SectionError, log, part, sections};

/// Months in `monthly_breakdown`, the current one included.
const MONTHS: usize = 12;

const MRR_DEFINITION: &str = "Stripe's: subscriptions that are active or past_due, trials and metered prices \
    excluded, forever discounts taken off, per month; ARR is twelve times the exact MRR";
const CHURN_DEFINITION: &str = "Stripe's, over the 30 days before as_of: customers whose MRR in the currency fell to \
    zero and stayed there, by customers who paid at any time in them; null when nobody did. churned_mrr_cents is what \
    they paid a month before they left";

/// Decimal major units, written from integers: the twin the predecessor's dashboard reads.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Dollars(Box<RawValue>);

impl Dollars {
    fn of(amount_cents: i64, currency: Currency) -> Result<Dollars, serde_json::Error> {
        RawValue::from_string(Money::new(amount_cents, currency).to_decimal()).map(Dollars)
    }
}

impl PartialSchema for Dollars {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("Major units, with the decimals of the currency"))
            .examples([99.99])
            .into()
    }
}

impl ToSchema for Dollars {}

/// Figures of one currency, into which others are converted where they have a rate. A section that could not be read is
/// null and named in `errors`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Revenue {
    pub currency: Currency,
    pub as_of: Timestamp,
    pub overview: Option<Overview>,
    pub monthly_breakdown: Option<Vec<RevenueMonth>>,
    pub mrr_arr: Option<MrrArr>,
    pub churn: Option<Churn>,
    pub subscriptions: Option<SubscriptionsByStatus>,
    pub by_currency: Option<Vec<CurrencyRevenue>>,
    /// Currencies with figures that `overview`, `monthly_breakdown` and `mrr_arr` leave out for want of a rate.
    pub unconverted_currencies: Option<Vec<Currency>>,
    pub estimated_fees: Option<bool>,
    /// What may still change, in every currency, newest month first: Stripe has shown only a part of some objects.
    pub provisional: Option<Vec<Provisional>>,
    pub errors: Vec<FieldError>,
}

/// Money of all time and of the month of `as_of`, in minor units.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Overview {
    pub total_revenue_cents: i64,
    pub monthly_revenue_cents: i64,
    pub stripe_fees_cents: i64,
    pub refunds_cents: i64,
    pub disputes_cents: i64,
    pub net_monthly_revenue_cents: i64,
    /// The names of those members that may still change; null when that could not be read.
    pub provisional: Option<Vec<&'static str>>,
}

/// Money of one month, each by its own date, in minor units.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RevenueMonth {
    pub month: Month,
    pub revenue_cents: i64,
    pub revenue_dollars: Dollars,
    pub fees_cents: i64,
    pub refunds_cents: i64,
    pub disputes_cents: i64,
    pub net_cents: i64,
    /// The names of those members that may still change; null when that could not be read.
    pub provisional: Option<Vec<&'static str>>,
}

/// What is paid per month and per year.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MrrArr {
    pub mrr_cents: i64,
    pub mrr_dollars: Dollars,
    pub arr_cents: i64,
    pub arr_dollars: Dollars,
    /// The names of those members that may still change; null when that could not be read.
    pub provisional: Option<Vec<&'static str>>,
    pub definition: &'static str,
}

/// Customers who left in the 30 days before `as_of`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Churn {
    pub customer_churn_bps: Option<i64>,
    pub churned_mrr_cents: i64,
    pub churned_customers: i64,
    pub definition: &'static str,
}

/// How many subscriptions there are, by status.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SubscriptionsByStatus {
    pub active: i64,
    pub trialing: i64,
    pub past_due: i64,
}

/// Figures of one currency by itself, never converted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CurrencyRevenue {
    pub currency: Currency,
    pub overview: Option<Overview>,
    pub mrr_arr: Option<MrrArr>,
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

/// Reads each section by itself.
pub async fn report(db: &Client, currency: Currency, moment: Moment, now: Timestamp) -> Revenue {
    let shown = Month::of(moment.instant()).last(MONTHS);
    // The statements go out together: one round trip, one connection.
    let (cash, standing, churned, subscriptions, provisional) = join5(
        cash(db, moment),
        revenue_report::standing(db, moment),
        revenue_report::churned(db, currency, moment),
        revenue_report::subscriptions(db, moment),
        provisional::list(db, &shown, true, moment.instant(), now),
    )
    .await;
    let mut nulls = Nulls::default();
    let provisional = nulls.keep("provisional", provisional);
    let known = provisional.as_deref();
    let cash = cash.inspect_err(|error| log("overview", error));
    let standing = standing.map_err(SectionError::Store);
    let standing = standing.inspect_err(|error| log("mrr_arr", error));
    let mrr = part(&standing, |standing| {
        let mrr_of = |row: &MrrStanding| (row.currency, row.mrr_microcents);
        Ok(standing.iter().map(mrr_of).collect::<Vec<_>>())
    });

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
    let counts = |one: Currency| {
        one == currency
            || rates
                .as_ref()
                .is_ok_and(|rates| rates.factors.contains_key(&one))
    };
    let months_overview = part(&months, |months| overview(months, moment, known, counts));
    let overview = nulls.keep("overview", months_overview);
    let breakdown = part(&months, |months| {
        monthly_breakdown(months, currency, moment, known, counts)
    });
    let monthly_breakdown = nulls.keep("monthly_breakdown", breakdown);
    let converted = sections(&mrr, &rates, |mrr, rates| {
        let names = known.map(|known| provisional::of_mrr(known, counts));
        mrr_arr(&converted_mrr(mrr, currency, rates)?, currency, names)
    });
    let mrr_arr = nulls.keep("mrr_arr", converted);
    let churn = part(&standing, |standing| {
        churn(MrrStanding::of(standing, currency), churned?)
    });
    let churn = nulls.keep("churn", churn);
    let by_status = subscriptions.map(SubscriptionsByStatus::from);
    let subscriptions = nulls.keep("subscriptions", by_status.map_err(SectionError::Store));
    let by_currency = nulls.keep("by_currency", by_currency(&cash, &mrr, moment, known));
    let missing = part(&rates, |rates| Ok(rates.missing(&others)));
    let unconverted_currencies = nulls.keep("unconverted_currencies", missing);
    let estimated = part(&cash, |cash| Ok(has_estimated_fees(cash, moment)));
    let estimated_fees = nulls.keep("estimated_fees", estimated);
    Revenue {
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
        provisional,
        errors: nulls.errors,
    }
}

async fn cash(db: &Client, moment: Moment) -> Section<CashRead> {
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

impl From<SubscriptionCounts> for SubscriptionsByStatus {
    fn from(counts: SubscriptionCounts) -> SubscriptionsByStatus {
        SubscriptionsByStatus {
            active: counts.active,
            trialing: counts.trialing,
            past_due: counts.past_due,
        }
    }
}

fn churn(standing: MrrStanding, churned: Churned) -> Section<Churn> {
    Ok(Churn {
        customer_churn_bps: customer_churn_bps(churned.customers, standing.customers)?,
        churned_mrr_cents: Mrr::of_microcents(churned.mrr_microcents).mrr_cents()?,
        churned_customers: churned.customers,
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
    db: &Client,
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

fn overview(
    months: &MonthlyCash,
    moment: Moment,
    known: Option<&[Provisional]>,
    counts: impl Fn(Currency) -> bool,
) -> Section<Overview> {
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
        provisional: known
            .map(|known| provisional::of_overview(known, counts, Month::of(moment.instant()))),
    })
}

fn monthly_breakdown(
    months: &MonthlyCash,
    currency: Currency,
    moment: Moment,
    known: Option<&[Provisional]>,
    counts: impl Fn(Currency) -> bool,
) -> Section<Vec<RevenueMonth>> {
    Month::of(moment.instant())
        .last(MONTHS)
        .into_iter()
        .map(|month| {
            let cash = match months.get(&month) {
                Some(cash) => cash.round()?,
                None => Cash::default(),
            };
            Ok(RevenueMonth {
                month,
                revenue_cents: cash.gross_cents,
                revenue_dollars: Dollars::of(cash.gross_cents, currency)?,
                fees_cents: cash.fees_cents,
                refunds_cents: cash.refunds_cents,
                disputes_cents: cash.disputes_cents,
                net_cents: cash.net_cents()?,
                provisional: known.map(|known| provisional::of_month(known, &counts, month)),
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

fn mrr_arr(
    mrr: &Mrr,
    currency: Currency,
    provisional: Option<Vec<&'static str>>,
) -> Section<MrrArr> {
    let (mrr_cents, arr_cents) = (mrr.mrr_cents()?, mrr.arr_cents()?);
    Ok(MrrArr {
        mrr_cents,
        mrr_dollars: Dollars::of(mrr_cents, currency)?,
        arr_cents,
        arr_dollars: Dollars::of(arr_cents, currency)?,
        provisional,
        definition: MRR_DEFINITION,
    })
}

/// Every currency with figures, the reporting one included, each by itself and never converted. What could not be
/// read is null in every row.
fn by_currency(
    cash: &Section<CashRead>,
    mrr: &Section<Vec<(Currency, i64)>>,
    moment: Moment,
    known: Option<&[Provisional]>,
) -> Section<Vec<CurrencyRevenue>> {
    if cash.is_err() && mrr.is_err() {
        return Err(SectionError::DependsOn);
    }
    let in_cash = cash.iter().flat_map(CashRead::rows).map(|row| row.currency);
    let in_mrr = mrr.iter().flatten().map(|(currency, _)| *currency);
    let currencies: BTreeSet<Currency> = in_cash.chain(in_mrr).collect();
    currencies
        .into_iter()
        .map(|currency| {
            let counts = |one: Currency| one == currency;
            let overview = match cash {
                Ok(cash) => {
                    let own = monthly_cash(cash, currency, moment, &Rates::default())?;
                    Some(overview(&own, moment, known, counts)?)
                }
                Err(_logged) => None,
            };
            let mrr_arr = match mrr {
                Ok(mrr) => {
                    let own = converted_mrr(mrr, currency, &Rates::default())?;
                    let names = known.map(|known| provisional::of_mrr(known, counts));
                    Some(mrr_arr(&own, currency, names)?)
                }
                Err(_logged) => None,
            };
            Ok(CurrencyRevenue {
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
