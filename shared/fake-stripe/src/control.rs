//! The routes under `/_fake`: what a test or a person does to the account and to its wire.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shape;
use super::account::{Account, NewCoupon, NewPrice, Refusal};
use super::billing::{Buyer, NewSubscription, Proration};
use super::delivery::Endpoint;
use super::objects::Metadata;
use super::payments::Outcome;
use super::server::{Fault, State};

/// Every operation of `POST /_fake/operations/<name>` and the members of its body; `?` marks those that may be left out,
/// with the default in brackets. `outcome` is `succeeds` (the default), `fails` or `fails_for_good`.
const OPERATIONS: [(&str, &str); 39] = [
    (
        "create_price",
        "unit_amount, currency? (usd), interval? (month), plan?",
    ),
    (
        "create_coupon",
        "percent_off_bps? or amount_off? with currency? (usd); duration? (forever), duration_in_months?",
    ),
    (
        "create_tax_rate",
        "bps, country? (GB), jurisdiction? (United Kingdom)",
    ),
    ("create_customer", "email?, name?, metadata?"),
    ("delete_customer", "customer"),
    (
        "checkout",
        "user_id, price, email?, name?, plan?, and as subscribe",
    ),
    (
        "subscribe",
        "customer, price, quantity? (1), trial_days?, coupon?, tax_bps? (0), metadata?",
    ),
    ("announce_trial_end", "subscription"),
    ("renew", "subscription, outcome?"),
    ("retry", "invoice, outcome?"),
    (
        "change",
        "subscription, price?, quantity?, proration? (invoice_now, next_invoice, none), outcome?",
    ),
    ("cancel_at_period_end", "subscription, cancel? (true)"),
    ("end_period", "subscription"),
    ("cancel_now", "subscription"),
    (
        "pause_collection",
        "subscription, behavior? (void, keep_as_draft, mark_uncollectible; none: resumed)",
    ),
    (
        "create_invoice",
        "customer, amount, currency? (usd), description?",
    ),
    ("send_invoice", "invoice"),
    ("pay_invoice", "invoice, outcome?"),
    ("pay_out_of_band", "invoice"),
    ("pay_part", "invoice, amount"),
    ("report_payment", "invoice, amount"),
    ("void_invoice", "invoice"),
    ("mark_uncollectible", "invoice"),
    ("credit", "invoice, amount"),
    ("pay_back_outside", "invoice, amount"),
    ("pay_once", "customer, amount, currency? (usd), outcome?"),
    ("debit", "customer, amount, currency? (usd)"),
    ("fail_debit", "payment_intent, fee? (0)"),
    ("confirm_intent", "payment_intent, outcome?"),
    ("cancel_intent", "payment_intent"),
    ("refund", "payment_intent, amount"),
    ("fail_refund", "refund"),
    ("dispute", "payment_intent"),
    ("dispute_at", "payment_intent, withdrawn"),
    ("move_dispute", "dispute, amount, fee? (0)"),
    ("submit_evidence", "dispute"),
    ("close_dispute", "dispute, won? (false)"),
    ("pay_out", "amount"),
    ("pay_out_balance", ""),
];

