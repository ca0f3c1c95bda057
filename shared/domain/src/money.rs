//! Money: integer minor units with their currency, checked arithmetic, one rounding rule, one way to split.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Why an amount could not be computed or a currency not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three ASCII letters.
    #[error("a currency is three letters")]
    InvalidCurrency,
    /// Two currencies met in one sum; there is no rate here to convert with.
    #[error("{left} and {right} cannot be added")]
    CurrencyMismatch {
        /// The currency on the left of the operation.
        left: Currency,
        /// The currency on the right of the operation.
        right: Currency,
    },
    /// The result does not fit. Never answered with 0 or with the largest number instead.
    #[error("the amount is out of range")]
    OutOfRange,
    /// A division by zero, or a split over weights that add up to nothing.
    #[error("there is nothing to divide by")]
    NothingToDivideBy,
}

/// An ISO 4217 code, upper case. Any three letters are a currency: Stripe adds new ones without notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, pattern = "^[A-Z]{3}$", examples("USD"))]
pub struct Currency([u8; 3]);

impl Currency {
    /// US dollar: the default reporting currency, and the currency of rows that name none.
    pub const USD: Currency = Currency(*b"USD");

    /// Reads a code of any case, as Stripe (`usd`) and the database (`USD`) write it.
    pub fn parse(code: &str) -> Result<Currency, Error> {
        match code.as_bytes() {
            [a, b, c] if code.bytes().all(|byte| byte.is_ascii_alphabetic()) => Ok(Currency([
                a.to_ascii_uppercase(),
                b.to_ascii_uppercase(),
                c.to_ascii_uppercase(),
            ])),
            _ => Err(Error::InvalidCurrency),
        }
    }

    /// The upper-case code.
    pub fn as_str(&self) -> &str {
        // Expect safety: `parse` is the only constructor and accepts ASCII letters alone.
        std::str::from_utf8(&self.0).expect("a currency is ASCII")
    }

    /// How many decimals the minor unit has **at Stripe**, which is not ISO 4217: ISK counts hundredths there,
    /// UGX whole shillings. <https://docs.stripe.com/currencies#zero-decimal>
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"JPY" | b"KMF" | b"KRW" | b"MGA" | b"PYG"
            | b"RWF" | b"UGX" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"JOD" | b"KWD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// The sign printed before an amount, for the currencies whose sign is theirs alone in our documents.
    fn sign(self) -> Option<&'static str> {
        match &self.0 {
            b"USD" => Some("$"),
            b"EUR" => Some("€"),
            b"GBP" => Some("£"),
            b"JPY" => Some("¥"),
            _ => None,
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl std::str::FromStr for Currency {
    type Err = Error;

    fn from_str(code: &str) -> Result<Currency, Error> {
        Currency::parse(code)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Currency, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Currency::parse(&code).map_err(serde::de::Error::custom)
    }
}

/// An amount in minor units (`_cents`, whatever the currency calls them) of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units: cents of a dollar, whole yen, thousandths of a dinar.
    pub amount_cents: i64,
    /// What they are units of.
    pub currency: Currency,
}

impl Money {
    /// `amount_cents` minor units of `currency`.
    pub fn new(amount_cents: i64, currency: Currency) -> Money {
        Money {
            amount_cents,
            currency,
        }
    }

    /// Nothing of `currency`.
    pub fn zero(currency: Currency) -> Money {
        Money::new(0, currency)
    }

    /// The sum; an error between two currencies or beyond the range.
    pub fn checked_add(self, other: Money) -> Result<Money, Error> {
        self.same_currency(other)?;
        let amount_cents = self.amount_cents.checked_add(other.amount_cents);
        Ok(Money::new(
            amount_cents.ok_or(Error::OutOfRange)?,
            self.currency,
        ))
    }

