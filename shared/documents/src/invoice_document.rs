//! What an invoice says, read from the rows that keep it.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use domain::money::{self, Currency};
use domain::partner::contract::{PaymentMethod, PaymentTerms};
use domain::stripe_objects::invoice::InvoiceStatus;

/// A row by the names of its columns, as `store::list::Object`.
type Row = Map<String, Value>;

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
    /// First and last day.
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
    pub total_cents: i64,
    /// Taken from credits.
    pub credits: Vec<CreditLine>,
    pub amount_paid_cents: i64,
    pub amount_due_cents: i64,
    pub notes: Option<String>,
}

/// Who is billed.
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

/// A tax.
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
    /// Positive.
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

impl InvoiceDocument {
    /// Reads the row of an invoice (all that `invoices::find` selects), that of its contract, else of its customer
    /// (`name`, `email`) or user (`full_name`, `email`), and what was taken from credits for it
    /// (`credits::applied_to`). Days are those of the contract's time zone, else UTC.
    ///
    /// # Errors
    /// When a column cannot be read.
    pub fn from_rows(
        invoice: &Row,
        contract: Option<&Row>,
        customer: Option<&Row>,
        credits: &[Row],
    ) -> Result<InvoiceDocument, Unreadable> {
        let zone = text(contract, "timezone").map_or(Ok(TimeZone::UTC), |name| {
            TimeZone::get(&name).map_err(|_unknown_zone| Unreadable::Column("timezone"))
        })?;
        let row = Some(invoice);
        let currency = text(row, "currency").and_then(|code| Currency::parse(&code).ok());
        let status = text(row, "status").and_then(|word| InvoiceStatus::parse(&word));
        let cents = |column: &'static str| match &invoice.get(column) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => value.as_i64().ok_or(Unreadable::Column(column)),
        };
        let created_at = instant(row, "created_at")?.ok_or(Unreadable::Column("created_at"))?;
        let issued_at = instant(row, "finalized_at")?.unwrap_or(created_at);
        let period = days(
            instant(row, "billing_period_start")?,
            instant(row, "billing_period_end")?,
            &zone,
        );
        Ok(InvoiceDocument {
            number: text(row, "invoice_number").ok_or(Unreadable::Column("invoice_number"))?,
            status: status.ok_or(Unreadable::Column("status"))?,
            currency: currency.ok_or(Unreadable::Column("currency"))?,
            customer: Customer::of(contract, customer),
            issued_at,
            issued_on: zone.to_datetime(issued_at).date(),
            due_on: instant(row, "due_date")?.map(|due_at| zone.to_datetime(due_at).date()),
            period,
            po_number: text(row, "po_number").or_else(|| text(contract, "po_number")),
            payment_terms: text(contract, "payment_terms")
                .and_then(|word| PaymentTerms::parse(&word)),
            payment_method: text(contract, "payment_method")
                .and_then(|word| PaymentMethod::parse(&word)),
            lines: lines(invoice.get("line_items"), period, &zone)?,
            subtotal_cents: cents("subtotal_cents")?,
            discount_cents: cents("discount_cents")?,
            taxes: taxes(invoice.get("tax_breakdown"), cents("tax_cents")?)?,
            total_cents: cents("total_cents")?,
            credits: credit_lines(credits, cents("credit_applied_cents")?)?,
            amount_paid_cents: cents("amount_paid_cents")?,
            amount_due_cents: cents("amount_due_cents")?,
            notes: text(row, "notes"),
        })
    }
}

impl Customer {
    /// The contract's company, else the customer's name.
    fn of(contract: Option<&Row>, customer: Option<&Row>) -> Customer {
        Customer {
            name: text(contract, "company")
                .or_else(|| text(contract, "api_key_prefix"))
                .or_else(|| text(customer, "name"))
                .or_else(|| text(customer, "full_name")),
            address: contract
                .and_then(|contract| contract.get("billing_address"))
                .and_then(Value::as_object)
                .map(address)
                .unwrap_or_default(),
            tax_id: text(contract, "tax_id"),
            email: text(contract, "billing_email").or_else(|| text(customer, "email")),
        }
    }
}

