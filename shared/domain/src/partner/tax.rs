//! Taxes of partners' invoices: one rounding for each tax, whatever the number of lines.
//!
//! A tax is computed from the printed taxable sum of its lines, once, half away from zero (Streamlined Sales Tax s. 324,
//! EN 16931 BR-CO-17), and is then split among those lines. There is no tax on tax.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::money::{self, div_half_away, narrow};

/// The rounding rule that is stored with every invoice taxed here.
pub const ROUNDING: &str = "half_away_per_tax";

/// Most taxes of a contract.
pub const TAXES_MAX: usize = 8;

/// Ten-thousandths of a percent in one percent.
const PER_PERCENT: u32 = 10_000;
/// What an amount times a [`Percentage`] is divided by.
const WHOLE: i128 = 1_000_000;

/// A percentage from 0 to 100 with at most four decimals. As people write it: a decimal number in a text, `8.875`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage(u32);

impl Percentage {
    /// From hundredths of a percent.
    #[must_use]
    pub fn from_bps(bps: u32) -> Option<Percentage> {
        (bps <= 10_000).then_some(Percentage(bps * 100))
    }

    /// In hundredths of a percent, half away from zero.
    #[must_use]
    pub fn bps(self) -> u32 {
        (self.0 + 50) / 100
    }

    /// The percentage of an amount in minor units, as millionths of a minor unit: exact.
    fn of(self, amount_cents: i64) -> i128 {
        i128::from(amount_cents) * i128::from(self.0)
    }
}

impl FromStr for Percentage {
    type Err = InvalidPercentage;

    /// Digits with at most one point, no sign and no exponent.
    fn from_str(text: &str) -> Result<Percentage, InvalidPercentage> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || whole.len() > 3 || decimals.len() > 4 {
            return Err(InvalidPercentage);
        }
        let whole: u32 = whole.parse().map_err(|_not_digits| InvalidPercentage)?;
        let decimals: u32 = format!("{decimals:0<4}")
            .parse()
            .map_err(|_not_digits| InvalidPercentage)?;
        let parts = whole * PER_PERCENT + decimals;
        if parts > 100 * PER_PERCENT {
            return Err(InvalidPercentage);
        }
        Ok(Percentage(parts))
    }
}

/// A text that is no [`Percentage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a decimal number in a text from 0 to 100 with at most four decimals, as in \"8.875\"")]
pub struct InvalidPercentage;

impl fmt::Display for Percentage {
    /// Without superfluous zeros: `19`, `8.875`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / PER_PERCENT, self.0 % PER_PERCENT);
        if decimals == 0 {
            return write!(formatter, "{whole}");
        }
        let decimals = format!("{decimals:04}");
        write!(formatter, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

impl Serialize for Percentage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Percentage, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_no_text| D::Error::custom(InvalidPercentage))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl PartialSchema for Percentage {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(r"^[0-9]{1,3}(\.[0-9]{1,4})?$"))
            .description(Some(
                "A percentage from 0 to 100 with at most four decimals",
            ))
            .examples(["8.875"])
            .into()
    }
}

impl ToSchema for Percentage {}

/// A tax that a contract's invoices carry on every line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tax {
    /// As it is printed: `VAT`, `NY State Sales Tax`.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// Whose tax it is: `DE`, `New York`.
    #[schema(min_length = 1, max_length = 255)]
    #[serde(default)]
    pub jurisdiction: Option<String>,
    pub percentage: Percentage,
    /// The number under which we are registered for it.
    #[schema(min_length = 1, max_length = 255)]
    #[serde(default)]
    pub registration: Option<String>,
}

impl Tax {
    /// The shorthand: one tax without a name of its own.
    #[must_use]
    pub fn unnamed(percentage: Percentage) -> Tax {
        Tax {
            name: "Tax".to_owned(),
            jurisdiction: None,
            percentage,
            registration: None,
        }
    }

    /// What tells one tax from another on a document.
    fn key(&self) -> (&str, Option<&str>, Percentage) {
        (&self.name, self.jurisdiction.as_deref(), self.percentage)
    }

    /// Whether both print as one tax.
    #[must_use]
    pub fn is_same(&self, other: &Tax) -> bool {
        self.key() == other.key()
    }
}