    /// The difference; an error between two currencies or beyond the range.
    pub fn checked_sub(self, other: Money) -> Result<Money, Error> {
        self.same_currency(other)?;
        let amount_cents = self.amount_cents.checked_sub(other.amount_cents);
        Ok(Money::new(
            amount_cents.ok_or(Error::OutOfRange)?,
            self.currency,
        ))
    }

    /// The amount with the other sign.
    pub fn checked_neg(self) -> Result<Money, Error> {
        let amount_cents = self.amount_cents.checked_neg().ok_or(Error::OutOfRange)?;
        Ok(Money::new(amount_cents, self.currency))
    }

    /// The amount times a whole number.
    pub fn checked_mul(self, factor: i64) -> Result<Money, Error> {
        let amount_cents = self
            .amount_cents
            .checked_mul(factor)
            .ok_or(Error::OutOfRange)?;
        Ok(Money::new(amount_cents, self.currency))
    }

    /// Splits the amount in proportion to `weights`; the parts add up to the whole, to the unit.
    ///
    /// Each part is the proportional share rounded towards zero; the units left over go one by one to the shares
    /// that lost most (largest remainder, by absolute value, ties to the earlier part). An error when the weights
    /// add up to nothing.
    pub fn allocate(self, weights: &[u64]) -> Result<Vec<Money>, Error> {
        let whole = u128::from(self.amount_cents.unsigned_abs());
        let total: u128 = weights.iter().copied().map(u128::from).sum();
        if total == 0 {
            return Err(Error::NothingToDivideBy);
        }
        // 2^63 × 2^64 fits in 128 bits, so the product is exact.
        let mut parts: Vec<u128> = weights
            .iter()
            .map(|weight| whole * u128::from(*weight) / total)
            .collect();
        let mut by_loss: Vec<usize> = (0..weights.len()).collect();
        by_loss.sort_by_key(|part| std::cmp::Reverse(whole * u128::from(weights[*part]) % total));
        let left_over = whole - parts.iter().sum::<u128>();
        // Fewer units are left over than there are parts: each part lost less than one.
        let left_over = usize::try_from(left_over).map_err(out_of_range)?;
        for part in by_loss.into_iter().take(left_over) {
            parts[part] += 1;
        }
        parts
            .into_iter()
            .map(|part| {
                let part = i128::try_from(part).map_err(out_of_range)?;
                let signed = if self.amount_cents < 0 { -part } else { part };
                Ok(Money::new(narrow(signed)?, self.currency))
            })
            .collect()
    }

    /// The amount in major units with a dot and the currency's own number of decimals: `29.99`, `2999`, `-2.990`.
    /// What CSV columns and the `*_dollars` fields carry.
    pub fn to_decimal(self) -> String {
        let (whole, fraction) = self.digits();
        let minus = if self.amount_cents < 0 { "-" } else { "" };
        if fraction.is_empty() {
            format!("{minus}{whole}")
        } else {
            format!("{minus}{whole}.{fraction}")
        }
    }

