//! Hands invoices to Stripe that are to be collected there: customer, draft, items, finalised and sent.
//!
//! Each step carries an idempotency key of the contract, the period and our invoice, and what a run left behind is
//! found again at Stripe by our invoice's number in its metadata: Stripe forgets keys after a day, a run that was
//! killed may go on later. A draft does not finalise itself before all its items are on it, and not before the invoice is
//! tied to it: from then on nobody voids it or marks it paid here. The payment comes back through the webhook, by the
//! link or by the metadata, whichever is there first.

use domain::money;
use domain::partner::pricing::RatedLine;
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::cause_chain;
use serde_json::{Map, Value, json};
use store::partner_invoices::{self, Uncollected};
use store::{contracts, customers, ledger};
use stripe::client::{self, Client, IdempotencyKey};

use crate::run::Run;
use crate::{App, Summary};

/// The member of Stripe's metadata that names our invoice; the webhook reads it.
use domain::stripe_objects::invoice::PARTNER_INVOICE_METADATA as OUR_INVOICE;

/// Invoices read at once.
const PER_READ: i64 = 100;
/// Pages of a customer's invoices looked through for one of ours.
const PAGES: u32 = 20;
/// Calls that fail for Stripe's own reasons before the run leaves the rest to the next one.
const FAILURES_IN_A_ROW: u32 = 3;

