//! An invoice as a PDF: data in, bytes out, the same bytes for the same data.

use std::str::FromStr;

use jiff::civil::Date;
use rust_decimal::Decimal;

use super::canvas::{self, About, Letters, Page, Style};
use super::invoice_document::{Customer, DocumentLine, InvoiceDocument};
use super::issuer::{Color, Issuer, PageSize};
use super::logo::{self, Logo};
use super::printed_text;
use super::typeface::{self, Length, POINT, Typefaces, Weight};
use domain::money::{self, Currency, Money};
use domain::partner::contract::{PaymentMethod, PaymentTerms};
use domain::stripe_objects::invoice::InvoiceStatus;

/// The most letters of a name, an address line or a number.
const NAME_LETTERS: usize = 200;
/// The most letters of a line's description.
const DESCRIPTION_LETTERS: usize = 500;
/// The most letters of the notes.
const NOTES_LETTERS: usize = 2_000;

const MARGIN: Length = 48 * POINT;
/// The height of the footer, from the lower edge.
const FOOT: Length = 62 * POINT;
/// Where the body begins on pages after the first.
const HEAD: Length = 84 * POINT;

const SMALL: Length = 8 * POINT;
const BODY: Length = 9 * POINT;
const LEADING: Length = 12 * POINT;
const CELL: Length = 6 * POINT;
/// The height of a row with one line of text.
const ROW: Length = LEADING + 8 * POINT;

const INK: Color = Color::new(0x1d, 0x22, 0x2b);
const GREY: Color = Color::new(0x6a, 0x72, 0x80);
const HAIRLINE: Color = Color::new(0xdd, 0xe1, 0xe7);
const TINT: Color = Color::new(0xf4, 0xf6, 0xf9);
const WHITE: Color = Color::new(0xff, 0xff, 0xff);

