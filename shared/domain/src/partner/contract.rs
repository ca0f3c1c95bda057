//! Partner contracts: what a partner pays for and how, read from the members people write and checked as a whole.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::money::Currency;
use crate::words::words;

/// The members of a contract that people write.
pub const MEMBERS: [&str; 30] = [
    "api_key_prefix",
    "company",
    "pricing_model",
    "currency",
    "monthly_flat_fee_cents",
    "per_deed_price_cents",
    "per_1000_requests_cents",
    "tiers",
    "tier_mode",
    "included_units",
    "minimum_commitment_cents",
    "unit_source",
    "billable_event_types",
    "billing_cycle",
    "payment_terms",
    "payment_method",
    "monthly_request_limit",
    "rate_limit_per_minute",
    "status",
    "contract_start_date",
    "contract_end_date",
    "billed_from",
    "timezone",
    "billing_email",
    "billing_address",
    "tax_id",
    "tax_rate_bps",
    "po_number",
    "stripe_customer_id",
    "notes",
];

/// No limit of requests in `monthly_request_limit`, the predecessor's way of saying so.
pub const UNLIMITED: i64 = -1;

/// Longest prefix of a partner's API key.
pub const API_KEY_PREFIX_CHARS: usize = 255;

/// The largest number of units or minor units: sums of a year of them fit.
const LARGEST: i64 = 1_000_000_000_000_000;

/// A contract. Amounts in minor units of `currency`.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    pub api_key_prefix: String,
    /// Name on the invoice.
    pub company: Option<String>,
    pub pricing_model: PricingModel,
    pub currency: Currency,
    pub monthly_flat_fee_cents: Option<i64>,
    /// Per unit.
    pub per_deed_price_cents: Option<i64>,
    /// Per started thousand.
    pub per_1000_requests_cents: Option<i64>,
    /// Ascending; the last has no end. Empty unless tiered.
    pub tiers: Vec<Tier>,
    pub tier_mode: Option<TierMode>,
    /// Free units per month.
    pub included_units: i64,
    /// Per month.
    pub minimum_commitment_cents: i64,
    pub unit_source: UnitSource,
    /// Of `usage_events`; `None` for all.
    pub billable_event_types: Option<Vec<String>>,
    pub billing_cycle: BillingCycle,
    pub payment_terms: PaymentTerms,
    pub payment_method: PaymentMethod,
    /// [`UNLIMITED`] or a number of requests.
    pub monthly_request_limit: i64,
    pub rate_limit_per_minute: Option<i64>,
    pub status: ContractStatus,
    /// First billed day; `None` for one of the predecessor's that never said.
    pub contract_start_date: Option<Date>,
    /// Last billed day; `None` while open.
    pub contract_end_date: Option<Date>,
    /// Nothing before is billed; `None` for the start.
    pub billed_from: Option<Date>,
    /// IANA name: where the billing days begin.
    pub timezone: String,
    pub billing_email: Option<String>,
    /// An object, printed on the invoice.
    pub billing_address: Option<Value>,
    pub tax_id: Option<String>,
    /// Hundredths of a percent, on every line.
    pub tax_rate_bps: i32,
    pub po_number: Option<String>,
    /// `cus_…`, when it is collected through Stripe.
    pub stripe_customer_id: Option<String>,
    pub notes: Option<String>,
}

/// What of a contract its invoices print. It is frozen in `invoices.metadata.contract` when one is issued, so that a later
/// change of the contract does not change the document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BillingDetails {
    pub api_key_prefix: Option<String>,
    pub company: Option<String>,
    /// An object of texts.
    pub billing_address: Option<Value>,
    pub billing_email: Option<String>,
    pub tax_id: Option<String>,
    pub po_number: Option<String>,
    /// IANA name of the zone whose days are printed; `None` for UTC.
    pub timezone: Option<String>,
    pub payment_terms: Option<PaymentTerms>,
    pub payment_method: Option<PaymentMethod>,
}

/// One tier: the units above the tier before, up to and including `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// `None` in the last.
    pub up_to: Option<i64>,
    /// Per unit, may have decimals below a minor unit.
    pub unit_price_cents: Decimal,
    /// Once, when the tier is reached.
    pub flat_cents: i64,
}