/// Answers `/_fake/<path>`; a changed account is delivered by the caller.
pub(super) fn answer(
    state: &mut State,
    method: &str,
    path: &[&str],
    body: &[u8],
) -> Result<Value, Refusal> {
    let arguments = Arguments::parse(body)?;
    match (method, path) {
        ("GET", ["state"]) => Ok(json!({
            "now": state.account.now().to_string(),
            "shape": state.shape.api_version(),
            "events": state.account.events_since(0).len(),
            "webhook": state.webhook.as_ref().map(|endpoint| &endpoint.url),
            "faults": state.faults,
        })),
        ("GET", ["deliveries"]) => Ok(json!({"data": state.deliveries})),
        ("POST", ["clock"]) => {
            if let Some(seconds) = arguments.integer("advance_seconds") {
                state.account.advance(seconds);
            } else {
                let now = arguments.text("now")?.parse::<Timestamp>();
                let now = now
                    .ok()
                    .ok_or_else(|| invalid("now", "an RFC 3339 instant"))?;
                state.account.set_now(now);
            }
            Ok(json!({"now": state.account.now().to_string()}))
        }
        ("POST", ["shape"]) => {
            state.shape = Shape::parse(arguments.text("shape")?)
                .ok_or_else(|| invalid("shape", "a version such as 2020-08-27, basil, endive"))?;
            Ok(json!({"shape": state.shape.api_version()}))
        }
        ("POST", ["webhook"]) => {
            state.webhook = Some(Endpoint {
                url: arguments.text("url")?.to_owned(),
                secret: arguments.text("secret")?.into(),
                is_thin: arguments.optional("payload") == Some("thin"),
            });
            Ok(json!({"url": arguments.text("url")?}))
        }
        ("DELETE", ["webhook"]) => {
            state.webhook = None;
            Ok(json!({}))
        }
        ("POST", ["faults"]) => {
            let fault: Fault = serde_json::from_value(arguments.0).map_err(|error| {
                Refusal::parameter("kind", "parameter_invalid", error.to_string())
            })?;
            state.faults.push(fault);
            Ok(json!({"faults": state.faults}))
        }
        ("DELETE", ["faults"]) => {
            state.faults.clear();
            Ok(json!({"faults": []}))
        }
        ("POST", ["deliver"]) => {
            // Again: Stripe's "resend", of one event or of all.
            let wanted = arguments.optional("event");
            let again: Vec<usize> = state
                .account
                .events_since(0)
                .iter()
                .enumerate()
                .filter(|(_, event)| wanted.is_none_or(|id| event.id == id))
                .map(|(place, _)| place)
                .collect();
            let count = again.len();
            state.resend.extend(again);
            Ok(json!({"events": count}))
        }
        ("GET", ["operations"]) => {
            let operations: Vec<Value> = OPERATIONS
                .iter()
                .map(|(name, arguments)| json!({"name": name, "arguments": arguments}))
                .collect();
            Ok(json!({"data": operations}))
        }
        ("POST", ["operations", name]) => operate(&mut state.account, name, &arguments),
        _ => Err(super::listing::unknown_path(&path.join("/"))),
    }
}

fn invalid(param: &str, what: &str) -> Refusal {
    Refusal::parameter(
        param,
        "parameter_invalid",
        format!("`{param}` must be {what}."),
    )
}

/// The JSON object a control request carries.
struct Arguments(Value);

impl Arguments {
    fn parse(body: &[u8]) -> Result<Arguments, Refusal> {
        if body.is_empty() {
            return Ok(Arguments(json!({})));
        }
        serde_json::from_slice(body)
            .map(Arguments)
            .map_err(|error| {
                Refusal::parameter(
                    "body",
                    "parameter_invalid",
                    format!("Invalid JSON: {error}"),
                )
            })
    }

    fn optional(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.optional(name).ok_or_else(|| invalid(name, "a text"))
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.0[name].as_i64()
    }

    fn required_integer(&self, name: &str) -> Result<i64, Refusal> {
        self.integer(name)
            .ok_or_else(|| invalid(name, "an integer"))
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.0[name].as_bool().unwrap_or(default)
    }

