//! Pricing: turns a contract and the usage of a period into the lines and the total of an invoice.
//!
//! A line is rounded to the minor unit where it is rated, or to Stripe's step where Stripe collects, half-even; a subtotal
//! is the sum of its rounded lines. Taxes are those of [`super::tax`].

use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::money::{self, Currency, Money, div_half_even, narrow};
use crate::partner::contract::{Contract, PaymentMethod, PricingModel, Tier, TierMode};
use crate::partner::cycle::{BillingPeriod, Share};
use crate::partner::status_codes::StatusCodes;
use crate::partner::tax::{self, LineTax, Tax, TaxGroup, Taxable};
use crate::period::Period;

/// Requests of one block of `per_1000_requests_cents`.
const REQUESTS_PER_BLOCK: i64 = 1_000;

/// What was used in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = UsedInPeriod)]
pub struct Usage {
    /// The cost units counted by the contract's unit source.
    pub units: i64,
    /// The requests counted in `api_usage`.
    pub requests: i64,
}

/// What a line of an invoice is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    FlatFee,
    /// Units or requests beyond the included ones.
    Usage,
    /// What lifts the sum to the minimum commitment.
    MinimumCommitment,
    /// The difference to what an earlier invoice billed for its period.
    Adjustment,
    /// A negative sum that is granted as a credit instead.
    CarriedOver,
}

/// A line of a partner's invoice as it is frozen in `invoices.line_items`: the members of
/// [`crate::stripe_objects::invoice::Line`], the kind of the line and its tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RatedLine {
    pub kind: LineKind,
    pub description: String,
    pub quantity: i64,
    /// The price in whole minor units; null when it has decimals. `unit_amount_decimal` is always exact.
    pub unit_price_cents: Option<i64>,
    pub unit_amount_decimal: Option<String>,
    /// The line's amount before tax.
    pub total_cents: i64,
    /// The sum of the line's shares of its taxes.
    pub tax_cents: i64,
    /// The line's share of each tax that is on it.
    #[serde(default)]
    pub taxes: Vec<LineTax>,
    pub currency: Currency,
    pub price: Option<String>,
    pub product: Option<String>,
    /// Whether the line is for a part of a cycle.
    pub proration: bool,
    pub period_start: Timestamp,
    pub period_end: Timestamp,
}

/// What a period comes to before adjustments: the lines of the flat fee, the usage and the minimum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    pub lines: Vec<RatedLine>,
    /// Whether the contract has a flat fee, a minimum or a fee for its first tier, which zero units reach: then it is
    /// invoiced even when nothing was used.
    pub is_always_billed: bool,
}

/// The lines and amounts of an invoice, in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    pub currency: Currency,
    pub lines: Vec<RatedLine>,
    /// The sum of the lines before tax.
    pub subtotal_cents: i64,
    /// The sum of the taxes.
    pub tax_cents: i64,
    /// What is billed: `subtotal_cents` plus `tax_cents`; never negative.
    pub total_cents: i64,
    /// Tax by tax; they add up to `tax_cents`.
    pub taxes: Vec<TaxGroup>,
    /// What is granted as a credit because the lines would have added up to less than zero; otherwise 0.
    pub carried_over_cents: i64,
    /// The taxes of what is granted, as positive amounts; empty when nothing is.
    pub carried_over_taxes: Vec<TaxGroup>,
}

/// A correction of a period that has been invoiced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// First and last day of the period it corrects.
    pub first_day: Date,
    pub last_day: Date,
    /// The instants `[start, end)` of that period.
    pub period: Period,
    /// In minor units before tax; negative when less was used than billed.
    pub amount_cents: i64,
    /// Units (requests for `per_request`) more than were billed; negative when fewer.
    pub quantity: i64,
    /// What was counted: `units` or `requests`.
    pub counted: &'static str,
    /// The taxes of the period it corrects, whatever the contract says today.
    pub taxes: Vec<Tax>,
}

impl Rated {
    /// The sum of the lines before tax.
    pub fn subtotal_cents(&self) -> Result<i64, money::Error> {
        sum(self.lines.iter().map(|line| line.total_cents))
    }
}

/// The lines of a period of a contract, before tax.
pub fn rate(
    contract: &Contract,
    period: &BillingPeriod,
    usage: Usage,
) -> Result<Rated, money::Error> {
    let rating = Rating {
        contract,
        share: period.share,
        days: Days(period.first_day, period.last_day),
        period: period.period,
    };
    rating.lines(usage)
}