/// A member that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct Invalid {
    /// `tiers[1].up_to`.
    pub field: String,
    /// What was expected of it.
    pub expected: String,
}

words!(
    /// How usage becomes an amount.
    PricingModel {
        /// A flat fee per month.
        Flat = "flat",
        /// A price per unit.
        PerDeed = "per_deed",
        /// Both.
        Hybrid = "hybrid",
        /// A price per started thousand requests.
        PerRequest = "per_request",
        /// A price per unit that depends on their number.
        Tiered = "tiered",
    }
);
words!(
    /// Whether each slice has its tier's price, or all units that of the tier reached.
    TierMode {
        /// Each slice its own.
        Graduated = "graduated",
        /// All units the last.
        Volume = "volume",
    }
);
words!(
    /// Where units are counted.
    UnitSource {
        /// The gateway's rows.
        ApiUsage = "api_usage",
        /// Metered events.
        UsageEvents = "usage_events",
        /// The sum of both.
        Both = "both",
    }
);
words!(
    /// How often an invoice is made.
    BillingCycle {
        /// Each month.
        Monthly = "monthly",
        /// Every three months.
        Quarterly = "quarterly",
        /// Every twelve months.
        Annual = "annual",
    }
);
words!(
    /// When an invoice is due.
    PaymentTerms {
        /// On the day of issue.
        Immediate = "immediate",
        /// 15 days after the period's end.
        Net15 = "net_15",
        /// 30 days after the period's end.
        Net30 = "net_30",
        /// 45 days after the period's end.
        Net45 = "net_45",
        /// 60 days after the period's end.
        Net60 = "net_60",
        /// 90 days after the period's end.
        Net90 = "net_90",
    }
);
words!(
    /// How the partner pays.
    PaymentMethod {
        /// Through Stripe.
        Stripe = "stripe",
        /// By wire.
        Wire = "wire",
        /// By check.
        Check = "check",
        /// By ACH transfer.
        Ach = "ach",
    }
);
words!(
    /// Whether it is billed on.
    ContractStatus {
        /// It is.
        Active = "active",
        /// Not beyond the day it was suspended.
        Suspended = "suspended",
        /// Not beyond the day it was canceled, and never again.
        Canceled = "canceled",
    }
);

impl BillingCycle {
    /// Months of one cycle.
    #[must_use]
    pub fn months(self) -> i64 {
        match self {
            BillingCycle::Monthly => 1,
            BillingCycle::Quarterly => 3,
            BillingCycle::Annual => 12,
        }
    }
}

impl PaymentTerms {
    /// Days from the period's end until an invoice is due; `None` = on the day of issue.
    #[must_use]
    pub fn days(self) -> Option<i64> {
        match self {
            PaymentTerms::Immediate => None,
            PaymentTerms::Net15 => Some(15),
            PaymentTerms::Net30 => Some(30),
            PaymentTerms::Net45 => Some(45),
            PaymentTerms::Net60 => Some(60),
            PaymentTerms::Net90 => Some(90),
        }
    }
}

