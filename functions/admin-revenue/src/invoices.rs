//! `GET /admin/invoices…`: the invoices, newest first; one with all that belongs to it; its PDF.

use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use serde::Serialize;
use serde_json::Value;
use shared::api::authentication::Access;
use shared::api::{self, Error, Query};
use shared::filing;
use shared::store::invoices::{self, Filter};
use shared::store::list::{Object, Page};
use shared::store::{credits, payment_history};
use tokio_postgres::GenericClient;

use crate::{App, attachment, list};

const STATUSES: [&str; 5] = ["draft", "open", "paid", "void", "uncollectible"];
const KINDS: [&str; 4] = ["subscription", "one_off", "partner", "overage"];

/// What a partner sees of a payment: not what it cost us.
const OF_PAYMENT_FOR_PARTNERS: [&str; 9] = [
    "id",
    "invoice_id",
    "amount_cents",
    "currency",
    "status",
    "payment_method",
    "refund_amount_cents",
    "succeeded_at",
    "created_at",
];

#[derive(Serialize)]
struct Invoice {
    #[serde(flatten)]
    invoice: Object,
    lines: Value,
    /// Newest first.
    payments: Vec<Object>,
    /// What was taken from credits for it.
    credits: Vec<Object>,
}

/// A partner sees its own, and may not ask for another's.
pub(crate) async fn list(
    app: &App,
    request: &Request,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let access = app
        .jwt
        .require_admin_or_partner(request.headers(), now)
        .await?;
    let query = Query::parse(
        request,
        &[
            "status",
            "kind",
            "user_id",
            "api_key_prefix",
            "customer",
            "number",
            "from",
            "to",
            "limit",
            "cursor",
        ],
    )?;
    let mut filter = Filter {
        status: query.one_of("status", &STATUSES)?,
        kind: query.one_of("kind", &KINDS)?,
        user_id: query.integer("user_id")?,
        api_key_prefix: query.text("api_key_prefix")?,
        stripe_customer_id: query.text("customer")?,
        invoice_number: query.text("number")?,
        created: list::span(&query)?,
    };
    let page = list::page(&query)?;
    if let Access::Partner(own) = &access {
        if filter.api_key_prefix.is_some_and(|prefix| prefix != own) {
            return Err(Error::Forbidden {
                detail: "this token reads the invoices of its own prefix",
            });
        }
        filter.api_key_prefix = Some(own);
    }
    let client = app.database.client().await?;
    list::answer(invoices::list(&**client, &filter, &page).await?)
}

/// One invoice, by our number or by Stripe's id, with its lines, its payments and the credits applied to it.
pub(crate) async fn get(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let access = app
        .jwt
        .require_admin_or_partner(request.headers(), now)
        .await?;
    Query::parse(request, &[])?;
    let client = app.database.client().await?;
    let db = &**client;
    let mut invoice = find(db, id, &access).await?;
    let invoice_id = invoice["id"].as_i64().ok_or(Error::NotFound)?;
    let filter = payment_history::Filter {
        invoice_id: Some(invoice_id),
        ..payment_history::Filter::default()
    };
    let page = Page {
        after: None,
        limit: 500,
    };
    let mut payments = payment_history::list(db, &filter, &page).await?.objects;
    if let Access::Partner(_) = access {
        for payment in &mut payments {
            payment.retain(|name, _| OF_PAYMENT_FOR_PARTNERS.contains(&name.as_str()));
        }
        invoice.remove("pdf_key");
        invoice.remove("metadata");
    }
    let lines = invoice.remove("line_items").unwrap_or_default();
    let invoice = Invoice {
        invoice,
        lines: lines
            .get("items")
            .cloned()
            .unwrap_or(Value::Array(Vec::new())),
        payments,
        credits: credits::applied_to(db, invoice_id).await?,
    };
    api::json(StatusCode::OK, &invoice)
}

/// The PDF: our own from the bucket, else Stripe's. One that neither has is printed and stored now; a draft has none.
pub(crate) async fn pdf(
    app: &App,
    request: &Request,
    id: &str,
    now: Timestamp,
) -> Result<Response<Body>, Error> {
    let access = app
        .jwt
        .require_admin_or_partner(request.headers(), now)
        .await?;
    Query::parse(request, &[])?;
    let client = app.database.client().await?;
    let invoice = find(&**client, id, &access).await?;
    let text = |column: &str| invoice[column].as_str();
    let key = match (text("pdf_key"), text("stripe_invoice_id")) {
        (Some(key), _) => key.to_owned(),
        (None, Some(_)) if text("invoice_pdf_url").is_some() => {
            let link = text("invoice_pdf_url").unwrap_or_default();
            return attachment::redirect(StatusCode::FOUND, link);
        }
        (None, _) => {
            if text("status") == Some("draft") || text("deleted_at").is_some() {
                return Err(Error::Conflict {
                    code: "invoice_draft",
                    detail: "a draft has no PDF: it is printed once it is final".to_owned(),
                });
            }
            if invoice["lines_complete"] == false {
                return Err(Error::Conflict {
                    code: "invoice_incomplete",
                    detail: "not all lines of this invoice are known yet".to_owned(),
                });
            }
            let filing = app.filing.as_ref();
            let filing = filing.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
            let filed = filing.file(&**client, &invoice, now).await;
            filed.map_err(explain)?.pdf_key
        }
    };
    let bucket = app.document_bucket.as_ref();
    let bucket = bucket.map_err(|error| Error::NotConfigured(Box::new(error.clone())))?;
    let filename = format!("{}.pdf", text("invoice_number").unwrap_or("invoice"));
    let link = bucket.presigned_get(&key, &filename, now).await?;
    attachment::redirect(StatusCode::FOUND, &link)
}

fn explain(error: filing::Error) -> Error {
    match error {
        filing::Error::Store(error) => error.into(),
        filing::Error::Aws(error) => error.into(),
        filing::Error::NoLogo | filing::Error::Setup(_) => Error::NotConfigured(Box::new(error)),
        filing::Error::Unreadable(_) | filing::Error::Render(_) => Error::Internal(Box::new(error)),
    }
}

/// The invoice that a segment of the path names; another partner's is as good as none.
async fn find(db: &impl GenericClient, id: &str, access: &Access) -> Result<Object, Error> {
    let number = api::parse_id(id);
    let stripe_id = Some(id).filter(|id| id.starts_with("in_") && api::is_plain(id));
    if number.is_none() && stripe_id.is_none() {
        return Err(Error::NotFound);
    }
    let invoice = invoices::find(db, number, stripe_id).await?;
    let invoice = invoice.ok_or(Error::NotFound)?;
    match access {
        Access::Partner(own) if invoice["api_key_prefix"] != own.as_str() => Err(Error::NotFound),
        Access::Partner(_) | Access::Admin => Ok(invoice),
    }
}