/// The sum before tax of a period that has been invoiced and is counted again. See [`rate`].
pub fn rate_again(contract: &Contract, share: Share, usage: Usage) -> Result<i64, money::Error> {
    let rating = Rating {
        contract,
        share,
        days: Days(Date::ZERO, Date::ZERO),
        period: Period {
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
        },
    };
    rating.lines(usage)?.subtotal_cents()
}

/// What is counted and priced: requests where they are priced, else units.
#[must_use]
pub fn counted(contract: &Contract) -> &'static str {
    match contract.pricing_model {
        PricingModel::PerRequest => "requests",
        PricingModel::Flat
        | PricingModel::PerDeed
        | PricingModel::Hybrid
        | PricingModel::Tiered => "units",
    }
}

/// The invoice of a period and of the adjustments of earlier ones; `None` when there is nothing to bill.
pub fn bill(
    contract: &Contract,
    period: &BillingPeriod,
    usage: Usage,
    adjustments: &[Adjustment],
) -> Result<Option<Bill>, money::Error> {
    let rated = rate(contract, period, usage)?;
    let mut lines: Vec<(RatedLine, &[Tax])> = Vec::new();
    for line in rated.lines {
        lines.push((line, &contract.taxes));
    }
    for adjustment in adjustments.iter().filter(|it| it.amount_cents != 0) {
        lines.push((adjustment.line(contract.currency)?, &adjustment.taxes));
    }
    if !rated.is_always_billed && lines.iter().all(|(line, _)| line.total_cents == 0) {
        return Ok(None);
    }
    total(
        contract.currency,
        contract.step_cents(),
        period.period,
        lines,
    )
    .map(Some)
}

/// The invoice of a correction alone, of a period in this currency that no other invoice corrects; amounts are multiples
/// of `step_cents`.
pub fn bill_correction(
    adjustment: &Adjustment,
    currency: Currency,
    step_cents: i64,
) -> Result<Bill, money::Error> {
    let lines = vec![(adjustment.line(currency)?, &adjustment.taxes[..])];
    total(currency, step_cents, adjustment.period, lines)
}

impl Adjustment {
    fn line(&self, currency: Currency) -> Result<RatedLine, money::Error> {
        let days = Days(self.first_day, self.last_day);
        let sign = if self.quantity > 0 { "+" } else { "" };
        let (quantity, counted) = (self.quantity, self.counted);
        let description =
            format!("Adjustment for {days}: {sign}{quantity} {counted} after invoicing");
        let kind = LineKind::Adjustment;
        Ok(once(
            currency,
            self.period,
            kind,
            description,
            self.amount_cents,
        ))
    }
}