impl Contract {
    /// Reads a contract from its members, absent and `null` ones with their defaults. A member besides [`MEMBERS`] is
    /// not valid.
    ///
    /// # Errors
    /// The first member that is not valid, or that the pricing model needs and that is not there.
    pub fn parse(members: &Map<String, Value>) -> Result<Contract, Invalid> {
        if let Some(unknown) = members
            .keys()
            .find(|name| !MEMBERS.contains(&name.as_str()))
        {
            return Err(invalid(unknown, "no such member"));
        }
        let members = Members(members);
        let pricing_model =
            members.word("pricing_model", PricingModel::WORDS, PricingModel::parse)?;
        let contract = Contract {
            api_key_prefix: required(
                "api_key_prefix",
                members.text("api_key_prefix", API_KEY_PREFIX_CHARS)?,
            )?,
            company: members.text("company", 255)?,
            pricing_model: required("pricing_model", pricing_model)?,
            currency: members.currency()?.unwrap_or(Currency::USD),
            monthly_flat_fee_cents: members.amount("monthly_flat_fee_cents")?,
            per_deed_price_cents: members.amount("per_deed_price_cents")?,
            per_1000_requests_cents: members.amount("per_1000_requests_cents")?,
            tiers: members.tiers()?,
            tier_mode: members.word("tier_mode", TierMode::WORDS, TierMode::parse)?,
            included_units: members.amount("included_units")?.unwrap_or_default(),
            minimum_commitment_cents: members
                .amount("minimum_commitment_cents")?
                .unwrap_or_default(),
            unit_source: members
                .word("unit_source", UnitSource::WORDS, UnitSource::parse)?
                .unwrap_or(UnitSource::ApiUsage),
            billable_event_types: members.event_types()?,
            billing_cycle: members
                .word("billing_cycle", BillingCycle::WORDS, BillingCycle::parse)?
                .unwrap_or(BillingCycle::Monthly),
            payment_terms: members
                .word("payment_terms", PaymentTerms::WORDS, PaymentTerms::parse)?
                .unwrap_or(PaymentTerms::Net30),
            payment_method: members
                .word("payment_method", PaymentMethod::WORDS, PaymentMethod::parse)?
                .unwrap_or(PaymentMethod::Stripe),
            monthly_request_limit: members
                .integer("monthly_request_limit", UNLIMITED..=LARGEST)?
                .unwrap_or(UNLIMITED),
            rate_limit_per_minute: members.amount("rate_limit_per_minute")?,
            status: members
                .word("status", ContractStatus::WORDS, ContractStatus::parse)?
                .unwrap_or(ContractStatus::Active),
            contract_start_date: members.date("contract_start_date")?,
            contract_end_date: members.date("contract_end_date")?,
            billed_from: members.date("billed_from")?,
            timezone: members.timezone()?,
            billing_email: members.email()?,
            billing_address: members.address()?,
            tax_id: members.text("tax_id", 255)?,
            tax_rate_bps: members.tax_rate_bps()?,
            po_number: members.text("po_number", 255)?,
            stripe_customer_id: members.text("stripe_customer_id", 255)?,
            notes: members.notes()?,
        };
        contract.check()?;
        Ok(contract)
    }

    /// What its invoices print.
    #[must_use]
    pub fn billing_details(&self) -> BillingDetails {
        BillingDetails {
            api_key_prefix: Some(self.api_key_prefix.clone()),
            company: self.company.clone(),
            billing_address: self.billing_address.clone(),
            billing_email: self.billing_email.clone(),
            tax_id: self.tax_id.clone(),
            po_number: self.po_number.clone(),
            timezone: Some(self.timezone.clone()),
            payment_terms: Some(self.payment_terms),
            payment_method: Some(self.payment_method),
        }
    }

    /// The tiers in the shape they are written and stored in.
    #[must_use]
    pub fn tiers_as_json(&self) -> Option<Value> {
        if self.tiers.is_empty() {
            return None;
        }
        let tiers = self.tiers.iter().map(|tier| {
            let price = tier.unit_price_cents.normalize();
            // Whole prices stay numbers, as the predecessor's prices are.
            let price = i64::try_from(price)
                .ok()
                .filter(|_| price.scale() == 0)
                .map_or_else(|| json!(price.to_string()), |whole| json!(whole));
            json!({"up_to": tier.up_to, "unit_price_cents": price, "flat_cents": tier.flat_cents})
        });
        Some(tiers.collect())
    }

