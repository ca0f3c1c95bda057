//! What is asked of Stripe to answer a look-up, and how a whole object is put together.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stripe::client::{Client, Error};

/// Most pages of one object's own list: 10,000 lines of an invoice.
const PAGES_OF_ONE_OBJECT: u32 = 100;

/// What to expand of a subscription, the newest shape first: a discount has carried its coupon,
/// and then named it under `source`. Stripe refuses an expansion its version does not have.
const SUBSCRIPTION: [&[&str]; 3] = [
    &[
        "discounts.source.coupon",
        "items.data.discounts.source.coupon",
    ],
    &["discounts", "items.data.discounts"],
    &[],
];
/// The payments of an invoice are shown from basil on; before, it names its payment itself.
const INVOICE: [&[&str]; 2] = [&["payments"], &[]];
const RECORD: &str = "data.payment.payment_record";
const CHARGE: [&[&str]; 1] = [&["balance_transaction", "refunds"]];
const PRICE: [&[&str]; 1] = [&["tiers"]];
/// What a price costs in its other currencies, and the tiers that a price without any may have.
const CURRENCIES: [&[&str]; 2] = [&["tiers", "currency_options"], &["tiers"]];
/// What a coupon is for, and what it takes off in other currencies.
const COUPON: [&[&str]; 2] = [&["applies_to", "currency_options"], &["applies_to"]];
/// A dispute's money may be in another currency than its payment: what the charge settled at says how to convert it.
const DISPUTE: [&[&str]; 2] = [&["charge.balance_transaction"], &[]];
/// The coupon of its discount has been inside, and then under `source`.
const CUSTOMER: [&[&str]; 2] = [&["discount.source.coupon"], &[]];
const NOTHING: [&[&str]; 1] = [&[]];

/// The objects that answer a look-up of this kind. `None` for a kind nobody asks for.
///
/// # Errors
/// As the client's.
pub(crate) async fn answer(
    stripe: &Client,
    kind: &str,
    id: &str,
    now: Timestamp,
) -> Result<Option<Vec<Value>>, Error> {
    let retrieved = |path, expansions| retrieve(stripe, path, id, expansions, now);
    let object = match kind {
        "balance_transaction" => retrieved("balance_transactions", &NOTHING[..]).await?,
        "price" => retrieved("prices", &PRICE).await?,
        "price_currency_options" => retrieved("prices", &CURRENCIES).await?,
        "customer" => retrieved("customers", &CUSTOMER).await?,
        "coupon" => terms(retrieved("coupons", &COUPON).await?),
        "payment_intent" => retrieved("payment_intents", &NOTHING).await?,
        "charge" => retrieved("charges", &CHARGE).await?,
        "refund" => retrieved("refunds", &NOTHING).await?,
        "credit_note" => retrieved("credit_notes", &NOTHING).await?,
        "charge_refunds" => {
            let of_charge = Map::from_iter([("charge".to_owned(), json!(id))]);
            return all(stripe, &["refunds"], of_charge, now).await.map(Some);
        }
        "dispute" => retrieved("disputes", &DISPUTE).await?,
        "tax_rate" => retrieved("tax_rates", &NOTHING).await?,
        "payout_transactions" => {
            let payout = retrieved("payouts", &NOTHING).await?;
            return with_its_transactions(stripe, payout, now).await.map(Some);
        }
        "invoice" | "invoice_lines" | "invoice_payments" => {
            let mut invoice = retrieved("invoices", &INVOICE).await?;
            complete_invoice(stripe, &mut invoice, now).await?;
            invoice
        }
        "subscription" | "subscription_items" | "subscription_discounts" => {
            let mut subscription = retrieved("subscriptions", &SUBSCRIPTION).await?;
            complete_items(stripe, &mut subscription, now).await?;
            return with_its_terms(stripe, subscription, now).await.map(Some);
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![object]))
}

/// One object with the first of these expansions that Stripe's version has.
async fn retrieve(
    stripe: &Client,
    path: &str,
    id: &str,
    expansions: &[&[&str]],
    now: Timestamp,
) -> Result<Value, Error> {
    let mut refused = None;
    for expand in expansions {
        match stripe.retrieve(&[path, id], expand, now).await {
            Err(error) if is_unknown_expansion(&error) => refused = Some(error),
            answer => return answer,
        }
    }
    Err(refused.unwrap_or(Error::Unreadable("nothing was asked")))
}

/// Whether Stripe refused what was to be expanded, and nothing else.
pub(crate) fn is_unknown_expansion(error: &Error) -> bool {
    matches!(error, Error::Invalid { param: Some(param), .. } if param.starts_with("expand"))
}

