//! Partner contracts: what a partner pays for and how, read from the members people write and checked as a whole.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::money::Currency;
use crate::partner::status_codes::StatusCodes;
use crate::partner::tax::{self, Percentage, TAXES_MAX, Tax};
use crate::words::words;

/// The members of a contract that people write.
pub const MEMBERS: [&str; 33] = [
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
    "taxes",
    "tax_note",
    "billable_status_codes",
];

/// The `monthly_request_limit` of a contract without a limit, as the predecessor wrote it.
pub const UNLIMITED: i64 = -1;

/// Longest prefix of a partner's API key.
pub const API_KEY_PREFIX_CHARS: usize = 255;

/// The largest number of units or minor units: sums of a year of them fit.
const LARGEST: i64 = 1_000_000_000_000_000;

/// A partner contract as people write it, checked as a whole. Amounts are in minor units of `currency`.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    pub api_key_prefix: String,
    /// The partner's name on the invoice.
    pub company: Option<String>,
    pub pricing_model: PricingModel,
    pub currency: Currency,
    pub monthly_flat_fee_cents: Option<i64>,
    /// The price of a unit; `None` unless the pricing model needs it.
    pub per_deed_price_cents: Option<i64>,
    /// The price of a started thousand requests; `None` unless the pricing model needs it.
    pub per_1000_requests_cents: Option<i64>,
    /// The tiers in ascending order; the last has no upper end. Empty unless the pricing model is `tiered`.
    pub tiers: Vec<Tier>,
    pub tier_mode: Option<TierMode>,
    /// Units per month that cost nothing.
    pub included_units: i64,
    /// The least that a month costs before tax; 0 for no minimum.
    pub minimum_commitment_cents: i64,
    pub unit_source: UnitSource,
    /// The event types of `usage_events` that are billed; `None` bills all of them.
    pub billable_event_types: Option<Vec<String>>,
    pub billing_cycle: BillingCycle,
    pub payment_terms: PaymentTerms,
    pub payment_method: PaymentMethod,
    /// Requests per month, or [`UNLIMITED`].
    pub monthly_request_limit: i64,
    pub rate_limit_per_minute: Option<i64>,
    pub status: ContractStatus,
    /// The first billed day; `None` for a contract of the predecessor that never had one.
    pub contract_start_date: Option<Date>,
    /// The last billed day; `None` while the contract is open.
    pub contract_end_date: Option<Date>,
    /// No day before this one is billed; `None` bills from `contract_start_date`.
    pub billed_from: Option<Date>,
    /// The IANA time zone whose midnights separate the billing days.
    pub timezone: String,
    pub billing_email: Option<String>,
    /// A JSON object that is printed on the invoice.
    pub billing_address: Option<Address>,
    pub tax_id: Option<String>,
    /// The taxes on every line, each of its own name, jurisdiction and percentage.
    pub taxes: Vec<Tax>,
    /// Printed under the taxes, such as why there are none.
    pub tax_note: Option<String>,
    /// Which of the gateway's rows are billed.
    pub billable_status_codes: StatusCodes,
    pub po_number: Option<String>,
    /// Stripe's customer (`cus_…`); set when invoices are collected through Stripe.
    pub stripe_customer_id: Option<String>,
    pub notes: Option<String>,
}

/// An address: Stripe's members (`line1`, `city`, …) or others, each a text or null.
pub type Address = BTreeMap<String, Option<String>>;