/// Taxes in hundredths of a percent, each rounded half away from zero, and added up.
#[must_use]
pub fn sum_bps(taxes: &[Tax]) -> i32 {
    let bps: u32 = taxes.iter().map(|tax| tax.percentage.bps()).sum();
    i32::try_from(bps).unwrap_or(i32::MAX)
}

/// One tax of a document, as it is stored in `invoices.tax_breakdown`. Amounts in minor units of the document's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaxGroup {
    pub name: String,
    pub jurisdiction: Option<String>,
    pub percentage: Percentage,
    pub registration: Option<String>,
    /// The sum of the lines that the tax is on.
    pub taxable_cents: i64,
    pub tax_cents: i64,
}

impl TaxGroup {
    /// The tax, without its amounts.
    #[must_use]
    pub fn tax(&self) -> Tax {
        Tax {
            name: self.name.clone(),
            jurisdiction: self.jurisdiction.clone(),
            percentage: self.percentage,
            registration: self.registration.clone(),
        }
    }
}

/// A line's share of one tax, in minor units of the document's currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LineTax {
    pub name: String,
    pub jurisdiction: Option<String>,
    pub percentage: Percentage,
    pub tax_cents: i64,
}

impl LineTax {
    /// Whether it is a share of this tax.
    #[must_use]
    pub fn is_of(&self, tax: &Tax) -> bool {
        tax.key() == (&self.name, self.jurisdiction.as_deref(), self.percentage)
    }
}

/// An amount before tax and the taxes on it.
#[derive(Debug, Clone, Copy)]
pub struct Taxable<'a> {
    pub amount_cents: i64,
    pub taxes: &'a [Tax],
}

/// The taxes of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessed {
    /// In the order in which the lines first name them.
    pub groups: Vec<TaxGroup>,
    /// Of each line, its share of each of its taxes.
    pub shares: Vec<Vec<LineTax>>,
}

/// The taxes of some lines: for each (name, jurisdiction, percentage) the sum of its lines times the percentage, rounded
/// once to a multiple of `step_cents`, half away from zero. A line's share is the floor of the exact share, then one step
/// each goes to the lines with the largest fractions, the earlier line first.
///
/// # Errors
/// When an amount is out of range.
pub fn assess(lines: &[Taxable<'_>], step_cents: i64) -> Result<Assessed, money::Error> {
    let mut taxes: Vec<&Tax> = Vec::new();
    for tax in lines.iter().flat_map(|line| line.taxes) {
        if !taxes.iter().any(|known| known.is_same(tax)) {
            taxes.push(tax);
        }
    }
    let mut groups = Vec::with_capacity(taxes.len());
    let mut shares: Vec<Vec<LineTax>> = vec![Vec::new(); lines.len()];
    for tax in taxes {
        let of_tax: Vec<(usize, i64)> = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.taxes.iter().any(|other| other.is_same(tax)))
            .map(|(place, line)| (place, line.amount_cents))
            .collect();
        let taxable_cents = of_tax
            .iter()
            .try_fold(0_i64, |sum, (_, cents)| sum.checked_add(*cents))
            .ok_or(money::Error::OutOfRange)?;
        let tax_cents = tax_of(tax.percentage, taxable_cents, step_cents)?;
        let amounts: Vec<i64> = of_tax.iter().map(|(_, cents)| *cents).collect();
        let split = split(tax.percentage, &amounts, tax_cents, step_cents)?;
        for ((place, _), tax_cents) in of_tax.into_iter().zip(split) {
            shares[place].push(LineTax {
                name: tax.name.clone(),
                jurisdiction: tax.jurisdiction.clone(),
                percentage: tax.percentage,
                tax_cents,
            });
        }
        groups.push(TaxGroup {
            name: tax.name.clone(),
            jurisdiction: tax.jurisdiction.clone(),
            percentage: tax.percentage,
            registration: tax.registration.clone(),
            taxable_cents,
            tax_cents,
        });
    }
    Ok(Assessed { groups, shares })
}

/// The tax on an amount, rounded to a multiple of `step_cents`, half away from zero.
///
/// # Errors
/// When the tax is out of range.
pub fn tax_of(
    percentage: Percentage,
    taxable_cents: i64,
    step_cents: i64,
) -> Result<i64, money::Error> {
    let step = i128::from(step_cents);
    narrow(div_half_away(percentage.of(taxable_cents), WHOLE * step)? * step)
}