/// Stripe's members of an address in the order of an envelope, then what else there is.
fn address(members: &Row) -> Vec<String> {
    const STREET: [&str; 3] = ["attention", "line1", "line2"];
    const CITY: [&str; 3] = ["city", "state", "postal_code"];
    const COUNTRY: &str = "country";
    let member = |name: &str| text(Some(members), name);
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
    let items = match stored.and_then(|stored| stored.get("items")) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(items) => items,
    };
    let stored: Vec<StoredLine> = Deserialize::deserialize(items)
        .map_err(|_other_shape: serde_json::Error| Unreadable::Column("line_items"))?;
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

/// The parts of a tax in our shape (`jurisdiction`, `tax_rate_bps`, `taxable_cents`, `tax_cents`) and in Stripe's; what
/// they leave of the invoice's tax is one more.
fn taxes(breakdown: Option<&Value>, tax_cents: i64) -> Result<Vec<TaxLine>, Unreadable> {
    const COLUMN: Unreadable = Unreadable::Column("tax_breakdown");
    let mut taxes = Vec::new();
    let mut left_cents = tax_cents;
    for part in breakdown.and_then(Value::as_array).into_iter().flatten() {
        let part = part.as_object().ok_or(COLUMN)?;
        let number = |names: [&str; 2]| names.iter().find_map(|name| part.get(*name)?.as_i64());
        let amount_cents = number(["tax_cents", "amount"]).ok_or(COLUMN)?;
        left_cents = left_cents
            .checked_sub(amount_cents)
            .ok_or(money::Error::OutOfRange)?;
        let rate = part.get("tax_rate").and_then(Value::as_object);
        let percent = match part.get("tax_rate_bps").and_then(Value::as_i64) {
            Some(bps) => Some(percent(bps)),
            None => rate
                .and_then(|rate| rate.get("percentage"))
                .and_then(Value::as_number)
                .map(ToString::to_string),
        };
        let name = text(rate, "display_name").or_else(|| text(Some(part), "label"));
        let place = text(Some(part), "jurisdiction").or_else(|| text(rate, "jurisdiction"));
        let mut label = name.unwrap_or_else(|| "Tax".to_owned());
        if let Some(percent) = percent {
            label.push_str(&format!(" {percent}%"));
        }
        if let Some(place) = place {
            label.push_str(&format!(" ({place})"));
        }
        taxes.push(TaxLine {
            label,
            taxable_cents: number(["taxable_cents", "taxable_amount"]),
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

/// What was taken from each credit; when the rows do not say, the sum of the invoice.
fn credit_lines(rows: &[Row], applied_cents: i64) -> Result<Vec<CreditLine>, Unreadable> {
    let mut left_cents = applied_cents;
    let mut credits = Vec::new();
    for row in rows {
        let amount_cents = row.get("amount_cents").and_then(Value::as_i64);
        let amount_cents = amount_cents.ok_or(Unreadable::Column("credit_applications"))?;
        left_cents = left_cents
            .checked_sub(amount_cents)
            .ok_or(money::Error::OutOfRange)?;
        let label = text(Some(row), "description").or_else(|| text(Some(row), "reason"));
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
fn text(row: Option<&Row>, column: &str) -> Option<String> {
    let text = row?.get(column)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn instant(row: Option<&Row>, column: &'static str) -> Result<Option<Timestamp>, Unreadable> {
    text(row, column)
        .map(|text| text.parse())
        .transpose()
        .map_err(|_no_instant| Unreadable::Column(column))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    fn invoice() -> Row {
        row(json!({
            "invoice_number": "API-202510-dp_pk_alpha", "status": "open", "currency": "EUR",
            "created_at": "2025-11-01T00:05:00Z", "finalized_at": "2025-11-01T00:05:00Z",
            "billing_period_start": "2025-09-30T22:00:00Z", "billing_period_end": "2025-10-31T23:00:00Z",
            "due_date": "2025-11-30T23:00:00Z", "subtotal_cents": 10_000, "tax_cents": 1_900,
            "discount_cents": null, "total_cents": 11_900, "credit_applied_cents": 500,
            "amount_paid_cents": 400, "amount_due_cents": 11_000,
            "tax_breakdown": [{"jurisdiction": "DE", "tax_rate_bps": 1_900, "taxable_cents": 10_000, "tax_cents": 1_900}],
            "line_items": {"items": [
                {"description": "Flat fee", "quantity": 1, "unit_price_cents": 10_000, "total_cents": 10_000,
                 "period_start": "2025-09-30T22:00:00Z", "period_end": "2025-10-31T23:00:00Z"}]},
        }))
    }

    fn contract() -> Row {
        row(json!({
            "company": "Alpha Title", "timezone": "Europe/Berlin", "payment_terms": "net_30",
            "payment_method": "wire", "po_number": "PO-7", "tax_id": "DE123", "billing_email": "ap@example.test",
            "billing_address": {"country": "DE", "line1": "Weg 1", "city": "Berlin", "postal_code": "10115",
                                "building": "B", "line2": null},
        }))
    }

    #[test]
    fn a_partners_invoice_is_read_in_the_days_of_its_contract() {
        let credits = [row(json!({"amount_cents": 500, "reason": "goodwill"}))];
        let document =
            InvoiceDocument::from_rows(&invoice(), Some(&contract()), None, &credits).unwrap();
        assert_eq!(
            document.period,
            Some((date(2025, 10, 1), date(2025, 10, 31)))
        );
        assert_eq!(document.issued_on, date(2025, 11, 1));
        assert_eq!(document.due_on, Some(date(2025, 12, 1)));
        assert_eq!(document.lines[0].period, None, "the invoice's own");
        assert_eq!(document.lines[0].unit_amount.as_deref(), Some("10000"));
        assert_eq!(document.taxes[0].label, "Tax 19% (DE)");
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
        let mut invoice = invoice();
        invoice.insert(
            "tax_breakdown".into(),
            json!([{"amount": 900, "taxable_amount": 9_000,
            "tax_rate": {"display_name": "Sales tax", "percentage": 7.25, "jurisdiction": "CA"}}]),
        );
        let document = InvoiceDocument::from_rows(&invoice, None, None, &[]).unwrap();
        let taxes: Vec<_> = document
            .taxes
            .iter()
            .map(|tax| (tax.label.as_str(), tax.taxable_cents, tax.amount_cents))
            .collect();
        assert_eq!(
            taxes,
            [
                ("Sales tax 7.25% (CA)", Some(9_000), 900),
                ("Tax", None, 1_000)
            ]
        );
        assert_eq!(document.credits[0].amount_cents, 500);
        assert_eq!(document.issued_on, date(2025, 11, 1), "in UTC");
    }

    #[test]
    fn an_invoice_of_the_predecessor_may_say_little() {
        let bare = row(
            json!({"invoice_number": "legacy:5", "status": "paid", "currency": "USD",
            "created_at": "2024-02-29T12:00:00Z", "line_items": {"items": [{"total_cents": 5}]}}),
        );
        let customer = row(json!({"name": "Zoë", "email": "z@example.test"}));
        let document = InvoiceDocument::from_rows(&bare, None, Some(&customer), &[]).unwrap();
        assert_eq!(document.customer.name.as_deref(), Some("Zoë"));
        assert_eq!((document.period, document.due_on), (None, None));
        assert_eq!(document.lines[0].total_cents, 5);
        assert_eq!((document.taxes.len(), document.total_cents), (0, 0));
    }

    #[test]
    fn a_column_that_cannot_be_read_is_named() {
        for (column, value) in [
            ("invoice_number", json!(null)),
            ("status", json!("lost")),
            ("currency", json!("EURO")),
            ("created_at", json!(null)),
            ("due_date", json!("tomorrow")),
            ("total_cents", json!("12")),
            ("line_items", json!({"items": [{"description": "x"}]})),
            ("tax_breakdown", json!([{"rate": 5}])),
        ] {
            let mut invoice = invoice();
            invoice.insert(column.into(), value);
            let read = InvoiceDocument::from_rows(&invoice, None, None, &[]);
            assert_eq!(read, Err(Unreadable::Column(column)));
        }
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