/// Adds up lines and taxes. When the total is negative, a line for each set of taxes brings it to zero, and so every tax;
/// what that takes away is carried over as a credit.
fn total(
    currency: Currency,
    step_cents: i64,
    period: Period,
    lines: Vec<(RatedLine, &[Tax])>,
) -> Result<Bill, money::Error> {
    let taxable: Vec<Taxable<'_>> = lines
        .iter()
        .map(|(line, taxes)| Taxable {
            amount_cents: line.total_cents,
            taxes,
        })
        .collect();
    let assessed = tax::assess(&taxable, step_cents)?;
    let mut rated = Vec::with_capacity(lines.len());
    for ((line, taxes), shares) in lines.into_iter().zip(assessed.shares) {
        let tax_cents = sum(shares.iter().map(|share| share.tax_cents))?;
        let line = RatedLine {
            tax_cents,
            taxes: shares,
            ..line
        };
        rated.push((line, taxes));
    }
    let subtotal_cents = sum(rated.iter().map(|(line, _)| line.total_cents))?;
    let tax_cents = sum(assessed.groups.iter().map(|group| group.tax_cents))?;
    let total_cents = sum([subtotal_cents, tax_cents])?;
    if total_cents >= 0 {
        return Ok(Bill {
            currency,
            lines: rated.into_iter().map(|(line, _)| line).collect(),
            subtotal_cents,
            tax_cents,
            total_cents,
            taxes: assessed.groups,
            carried_over_cents: 0,
            carried_over_taxes: Vec::new(),
        });
    }
    let mut sets: Vec<&[Tax]> = Vec::new();
    for (_, taxes) in &rated {
        if !sets.contains(taxes) {
            sets.push(taxes);
        }
    }
    let mut balancing = Vec::new();
    for set in sets {
        let of_set = || {
            rated
                .iter()
                .filter(|(_, taxes)| *taxes == set)
                .map(|(line, _)| line)
        };
        let amount_cents = opposite(sum(of_set().map(|line| line.total_cents))?)?;
        let mut line = once(
            currency,
            period,
            LineKind::CarriedOver,
            "Credited to your account".to_owned(),
            amount_cents,
        );
        for tax in set {
            let shares =
                of_set().flat_map(|line| line.taxes.iter().filter(|share| share.is_of(tax)));
            let tax_cents = opposite(sum(shares.map(|share| share.tax_cents))?)?;
            line.taxes.push(LineTax {
                name: tax.name.clone(),
                jurisdiction: tax.jurisdiction.clone(),
                percentage: tax.percentage,
                tax_cents,
            });
        }
        line.tax_cents = sum(line.taxes.iter().map(|share| share.tax_cents))?;
        if line.total_cents != 0 || line.tax_cents != 0 {
            balancing.push(line);
        }
    }
    let nothing = |group: &TaxGroup| TaxGroup {
        taxable_cents: 0,
        tax_cents: 0,
        ..group.clone()
    };
    let mut carried_over_taxes = Vec::with_capacity(assessed.groups.len());
    for group in &assessed.groups {
        carried_over_taxes.push(TaxGroup {
            taxable_cents: opposite(group.taxable_cents)?,
            tax_cents: opposite(group.tax_cents)?,
            ..group.clone()
        });
    }
    let mut lines: Vec<RatedLine> = rated.into_iter().map(|(line, _)| line).collect();
    lines.extend(balancing);
    Ok(Bill {
        currency,
        lines,
        subtotal_cents: 0,
        tax_cents: 0,
        total_cents: 0,
        taxes: assessed.groups.iter().map(nothing).collect(),
        carried_over_cents: opposite(total_cents)?,
        carried_over_taxes,
    })
}

fn opposite(cents: i64) -> Result<i64, money::Error> {
    cents.checked_neg().ok_or(money::Error::OutOfRange)
}

/// What an invoiced period is rated by when it is counted again: the prices of that time, and the billed share.
#[derive(Debug, Clone, PartialEq)]
pub struct FrozenTerms {
    /// Has the members that pricing reads; the others have their defaults.
    pub contract: Contract,
    pub share: Share,
    pub first_day: Date,
    pub last_day: Date,
    /// The stretches in which usage was counted.
    pub usage: Vec<Period>,
}

/// The shape of [`FrozenTerms`] in `invoiced_usage.terms`.
#[derive(Serialize, Deserialize)]
struct StoredTerms {
    contract: Map<String, Value>,
    share: Share,
    first_day: Date,
    last_day: Date,
    usage: Vec<(Timestamp, Timestamp)>,
}

impl FrozenTerms {
    /// The terms by which a period is rated, in the shape that is stored.
    pub fn freeze(contract: &Contract, period: &BillingPeriod) -> Result<Value, serde_json::Error> {
        let members = json!({
            "api_key_prefix": contract.api_key_prefix,
            "pricing_model": contract.pricing_model.as_str(),
            "currency": contract.currency,
            "monthly_flat_fee_cents": contract.monthly_flat_fee_cents,
            "per_deed_price_cents": contract.per_deed_price_cents,
            "per_1000_requests_cents": contract.per_1000_requests_cents,
            "tiers": contract.tiers_as_json(),
            "tier_mode": contract.tier_mode.map(TierMode::as_str),
            "included_units": contract.included_units,
            "minimum_commitment_cents": contract.minimum_commitment_cents,
            "unit_source": contract.unit_source.as_str(),
            "billable_event_types": contract.billable_event_types,
            "billable_status_codes": contract.billable_status_codes,
            "payment_method": contract.payment_method,
            "taxes": contract.taxes,
        });
        let members = members.as_object().cloned().unwrap_or_default();
        serde_json::to_value(StoredTerms {
            contract: members
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect(),
            share: period.share,
            first_day: period.first_day,
            last_day: period.last_day,
            usage: period
                .usage
                .iter()
                .map(|stretch| (stretch.start, stretch.end))
                .collect(),
        })
    }

