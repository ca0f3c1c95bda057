//! Revenue figures: cash and recurring revenue added over currencies, and the ratios drawn from them.
//!
//! Everything is exact until the last step, where it is rounded once, half-even.

use jiff::{SignedDuration, Timestamp};
use num_traits::CheckedMul;

use crate::money::{self, Currency, div_half_even_cents, narrow};
use crate::stripe_objects::catalog::{self, ExactAmount, exact, plus, times, whole, zero};

/// How many millionths a minor unit has: `mrr_microcents` counts them.
const MICROS: i128 = 1_000_000;

/// Why a figure could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The amount does not fit into 64 bits; never replaced by another number.
    #[error("a figure is out of range")]
    Money(#[from] money::Error),
    /// A rate is not a number, or an exact sum does not fit.
    #[error("a figure cannot be computed")]
    Exact(#[from] catalog::Error),
}

/// What came in and went out in a period, in minor units of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cash {
    /// Captured payments, before anything is taken off.
    pub gross_cents: i64,
    /// Stripe's fees for payments and disputes.
    pub fees_cents: i64,
    /// Refunds, on the day of the refund.
    pub refunds_cents: i64,
    /// Disputed amounts that were withdrawn, less those that were reinstated.
    pub disputes_cents: i64,
}

impl Cash {
    /// Gross less fees, refunds and disputes.
    pub fn net_cents(&self) -> Result<i64, Error> {
        let net = i128::from(self.gross_cents)
            - i128::from(self.fees_cents)
            - i128::from(self.refunds_cents)
            - i128::from(self.disputes_cents);
        Ok(narrow(net)?)
    }

    /// The sum of two periods in the same currency.
    pub fn plus(&self, other: &Cash) -> Result<Cash, Error> {
        let sum = |left: i64, right: i64| left.checked_add(right).ok_or(money::Error::OutOfRange);
        Ok(Cash {
            gross_cents: sum(self.gross_cents, other.gross_cents)?,
            fees_cents: sum(self.fees_cents, other.fees_cents)?,
            refunds_cents: sum(self.refunds_cents, other.refunds_cents)?,
            disputes_cents: sum(self.disputes_cents, other.disputes_cents)?,
        })
    }
}

/// [`Cash`] before rounding: sums of amounts in other currencies times their rates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExactCash {
    pub gross: ExactAmount,
    pub fees: ExactAmount,
    pub refunds: ExactAmount,
    pub disputes: ExactAmount,
}

impl Default for ExactCash {
    fn default() -> ExactCash {
        ExactCash {
            gross: zero(),
            fees: zero(),
            refunds: zero(),
            disputes: zero(),
        }
    }
}

impl From<Cash> for ExactCash {
    fn from(cash: Cash) -> ExactCash {
        ExactCash {
            gross: whole(cash.gross_cents),
            fees: whole(cash.fees_cents),
            refunds: whole(cash.refunds_cents),
            disputes: whole(cash.disputes_cents),
        }
    }
}

impl ExactCash {
    /// The sum of two sets of figures.
    pub fn plus(&self, other: &ExactCash) -> Result<ExactCash, Error> {
        Ok(ExactCash {
            gross: plus(&self.gross, &other.gross)?,
            fees: plus(&self.fees, &other.fees)?,
            refunds: plus(&self.refunds, &other.refunds)?,
            disputes: plus(&self.disputes, &other.disputes)?,
        })
    }

    /// Every figure multiplied by a factor.
    pub fn times(&self, factor: &ExactAmount) -> Result<ExactCash, Error> {
        Ok(ExactCash {
            gross: times(&self.gross, factor)?,
            fees: times(&self.fees, factor)?,
            refunds: times(&self.refunds, factor)?,
            disputes: times(&self.disputes, factor)?,
        })
    }

    /// The figures in whole minor units. The only rounding, half-even.
    pub fn round(&self) -> Result<Cash, Error> {
        Ok(Cash {
            gross_cents: round(&self.gross)?,
            fees_cents: round(&self.fees)?,
            refunds_cents: round(&self.refunds)?,
            disputes_cents: round(&self.disputes)?,
        })
    }
}

/// The factor from minor units of `from` to minor units of `into`, for an amount multiplied by a rate between major
/// units.
pub fn minor_unit_factor(from: Currency, into: Currency) -> ExactAmount {
    let unit = |currency: Currency| 10_i128.pow(currency.exponent());
    ExactAmount::new(unit(into), unit(from))
}

/// The factor from minor units of `from` to minor units of `into` at a `rate` between major units.
pub fn conversion(from: Currency, into: Currency, rate: &str) -> Result<ExactAmount, Error> {
    Ok(times(&exact(rate)?, &minor_unit_factor(from, into))?)
}

/// Recurring revenue of a month in millionths of a minor unit, exact across currencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mrr {
    microcents: ExactAmount,
}

impl Mrr {
    /// A month without recurring revenue.
    pub fn zero() -> Mrr {
        Mrr { microcents: zero() }
    }

    /// Recurring revenue from a sum of `mrr_microcents`.
    pub fn of_microcents(microcents: i64) -> Mrr {
        Mrr {
            microcents: whole(microcents),
        }
    }

    /// The sum with the revenue in another currency, converted by the factor of [`conversion`].
    pub fn plus_converted(&self, microcents: i64, factor: &ExactAmount) -> Result<Mrr, Error> {
        let converted = times(&whole(microcents), factor)?;
        Ok(Mrr {
            microcents: plus(&self.microcents, &converted)?,
        })
    }

    /// MRR in minor units.
    pub fn mrr_cents(&self) -> Result<i64, Error> {
        self.round_times(1)
    }

