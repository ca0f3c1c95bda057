//! Prices and coupons: what recurring revenue needs of them, and what one item amounts to.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use num_rational::Ratio;
use num_traits::{CheckedAdd, CheckedMul, CheckedSub};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::money::Currency;
use crate::stripe_objects::objects::Ids;
use crate::stripe_objects::snapshot::{Snapshot, Version, earliest, known};

/// An exact amount in minor units. A fraction, since `1000/week` per month is not a decimal number.
pub type ExactAmount = Ratio<i128>;

/// Why an amount could not be computed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("`{0}` is not a decimal amount")]
    NotDecimal(String),
    #[error("an amount is out of range")]
    OutOfRange,
}

/// The terms of a recurring price, from the subscription item itself or from a `price` object.
/// Source: <https://docs.stripe.com/api/prices/object>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Price {
    /// Stripe's price id (`price_…`), or the id of a legacy plan.
    #[serde(rename = "price")]
    pub stripe_price_id: String,
    #[serde(rename = "product")]
    pub stripe_product_id: Option<String>,
    pub currency: Option<Currency>,
    /// Minor units as decimal text, down to 12 places; `None` for tiered prices.
    pub unit_amount_decimal: Option<String>,
    pub billing_scheme: Option<String>,
    pub tiers: Option<Vec<Tier>>,
    pub tiers_mode: Option<String>,
    /// The price in its other currencies; `None` until a fetched price shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency_options: Option<BTreeMap<Currency, CurrencyOption>>,
    pub transform_quantity: Option<TransformQuantity>,
    /// `day`, `week`, `month` or `year`; `None` for a one-time price.
    pub interval: Option<String>,
    pub interval_count: Option<i32>,
    /// Stripe's word: `licensed` or `metered`.
    pub usage_type: Option<String>,
    pub lookup_key: Option<String>,
    pub nickname: Option<String>,
    /// The plan in the price's metadata (`metadata.plan`).
    pub plan: Option<String>,
}

/// One tier of a price. `up_to: None` marks the last one. Amounts are minor units as decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    pub up_to: Option<i64>,
    pub unit_amount_decimal: Option<String>,
    pub flat_amount_decimal: Option<String>,
}

/// The amounts of a price in one of its other currencies, in minor units of that currency.
/// Source: <https://docs.stripe.com/api/prices/object#price_object-currency_options>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrencyOption {
    /// The price per unit in minor units, as decimal text.
    pub unit_amount_decimal: Option<String>,
    pub tiers: Option<Vec<Tier>>,
}

/// Packages: the quantity is divided by a package size and rounded before it is priced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformQuantity {
    pub divide_by: i64,
    /// Either `up` or `down`.
    pub round: String,
}

/// A price as its own object announced it.
#[derive(Debug, Clone, PartialEq)]
pub struct PriceSnapshot {
    pub price: Price,
    pub metadata: serde_json::Value,
    pub active: Option<bool>,
    pub deleted_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
}

impl Snapshot for PriceSnapshot {
    fn key(&self) -> String {
        self.price.stripe_price_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.prices.push(self.price.stripe_price_id.clone());
    }

    fn absorb(&mut self, earlier: &PriceSnapshot) {
        earliest(&mut self.deleted_at, earlier.deleted_at);
        // Webhooks never carry tiers; a fetched price does. Amounts of a price never change.
        if self.price.tiers.is_none() {
            self.price.tiers.clone_from(&earlier.price.tiers);
        }
        for (currency, option) in earlier.price.currency_options.iter().flatten() {
            let shown = self.price.currency_options.get_or_insert_default();
            shown.entry(*currency).or_insert_with(|| option.clone());
        }
    }
}

/// What a coupon takes off. Source: <https://docs.stripe.com/api/coupons/object>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coupon {
    #[serde(rename = "coupon")]
    pub stripe_coupon_id: String,
    /// Percent as decimal text: `25` is a quarter.
    pub percent_off: Option<String>,
    pub amount_off_cents: Option<i64>,
    pub currency: Option<Currency>,
    /// `forever`, `once` or `repeating`.
    pub duration: String,
    pub duration_in_months: Option<i32>,
    /// The products it reduces; none means all. `None` while nobody has shown them: events leave them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applies_to: Option<Vec<String>>,
    /// What it takes off in other currencies, in minor units; `None` while nobody has shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency_options: Option<BTreeMap<Currency, i64>>,
}

