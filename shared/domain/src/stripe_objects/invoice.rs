//! Invoices and credit notes: their snapshots, and what remains to be paid.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::money::{self, Currency};
use crate::payment::{InvoicePayment, Refund, RefundSource};
use crate::stripe_objects::objects::Ids;
use crate::stripe_objects::snapshot::{Snapshot, Version, earliest, known};
use crate::words::words;

/// An invoice as one snapshot shows it. Amounts in minor units of `currency`. The total is the subtotal less discounts
/// and pretax credits, plus exclusive tax and shipping; inclusive tax is inside the subtotal.
/// Source: <https://docs.stripe.com/api/invoices/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoice {
    pub stripe_invoice_id: String,
    /// Stripe's invoice number; `None` until the invoice is finalised.
    pub number: Option<String>,
    pub stripe_customer_id: Option<String>,
    pub stripe_subscription_id: Option<String>,
    pub status: InvoiceStatus,
    pub currency: Currency,
    pub subtotal_cents: i64,
    /// All taxes, exclusive and inclusive.
    pub tax_cents: i64,
    /// The part of the tax that the prices contain.
    pub inclusive_tax_cents: i64,
    pub discount_cents: i64,
    /// What billing credits took off before tax.
    pub pretax_credits_cents: i64,
    pub shipping_cents: i64,
    pub total_cents: i64,
    /// What was to be paid before credit notes; `None` in rows of before this was kept.
    pub due_before_credit_notes_cents: Option<i64>,
    /// What was paid, in whatever way.
    pub amount_paid_cents: i64,
    /// What remains to be paid, from Stripe's `amount_remaining`.
    pub amount_remaining_cents: i64,
    /// What came outside Stripe as the latest snapshot that says so states it, and the time of that snapshot.
    pub stated: Option<OutsideStripe>,
    /// Whether this snapshot names its payment itself, as it did before API version basil; `None` in rows of before
    /// this was kept.
    pub names_payment: Option<bool>,
    /// Credit notes before payment that this snapshot takes into account.
    pub credit_notes_cents: i64,
    pub billing_period_start: Option<Timestamp>,
    pub billing_period_end: Option<Timestamp>,
    /// The due date; without one it is due when it is finalised, since it is charged automatically.
    pub due_at: Option<Timestamp>,
    pub paid_at: Option<Timestamp>,
    pub voided_at: Option<Timestamp>,
    pub uncollectible_at: Option<Timestamp>,
    pub finalized_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub attempt_count: i32,
    pub next_payment_attempt_at: Option<Timestamp>,
    pub lines: Vec<Line>,
    /// Whether `lines` has all lines: an event brings only the first ones.
    pub lines_complete: bool,
    pub tax_breakdown: Value,
    pub billing_reason: Option<String>,
    pub collection_method: Option<String>,
    pub invoice_pdf_url: Option<String>,
    pub notes: Option<String>,
    pub metadata: Value,
    pub created_at: Timestamp,
    pub version: Version,
}

/// The metadata member of an invoice at Stripe that has the id of the partner's invoice it collects.
pub const PARTNER_INVOICE_METADATA: &str = "partner_invoice_id";

/// An invoice of ours that Stripe does not know, with what its payment needs. Amounts in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartnerInvoice {
    pub id: i64,
    /// The partner who is billed.
    pub api_key_prefix: Option<String>,
    pub status: InvoiceStatus,
    pub currency: Currency,
    pub total_cents: i64,
    pub credit_applied_cents: i64,
    pub amount_paid_cents: i64,
    /// Whether a run will hand it over to Stripe for collection.
    pub is_for_stripe: bool,
}

impl PartnerInvoice {
    /// What remains to be paid: the total less credits and payments. Zero once the invoice is paid or void.
    pub fn amount_due_cents(&self) -> Result<i64, money::Error> {
        match self.status {
            InvoiceStatus::Paid | InvoiceStatus::Void => Ok(0),
            InvoiceStatus::Draft | InvoiceStatus::Open | InvoiceStatus::Uncollectible => self
                .total_cents
                .checked_sub(self.credit_applied_cents)
                .and_then(|rest| rest.checked_sub(self.amount_paid_cents))
                .ok_or(money::Error::OutOfRange),
        }
    }
}

/// Where the PDF of an invoice is stored: `invoices/<kind>/<year>/<month>/<number>.pdf`, by the day of issue. Numbers
/// are unique, so keys are too: a character other than an ASCII letter, a digit, a dot or a hyphen is written as `_`
/// and the hexadecimal digits of its bytes.
#[must_use]
pub fn pdf_key(kind: InvoiceKind, issued_on: Date, number: &str) -> String {
    let mut name = String::with_capacity(number.len());
    for byte in number.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
    }
    let (year, month) = (issued_on.year(), issued_on.month());
    let kind = kind.as_str();
    format!("invoices/{kind}/{year:04}/{month:02}/{name}.pdf")
}

