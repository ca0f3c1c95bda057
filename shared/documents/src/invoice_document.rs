//! What an invoice says, read from the rows that keep it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use domain::money::{self, Currency};
use domain::partner::contract::{Address, BillingDetails, PaymentMethod, PaymentTerms};
use domain::partner::tax::Percentage;
use domain::stripe_objects::invoice::InvoiceStatus;

/// What the row of an invoice says. An amount that is `None` is not known, and cannot be printed.
#[derive(Debug, Clone, Copy)]
pub struct InvoiceRecord<'a> {
    pub number: &'a str,
    pub status: InvoiceStatus,
    pub currency: Currency,
    pub created_at: Timestamp,
    pub finalized_at: Option<Timestamp>,
    pub billing_period_start: Option<Timestamp>,
    /// The first instant after the period.
    pub billing_period_end: Option<Timestamp>,
    pub due_at: Option<Timestamp>,
    pub po_number: Option<&'a str>,
    /// `{"items": [{description, quantity, unit_price_cents, total_cents, …}]}`
    pub line_items: Option<&'a Value>,
    pub subtotal_cents: Option<i64>,
    pub discount_cents: Option<i64>,
    pub tax_cents: Option<i64>,
    /// `[{name, jurisdiction, percentage, registration, taxable_cents, tax_cents}]`, the same with `tax_rate_bps` for the
    /// percentage, or Stripe's shape.
    pub tax_breakdown: Option<&'a Value>,
    pub total_cents: Option<i64>,
    pub credit_applied_cents: i64,
    pub amount_paid_cents: Option<i64>,
    pub amount_due_cents: Option<i64>,
    pub notes: Option<&'a str>,
}

/// Whom an invoice bills who has no contract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payer {
    pub name: Option<String>,
    pub email: Option<String>,
}

/// What an invoice took from a credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenCredit<'a> {
    /// The credit's description, otherwise its reason; `None` when it has neither.
    pub label: Option<&'a str>,
    /// What is taken off, as a positive number of minor units of the invoice's currency.
    pub amount_cents: i64,
}

/// Everything that is printed, but for the issuer. Amounts in minor units of `currency`; texts are cleaned when they
/// are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceDocument {
    pub number: String,
    pub status: InvoiceStatus,
    pub currency: Currency,
    pub customer: Customer,
    /// When it was finalised: the document's own date.
    pub issued_at: Timestamp,
    pub issued_on: Date,
    pub due_on: Option<Date>,
    /// The first and the last billed day; `None` for an invoice without a period.
    pub period: Option<(Date, Date)>,
    pub po_number: Option<String>,
    pub payment_terms: Option<PaymentTerms>,
    /// `None` for what Stripe collected by itself: nothing is said about how to pay.
    pub payment_method: Option<PaymentMethod>,
    pub lines: Vec<DocumentLine>,
    pub subtotal_cents: i64,
    pub discount_cents: i64,
    /// By rate and jurisdiction; they add up to the invoice's tax.
    pub taxes: Vec<TaxLine>,
    /// What the contract says of its taxes, such as why there are none.
    pub tax_note: Option<String>,
    pub total_cents: i64,
    /// Credits taken off the total, one line each.
    pub credits: Vec<CreditLine>,
    pub amount_paid_cents: i64,
    pub amount_due_cents: i64,
    pub notes: Option<String>,
}

/// Name and address of who is billed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Customer {
    pub name: Option<String>,
    pub address: Vec<String>,
    pub tax_id: Option<String>,
    pub email: Option<String>,
}

/// A line; `Σ total_cents` of the lines is the subtotal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentLine {
    pub description: String,
    /// First and last day, where they differ from the invoice's.
    pub period: Option<(Date, Date)>,
    pub quantity: Option<i64>,
    /// A decimal number of minor units: it may have decimals below one.
    pub unit_amount: Option<String>,
    pub total_cents: i64,
}