/// The members of a contract as people write them; absent and null ones have their defaults. Amounts in minor units of
/// `currency`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractMembers {
    /// The prefix of the partner's API key; needed, and not to be changed.
    #[schema(min_length = 1, max_length = 255)]
    pub api_key_prefix: Option<String>,
    /// Name on the invoice.
    #[schema(min_length = 1, max_length = 255)]
    pub company: Option<String>,
    /// Required; it decides which prices are required.
    pub pricing_model: Option<PricingModel>,
    /// Currency of every amount of the contract; USD when not given.
    pub currency: Option<Currency>,
    /// Minor units of the contract's currency per month.
    #[schema(minimum = 0)]
    pub monthly_flat_fee_cents: Option<i64>,
    /// Minor units of the contract's currency per unit.
    #[schema(minimum = 0)]
    pub per_deed_price_cents: Option<i64>,
    /// Minor units of the contract's currency per started thousand requests.
    #[schema(minimum = 0)]
    pub per_1000_requests_cents: Option<i64>,
    /// Ascending; the last one has no end.
    pub tiers: Option<Vec<TierMembers>>,
    pub tier_mode: Option<TierMode>,
    /// Free units per month; 0 when not given.
    #[schema(minimum = 0)]
    pub included_units: Option<i64>,
    /// Minor units of the contract's currency per month; 0 when not given.
    #[schema(minimum = 0)]
    pub minimum_commitment_cents: Option<i64>,
    /// Where units are counted; `api_usage` when not given.
    pub unit_source: Option<UnitSource>,
    /// Which types of usage events count; all when not given.
    #[serde(default, deserialize_with = "event_types")]
    pub billable_event_types: Option<Vec<String>>,
    /// How often an invoice is issued; `monthly` when not given.
    pub billing_cycle: Option<BillingCycle>,
    /// When an invoice is due; `net_30` when not given.
    pub payment_terms: Option<PaymentTerms>,
    /// How the partner pays; `stripe` when not given.
    pub payment_method: Option<PaymentMethod>,
    /// Requests per UTC month; -1, the default, is unlimited.
    #[schema(minimum = -1)]
    pub monthly_request_limit: Option<i64>,
    #[schema(minimum = 0)]
    pub rate_limit_per_minute: Option<i64>,
    /// A contract begins `active`.
    pub status: Option<ContractStatus>,
    /// First billed day; needed for a new contract.
    #[serde(default, deserialize_with = "day")]
    pub contract_start_date: Option<Date>,
    /// Last billed day; none while open.
    #[serde(default, deserialize_with = "day")]
    pub contract_end_date: Option<Date>,
    /// Nothing before is billed; the start when not given.
    #[serde(default, deserialize_with = "day")]
    pub billed_from: Option<Date>,
    /// IANA name: where the billing days begin; UTC when not given.
    pub timezone: Option<String>,
    pub billing_email: Option<String>,
    /// Printed on the invoice: Stripe's members of an address, or others.
    #[serde(default, deserialize_with = "address")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    pub billing_address: Option<Address>,
    #[schema(min_length = 1, max_length = 255)]
    pub tax_id: Option<String>,
    /// The taxes on every line; none when not given.
    #[schema(max_items = 8)]
    pub taxes: Option<Vec<Tax>>,
    /// Shorthand for one tax named `Tax`.
    pub tax_percent: Option<Percentage>,
    /// The same in hundredths of a percent.
    #[schema(minimum = 0, maximum = 10_000)]
    pub tax_rate_bps: Option<i32>,
    /// Printed under the taxes: why there are none (reverse charge), or under which rule.
    pub tax_note: Option<String>,
    /// Which of the gateway's rows are billed; all but 429 and 500 to 599 when not given.
    pub billable_status_codes: Option<StatusCodes>,
    #[schema(min_length = 1, max_length = 255)]
    pub po_number: Option<String>,
    /// `cus_…`, when it is collected through Stripe.
    #[schema(min_length = 1, max_length = 255)]
    pub stripe_customer_id: Option<String>,
    /// Notes for staff; never printed.
    pub notes: Option<String>,
}

/// A tier as people write it: the units above the tier before, up to and including `up_to`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TierMembers {
    /// Null in the last tier and in no other.
    pub up_to: Option<i64>,
    /// Minor units of the contract's currency per unit.
    pub unit_price_cents: Option<UnitPrice>,
    /// Once, when the tier is reached; 0 when not given.
    #[schema(minimum = 0)]
    pub flat_cents: Option<i64>,
}

/// What of a contract its invoices print. It is frozen in `invoices.metadata.contract` when one is issued, so that a later
/// change of the contract does not change the document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BillingDetails {
    pub api_key_prefix: Option<String>,
    pub company: Option<String>,
    pub billing_address: Option<Address>,
    pub billing_email: Option<String>,
    pub tax_id: Option<String>,
    pub tax_note: Option<String>,
    pub po_number: Option<String>,
    /// IANA name of the zone whose days are printed; `None` for UTC.
    pub timezone: Option<String>,
    pub payment_terms: Option<PaymentTerms>,
    pub payment_method: Option<PaymentMethod>,
}

