//! `POST /admin/invoices/{id}/void` and `…/mark-paid`: what happens to partners' invoices outside Stripe.
//!
//! Lock order: the idempotency key, the invoice, then its credits in ascending order, then the days of the revenue.

use domain::money::Currency;
use domain::payment::{self, ManualPaymentMethod};
use domain::revenue::entries;
use domain::stripe_objects::invoice::{InvoiceStatus, PartnerInvoice};
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::members::{self, Members};
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::{Value, json};
use store::audit_log::{self, Entry};
use store::credits::{self, AppliedCredit};
use store::invoices::{self, InvoiceRow, Locked};
use store::outbox::{self, NewMessage};
use store::payment_history;
use tokio_postgres::{Client, GenericClient};

use crate::{App, write};

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

/// Voids an invoice of which nothing has been paid; credits that were applied to it go back.
pub(crate) async fn void(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::required_key(request)?;
    Members::parse(request, &[])?;
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let invoice = lock(&transaction, id, "void it at Stripe").await?;
    if invoice.status == InvoiceStatus::Void {
        return Err(conflict("invoice_void", "this invoice was voided before"));
    }
    if invoice.status == InvoiceStatus::Paid || invoice.amount_paid_cents != 0 {
        return Err(conflict(
            "invoice_paid",
            "something of this invoice has been paid",
        ));
    }
    let before = shown(&transaction, id).await?;
    let given_back = credits::applied_to(&transaction, id).await?;
    credits::lock_applied_to(&transaction, id).await?;
    credits::give_back(&transaction, id).await?;
    invoices::void(&transaction, id, now).await?;
    let after = shown(&transaction, id).await?;
    let before = AuditedInvoice {
        credits: Some(&given_back),
        ..AuditedInvoice::from(&before)
    };
    let entry = Entry {
        actor: write::actor(&principal),
        action: "invoice.void",
        target: format!("invoice:{id}"),
        before: Some(write::audited(&before)?),
        after: Some(write::audited(&AuditedInvoice::from(&after))?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::OK, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(answer)
}

/// Notes a wire, a check or an ACH transfer for an invoice, of all that is due or of a part.
pub(crate) async fn mark_paid(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let principal = app.jwt.require_admin(request.headers(), now).await?;
    Query::parse(request, &[])?;
    let key = write::required_key(request)?;
    let members = Members::parse(request, &["amount_cents", "method", "reference", "paid_at"])?;
    let amount_cents = members::required("amount_cents", members.integer("amount_cents")?)?;
    if amount_cents < 1 {
        return Err(members::invalid(
            "amount_cents",
            "a whole number of at least 1",
        ));
    }
    let method = members.one_of("method", ManualPaymentMethod::WORDS)?;
    let method = members::required("method", method.and_then(ManualPaymentMethod::parse))?;
    let reference = members.text("reference")?;
    let paid_at = members::required("paid_at", members.moment("paid_at")?)?;
    if paid_at > now {
        return Err(members::invalid("paid_at", "an instant that has passed"));
    }
    let id = api::parse_id(id).ok_or(Error::NotFound)?;
    let mut client = app.database.client().await?;
    let client: &mut Client = &mut client;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    if let Some(answer) = write::begin(&transaction, key.as_ref(), now).await? {
        return Ok(answer);
    }
    let invoice = lock(&transaction, id, "Stripe says when it is paid").await?;
    match invoice.status {
        InvoiceStatus::Open | InvoiceStatus::Uncollectible => {}
        InvoiceStatus::Draft => return Err(conflict("invoice_draft", "a draft cannot be paid")),
        InvoiceStatus::Void => return Err(conflict("invoice_void", "this invoice is void")),
        InvoiceStatus::Paid => return Err(conflict("invoice_paid", "this invoice is paid")),
    }
    let due_cents = invoice.amount_due_cents()?;
    if amount_cents > due_cents {
        let expected = format!("at most {due_cents}, which is what remains to be paid");
        return Err(members::invalid("amount_cents", expected));
    }
    if invoice.is_for_stripe && amount_cents < due_cents {
        return Err(conflict(
            "invoice_for_stripe",
            "Stripe is to collect this invoice whole: note a payment of all that is due, or let the next run hand it over",
        ));
    }
    let before = shown(&transaction, id).await?;
    let number = payment_history::count_manual(&transaction, id).await? + 1;
    let payment = payment::manual(
        &format!("manual:{id}:{number}"),
        method,
        amount_cents,
        invoice.currency,
        paid_at,
    );
    payment_history::insert_manual(&transaction, &payment, id, reference, now).await?;
    let entries = entries::replacement(&[], &payment.entries)?;
    payment_history::replace_entries(&transaction, &entries).await?;
    // Neither can overflow: both are between 0 and the total.
    let (paid_cents, rest_cents) = (
        invoice.amount_paid_cents + amount_cents,
        due_cents - amount_cents,
    );
    let paid_in_full_at = (rest_cents == 0).then_some(paid_at);
    let marked = invoices::mark_paid(
        &transaction,
        id,
        paid_cents,
        rest_cents,
        paid_in_full_at,
        now,
    );
    marked.await?;
    let messages = announcements(&invoice, &payment, rest_cents);
    let messages = outbox::insert_all(&transaction, &messages, now).await?;
    let after = shown(&transaction, id).await?;
    let audited = AuditedInvoice {
        payment: Some(AuditedPayment {
            payment_key: &payment.payment_key,
            amount_cents,
            currency: invoice.currency,
            method,
            reference,
            paid_at,
        }),
        ..AuditedInvoice::from(&after)
    };
    let entry = Entry {
        actor: write::actor(&principal),
        action: "invoice.mark_paid",
        target: format!("invoice:{id}"),
        before: Some(write::audited(&AuditedInvoice::from(&before))?),
        after: Some(write::audited(&audited)?),
    };
    audit_log::insert(&transaction, &entry, now).await?;
    let answer = write::finish(&transaction, key.as_ref(), StatusCode::OK, &after).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    write::publish(app, client, &messages, now).await;
    Ok(answer)
}

/// The invoice under its lock, when it is one of ours; `instead` says what to do about one of Stripe's.
async fn lock(db: &impl GenericClient, id: i64, instead: &str) -> Result<PartnerInvoice, Error> {
    match invoices::lock(db, id).await? {
        None => Err(Error::NotFound),
        Some(Locked::Partner(invoice)) => Ok(invoice),
        Some(Locked::Stripe) => Err(conflict(
            "stripe_invoice",
            &format!("this invoice is Stripe's: {instead}"),
        )),
        Some(Locked::Other) => Err(conflict(
            "not_a_partner_invoice",
            "this is not a partner's invoice",
        )),
    }
}

/// The invoice as it is now.
async fn shown(db: &impl GenericClient, id: i64) -> Result<InvoiceRow, Error> {
    let invoice = invoices::find(db, Some(id), None).await?;
    invoice.ok_or(Error::NotFound)
}

fn announcements(
    invoice: &PartnerInvoice,
    payment: &payment::Payment,
    rest_cents: i64,
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
    if rest_cents == 0 {
        messages.push(message(
            "invoice.paid",
            &format!("invoice:{}", invoice.id),
            json!({
                "invoice_id": invoice.id,
                "api_key_prefix": invoice.api_key_prefix,
                "total_cents": invoice.total_cents,
                "amount_due_cents": rest_cents,
                "currency": invoice.currency,
            }),
        ));
    }
    messages
}

fn conflict(code: &'static str, detail: &str) -> Error {
    Error::Conflict {
        code,
        detail: detail.to_owned(),
    }
}
