//! `GET /admin/invoices…`: the invoices, newest first; one with all that belongs to it.

use domain::page::Page;
use jiff::Timestamp;
use lambda_http::http::StatusCode;
use lambda_http::{Body, Request, Response};
use runtime::api::authentication::Access;
use runtime::api::{self, Error, Query};
use serde::Serialize;
use serde_json::Value;
use store::invoices::{self, Filter};
use store::list::Object;
use store::{credits, payment_history};
use tokio_postgres::GenericClient;

use crate::{Clients, list};

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
    app: &Clients,
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
    app: &Clients,
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
    let mut payments = payment_history::list(db, &filter, &page).await?.rows;
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

/// The invoice that a segment of the path names; another partner's is as good as none.
async fn find(db: &impl GenericClient, id: &str, access: &Access) -> Result<Object, Error> {
    let (number, stripe_id) = api::parse_invoice_id(id)?;
    let invoice = invoices::find(db, number, stripe_id).await?;
    invoice
        .filter(|invoice| access.allows(invoice["api_key_prefix"].as_str()))
        .ok_or(Error::NotFound)
}
