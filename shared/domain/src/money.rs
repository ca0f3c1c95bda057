//! Money: integer minor units with their currency, checked arithmetic, one rounding rule, one way to split.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Why an amount could not be computed or a currency not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not three ASCII letters.
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
    /// A division by zero, or a split over weights that add up to zero.
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

    /// The ISO 4217 code in upper case.
    pub fn as_str(&self) -> &str {
        // Expect safety: `parse` is the only constructor and accepts ASCII letters alone.
        std::str::from_utf8(&self.0).expect("a currency is ASCII")
    }

    /// How many decimals the minor unit has **at Stripe**, which is not ISO 4217: ISK and UGX count hundredths there,
    /// always whole hundreds of them. <https://docs.stripe.com/currencies#special-cases>
    pub fn exponent(self) -> u32 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"JPY" | b"KMF" | b"KRW" | b"MGA" | b"PYG"
            | b"RWF" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"JOD" | b"KWD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// The smallest amount that Stripe charges is a multiple of this many minor units: currencies with three decimals end
    /// in a 0 there, and ISK and UGX in 00. <https://docs.stripe.com/currencies#special-cases>
    #[must_use]
    pub fn stripe_step_cents(self) -> i64 {
        match &self.0 {
            b"ISK" | b"UGX" => 100,
            _ if self.exponent() == 3 => 10,
            _ => 1,
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
    /// The currency whose minor units `amount_cents` counts.
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

    /// A zero amount in `currency`.
    pub fn zero(currency: Currency) -> Money {
        Money::new(0, currency)
    }

    /// The sum.
    ///
    /// # Errors
    /// When the currencies differ, or the sum does not fit.
    pub fn checked_add(self, other: Money) -> Result<Money, Error> {
        self.same_currency(other)?;
        let amount_cents = self.amount_cents.checked_add(other.amount_cents);
        Ok(Money::new(
            amount_cents.ok_or(Error::OutOfRange)?,
            self.currency,
        ))
    }

    /// The difference.
    ///
    /// # Errors
    /// When the currencies differ, or the difference does not fit.
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

/// The quotient rounded to the nearest whole number, a tie to the one farther from zero.
pub fn div_half_away(numerator: i128, denominator: i128) -> Result<i128, Error> {
    let twice = denominator.checked_mul(2).ok_or(Error::OutOfRange)?;
    let half = match (numerator < 0) == (denominator < 0) {
        true => denominator,
        false => denominator.checked_neg().ok_or(Error::OutOfRange)?,
    };
    numerator
        .checked_mul(2)
        .and_then(|numerator| numerator.checked_add(half))
        .ok_or(Error::OutOfRange)?
        .checked_div(twice)
        .ok_or(Error::NothingToDivideBy)
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
    fn a_tie_goes_away_from_zero() {
        for (numerator, denominator, quotient) in [
            (5, 2, 3),
            (-5, 2, -3),
            (5, -2, -3),
            (-5, -2, 3),
            (3, 2, 2),
            (7, 3, 2),
            (8, 3, 3),
            (-7, 3, -2),
            (0, 7, 0),
        ] {
            assert_eq!(div_half_away(numerator, denominator), Ok(quotient));
        }
        assert_eq!(div_half_away(1, 0), Err(Error::NothingToDivideBy));
        assert_eq!(div_half_away(i128::MAX, 3), Err(Error::OutOfRange));
    }

    #[test]
    fn stripe_charges_some_currencies_in_steps() {
        for (currency, step_cents) in [
            ("USD", 1),
            ("JPY", 1),
            ("KWD", 10),
            ("ISK", 100),
            ("UGX", 100),
        ] {
            let currency = Currency::parse(currency).unwrap();
            assert_eq!(currency.stripe_step_cents(), step_cents, "{currency}");
        }
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
            (500, "UGX", "UGX 5.00", "5.00"),
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

    proptest! {
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
