//! What happens to partners' invoices outside Stripe: they are voided, and payments of them are noted.
//!
//! Lock order: the idempotency key, the invoice, then its credits in ascending order, then the days of the revenue.

use domain::money::Currency;
use domain::payment::{self, ManualPaymentMethod};
use domain::revenue::entries;
use domain::stripe_objects::invoice::{InvoiceStatus, PartnerInvoice};
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::values::{Moment, PlainText};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::credits::{self, AppliedCredit};
use store::invoices::{self, InvoiceRow, Locked};
use store::ledger;
use store::outbox::NewMessage;
use store::payment_history;
use tokio_postgres::GenericClient;
use utoipa::ToSchema;

use crate::write::Write;

/// What the audit log keeps of an invoice.
#[derive(Serialize)]
struct AuditedInvoice<'a> {
    invoice_number: &'a str,
    status: InvoiceStatus,
    total_cents: Option<i64>,
    credit_applied_cents: i64,
    amount_paid_cents: Option<i64>,
    amount_due_cents: Option<i64>,
    paid_at: Option<Timestamp>,
    voided_at: Option<Timestamp>,
    /// What voiding it gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<&'a [AppliedCredit]>,
    /// The payment that was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<AuditedPayment<'a>>,
}

/// What the audit log keeps of a payment outside Stripe.
#[derive(Serialize)]
struct AuditedPayment<'a> {
    payment_key: &'a str,
    amount_cents: i64,
    currency: Currency,
    method: ManualPaymentMethod,
    reference: Option<&'a str>,
    paid_at: Timestamp,
}

impl<'a> From<&'a InvoiceRow> for AuditedInvoice<'a> {
    fn from(invoice: &'a InvoiceRow) -> AuditedInvoice<'a> {
        let row = &invoice.summary;
        AuditedInvoice {
            invoice_number: &row.invoice_number,
            status: row.status,
            total_cents: row.total_cents,
            credit_applied_cents: row.credit_applied_cents,
            amount_paid_cents: row.amount_paid_cents,
            amount_due_cents: row.amount_due_cents,
            paid_at: row.paid_at,
            voided_at: row.voided_at,
            credits: None,
            payment: None,
        }
    }
}

runtime::refusals! {
    /// Why an invoice is not voided.
    pub enum VoidInvoiceError {
        /// Stripe collects the invoice, so its status follows Stripe's events.
        Stripe = 409 "stripe_invoice" "this invoice is Stripe's: void it at Stripe",
        /// Such as one of the predecessor's.
        NotPartners = 409 "not_a_partner_invoice" "this is not a partner's invoice",
        /// The invoice was voided earlier; voiding it again changes nothing.
        Void = 409 "invoice_void" "this invoice was voided before",
        /// A void would lose what was paid.
        Paid = 409 "invoice_paid" "something of this invoice has been paid",
    }
}

/// Voids an invoice of which nothing has been paid; credits that were applied to it go back.
///
/// # Errors
/// When there is no such invoice, or it cannot be voided.
pub async fn void(cx: Write<'_>, id: i64) -> Result<InvoiceRow, VoidInvoiceError> {
    let invoice = match invoices::lock(cx.db, id).await?.ok_or(Error::NotFound)? {
        Locked::Partner(invoice) => invoice,
        Locked::Stripe => return Err(VoidInvoiceError::Stripe),
        Locked::Other => return Err(VoidInvoiceError::NotPartners),
    };
    if invoice.status == InvoiceStatus::Void {
        return Err(VoidInvoiceError::Void);
    }
    if invoice.status == InvoiceStatus::Paid || invoice.amount_paid_cents != 0 {
        return Err(VoidInvoiceError::Paid);
    }
    let before = shown(cx.db, id).await?;
    let given_back = credits::applied_to(cx.db, id).await?;
    credits::lock_applied_to(cx.db, id).await?;
    credits::give_back(cx.db, id).await?;
    invoices::void(cx.db, id, cx.now).await?;
    let after = shown(cx.db, id).await?;
    let before = AuditedInvoice {
        credits: Some(&given_back),
        ..AuditedInvoice::from(&before)
    };
    let audited = AuditedInvoice::from(&after);
    cx.audit("invoice.void", format!("invoice:{id}"), before, audited)
        .await?;
    Ok(after)
}

/// A payment outside Stripe.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManualPayment {
    /// All that is due or a part of it, in minor units of the invoice's currency.
    #[schema(minimum = 1)]
    pub amount_cents: i64,
    pub method: ManualPaymentMethod,
    /// What the bank knows it by.
    pub reference: Option<PlainText>,
    /// When it came in: an instant that has passed.
    pub paid_at: Moment,
}

impl ManualPayment {
    /// What a type cannot say: something was paid, and has been.
    ///
    /// # Errors
    /// Names the member at fault.
    pub fn check(&self, now: Timestamp) -> Result<(), Error> {
        if self.amount_cents < 1 {
            let detail = "a whole number of at least 1";
            return Err(Error::invalid_member("amount_cents", detail));
        }
        if self.paid_at.0 > now {
            let detail = "an instant that has passed";
            return Err(Error::invalid_member("paid_at", detail));
        }
        Ok(())
    }
}