/// One tier: the units above the tier before, up to and including `up_to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// The last unit of the tier; `None` in the last tier.
    pub up_to: Option<i64>,
    /// The price of a unit in minor units; may have decimals below one.
    pub unit_price_cents: Decimal,
    /// What reaching the tier costs once, in minor units.
    pub flat_cents: i64,
}

/// A member of a contract that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct Invalid {
    /// The path of the member, such as `tiers[1].up_to`.
    pub field: String,
    /// What the member has to be, for people.
    pub expected: String,
}

words!(
    /// How usage becomes an amount.
    PricingModel {
        /// A flat fee per month.
        Flat = "flat",
        /// A price per unit.
        PerDeed = "per_deed",
        /// A flat fee per month and a price per unit.
        Hybrid = "hybrid",
        /// A price per started thousand requests.
        PerRequest = "per_request",
        /// A price per unit that depends on their number.
        Tiered = "tiered",
    }
);
words!(
    /// How a tiered price is computed.
    TierMode {
        /// Each slice of units has the price of its own tier.
        Graduated = "graduated",
        /// All units have the price of the tier they reach.
        Volume = "volume",
    }
);
words!(
    /// Where units are counted.
    UnitSource {
        /// The requests in the gateway's `api_usage`.
        ApiUsage = "api_usage",
        /// The metered events in `usage_events`.
        UsageEvents = "usage_events",
        /// The sum of both.
        Both = "both",
    }
);
words!(
    /// How often the partner is invoiced.
    BillingCycle {
        Monthly = "monthly",
        Quarterly = "quarterly",
        Annual = "annual",
    }
);
words!(
    /// When an invoice has to be paid.
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
    /// How the partner pays invoices.
    PaymentMethod {
        Stripe = "stripe",
        Wire = "wire",
        Check = "check",
        Ach = "ach",
    }
);
words!(
    /// Whether days of the contract are billed.
    ContractStatus {
        Active = "active",
        /// Not billed after the day of the suspension, until it is resumed.
        Suspended = "suspended",
        /// Not billed after the day of the cancellation; a canceled contract never resumes.
        Canceled = "canceled",
    }
);

impl BillingCycle {
    /// How many months one cycle has.
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
    /// Days from the period's end until an invoice is due; `None` when it is due on the day of issue.
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
    /// Reads a contract from the JSON of its members, which a change may have been laid over.
    ///
    /// # Errors
    /// Names the first member that is not known or not valid, or that is missing although the pricing model needs it.
    pub fn parse(members: &Map<String, Value>) -> Result<Contract, Invalid> {
        let members = serde_path_to_error::deserialize(&Value::Object(members.clone()));
        let members: ContractMembers = members.map_err(|error| {
            let (field, expected) = (error.path().to_string(), error.inner().to_string());
            invalid(field, expected)
        })?;
        Contract::new(members)
    }