    /// Reads stored terms; `None` when they are not readable. Terms of before taxes had names and rows had statuses had
    /// neither: their tax is that of the invoice (`tax_rate_bps`), each row counts, and nothing is rounded to a step.
    #[must_use]
    pub fn read(stored: &Value, tax_rate_bps: Option<i64>) -> Option<FrozenTerms> {
        let mut stored = StoredTerms::deserialize(stored).ok()?;
        if !stored.contract.contains_key("taxes") {
            let before = [
                ("tax_rate_bps", json!(tax_rate_bps.unwrap_or_default())),
                ("billable_status_codes", json!(StatusCodes::All)),
                ("payment_method", json!(PaymentMethod::Wire)),
            ];
            let before = before.map(|(name, value)| (name.to_owned(), value));
            stored.contract.extend(before);
        }
        let usage = stored.usage.into_iter();
        Some(FrozenTerms {
            contract: Contract::parse(&stored.contract).ok()?,
            share: stored.share,
            first_day: stored.first_day,
            last_day: stored.last_day,
            usage: usage.map(|(start, end)| Period { start, end }).collect(),
        })
    }
}

/// How many times the median of the last invoices a total may reach before somebody has to look at it.
const REVIEW_FACTOR: i64 = 10;

/// Whether somebody should look at an invoice first: its total is more than ten times the median of the totals before
/// it, or more than the cap. `fixed_cents` (the flat fee or the minimum) counts as usual: the first whole month after a
/// single day is no surprise.
#[must_use]
pub fn needs_review(
    total_cents: i64,
    fixed_cents: i64,
    totals_before: &[i64],
    cap_cents: Option<i64>,
) -> bool {
    if cap_cents.is_some_and(|cap_cents| total_cents > cap_cents) {
        return true;
    }
    let Some(median_cents) = median(totals_before) else {
        return false;
    };
    let usual_cents = median_cents.max(fixed_cents);
    usual_cents > 0 && i128::from(total_cents) > i128::from(usual_cents) * i128::from(REVIEW_FACTOR)
}

/// The middle amount, or the mean of the two in the middle, rounded towards zero; `None` of an empty list.
fn median(amounts: &[i64]) -> Option<i64> {
    let mut sorted = amounts.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    i64::try_from((i128::from(lower) + i128::from(upper)) / 2).ok()
}

/// What a period costs when nothing is used: the flat fee or the minimum, whichever is greater.
pub fn fixed_cents(contract: &Contract, share: Share) -> Result<i64, money::Error> {
    rate_again(contract, share, Usage::default())
}

/// A period while it is being rated.
struct Rating<'a> {
    contract: &'a Contract,
    share: Share,
    days: Days,
    period: Period,
}