/// The tax of the next part of what is credited in parts: the tax on everything credited so far, less what the parts
/// before were given. The parts of the whole therefore have the tax of the whole.
///
/// # Errors
/// When an amount is out of range.
pub fn tax_of_part(
    percentage: Percentage,
    credited_before_cents: i64,
    part_cents: i64,
    step_cents: i64,
) -> Result<i64, money::Error> {
    let so_far_cents = credited_before_cents
        .checked_add(part_cents)
        .ok_or(money::Error::OutOfRange)?;
    let so_far = tax_of(percentage, so_far_cents, step_cents)?;
    let before = tax_of(percentage, credited_before_cents, step_cents)?;
    so_far.checked_sub(before).ok_or(money::Error::OutOfRange)
}

/// The shares of `tax_cents` among the amounts it is on.
fn split(
    percentage: Percentage,
    amounts: &[i64],
    tax_cents: i64,
    step_cents: i64,
) -> Result<Vec<i64>, money::Error> {
    let unit = WHOLE * i128::from(step_cents);
    let exact: Vec<i128> = amounts.iter().map(|cents| percentage.of(*cents)).collect();
    // In steps. A rounded sum is never below the sum of the floors.
    let mut shares: Vec<i128> = exact.iter().map(|share| share.div_euclid(unit)).collect();
    let left = i128::from(tax_cents) / i128::from(step_cents) - shares.iter().sum::<i128>();
    let mut places: Vec<usize> = (0..exact.len()).collect();
    places.sort_by_key(|place| std::cmp::Reverse(exact[*place].rem_euclid(unit)));
    for place in places.into_iter().take(usize::try_from(left).unwrap_or(0)) {
        shares[place] += 1;
    }
    shares
        .into_iter()
        .map(|steps| narrow(steps * i128::from(step_cents)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percent(text: &str) -> Percentage {
        text.parse().unwrap()
    }

    fn tax(name: &str, percentage: &str) -> Tax {
        Tax {
            name: name.to_owned(),
            ..Tax::unnamed(percent(percentage))
        }
    }

    /// The tax of the lines, and each line's share.
    fn taxed(percentage: &str, lines: &[i64]) -> (i64, Vec<i64>) {
        let taxes = [tax("Tax", percentage)];
        let lines: Vec<Taxable<'_>> = lines
            .iter()
            .map(|cents| Taxable {
                amount_cents: *cents,
                taxes: &taxes,
            })
            .collect();
        let assessed = assess(&lines, 1).unwrap();
        let shares = assessed.shares.iter();
        (
            assessed.groups[0].tax_cents,
            shares.map(|shares| shares[0].tax_cents).collect(),
        )
    }

    #[test]
    fn a_percentage_is_a_decimal_text_with_four_decimals() {
        for (text, printed) in [
            ("0", "0"),
            ("8.875", "8.875"),
            ("8.8750", "8.875"),
            ("019", "19"),
            ("100.0000", "100"),
            ("0.0001", "0.0001"),
        ] {
            assert_eq!(percent(text).to_string(), printed);
        }
        for text in [
            "", ".", "5.", ".5", "-1", "+1", "1e1", "100.0001", "8.87505", "8,5", " 8", "1000",
        ] {
            assert_eq!(text.parse::<Percentage>(), Err(InvalidPercentage), "{text}");
        }
        assert_eq!(Percentage::from_bps(1_900), Some(percent("19")));
        assert_eq!(Percentage::from_bps(10_001), None);
        assert_eq!(percent("8.875").bps(), 888);
        assert!(serde_json::from_str::<Percentage>("19").is_err());
    }

    #[test]
    fn a_tax_is_rounded_once_half_away_from_zero() {
        assert_eq!(taxed("8.875", &[10_000]), (888, vec![888]));
        assert_eq!(taxed("19", &[78_750]).0, 14_963);
        assert_eq!(taxed("5", &[10, 10, 10, 10, 10]), (3, vec![1, 1, 1, 0, 0]));
        assert_eq!(
            taxed("8.25", &[100_000, 50_000, 150_000, 125_000, 75_000]).0,
            41_250
        );
        assert_eq!(taxed("10", &[1_127]).0, 113);
        assert_eq!(taxed("19", &[-78_750]).0, -14_963);
    }

    #[test]
    fn the_largest_fraction_gets_the_unit_that_is_left() {
        // 0.4, 0.9 and 0.4 of a unit are 2 in all.
        assert_eq!(taxed("10", &[4, 9, 4]), (2, vec![1, 1, 0]));
        // −0.4, 0.9 and 0.5: 1 in all; the floors are −1, 0, 0.
        assert_eq!(taxed("10", &[-4, 9, 5]), (1, vec![0, 1, 0]));
    }

    #[test]
    fn parts_of_a_credit_have_the_tax_of_the_whole() {
        let part = |before| tax_of_part(percent("5"), before, 10, 1).unwrap();
        assert_eq!([part(0), part(10), part(20)], [1, 0, 1]);
        assert_eq!(tax_of(percent("5"), 30, 1), Ok(2));
    }

    #[test]
    fn each_name_jurisdiction_and_percentage_is_a_tax_of_its_own() {
        let (state, city, then) = (tax("State", "4"), tax("City", "4.875"), tax("State", "3.5"));
        let today = [state.clone(), city];
        let before = [then];
        let line = |amount_cents, taxes| Taxable {
            amount_cents,
            taxes,
        };
        let assessed = assess(
            &[line(10_000, &today), line(-1_000, &before), line(5, &[])],
            1,
        )
        .unwrap();
        let groups: Vec<(&str, String, i64, i64)> = assessed
            .groups
            .iter()
            .map(|group| {
                let percentage = group.percentage.to_string();
                (
                    group.name.as_str(),
                    percentage,
                    group.taxable_cents,
                    group.tax_cents,
                )
            })
            .collect();
        assert_eq!(
            groups,
            [
                ("State", "4".to_owned(), 10_000, 400),
                ("City", "4.875".to_owned(), 10_000, 488),
                ("State", "3.5".to_owned(), -1_000, -35),
            ]
        );
        assert_eq!(assessed.shares[2], []);
    }

    #[test]
    fn where_stripe_collects_a_tax_is_in_its_steps() {
        let vat = [tax("VAT", "5")];
        let lines = [12_340, 330].map(|amount_cents| Taxable {
            amount_cents,
            taxes: &vat,
        });
        let assessed = assess(&lines, 10).unwrap();
        assert_eq!(assessed.groups[0].tax_cents, 630);
        let shares: Vec<i64> = assessed.shares.iter().map(|of| of[0].tax_cents).collect();
        assert_eq!(shares, [620, 10]);
    }

    proptest! {
        #[test]
        fn a_tax_is_the_sum_of_its_lines(
            amounts in proptest::collection::vec(-1_000_000_i64..1_000_000, 1..12),
            parts in 0_u32..=1_000_000,
            step in prop_oneof![Just(1_i64), Just(10), Just(100)],
        ) {
            let taxes = [Tax::unnamed(Percentage(parts))];
            let lines: Vec<Taxable<'_>> = amounts.iter()
                .map(|cents| Taxable { amount_cents: *cents, taxes: &taxes }).collect();
            let assessed = assess(&lines, step).unwrap();
            let group = &assessed.groups[0];
            let shares: i64 = assessed.shares.iter().map(|of| of[0].tax_cents).sum();
            prop_assert_eq!(shares, group.tax_cents);
            prop_assert_eq!(group.tax_cents % step, 0);
            for (share, amount_cents) in assessed.shares.iter().zip(&amounts) {
                // Each is its exact share, rounded down or up.
                let exact = Percentage(parts).of(*amount_cents);
                let off = i128::from(share[0].tax_cents) * WHOLE - exact;
                prop_assert!(off.abs() < WHOLE * i128::from(step));
            }
        }

        #[test]
        fn parts_add_up(
            parts in proptest::collection::vec(0_i64..100_000, 1..9),
            percentage in 0_u32..=1_000_000,
        ) {
            let percentage = Percentage(percentage);
            let (mut before, mut tax_cents) = (0, 0);
            for part in &parts {
                tax_cents += tax_of_part(percentage, before, *part, 1).unwrap();
                before += part;
            }
            prop_assert_eq!(tax_cents, tax_of(percentage, before, 1).unwrap());
        }
    }
}