/// Why an invoice could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sums of the lines do not fit into 64 bits.
    #[error("the invoice's amounts are out of range")]
    Money(#[from] money::Error),
    /// The file could not be written.
    #[error("the invoice could not be written as a PDF")]
    Canvas(#[from] canvas::Error),
}

/// Why no invoice at all can be printed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The typeface could not be read.
    #[error("the typeface failed")]
    Typeface(#[from] typeface::Error),
    /// The logo could not be read.
    #[error("the logo cannot be used")]
    Logo(#[from] logo::Error),
}

/// What all invoices share: issuer, logo and typeface. Made once and reused.
#[derive(Debug)]
pub struct InvoiceRenderer {
    issuer: Issuer,
    logo: Option<Logo>,
    typefaces: Typefaces,
}

impl InvoiceRenderer {
    /// Parses the typeface and the logo, a PNG or JPEG of at most 256 KiB.
    ///
    /// # Errors
    /// When the logo has another format, is too large or is broken.
    pub fn new(issuer: Issuer, logo: Option<&[u8]>) -> Result<InvoiceRenderer, SetupError> {
        Ok(InvoiceRenderer {
            issuer,
            logo: logo.map(Logo::parse).transpose()?,
            typefaces: Typefaces::parse()?,
        })
    }

    /// The invoice as the bytes of a PDF.
    pub fn render(&self, invoice: &InvoiceDocument) -> Result<Vec<u8>, Error> {
        let mut setting = Setting::new(self, invoice);
        setting.heading();
        setting.parties();
        setting.banner();
        setting.table()?;
        setting.totals();
        setting.how_to_pay();
        setting.notes();
        setting.footers();
        let number = setting.number;
        let about = About {
            title: &format!("Invoice {number}"),
            author: &printed_text::line(&self.issuer.name, NAME_LETTERS),
            created_at: invoice.issued_at,
        };
        let bytes = canvas::write(
            &about,
            setting.pages,
            &mut setting.letters,
            &self.typefaces,
            self.logo.as_ref(),
        );
        Ok(bytes?)
    }
}

/// An invoice while it is set, from the top of its first page to the bottom of its last.
struct Setting<'a> {
    renderer: &'a InvoiceRenderer,
    invoice: &'a InvoiceDocument,
    number: String,
    /// The brand colour for text, or the ink colour when the brand colour is too light to read.
    accent: Color,
    pages: Vec<Page>,
    letters: Letters,
    width: Length,
    height: Length,
    /// Where the next part begins, from the top of the current page.
    y: Length,
}

/// The right ends of the table's columns. The first column begins at the margin.
struct Columns {
    description_width: Length,
    quantity_end: Length,
    unit_price_end: Length,
    amount_end: Length,
}

impl<'a> Setting<'a> {
    fn new(renderer: &'a InvoiceRenderer, invoice: &'a InvoiceDocument) -> Setting<'a> {
        let (width, height) = match renderer.issuer.page_size {
            PageSize::A4 => (59_528, 84_189),
            PageSize::Letter => (61_200, 79_200),
        };
        let brand = renderer.issuer.brand_color;
        Setting {
            renderer,
            invoice,
            number: printed_text::line(&invoice.number, NAME_LETTERS),
            accent: if brand.is_dark() { brand } else { INK },
            pages: vec![Page::new(width, height)],
            letters: Letters::default(),
            width,
            height,
            y: 0,
        }
    }

    fn right(&self) -> Length {
        self.width - MARGIN
    }

    fn body_width(&self) -> Length {
        self.width - 2 * MARGIN
    }

    fn currency(&self) -> Currency {
        self.invoice.currency
    }

    fn amount(&self, amount_cents: i64) -> String {
        Money::new(amount_cents, self.currency()).format()
    }

    // Drawing on the current page.

    fn text(&mut self, x: Length, y: Length, style: Style, text: &str) {
        if let Some(page) = self.pages.last_mut() {
            page.text(&mut self.letters, x, y, style, text);
        }
    }

    fn text_right(&mut self, end: Length, y: Length, style: Style, text: &str) {
        let width = self
            .renderer
            .typefaces
            .width(text, style.weight, style.size);
        self.text(end - width, y, style, text);
    }

    /// Text aligned to the right, made smaller where it would not fit.
    fn figure(&mut self, end: Length, y: Length, width: Length, style: Style, text: &str) {
        let typefaces = &self.renderer.typefaces;
        let mut style = style;
        while style.size > 4 * POINT && typefaces.width(text, style.weight, style.size) > width {
            style.size -= POINT / 4;
        }
        self.text_right(end, y, style, text);
    }

    fn rectangle(&mut self, x: Length, y: Length, width: Length, height: Length, color: Color) {
        if let Some(page) = self.pages.last_mut() {
            page.rectangle(x, y, width, height, color);
        }
    }

    fn rule(&mut self, y: Length, color: Color) {
        self.rectangle(MARGIN, y, self.body_width(), POINT / 2, color);
    }

    fn wrap(&self, text: &str, style: Style, width: Length) -> Vec<String> {
        let typefaces = &self.renderer.typefaces;
        typefaces.wrap(text, style.weight, style.size, width)
    }

    /// Lines below each other from the baseline `y`. Returns the baseline after the last.
    fn column(
        &mut self,
        x: Length,
        y: Length,
        width: Length,
        style: Style,
        texts: &[String],
    ) -> Length {
        let mut y = y;
        for text in texts {
            for line in self.wrap(text, style, width) {
                self.text(x, y, style, &line);
                y += LEADING;
            }
        }
        y
    }

    /// Starts a new page unless `height` fits on this one.
    fn make_room(&mut self, height: Length) {
        if self.y + height <= self.height - FOOT {
            return;
        }
        self.new_page();
    }

    fn new_page(&mut self) {
        self.pages.push(Page::new(self.width, self.height));
        self.band();
        let name = printed_text::line(&self.renderer.issuer.name, NAME_LETTERS);
        let name = self.first_line(&name, bold(BODY, INK), self.body_width() / 2);
        self.text(MARGIN, 50 * POINT, bold(BODY, INK), &name);
        let number = format!("Invoice {}", self.number);
        let number = self.first_line(&number, regular(BODY, GREY), self.body_width() / 2 - CELL);
        self.text_right(self.right(), 50 * POINT, regular(BODY, GREY), &number);
        self.rule(58 * POINT, HAIRLINE);
        self.y = HEAD;
    }

    fn first_line(&self, text: &str, style: Style, width: Length) -> String {
        self.wrap(text, style, width).swap_remove(0)
    }

    fn band(&mut self) {
        let brand = self.renderer.issuer.brand_color;
        self.rectangle(0, 0, self.width, 6 * POINT, brand);
    }

    // The parts of an invoice, from top to bottom.

    /// The logo or name on the left, the kind of document on the right.
    fn heading(&mut self) {
        self.band();
        let title = bold(24 * POINT, INK);
        self.text_right(self.right(), 62 * POINT, title, "Invoice");
        let (badge, color) = match self.invoice.status {
            InvoiceStatus::Paid => (Some("PAID"), Color::new(0x1b, 0x7f, 0x4b)),
            InvoiceStatus::Void => (Some("VOID"), Color::new(0xb4, 0x23, 0x18)),
            InvoiceStatus::Draft => (Some("DRAFT"), GREY),
            InvoiceStatus::Open | InvoiceStatus::Uncollectible => (None, GREY),
        };
        if let Some(badge) = badge {
            let style = bold(SMALL, WHITE);
            let width = self
                .renderer
                .typefaces
                .width(badge, style.weight, style.size)
                + 12 * POINT;
            let x = self.right() - width;
            self.rectangle(x, 72 * POINT, width, 15 * POINT, color);
            self.text(x + 6 * POINT, 8_250, style, badge);
        }
        let bottom = match &self.renderer.logo {
            Some(logo) => {
                let (width, height) = fitted(
                    logo.width_pixels,
                    logo.height_pixels,
                    190 * POINT,
                    50 * POINT,
                );
                if let Some(page) = self.pages.last_mut() {
                    page.logo(MARGIN, 36 * POINT, width, height);
                }
                36 * POINT + height
            }
            None => {
                let name = printed_text::line(&self.renderer.issuer.name, NAME_LETTERS);
                let style = bold(17 * POINT, self.accent);
                let lines = self.wrap(&name, style, self.body_width() - 170 * POINT);
                let mut y = 60 * POINT;
                for line in lines.iter().take(3) {
                    self.text(MARGIN, y, style, line);
                    y += 21 * POINT;
                }
                y - 15 * POINT
            }
        };
        self.y = bottom.max(90 * POINT) + 30 * POINT;
    }

    /// The issuer, the customer, and the dates and numbers of the invoice.
    fn parties(&mut self) {
        let gap = 18 * POINT;
        let own_width = 186 * POINT;
        let width = (self.body_width() - own_width - 2 * gap) / 2;
        let top = self.y;
        let from = block(&issuer_lines(&self.renderer.issuer));
        let to = block(&customer_lines(&self.invoice.customer));
        let mut bottom = top;
        for (x, title, (name, others)) in [
            (MARGIN, "From", from),
            (MARGIN + width + gap, "Bill to", to),
        ] {
            self.text(x, top, bold(SMALL, GREY), title);
            let y = top + 15 * POINT;
            let y = self.column(x, y, width, bold(BODY, INK), &name);
            let y = self.column(x, y, width, regular(BODY, INK), &others);
            bottom = bottom.max(y);
        }
        let x = self.right() - own_width;
        let mut y = top;
        for (label, value) in own_lines(self.invoice, &self.number) {
            self.text(x, y, regular(SMALL, GREY), label);
            let style = if label == "Invoice number" {
                bold(BODY, INK)
            } else {
                regular(BODY, INK)
            };
            for line in self.wrap(&value, style, own_width - 66 * POINT) {
                self.text_right(self.right(), y, style, &line);
                y += LEADING;
            }
            y += 3 * POINT;
        }
        self.y = bottom.max(y) + 4 * POINT;
    }

    /// The amount to be paid, and when.
    fn banner(&mut self) {
        let height = 40 * POINT;
        self.make_room(height + 3 * ROW);
        let (y, brand) = (self.y, self.renderer.issuer.brand_color);
        self.rectangle(MARGIN, y, self.body_width(), height, TINT);
        self.rectangle(MARGIN, y, 3 * POINT, height, brand);
        let (label, when) = match self.invoice.status {
            InvoiceStatus::Void => ("This invoice is void. Nothing is to be paid.", None),
            InvoiceStatus::Paid => ("Paid. Thank you.", None),
            InvoiceStatus::Draft | InvoiceStatus::Open | InvoiceStatus::Uncollectible => {
                ("Amount due", self.invoice.due_on)
            }
        };
        let x = MARGIN + 16 * POINT;
        match when {
            Some(due_on) => {
                self.text(x, y + 17 * POINT, bold(BODY, INK), label);
                let due = format!("by {}", long_date(due_on));
                self.text(x, y + 30 * POINT, regular(BODY, GREY), &due);
            }
            None => self.text(x, y + 2_350, bold(BODY, INK), label),
        }
        let amount = self.amount(self.invoice.amount_due_cents);
        let style = bold(18 * POINT, self.accent);
        let width = self.body_width() - 270 * POINT;
        self.figure(self.right() - 12 * POINT, y + 2_640, width, style, &amount);
        self.y += height + 24 * POINT;
    }

    fn columns(&self) -> Columns {
        let amount_end = self.right() - CELL;
        let unit_price_end = amount_end - 92 * POINT;
        let quantity_end = unit_price_end - 86 * POINT;
        Columns {
            description_width: quantity_end - 62 * POINT - MARGIN - CELL,
            quantity_end,
            unit_price_end,
            amount_end,
        }
    }

    fn table_head(&mut self) {
        let columns = self.columns();
        let y = self.y;
        let brand = self.renderer.issuer.brand_color;
        self.rectangle(MARGIN, y, self.body_width(), ROW, TINT);
        self.rectangle(MARGIN, y + ROW, self.body_width(), POINT, brand);
        let (baseline, style) = (y + 13 * POINT, bold(SMALL, INK));
        self.text(MARGIN + CELL, baseline, style, "Description");
        self.text_right(columns.quantity_end, baseline, style, "Quantity");
        self.text_right(columns.unit_price_end, baseline, style, "Unit price");
        let amount = format!("Amount ({})", self.currency());
        self.text_right(columns.amount_end, baseline, style, &amount);
        self.y += ROW + POINT;
    }

    /// The lines. Each page repeats the header; a sum is carried from each page to the next.
    fn table(&mut self) -> Result<(), Error> {
        self.make_room(3 * ROW);
        self.table_head();
        if self.invoice.lines.is_empty() {
            let style = regular(BODY, GREY);
            self.text(
                MARGIN + CELL,
                self.y + 13 * POINT,
                style,
                "There is nothing to be charged.",
            );
            self.end_row(ROW);
        }
        let mut so_far = Money::zero(self.currency());
        let columns = self.columns();
        for (index, line) in self.invoice.lines.iter().enumerate() {
            let description = printed_text::line(&line.description, DESCRIPTION_LETTERS);
            let mut texts = self.wrap(&description, regular(BODY, INK), columns.description_width);
            let described = texts.len();
            if let Some((first, last)) = line.period {
                texts.push(days(first, last));
            }
            let height = LEADING * Length::try_from(texts.len()).unwrap_or(1) + 8 * POINT;
            // Room for the line, and unless it is the last for the carried sum.
            if self.y + height + ROW > self.height - FOOT {
                if index > 0 {
                    self.carried("Carried forward", so_far);
                }
                self.new_page();
                self.table_head();
                if index > 0 {
                    self.carried("Brought forward", so_far);
                }
            }
            so_far = so_far.checked_add(Money::new(line.total_cents, self.currency()))?;
            self.line(&columns, line, &texts, described);
            self.end_row(height);
        }
        self.y += 12 * POINT;
        Ok(())
    }

    fn line(&mut self, columns: &Columns, line: &DocumentLine, texts: &[String], described: usize) {
        let baseline = self.y + 13 * POINT;
        let mut y = baseline;
        for (index, text) in texts.iter().enumerate() {
            let style = if index < described {
                regular(BODY, INK)
            } else {
                regular(SMALL, GREY)
            };
            self.text(MARGIN + CELL, y, style, text);
            y += LEADING;
        }
        let style = regular(BODY, INK);
        if let Some(quantity) = line.quantity {
            let quantity = grouped(quantity);
            self.figure(columns.quantity_end, baseline, 58 * POINT, style, &quantity);
        }
        if let Some(unit_amount) = &line.unit_amount {
            let price = unit_price(unit_amount, self.currency());
            self.figure(columns.unit_price_end, baseline, 82 * POINT, style, &price);
        }
        let amount = self.amount(line.total_cents);
        self.figure(columns.amount_end, baseline, 88 * POINT, style, &amount);
    }

    fn carried(&mut self, label: &str, sum: Money) {
        let columns = self.columns();
        let (baseline, style) = (self.y + 13 * POINT, bold(BODY, INK));
        self.text(MARGIN + CELL, baseline, style, label);
        self.figure(
            columns.amount_end,
            baseline,
            200 * POINT,
            style,
            &sum.format(),
        );
        self.end_row(ROW);
    }

    fn end_row(&mut self, height: Length) {
        self.y += height;
        self.rule(self.y, HAIRLINE);
        self.y += POINT / 2;
    }

    /// The rows from the subtotal to the amount due.
    fn totals(&mut self) {
        let invoice = self.invoice;
        let mut rows = vec![("Subtotal".to_owned(), self.amount(invoice.subtotal_cents))];
        if invoice.discount_cents != 0 {
            rows.push(("Discount".to_owned(), self.taken(invoice.discount_cents)));
        }
        for tax in &invoice.taxes {
            let label = match tax.taxable_cents {
                Some(taxable_cents) => {
                    format!("{} on {}", tax.label, self.amount(taxable_cents))
                }
                None => tax.label.clone(),
            };
            rows.push((label, self.amount(tax.amount_cents)));
        }
        let before_total = rows.len();
        rows.push(("Total".to_owned(), self.amount(invoice.total_cents)));
        for credit in &invoice.credits {
            rows.push((credit.label.clone(), self.taken(credit.amount_cents)));
        }
        if invoice.amount_paid_cents != 0 {
            rows.push((
                "Amount paid".to_owned(),
                self.taken(invoice.amount_paid_cents),
            ));
        }
        // The last rows stay together.
        let height = LEADING + 5 * POINT;
        self.make_room(height * 3 + 30 * POINT);
        let width = 250 * POINT;
        let x = self.right() - width;
        for (index, (label, amount)) in rows.into_iter().enumerate() {
            let is_total = index == before_total;
            self.make_room(height * 2 + 30 * POINT);
            if is_total {
                self.rectangle(x, self.y, width, POINT / 2, GREY);
                self.y += 3 * POINT;
            }
            let style = if is_total {
                bold(BODY, INK)
            } else {
                regular(BODY, INK)
            };
            let label = printed_text::line(&label, NAME_LETTERS);
            let labels = self.wrap(&label, style, width - 106 * POINT);
            let baseline = self.y + 11 * POINT;
            for (line, label) in labels.iter().take(3).enumerate() {
                let y = baseline + LEADING * Length::try_from(line).unwrap_or_default();
                self.text(x + CELL, y, style, label);
                self.y += LEADING;
            }
            self.figure(self.right() - CELL, baseline, 96 * POINT, style, &amount);
            self.y += 5 * POINT;
        }
        let brand = self.renderer.issuer.brand_color;
        self.y += 2 * POINT;
        self.rectangle(x, self.y, width, 24 * POINT, TINT);
        self.rectangle(x, self.y, width, POINT, brand);
        let baseline = self.y + 16 * POINT;
        let label = "Amount due";
        self.text(x + CELL, baseline, bold(10 * POINT, INK), label);
        let due = self.amount(invoice.amount_due_cents);
        let style = bold(11 * POINT, self.accent);
        self.figure(self.right() - CELL, baseline, 160 * POINT, style, &due);
        self.y += 24 * POINT + 28 * POINT;
    }

    /// An amount that is taken off, printed with a minus sign.
    fn taken(&self, amount_cents: i64) -> String {
        // The smallest amount cannot be negated; it keeps its sign.
        self.amount(amount_cents.checked_neg().unwrap_or(amount_cents))
    }

    fn how_to_pay(&mut self) {
        let is_payable = match self.invoice.status {
            InvoiceStatus::Open | InvoiceStatus::Uncollectible | InvoiceStatus::Draft => {
                self.invoice.amount_due_cents > 0
            }
            InvoiceStatus::Paid | InvoiceStatus::Void => false,
        };
        let Some(method) = self.invoice.payment_method.filter(|_| is_payable) else {
            return;
        };
        let issuer = &self.renderer.issuer;
        let mut texts: Vec<String> = issuer
            .payment_instructions
            .of(method)
            .iter()
            .flat_map(|text| printed_text::lines(text, NOTES_LETTERS))
            .collect();
        if texts.is_empty() {
            texts.push(match (method, &issuer.email) {
                (PaymentMethod::Stripe, _) => {
                    "A link to pay online comes to you by e-mail.".to_owned()
                }
                (_, Some(email)) => {
                    let email = printed_text::line(email, NAME_LETTERS);
                    format!("Please ask {email} for the details.")
                }
                (_, None) => "Please ask us for the details.".to_owned(),
            });
        }
        texts.push(format!("Reference: {}", self.number));
        let title = match method {
            PaymentMethod::Stripe => "How to pay: online",
            PaymentMethod::Wire => "How to pay: by wire transfer",
            PaymentMethod::Check => "How to pay: by check",
            PaymentMethod::Ach => "How to pay: by ACH transfer",
        };
        self.paragraphs(title, &texts);
    }

    fn notes(&mut self) {
        if let Some(note) = &self.invoice.tax_note {
            let texts = printed_text::lines(note, NOTES_LETTERS);
            self.paragraphs("Tax", &texts);
        }
        let notes = [&self.invoice.notes, &self.renderer.issuer.notes];
        let texts: Vec<String> = notes
            .into_iter()
            .flatten()
            .flat_map(|notes| printed_text::lines(notes, NOTES_LETTERS))
            .collect();
        if !texts.is_empty() {
            self.paragraphs("Notes", &texts);
        }
    }

    fn paragraphs(&mut self, title: &str, texts: &[String]) {
        self.make_room(LEADING * 3);
        self.text(MARGIN, self.y, bold(BODY, INK), title);
        self.y += LEADING + 2 * POINT;
        let style = regular(BODY, INK);
        for text in texts {
            for line in self.wrap(text, style, self.body_width()) {
                self.make_room(LEADING);
                self.text(MARGIN, self.y, style, &line);
                self.y += LEADING;
            }
        }
        self.y += 14 * POINT;
    }

    /// The issuer, how to reach them, and the page number. Called when all pages exist.
    fn footers(&mut self) {
        let issuer = &self.renderer.issuer;
        let parts = [
            Some(&issuer.name),
            issuer.tax_id.as_ref(),
            issuer.email.as_ref(),
            issuer.website.as_ref(),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .flatten()
            .map(|part| printed_text::line(part, NAME_LETTERS))
            .collect();
        let style = regular(SMALL, GREY);
        let who = self.first_line(&parts.join("  ·  "), style, self.body_width() - 80 * POINT);
        let (y, right, width) = (self.height - 34 * POINT, self.right(), self.body_width());
        let total = self.pages.len();
        let (letters, typefaces) = (&mut self.letters, &self.renderer.typefaces);
        for (number, page) in (1..).zip(&mut self.pages) {
            page.rectangle(MARGIN, y - 13 * POINT, width, POINT / 2, HAIRLINE);
            page.text(letters, MARGIN, y, style, &who);
            let place = format!("Page {number} of {total}");
            let place_width = typefaces.width(&place, style.weight, style.size);
            page.text(letters, right - place_width, y, style, &place);
        }
    }
}

fn regular(size: Length, color: Color) -> Style {
    Style {
        weight: Weight::Regular,
        size,
        color,
    }
}

fn bold(size: Length, color: Color) -> Style {
    Style {
        weight: Weight::Bold,
        size,
        color,
    }
}

/// Splits lines into the first one and the others.
fn block(lines: &[String]) -> (Vec<String>, Vec<String>) {
    let lines: Vec<String> = lines
        .iter()
        .map(|text| printed_text::line(text, NAME_LETTERS))
        .filter(|text| !text.is_empty())
        .collect();
    let (name, others) = lines.split_at(lines.len().min(1));
    (name.to_vec(), others.iter().take(16).cloned().collect())
}

fn issuer_lines(issuer: &Issuer) -> Vec<String> {
    let mut lines = vec![issuer.name.clone()];
    lines.extend(issuer.address.iter().cloned());
    lines.extend(issuer.tax_id.iter().map(|id| format!("Tax ID: {id}")));
    lines.extend(issuer.email.iter().cloned());
    lines.extend(issuer.phone.iter().cloned());
    lines
}

fn customer_lines(customer: &Customer) -> Vec<String> {
    let mut lines: Vec<String> = customer.name.iter().cloned().collect();
    lines.extend(customer.address.iter().cloned());
    lines.extend(customer.tax_id.iter().map(|id| format!("Tax ID: {id}")));
    lines.extend(customer.email.iter().cloned());
    lines
}

/// The dates and numbers of the invoice, with their labels.
fn own_lines(invoice: &InvoiceDocument, number: &str) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("Invoice number", number.to_owned()),
        ("Issue date", long_date(invoice.issued_on)),
    ];
    if let Some(due_on) = invoice.due_on {
        lines.push(("Due date", long_date(due_on)));
    }
    if let Some(terms) = invoice.payment_terms {
        let terms = match terms {
            PaymentTerms::Immediate => "Due on receipt",
            PaymentTerms::Net15 => "Net 15 days",
            PaymentTerms::Net30 => "Net 30 days",
            PaymentTerms::Net45 => "Net 45 days",
            PaymentTerms::Net60 => "Net 60 days",
            PaymentTerms::Net90 => "Net 90 days",
        };
        lines.push(("Terms", terms.to_owned()));
    }
    if let Some((first, last)) = invoice.period {
        lines.push(("Period", days(first, last)));
    }
    if let Some(po_number) = &invoice.po_number {
        lines.push(("PO number", printed_text::line(po_number, NAME_LETTERS)));
    }
    lines
}

