//! The state of a fake Stripe account: its objects, its clock, and the log of its events.
//!
//! Nothing here reads the real time: `now` is set by the caller, and every id follows from the
//! account's prefix and a counter, so that the same calls give the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Shape;
use super::objects::{
    BalanceTransaction, Charge, Coupon, CreditNote, Customer, Discount, Dispute, Invoice,
    InvoiceItem, InvoicePayment, Metadata, Object, PaymentIntent, PaymentRecord, Payout, Price,
    Product, Refund, Session, Subscription, TaxRate, Tier,
};
use super::render::{instant, previous_attributes};

/// An operation the account refuses, as Stripe would answer it over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status of the answer.
    pub status: u16,
    /// The `error.code` of the answer, such as `resource_missing`.
    pub code: &'static str,
    /// What is wrong, in words.
    pub message: String,
    /// The parameter it is about.
    pub param: Option<String>,
}

impl Refusal {
    pub(super) fn missing(kind: &str, id: &str) -> Refusal {
        Refusal {
            status: 404,
            code: "resource_missing",
            message: format!("No such {kind}: '{id}'"),
            param: Some("id".to_owned()),
        }
    }

    pub(super) fn state(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            status: 400,
            code,
            message: message.into(),
            param: None,
        }
    }

    pub(super) fn parameter(
        param: &str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Refusal {
        Refusal {
            status: 400,
            code,
            message: message.into(),
            param: Some(param.to_owned()),
        }
    }
}

/// Objects of one kind in the order they were made, found by id.
#[derive(Debug, Clone)]
pub(super) struct Shelf<T> {
    kind: &'static str,
    rows: Vec<T>,
    places: HashMap<String, usize>,
}

impl<T> Shelf<T> {
    fn new(kind: &'static str) -> Shelf<T> {
        Shelf {
            kind,
            rows: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Puts an object on the shelf.
    pub(super) fn add(&mut self, id: &str, row: T) {
        self.places.insert(id.to_owned(), self.rows.len());
        self.rows.push(row);
    }

    /// The object with this id, or Stripe's 404.
    pub(super) fn get(&self, id: &str) -> Result<&T, Refusal> {
        self.places
            .get(id)
            .and_then(|place| self.rows.get(*place))
            .ok_or_else(|| Refusal::missing(self.kind, id))
    }

    /// The object with this id, to be changed, or Stripe's 404.
    pub(super) fn get_mut(&mut self, id: &str) -> Result<&mut T, Refusal> {
        self.places
            .get(id)
            .and_then(|place| self.rows.get_mut(*place))
            .ok_or_else(|| Refusal::missing(self.kind, id))
    }

    /// Every object, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.rows.iter()
    }
}

/// An event of the log: its object as it was then, and as the event before showed it.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// Id of the event (`evt_…`).
    pub id: String,
    /// `invoice.paid` and so on.
    pub kind: &'static str,
    /// Unix seconds, as Stripe's `created` has them.
    pub created: i64,
    object: Object,
    previous: Option<Object>,
    request: Option<String>,
}

impl LoggedEvent {
    /// The event in `shape`, or none when that version has no such event or nothing to say.
    #[must_use]
    pub fn render(&self, shape: Shape) -> Option<Value> {
        if shape < self.since() {
            return None;
        }
        let object = self.object.render(shape);
        let mut data = json!({});
        if tells_previous(self.kind) {
            let previous = self.previous.as_ref().map_or_else(
                || json!({}),
                |before| previous_attributes(&before.render(shape), &object),
            );
            let unchanged = previous.as_object().is_none_or(serde_json::Map::is_empty);
            if unchanged && self.previous.is_some() {
                return None;
            }
            data["previous_attributes"] = previous;
        }
        data["object"] = object;
        Some(json!({
            "id": self.id, "object": "event", "api_version": shape.api_version(),
            "created": self.created, "data": data, "livemode": false, "pending_webhooks": 1,
            "request": {"id": self.request, "idempotency_key": null}, "type": self.kind,
        }))
    }

    /// Whether [`LoggedEvent::render`] makes something of it.
    pub(super) fn is_told(&self, shape: Shape) -> bool {
        if tells_previous(self.kind) && self.previous.is_some() {
            return self.render(shape).is_some();
        }
        shape >= self.since()
    }

