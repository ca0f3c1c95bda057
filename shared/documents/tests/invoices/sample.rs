//! Invoices to print.

use documents::invoice_document::{CreditLine, Customer, DocumentLine, InvoiceDocument, TaxLine};
use documents::issuer::Issuer;
use domain::money::Currency;
use domain::partner::contract::{PaymentMethod, PaymentTerms};
use domain::stripe_objects::invoice::InvoiceStatus;
use jiff::civil::date;

/// A company that means it.
pub(crate) const COMPANY: &str = "Łódź & Sons \"Ünïcode\" <script> Ωμέγα Київ 東京 =SUM(A1)";

pub(crate) fn issuer(page_size: &str) -> Issuer {
    let text = format!(
        r##"{{"name": "DeedPro Inc.", "address": ["500 Grand Avenue, Suite 1200", "Los Angeles, CA 90071", "USA"],
            "tax_id": "US 12-3456789", "email": "billing@deedpro.example", "website": "deedpro.example",
            "brand_color": "#1f4e8c", "page_size": "{page_size}",
            "payment_instructions": {{
                "wire": ["First National Bank, Los Angeles", "Routing 123456789, account 9876543210", "SWIFT FNBLUS6L"],
                "check": ["Payable to DeedPro Inc., 500 Grand Avenue, Los Angeles, CA 90071"]}},
            "notes": "Thank you for your business."}}"##
    );
    text.parse().expect("an issuer")
}

/// A line with a price per unit.
pub(crate) fn line(description: &str, quantity: i64, unit_cents: i64) -> DocumentLine {
    DocumentLine {
        description: description.to_owned(),
        period: None,
        quantity: Some(quantity),
        unit_amount: Some(unit_cents.to_string()),
        total_cents: quantity * unit_cents,
    }
}

/// A partner's invoice with tax, a credit and a part that is paid.
pub(crate) fn invoice(lines: Vec<DocumentLine>) -> InvoiceDocument {
    let subtotal_cents: i64 = lines.iter().map(|line| line.total_cents).sum();
    let tax_cents = subtotal_cents * 19 / 100;
    let total_cents = subtotal_cents + tax_cents;
    InvoiceDocument {
        number: "API-202510-dp_pk_alpha".to_owned(),
        status: InvoiceStatus::Open,
        currency: Currency::USD,
        customer: Customer {
            name: Some(COMPANY.to_owned()),
            address: vec![
                "ul. Piotrkowska 1".to_owned(),
                "90-001 Łódź".to_owned(),
                "PL".to_owned(),
            ],
            tax_id: Some("PL1234567890".to_owned()),
            email: Some("ap@lodz.example".to_owned()),
        },
        issued_at: "2025-11-01T00:05:00Z".parse().expect("an instant"),
        issued_on: date(2025, 11, 1),
        due_on: Some(date(2025, 12, 1)),
        period: Some((date(2025, 10, 1), date(2025, 10, 31))),
        po_number: Some("PO-4711".to_owned()),
        payment_terms: Some(PaymentTerms::Net30),
        payment_method: Some(PaymentMethod::Wire),
        lines,
        subtotal_cents,
        discount_cents: 0,
        taxes: vec![TaxLine {
            label: "VAT 19% (PL)".to_owned(),
            taxable_cents: Some(subtotal_cents),
            amount_cents: tax_cents,
        }],
        tax_note: None,
        total_cents,
        credits: vec![CreditLine {
            label: "Credit: goodwill".to_owned(),
            amount_cents: 500,
        }],
        amount_paid_cents: 1_000,
        amount_due_cents: total_cents - 1_500,
        notes: Some(
            "Usage above the included 1,000 deeds is billed per deed.\nQuestions? Write to us."
                .to_owned(),
        ),
    }
}

/// What twenty lines of an ordinary month look like.
pub(crate) fn twenty_lines() -> Vec<DocumentLine> {
    let counties = [
        "Los Angeles",
        "Orange",
        "Riverside",
        "San Bernardino",
        "Ventura",
        "Kern",
        "Santa Clara",
        "Alameda",
        "Contra Costa",
        "San Diego",
    ];
    let mut lines = vec![line("Platform fee, October 2025", 1, 50_000)];
    for (place, county) in (1_i64..).zip(counties) {
        lines.push(line(
            &format!("Grant deeds recorded in {county} County"),
            17 * place,
            250,
        ));
        lines.push(line(
            &format!("Transfer tax look-ups, {county} County, beyond the included ones"),
            120 + place,
            8,
        ));
    }
    lines.truncate(20);
    lines
}