    fn metadata(&self) -> Metadata {
        self.0["metadata"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    fn outcome(&self) -> Result<Outcome, Refusal> {
        match self.optional("outcome") {
            None | Some("succeeds") => Ok(Outcome::Succeeds),
            Some("fails") => Ok(Outcome::Fails),
            Some("fails_for_good") => Ok(Outcome::FailsForGood),
            Some(_) => Err(invalid("outcome", "succeeds, fails or fails_for_good")),
        }
    }

    fn subscription(&self) -> Result<NewSubscription<'_>, Refusal> {
        Ok(NewSubscription {
            items: vec![(self.text("price")?, self.integer("quantity").unwrap_or(1))],
            trial_days: self.integer("trial_days"),
            coupon: self.optional("coupon"),
            tax_bps: self.integer("tax_bps").unwrap_or(0),
            metadata: self.metadata(),
        })
    }
}

/// Runs one operation by its name; answers the ids it made.
fn operate(account: &mut Account, name: &str, arguments: &Arguments) -> Result<Value, Refusal> {
    let made = match name {
        "create_price" => json!({"price": account.create_price(&NewPrice {
            interval: Some(arguments.optional("interval").unwrap_or("month")),
            ..NewPrice::monthly(
                arguments.optional("currency").unwrap_or("usd"),
                arguments.required_integer("unit_amount")?,
                arguments.optional("plan").unwrap_or_default(),
            )
        })}),
        "create_coupon" => json!({"coupon": account.create_coupon(&NewCoupon {
            percent_off_bps: arguments.integer("percent_off_bps"),
            amount_off: arguments
                .integer("amount_off")
                .map(|amount| (amount, arguments.optional("currency").unwrap_or("usd"))),
            duration: arguments.optional("duration").unwrap_or("forever"),
            duration_in_months: arguments.integer("duration_in_months"),
            prices: &[],
        })}),
        "create_tax_rate" => json!({"tax_rate": account.create_tax_rate(
            arguments.required_integer("bps")?,
            arguments.optional("country").unwrap_or("GB"),
            arguments.optional("jurisdiction").unwrap_or("United Kingdom"),
        )}),
        "create_customer" => json!({"customer": account.create_customer(
            arguments.optional("email"),
            arguments.optional("name"),
            arguments.metadata(),
        )}),
        "delete_customer" => {
            account.delete_customer(arguments.text("customer")?)?;
            json!({})
        }
        "checkout" => {
            let user_id = i32::try_from(arguments.required_integer("user_id")?)
                .ok()
                .ok_or_else(|| invalid("user_id", "a 32-bit integer"))?;
            let (customer, subscription) = account.checkout(
                Buyer {
                    user_id,
                    email: arguments.optional("email").unwrap_or("buyer@example.com"),
                    name: arguments.optional("name").unwrap_or("Sample Buyer"),
                    plan: arguments.optional("plan").unwrap_or_default(),
                },
                &arguments.subscription()?,
            )?;
            json!({"customer": customer, "subscription": subscription})
        }
        "subscribe" => json!({"subscription": account.subscribe(
            arguments.text("customer")?,
            &arguments.subscription()?,
        )?}),
        "announce_trial_end" => {
            account.announce_trial_end(arguments.text("subscription")?)?;
            json!({})
        }
        "renew" => json!({"invoice": account.renew(
            arguments.text("subscription")?,
            arguments.outcome()?,
        )?}),
        "retry" => {
            account.retry(arguments.text("invoice")?, arguments.outcome()?)?;
            json!({})
        }
        "change" => {
            let proration = match arguments.optional("proration") {
                None | Some("invoice_now") => Proration::InvoiceNow(arguments.outcome()?),
                Some("next_invoice") => Proration::NextInvoice,
                Some("none") => Proration::None,
                Some(_) => return Err(invalid("proration", "invoice_now, next_invoice or none")),
            };
            account.change(
                arguments.text("subscription")?,
                arguments.optional("price"),
                arguments.integer("quantity"),
                proration,
            )?;
            json!({})
        }
        "cancel_at_period_end" => {
            let cancel = arguments.flag("cancel", true);
            account.cancel_at_period_end(arguments.text("subscription")?, cancel)?;
            json!({})
        }
        "end_period" => {
            account.end_period(arguments.text("subscription")?)?;
            json!({})
        }
        "cancel_now" => {
            account.cancel_now(arguments.text("subscription")?)?;
            json!({})
        }
        "pause_collection" => {
            let behavior = arguments.optional("behavior");
            account.pause_collection(arguments.text("subscription")?, behavior)?;
            json!({})
        }
        "create_invoice" => json!({"invoice": account.create_invoice(
            arguments.text("customer")?,
            arguments.optional("currency").unwrap_or("usd"),
            &[(
                arguments.optional("description").unwrap_or("Service"),
                arguments.required_integer("amount")?,
            )],
        )?}),
        "send_invoice" => {
            account.send_invoice(arguments.text("invoice")?)?;
            json!({})
        }
        "pay_invoice" => {
            account.pay_invoice(arguments.text("invoice")?, arguments.outcome()?)?;
            json!({})
        }
        "pay_out_of_band" => {
            account.pay_out_of_band(arguments.text("invoice")?)?;
            json!({})
        }
        "pay_part" => json!({"payment_intent": account.pay_part(
            arguments.text("invoice")?,
            arguments.required_integer("amount")?,
        )?}),
        "report_payment" => json!({"payment_record": account.report_payment(
            arguments.text("invoice")?,
            arguments.required_integer("amount")?,
        )?}),
        "void_invoice" => {
            account.by_request();
            account.void_invoice(arguments.text("invoice")?)?;
            json!({})
        }
        "mark_uncollectible" => {
            account.by_request();
            account.mark_uncollectible(arguments.text("invoice")?)?;
            json!({})
        }
        "credit" => json!({"credit_note": account.credit(
            arguments.text("invoice")?,
            arguments.required_integer("amount")?,
        )?}),
        "pay_back_outside" => json!({"credit_note": account.pay_back_outside(
            arguments.text("invoice")?,
            arguments.required_integer("amount")?,
        )?}),
        "pay_once" => json!({"payment_intent": account.pay_once(
            arguments.text("customer")?,
            arguments.required_integer("amount")?,
            arguments.optional("currency").unwrap_or("usd"),
            arguments.outcome()?,
        )?}),
        "debit" => json!({"payment_intent": account.debit(
            arguments.text("customer")?,
            arguments.required_integer("amount")?,
            arguments.optional("currency").unwrap_or("usd"),
        )?}),
        "fail_debit" => {
            let fee = arguments.integer("fee").unwrap_or(0);
            account.fail_debit(arguments.text("payment_intent")?, fee)?;
            json!({})
        }
        "confirm_intent" => {
            account.confirm_intent(arguments.text("payment_intent")?, arguments.outcome()?)?;
            json!({})
        }
        "cancel_intent" => {
            account.cancel_intent(arguments.text("payment_intent")?)?;
            json!({})
        }
        "refund" => json!({"refund": account.refund(
            arguments.text("payment_intent")?,
            arguments.required_integer("amount")?,
        )?}),
        "fail_refund" => {
            account.fail_refund(arguments.text("refund")?)?;
            json!({})
        }
        "dispute" => json!({"dispute": account.dispute(arguments.text("payment_intent")?)?}),
        "dispute_at" => json!({"dispute": account.dispute_at(
            arguments.text("payment_intent")?,
            arguments.required_integer("withdrawn")?,
        )?}),
        "move_dispute" => {
            let fee = arguments.integer("fee").unwrap_or(0);
            let amount = arguments.required_integer("amount")?;
            account.move_dispute(arguments.text("dispute")?, amount, fee)?;
            json!({})
        }
        "submit_evidence" => {
            account.submit_evidence(arguments.text("dispute")?)?;
            json!({})
        }
        "close_dispute" => {
            account.close_dispute(arguments.text("dispute")?, arguments.flag("won", false))?;
            json!({})
        }
        "pay_out" => json!({"payout": account.pay_out(arguments.required_integer("amount")?)?}),
        "pay_out_balance" => json!({"payout": account.pay_out_balance()?}),
        _ => return Err(super::listing::unknown_path(name)),
    };
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_listed_and_there() {
        let source = include_str!("control.rs");
        let (_, operate) = source.split_once("fn operate(").expect("the operations");
        let there = operate
            .lines()
            .filter(|line| line.starts_with("        \""))
            .filter_map(|line| line.split('"').nth(1));
        let listed: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(there.collect::<Vec<_>>(), listed);

        let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/local.md"));
        for (name, arguments) in OPERATIONS {
            let row = format!("| `{name}` | {arguments} |");
            let row = row.replace("|  |", "| |");
            assert!(document.contains(&row), "docs/local.md lacks: {row}");
        }
    }
}