    /// The first version that has it.
    fn since(&self) -> Shape {
        // Refunds ride inside the charge before 2022-11-15; asynchronous capture and invoice
        // payments are newer than that version too.
        match self.kind {
            "charge.updated" | "refund.failed" | "payout.reconciliation_completed" => Shape::Basil,
            kind if kind.starts_with("invoice_payment.") => Shape::Basil,
            kind if kind.starts_with("refund.") => Shape::V2022_11_15,
            _ => Shape::V2020_08_27,
        }
    }

    /// The id of the object the event is about.
    #[must_use]
    pub fn object_id(&self) -> &str {
        self.object.id()
    }
}

/// Whether events of this type say what changed.
fn tells_previous(kind: &str) -> bool {
    kind.ends_with(".updated") || kind == "charge.refunded" || kind == "charge.dispute.closed"
}

/// What a new price is.
#[derive(Debug, Clone)]
pub struct NewPrice<'a> {
    /// ISO code, lower case.
    pub currency: &'a str,
    /// Minor units per unit and period.
    pub unit_amount: i64,
    /// `day`, `week`, `month` or `year`; none is a one-time price.
    pub interval: Option<&'a str>,
    /// The plan it sells, written to `metadata.plan`; empty for none.
    pub plan: &'a str,
    /// `graduated` or `volume` with its slices.
    pub tiers: Option<(&'a str, Vec<Tier>)>,
}

impl<'a> NewPrice<'a> {
    /// A plain monthly price of `plan`.
    #[must_use]
    pub fn monthly(currency: &'a str, unit_amount: i64, plan: &'a str) -> NewPrice<'a> {
        NewPrice {
            currency,
            unit_amount,
            interval: Some("month"),
            plan,
            tiers: None,
        }
    }

    /// A plain yearly price of `plan`.
    #[must_use]
    pub fn yearly(currency: &'a str, unit_amount: i64, plan: &'a str) -> NewPrice<'a> {
        NewPrice {
            interval: Some("year"),
            ..NewPrice::monthly(currency, unit_amount, plan)
        }
    }
}

/// What a new coupon takes off, and for how long.
#[derive(Debug, Clone)]
pub struct NewCoupon<'a> {
    /// Basis points; none when `amount_off` is set.
    pub percent_off_bps: Option<i64>,
    /// Minor units with their currency.
    pub amount_off: Option<(i64, &'a str)>,
    /// `forever`, `once` or `repeating`.
    pub duration: &'a str,
    /// How many months a `repeating` coupon lasts; `None` for the others.
    pub duration_in_months: Option<i64>,
    /// The prices whose products it is for; none means all.
    pub prices: &'a [&'a str],
}

/// A stateful Stripe account in memory.
#[derive(Debug, Clone)]
pub struct Account {
    prefix: String,
    /// Unix seconds, as Stripe's `created` has them.
    pub(super) now: i64,
    counters: BTreeMap<&'static str, u32>,
    /// `req_…` when the running operation was called over the API, none when Stripe did it.
    pub(super) request: Option<String>,
    pub(super) products: Shelf<Product>,
    pub(super) prices: Shelf<Price>,
    pub(super) coupons: Shelf<Coupon>,
    pub(super) discounts: Shelf<Discount>,
    pub(super) customers: Shelf<Customer>,
    pub(super) subscriptions: Shelf<Subscription>,
    pub(super) invoices: Shelf<Invoice>,
    pub(super) invoice_items: Shelf<InvoiceItem>,
    pub(super) invoice_payments: Shelf<InvoicePayment>,
    pub(super) payment_records: Shelf<PaymentRecord>,
    pub(super) intents: Shelf<PaymentIntent>,
    pub(super) charges: Shelf<Charge>,
    pub(super) refunds: Shelf<Refund>,
    pub(super) disputes: Shelf<Dispute>,
    pub(super) balance_transactions: Shelf<BalanceTransaction>,
    pub(super) payouts: Shelf<Payout>,
    pub(super) tax_rates: Shelf<TaxRate>,
    pub(super) credit_notes: Shelf<CreditNote>,
    pub(super) sessions: Shelf<Session>,
    pub(super) events: Vec<LoggedEvent>,
    /// Events that no webhook endpoint has taken: dropped, or refused each time.
    pub(super) undelivered: BTreeSet<String>,
    /// The snapshot the latest event of each object showed.
    shown: HashMap<String, Object>,
    /// Charges whose balance transaction newer versions do not show yet: they capture asynchronously.
    pub(super) unsettled: Vec<String>,
}