impl Coupon {
    /// Whether nothing is missing that decides what it takes off a subscription in this currency.
    #[must_use]
    pub fn is_complete(&self, currency: Option<Currency>) -> bool {
        self.applies_to.is_some()
            && (self.amount_in(currency).is_some() || self.currency_options.is_some())
    }

    /// What it takes off in a currency, in minor units; 0 for a percentage. `None` when that is not known.
    #[must_use]
    pub fn amount_in(&self, currency: Option<Currency>) -> Option<i64> {
        match self.amount_off_cents.filter(|_| self.percent_off.is_none()) {
            None => Some(0),
            Some(amount) if self.currency.is_none() || self.currency == currency => Some(amount),
            Some(_) => self.currency_options.as_ref()?.get(&currency?).copied(),
        }
    }

    /// Whether it reduces what is paid for the product.
    #[must_use]
    pub fn reduces(&self, product: Option<&str>) -> bool {
        match self.applies_to.as_deref() {
            None | Some([]) => true,
            Some(products) => {
                product.is_some_and(|product| products.iter().any(|one| one == product))
            }
        }
    }

    /// Takes over what an earlier snapshot showed and this one leaves out.
    pub fn absorb(&mut self, earlier: &Coupon) {
        if self.applies_to.is_none() {
            self.applies_to.clone_from(&earlier.applies_to);
        }
        if self.currency_options.is_none() {
            self.currency_options.clone_from(&earlier.currency_options);
        }
    }
}

/// A coupon as an event announced it.
#[derive(Debug, Clone, PartialEq)]
pub struct CouponSnapshot {
    pub coupon: Coupon,
    pub deleted_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
}

impl Snapshot for CouponSnapshot {
    fn key(&self) -> String {
        self.coupon.stripe_coupon_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.coupons.push(self.coupon.stripe_coupon_id.clone());
    }

    fn absorb(&mut self, earlier: &CouponSnapshot) {
        self.coupon.absorb(&earlier.coupon);
        earliest(&mut self.deleted_at, earlier.deleted_at);
        earliest(&mut self.created_at, earlier.created_at);
    }
}

/// A discount as a subscription names it. From API version basil on it is often only the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discount {
    #[serde(rename = "discount")]
    pub stripe_discount_id: Option<String>,
    #[serde(rename = "coupon_id")]
    pub stripe_coupon_id: Option<String>,
    pub coupon: Option<Coupon>,
    /// From when on it counts; `None` when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// The first instant at which it counts no more; `None` while no end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
}

impl Discount {
    /// Whether it counts at an instant.
    #[must_use]
    pub fn counts_at(&self, instant: Timestamp) -> bool {
        self.starts_at.is_none_or(|start| start <= instant)
            && self.ends_at().is_none_or(|end| instant < end)
    }

    /// The first instant at which it counts no more: its end, or that of the months of its coupon, whichever is first.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let months = self
            .coupon
            .as_ref()
            .and_then(|coupon| coupon.duration_in_months);
        let of_coupon = self.starts_at.zip(months).and_then(|(start, months)| {
            let start = start.to_zoned(TimeZone::UTC);
            let end = start.checked_add(months.months()).ok()?;
            Some(end.timestamp())
        });
        let ends = [self.ends_at, of_coupon];
        ends.into_iter().flatten().min()
    }
}

/// The application of a coupon to a customer or subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscountSnapshot {
    pub stripe_discount_id: String,
    pub stripe_coupon_id: Option<String>,
    pub stripe_customer_id: Option<String>,
    pub stripe_subscription_id: Option<String>,
    pub ended_at: Option<Timestamp>,
    pub created_at: Option<Timestamp>,
    pub version: Version,
}

impl Snapshot for DiscountSnapshot {
    fn key(&self) -> String {
        self.stripe_discount_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.discounts.push(self.stripe_discount_id.clone());
        // What waits for the discount will wait for its coupon next; what waits for that coupon waits now.
        ids.coupons.extend(self.stripe_coupon_id.clone());
    }