/// Adds the lines beyond the tenth, the payments beyond the first page, and its payment records.
pub(crate) async fn complete_invoice(
    stripe: &Client,
    invoice: &mut Value,
    now: Timestamp,
) -> Result<(), Error> {
    let Some(id) = invoice["id"].as_str().map(str::to_owned) else {
        return Err(Error::Unreadable("an invoice has no id"));
    };
    if invoice["lines"]["has_more"] == true {
        let lines = all(stripe, &["invoices", &id, "lines"], Map::new(), now).await?;
        invoice["lines"]["data"] = lines.into();
        invoice["lines"]["has_more"] = false.into();
    }
    // Only the record itself says who reported it.
    let has_record = elements(&invoice["payments"]["data"])
        .any(|payment| payment["payment"]["payment_record"].is_string());
    if has_record || invoice["payments"]["has_more"] == true {
        let mut of_it = Map::from_iter([("invoice".to_owned(), json!(id))]);
        if has_record {
            of_it.insert("expand".to_owned(), json!([RECORD]));
        }
        let payments = all(stripe, &["invoice_payments"], of_it, now).await?;
        invoice["payments"]["data"] = payments.into();
        invoice["payments"]["has_more"] = false.into();
    }
    Ok(())
}

/// Replaces the items by all of them when the subscription shows only the first ones, or none.
async fn complete_items(
    stripe: &Client,
    subscription: &mut Value,
    now: Timestamp,
) -> Result<(), Error> {
    let is_empty = elements(&subscription["items"]["data"]).next().is_none();
    if is_empty || subscription["items"]["has_more"] == true {
        let of_it = Map::from_iter([("subscription".to_owned(), subscription["id"].clone())]);
        let items = all(stripe, &["subscription_items"], of_it, now).await?;
        subscription["items"]["data"] = items.into();
        subscription["items"]["has_more"] = false.into();
    }
    Ok(())
}

/// A list that is read whole or not at all.
async fn all(
    stripe: &Client,
    path: &[&str],
    params: Map<String, Value>,
    now: Timestamp,
) -> Result<Vec<Value>, Error> {
    let mut pages = stripe.pages(path, params, PAGES_OF_ONE_OBJECT, now);
    let mut objects = Vec::new();
    while let Some(page) = pages.next_page().await? {
        objects.extend(page);
    }
    Ok(objects)
}

/// All transactions of a payout, each naming it, and then the payout with nothing left to list. Stripe is asked for the
/// payout first: when it has made that up by then, the list is whole.
async fn with_its_transactions(
    stripe: &Client,
    mut payout: Value,
    now: Timestamp,
) -> Result<Vec<Value>, Error> {
    let Some(id) = payout["id"].as_str().map(str::to_owned) else {
        return Err(Error::Unreadable("a payout has no id"));
    };
    let of_payout = Map::from_iter([("payout".to_owned(), json!(id))]);
    let mut objects = all(stripe, &["balance_transactions"], of_payout, now).await?;
    for transaction in &mut objects {
        transaction["payout"] = json!(id);
    }
    payout["balance_transactions"] = json!({"object": "list", "data": [], "has_more": false});
    objects.push(payout);
    Ok(objects)
}

/// A subscription, the coupons its discounts name without carrying them, and the tiers of its
/// prices. A coupon that has been deleted cannot be had: the subscription stays provisional.
async fn with_its_terms(
    stripe: &Client,
    subscription: Value,
    now: Timestamp,
) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    let items: Vec<&Value> = elements(&subscription["items"]["data"]).collect();
    let discounts = items
        .iter()
        .flat_map(|item| elements(&item["discounts"]))
        .chain(elements(&subscription["discounts"]));
    for discount in discounts {
        let Some(coupon) = discount["source"]["coupon"].as_str() else {
            continue;
        };
        match retrieve(stripe, "coupons", coupon, &COUPON, now).await {
            Ok(coupon) => objects.push(terms(coupon)),
            Err(Error::NotFound { .. }) => {
                tracing::warn!(coupon, "a coupon that a subscription names is gone");
            }
            Err(error) => return Err(error),
        }
    }
    for item in items {
        if item["price"]["billing_scheme"] == "tiered"
            && let Some(price) = item["price"]["id"].as_str()
        {
            objects.push(retrieve(stripe, "prices", price, &PRICE, now).await?);
        }
    }
    objects.push(subscription);
    Ok(objects)
}

/// A coupon that was asked for its terms: a member that is left out is none.
pub(crate) fn terms(mut coupon: Value) -> Value {
    if let Some(coupon) = coupon.as_object_mut() {
        for member in ["applies_to", "currency_options"] {
            coupon.entry(member).or_insert(Value::Null);
        }
    }
    coupon
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