    /// Checks the members of a contract.
    ///
    /// # Errors
    /// Names the first member that is not valid, or that is missing although the pricing model needs it.
    pub fn new(members: ContractMembers) -> Result<Contract, Invalid> {
        let prefix = text(
            "api_key_prefix",
            members.api_key_prefix,
            API_KEY_PREFIX_CHARS,
        )?;
        let contract = Contract {
            api_key_prefix: required("api_key_prefix", prefix)?,
            company: text("company", members.company, 255)?,
            pricing_model: required("pricing_model", members.pricing_model)?,
            currency: members.currency.unwrap_or(Currency::USD),
            monthly_flat_fee_cents: amount(
                "monthly_flat_fee_cents",
                members.monthly_flat_fee_cents,
            )?,
            per_deed_price_cents: amount("per_deed_price_cents", members.per_deed_price_cents)?,
            per_1000_requests_cents: amount(
                "per_1000_requests_cents",
                members.per_1000_requests_cents,
            )?,
            tiers: tiers(members.tiers)?,
            tier_mode: members.tier_mode,
            included_units: amount("included_units", members.included_units)?.unwrap_or_default(),
            minimum_commitment_cents: amount(
                "minimum_commitment_cents",
                members.minimum_commitment_cents,
            )?
            .unwrap_or_default(),
            unit_source: members.unit_source.unwrap_or(UnitSource::ApiUsage),
            billable_event_types: members.billable_event_types,
            billing_cycle: members.billing_cycle.unwrap_or(BillingCycle::Monthly),
            payment_terms: members.payment_terms.unwrap_or(PaymentTerms::Net30),
            payment_method: members.payment_method.unwrap_or(PaymentMethod::Stripe),
            monthly_request_limit: within(
                "monthly_request_limit",
                members.monthly_request_limit,
                UNLIMITED..=LARGEST,
            )?
            .unwrap_or(UNLIMITED),
            rate_limit_per_minute: amount("rate_limit_per_minute", members.rate_limit_per_minute)?,
            status: members.status.unwrap_or(ContractStatus::Active),
            contract_start_date: members.contract_start_date,
            contract_end_date: members.contract_end_date,
            billed_from: members.billed_from,
            timezone: timezone(members.timezone)?,
            billing_email: email(members.billing_email)?,
            billing_address: members.billing_address,
            tax_id: text("tax_id", members.tax_id, 255)?,
            taxes: taxes(members.taxes, members.tax_percent, members.tax_rate_bps)?,
            tax_note: text("tax_note", members.tax_note, 1_000)?,
            billable_status_codes: members.billable_status_codes.unwrap_or_default(),
            po_number: text("po_number", members.po_number, 255)?,
            stripe_customer_id: text("stripe_customer_id", members.stripe_customer_id, 255)?,
            notes: notes(members.notes)?,
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
            tax_note: self.tax_note.clone(),
            po_number: self.po_number.clone(),
            timezone: Some(self.timezone.clone()),
            payment_terms: Some(self.payment_terms),
            payment_method: Some(self.payment_method),
        }
    }

    /// The tiers in the JSON shape in which they are written and stored.
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

    /// Amounts of its invoices are multiples of so many minor units: where Stripe collects, what Stripe can charge.
    #[must_use]
    pub fn step_cents(&self) -> i64 {
        match self.payment_method {
            PaymentMethod::Stripe => self.currency.stripe_step_cents(),
            PaymentMethod::Wire | PaymentMethod::Check | PaymentMethod::Ach => 1,
        }
    }

    /// Whether Stripe can charge every price, where Stripe collects. Asked when a contract is entered or changed: one that
    /// is there already is billed, in amounts that are rounded.
    ///
    /// # Errors
    /// Names the price that is no multiple of Stripe's step.
    pub fn check_chargeable(&self) -> Result<(), Invalid> {
        let step = self.step_cents();
        let whole = |cents: Option<i64>| cents.unwrap_or_default() % step == 0;
        let mut prices = vec![
            (
                "monthly_flat_fee_cents".to_owned(),
                whole(self.monthly_flat_fee_cents),
            ),
            (
                "per_deed_price_cents".to_owned(),
                whole(self.per_deed_price_cents),
            ),
            (
                "per_1000_requests_cents".to_owned(),
                whole(self.per_1000_requests_cents),
            ),
            (
                "minimum_commitment_cents".to_owned(),
                whole(Some(self.minimum_commitment_cents)),
            ),
        ];
        for (index, tier) in self.tiers.iter().enumerate() {
            let price = tier.unit_price_cents % Decimal::from(step);
            let is_whole = step == 1 || price.is_zero();
            prices.push((format!("tiers[{index}].unit_price_cents"), is_whole));
            let fee = (
                format!("tiers[{index}].flat_cents"),
                whole(Some(tier.flat_cents)),
            );
            prices.push(fee);
        }
        match prices.into_iter().find(|(_, is_whole)| !is_whole) {
            None => Ok(()),
            Some((field, _)) => {
                let currency = self.currency;
                Err(invalid(
                    field,
                    format!("a multiple of {step}: Stripe charges nothing else in {currency}"),
                ))
            }
        }
    }

    /// Its taxes in hundredths of a percent, added up and rounded half away from zero: what `tax_rate_bps` answers.
    #[must_use]
    pub fn tax_rate_bps(&self) -> i32 {
        tax::sum_bps(&self.taxes)
    }