impl Rating<'_> {
    fn lines(&self, usage: Usage) -> Result<Rated, money::Error> {
        let contract = self.contract;
        let flat_fee_cents = match contract.pricing_model {
            PricingModel::Flat | PricingModel::Hybrid => contract.monthly_flat_fee_cents,
            PricingModel::PerDeed | PricingModel::PerRequest | PricingModel::Tiered => None,
        }
        .unwrap_or_default();
        let first_tier_cents = match contract.pricing_model {
            PricingModel::Tiered => contract.tiers.first().map_or(0, |tier| tier.flat_cents),
            PricingModel::Flat
            | PricingModel::PerDeed
            | PricingModel::Hybrid
            | PricingModel::PerRequest => 0,
        };
        let mut lines = Vec::new();
        if flat_fee_cents > 0 {
            lines.push(self.flat_fee(flat_fee_cents)?);
        }
        match contract.pricing_model {
            PricingModel::Flat => {}
            PricingModel::PerDeed | PricingModel::Hybrid => {
                let price = Decimal::from(contract.per_deed_price_cents.unwrap_or_default());
                let units = self.billable(usage.units)?;
                lines.extend(self.used(usage.units, "units", units, price)?);
            }
            PricingModel::PerRequest => {
                let price = Decimal::from(contract.per_1000_requests_cents.unwrap_or_default());
                let requests = self.billable(usage.requests)?;
                // ⌈requests ÷ 1000⌉
                let blocks =
                    requests / REQUESTS_PER_BLOCK + i64::from(requests % REQUESTS_PER_BLOCK > 0);
                lines.extend(self.used(usage.requests, "requests", blocks, price)?);
            }
            PricingModel::Tiered => {
                let units = self.billable(usage.units)?;
                match contract.tier_mode {
                    Some(TierMode::Volume) => lines.extend(self.volume(usage.units, units)?),
                    Some(TierMode::Graduated) | None => {
                        lines.extend(self.graduated(usage.units, units)?);
                    }
                }
            }
        }
        let minimum_cents = self.per_month(contract.minimum_commitment_cents)?;
        let so_far = sum(lines.iter().map(|line| line.total_cents))?;
        if so_far < minimum_cents {
            let minimum = Money::new(minimum_cents, contract.currency);
            let description = format!("Minimum commitment of {minimum}{}", self.part());
            let rest_cents = minimum_cents - so_far;
            let line = self.line(LineKind::MinimumCommitment, description, rest_cents);
            lines.push(line);
        }
        Ok(Rated {
            lines,
            is_always_billed: flat_fee_cents > 0
                || contract.minimum_commitment_cents > 0
                || first_tier_cents > 0,
        })
    }

    fn flat_fee(&self, flat_fee_cents: i64) -> Result<RatedLine, money::Error> {
        let total_cents = self.per_month(flat_fee_cents)?;
        let description = format!("Flat fee, {}{}", self.days, self.part());
        let line = self.line(LineKind::FlatFee, description, total_cents);
        if !self.share.is_whole() {
            return Ok(line);
        }
        Ok(RatedLine {
            quantity: self.share.months,
            unit_price_cents: Some(flat_fee_cents),
            unit_amount_decimal: Some(flat_fee_cents.to_string()),
            ..line
        })
    }

    /// A line for `quantity` at one price each. `counted` is the number before the included ones are taken off.
    fn used(
        &self,
        counted: i64,
        what: &str,
        quantity: i64,
        price: Decimal,
    ) -> Result<Option<RatedLine>, money::Error> {
        if counted <= 0 {
            return Ok(None);
        }
        let blocks = match self.contract.pricing_model {
            PricingModel::PerRequest => " in started thousands",
            PricingModel::Flat
            | PricingModel::PerDeed
            | PricingModel::Hybrid
            | PricingModel::Tiered => "",
        };
        let counted = grouped(counted);
        let description = format!(
            "Usage, {}: {counted} {what}{blocks}{}",
            self.days,
            self.included()?
        );
        self.priced(description, quantity, price).map(Some)
    }

    /// Each slice at its tier's price. The first tier is reached by zero units.
    fn graduated(&self, counted: i64, units: i64) -> Result<Vec<RatedLine>, money::Error> {
        let mut lines = Vec::new();
        let mut below = 0;
        for (place, tier) in self.contract.tiers.iter().enumerate() {
            let reached = tier.up_to.unwrap_or(i64::MAX).min(units);
            if reached <= below && place > 0 {
                break;
            }
            let (first, last) = (grouped(below + 1), grouped(reached));
            let included = if below == 0 {
                self.included()?
            } else {
                String::new()
            };
            if reached > below {
                let description =
                    format!("Usage, {}: units {first} to {last}{included}", self.days);
                lines.push(self.priced(description, reached - below, tier.unit_price_cents)?);
            } else {
                lines.extend(self.used(counted, "units", 0, Decimal::ZERO)?);
            }
            lines.extend(self.tier_fee(tier, if below == 0 { "1" } else { &first }));
            below = reached;
        }
        Ok(lines)
    }

    /// All units at the price of the tier that they reach. Zero units reach the first.
    fn volume(&self, counted: i64, units: i64) -> Result<Vec<RatedLine>, money::Error> {
        let reached =
            (self.contract.tiers.iter()).find(|tier| tier.up_to.is_none_or(|up_to| units <= up_to));
        let price = reached
            .filter(|_| units > 0)
            .map_or(Decimal::ZERO, |tier| tier.unit_price_cents);
        let mut lines = Vec::new();
        lines.extend(self.used(counted, "units", units, price)?);
        lines.extend(reached.and_then(|tier| self.tier_fee(tier, &grouped(units))));
        Ok(lines)
    }

    /// What reaching a tier costs once.
    fn tier_fee(&self, tier: &Tier, reached: &str) -> Option<RatedLine> {
        let description = format!("Tier of {reached} units, once");
        let is_due = tier.flat_cents > 0;
        is_due.then(|| self.line(LineKind::Usage, description, tier.flat_cents))
    }

    /// The units or requests that remain when the included ones are taken off.
    fn billable(&self, counted: i64) -> Result<i64, money::Error> {
        Ok((counted - self.included_units()?).max(0))
    }

    /// Included units of the period, rounded down.
    fn included_units(&self) -> Result<i64, money::Error> {
        let Share {
            months,
            billed_days,
            cycle_days,
        } = self.share;
        let whole = i128::from(self.contract.included_units) * i128::from(months);
        if billed_days == cycle_days {
            return narrow(whole);
        }
        let days = whole * i128::from(billed_days);
        narrow(
            days.checked_div(i128::from(cycle_days))
                .ok_or(money::Error::NothingToDivideBy)?,
        )
    }

    /// An amount per month, for the months of the cycle and its billed days, half-even to a multiple of the step.
    fn per_month(&self, amount_cents: i64) -> Result<i64, money::Error> {
        let Share {
            months,
            billed_days,
            cycle_days,
        } = self.share;
        let whole = i128::from(amount_cents) * i128::from(months);
        let days = whole * i128::from(billed_days);
        round_to_step(days, i128::from(cycle_days), self.contract.step_cents())
    }

    fn priced(
        &self,
        description: String,
        quantity: i64,
        price: Decimal,
    ) -> Result<RatedLine, money::Error> {
        let total_cents = times(quantity, price, self.contract.step_cents())?;
        let price = price.normalize();
        Ok(RatedLine {
            quantity,
            unit_price_cents: i64::try_from(price).ok().filter(|_| price.is_integer()),
            unit_amount_decimal: Some(price.to_string()),
            ..self.line(LineKind::Usage, description, total_cents)
        })
    }

    fn line(&self, kind: LineKind, description: String, total_cents: i64) -> RatedLine {
        let currency = self.contract.currency;
        RatedLine {
            proration: !self.share.is_whole() && kind != LineKind::Usage,
            ..once(currency, self.period, kind, description, total_cents)
        }
    }

    fn included(&self) -> Result<String, money::Error> {
        Ok(match self.included_units()? {
            0 => String::new(),
            included => format!(" ({} included)", grouped(included)),
        })
    }

    /// ` (21 of 31 days)` for a part of a cycle; empty for a whole one.
    fn part(&self) -> String {
        if self.share.is_whole() {
            return String::new();
        }
        let Share {
            billed_days,
            cycle_days,
            ..
        } = self.share;
        format!(" ({billed_days} of {cycle_days} days)")
    }
}