/// A day as people read it: `November 1, 2025`.
fn long_date(day: Date) -> String {
    day.strftime("%B %-d, %Y").to_string()
}

/// Two days as people read them: `Oct 1 – 31, 2025`. Leaves out what both have in common.
fn days(first: Date, last: Date) -> String {
    if first == last {
        return first.strftime("%b %-d, %Y").to_string();
    }
    let end = last.strftime("%b %-d, %Y");
    let start = if first.year() == last.year() {
        first.strftime("%b %-d")
    } else {
        first.strftime("%b %-d, %Y")
    };
    format!("{start} – {end}")
}

/// A number with thousands separators: `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A price given in minor units as decimal text: `$0.0025`. Text that is not a number is printed unchanged.
fn unit_price(minor_units: &str, currency: Currency) -> String {
    let parsed = Decimal::from_str(minor_units)
        .ok()
        .map(|price| price.normalize());
    let whole = parsed.and_then(|price| i64::try_from(price.abs().trunc()).ok());
    let (Some(price), Some(whole)) = (parsed, whole) else {
        return printed_text::line(minor_units, 24);
    };
    let mut text = String::from(if price.is_sign_negative() && !price.is_zero() {
        "-"
    } else {
        ""
    });
    text.push_str(&Money::new(whole, currency).format());
    let fraction = price.fract().abs().to_string();
    if let Some((_, decimals)) = fraction.split_once('.') {
        if currency.exponent() == 0 {
            text.push('.');
        }
        text.push_str(decimals);
    }
    text
}