/// Why an invoice was not handed over.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Stripe did not take the invoice")]
    Stripe(#[from] client::Error),
    #[error("Stripe's answer has no id")]
    NoId,
    #[error("the invoice's lines cannot be read")]
    Lines(#[source] serde_json::Error),
    #[error("the lines do not add up to what is due")]
    Sum,
    #[error("an amount is out of range")]
    Money(#[from] money::Error),
    #[error("it was voided or paid meanwhile; {0} at Stripe is not sent and may be deleted there")]
    Overtaken(String),
    #[error("an idempotency key could not be made")]
    Key,
    #[error("the link could not be written")]
    Store(#[from] store::Error),
}

/// Hands over what is not yet. One that fails does not hold up the others; when Stripe is away the rest waits for the
/// next run.
///
/// # Errors
/// When the database is away.
pub(crate) async fn collect_all(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    let mut after = 0;
    let mut failures_in_a_row = 0;
    loop {
        let client = run.app.database.client().await?;
        let invoices =
            partner_invoices::uncollected(&**client, after, run.request.contract_id, PER_READ)
                .await?;
        drop(client);
        let Some(last) = invoices.last() else {
            return Ok(());
        };
        after = last.id;
        for invoice in invoices {
            if run.deadline.is_reached() {
                summary.stopped_early = true;
                return Ok(());
            }
            let error = match collect(run.app, &invoice, run.now).await {
                Ok(()) => {
                    failures_in_a_row = 0;
                    summary.collected += 1;
                    continue;
                }
                Err(Error::Store(error)) if error.is_unavailable() => return Err(error),
                Err(error) => error,
            };
            let is_away = matches!(&error, Error::Stripe(error) if error.is_temporary());
            let cause = cause_chain(&error);
            summary.fail_invoice(invoice.contract_id, invoice.id, "stripe", cause);
            failures_in_a_row = if is_away { failures_in_a_row + 1 } else { 0 };
            if failures_in_a_row == FAILURES_IN_A_ROW {
                return Ok(());
            }
        }
    }
}

async fn collect(app: &App, invoice: &Uncollected, now: Timestamp) -> Result<(), Error> {
    let stripe = &app.stripe;
    let (customer, is_new) = customer(app, invoice, now).await?;
    let known = match &invoice.stripe_invoice_id {
        Some(id) => Some(stripe.retrieve(&["invoices", id], &[], now).await?),
        None if is_new => None,
        None => find(stripe, &customer, invoice, now).await?,
    };
    let at_stripe = match known {
        Some(known) => known,
        None => create(stripe, &customer, invoice, now).await?,
    };
    let id = id_of(&at_stripe)?;
    let db = app.database.client().await?;
    let link = json!({"id": invoice.id, "stripe_invoice_id": id, "stripe_customer_id": customer});
    let mut writes = ledger::Writes::default();
    writes.list("collected", [link])?;
    ledger::close(&**db, &writes, now).await?;
    let is_linked = partner_invoices::is_linked(&**db, invoice.id, &id).await?;
    drop(db);
    // Somebody voided it, or noted its payment, since the page was read: the draft at Stripe is never finalised.
    if !is_linked {
        return Err(Error::Overtaken(id));
    }
    if at_stripe["status"] == "draft" {
        add_items(stripe, &customer, &id, invoice, now).await?;
        let form = json!({"auto_advance": true});
        let key = key(invoice, "finalize")?;
        stripe
            .post(&["invoices", &id, "finalize"], &form, &key, now)
            .await?;
    }
    if matches!(at_stripe["status"].as_str(), Some("draft" | "open")) {
        let key = key(invoice, "send")?;
        let nothing = Map::new();
        stripe
            .post(&["invoices", &id, "send"], &nothing, &key, now)
            .await?;
    }
    let db = app.database.client().await?;
    partner_invoices::mark_sent(&**db, invoice.id, now).await?;
    Ok(())
}

/// The contract's customer at Stripe, and whether it has just been made.
async fn customer(
    app: &App,
    invoice: &Uncollected,
    now: Timestamp,
) -> Result<(String, bool), Error> {
    if let Some(customer) = &invoice.stripe_customer_id {
        return Ok((customer.clone(), false));
    }
    let contract_id = invoice.contract_id;
    // A run that was killed may have made one: the webhook has mirrored it by then, or the key still answers it.
    let db = app.database.client().await?;
    let mirrored = customers::of_contract(&**db, contract_id).await?;
    drop(db);
    let (customer, is_new) = match mirrored {
        Some(customer) => (customer, false),
        None => {
            let mut form = Map::new();
            form.insert(
                "metadata".to_owned(),
                json!({"contract_id": contract_id.to_string()}),
            );
            for (name, text) in [
                ("name", &invoice.company),
                ("email", &invoice.billing_email),
            ] {
                if let Some(text) = text {
                    form.insert(name.to_owned(), json!(text));
                }
            }
            let key = format!("partner-customer:{contract_id}");
            let key = IdempotencyKey::new(key).map_err(|_never_too_long| Error::Key)?;
            let made = app.stripe.post(&["customers"], &form, &key, now).await?;
            (id_of(&made)?, true)
        }
    };
    let db = app.database.client().await?;
    contracts::set_stripe_customer(&**db, contract_id, &customer, now).await?;
    Ok((customer, is_new))
}

/// Our invoice among the customer's at Stripe that is not void.
async fn find(
    stripe: &Client,
    customer: &str,
    invoice: &Uncollected,
    now: Timestamp,
) -> Result<Option<Value>, Error> {
    let mut params = Map::new();
    params.insert("customer".to_owned(), json!(customer));
    let path = ["invoices"];
    let mut pages = stripe.pages(&path, params, PAGES, now);
    let ours = invoice.id.to_string();
    while let Some(page) = pages.next_page().await? {
        let found = page.into_iter().find(|candidate| {
            candidate["metadata"][OUR_INVOICE].as_str() == Some(&ours)
                && candidate["status"].as_str() != Some("void")
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn create(
    stripe: &Client,
    customer: &str,
    invoice: &Uncollected,
    now: Timestamp,
) -> Result<Value, Error> {
    let due_at = invoice.due_at.unwrap_or(now);
    let form = json!({
        "customer": customer,
        "currency": invoice.currency.as_str().to_ascii_lowercase(),
        "collection_method": "send_invoice",
        "days_until_due": days_until(due_at, now),
        "auto_advance": false,
        "pending_invoice_items_behavior": "exclude",
        "description": format!("Invoice {}", invoice.invoice_number),
        "metadata": {
            (OUR_INVOICE): invoice.id.to_string(),
            "invoice_number": invoice.invoice_number,
            "contract_id": invoice.contract_id.to_string(),
        },
    });
    let key = key(invoice, "create")?;
    Ok(stripe.post(&["invoices"], &form, &key, now).await?)
}

/// Puts what is not on the draft yet on it, one item after the other: those that are there are the first ones.
async fn add_items(
    stripe: &Client,
    customer: &str,
    id: &str,
    invoice: &Uncollected,
    now: Timestamp,
) -> Result<(), Error> {
    let items = items(invoice)?;
    let mut params = Map::new();
    params.insert("invoice".to_owned(), json!(id));
    let path = ["invoiceitems"];
    let mut pages = stripe.pages(&path, params, PAGES, now);
    let mut present = 0;
    while let Some(page) = pages.next_page().await? {
        present += page.len();
    }
    for (position, (description, amount_cents)) in items.iter().enumerate().skip(present) {
        let form = json!({
            "customer": customer,
            "invoice": id,
            "currency": invoice.currency.as_str().to_ascii_lowercase(),
            "amount": amount_cents,
            "description": description,
        });
        let key = key(invoice, &format!("item:{position}"))?;
        stripe.post(&["invoiceitems"], &form, &key, now).await?;
    }
    Ok(())
}

/// What is due, item by item: the lines that cost something, the tax, and the credits that were taken.
fn items(invoice: &Uncollected) -> Result<Vec<(String, i64)>, Error> {
    let lines = invoice.line_items.get("items").cloned().unwrap_or_default();
    let lines: Vec<RatedLine> = serde_json::from_value(lines).map_err(Error::Lines)?;
    let lines = lines
        .into_iter()
        .map(|line| (line.description, line.total_cents));
    let credit_cents = -invoice.credit_applied_cents;
    let rest = [
        ("Tax".to_owned(), invoice.tax_cents),
        ("Credit".to_owned(), credit_cents),
    ];
    let items: Vec<(String, i64)> = lines
        .chain(rest)
        .filter(|(_, amount_cents)| *amount_cents != 0)
        .collect();
    let sum = items
        .iter()
        .try_fold(0_i64, |sum, (_, amount_cents)| {
            sum.checked_add(*amount_cents)
        })
        .ok_or(money::Error::OutOfRange)?;
    if sum == invoice.amount_due_cents {
        Ok(items)
    } else {
        Err(Error::Sum)
    }
}

/// The key of one step of an invoice: the same for every run, another for a reissue.
fn key(invoice: &Uncollected, step: &str) -> Result<IdempotencyKey, Error> {
    let (contract_id, id) = (invoice.contract_id, invoice.id);
    let period = invoice.period_start.map_or(0, Timestamp::as_second);
    let key = format!("partner-invoice:{contract_id}:{period}:{id}:{step}");
    IdempotencyKey::new(key).map_err(|_never_too_long| Error::Key)
}

/// Days from an instant until an invoice is due, a started one counts; not negative.
fn days_until(due_at: Timestamp, from: Timestamp) -> i64 {
    let seconds = due_at
        .duration_since(from)
        .max(SignedDuration::ZERO)
        .as_secs();
    seconds / 86_400 + i64::from(seconds % 86_400 > 0)
}

fn id_of(object: &Value) -> Result<String, Error> {
    let id = object["id"].as_str().ok_or(Error::NoId)?;
    Ok(id.to_owned())
}