/// One line, in the shape of `invoices.line_items`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub description: Option<String>,
    /// Whole units, as Stripe cuts them off.
    pub quantity: Option<i64>,
    /// The exact quantity; `None` in lines of before this was kept.
    #[serde(default)]
    pub quantity_decimal: Option<String>,
    /// The price in whole minor units; `None` when it has decimals. `unit_amount_decimal` is always exact.
    pub unit_price_cents: Option<i64>,
    pub unit_amount_decimal: Option<String>,
    pub total_cents: i64,
    pub currency: Option<Currency>,
    pub price: Option<String>,
    pub product: Option<String>,
    pub proration: bool,
    pub period_start: Option<Timestamp>,
    pub period_end: Option<Timestamp>,
}

words!(
    /// The states of `invoices.status`: Stripe's own words. A draft deleted at Stripe is void: nothing is owed any more.
    InvoiceStatus {
        Draft = "draft",
        Open = "open",
        Uncollectible = "uncollectible",
        Paid = "paid",
        Void = "void" | "deleted",
    }
);
words!(
    /// What an invoice is for: the words of `invoices.kind`.
    InvoiceKind {
        /// Bills a period of a subscription.
        Subscription = "subscription",
        /// Bills a single sale, such as an overage.
        OneOff = "one_off",
        /// A period of a partner's contract.
        Partner = "partner",
        /// Usage beyond a plan's limit.
        Overage = "overage",
    }
);

/// The rank of an invoice's status within one second, ×100, plus the rank of the event's type.
#[must_use]
pub fn rank(status: InvoiceStatus, event_type: &str) -> i32 {
    let status_rank = match status {
        InvoiceStatus::Draft => 0,
        InvoiceStatus::Open => 1,
        InvoiceStatus::Uncollectible => 2,
        InvoiceStatus::Paid => 3,
        InvoiceStatus::Void => 4,
    };
    let type_rank = match event_type {
        "invoice.created" => 1,
        "invoice.finalized" => 2,
        "invoice.will_be_due" => 3,
        "invoice.sent" => 4,
        "invoice.overdue" => 6,
        "invoice.payment_action_required" => 7,
        "invoice.payment_failed" => 8,
        "invoice.paid" => 9,
        "invoice.payment_succeeded" => 10,
        "invoice.marked_uncollectible" => 11,
        "invoice.voided" => 12,
        "invoice.deleted" => 13,
        _ => 5,
    };
    status_rank * 100 + type_rank
}

impl Snapshot for Invoice {
    fn key(&self) -> String {
        self.stripe_invoice_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.invoices.push(self.stripe_invoice_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
        ids.tax_rates.extend(tax_rate_ids(&self.tax_breakdown));
    }

    fn absorb(&mut self, earlier: &Invoice) {
        known(&mut self.number, &earlier.number);
        known(&mut self.stripe_customer_id, &earlier.stripe_customer_id);
        known(
            &mut self.stripe_subscription_id,
            &earlier.stripe_subscription_id,
        );
        earliest(&mut self.paid_at, earlier.paid_at);
        earliest(&mut self.voided_at, earlier.voided_at);
        earliest(&mut self.uncollectible_at, earlier.uncollectible_at);
        earliest(&mut self.finalized_at, earlier.finalized_at);
        earliest(&mut self.deleted_at, earlier.deleted_at);
        self.attempt_count = self.attempt_count.max(earlier.attempt_count);
        // Most snapshots do not state it.
        known(&mut self.stated, &earlier.stated);
        // A webhook carries ten lines at most; the full list was read once and is frozen.
        let is_fuller = earlier.lines.len() > self.lines.len();
        if earlier.lines_complete && !self.lines_complete && is_fuller {
            self.lines.clone_from(&earlier.lines);
            self.lines_complete = true;
        }
    }
}

impl Invoice {
    /// The id of the partner's invoice that this invoice collects, from its metadata.
    #[must_use]
    pub fn collects(&self) -> Option<i64> {
        let id = self.metadata.get(PARTNER_INVOICE_METADATA)?.as_str()?;
        id.parse().ok()
    }

    /// What was sold: a subscription's period, or a single sale.
    #[must_use]
    pub fn kind(&self) -> InvoiceKind {
        let reason = self.billing_reason.as_deref().unwrap_or_default();
        if self.stripe_subscription_id.is_some() || reason.starts_with("subscription") {
            InvoiceKind::Subscription
        } else {
            InvoiceKind::OneOff
        }
    }

