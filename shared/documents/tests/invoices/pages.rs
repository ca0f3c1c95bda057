//! The text on the pages of a printed invoice.

use std::process::Command;

use documents::invoice_document::{CreditLine, InvoiceDocument, TaxLine};
use documents::invoice_pdf::InvoiceRenderer;
use documents::issuer::Issuer;
use domain::money::Currency;
use domain::partner::contract::PaymentMethod;
use domain::stripe_objects::invoice::InvoiceStatus;
use lopdf::{Document, Object};

use crate::sample::{COMPANY, invoice, issuer, line, twenty_lines};

/// The text of each page, as a reader finds it, with single blanks.
struct Read {
    pages: Vec<String>,
    document: Document,
    bytes: Vec<u8>,
}

impl Read {
    fn all(&self) -> String {
        self.pages.join(" ")
    }

    fn has(&self, text: &str) -> bool {
        self.all().contains(text)
    }
}

fn render_with(issuer: Issuer, invoice: &InvoiceDocument) -> Read {
    let renderer = InvoiceRenderer::new(issuer, None).expect("a renderer");
    let bytes = renderer.render(invoice).expect("a PDF");
    let document = Document::load_mem(&bytes).expect("a PDF that can be read");
    let pages = document.get_pages().into_keys().map(|page| {
        let text = document.extract_text(&[page]).expect("text");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    Read {
        pages: pages.collect(),
        bytes,
        document,
    }
}

fn render(invoice: &InvoiceDocument) -> Read {
    render_with(issuer("a4"), invoice)
}

#[test]
fn an_invoice_says_all_that_belongs_on_one() {
    let read = render(&invoice(vec![
        line("Platform fee", 1, 50_000),
        line("Deeds", 1_234, 250),
    ]));
    assert_eq!(read.pages.len(), 1);
    for text in [
        "Invoice",
        "API-202510-dp_pk_alpha",
        "DeedPro Inc.",
        "500 Grand Avenue, Suite 1200",
        "Tax ID: US 12-3456789",
        "Tax ID: PL1234567890",
        "November 1, 2025",
        "December 1, 2025",
        "Net 30 days",
        "Oct 1 – Oct 31, 2025",
        "PO-4711",
        "Platform fee",
        "1,234",
        "$2.50",
        "$3,085.00",
        "Subtotal",
        "$3,585.00",
        "VAT 19% (PL) on $3,585.00",
        "$681.15",
        "$4,266.15",
        "Credit: goodwill",
        "-$5.00",
        "Amount paid",
        "-$10.00",
        "Amount due",
        "$4,251.15",
        "How to pay: by wire transfer",
        "Routing 123456789, account 9876543210",
        "Reference: API-202510-dp_pk_alpha",
        "Usage above the included 1,000 deeds is billed per deed.",
        "Thank you for your business.",
        "Page 1 of 1",
    ] {
        assert!(read.has(text), "{text}: {}", read.all());
    }
}

#[test]
fn every_letter_of_a_company_can_be_copied_also_those_the_typeface_lacks() {
    let read = render(&invoice(twenty_lines()));
    // Wrapped in its column.
    for word in COMPANY.split(' ') {
        assert!(read.has(word), "{word}: {}", read.all());
    }
}

/// Only where `pdftotext` is there; the tests above do not depend on it.
#[test]
fn pdftotext_where_it_is_installed_reads_the_same() {
    if Command::new("pdftotext").arg("-v").output().is_err() {
        return;
    }
    let read = render(&invoice(twenty_lines()));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("invoice.pdf");
    std::fs::write(&path, &read.bytes).expect("a file");
    let output = Command::new("pdftotext").arg(&path).arg("-").output();
    let output = output.expect("pdftotext");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for word in COMPANY
        .split(' ')
        .chain(["$3,468.72", "API-202510-dp_pk_alpha"])
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_same_invoice_is_the_same_bytes_and_another_has_another_identifier() {
    let first = render(&invoice(twenty_lines()));
    let again = render(&invoice(twenty_lines()));
    assert!(first.bytes == again.bytes);
    let mut other = invoice(twenty_lines());
    other.notes = Some("other".to_owned());
    let other = render(&other);
    let id = |read: &Read| {
        let ids = read.document.trailer.get(b"ID").and_then(Object::as_array);
        ids.expect("an identifier")[0]
            .as_str()
            .expect("bytes")
            .to_vec()
    };
    assert_ne!(id(&first), id(&other));
    assert_eq!(id(&first).len(), 16);
}

#[test]
fn four_hundred_lines_carry_their_sum_from_page_to_page() {
    for (page_size, pages) in [("a4", 14), ("letter", 16)] {
        let lines = (1..=400).map(|number| line(&format!("Deed number {number}"), 1, 100));
        let read = render_with(issuer(page_size), &invoice(lines.collect()));
        assert_eq!(read.pages.len(), pages, "{page_size}");
        let mut carried = None;
        for (number, page) in (1..).zip(&read.pages) {
            assert!(
                page.contains(&format!("Page {number} of {pages}")),
                "{page}"
            );
            if let Some(sum) = carried.take() {
                assert!(
                    page.contains(&format!("Brought forward ${sum}.00")),
                    "{page}"
                );
                assert!(page.contains("Description Quantity Unit price Amount (USD)"));
            }
            let last_deed = page
                .split("Deed number ")
                .skip(1)
                .filter_map(|rest| rest.split(' ').next()?.parse::<u32>().ok())
                .max();
            if let Some(last_deed) = last_deed.filter(|last| *last < 400) {
                let sum = format!("Carried forward ${last_deed}.00");
                assert!(page.contains(&sum), "{sum}: {page}");
                carried = Some(last_deed);
            }
        }
        for number in 1..=400 {
            assert!(
                read.has(&format!("Deed number {number} 1 $1.00 $1.00")),
                "{number}"
            );
        }
        assert!(read.has("$400.00"));
        assert!(read.bytes.len() < 100_000, "{} bytes", read.bytes.len());
    }
}

#[test]
fn long_texts_wrap_and_endless_ones_end() {
    let words = "Recording of a grant deed with transfer tax ".repeat(5);
    let words = &words[..200];
    let word = "Donaudampfschiffahrt".repeat(10);
    let endless = "x".repeat(100_000);
    let read = render(&invoice(vec![
        line(words, 1, 1),
        line(&word, 1, 1),
        line(&endless, 1, 1),
    ]));
    assert_eq!(read.pages.len(), 1);
    assert!(read.has(words.trim()));
    let without_blanks = read.all().replace(' ', "");
    assert!(without_blanks.contains(&word));
    assert!(without_blanks.contains(&"x".repeat(499)));
    assert!(!without_blanks.contains(&"x".repeat(500)));
}

#[test]
fn an_invoice_without_lines_says_so() {
    let mut invoice = invoice(Vec::new());
    (invoice.credits, invoice.taxes) = (Vec::new(), Vec::new());
    (invoice.amount_paid_cents, invoice.amount_due_cents) = (0, 0);
    let read = render(&invoice);
    assert!(read.has("There is nothing to be charged."));
    assert!(read.has("Amount due $0.00"), "{}", read.all());
    assert!(!read.has("How to pay"));
}

#[test]
fn each_tax_is_printed_with_what_it_is_of_and_the_note_below() {
    let mut invoice = invoice(vec![line("Platform fee", 1, 10_000)]);
    invoice.taxes = [("State 4% (NY)", 400), ("City 4.875% (NYC)", 488)]
        .map(|(label, amount_cents)| TaxLine {
            label: label.to_owned(),
            taxable_cents: Some(10_000),
            amount_cents,
        })
        .to_vec();
    invoice.tax_note = Some("Reverse charge: the recipient owes the tax.".to_owned());
    let read = render(&invoice);
    for text in [
        "State 4% (NY) on $100.00",
        "$4.00",
        "City 4.875% (NYC) on $100.00",
        "$4.88",
        "Reverse charge: the recipient owes the tax.",
    ] {
        assert!(read.has(text), "{text} is not in\n{}", read.all());
    }
}

#[test]
fn amounts_have_the_decimals_of_their_currency() {
    for (currency, unit, total) in [
        ("JPY", "¥1,234", "¥3,702"),
        ("KWD", "KWD 1.234", "KWD 3.702"),
        ("USD", "$12.34", "$37.02"),
    ] {
        let mut invoice = invoice(vec![line("Deeds", 3, 1_234)]);
        invoice.currency = Currency::parse(currency).unwrap();
        let read = render(&invoice);
        assert!(
            read.has(&format!("Deeds 3 {unit} {total}")),
            "{}",
            read.all()
        );
        assert!(read.has(&format!("Amount ({currency})")));
    }
    let mut vast = invoice(vec![line("Deeds", 1, 1)]);
    vast.lines = vec![line("Deeds", 1, i64::MAX / 4)];
    vast.currency = Currency::parse("KWD").unwrap();
    assert!(render(&vast).has("KWD 2,305,843,009,213,693.951"));
    vast.lines = vec![line("Deeds", 1, i64::MAX), line("Deeds", 1, 1)];
    let renderer = InvoiceRenderer::new(issuer("a4"), None).unwrap();
    assert!(renderer.render(&vast).is_err());
}

#[test]
fn how_to_pay_is_by_the_contract_and_only_while_something_is_due() {
    let mut invoice = invoice(twenty_lines());
    for (method, text) in [
        (Some(PaymentMethod::Check), "Payable to DeedPro Inc."),
        (
            Some(PaymentMethod::Ach),
            "Please ask billing@deedpro.example for the details.",
        ),
        (
            Some(PaymentMethod::Stripe),
            "A link to pay online comes to you by e-mail.",
        ),
        (None, "Amount due"),
    ] {
        invoice.payment_method = method;
        let read = render(&invoice);
        assert!(read.has(text), "{method:?}");
        assert_eq!(read.has("How to pay"), method.is_some());
    }
    invoice.payment_method = Some(PaymentMethod::Wire);
    for (status, text) in [(InvoiceStatus::Paid, "PAID"), (InvoiceStatus::Void, "VOID")] {
        (invoice.status, invoice.amount_due_cents) = (status, 0);
        let read = render(&invoice);
        assert!(read.has(text) && !read.has("How to pay"), "{status:?}");
    }
}

#[test]
fn nothing_that_others_wrote_turns_text_around_or_hides_it() {
    let mut invoice = invoice(vec![line(
        "Pay \u{202e}00.1$\u{202c}\u{0}\u{7} now\r\nplease",
        1,
        5,
    )]);
    invoice.credits = vec![CreditLine {
        label: "a\u{200b}b".to_owned(),
        amount_cents: 1,
    }];
    let read = render(&invoice);
    assert!(read.has("Pay 00.1$ now please"), "{}", read.all());
    assert!(read.has("ab -$0.01"), "{}", read.all());
}

#[test]
fn the_document_has_its_title_language_dates_and_its_own_typeface() {
    let read = render(&invoice(twenty_lines()));
    let document = &read.document;
    let catalog = document.catalog().unwrap();
    assert_eq!(catalog.get(b"Lang").unwrap().as_str().unwrap(), b"en-US");
    let info = document.trailer.get(b"Info").and_then(Object::as_reference);
    let info = document.get_dictionary(info.unwrap()).unwrap();
    let text = |name: &[u8]| lopdf::decode_text_string(info.get(name).unwrap()).unwrap();
    assert_eq!(text(b"Title"), "Invoice API-202510-dp_pk_alpha");
    assert_eq!(text(b"Author"), "DeedPro Inc.");
    assert_eq!(text(b"CreationDate"), "D:20251101000500+00'00'");
    assert_eq!(text(b"ModDate"), text(b"CreationDate"));
    let fonts: Vec<&[u8]> = document
        .objects
        .values()
        .filter_map(|object| object.as_dict().ok())
        .filter(|object| object.has(b"FontFile2"))
        .filter_map(|object| object.get(b"FontName").and_then(Object::as_name).ok())
        .collect();
    assert_eq!(fonts.len(), 2);
    assert!(fonts.iter().any(|name| name.ends_with(b"+Roboto-Regular")));
    assert!(read.bytes.starts_with(b"%PDF-1.7"));
    assert!(read.bytes.len() <= 40 * 1024, "{} bytes", read.bytes.len());
}

#[test]
fn a_logo_takes_the_place_of_the_name() {
    let mut logo = Vec::new();
    let mut encoder = png::Encoder::new(&mut logo, 4, 2);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[90; 32]).unwrap();
    writer.finish().unwrap();
    let renderer = InvoiceRenderer::new(issuer("letter"), Some(&logo)).unwrap();
    let bytes = renderer.render(&invoice(twenty_lines())).unwrap();
    let document = Document::load_mem(&bytes).unwrap();
    let images: Vec<_> = document
        .objects
        .values()
        .filter_map(|object| object.as_stream().ok())
        .filter(|stream| stream.dict.has(b"Width"))
        .collect();
    assert_eq!(images.len(), 2, "the picture and its transparency");
    assert!(images.iter().any(|image| image.dict.has(b"SMask")));
    assert!(InvoiceRenderer::new(issuer("letter"), Some(b"GIF89a")).is_err());
}