    /// What no member can be asked for alone.
    fn check(&self) -> Result<(), Invalid> {
        let (flat, per_deed, per_1000, tiers) = (
            (
                "monthly_flat_fee_cents",
                self.monthly_flat_fee_cents.is_some(),
            ),
            ("per_deed_price_cents", self.per_deed_price_cents.is_some()),
            (
                "per_1000_requests_cents",
                self.per_1000_requests_cents.is_some(),
            ),
            ("tiers", !self.tiers.is_empty()),
        );
        let needed = match self.pricing_model {
            PricingModel::Flat => vec![flat],
            PricingModel::PerDeed => vec![per_deed],
            PricingModel::Hybrid => vec![flat, per_deed],
            PricingModel::PerRequest => vec![per_1000],
            PricingModel::Tiered => vec![tiers, ("tier_mode", self.tier_mode.is_some())],
        };
        if let Some((field, _)) = needed.into_iter().find(|(_, is_there)| !is_there) {
            let model = self.pricing_model.as_str();
            return Err(invalid(
                field,
                format!("the pricing model {model} needs it"),
            ));
        }
        match (self.contract_start_date, self.contract_end_date) {
            (Some(start), Some(end)) if end < start => Err(invalid(
                "contract_end_date",
                "not before contract_start_date",
            )),
            _ => Ok(()),
        }
    }
}

/// What people wrote.
struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Invalid> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| invalid(name, expected)),
        }
    }

    fn integer(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, Invalid> {
        let (least, most) = (range.start(), range.end());
        let expected = format!("a whole number from {least} to {most}");
        self.read(name, &expected, |value| {
            value.as_i64().filter(|number| range.contains(number))
        })
    }

    fn amount(&self, name: &str) -> Result<Option<i64>, Invalid> {
        self.integer(name, 0..=LARGEST)
    }

    fn text(&self, name: &str, longest: usize) -> Result<Option<String>, Invalid> {
        let expected =
            format!("a text of 1 to {longest} characters, none of them a control character");
        self.read(name, &expected, |value| {
            let text = value.as_str()?;
            let is_plain = !text.trim().is_empty()
                && text.chars().count() <= longest
                && !text.chars().any(char::is_control);
            is_plain.then(|| text.to_owned())
        })
    }

    /// May have lines.
    fn notes(&self) -> Result<Option<String>, Invalid> {
        let expected = "a text of up to 10000 characters";
        self.read("notes", expected, |value| {
            let text = value.as_str()?;
            (text.chars().count() <= 10_000 && !text.contains('\0')).then(|| text.to_owned())
        })
    }

    fn word<T>(
        &self,
        name: &str,
        words: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Invalid> {
        let expected = format!("one of {}", words.join(", "));
        self.read(name, &expected, |value| value.as_str().and_then(&parse))
    }

    fn currency(&self) -> Result<Option<Currency>, Invalid> {
        self.read("currency", "a currency, as in USD", |value| {
            value.as_str().and_then(|code| Currency::parse(code).ok())
        })
    }

    fn date(&self, name: &str) -> Result<Option<Date>, Invalid> {
        self.read(
            name,
            "a day from the year 2000 on, written 2025-11-01",
            |value| {
                let text = value.as_str().filter(|text| text.len() == 10)?;
                let day: Date = text.parse().ok()?;
                (day.year() >= 2000).then_some(day)
            },
        )
    }

    fn timezone(&self) -> Result<String, Invalid> {
        let name = self.read(
            "timezone",
            "an IANA time zone, as in America/New_York",
            |value| {
                let name = value.as_str()?;
                TimeZone::get(name).ok().map(|_| name.to_owned())
            },
        )?;
        Ok(name.unwrap_or_else(|| "UTC".to_owned()))
    }

    fn email(&self) -> Result<Option<String>, Invalid> {
        let expected = "an e-mail address";
        let text = self.text("billing_email", 254)?;
        let is_address = |text: &String| {
            text.split_once('@').is_some_and(|(name, host)| {
                !name.is_empty() && !host.is_empty() && !host.contains('@')
            }) && !text.contains(char::is_whitespace)
        };
        match text {
            Some(text) if !is_address(&text) => Err(invalid("billing_email", expected)),
            other => Ok(other),
        }
    }

    fn address(&self) -> Result<Option<Value>, Invalid> {
        let name = "billing_address";
        self.read(
            name,
            "an object of texts of up to 255 characters",
            |value| {
                let is_text = |value: &Value| {
                    value.is_null()
                        || value.as_str().is_some_and(|text| {
                            text.chars().count() <= 255 && !text.chars().any(char::is_control)
                        })
                };
                let members = value.as_object()?;
                let is_plain = |name: &String| !name.contains('\0');
                (members.values().all(is_text) && members.keys().all(is_plain))
                    .then(|| value.clone())
            },
        )
    }

    fn tax_rate_bps(&self) -> Result<i32, Invalid> {
        let rate = self.read("tax_rate_bps", "a whole number from 0 to 10000", |value| {
            let rate = i32::try_from(value.as_i64()?).ok()?;
            (0..=10_000).contains(&rate).then_some(rate)
        })?;
        Ok(rate.unwrap_or_default())
    }

    fn event_types(&self) -> Result<Option<Vec<String>>, Invalid> {
        let name = "billable_event_types";
        self.read(name, "a list of at least one event type", |value| {
            let types = value.as_array().filter(|types| !types.is_empty())?;
            let texts = types.iter().map(|value| {
                let text = value.as_str()?;
                let is_plain = !text.is_empty() && !text.chars().any(char::is_control);
                is_plain.then(|| text.to_owned())
            });
            texts.collect()
        })
    }

    fn tiers(&self) -> Result<Vec<Tier>, Invalid> {
        let expected = "a list of {up_to, unit_price_cents, flat_cents}";
        let tiers = self.read("tiers", expected, |value| {
            value.as_array().filter(|tiers| !tiers.is_empty())
        })?;
        let tiers = tiers.map(Vec::as_slice).unwrap_or_default();
        let mut read: Vec<Tier> = Vec::new();
        for (index, value) in tiers.iter().enumerate() {
            let name = |member: &str| format!("tiers[{index}].{member}");
            let Some(object) = value.as_object() else {
                return Err(invalid(format!("tiers[{index}]"), "an object"));
            };
            let known = ["up_to", "unit_price_cents", "flat_cents"];
            if let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) {
                return Err(invalid(name(unknown), "no such member"));
            }
            let member = |key: &str| object.get(key).filter(|value| !value.is_null());
            let up_to = match member("up_to") {
                Some(value) => Some(
                    value
                        .as_i64()
                        .filter(|units| *units <= LARGEST)
                        .ok_or_else(|| {
                            invalid(name("up_to"), "a whole number, or null in the last tier")
                        })?,
                ),
                None => None,
            };
            let is_last = index + 1 == tiers.len();
            if up_to.is_none() != is_last {
                let expected = "null in the last tier and in no other";
                return Err(invalid(name("up_to"), expected));
            }
            let before = read.last().and_then(|tier| tier.up_to).unwrap_or_default();
            if up_to.is_some_and(|up_to| up_to <= before) {
                return Err(invalid(
                    name("up_to"),
                    "greater than in the tier before, and than 0",
                ));
            }
            let price = member("unit_price_cents").and_then(price);
            let expected =
                "a whole number, or a decimal in a text with up to 12 places, not negative";
            let flat_cents = match member("flat_cents") {
                Some(value) => value.as_i64().filter(|cents| (0..=LARGEST).contains(cents)),
                None => Some(0),
            };
            read.push(Tier {
                up_to,
                unit_price_cents: price
                    .ok_or_else(|| invalid(name("unit_price_cents"), expected))?,
                flat_cents: flat_cents
                    .ok_or_else(|| invalid(name("flat_cents"), "a whole number of at least 0"))?,
            });
        }
        Ok(read)
    }
}