/// One tax of an invoice: its rate and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaxLine {
    /// Name, rate and jurisdiction: `VAT 19% (DE)`.
    pub label: String,
    /// What it is of, where that is known.
    pub taxable_cents: Option<i64>,
    pub amount_cents: i64,
}

/// What was taken from a credit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditLine {
    pub label: String,
    /// What is taken off, as a positive number of minor units of the invoice's currency.
    pub amount_cents: i64,
}

/// Why an invoice cannot be printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A stored value is not what it should be.
    #[error("the column {0} of an invoice cannot be read")]
    Column(&'static str),
    /// Amounts do not fit.
    #[error("the invoice's amounts are out of range")]
    Money(#[from] money::Error),
}

/// Lines as they are stored.
#[derive(Debug, Default, Deserialize)]
struct StoredLines {
    items: Option<Vec<StoredLine>>,
}

/// A line as it is stored; the predecessor's have fewer members.
#[derive(Debug, Deserialize)]
struct StoredLine {
    description: Option<String>,
    quantity: Option<i64>,
    unit_price_cents: Option<i64>,
    unit_amount_decimal: Option<String>,
    total_cents: i64,
    period_start: Option<Timestamp>,
    period_end: Option<Timestamp>,
}

/// A part of the tax as it is stored: ours has `tax_cents`, Stripe's `amount`.
#[derive(Debug, Deserialize)]
struct StoredTax {
    #[serde(alias = "amount")]
    tax_cents: i64,
    #[serde(alias = "taxable_amount")]
    taxable_cents: Option<i64>,
    name: Option<String>,
    percentage: Option<Percentage>,
    tax_rate_bps: Option<i64>,
    #[serde(default, deserialize_with = "expanded_rate")]
    tax_rate: StoredRate,
    label: Option<String>,
    jurisdiction: Option<String>,
}

/// A tax rate of Stripe's.
#[derive(Debug, Default, Deserialize)]
struct StoredRate {
    percentage: Option<Number>,
    display_name: Option<String>,
    jurisdiction: Option<String>,
}

/// Stripe names a rate by its id, unless it was asked to expand it.
fn expanded_rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoredRate, D::Error> {
    let rate = Value::deserialize(deserializer)?;
    if rate.is_object() {
        return StoredRate::deserialize(rate).map_err(D::Error::custom);
    }
    Ok(StoredRate::default())
}

impl InvoiceDocument {
    /// What is printed of an invoice: of its row, its contract or else whom it bills, and what it took from credits. Days
    /// are those of the contract's time zone, else UTC.
    ///
    /// # Errors
    /// When a column says what cannot be printed, or an amount is not known.
    pub fn new(
        invoice: &InvoiceRecord<'_>,
        contract: Option<&BillingDetails>,
        payer: Option<&Payer>,
        credits: &[TakenCredit<'_>],
    ) -> Result<InvoiceDocument, Unreadable> {
        let zone = contract.and_then(|contract| contract.timezone.as_deref());
        let zone = zone.map_or(Ok(TimeZone::UTC), |name| {
            TimeZone::get(name).map_err(|_unknown_zone| Unreadable::Column("timezone"))
        })?;
        let issued_at = invoice.finalized_at.unwrap_or(invoice.created_at);
        let (start, end) = (invoice.billing_period_start, invoice.billing_period_end);
        let period = days(start, end, &zone);
        let tax_cents = known("tax_cents", invoice.tax_cents)?;
        Ok(InvoiceDocument {
            number: said(Some(invoice.number)).ok_or(Unreadable::Column("invoice_number"))?,
            status: invoice.status,
            currency: invoice.currency,
            customer: Customer::of(contract, payer),
            issued_at,
            issued_on: zone.to_datetime(issued_at).date(),
            due_on: invoice.due_at.map(|due_at| zone.to_datetime(due_at).date()),
            period,
            po_number: said(invoice.po_number).or_else(|| said(contract?.po_number.as_deref())),
            payment_terms: contract.and_then(|contract| contract.payment_terms),
            payment_method: contract.and_then(|contract| contract.payment_method),
            lines: lines(invoice.line_items, period, &zone)?,
            subtotal_cents: known("subtotal_cents", invoice.subtotal_cents)?,
            discount_cents: known("discount_cents", invoice.discount_cents)?,
            taxes: taxes(invoice.tax_breakdown, tax_cents)?,
            tax_note: said(contract.and_then(|contract| contract.tax_note.as_deref())),
            total_cents: known("total_cents", invoice.total_cents)?,
            credits: credit_lines(credits, invoice.credit_applied_cents)?,
            amount_paid_cents: known("amount_paid_cents", invoice.amount_paid_cents)?,
            amount_due_cents: known("amount_due_cents", invoice.amount_due_cents)?,
            notes: said(invoice.notes),
        })
    }
}

/// An amount that is printed; one that is not known is no 0.
fn known(column: &'static str, cents: Option<i64>) -> Result<i64, Unreadable> {
    cents.ok_or(Unreadable::Column(column))
}

impl Customer {
    /// The contract's company, else the payer.
    fn of(contract: Option<&BillingDetails>, payer: Option<&Payer>) -> Customer {
        let unknown = BillingDetails::default();
        let contract = contract.unwrap_or(&unknown);
        let address = contract.billing_address.as_ref();
        Customer {
            name: said(contract.company.as_deref())
                .or_else(|| said(contract.api_key_prefix.as_deref()))
                .or_else(|| said(payer?.name.as_deref())),
            address: address.map(address_lines).unwrap_or_default(),
            tax_id: said(contract.tax_id.as_deref()),
            email: said(contract.billing_email.as_deref())
                .or_else(|| said(payer?.email.as_deref())),
        }
    }
}

/// Stripe's members of an address in the order of an envelope, then what else there is.
fn address_lines(members: &Address) -> Vec<String> {
    const STREET: [&str; 3] = ["attention", "line1", "line2"];
    const CITY: [&str; 3] = ["city", "state", "postal_code"];
    const COUNTRY: &str = "country";
    let member = |name: &str| said(members.get(name)?.as_deref());
    let mut lines: Vec<String> = STREET.into_iter().filter_map(member).collect();
    let state = [member("state"), member("postal_code")];
    let state: Vec<String> = state.into_iter().flatten().collect();
    let city = [member("city"), Some(state.join(" "))];
    let city: Vec<String> = city
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    if !city.is_empty() {
        lines.push(city.join(", "));
    }
    let is_known = |name: &str| STREET.contains(&name) || CITY.contains(&name) || name == COUNTRY;
    let others = members.keys().filter(|name| !is_known(name));
    lines.extend(others.filter_map(|name| member(name)));
    lines.extend(member(COUNTRY));
    lines
}

fn lines(
    stored: Option<&Value>,
    of_invoice: Option<(Date, Date)>,
    zone: &TimeZone,
) -> Result<Vec<DocumentLine>, Unreadable> {
    let stored: StoredLines = stored_as("line_items", stored)?.unwrap_or_default();
    let stored = stored.items.unwrap_or_default();
    let lines = stored.into_iter().map(|line| DocumentLine {
        period: days(line.period_start, line.period_end, zone)
            .filter(|period| Some(*period) != of_invoice),
        description: line.description.unwrap_or_default(),
        quantity: line.quantity,
        unit_amount: line
            .unit_amount_decimal
            .or_else(|| line.unit_price_cents.map(|cents| cents.to_string())),
        total_cents: line.total_cents,
    });
    Ok(lines.collect())
}

/// The parts of a tax in our shape (`name`, `jurisdiction`, `percentage`, `taxable_cents`, `tax_cents`) and in Stripe's; what
/// they leave of the invoice's tax is one more.
fn taxes(breakdown: Option<&Value>, tax_cents: i64) -> Result<Vec<TaxLine>, Unreadable> {
    let parts: Vec<StoredTax> = stored_as("tax_breakdown", breakdown)?.unwrap_or_default();
    let mut taxes = Vec::new();
    let mut left_cents = tax_cents;
    for part in parts {
        let amount_cents = part.tax_cents;
        left_cents = left_cents
            .checked_sub(amount_cents)
            .ok_or(money::Error::OutOfRange)?;
        let rate = part.tax_rate;
        let percent = match (part.percentage, part.tax_rate_bps) {
            (Some(percentage), _) => Some(percentage.to_string()),
            (None, Some(bps)) => Some(percent(bps)),
            (None, None) => rate.percentage.map(|percentage| percentage.to_string()),
        };
        let name = said(part.name.as_deref())
            .or_else(|| said(rate.display_name.as_deref()))
            .or_else(|| said(part.label.as_deref()));
        let place =
            said(part.jurisdiction.as_deref()).or_else(|| said(rate.jurisdiction.as_deref()));
        let mut label = name.unwrap_or_else(|| "Tax".to_owned());
        if let Some(percent) = percent {
            label.push_str(&format!(" {percent}%"));
        }
        if let Some(place) = place {
            label.push_str(&format!(" ({place})"));
        }
        taxes.push(TaxLine {
            label,
            taxable_cents: part.taxable_cents,
            amount_cents,
        });
    }
    if left_cents != 0 {
        taxes.push(TaxLine {
            label: "Tax".to_owned(),
            taxable_cents: None,
            amount_cents: left_cents,
        });
    }
    Ok(taxes)
}

/// Basis points as people write a rate: `7.25`, `19`.
fn percent(bps: i64) -> String {
    let (whole, hundredths) = (bps / 100, (bps % 100).abs());
    let text = format!("{whole}.{hundredths:02}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What was taken from each credit; when they do not say, the sum of the invoice.
fn credit_lines(
    taken: &[TakenCredit<'_>],
    applied_cents: i64,
) -> Result<Vec<CreditLine>, Unreadable> {
    let mut left_cents = applied_cents;
    let mut credits = Vec::new();
    for credit in taken {
        let amount_cents = credit.amount_cents;
        left_cents = left_cents
            .checked_sub(amount_cents)
            .ok_or(money::Error::OutOfRange)?;
        let label = said(credit.label);
        credits.push(CreditLine {
            label: label.map_or_else(|| "Credit".to_owned(), |label| format!("Credit: {label}")),
            amount_cents,
        });
    }
    if left_cents != 0 {
        credits.push(CreditLine {
            label: "Credit".to_owned(),
            amount_cents: left_cents,
        });
    }
    Ok(credits)
}

/// The first and the last day of `[start, end)`.
fn days(start: Option<Timestamp>, end: Option<Timestamp>, zone: &TimeZone) -> Option<(Date, Date)> {
    let (start, end) = (start?, end?);
    let last = end
        .saturating_sub(SignedDuration::from_micros(1))
        .ok()?
        .max(start);
    Some((
        zone.to_datetime(start).date(),
        zone.to_datetime(last).date(),
    ))
}

/// A text that says something.
fn said(text: Option<&str>) -> Option<String> {
    let text = text?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A JSON column as the type it was written from; `None` when there is nothing in it.
fn stored_as<T: DeserializeOwned>(
    column: &'static str,
    stored: Option<&Value>,
) -> Result<Option<T>, Unreadable> {
    let Some(stored) = stored.filter(|stored| !stored.is_null()) else {
        return Ok(None);
    };
    let read = T::deserialize(stored);
    read.map(Some)
        .map_err(|_other_shape| Unreadable::Column(column))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn line_items() -> Value {
        json!({"items": [
            {"description": "Flat fee", "quantity": 1, "unit_price_cents": 10_000, "total_cents": 10_000,
             "period_start": "2025-09-30T22:00:00Z", "period_end": "2025-10-31T23:00:00Z"}]})
    }

    fn invoice<'a>(line_items: &'a Value, tax_breakdown: &'a Value) -> InvoiceRecord<'a> {
        InvoiceRecord {
            number: "API-202510-dp_pk_alpha",
            status: InvoiceStatus::Open,
            currency: Currency::parse("EUR").unwrap(),
            created_at: at("2025-11-01T00:05:00Z"),
            finalized_at: Some(at("2025-11-01T00:05:00Z")),
            billing_period_start: Some(at("2025-09-30T22:00:00Z")),
            billing_period_end: Some(at("2025-10-31T23:00:00Z")),
            due_at: Some(at("2025-11-30T23:00:00Z")),
            po_number: None,
            line_items: Some(line_items),
            subtotal_cents: Some(10_000),
            discount_cents: Some(0),
            tax_cents: Some(1_900),
            tax_breakdown: Some(tax_breakdown),
            total_cents: Some(11_900),
            credit_applied_cents: 500,
            amount_paid_cents: Some(400),
            amount_due_cents: Some(11_000),
            notes: None,
        }
    }

    #[test]
    fn a_partners_invoice_is_read_in_the_days_of_its_contract() {
        let contract: BillingDetails = serde_json::from_value(json!({
            "company": "Alpha Title", "timezone": "Europe/Berlin", "payment_terms": "net_30",
            "payment_method": "wire", "po_number": "PO-7", "tax_id": "DE123", "tax_note": "Reverse charge", "billing_email": "ap@example.test",
            "billing_address": {"country": "DE", "line1": "Weg 1", "city": "Berlin", "postal_code": "10115",
                                "building": "B", "line2": null},
        }))
        .unwrap();
        let credits = [TakenCredit {
            label: Some("goodwill"),
            amount_cents: 500,
        }];
        let (items, taxes) = (
            line_items(),
            json!([{"name": "VAT", "jurisdiction": "DE", "percentage": "16.5", "registration": "DE1",
                    "taxable_cents": 6_000, "tax_cents": 990},
                   {"jurisdiction": "DE", "tax_rate_bps": 1_900, "taxable_cents": 4_789, "tax_cents": 910}]),
        );
        let document =
            InvoiceDocument::new(&invoice(&items, &taxes), Some(&contract), None, &credits)
                .unwrap();
        assert_eq!(
            document.period,
            Some((date(2025, 10, 1), date(2025, 10, 31)))
        );
        assert_eq!(document.issued_on, date(2025, 11, 1));
        assert_eq!(document.due_on, Some(date(2025, 12, 1)));
        assert_eq!(document.lines[0].period, None, "the invoice's own");
        assert_eq!(document.lines[0].unit_amount.as_deref(), Some("10000"));
        assert_eq!(document.taxes[0].label, "VAT 16.5% (DE)");
        assert_eq!(document.taxes[1].label, "Tax 19% (DE)");
        assert_eq!(document.tax_note.as_deref(), Some("Reverse charge"));
        assert_eq!(document.credits[0].label, "Credit: goodwill");
        assert_eq!(document.po_number.as_deref(), Some("PO-7"));
        assert_eq!(document.payment_method, Some(PaymentMethod::Wire));
        assert_eq!(
            document.customer.address,
            ["Weg 1", "Berlin, 10115", "B", "DE"]
        );
    }

    #[test]
    fn what_the_parts_leave_of_a_tax_or_of_credits_is_a_line_too() {
        let (items, taxes) = (
            line_items(),
            json!([{"amount": 800, "taxable_amount": 9_000,
                    "tax_rate": {"display_name": "Sales tax", "percentage": 7.25, "jurisdiction": "CA"}},
                   {"amount": 100, "tax_rate": "txr_1"}]),
        );
        let document = InvoiceDocument::new(&invoice(&items, &taxes), None, None, &[]).unwrap();
        let taxes: Vec<_> = document
            .taxes
            .iter()
            .map(|tax| (tax.label.as_str(), tax.taxable_cents, tax.amount_cents))
            .collect();
        assert_eq!(
            taxes,
            [
                ("Sales tax 7.25% (CA)", Some(9_000), 800),
                ("Tax", None, 100),
                ("Tax", None, 1_000)
            ]
        );
        assert_eq!(document.credits[0].amount_cents, 500);
        assert_eq!(document.issued_on, date(2025, 11, 1), "in UTC");
    }

    #[test]
    fn an_invoice_of_the_predecessor_may_say_little() {
        let (items, taxes) = (json!({"items": [{"total_cents": 5}]}), Value::Null);
        let bare = InvoiceRecord {
            number: "legacy:5",
            finalized_at: None,
            billing_period_start: None,
            billing_period_end: None,
            due_at: None,
            tax_cents: Some(0),
            credit_applied_cents: 0,
            ..invoice(&items, &taxes)
        };
        let payer = Payer {
            name: Some("Zoë".to_owned()),
            email: Some("z@example.test".to_owned()),
        };
        let document = InvoiceDocument::new(&bare, None, Some(&payer), &[]).unwrap();
        assert_eq!(document.customer.name.as_deref(), Some("Zoë"));
        assert_eq!((document.period, document.due_on), (None, None));
        assert_eq!(document.lines[0].total_cents, 5);
        assert_eq!((document.taxes.len(), document.credits.len()), (0, 0));
    }

    #[test]
    fn what_cannot_be_printed_names_its_column() {
        let (items, taxes) = (line_items(), json!([]));
        let (bad_items, bad_taxes) = (
            json!({"items": [{"description": "x"}]}),
            json!([{"rate": 5}]),
        );
        let invoice = invoice(&items, &taxes);
        let unreadable =
            |record: &InvoiceRecord<'_>| InvoiceDocument::new(record, None, None, &[]).unwrap_err();
        for (column, record) in [
            (
                "invoice_number",
                InvoiceRecord {
                    number: " ",
                    ..invoice
                },
            ),
            (
                "line_items",
                InvoiceRecord {
                    line_items: Some(&bad_items),
                    ..invoice
                },
            ),
            (
                "tax_breakdown",
                InvoiceRecord {
                    tax_breakdown: Some(&bad_taxes),
                    ..invoice
                },
            ),
            (
                "subtotal_cents",
                InvoiceRecord {
                    subtotal_cents: None,
                    ..invoice
                },
            ),
            (
                "discount_cents",
                InvoiceRecord {
                    discount_cents: None,
                    ..invoice
                },
            ),
            (
                "tax_cents",
                InvoiceRecord {
                    tax_cents: None,
                    ..invoice
                },
            ),
            (
                "total_cents",
                InvoiceRecord {
                    total_cents: None,
                    ..invoice
                },
            ),
            (
                "amount_paid_cents",
                InvoiceRecord {
                    amount_paid_cents: None,
                    ..invoice
                },
            ),
            (
                "amount_due_cents",
                InvoiceRecord {
                    amount_due_cents: None,
                    ..invoice
                },
            ),
        ] {
            assert_eq!(unreadable(&record), Unreadable::Column(column));
        }
        let nowhere = BillingDetails {
            timezone: Some("Mars/Olympus".to_owned()),
            ..BillingDetails::default()
        };
        let read = InvoiceDocument::new(&invoice, Some(&nowhere), None, &[]);
        assert_eq!(read, Err(Unreadable::Column("timezone")));
    }

    #[test]
    fn rates_print_as_people_write_them() {
        for (bps, printed) in [
            (1_900, "19"),
            (725, "7.25"),
            (750, "7.5"),
            (5, "0.05"),
            (0, "0"),
            (10_000, "100"),
        ] {
            assert_eq!(percent(bps), printed);
        }
    }
}
