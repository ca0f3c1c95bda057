//! Cohorts: customers by the month of their first movement, and how many of them still pay, month by month.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::money::{self, div_half_even, narrow};
use crate::period::{Month, Period};

/// How many millionths a minor unit has.
const MICROS: i128 = 1_000_000;

/// Why a cohort could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The amount does not fit into 64 bits; never replaced by another number.
    #[error("a figure of a cohort is out of range")]
    Money(#[from] money::Error),
}

/// A customer's MRR from an instant on, in millionths of a minor unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub occurred_at: Timestamp,
    pub after_microcents: i64,
}

/// Groups customers by the month they began in. Its memory depends on the number of months, not of customers.
#[derive(Debug)]
pub struct Cohorts {
    cohorts: BTreeMap<Month, Cohort>,
    /// The first instant that does not count.
    end: Timestamp,
}

#[derive(Debug, Default)]
struct Cohort {
    first: Sum,
    /// The sums at the end of the first month and of each later one.
    months: Vec<Sum>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    customers: i64,
    microcents: i128,
}

/// The customers whose first movement is in one month. Amounts are in minor units of the currency they were added in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CohortFigures {
    /// The month in which the customers began.
    pub cohort: Month,
    /// How many customers began in it.
    pub customers: i64,
    /// The MRR that they began with.
    pub mrr_cents: i64,
    /// The starting month and each later one, oldest first.
    pub months: Vec<MonthFigures>,
}

/// What remains of a cohort at the end of a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MonthFigures {
    pub month: Month,
    /// Customers who pay at the end of the month, whether or not they were away in between.
    pub customers: i64,
    pub mrr_cents: i64,
    /// `customers` divided by the customers of the cohort, in basis points; null when the cohort is empty.
    pub customer_retention_bps: Option<i64>,
    /// `mrr_cents` divided by the MRR the cohort began with, in basis points; null when that is 0.
    pub mrr_retention_bps: Option<i64>,
}

impl Cohorts {
    /// For the months that `range` touches; each cohort is followed until `end`, exclusive.
    pub fn new(range: Period, end: Timestamp) -> Cohorts {
        let mut cohorts = BTreeMap::new();
        let mut month = Month::of(range.start);
        while month.start() < range.end {
            let count = followed(month, end).count();
            let months = vec![Sum::default(); count];
            let first = Sum::default();
            cohorts.insert(month, Cohort { first, months });
            month = month.next();
        }
        Cohorts { cohorts, end }
    }

    /// Adds all movements of one customer in one currency, oldest first.
    pub fn add_customer(&mut self, levels: &[Level]) {
        let Some(first) = levels.first() else {
            return;
        };
        let start = Month::of(first.occurred_at);
        let end = self.end;
        let Some(cohort) = self.cohorts.get_mut(&start) else {
            return;
        };
        cohort.first.add(first.after_microcents);
        for (month, sum) in followed(start, end).zip(&mut cohort.months) {
            let month_end = month.end().min(end);
            let last = levels.iter().rfind(|level| level.occurred_at < month_end);
            sum.add(last.map_or(0, |level| level.after_microcents));
        }
    }

    /// The cohorts, oldest first. A month in which nobody began has an empty cohort.
    pub fn figures(&self) -> Result<Vec<CohortFigures>, Error> {
        self.cohorts
            .iter()
            .map(|(start, cohort)| {
                let months = followed(*start, self.end).zip(&cohort.months);
                let months: Result<Vec<MonthFigures>, Error> = months
                    .map(|(month, sum)| {
                        let (left, began) = (
                            i128::from(sum.customers),
                            i128::from(cohort.first.customers),
                        );
                        Ok(MonthFigures {
                            month,
                            customers: sum.customers,
                            mrr_cents: sum.cents()?,
                            customer_retention_bps: bps(left, began)?,
                            mrr_retention_bps: bps(sum.microcents, cohort.first.microcents)?,
                        })
                    })
                    .collect();
                Ok(CohortFigures {
                    cohort: *start,
                    customers: cohort.first.customers,
                    mrr_cents: cohort.first.cents()?,
                    months: months?,
                })
            })
            .collect()
    }
}

impl Sum {
    fn add(&mut self, microcents: i64) {
        self.customers += i64::from(microcents > 0);
        self.microcents += i128::from(microcents);
    }

    fn cents(&self) -> Result<i64, Error> {
        Ok(narrow(div_half_even(self.microcents, MICROS)?)?)
    }
}

/// A month, and those after it that begin before `end`.
fn followed(start: Month, end: Timestamp) -> impl Iterator<Item = Month> {
    std::iter::successors(Some(start), |month| Some(month.next()))
        .take_while(move |month| month.start() < end)
}

fn bps(part: i128, whole: i128) -> Result<Option<i64>, Error> {
    if whole == 0 {
        return Ok(None);
    }
    let scaled = part.checked_mul(10_000).ok_or(money::Error::OutOfRange)?;
    Ok(Some(narrow(div_half_even(scaled, whole)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn customers_stay_in_the_month_they_began_in() {
        let range = Period::new(at("2025-08-01T00:00:00Z"), at("2025-10-01T00:00:00Z")).unwrap();
        let mut cohorts = Cohorts::new(range, at("2025-10-15T00:00:00Z"));
        let level = |day: &str, cents: i64| Level {
            occurred_at: at(&format!("2025-{day}T00:00:00Z")),
            after_microcents: cents * 1_000_000,
        };
        cohorts.add_customer(&[level("08-31", 300), level("09-30", 0), level("10-14", 100)]);
        cohorts.add_customer(&[level("08-01", 600), level("09-01", 900), level("10-15", 0)]);
        cohorts.add_customer(&[level("07-31", 5_000)]);
        let figures = cohorts.figures().unwrap();
        let months: Vec<(i64, i64, Option<i64>, Option<i64>)> = figures[0]
            .months
            .iter()
            .map(|month| {
                let retention = (month.customer_retention_bps, month.mrr_retention_bps);
                (month.customers, month.mrr_cents, retention.0, retention.1)
            })
            .collect();
        assert_eq!((figures[0].customers, figures[0].mrr_cents), (2, 900));
        assert_eq!(
            months,
            [
                (2, 900, Some(10_000), Some(10_000)),
                (1, 900, Some(5_000), Some(10_000)),
                // Back with 100, and the end itself does not count: 1000 of 900.
                (2, 1_000, Some(10_000), Some(11_111)),
            ]
        );
        assert_eq!(figures[1].customers, 0);
        assert_eq!(figures[1].months[1].customer_retention_bps, None);
        assert_eq!(figures.len(), 2);
    }
}