/// A price per unit: digits with at most one point, no sign and no exponent.
fn price(value: &Value) -> Option<Decimal> {
    let price = match (value.as_i64(), value.as_str()) {
        (Some(whole), _) => Decimal::from(whole),
        (None, Some(text))
            if text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.') =>
        {
            Decimal::from_str(text).ok()?
        }
        _ => return None,
    };
    (!price.is_sign_negative() && price.scale() <= 12 && price <= Decimal::from(LARGEST))
        .then_some(price)
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| invalid(field, "it is missing"))
}

fn invalid(field: impl Into<String>, expected: impl Into<String>) -> Invalid {
    Invalid {
        field: field.into(),
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The members of `changes` over those of a contract that is valid.
    fn with(changes: Value) -> Result<Contract, Invalid> {
        let mut members = json!({
            "api_key_prefix": "dp_pk_alpha", "pricing_model": "hybrid", "monthly_flat_fee_cents": 50_000,
            "per_deed_price_cents": 250, "contract_start_date": "2025-11-01"
        });
        for (name, value) in changes.as_object().unwrap() {
            members[name] = value.clone();
        }
        Contract::parse(members.as_object().unwrap())
    }

    #[test]
    fn what_is_not_said_has_the_predecessors_defaults() {
        let contract = with(json!({"notes": null})).unwrap();
        assert_eq!(contract.currency, Currency::USD);
        assert_eq!(contract.monthly_request_limit, UNLIMITED);
        assert_eq!(contract.timezone, "UTC");
        assert_eq!(contract.payment_terms.days(), Some(30));
        assert_eq!(contract.billing_cycle.months(), 1);
        assert_eq!(contract.unit_source, UnitSource::ApiUsage);
        assert_eq!((contract.included_units, contract.tax_rate_bps), (0, 0));
    }

    #[test]
    fn each_pricing_model_needs_its_prices() {
        let none = json!({"monthly_flat_fee_cents": null, "per_deed_price_cents": null});
        let tiers = json!([{"up_to": null, "unit_price_cents": 5}]);
        for (model, prices, missing) in [
            (
                "flat",
                json!({"monthly_flat_fee_cents": 0}),
                "monthly_flat_fee_cents",
            ),
            (
                "per_deed",
                json!({"per_deed_price_cents": 1}),
                "per_deed_price_cents",
            ),
            (
                "per_request",
                json!({"per_1000_requests_cents": 1}),
                "per_1000_requests_cents",
            ),
            (
                "tiered",
                json!({"tiers": tiers, "tier_mode": "volume"}),
                "tiers",
            ),
            (
                "hybrid",
                json!({"monthly_flat_fee_cents": 1, "per_deed_price_cents": 1}),
                "monthly_flat_fee_cents",
            ),
        ] {
            let mut members = none.clone();
            members["pricing_model"] = json!(model);
            assert_eq!(with(members.clone()).unwrap_err().field, missing, "{model}");
            for (name, value) in prices.as_object().unwrap() {
                members[name] = value.clone();
            }
            assert_eq!(with(members).unwrap().pricing_model.as_str(), model);
        }
        for (changes, missing) in [
            (
                json!({"per_deed_price_cents": null}),
                "per_deed_price_cents",
            ),
            (
                json!({"pricing_model": "tiered", "tiers": tiers}),
                "tier_mode",
            ),
            (json!({"pricing_model": null}), "pricing_model"),
            (json!({"api_key_prefix": null}), "api_key_prefix"),
        ] {
            assert_eq!(with(changes).unwrap_err().field, missing);
        }
    }

    #[test]
    fn a_value_that_is_not_valid_is_named() {
        for (name, values) in [
            ("api_key_prefix", json!(["", "a\u{0}b", 5, "x".repeat(256)])),
            ("company", json!(["", "  ", "a\nb"])),
            ("pricing_model", json!(["per_page", 1])),
            ("currency", json!(["dollar", 840])),
            (
                "monthly_flat_fee_cents",
                json!([-1, 1.5, "1", true, 1_000_000_000_000_001_i64]),
            ),
            ("per_deed_price_cents", json!([-1, 0.5])),
            ("per_1000_requests_cents", json!([-1])),
            ("included_units", json!([-1])),
            ("minimum_commitment_cents", json!([-1])),
            ("monthly_request_limit", json!([-2, "none"])),
            ("rate_limit_per_minute", json!([-1])),
            ("tier_mode", json!(["stairs"])),
            ("unit_source", json!(["meter"])),
            ("billable_event_types", json!([[], "deed", [1], [""]])),
            ("billing_cycle", json!(["weekly"])),
            ("payment_terms", json!(["net_7"])),
            ("payment_method", json!(["cash"])),
            ("status", json!(["ended"])),
            (
                "contract_start_date",
                json!(["2025-02-30", "01/11/2025", "0025-11-01", "2025-11-01T00:00"]),
            ),
            ("contract_end_date", json!(["2025-10-31", "never"])),
            ("billed_from", json!(["x"])),
            ("timezone", json!(["Mars/Olympus", "", 1])),
            ("billing_email", json!(["alpha", "@x", "a@b@c", "a b@c"])),
            ("billing_address", json!(["street", {"line1": 5}])),
            ("tax_rate_bps", json!([-1, 10_001, 7.5])),
            ("notes", json!([5, "a\u{0}"])),
            ("color", json!(["red"])),
            ("id", json!([1])),
        ] {
            for value in values.as_array().unwrap() {
                let mut changes = json!({});
                changes[name] = value.clone();
                assert_eq!(with(changes).unwrap_err().field, name, "{value}");
            }
        }
    }

    #[test]
    fn zones_of_the_whole_world_are_known() {
        for zone in [
            "UTC",
            "America/New_York",
            "Pacific/Kiritimati",
            "Asia/Kathmandu",
        ] {
            assert_eq!(with(json!({"timezone": zone})).unwrap().timezone, zone);
        }
    }

    #[test]
    fn tiers_ascend_to_one_without_an_end() {
        let tiers = |tiers: Value| {
            with(json!({"pricing_model": "tiered", "tier_mode": "graduated", "tiers": tiers}))
        };
        let contract = tiers(json!([
            {"up_to": 100, "unit_price_cents": 100, "flat_cents": 5},
            {"up_to": 1000, "unit_price_cents": "0.250"},
            {"up_to": null, "unit_price_cents": "50.0"}
        ]))
        .unwrap();
        assert_eq!(contract.tiers[1].unit_price_cents, Decimal::new(25, 2));
        assert_eq!(
            contract.tiers_as_json(),
            Some(json!([
                {"up_to": 100, "unit_price_cents": 100, "flat_cents": 5},
                {"up_to": 1000, "unit_price_cents": "0.25", "flat_cents": 0},
                {"up_to": null, "unit_price_cents": 50, "flat_cents": 0}
            ]))
        );
        for (value, field) in [
            (json!([]), "tiers"),
            (json!("x"), "tiers"),
            (json!([5]), "tiers[0]"),
            (
                json!([{"up_to": 5, "unit_price_cents": 1}]),
                "tiers[0].up_to",
            ),
            (
                json!([{"unit_price_cents": 1}, {"unit_price_cents": 1}]),
                "tiers[0].up_to",
            ),
            (
                json!([{"up_to": 5, "unit_price_cents": 1}, {"up_to": 5, "unit_price_cents": 1}, {"unit_price_cents": 1}]),
                "tiers[1].up_to",
            ),
            (
                json!([{"up_to": 0, "unit_price_cents": 1}, {"unit_price_cents": 1}]),
                "tiers[0].up_to",
            ),
            (
                json!([{"up_to": "5", "unit_price_cents": 1}, {"unit_price_cents": 1}]),
                "tiers[0].up_to",
            ),
            (
                json!([{"unit_price_cents": -1}]),
                "tiers[0].unit_price_cents",
            ),
            (
                json!([{"unit_price_cents": 0.5}]),
                "tiers[0].unit_price_cents",
            ),
            (
                json!([{"unit_price_cents": "-1"}]),
                "tiers[0].unit_price_cents",
            ),
            (
                json!([{"unit_price_cents": "1e3"}]),
                "tiers[0].unit_price_cents",
            ),
            (
                json!([{"unit_price_cents": "0.0000000000001"}]),
                "tiers[0].unit_price_cents",
            ),
            (
                json!([{"unit_price_cents": ""}]),
                "tiers[0].unit_price_cents",
            ),
            (json!([{}]), "tiers[0].unit_price_cents"),
            (
                json!([{"unit_price_cents": 1, "flat_cents": -1}]),
                "tiers[0].flat_cents",
            ),
            (
                json!([{"unit_price_cents": 1, "price": 1}]),
                "tiers[0].price",
            ),
        ] {
            assert_eq!(tiers(value.clone()).unwrap_err().field, field, "{value}");
        }
    }
}