    /// What is due (`docs/money.md`): 0 once paid or void, otherwise what remains, less the credit notes issued since.
    ///
    /// # Errors
    /// When the credit notes' sum is out of range.
    pub fn amount_due_cents(&self, credit_notes: &[CreditNote]) -> Result<i64, money::Error> {
        match self.status {
            InvoiceStatus::Paid | InvoiceStatus::Void => Ok(0),
            InvoiceStatus::Draft | InvoiceStatus::Open | InvoiceStatus::Uncollectible => {
                let since = self.credited_cents(credit_notes)? - self.credit_notes_cents;
                let due = self
                    .amount_remaining_cents
                    .checked_sub(since)
                    .and_then(|due| due.checked_add(self.given_back_cents(credit_notes)?));
                Ok(due.ok_or(money::Error::OutOfRange)?.max(0))
            }
        }
    }

    /// What credit notes took off before payment: the amount in this snapshot, or what the notes add up to when that is
    /// more.
    pub fn credited_cents(&self, credit_notes: &[CreditNote]) -> Result<i64, money::Error> {
        let issued = credit_notes
            .iter()
            .filter(|note| note.status != "void")
            .try_fold(0_i64, |sum, note| sum.checked_add(note.pre_payment_cents))
            .ok_or(money::Error::OutOfRange)?;
        Ok(issued.max(self.credit_notes_cents))
    }

    /// What this snapshot had taken off for credit notes that were voided later.
    fn given_back_cents(&self, credit_notes: &[CreditNote]) -> Option<i64> {
        let shown_at = self.version.created_at;
        credit_notes
            .iter()
            .filter(|note| note.created_at <= shown_at)
            .filter(|note| note.voided_at.is_some_and(|voided_at| voided_at > shown_at))
            .try_fold(0_i64, |sum, note| sum.checked_add(note.pre_payment_cents))
            .map(|sum| sum.min(self.credit_notes_cents))
    }

    /// From where the money came that `links` and the invoice itself tell of; links of other invoices are left out.
    ///
    /// # Errors
    /// When a sum is out of range.
    pub fn money<'a>(
        &self,
        links: impl Iterator<Item = &'a InvoicePayment>,
    ) -> Result<InvoiceMoney, money::Error> {
        let (mut by_stripe, mut recorded) = (0_i64, 0_i64);
        let mut has_payment = false;
        for link in links.filter(|link| link.stripe_invoice_id == self.stripe_invoice_id) {
            let sum = match link.record_outside_stripe() {
                Some(_) => &mut recorded,
                None => &mut by_stripe,
            };
            let added = sum.checked_add(link.applied_cents());
            *sum = added.ok_or(money::Error::OutOfRange)?;
            has_payment = true;
        }
        let stated = self.stated.as_ref().map_or(0, |stated| stated.amount_cents);
        let outside_cents = recorded.max(stated);
        let rest = self.amount_paid_cents.checked_sub(outside_cents);
        let rest = rest.and_then(|rest| rest.checked_sub(by_stripe));
        let unexplained = rest.ok_or(money::Error::OutOfRange)?.max(0);
        // The payment that the invoice names explains the rest, whether or not it was seen.
        let is_explained = self.names_payment.unwrap_or(has_payment);
        Ok(InvoiceMoney {
            outside_cents,
            unrecorded_cents: outside_cents - recorded,
            unexplained_cents: if is_explained { 0 } else { unexplained },
            has_payment,
        })
    }
}

/// What a snapshot says about money that came outside Stripe. The later snapshot counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutsideStripe {
    pub stated_at: Timestamp,
    /// In minor units of the invoice's currency.
    pub amount_cents: i64,
}

/// From where the money of an invoice came, in minor units of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceMoney {
    /// What came outside Stripe: as its payment records say, or as Stripe states it when that is more.
    pub outside_cents: i64,
    /// The part of that for which there is no payment record.
    pub unrecorded_cents: i64,
    /// What was paid by nobody knows which payment: its list has to be fetched.
    pub unexplained_cents: i64,
    /// Whether any payment of the invoice is known, paid or not.
    pub has_payment: bool,
}

/// A credit note as one snapshot shows it.
/// Source: <https://docs.stripe.com/api/credit_notes/object>.
#[derive(Debug, Clone, PartialEq)]
pub struct CreditNote {
    pub stripe_credit_note_id: String,
    pub stripe_invoice_id: String,
    pub stripe_customer_id: Option<String>,
    pub amount_cents: i64,
    /// The part of the note that reduces what is still to be paid.
    pub pre_payment_cents: i64,
    /// The tax in `amount_cents`, and in what else the note gives back.
    pub tax_cents: i64,
    /// Stripe's list of its taxes.
    pub tax_breakdown: Value,
    /// What was paid back outside Stripe, besides what `refunds` say.
    pub out_of_band_cents: i64,
    /// The refunds that the note covers.
    pub refunds: Vec<NoteRefund>,
    pub currency: Currency,
    /// Stripe's word: `issued` or `void`.
    pub status: String,
    pub reason: Option<String>,
    pub voided_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub version: Version,
}