    /// The amount as people read it: `$29.99`, `¥2,999`, `KWD 2.990`, `-€1,000.00`.
    pub fn format(self) -> String {
        let (whole, fraction) = self.digits();
        let mut text = String::new();
        if self.amount_cents < 0 {
            text.push('-');
        }
        match self.currency.sign() {
            Some(sign) => text.push_str(sign),
            None => {
                text.push_str(self.currency.as_str());
                text.push(' ');
            }
        }
        for (position, digit) in whole.chars().enumerate() {
            if position > 0 && (whole.len() - position).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        if !fraction.is_empty() {
            text.push('.');
            text.push_str(&fraction);
        }
        text
    }

    /// The digits before and after the decimal point, without sign.
    fn digits(self) -> (String, String) {
        let unit = 10_u64.pow(self.currency.exponent());
        let amount = self.amount_cents.unsigned_abs();
        let fraction = match self.currency.exponent() {
            0 => String::new(),
            3 => format!("{:03}", amount % unit),
            _ => format!("{:02}", amount % unit),
        };
        ((amount / unit).to_string(), fraction)
    }

    fn same_currency(self, other: Money) -> Result<(), Error> {
        if self.currency == other.currency {
            Ok(())
        } else {
            Err(Error::CurrencyMismatch {
                left: self.currency,
                right: other.currency,
            })
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.format())
    }
}

/// The quotient rounded to the nearest whole number, a tie to the even one.
pub fn div_half_even(numerator: i128, denominator: i128) -> Result<i128, Error> {
    if denominator == 0 {
        return Err(Error::NothingToDivideBy);
    }
    let quotient = numerator
        .checked_div(denominator)
        .ok_or(Error::OutOfRange)?;
    let remainder = numerator
        .checked_rem(denominator)
        .ok_or(Error::OutOfRange)?
        .unsigned_abs();
    let rest = denominator.unsigned_abs() - remainder;
    let away_from_zero = match remainder.cmp(&rest) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Less => false,
    };
    if !away_from_zero {
        return Ok(quotient);
    }
    let step = if (numerator < 0) == (denominator < 0) {
        1
    } else {
        -1
    };
    quotient.checked_add(step).ok_or(Error::OutOfRange)
}

/// [`div_half_even`] for a result that is an amount.
pub fn div_half_even_cents(numerator: i128, denominator: i128) -> Result<i64, Error> {
    narrow(div_half_even(numerator, denominator)?)
}

/// A wide intermediate result as an amount; an error when it does not fit.
pub fn narrow(wide: i128) -> Result<i64, Error> {
    i64::try_from(wide).map_err(out_of_range)
}

fn out_of_range(_: std::num::TryFromIntError) -> Error {
    Error::OutOfRange
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn money(amount_cents: i64, currency: &str) -> Money {
        Money::new(amount_cents, Currency::parse(currency).unwrap())
    }

    #[test]
    fn amounts_print_with_the_exponent_of_their_currency() {
        for (amount_cents, currency, printed, decimal) in [
            (2_999, "JPY", "¥2,999", "2999"),
            (2_990, "KWD", "KWD 2.990", "2.990"),
            (2_999, "USD", "$29.99", "29.99"),
            (-2_999, "USD", "-$29.99", "-29.99"),
            (-5, "EUR", "-€0.05", "-0.05"),
            (0, "GBP", "£0.00", "0.00"),
            (123_456_789, "USD", "$1,234,567.89", "1234567.89"),
            (100_000, "USD", "$1,000.00", "1000.00"),
            (99_999, "USD", "$999.99", "999.99"),
            (50_000, "ISK", "ISK 500.00", "500.00"),
            (500, "UGX", "UGX 500", "500"),
            (-1, "TND", "-TND 0.001", "-0.001"),
            (
                i64::MIN,
                "USD",
                "-$92,233,720,368,547,758.08",
                "-92233720368547758.08",
            ),
        ] {
            assert_eq!(money(amount_cents, currency).format(), printed);
            assert_eq!(money(amount_cents, currency).to_decimal(), decimal);
        }
    }

    #[test]
    fn a_currency_is_three_letters_of_any_case() {
        assert_eq!(Currency::parse("usd").unwrap().as_str(), "USD");
        assert_eq!(Currency::parse("Eur").unwrap().to_string(), "EUR");
        for refused in ["", "US", "USDT", "U$D", "ÄB", "us "] {
            assert_eq!(Currency::parse(refused), Err(Error::InvalidCurrency));
        }
        let read: Currency = serde_json::from_str("\"jpy\"").unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), "\"JPY\"");
    }

    #[test]
    fn two_currencies_are_never_added() {
        let error = money(1, "USD").checked_add(money(1, "EUR")).unwrap_err();
        assert_eq!(error.to_string(), "USD and EUR cannot be added");
        assert!(money(1, "USD").checked_sub(money(1, "EUR")).is_err());
    }

    #[test]
    fn a_sum_beyond_the_range_is_an_error() {
        assert_eq!(
            money(i64::MAX, "USD").checked_add(money(1, "USD")),
            Err(Error::OutOfRange)
        );
        assert_eq!(
            money(i64::MIN, "USD").checked_sub(money(1, "USD")),
            Err(Error::OutOfRange)
        );
        assert_eq!(money(i64::MIN, "USD").checked_neg(), Err(Error::OutOfRange));
        assert_eq!(
            money(i64::MAX, "USD").checked_mul(2),
            Err(Error::OutOfRange)
        );
    }

    #[test]
    fn a_half_goes_to_the_even_neighbour() {
        for (numerator, denominator, quotient) in [
            (5, 2, 2),
            (7, 2, 4),
            (-5, 2, -2),
            (-7, 2, -4),
            (5, -2, -2),
            (7, -2, -4),
            (1, 3, 0),
            (2, 3, 1),
            (-2, 3, -1),
            (1, 2, 0),
            (3, 2, 2),
            (0, 7, 0),
            (10, 5, 2),
        ] {
            assert_eq!(div_half_even(numerator, denominator), Ok(quotient));
        }
        assert_eq!(div_half_even(1, 0), Err(Error::NothingToDivideBy));
        assert_eq!(div_half_even(i128::MIN, -1), Err(Error::OutOfRange));
        assert_eq!(
            div_half_even(i128::MAX, i128::MAX - 1),
            Ok(1),
            "the widest numbers divide without overflow"
        );
        assert_eq!(
            div_half_even_cents(i128::from(i64::MAX) + 1, 1),
            Err(Error::OutOfRange)
        );
    }

    #[test]
    fn what_is_left_over_goes_to_the_largest_remainder() {
        let parts = |amount, weights: &[u64]| -> Vec<i64> {
            let split = money(amount, "USD").allocate(weights).unwrap();
            split.iter().map(|part| part.amount_cents).collect()
        };
        assert_eq!(parts(100, &[1, 1, 1]), [34, 33, 33], "ties go by order");
        assert_eq!(parts(-100, &[1, 1, 1]), [-34, -33, -33]);
        assert_eq!(parts(10, &[5, 3, 4]), [4, 3, 3]);
        assert_eq!(parts(5, &[0, 1, 0]), [0, 5, 0]);
        assert_eq!(parts(i64::MIN, &[u64::MAX]), [i64::MIN]);
        assert_eq!(
            money(1, "USD").allocate(&[0, 0]),
            Err(Error::NothingToDivideBy)
        );
        assert_eq!(money(1, "USD").allocate(&[]), Err(Error::NothingToDivideBy));
    }

    proptest! {
        #[test]
        fn the_parts_of_a_split_add_up_to_the_whole(
            amount in any::<i64>(),
            weights in proptest::collection::vec(any::<u64>(), 1..20),
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let whole = Money::new(amount, Currency::USD);
            let parts = whole.allocate(&weights).unwrap();
            let sum: i128 = parts.iter().map(|part| i128::from(part.amount_cents)).sum();
            prop_assert_eq!(sum, i128::from(amount));
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!(part.amount_cents.signum() * amount.signum() >= 0);
                if *weight == 0 {
                    prop_assert_eq!(part.amount_cents, 0);
                }
            }
        }

        #[test]
        fn a_rounded_quotient_is_within_half_a_unit(
            numerator in -(1_i128 << 100)..(1_i128 << 100),
            denominator in 1_i128..(1 << 60),
        ) {
            let quotient = div_half_even(numerator, denominator).unwrap();
            let error = (numerator - quotient * denominator).abs();
            prop_assert!(error * 2 <= denominator);
            if error * 2 == denominator {
                prop_assert_eq!(quotient % 2, 0);
            }
            prop_assert_eq!(div_half_even(-numerator, denominator).unwrap(), -quotient);
        }
    }
}