    /// The rules that concern several members at once.
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

fn within<T: PartialOrd + std::fmt::Display>(
    field: &str,
    number: Option<T>,
    range: RangeInclusive<T>,
) -> Result<Option<T>, Invalid> {
    match number {
        Some(number) if !range.contains(&number) => {
            let (least, most) = (range.start(), range.end());
            Err(invalid(
                field,
                format!("a whole number from {least} to {most}"),
            ))
        }
        number => Ok(number),
    }
}

fn amount(field: &str, cents: Option<i64>) -> Result<Option<i64>, Invalid> {
    within(field, cents, 0..=LARGEST)
}

fn text(field: &str, text: Option<String>, longest: usize) -> Result<Option<String>, Invalid> {
    let is_plain = |text: &String| {
        !text.trim().is_empty()
            && text.chars().count() <= longest
            && !text.chars().any(char::is_control)
    };
    match text {
        Some(text) if !is_plain(&text) => {
            let expected =
                format!("a text of 1 to {longest} characters, none of them a control character");
            Err(invalid(field, expected))
        }
        text => Ok(text),
    }
}

/// Notes may span lines, unlike other texts of a contract.
fn notes(notes: Option<String>) -> Result<Option<String>, Invalid> {
    match notes {
        Some(text) if text.chars().count() > 10_000 || text.contains('\0') => {
            Err(invalid("notes", "a text of up to 10000 characters"))
        }
        notes => Ok(notes),
    }
}

fn timezone(name: Option<String>) -> Result<String, Invalid> {
    let Some(name) = name else {
        return Ok("UTC".to_owned());
    };
    let zone = TimeZone::get(&name);
    zone.map_err(|_unknown| invalid("timezone", "an IANA time zone, as in America/New_York"))?;
    Ok(name)
}

fn email(address: Option<String>) -> Result<Option<String>, Invalid> {
    let is_address = |text: &String| {
        text.split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
            && !text.contains(char::is_whitespace)
    };
    match text("billing_email", address, 254)? {
        Some(text) if !is_address(&text) => Err(invalid("billing_email", "an e-mail address")),
        address => Ok(address),
    }
}

fn tiers(members: Option<Vec<TierMembers>>) -> Result<Vec<Tier>, Invalid> {
    let Some(members) = members else {
        return Ok(Vec::new());
    };
    if members.is_empty() {
        let expected = "a list of {up_to, unit_price_cents, flat_cents}";
        return Err(invalid("tiers", expected));
    }
    let last = members.len() - 1;
    let mut read: Vec<Tier> = Vec::new();
    for (index, tier) in members.into_iter().enumerate() {
        let name = |member: &str| format!("tiers[{index}].{member}");
        let up_to = within(&name("up_to"), tier.up_to, i64::MIN..=LARGEST)?;
        if up_to.is_none() != (index == last) {
            let expected = "null in the last tier and in no other";
            return Err(invalid(name("up_to"), expected));
        }
        let before = read.last().and_then(|tier| tier.up_to).unwrap_or_default();
        if up_to.is_some_and(|up_to| up_to <= before) {
            let expected = "greater than in the tier before, and than 0";
            return Err(invalid(name("up_to"), expected));
        }
        let price = required(&name("unit_price_cents"), tier.unit_price_cents)?;
        read.push(Tier {
            up_to,
            unit_price_cents: price.0,
            flat_cents: amount(&name("flat_cents"), tier.flat_cents)?.unwrap_or_default(),
        });
    }
    Ok(read)
}

impl ContractMembers {
    /// The taxes that the members name, or the one that a shorthand stands for.
    ///
    /// # Errors
    /// Names the member that is not valid.
    pub fn named_taxes(&self) -> Result<Vec<Tax>, Invalid> {
        taxes(self.taxes.clone(), self.tax_percent, self.tax_rate_bps)
    }
}

/// The taxes, or the one that a shorthand stands for.
fn taxes(
    taxes: Option<Vec<Tax>>,
    percent: Option<Percentage>,
    bps: Option<i32>,
) -> Result<Vec<Tax>, Invalid> {
    let bps = within("tax_rate_bps", bps, 0..=10_000)?;
    let of_bps = bps
        .and_then(|bps| u32::try_from(bps).ok())
        .and_then(Percentage::from_bps);
    let taxes = match (taxes, percent, of_bps) {
        (Some(taxes), None, None) => taxes,
        (None, Some(percentage), None) | (None, None, Some(percentage)) => {
            // None at all, as 0 always was.
            let is_taxed = percent.is_some() || bps != Some(0);
            is_taxed
                .then(|| Tax::unnamed(percentage))
                .into_iter()
                .collect()
        }
        (None, None, None) => Vec::new(),
        (Some(_), Some(_), _) | (None, Some(_), Some(_)) => {
            return Err(invalid(
                "tax_percent",
                "instead of the other members for taxes",
            ));
        }
        (Some(_), None, Some(_)) => {
            return Err(invalid(
                "tax_rate_bps",
                "instead of the other members for taxes",
            ));
        }
    };
    if taxes.len() > TAXES_MAX {
        return Err(invalid("taxes", format!("at most {TAXES_MAX} taxes")));
    }
    let mut read: Vec<Tax> = Vec::with_capacity(taxes.len());
    for (index, tax) in taxes.into_iter().enumerate() {
        let name = |member: &str| format!("taxes[{index}].{member}");
        let tax = Tax {
            name: required(&name("name"), text(&name("name"), Some(tax.name), 255)?)?,
            jurisdiction: text(&name("jurisdiction"), tax.jurisdiction, 255)?,
            registration: text(&name("registration"), tax.registration, 255)?,
            percentage: tax.percentage,
        };
        if read.iter().any(|other| other.is_same(&tax)) {
            let expected = "of another name, jurisdiction or percentage than the taxes before it";
            return Err(invalid(format!("taxes[{index}]"), expected));
        }
        read.push(tax);
    }
    Ok(read)
}

/// A civil day, from the year 2000 on.
fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let day = text.parse().ok().filter(|day: &Date| day.year() >= 2000);
    match day {
        Some(day) if text.len() == 10 => Ok(Some(day)),
        Some(_) | None => Err(D::Error::custom(
            "a day from the year 2000 on, written 2025-11-01",
        )),
    }
}