    /// ARR in minor units: twelve times the exact MRR, rounded; not twelve times the rounded one.
    pub fn arr_cents(&self) -> Result<i64, Error> {
        self.round_times(12)
    }

    fn round_times(&self, factor: i128) -> Result<i64, Error> {
        let product = self
            .microcents
            .checked_mul(&ExactAmount::new(factor, MICROS))
            .ok_or(money::Error::OutOfRange)?;
        round(&product)
    }
}

/// How far back customer churn looks.
pub const CHURN_WINDOW: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The start of the churn window of a report as of `as_of`. Churn counts after this instant, not at it.
pub fn churn_window_start(as_of: Timestamp) -> Timestamp {
    as_of.saturating_sub(CHURN_WINDOW).unwrap_or(Timestamp::MIN)
}

/// Customer churn by Stripe's formula, in basis points: the customers who stopped paying within the window, divided by
/// those who paid at its start or began within it. The divisor is `paying_at_end + churned`, since each of them either
/// pays at the end or has stopped. `None` when nobody paid.
pub fn customer_churn_bps(churned: i64, paying_at_end: i64) -> Result<Option<i64>, Error> {
    ratio_bps(churned, i128::from(churned) + i128::from(paying_at_end))
}

/// `part ÷ whole` in basis points, half-even; `None` when `whole` is zero.
pub fn ratio_bps(part: i64, whole: i128) -> Result<Option<i64>, Error> {
    if whole == 0 {
        return Ok(None);
    }
    Ok(Some(div_half_even_cents(i128::from(part) * 10_000, whole)?))
}

fn round(amount: &ExactAmount) -> Result<i64, Error> {
    Ok(div_half_even_cents(*amount.numer(), *amount.denom())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    #[test]
    fn net_is_gross_less_fees_refunds_and_disputes() {
        let cash = Cash {
            gross_cents: 87_500,
            fees_cents: 2_537,
            refunds_cents: 500,
            disputes_cents: 0,
        };
        assert_eq!(cash.net_cents().unwrap(), 84_463);
        let reinstated = Cash {
            disputes_cents: -1_000,
            ..Cash::default()
        };
        assert_eq!(reinstated.net_cents().unwrap(), 1_000);
        let full = Cash {
            gross_cents: i64::MAX,
            disputes_cents: -1,
            ..Cash::default()
        };
        assert!(full.net_cents().is_err());
        assert!(full.plus(&full).is_err());
    }

    #[test]
    fn mrr_is_rounded_once_and_arr_comes_from_the_exact_sum() {
        // docs/money.md, worked example: 1000/day + 2000/week + 6000/2 months + 12000/year.
        let micros = 30_416_666_667 + 8_666_666_667 + 3_000_000_000 + 1_000_000_000;
        let mrr = Mrr::of_microcents(micros);
        assert_eq!(mrr.mrr_cents().unwrap(), 43_083);
        assert_eq!(mrr.arr_cents().unwrap(), 517_000, "not 12 × 43083 = 516996");
        let worked = Mrr::of_microcents(100 * 10_000 * 1_000_000 + 50 * 5_000 * 1_000_000);
        assert_eq!(worked.mrr_cents().unwrap(), 1_250_000);
        assert_eq!(
            Mrr::of_microcents(2_500_000).mrr_cents().unwrap(),
            2,
            "half to even"
        );
        assert_eq!(Mrr::of_microcents(3_500_000).mrr_cents().unwrap(), 4);
        assert!(Mrr::of_microcents(i64::MAX).arr_cents().is_ok());
    }

    #[test]
    fn another_currency_is_converted_by_major_units() {
        let usd = currency("USD");
        let yen = conversion(currency("JPY"), usd, "0.0066").unwrap();
        let cash = Cash {
            gross_cents: 1_000,
            ..Cash::default()
        };
        // ¥1,000 × 0.0066 = $6.60.
        let converted = ExactCash::from(cash).times(&yen).unwrap();
        assert_eq!(converted.round().unwrap().gross_cents, 660);
        let dinar = conversion(currency("KWD"), usd, "3.25").unwrap();
        // KWD 1.000 × 3.25 = $3.25.
        let converted = ExactCash::from(cash).times(&dinar).unwrap();
        assert_eq!(converted.round().unwrap().gross_cents, 325);
        let mrr = Mrr::of_microcents(1_000_000)
            .plus_converted(1_000_000_000, &yen)
            .unwrap();
        assert_eq!(mrr.mrr_cents().unwrap(), 661);
        assert!(conversion(usd, usd, "one").is_err());
    }

    #[test]
    fn sums_of_conversions_are_rounded_once() {
        let factor = conversion(currency("EUR"), currency("USD"), "1.005").unwrap();
        let one = ExactCash::from(Cash {
            gross_cents: 50,
            ..Cash::default()
        })
        .times(&factor)
        .unwrap();
        // 50.25 each: rounded singly 50 + 50 = 100, together 100.5, to even 100; thrice 150.75.
        let three = one.plus(&one).unwrap().plus(&one).unwrap();
        assert_eq!(three.round().unwrap().gross_cents, 151);
    }

    #[test]
    fn churn_follows_stripes_formula() {
        // docs/money.md, worked example: 100 customers, 10 leave, 30 join: 10 of 130.
        assert_eq!(customer_churn_bps(10, 120).unwrap(), Some(769));
        assert_eq!(customer_churn_bps(0, 5).unwrap(), Some(0));
        assert_eq!(customer_churn_bps(3, 0).unwrap(), Some(10_000));
        assert_eq!(customer_churn_bps(0, 0).unwrap(), None);
        assert_eq!(ratio_bps(10, 100).unwrap(), Some(1_000));
    }
}