/// The size of a picture of `width` × `height` that fits into a frame, with its proportions kept.
fn fitted(width: u32, height: u32, frame_width: Length, frame_height: Length) -> (Length, Length) {
    let (width, height) = (i64::from(width).max(1), i64::from(height).max(1));
    let (frame_width, frame_height) = (i64::from(frame_width), i64::from(frame_height));
    let (width, height) = if width * frame_height > height * frame_width {
        (frame_width, height * frame_width / width)
    } else {
        (width * frame_height / height, frame_height)
    };
    // Neither is larger than the frame.
    let length = |length: i64| Length::try_from(length).unwrap_or_default();
    (length(width), length(height))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn prices_below_a_minor_unit_keep_their_decimals() {
        for (minor_units, currency, printed) in [
            ("250", "USD", "$2.50"),
            ("0.25", "USD", "$0.0025"),
            ("2.50", "EUR", "€0.025"),
            ("12.5", "JPY", "¥12.5"),
            ("0.5", "KWD", "KWD 0.0005"),
            ("-0.25", "USD", "-$0.0025"),
            ("100000000", "USD", "$1,000,000.00"),
            ("free", "USD", "free"),
            ("99999999999999999999", "USD", "99999999999999999999"),
        ] {
            let currency = Currency::parse(currency).unwrap();
            assert_eq!(unit_price(minor_units, currency), printed);
        }
    }

    #[test]
    fn days_say_no_more_than_they_must() {
        assert_eq!(
            days(date(2025, 10, 1), date(2025, 10, 31)),
            "Oct 1 – Oct 31, 2025"
        );
        assert_eq!(
            days(date(2025, 12, 1), date(2026, 2, 28)),
            "Dec 1, 2025 – Feb 28, 2026"
        );
        assert_eq!(days(date(2024, 2, 29), date(2024, 2, 29)), "Feb 29, 2024");
        assert_eq!(long_date(date(2025, 11, 1)), "November 1, 2025");
    }

    #[test]
    fn a_picture_keeps_its_proportions() {
        assert_eq!(fitted(400, 100, 19_000, 5_000), (19_000, 4_750));
        assert_eq!(fitted(100, 100, 19_000, 5_000), (5_000, 5_000));
        assert_eq!(fitted(2_000, 1, 19_000, 5_000), (19_000, 9));
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(-999), "-999");
        assert_eq!(grouped(i64::MIN), "-9,223,372,036,854,775,808");
    }
}