/// The whole list is the member that is at fault.
fn event_types<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    let types: Option<Vec<String>> = whole(deserializer, "a list of at least one event type")?;
    let is_plain = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
    match types {
        Some(types) if types.is_empty() || !types.iter().all(is_plain) => {
            Err(D::Error::custom("a list of at least one event type"))
        }
        types => Ok(types),
    }
}

/// The whole address is the member that is at fault.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    let expected = "an object of texts of up to 255 characters";
    let address: Option<Address> = whole(deserializer, expected)?;
    let is_plain = |(name, text): (&String, &Option<String>)| {
        let text = text.as_deref().unwrap_or_default();
        !name.contains('\0') && text.chars().count() <= 255 && !text.chars().any(char::is_control)
    };
    match address {
        Some(address) if !address.iter().all(is_plain) => Err(D::Error::custom(expected)),
        address => Ok(address),
    }
}

/// A member whose parts are not named when they are not valid.
fn whole<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
    expected: &str,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let read = Option::deserialize(value);
    read.map_err(|_other_shape| D::Error::custom(expected))
}

/// A price per unit, with up to twelve decimals below a minor unit: a whole number, or a decimal number in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitPrice(pub Decimal);

impl<'de> Deserialize<'de> for UnitPrice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UnitPrice, D::Error> {
        let value = Value::deserialize(deserializer)?;
        price(&value).map(UnitPrice).ok_or_else(|| {
            D::Error::custom(
                "a whole number, or a decimal in a text with up to 12 places, not negative",
            )
        })
    }
}

impl PartialSchema for UnitPrice {
    fn schema() -> RefOr<Schema> {
        let of = |kind: Type| ObjectBuilder::new().schema_type(kind);
        OneOfBuilder::new()
            .item(of(Type::Integer))
            .item(of(Type::String).pattern(Some(r"^[0-9]*\.?[0-9]*$")))
            .description(Some(
                "Minor units per unit: a whole number, or a decimal number in a text with up to 12 places",
            ))
            .into()
    }
}