impl Account {
    /// An empty account. `prefix` (letters and digits) goes into every id, so that two accounts
    /// with different prefixes never share one.
    #[must_use]
    pub fn new(prefix: &str, now: Timestamp) -> Account {
        Account {
            prefix: prefix.to_owned(),
            now: now.as_second(),
            counters: BTreeMap::new(),
            request: None,
            products: Shelf::new("product"),
            prices: Shelf::new("price"),
            coupons: Shelf::new("coupon"),
            discounts: Shelf::new("discount"),
            customers: Shelf::new("customer"),
            subscriptions: Shelf::new("subscription"),
            invoices: Shelf::new("invoice"),
            invoice_items: Shelf::new("invoiceitem"),
            invoice_payments: Shelf::new("invoice_payment"),
            payment_records: Shelf::new("payment_record"),
            intents: Shelf::new("payment_intent"),
            charges: Shelf::new("charge"),
            refunds: Shelf::new("refund"),
            disputes: Shelf::new("dispute"),
            balance_transactions: Shelf::new("balance_transaction"),
            payouts: Shelf::new("payout"),
            tax_rates: Shelf::new("tax_rate"),
            credit_notes: Shelf::new("credit_note"),
            sessions: Shelf::new("checkout.session"),
            events: Vec::new(),
            undelivered: BTreeSet::new(),
            shown: HashMap::new(),
            unsettled: Vec::new(),
        }
    }

    /// Puts another prefix into every id made from now on: what happens to the same story twice
    /// must not share its ids.
    pub fn set_prefix(&mut self, prefix: &str) {
        prefix.clone_into(&mut self.prefix);
    }