    fn absorb(&mut self, earlier: &DiscountSnapshot) {
        known(&mut self.stripe_coupon_id, &earlier.stripe_coupon_id);
        known(&mut self.stripe_customer_id, &earlier.stripe_customer_id);
        known(
            &mut self.stripe_subscription_id,
            &earlier.stripe_subscription_id,
        );
        earliest(&mut self.ended_at, earlier.ended_at);
        earliest(&mut self.created_at, earlier.created_at);
    }
}

impl Price {
    /// Whether [`Price::amount`] can answer from these terms alone.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_metered()
            || self.interval.is_none()
            || self.unit_amount_decimal.is_some()
            || self.tiers.is_some()
    }

    /// The same price in the subscription's currency, which may differ from its own. The amount is unknown until the
    /// price shows it in that currency; the number of the other currency is never used.
    #[must_use]
    pub fn in_currency(mut self, currency: Option<Currency>) -> Price {
        if currency.is_none() || self.currency.is_none() || currency == self.currency {
            return self;
        }
        let option =
            currency.and_then(|currency| self.currency_options.as_mut()?.remove(&currency));
        self.currency = currency;
        (self.unit_amount_decimal, self.tiers) = match option {
            Some(option) => (option.unit_amount_decimal, option.tiers),
            None => (None, None),
        };
        self.currency_options = None;
        self
    }

    #[must_use]
    pub fn is_metered(&self) -> bool {
        self.usage_type.as_deref() == Some("metered")
    }

    /// What `quantity` costs per billing interval, exact, in minor units; `None` when the terms are not known. Metered
    /// usage is not recurring revenue and costs 0.
    ///
    /// # Errors
    /// When a stored amount is not a decimal, or the result is out of range.
    pub fn amount(&self, quantity: &ExactAmount) -> Result<Option<ExactAmount>, Error> {
        if self.is_metered() || self.interval.is_none() {
            return Ok(Some(zero()));
        }
        let quantity = self.transform(quantity);
        if let Some(tiers) = &self.tiers {
            return self.tiered_amount(tiers, &quantity).map(Some);
        }
        let Some(unit_amount) = &self.unit_amount_decimal else {
            return Ok(None);
        };
        times(&exact(unit_amount)?, &quantity).map(Some)
    }

    /// Converts the `amount` of one billing interval to a month: × intervals per year ÷ 12.
    pub fn per_month(&self, amount: &ExactAmount) -> Result<ExactAmount, Error> {
        let periods_per_year: i64 = match self.interval.as_deref() {
            Some("day") => 365,
            Some("week") => 52,
            Some("month") => 12,
            Some("year") => 1,
            _ => 0,
        };
        let count = self.interval_count.unwrap_or(1).max(1);
        times(
            amount,
            &Ratio::new(i128::from(periods_per_year), i128::from(count) * 12),
        )
    }

    fn transform(&self, quantity: &ExactAmount) -> ExactAmount {
        match &self.transform_quantity {
            Some(transform) if transform.divide_by > 0 => {
                let packages = quantity / whole(transform.divide_by);
                if transform.round == "up" {
                    packages.ceil()
                } else {
                    packages.floor()
                }
            }
            _ => *quantity,
        }
    }

    fn tiered_amount(&self, tiers: &[Tier], quantity: &ExactAmount) -> Result<ExactAmount, Error> {
        let is_volume = self.tiers_mode.as_deref() == Some("volume");
        let mut total = zero();
        let mut below = zero();
        for tier in tiers {
            let up_to = tier.up_to.map(whole);
            let reaches = up_to.is_none_or(|up_to| *quantity <= up_to);
            if is_volume && !reaches {
                continue;
            }
            let end = if reaches {
                *quantity
            } else {
                up_to.unwrap_or(*quantity)
            };
            let units = if is_volume { *quantity } else { end - below };
            let unit = tier
                .unit_amount_decimal
                .as_deref()
                .map_or(Ok(zero()), exact)?;
            let flat = tier
                .flat_amount_decimal
                .as_deref()
                .map_or(Ok(zero()), exact)?;
            total = plus(&total, &plus(&times(&unit, &units)?, &flat)?)?;
            if reaches {
                break;
            }
            below = end;
        }
        Ok(total)
    }
}

