//! The routes under `/v1`: what Stripe's API answers, from the account's state.

use http::StatusCode;
use serde_json::Value;

use super::Shape;
use super::account::{Account, Refusal};
use super::billing::{NewInvoice, NewSubscription};
use super::form::Form;
use super::listing::unknown_path;
use super::payments::{NewIntent, Outcome};

/// The largest amount Stripe accepts, in minor units.
const AMOUNT_MAX: i64 = 99_999_999;

/// Answers a request whose path, below `/v1/`, is `path`.
pub(super) fn answer(
    account: &mut Account,
    shape: Shape,
    method: &str,
    path: &[&str],
    form: &Form,
) -> Result<Value, Refusal> {
    let id = match (method, path) {
        ("GET", ["subscription_items"]) => return account.subscription_items(form, shape),
        ("GET", [kind]) => return account.list(kind, form, shape),
        ("GET", ["checkout", "sessions"]) => {
            return account.list("checkout/sessions", form, shape);
        }
        ("GET", ["invoices", id, "lines"]) => return account.invoice_lines(id, form, shape),
        ("GET", [kind, id]) => return account.retrieve(kind, id, form, shape),
        ("POST", ["customers"]) => {
            account.create_customer(form.get("email"), form.get("name"), form.map("metadata"))
        }
        ("POST", ["customers", id]) => {
            account.update_customer(id, form.get("email"), &form.map("metadata"))?;
            (*id).to_owned()
        }
        ("DELETE", ["customers", id]) => {
            account.delete_customer(id)?;
            (*id).to_owned()
        }
        ("POST", ["payment_intents"]) => create_intent(account, form)?,
        ("POST", ["payment_intents", id, "confirm"]) => {
            confirm(account, id, form)?;
            (*id).to_owned()
        }
        ("POST", ["payment_intents", id, "cancel"]) => {
            account.cancel_intent(id)?;
            (*id).to_owned()
        }
        ("POST", ["refunds"]) => {
            let intent = match form.get("payment_intent") {
                Some(intent) => intent.to_owned(),
                None => account
                    .charges
                    .get(form.required("charge")?)?
                    .payment_intent
                    .clone(),
            };
            let charge = account.charge_of(&intent)?;
            let charge = account.charges.get(&charge)?;
            let left = charge.amount - charge.amount_refunded;
            let amount = form.integer("amount")?.unwrap_or(left);
            account.refund(&intent, amount)?
        }
        ("POST", ["invoiceitems"]) => {
            let amount = amount(form)?;
            account.create_invoice_item(
                form.required("customer")?,
                form.get("invoice"),
                &currency(form)?,
                form.get("description").unwrap_or_default(),
                amount,
            )?
        }
        ("POST", ["invoices"]) => create_invoice(account, shape, form)?,
        ("POST", ["invoices", id, action]) => {
            match *action {
                "finalize" => {
                    account.by_request();
                    account.finalize(id)?;
                }
                "pay" if form.flag("paid_out_of_band") => account.pay_out_of_band(id)?,
                "pay" => {
                    let outcome = outcome(form);
                    account.pay_invoice(id, outcome)?;
                    declined(outcome)?;
                }
                "void" => {
                    account.by_request();
                    account.void_invoice(id)?;
                }
                "send" => account.send_invoice(id)?,
                "mark_uncollectible" => {
                    account.by_request();
                    account.mark_uncollectible(id)?;
                }
                _ => return Err(unknown_path(action)),
            }
            (*id).to_owned()
        }
        ("POST", ["credit_notes"]) => account.credit(form.required("invoice")?, amount(form)?)?,
        ("POST", ["subscriptions"]) => {
            let price = form.required("items[0][price]")?;
            let quantity = form.integer("items[0][quantity]")?.unwrap_or(1);
            account.subscribe(
                form.required("customer")?,
                &NewSubscription {
                    items: vec![(price, quantity)],
                    trial_days: form.integer("trial_period_days")?,
                    coupon: form.get("discounts[0][coupon]").or(form.get("coupon")),
                    tax_bps: 0,
                    metadata: form.map("metadata"),
                },
            )?
        }
        ("DELETE", ["subscriptions", id]) => {
            account.cancel_now(id)?;
            (*id).to_owned()
        }
        _ => return Err(unknown_path(&path.join("/"))),
    };
    let object = account
        .find(&id)
        .ok_or_else(|| Refusal::missing("object", &id))?;
    let mut value = object.answer(shape);
    account.expand(&mut value, form, shape)?;
    Ok(value)
}

fn amount(form: &Form) -> Result<i64, Refusal> {
    form.required("amount")?;
    form.integer("amount")?
        .filter(|amount| amount.abs() <= AMOUNT_MAX)
        .ok_or_else(|| {
            Refusal::parameter(
                "amount",
                "amount_too_large",
                "Amount must be no more than 99,999,999.",
            )
        })
}

fn currency(form: &Form) -> Result<String, Refusal> {
    let text = form.required("currency")?.to_ascii_lowercase();
    if text.len() != 3 || !text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(Refusal::parameter(
            "currency",
            "parameter_invalid",
            format!("Invalid currency: {text}."),
        ));
    }
    Ok(text)
}

/// A payment method with `Declined` or `decline` in its name is declined, as Stripe's test ones.
fn outcome(form: &Form) -> Outcome {
    match form.get("payment_method") {
        Some(method) if method.to_ascii_lowercase().contains("decline") => Outcome::Fails,
        _ => Outcome::Succeeds,
    }
}

fn declined(outcome: Outcome) -> Result<(), Refusal> {
    if outcome == Outcome::Succeeds {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::PAYMENT_REQUIRED.as_u16(),
        code: "card_declined",
        message: "Your card has insufficient funds.".to_owned(),
        param: None,
    })
}

fn confirm(account: &mut Account, intent: &str, form: &Form) -> Result<(), Refusal> {
    let outcome = outcome(form);
    account.confirm_intent(intent, outcome)?;
    declined(outcome)
}

fn create_intent(account: &mut Account, form: &Form) -> Result<String, Refusal> {
    let amount = amount(form)?;
    if amount < 1 {
        return Err(Refusal::parameter(
            "amount",
            "parameter_invalid_integer",
            "This value must be greater than or equal to 1.",
        ));
    }
    let currency = currency(form)?;
    if let Some(customer) = form.get("customer") {
        account.customers.get(customer)?;
    }
    account.by_request();
    let intent = account.new_intent(NewIntent {
        customer: form.get("customer"),
        amount,
        currency: &currency,
        invoice: None,
        description: form.get("description"),
        metadata: form.map("metadata"),
    })?;
    if form.flag("confirm") {
        confirm(account, &intent, form)?;
    }
    Ok(intent)
}

fn create_invoice(account: &mut Account, shape: Shape, form: &Form) -> Result<String, Refusal> {
    let currency = form.get("currency").map(|_| currency(form)).transpose()?;
    let include_pending = match form.get("pending_invoice_items_behavior") {
        Some(behavior) => behavior == "include",
        // Leaving them out became the default with 2022-08-01.
        None => shape < Shape::V2022_11_15,
    };
    let days_until_due = match form.get("collection_method") {
        Some("send_invoice") => Some(form.integer("days_until_due")?.unwrap_or(30)),
        _ => None,
    };
    account.create_draft(
        form.required("customer")?,
        &NewInvoice {
            currency: currency.as_deref(),
            lines: Vec::new(),
            days_until_due,
            include_pending,
            metadata: form.map("metadata"),
        },
    )
}