    /// What is in every id made from now on.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What time it is in the account.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        instant(self.now)
    }

    /// Moves the clock on by whole seconds.
    pub fn advance(&mut self, seconds: i64) {
        self.now += seconds;
    }

    /// Sets the clock. Going back is allowed: the stories of several customers run one
    /// after the other, and [`Account::events`] puts them in the order of time.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now.as_second();
    }

    /// The customer and the price of the newest canceled subscription, for somebody who wants to
    /// try an operation: the customer may come back.
    #[must_use]
    pub fn last_to_leave(&self) -> Option<(&str, &str)> {
        let canceled = self
            .subscriptions
            .iter()
            .filter(|one| one.status == "canceled");
        let left = canceled.max_by_key(|one| one.ended_at)?;
        let item = left.items.first()?;
        Some((&left.customer, &item.price.id))
    }

    /// Every event in `shape`, in the order of time (and, within a second, as they happened).
    #[must_use]
    pub fn events(&self, shape: Shape) -> Vec<Value> {
        self.log()
            .into_iter()
            .filter_map(|event| event.render(shape))
            .collect()
    }

    /// The event log in the order of time.
    #[must_use]
    pub fn log(&self) -> Vec<&LoggedEvent> {
        let mut log: Vec<&LoggedEvent> = self.events.iter().collect();
        log.sort_by_key(|event| event.created);
        log
    }

    /// How many events there are, and the ones from place `from` on in the order they happened:
    /// what a deliverer that has seen `from` events still has to send.
    #[must_use]
    pub fn events_since(&self, from: usize) -> &[LoggedEvent] {
        self.events.get(from..).unwrap_or_default()
    }

    /// The next id of a kind: `pi_3` + prefix + four digits. Counted per kind, so that a test can
    /// name the second intent of an account without running it.
    pub(super) fn id(&mut self, stem: &'static str) -> String {
        let count = self.counters.entry(stem).or_insert(0);
        *count += 1;
        format!("{stem}{}{count:04}", self.prefix)
    }

    /// An event's id. Scrambled, because Stripe's do not sort by time either.
    fn event_id(&mut self) -> String {
        let counted = self.id("evt_");
        let digest = hex::encode(Sha256::digest(counted.as_bytes()));
        format!("evt_1{}{}", self.prefix, &digest[..16])
    }

    /// Marks what follows as called over the API or from the dashboard.
    pub(super) fn by_request(&mut self) {
        self.request = Some(self.id("req_"));
    }

    /// Marks what follows as done by Stripe itself.
    pub(super) fn by_itself(&mut self) {
        self.request = None;
    }

    /// Logs an event at the account's time.
    pub(super) fn emit(&mut self, kind: &'static str, object: Object) {
        let id = self.event_id();
        let previous = self.shown.insert(object.id().to_owned(), object.clone());
        self.events.push(LoggedEvent {
            id,
            kind,
            created: self.now,
            object,
            previous,
            request: self.request.clone(),
        });
    }

    /// A new product with one price.
    pub fn create_price(&mut self, new: &NewPrice<'_>) -> String {
        self.by_request();
        let name = if new.plan.is_empty() {
            "Service"
        } else {
            new.plan
        };
        let product = Product {
            id: self.id("prod_"),
            name: name.to_owned(),
            created: self.now,
        };
        let mut metadata = Metadata::new();
        if !new.plan.is_empty() {
            metadata.insert("plan".to_owned(), new.plan.to_owned());
        }
        let price = Price {
            id: self.id("price_1"),
            product: product.id.clone(),
            currency: new.currency.to_owned(),
            unit_amount: new.unit_amount,
            interval: new.interval.map(str::to_owned),
            interval_count: 1,
            tiers: new
                .tiers
                .as_ref()
                .map(|(mode, tiers)| ((*mode).to_owned(), tiers.clone())),
            lookup_key: None,
            nickname: None,
            metadata,
            active: true,
            created: self.now,
        };
        self.products.add(&product.id, product.clone());
        self.emit("product.created", Object::Product(product));
        self.prices.add(&price.id, price.clone());
        self.emit("price.created", Object::Price(price.clone()));
        price.id
    }

    /// Creates a coupon; answers its id.
    pub fn create_coupon(&mut self, new: &NewCoupon<'_>) -> String {
        self.by_request();
        let products = new.prices.iter().filter_map(|price| {
            let price = self.prices.get(price).ok()?;
            Some(price.product.clone())
        });
        let products = products.collect();
        let coupon = Coupon {
            products,
            id: self.id("coupon_"),
            name: "Discount".to_owned(),
            percent_off_bps: new.percent_off_bps,
            amount_off: new.amount_off.map(|(amount, _)| amount),
            currency: new.amount_off.map(|(_, currency)| currency.to_owned()),
            duration: new.duration.to_owned(),
            duration_in_months: new.duration_in_months,
            created: self.now,
        };
        self.coupons.add(&coupon.id, coupon.clone());
        self.emit("coupon.created", Object::Coupon(coupon.clone()));
        coupon.id
    }

    /// Creates an exclusive tax rate of so many basis points; answers its id.
    pub fn create_tax_rate(&mut self, bps: i64, country: &str, jurisdiction: &str) -> String {
        let rate = TaxRate {
            id: self.id("txr_1"),
            display_name: "VAT".to_owned(),
            bps,
            country: country.to_owned(),
            jurisdiction: jurisdiction.to_owned(),
            inclusive: false,
            created: self.now,
        };
        self.tax_rates.add(&rate.id, rate.clone());
        self.emit("tax_rate.created", Object::TaxRate(rate.clone()));
        rate.id
    }

    /// The first tax rate of so many basis points, made when there is none; none for 0.
    pub(super) fn tax_rate_of(&mut self, bps: i64) -> Option<String> {
        if bps == 0 {
            return None;
        }
        let known = self.tax_rates.iter().find(|rate| rate.bps == bps);
        let known = known.map(|rate| rate.id.clone());
        Some(known.unwrap_or_else(|| self.create_tax_rate(bps, "GB", "United Kingdom")))
    }

    /// Creates a customer; answers its id.
    pub fn create_customer(
        &mut self,
        email: Option<&str>,
        name: Option<&str>,
        metadata: Metadata,
    ) -> String {
        self.by_request();
        let id = self.id("cus_");
        let number = self.counters.get("cus_").copied().unwrap_or_default();
        let customer = Customer {
            id,
            email: email.map(str::to_owned),
            name: name.map(str::to_owned),
            currency: None,
            delinquent: false,
            deleted: false,
            // Numbers are unique per customer, so the prefix has to be.
            invoice_prefix: format!("{}{number}", self.prefix.to_uppercase()),
            next_invoice_sequence: 1,
            metadata,
            discount: None,
            created: self.now,
        };
        self.customers.add(&customer.id, customer.clone());
        self.emit("customer.created", Object::Customer(customer.clone()));
        customer.id
    }

    /// Changes a customer's e-mail address or metadata.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn update_customer(
        &mut self,
        customer: &str,
        email: Option<&str>,
        metadata: &Metadata,
    ) -> Result<(), Refusal> {
        self.by_request();
        let row = self.customers.get_mut(customer)?;
        if let Some(email) = email {
            row.email = Some(email.to_owned());
        }
        row.metadata.extend(
            metadata
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        let snapshot = row.clone();
        self.emit("customer.updated", Object::Customer(snapshot));
        Ok(())
    }

    /// Gives a customer a discount, or takes away the one that it has.
    ///
    /// # Errors
    /// When there is no such customer or coupon.
    pub fn discount_customer(
        &mut self,
        customer: &str,
        coupon: Option<&str>,
    ) -> Result<(), Refusal> {
        self.by_request();
        let before = self.customers.get(customer)?.discount.clone();
        if let Some(mut ended) = before {
            ended.end = Some(self.now);
            if let Ok(row) = self.discounts.get_mut(&ended.id) {
                row.end = Some(self.now);
            }
            self.emit("customer.discount.deleted", Object::Discount(ended));
        }
        let discount = match coupon {
            Some(coupon) => Some(Discount {
                id: self.id("di_1"),
                coupon: self.coupons.get(coupon)?.clone(),
                customer: customer.to_owned(),
                subscription: None,
                start: self.now,
                end: None,
            }),
            None => None,
        };
        if let Some(discount) = &discount {
            self.discounts.add(&discount.id, discount.clone());
            self.emit(
                "customer.discount.created",
                Object::Discount(discount.clone()),
            );
        }
        let row = self.customers.get_mut(customer)?;
        row.discount = discount;
        let snapshot = row.clone();
        self.emit("customer.updated", Object::Customer(snapshot));
        Ok(())
    }

    /// Deletes a customer; its subscriptions end with it.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn delete_customer(&mut self, customer: &str) -> Result<(), Refusal> {
        let live: Vec<String> = self
            .subscriptions
            .iter()
            .filter(|one| one.customer == customer && one.ended_at.is_none())
            .map(|one| one.id.clone())
            .collect();
        for subscription in live {
            self.cancel_now(&subscription)?;
        }
        self.by_request();
        let row = self.customers.get_mut(customer)?;
        row.deleted = true;
        let snapshot = row.clone();
        self.emit("customer.deleted", Object::Customer(snapshot));
        Ok(())
    }
}

/// Unix seconds `count` intervals after `anchor` in UTC; the last day of a shorter month stands in
/// for a day it does not have.
pub(super) fn add_intervals(anchor: i64, interval: &str, count: i64) -> i64 {
    let span = match interval {
        "day" => count.days(),
        "week" => count.weeks(),
        "year" => count.years(),
        _ => count.months(),
    };
    instant(anchor)
        .to_zoned(TimeZone::UTC)
        .checked_add(span)
        .map_or(anchor, |end| end.timestamp().as_second())
}

/// `numerator / denominator`, half to even, for amounts that are not negative or small enough.
pub(super) fn divide_half_even(numerator: i128, denominator: i128) -> i64 {
    let (quotient, rest) = (
        numerator.div_euclid(denominator),
        numerator.rem_euclid(denominator),
    );
    let up = match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => quotient.rem_euclid(2),
    };
    i64::try_from(quotient + up).expect("amounts of the fake stay far inside i64")
}