impl ToSchema for UnitPrice {}

/// Digits with at most one point, no sign and no exponent.
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
        assert_eq!((contract.included_units, contract.tax_rate_bps()), (0, 0));
        assert_eq!(contract.billable_status_codes, StatusCodes::default());
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
            (
                "tax_percent",
                json!([19, "101", "8.87505", "-1", "8,5", ""]),
            ),
            ("taxes", json!(["VAT", {}])),
            ("tax_note", json!(["", 5])),
            ("billable_status_codes", json!(["2xx", 200, ["200"]])),
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
    fn taxes_have_names_and_a_shorthand() {
        let percentages = |changes: Value| -> Vec<String> {
            let taxes = with(changes).unwrap().taxes.into_iter();
            taxes
                .map(|tax| format!("{} {}", tax.name, tax.percentage))
                .collect()
        };
        assert_eq!(percentages(json!({"tax_rate_bps": 1900})), ["Tax 19"]);
        assert_eq!(percentages(json!({"tax_percent": "8.875"})), ["Tax 8.875"]);
        assert_eq!(percentages(json!({"tax_rate_bps": 0})), [""; 0]);
        let new_york = json!([
            {"name": "State", "jurisdiction": "NY", "percentage": "4"},
            {"name": "City", "jurisdiction": "NYC", "percentage": "4.5", "registration": "12-345"},
            {"name": "MCTD", "percentage": "0.375"}
        ]);
        let contract = with(json!({"taxes": new_york})).unwrap();
        assert_eq!(contract.tax_rate_bps(), 888);
        assert_eq!(contract.taxes[1].registration.as_deref(), Some("12-345"));
        let vat = |percentage: &str| json!({"name": "VAT", "percentage": percentage});
        for (changes, field) in [
            (json!({"taxes": [], "tax_percent": "5"}), "tax_percent"),
            (json!({"taxes": [], "tax_rate_bps": 5}), "tax_rate_bps"),
            (json!({"taxes": [vat("5"), vat("5.0")]}), "taxes[1]"),
            (
                json!({"taxes": [vat("5"), vat("5.00001")]}),
                "taxes[1].percentage",
            ),
            (
                json!({"taxes": [{"name": " ", "percentage": "5"}]}),
                "taxes[0].name",
            ),
            (json!({"taxes": [{"name": "VAT"}]}), "taxes[0]"),
            (
                json!({"taxes": (1..10).map(|n| vat(&n.to_string())).collect::<Vec<_>>()}),
                "taxes",
            ),
        ] {
            assert_eq!(with(changes.clone()).unwrap_err().field, field, "{changes}");
        }
    }

    #[test]
    fn where_stripe_collects_every_price_is_one_that_it_charges() {
        let refused = |changes: Value| with(changes).unwrap().check_chargeable().err();
        let field = |changes: Value| refused(changes).map(|invalid| invalid.field);
        let kwd = |member: &str, price: i64| json!({"currency": "KWD", member: price});
        assert_eq!(field(json!({"currency": "KWD"})), None);
        assert_eq!(
            field(kwd("per_deed_price_cents", 255)).as_deref(),
            Some("per_deed_price_cents")
        );
        assert_eq!(
            field(kwd("minimum_commitment_cents", 5)).as_deref(),
            Some("minimum_commitment_cents")
        );
        let mut by_wire = kwd("per_deed_price_cents", 255);
        by_wire["payment_method"] = json!("wire");
        assert_eq!(field(by_wire), None);
        assert_eq!(
            field(json!({"currency": "UGX", "monthly_flat_fee_cents": 50_050})).as_deref(),
            Some("monthly_flat_fee_cents")
        );
        let tiered = |price: Value| {
            field(
                json!({"currency": "ISK", "pricing_model": "tiered", "tier_mode": "volume",
                         "monthly_flat_fee_cents": null, "per_deed_price_cents": null,
                         "tiers": [{"unit_price_cents": price}]}),
            )
        };
        assert_eq!(tiered(json!(500)), None);
        for price in [json!(550), json!("100.5")] {
            assert_eq!(tiered(price).as_deref(), Some("tiers[0].unit_price_cents"));
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