/// An amount of zero.
#[must_use]
pub fn zero() -> ExactAmount {
    Ratio::from_integer(0)
}

/// A whole number as an exact amount.
#[must_use]
pub fn whole(number: i64) -> ExactAmount {
    Ratio::from_integer(i128::from(number))
}

/// Decimal text (`1050`, `0.125`, `33.33`) as an exact amount.
///
/// # Errors
/// When the text is not a decimal number.
pub fn exact(text: &str) -> Result<ExactAmount, Error> {
    let decimal = Decimal::from_str_exact(text)
        .or_else(|_not_plain| Decimal::from_scientific(text))
        .map_err(|_not_decimal| Error::NotDecimal(text.to_owned()))?
        .normalize();
    let denominator = 10_i128
        .checked_pow(decimal.scale())
        .ok_or(Error::OutOfRange)?;
    Ok(Ratio::new(decimal.mantissa(), denominator))
}

/// The product of two exact amounts.
pub fn times(left: &ExactAmount, right: &ExactAmount) -> Result<ExactAmount, Error> {
    left.checked_mul(right).ok_or(Error::OutOfRange)
}

/// The sum of two exact amounts.
pub fn plus(left: &ExactAmount, right: &ExactAmount) -> Result<ExactAmount, Error> {
    left.checked_add(right).ok_or(Error::OutOfRange)
}

/// The difference of two exact amounts; zero when it would be negative.
pub fn minus_to_zero(left: &ExactAmount, right: &ExactAmount) -> Result<ExactAmount, Error> {
    Ok(left
        .checked_sub(right)
        .ok_or(Error::OutOfRange)?
        .max(zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiered(mode: &str) -> Price {
        let tier = |up_to, unit: &str, flat: Option<&str>| Tier {
            up_to,
            unit_amount_decimal: Some(unit.to_owned()),
            flat_amount_decimal: flat.map(str::to_owned),
        };
        Price {
            interval: Some("month".into()),
            tiers_mode: Some(mode.into()),
            tiers: Some(vec![
                tier(Some(100), "100", None),
                tier(Some(1000), "80", None),
                tier(None, "50", None),
            ]),
            ..Price::default()
        }
    }

    #[test]
    fn tiers_are_priced_by_slice_or_by_the_tier_reached() {
        for (mode, quantity, expected) in [
            ("graduated", 1500, 107_000),
            ("volume", 1500, 75_000),
            ("graduated", 100, 10_000),
            ("volume", 101, 8_080),
            ("graduated", 0, 0),
        ] {
            let amount = tiered(mode).amount(&whole(quantity)).unwrap().unwrap();
            assert_eq!(amount, whole(expected), "{mode} {quantity}");
        }
    }

    #[test]
    fn packages_round_before_they_are_priced() {
        let price = |round: &str| Price {
            interval: Some("month".into()),
            unit_amount_decimal: Some("500".into()),
            transform_quantity: Some(TransformQuantity {
                divide_by: 10,
                round: round.into(),
            }),
            ..Price::default()
        };
        assert_eq!(price("up").amount(&whole(11)).unwrap(), Some(whole(1000)));
        assert_eq!(price("down").amount(&whole(11)).unwrap(), Some(whole(500)));
    }

    #[test]
    fn a_fraction_of_a_unit_is_priced_exactly() {
        let quantity = exact("100.5").unwrap();
        let amount = tiered("graduated").amount(&quantity).unwrap();
        assert_eq!(amount, Some(whole(10_040)));
        let amount = tiered("volume").amount(&quantity).unwrap();
        assert_eq!(amount, Some(whole(8_040)));
    }

    #[test]
    fn fractions_of_a_cent_stay_exact() {
        assert_eq!(exact("0.125").unwrap(), Ratio::new(1, 8));
        assert_eq!(exact("1e3").unwrap(), whole(1000));
        assert_eq!(exact("ten"), Err(Error::NotDecimal("ten".into())));
    }

    #[test]
    fn an_unknown_amount_is_not_zero() {
        let price = Price {
            interval: Some("month".into()),
            billing_scheme: Some("tiered".into()),
            ..Price::default()
        };
        assert_eq!(price.amount(&whole(3)).unwrap(), None);
    }
}
