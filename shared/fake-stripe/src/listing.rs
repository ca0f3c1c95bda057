//! Reading the account as Stripe's API does: lists with cursors and filters, and `expand[]`.

use serde_json::{Value, json};

use super::Shape;
use super::account::{Account, Refusal, Shelf};
use super::form::Form;
use super::objects::{Object, PaymentOfInvoice, Stored};
use super::render::{list, render_line, render_refunds, render_subscription_item, render_tiers};

/// A row of a list before it is rendered: only those of the page are.
struct Row<'a> {
    id: &'a str,
    created: i64,
    render: Box<dyn Fn(Shape) -> Value + 'a>,
}

/// The newest a customer's list of events goes back.
const EVENT_SECONDS: i64 = 30 * 86_400;

/// Parameters every list takes.
const PAGING: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "created",
    "expand",
];

/// The filters of a list, by its name in the path; none when there is no such list.
fn filters(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "charges" => &["customer", "payment_intent"],
        "refunds" | "disputes" => &["charge", "payment_intent"],
        "invoices" => &["customer", "status", "subscription", "collection_method"],
        "subscriptions" => &["customer", "price", "status"],
        "customers" => &["email"],
        "balance_transactions" => &["type", "source", "currency", "payout"],
        "payouts" => &["status"],
        "tax_rates" => &["active", "inclusive"],
        "events" => &["type", "types", "delivery_success"],
        "prices" => &["product", "currency", "active", "type"],
        "products" | "coupons" => &["active"],
        "payment_intents" => &["customer"],
        "invoice_payments" => &["invoice", "payment", "status"],
        "credit_notes" => &["invoice", "customer"],
        "invoiceitems" => &["customer", "invoice"],
        "checkout/sessions" => &["customer", "payment_intent", "subscription", "status"],
        _ => return None,
    })
}

/// One page of a list, and whether there is more in the direction it was read.
struct Page<'a> {
    rows: Vec<Row<'a>>,
    has_more: bool,
}

/// Cuts a page out of `rows` (newest first) as `limit`, `starting_after`, `ending_before` say.
fn page<'a>(mut rows: Vec<Row<'a>>, form: &Form) -> Result<Page<'a>, Refusal> {
    let limit = form.integer("limit")?.unwrap_or(10);
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=100).contains(limit))
        .ok_or_else(|| {
            Refusal::parameter(
                "limit",
                "parameter_invalid_integer",
                "This value must be between 1 and 100.",
            )
        })?;
    let place = |name: &str, id: &str, rows: &[Row<'_>]| {
        rows.iter().position(|row| row.id == id).ok_or_else(|| {
            Refusal::parameter(name, "resource_missing", format!("No such object: '{id}'"))
        })
    };
    match (form.get("starting_after"), form.get("ending_before")) {
        (Some(_), Some(_)) => Err(Refusal::parameter(
            "ending_before",
            "parameter_invalid_empty",
            "You may only specify one of these parameters: starting_after, ending_before.",
        )),
        (_, Some(cursor)) => {
            // The page just before the cursor, still newest first.
            rows.truncate(place("ending_before", cursor, &rows)?);
            let from = rows.len().saturating_sub(limit);
            Ok(Page {
                has_more: from > 0,
                rows: rows.split_off(from),
            })
        }
        (after, None) => {
            if let Some(cursor) = after {
                rows.drain(..=place("starting_after", cursor, &rows)?);
            }
            let has_more = rows.len() > limit;
            rows.truncate(limit);
            Ok(Page { rows, has_more })
        }
    }
}

/// How an instant has to stand to a bound.
type Holds = fn(&i64, &i64) -> bool;

/// What `created`, `created[gte]` and its kin say.
struct Times(Vec<(Holds, i64)>);

impl Times {
    fn read(form: &Form) -> Result<Times, Refusal> {
        let bounds: [(&str, Holds); 5] = [
            ("created", i64::eq),
            ("created[gte]", i64::ge),
            ("created[gt]", i64::gt),
            ("created[lte]", i64::le),
            ("created[lt]", i64::lt),
        ];
        let mut times = Vec::new();
        for (name, holds) in bounds {
            if let Some(bound) = form.integer(name)? {
                times.push((holds, bound));
            }
        }
        Ok(Times(times))
    }