/// A refund that a credit note covers, at Stripe or of a payment record. The shape of `credit_notes.refunds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRefund {
    /// Stripe's `type`: `refund` or `payment_record_refund`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In minor units of the note's currency; `None` in versions that only name the refund.
    pub amount_cents: Option<i64>,
    pub stripe_refund_id: Option<String>,
    pub stripe_payment_record_id: Option<String>,
}

impl Snapshot for CreditNote {
    fn key(&self) -> String {
        self.stripe_credit_note_id.clone()
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn names(&self, ids: &mut Ids) {
        ids.credit_notes.push(self.stripe_credit_note_id.clone());
        ids.invoices.push(self.stripe_invoice_id.clone());
        ids.customers.extend(self.stripe_customer_id.clone());
        ids.tax_rates.extend(tax_rate_ids(&self.tax_breakdown));
    }

    fn absorb(&mut self, earlier: &CreditNote) {
        earliest(&mut self.voided_at, earlier.voided_at);
    }
}

/// The ids of the tax rates that a list of Stripe's taxes names.
pub fn tax_rate_ids(tax_breakdown: &Value) -> impl Iterator<Item = String> {
    let taxes = tax_breakdown.as_array().into_iter().flatten();
    taxes.filter_map(|tax| Some(tax_rate_id(tax)?.to_owned()))
}

/// The id of the tax rate that one of Stripe's taxes names; `None` when it names none.
#[must_use]
pub fn tax_rate_id(tax: &Value) -> Option<&str> {
    let rate = tax
        .pointer("/tax_rate_details/tax_rate")
        .or_else(|| tax.get("tax_rate"))?;
    let id = rate.as_str().or_else(|| rate.get("id")?.as_str())?;
    id.starts_with("txr_").then_some(id)
}

impl CreditNote {
    /// The rank of a credit note's status within one second.
    #[must_use]
    pub fn rank(status: &str) -> i32 {
        if status == "void" { 100 } else { 0 }
    }

    /// Whether the note is in force.
    #[must_use]
    pub fn is_issued(&self) -> bool {
        self.status != "void"
    }

    /// The payment records that the note pays back, each with its amount in minor units.
    pub fn refunded_records(&self) -> impl Iterator<Item = (&str, i64)> {
        let of_records = self.refunds.iter();
        of_records
            .filter(|refund| refund.kind == "payment_record_refund")
            .map(|refund| {
                let record = refund.stripe_payment_record_id.as_deref();
                (record.unwrap_or_default(), refund.amount_cents.unwrap_or(0))
            })
    }

    /// What the note pays back outside Stripe, in minor units.
    ///
    /// # Errors
    /// When the sum is out of range.
    pub fn paid_back_outside_cents(&self) -> Result<i64, money::Error> {
        let mut of_records = self.refunded_records().map(|(_, amount)| amount);
        let sum = of_records.try_fold(self.out_of_band_cents, i64::checked_add);
        sum.ok_or(money::Error::OutOfRange)
    }

    /// The row of `refunds` of what the note paid back outside Stripe; `None` when that is nothing.
    ///
    /// # Errors
    /// When the amount is out of range.
    pub fn refund_outside(&self) -> Result<Option<Refund>, money::Error> {
        let amount_cents = self.paid_back_outside_cents()?;
        let status = match self.is_issued() {
            true => "succeeded",
            false => "canceled",
        };
        Ok((amount_cents > 0).then(|| Refund {
            stripe_refund_id: self.stripe_credit_note_id.clone(),
            stripe_charge_id: None,
            stripe_payment_intent_id: None,
            amount_cents,
            currency: self.currency,
            reason: self.reason.clone(),
            status: status.to_owned(),
            stripe_balance_transaction_id: None,
            failure_balance_transaction_id: None,
            metadata: Value::Object(Map::new()),
            source: RefundSource::CreditNote,
            stripe_invoice_id: Some(self.stripe_invoice_id.clone()),
            created_at: self.created_at,
            failed_at: self.voided_at,
            version: self.version.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn every_number_has_a_key_of_its_own() {
        for (number, name) in [
            ("API-202510-dpabc", "API-202510-dpabc"),
            ("API-202510-dp_pk_alpha", "API-202510-dp_5fpk_5falpha"),
            ("INV/1", "INV_2f1"),
            ("INV_2f1", "INV_5f2f1"),
            ("../../parked/x", ".._2f.._2fparked_2fx"),
            ("Ü 1", "_c3_9c_201"),
        ] {
            assert_eq!(
                pdf_key(InvoiceKind::Partner, date(2025, 11, 1), number),
                format!("invoices/partner/2025/11/{name}.pdf")
            );
        }
    }
}