/// A line with a quantity of one, before tax.
fn once(
    currency: Currency,
    period: Period,
    kind: LineKind,
    description: String,
    total_cents: i64,
) -> RatedLine {
    RatedLine {
        kind,
        description,
        quantity: 1,
        unit_price_cents: Some(total_cents),
        unit_amount_decimal: Some(total_cents.to_string()),
        total_cents,
        tax_cents: 0,
        taxes: Vec::new(),
        currency,
        price: None,
        product: None,
        proration: false,
        period_start: period.start,
        period_end: period.end,
    }
}

/// Units times a price that may have decimals below a minor unit, half-even to a multiple of the step.
fn times(quantity: i64, price: Decimal, step_cents: i64) -> Result<i64, money::Error> {
    let wide = i128::from(quantity)
        .checked_mul(price.mantissa())
        .ok_or(money::Error::OutOfRange)?;
    let unit = 10_i128
        .checked_pow(price.scale())
        .ok_or(money::Error::OutOfRange)?;
    round_to_step(wide, unit, step_cents)
}

/// A quotient rounded to a multiple of the step, half-even.
pub fn round_to_step(
    numerator: i128,
    denominator: i128,
    step_cents: i64,
) -> Result<i64, money::Error> {
    let step = i128::from(step_cents);
    let steps = div_half_even(numerator, denominator * step)?;
    narrow(steps.checked_mul(step).ok_or(money::Error::OutOfRange)?)
}

fn sum(amounts: impl IntoIterator<Item = i64>) -> Result<i64, money::Error> {
    amounts
        .into_iter()
        .try_fold(0_i64, |sum, amount| sum.checked_add(amount))
        .ok_or(money::Error::OutOfRange)
}

/// A count with thousands separators: `12,345`.
fn grouped(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first and the last day, as on an invoice: `2025-03-11 to 2025-03-31`.
struct Days(Date, Date);

impl std::fmt::Display for Days {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} to {}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests;