    fn pass(&self, created: i64) -> bool {
        self.0.iter().all(|(holds, bound)| holds(&created, bound))
    }
}

fn objects<'a, T: Stored + 'a>(rows: impl Iterator<Item = &'a T>) -> Vec<Row<'a>> {
    rows.map(|row| Row {
        id: row.id(),
        created: row.created(),
        render: Box::new(move |shape| row.clone().into_object().render(shape)),
    })
    .collect()
}

fn on_shelf<T: Stored>(shelf: &Shelf<T>, id: &str) -> Option<Object> {
    shelf.get(id).ok().cloned().map(T::into_object)
}

impl Account {
    /// Answers `GET /v1/<kind>`: a page of a list.
    pub(super) fn list(&self, kind: &str, form: &Form, shape: Shape) -> Result<Value, Refusal> {
        let Some(known) = filters(kind) else {
            return Err(unknown_path(kind));
        };
        for name in form.names() {
            if !known.contains(&name) && !PAGING.contains(&name) {
                return Err(Refusal::parameter(
                    name,
                    "parameter_unknown",
                    format!("Received unknown parameter: {name}"),
                ));
            }
        }
        // A bound that is no number is refused even when there is nothing to compare it with.
        let times = Times::read(form)?;
        let mut rows = self.rows(kind, form, shape);
        rows.retain(|row| times.pass(row.created));
        // Newest first; what was made in one second, in the reverse of the order it was made.
        rows.reverse();
        rows.sort_by_key(|row| std::cmp::Reverse(row.created));
        let page = page(rows, form)?;
        let data: Vec<Value> = page.rows.iter().map(|row| (row.render)(shape)).collect();
        let mut answer = json!({
            "object": "list", "data": data, "has_more": page.has_more, "url": format!("/v1/{kind}"),
        });
        self.expand(&mut answer, form, shape)?;
        Ok(answer)
    }

    /// Answers `GET /v1/<kind>/<id>`: one object.
    pub(super) fn retrieve(
        &self,
        kind: &str,
        id: &str,
        form: &Form,
        shape: Shape,
    ) -> Result<Value, Refusal> {
        let singular = kind.strip_suffix('s').unwrap_or(kind);
        if filters(kind).is_none() {
            return Err(unknown_path(kind));
        }
        let mut value = if kind == "events" {
            self.events
                .iter()
                .find(|event| event.id == id)
                .and_then(|event| event.render(shape))
                .ok_or_else(|| Refusal::missing("event", id))?
        } else {
            let object = self
                .find(id)
                .filter(|object| list_of(object) == kind)
                .ok_or_else(|| Refusal::missing(singular, id))?;
            object.answer(shape)
        };
        self.expand(&mut value, form, shape)?;
        Ok(value)
    }

    /// The object with this id as Stripe answers for it, with what these paths expand.
    ///
    /// # Errors
    /// When there is no such object, or it has no such path.
    pub fn show(&self, id: &str, expand: &[&str], shape: Shape) -> Result<Value, Refusal> {
        let object = self
            .find(id)
            .ok_or_else(|| Refusal::missing("object", id))?;
        let mut value = object.answer(shape);
        for path in expand {
            let segments: Vec<&str> = path.split('.').collect();
            self.expand_path(&mut value, &segments, path, shape)?;
        }
        Ok(value)
    }

    /// `GET /v1/invoices/<id>/lines`: all of them, page by page.
    pub(super) fn invoice_lines(
        &self,
        invoice: &str,
        form: &Form,
        shape: Shape,
    ) -> Result<Value, Refusal> {
        let invoice = self.invoices.get(invoice)?;
        let rows = invoice
            .lines
            .iter()
            .map(|line| Row {
                id: &line.id,
                created: invoice.created,
                render: Box::new(move |shape| render_line(invoice, line, shape)),
            })
            .collect();
        let page = page(rows, form)?;
        let data: Vec<Value> = page.rows.iter().map(|row| (row.render)(shape)).collect();
        Ok(json!({
            "object": "list", "data": data, "has_more": page.has_more,
            "url": format!("/v1/invoices/{}/lines", invoice.id),
        }))
    }

    /// `GET /v1/subscription_items?subscription=<id>`: all of them, page by page.
    pub(super) fn subscription_items(&self, form: &Form, shape: Shape) -> Result<Value, Refusal> {
        let subscription = self.subscriptions.get(form.required("subscription")?)?;
        let rows = subscription.items.iter().map(|item| Row {
            id: &item.id,
            created: item.created,
            render: Box::new(|shape| render_subscription_item(subscription, item, shape)),
        });
        let page = page(rows.collect(), form)?;
        let data: Vec<Value> = page.rows.iter().map(|row| (row.render)(shape)).collect();
        Ok(json!({
            "object": "list", "data": data, "has_more": page.has_more,
            "url": "/v1/subscription_items",
        }))
    }

    /// The object with this id, whatever it is.
    pub(super) fn find(&self, id: &str) -> Option<Object> {
        let (stem, _) = id.split_once('_')?;
        match stem {
            "prod" => on_shelf(&self.products, id),
            "price" => on_shelf(&self.prices, id),
            "coupon" => on_shelf(&self.coupons, id),
            "di" => self.discounts.get(id).ok().cloned().map(Object::Discount),
            "cus" => on_shelf(&self.customers, id),
            "sub" => on_shelf(&self.subscriptions, id),
            "in" => on_shelf(&self.invoices, id),
            "ii" => on_shelf(&self.invoice_items, id),
            "inpay" => on_shelf(&self.invoice_payments, id),
            "pr" => on_shelf(&self.payment_records, id),
            "pi" => self.intent_snapshot(id).ok(),
            "ch" | "py" => on_shelf(&self.charges, id),
            "re" => on_shelf(&self.refunds, id),
            "dp" => on_shelf(&self.disputes, id),
            "txn" => on_shelf(&self.balance_transactions, id),
            "po" => on_shelf(&self.payouts, id),
            "txr" => on_shelf(&self.tax_rates, id),
            "cn" => on_shelf(&self.credit_notes, id),
            "cs" => on_shelf(&self.sessions, id),
            _ => None,
        }
    }

    /// The rows of a list that pass its filters, oldest first.
    fn rows<'a>(&'a self, kind: &str, form: &Form, shape: Shape) -> Vec<Row<'a>> {
        let is = |name: &str, value: Option<&str>| {
            form.get(name).is_none_or(|wanted| value == Some(wanted))
        };
        match kind {
            "charges" => objects(self.charges.iter().filter(|one| {
                is("customer", one.customer.as_deref())
                    && is("payment_intent", Some(&one.payment_intent))
            })),
            "refunds" => objects(self.refunds.iter().filter(|one| {
                is("charge", Some(&one.charge)) && is("payment_intent", Some(&one.payment_intent))
            })),
            "disputes" => objects(self.disputes.iter().filter(|one| {
                is("charge", Some(&one.charge)) && is("payment_intent", Some(&one.payment_intent))
            })),
            "invoices" => objects(self.invoices.iter().filter(|one| {
                is("customer", Some(&one.customer))
                    && is("status", Some(one.status))
                    && is("subscription", one.subscription.as_deref())
                    && is("collection_method", Some(one.collection_method))
            })),
            "subscriptions" => objects(self.subscriptions.iter().filter(|one| {
                let status = match form.get("status") {
                    // Without a status, ended ones are left out.
                    None => one.ended_at.is_none(),
                    Some("all") => true,
                    Some("ended") => one.ended_at.is_some(),
                    Some(wanted) => one.status == wanted,
                };
                let price = form
                    .get("price")
                    .is_none_or(|id| one.items.iter().any(|item| item.price.id == id));
                status && price && is("customer", Some(&one.customer))
            })),
            "customers" => objects(
                self.customers
                    .iter()
                    .filter(|one| !one.deleted && is("email", one.email.as_deref())),
            ),
            "balance_transactions" => objects(self.balance_transactions.iter().filter(|one| {
                is("type", Some(one.kind))
                    && is("source", Some(&one.source))
                    && is("currency", Some(&one.currency))
                    && is("payout", one.payout.as_deref())
            })),
            "payouts" => objects(
                self.payouts
                    .iter()
                    .filter(|one| is("status", Some(one.status))),
            ),
            "tax_rates" => objects(self.tax_rates.iter().filter(|one| {
                is("active", Some("true"))
                    && is(
                        "inclusive",
                        Some(if one.inclusive { "true" } else { "false" }),
                    )
            })),
            "events" => self.event_rows(form, shape),
            "prices" => objects(self.prices.iter().filter(|one| {
                let kind = if one.interval.is_some() {
                    "recurring"
                } else {
                    "one_time"
                };
                is("product", Some(&one.product))
                    && is("currency", Some(&one.currency))
                    && is("active", Some(if one.active { "true" } else { "false" }))
                    && is("type", Some(kind))
            })),
            "products" => objects(self.products.iter()),
            "coupons" => objects(self.coupons.iter()),
            // With its charges, which are on other shelves.
            "payment_intents" => self
                .intents
                .iter()
                .filter(|one| is("customer", one.customer.as_deref()))
                .map(|one| Row {
                    id: &one.id,
                    created: one.created,
                    render: Box::new(|shape| {
                        let snapshot = self.intent_snapshot(&one.id);
                        snapshot
                            .expect("its charges are on the shelf")
                            .render(shape)
                    }),
                })
                .collect(),
            "invoice_payments" => objects(self.invoice_payments.iter().filter(|one| {
                is("invoice", Some(&one.invoice))
                    && is("payment[payment_intent]", one.payment.intent())
                    && is(
                        "payment[type]",
                        Some(match one.payment {
                            PaymentOfInvoice::Intent(_) => "payment_intent",
                            PaymentOfInvoice::Record(_) => "payment_record",
                        }),
                    )
                    && is("status", Some(one.status))
            })),
            "credit_notes" => objects(self.credit_notes.iter().filter(|one| {
                is("invoice", Some(&one.invoice)) && is("customer", Some(&one.customer))
            })),
            "checkout/sessions" => objects(self.sessions.iter().filter(|one| {
                is("customer", Some(&one.customer))
                        && is("payment_intent", one.payment_intent.as_deref())
                        && is("subscription", one.subscription.as_deref())
                        // A session is there once it is complete.
                        && is("status", Some("complete"))
            })),
            "invoiceitems" => objects(self.invoice_items.iter().filter(|one| {
                is("invoice", one.invoice.as_deref()) && is("customer", Some(&one.customer))
            })),
            _ => Vec::new(),
        }
    }

    fn event_rows<'a>(&'a self, form: &Form, shape: Shape) -> Vec<Row<'a>> {
        let types = form.list("types");
        // Before rendering, which is what costs; a bound that is no number has been refused by now.
        let times = Times::read(form).unwrap_or(Times(Vec::new()));
        self.events
            .iter()
            .filter(|event| event.created >= self.now - EVENT_SECONDS && times.pass(event.created))
            .filter(|event| types.is_empty() || types.contains(&event.kind))
            .filter(|event| match form.get("delivery_success") {
                None => true,
                Some(wanted) => (wanted == "true") != self.undelivered.contains(&event.id),
            })
            .filter(|event| match form.get("type") {
                None => true,
                // `invoice.*` means all of an invoice's.
                Some(wanted) => match wanted.strip_suffix('*') {
                    Some(start) => event.kind.starts_with(start),
                    None => event.kind == wanted,
                },
            })
            // A version that has no such event does not list it.
            .filter(|event| event.is_told(shape))
            .map(|event| Row {
                id: &event.id,
                created: event.created,
                render: Box::new(|shape| event.render(shape).unwrap_or_default()),
            })
            .collect()
    }

    /// Replaces the ids that `expand[]` names by their objects.
    pub(super) fn expand(
        &self,
        value: &mut Value,
        form: &Form,
        shape: Shape,
    ) -> Result<(), Refusal> {
        for path in form.list("expand") {
            let segments: Vec<&str> = path.split('.').collect();
            self.expand_path(value, &segments, path, shape)?;
        }
        Ok(())
    }

    fn expand_path(
        &self,
        value: &mut Value,
        segments: &[&str],
        path: &str,
        shape: Shape,
    ) -> Result<(), Refusal> {
        let Some((segment, rest)) = segments.split_first() else {
            return Ok(());
        };
        if let Value::Array(values) = value {
            for value in values {
                self.expand_path(value, segments, path, shape)?;
            }
            return Ok(());
        }
        if value.get(segment).is_none()
            && let Some(included) = self.included(value, segment, shape)
        {
            value[*segment] = included;
        }
        // What pays an invoice is one of several kinds.
        if path.contains("payment.payment_") && value.get(segment).is_none() {
            return Ok(());
        }
        let Some(field) = value.get_mut(segment) else {
            return Err(Refusal::parameter(
                "expand",
                "parameter_invalid",
                format!("This property cannot be expanded ({path})."),
            ));
        };
        match field {
            Value::String(id) => {
                if let Some(object) = self.find(id) {
                    *field = object.render(shape);
                }
            }
            Value::Array(values) => {
                for value in values {
                    if let Some(object) = value.as_str().and_then(|id| self.find(id)) {
                        *value = object.render(shape);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
        }
        if field.is_null() {
            return Ok(());
        }
        self.expand_path(field, rest, path, shape)
    }

    /// A field that is shown only when asked for.
    fn included(&self, parent: &Value, field: &str, shape: Shape) -> Option<Value> {
        let id = parent["id"].as_str()?;
        match (parent["object"].as_str()?, field) {
            // Null where there are none.
            ("price", "tiers") => Some(render_tiers(self.prices.get(id).ok()?).unwrap_or_default()),
            // Left out where it is for all products, as in Stripe's answers.
            ("coupon", "applies_to") => {
                let products = &self.coupons.get(id).ok()?.products;
                Some(if products.is_empty() {
                    Value::Null
                } else {
                    json!({"products": products})
                })
            }
            ("coupon", "currency_options") => Some(json!({})),
            ("charge", "refunds") => Some(render_refunds(self.charges.get(id).ok()?, shape)),
            ("invoice", "amount_paid_off_stripe") if shape >= Shape::Endive => {
                let invoice = self.invoices.get(id).ok()?;
                Some(invoice.outside.into())
            }
            ("invoice", "payments") if shape >= Shape::Basil => {
                let payments = self
                    .invoice_payments
                    .iter()
                    .filter(|one| one.invoice == id)
                    .map(|one| Object::InvoicePayment(one.clone()).render(shape))
                    .collect();
                Some(list(format!("/v1/invoices/{id}/payments"), payments))
            }
            ("customer", "subscriptions") => {
                let subscriptions = self
                    .subscriptions
                    .iter()
                    .filter(|one| one.customer == id && one.ended_at.is_none())
                    .map(|one| Object::Subscription(one.clone()).render(shape))
                    .collect();
                Some(list(
                    format!("/v1/customers/{id}/subscriptions"),
                    subscriptions,
                ))
            }
            _ => None,
        }
    }
}

/// The list an object is retrieved from.
fn list_of(object: &Object) -> &'static str {
    match object {
        Object::Product(_) => "products",
        Object::Price(_) => "prices",
        Object::Coupon(_) => "coupons",
        Object::Discount(_) => "discounts",
        Object::Customer(_) => "customers",
        Object::Subscription(_) => "subscriptions",
        Object::Invoice(_) => "invoices",
        Object::InvoiceItem(_) => "invoiceitems",
        Object::InvoicePayment(_) => "invoice_payments",
        Object::PaymentRecord(_) => "payment_records",
        Object::PaymentIntent(..) => "payment_intents",
        Object::Charge(_) => "charges",
        Object::Refund(_) => "refunds",
        Object::Dispute(_) => "disputes",
        Object::BalanceTransaction(_) => "balance_transactions",
        Object::Payout(_) => "payouts",
        Object::TaxRate(_) => "tax_rates",
        Object::CreditNote(_) => "credit_notes",
        Object::Session(_) => "checkout/sessions",
    }
}

/// Stripe's answer to a path it does not know.
pub(super) fn unknown_path(path: &str) -> Refusal {
    Refusal {
        status: 404,
        code: "url_invalid",
        message: format!("Unrecognized request URL ({path})."),
        param: None,
    }
}