runtime::refusals! {
    /// Why a payment of an invoice is not noted.
    pub enum MarkPaidError {
        /// Stripe collects the invoice, so its status follows Stripe's events.
        Stripe = 409 "stripe_invoice" "this invoice is Stripe's: Stripe says when it is paid",
        /// Such as one of the predecessor's.
        NotPartners = 409 "not_a_partner_invoice" "this is not a partner's invoice",
        /// Nobody has been asked to pay it.
        Draft = 409 "invoice_draft" "a draft cannot be paid",
        /// Nothing of it is owed.
        Void = 409 "invoice_void" "this invoice is void",
        /// Nothing of it is owed any more.
        Paid = 409 "invoice_paid" "this invoice is paid",
        /// Stripe would collect all of it besides.
        ForStripe = 409 "invoice_for_stripe"
            "Stripe is to collect this invoice whole: note a payment of all that is due, or let the next run hand it over",
    }
}

/// Notes a payment that was checked, of all that is due of an invoice or of a part.
///
/// # Errors
/// When there is no such invoice, it cannot be paid so, or the payment is more than is due.
pub async fn mark_paid(
    mut cx: Write<'_>,
    id: i64,
    paid: ManualPayment,
) -> Result<InvoiceRow, MarkPaidError> {
    let (amount_cents, paid_at) = (paid.amount_cents, paid.paid_at.0);
    let invoice = match invoices::lock(cx.db, id).await?.ok_or(Error::NotFound)? {
        Locked::Partner(invoice) => invoice,
        Locked::Stripe => return Err(MarkPaidError::Stripe),
        Locked::Other => return Err(MarkPaidError::NotPartners),
    };
    match invoice.status {
        InvoiceStatus::Open | InvoiceStatus::Uncollectible => {}
        InvoiceStatus::Draft => return Err(MarkPaidError::Draft),
        InvoiceStatus::Void => return Err(MarkPaidError::Void),
        InvoiceStatus::Paid => return Err(MarkPaidError::Paid),
    }
    let due_cents = invoice.amount_due_cents()?;
    if amount_cents > due_cents {
        let expected = format!("at most {due_cents}, which is what remains to be paid");
        return Err(Error::invalid_member("amount_cents", expected).into());
    }
    if invoice.is_for_stripe && amount_cents < due_cents {
        return Err(MarkPaidError::ForStripe);
    }
    let before = shown(cx.db, id).await?;
    let number = payment_history::count_manual(cx.db, id).await? + 1;
    let payment = payment::manual(
        &format!("manual:{id}:{number}"),
        paid.method,
        amount_cents,
        invoice.currency,
        paid_at,
    );
    let reference = paid.reference.as_ref().map(PlainText::as_str);
    payment_history::insert_manual(cx.db, &payment, id, reference, cx.now).await?;
    let entries = entries::replacement(&[], &payment.entries)?;
    let mut writes = ledger::Writes::default();
    writes.entries(&entries)?;
    ledger::close(cx.db, &writes, cx.now).await?;
    // Neither can overflow: both are between 0 and the total.
    let (paid_cents, left_cents) = (
        invoice.amount_paid_cents + amount_cents,
        due_cents - amount_cents,
    );
    let paid_in_full_at = (left_cents == 0).then_some(paid_at);
    invoices::mark_paid(cx.db, id, paid_cents, left_cents, paid_in_full_at, cx.now).await?;
    cx.announce(&announcements(&invoice, &payment, left_cents))
        .await?;
    let after = shown(cx.db, id).await?;
    let audited = AuditedInvoice {
        payment: Some(AuditedPayment {
            payment_key: &payment.payment_key,
            amount_cents,
            currency: invoice.currency,
            method: paid.method,
            reference,
            paid_at,
        }),
        ..AuditedInvoice::from(&after)
    };
    let before = AuditedInvoice::from(&before);
    cx.audit(
        "invoice.mark_paid",
        format!("invoice:{id}"),
        before,
        audited,
    )
    .await?;
    Ok(after)
}

/// The invoice as it is now.
async fn shown(db: &impl GenericClient, id: i64) -> Result<InvoiceRow, Error> {
    let invoice = invoices::find(db, Some(id), None).await?;
    invoice.ok_or(Error::NotFound)
}

fn announcements(
    invoice: &PartnerInvoice,
    payment: &payment::Payment,
    left_cents: i64,
) -> Vec<NewMessage> {
    let message = |detail_type: &'static str, subject: &str, data: Value| {
        let dedupe_key = format!("{detail_type}:{subject}");
        NewMessage {
            detail_type,
            detail: json!({
                "event_id": dedupe_key,
                "occurred_at": payment.succeeded_at,
                "subject": subject,
                "data": data,
            }),
            dedupe_key,
        }
    };
    let mut messages = vec![message(
        "payment.succeeded",
        &payment.payment_key,
        json!({
            "payment_key": payment.payment_key,
            "invoice_id": invoice.id,
            "api_key_prefix": invoice.api_key_prefix,
            "amount_cents": payment.amount_cents,
            "currency": payment.currency,
        }),
    )];
    if left_cents == 0 {
        messages.push(message(
            "invoice.paid",
            &format!("invoice:{}", invoice.id),
            json!({
                "invoice_id": invoice.id,
                "api_key_prefix": invoice.api_key_prefix,
                "total_cents": invoice.total_cents,
                "amount_due_cents": left_cents,
                "currency": invoice.currency,
            }),
        ));
    }
    messages
}
