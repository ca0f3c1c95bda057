//! The tolerant reader: extracts the facts of an event, whatever API version rendered it.
//!
//! Every field is looked for along the paths of "Where fields live" in `docs/stripe.md`: the new
//! path first, then the old ones, never by `api_version`, because versions carry both shapes at
//! once. A field the ledger needs and none of the paths has is an error that names it, so that
//! the event is parked instead of writing a NULL over a value.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::event::Event;
use domain::money::Currency;
use domain::payment::{self, Charge, Dispute, InvoicePayment, PaymentIntent, Refund, RefundSource};
use domain::period::day_of;
use domain::stripe_objects::balance::{self, BalanceTransaction, Payout, TaxRate};
use domain::stripe_objects::catalog::{
    Coupon, CouponSnapshot, CurrencyOption, Discount, DiscountSnapshot, Price, PriceSnapshot, Tier,
    TransformQuantity,
};
use domain::stripe_objects::customer::{CheckoutSession, Customer, LinkSource, UserLink};
use domain::stripe_objects::invoice::{
    self, CreditNote, Invoice, InvoiceStatus, Line, NoteRefund, OutsideStripe,
};
use domain::stripe_objects::objects::{Keep, Objects};
use domain::stripe_objects::snapshot::{FETCHED, Version};
use domain::stripe_objects::status::{
    ChargeStatus, DisputeStatus, IntentStatus, RefundStatus, SubscriptionStatus,
};
use domain::stripe_objects::subscription::{self, Item, Subscription};

/// Ten trillion in a currency with two decimals: no amount at Stripe comes near.
const LARGEST_NUMBER: u64 = 1_000_000_000_000_000;

/// Why an event cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("`{field}` of the {object} is missing or unreadable under every known path")]
    MissingField {
        object: &'static str,
        field: &'static str,
    },
    #[error("the event says nothing about when it was created")]
    NoTime,
}

/// Whether the ledger has a use for events of this type (the table of events in `docs/stripe.md`).
#[must_use]
pub fn is_applied(event_type: &str) -> bool {
    matches!(
        event_type,
        "checkout.session.completed"
            | "checkout.session.async_payment_succeeded"
            | "checkout.session.async_payment_failed"
            | "customer.created"
            | "customer.updated"
            | "customer.deleted"
            | "customer.subscription.created"
            | "customer.subscription.updated"
            | "customer.subscription.deleted"
            | "customer.subscription.paused"
            | "customer.subscription.resumed"
            | "customer.subscription.trial_will_end"
            | "invoice.created"
            | "invoice.updated"
            | "invoice.finalized"
            | "invoice.paid"
            | "invoice.payment_succeeded"
            | "invoice.payment_failed"
            | "invoice.payment_action_required"
            | "invoice.voided"
            | "invoice.marked_uncollectible"
            | "invoice.overdue"
            | "invoice.will_be_due"
            | "invoice.deleted"
            | "invoice_payment.paid"
            | "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.processing"
            | "payment_intent.canceled"
            | "payment_intent.requires_action"
            | "charge.succeeded"
            | "charge.failed"
            | "charge.updated"
            | "charge.captured"
            | "charge.expired"
            | "charge.refunded"
            | "charge.pending"
            | "charge.refund.updated"
            | "charge.dispute.created"
            | "charge.dispute.updated"
            | "charge.dispute.closed"
            | "charge.dispute.funds_withdrawn"
            | "charge.dispute.funds_reinstated"
            | "refund.created"
            | "refund.updated"
            | "refund.failed"
            | "credit_note.created"
            | "credit_note.updated"
            | "credit_note.voided"
    ) || [
        "price.",
        "plan.",
        "product.",
        "coupon.",
        "customer.discount.",
        "payout.",
        "tax_rate.",
    ]
    .iter()
    .any(|family| event_type.starts_with(family))
}

/// Reads the facts of one event; empty for a type that the ledger has no use for.
///
/// # Errors
/// When a field the ledger needs is missing under every path.
pub fn read(event: &Event) -> Result<Objects, Error> {
    let mut facts = Objects::default();
    if event.thin.is_some() || !is_applied(&event.event_type) {
        return Ok(facts);
    }
    let source = Source {
        event_id: &event.event_id,
        event_type: &event.event_type,
        at: event.created_at.ok_or(Error::NoTime)?,
    };
    let object = &event.object;
    match event.event_type.split('.').next().unwrap_or_default() {
        "checkout" => source.checkout_session(object, &mut facts)?,
        "customer" if event.event_type.starts_with("customer.subscription.") => {
            source.subscription(object, &mut facts)?;
        }
        "customer" if event.event_type.starts_with("customer.discount.") => {
            source.discount(object, &mut facts)?;
        }
        "customer" => source.customer(object, &mut facts)?,
        "invoice" => source.invoice(object, &mut facts)?,
        "invoice_payment" => source.invoice_payment(object, None, &mut facts)?,
        "payment_intent" => source.payment_intent(object, &mut facts)?,
        "charge" if event.event_type.starts_with("charge.dispute.") => {
            source.dispute(object, &mut facts)?;
        }
        "charge" if event.event_type == "charge.refund.updated" => {
            source.refund(object, None, &mut facts)?;
        }
        "charge" => source.charge(object, &mut facts)?,
        "refund" => source.refund(object, None, &mut facts)?,
        "credit_note" => source.credit_note(object, &mut facts)?,
        "price" | "plan" => source.price(object, &mut facts)?,
        "coupon" => source.coupon(object, &mut facts)?,
        "payout" => source.payout(object, &mut facts)?,
        "tax_rate" => source.tax_rate(object, &mut facts)?,
        // `product.*` carries nothing the ledger keeps.
        _ => {}
    }
    Ok(facts)
}

/// The time in the version of a fetched object: the last millisecond of the second of the fetch, so that it never
/// equals the time of an event, which is a whole second. A fetch counts as later than the events of its second.
fn stamp(fetched_at: Timestamp) -> Timestamp {
    Timestamp::new(fetched_at.as_second(), 999_000_000).unwrap_or(fetched_at)
}

/// Reads an object fetched from Stripe through the same paths as an event's; `object.object` is its type. Times that
/// only an event shows (a dispute's closing) stay unknown; a capture's is read from its balance transaction.
///
/// # Errors
/// When a field the ledger needs is missing under every path.
pub fn read_fetched(object: &Value, fetched_at: Timestamp) -> Result<Objects, Error> {
    let mut facts = Objects::default();
    let id = at(object, "id").and_then(Value::as_str).unwrap_or_default();
    let event_id = format!("{FETCHED}{id}:{}", fetched_at.as_second());
    let source = Source {
        event_id: &event_id,
        event_type: "fetched",
        at: stamp(fetched_at),
    };
    match at(object, "object")
        .and_then(Value::as_str)
        .unwrap_or_default()
    {
        "customer" => source.customer(object, &mut facts)?,
        "subscription" => source.subscription(object, &mut facts)?,
        "invoice" => source.invoice(object, &mut facts)?,
        "invoice_payment" => source.invoice_payment(object, None, &mut facts)?,
        "payment_intent" => source.payment_intent(object, &mut facts)?,
        "charge" => source.charge(object, &mut facts)?,
        "refund" => source.refund(object, None, &mut facts)?,
        "dispute" => source.dispute(object, &mut facts)?,
        "credit_note" => source.credit_note(object, &mut facts)?,
        "price" | "plan" => source.price(object, &mut facts)?,
        "coupon" => source.coupon(object, &mut facts)?,
        "discount" => source.discount(object, &mut facts)?,
        "checkout.session" => source.checkout_session(object, &mut facts)?,
        "balance_transaction" => source.balance_transaction(object, None, &mut facts)?,
        "payout" => source.payout(object, &mut facts)?,
        "tax_rate" => source.tax_rate(object, &mut facts)?,
        _ => {
            return Err(Error::MissingField {
                object: "fetched object",
                field: "object",
            });
        }
    }
    Ok(facts)
}

/// Where facts come from, which decides their version.
struct Source<'a> {
    event_id: &'a str,
    event_type: &'a str,
    at: Timestamp,
}

impl Source<'_> {
    fn version(&self, rank: i32) -> Version {
        Version {
            created_at: self.at,
            rank,
            event_id: self.event_id.to_owned(),
        }
    }

    fn is_fetched(&self) -> bool {
        self.event_type == "fetched"
    }

    fn link_user(
        &self,
        facts: &mut Objects,
        customer: Option<&str>,
        user_id: Option<i32>,
        source: LinkSource,
    ) {
        if let (Some(customer), Some(user_id)) = (customer, user_id) {
            let link = UserLink {
                source,
                named_at: self.at,
                event_id: self.event_id.to_owned(),
                user_id,
            };
            facts.customers.keep(Customer {
                link: Some(link),
                ..Customer::named(customer)
            });
        }
    }

    fn checkout_session(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        let customer = id(object, &["customer"]);
        let reference = at(object, "client_reference_id").and_then(user_id);
        let named = at(object, "metadata.user_id").and_then(user_id);
        // A session never changes its user: a fetched one has named the user since it was created.
        let created_at = time(object, &["created"]).filter(|_| self.is_fetched());
        let naming = Source {
            at: created_at.unwrap_or(self.at),
            ..*self
        };
        for (user, source) in [
            (named, LinkSource::SessionMetadata),
            (reference, LinkSource::ClientReferenceId),
        ] {
            naming.link_user(facts, customer.as_deref(), user, source);
        }
        // `completed` < `async_payment_*`: the later one says how the payment ended.
        let rank = if self.event_type == "checkout.session.completed" {
            0
        } else {
            100
        };
        facts.checkout_sessions.keep(CheckoutSession {
            stripe_checkout_session_id: required_text(object, "checkout session", "id")?,
            stripe_customer_id: customer,
            stripe_subscription_id: id(object, &["subscription"]),
            stripe_payment_intent_id: id(object, &["payment_intent"]),
            stripe_invoice_id: id(object, &["invoice"]),
            user_id: reference.or(named),
            plan_name: text(object, &["metadata.plan"]),
            mode: text(object, &["mode"]),
            status: text(object, &["status"]),
            payment_status: text(object, &["payment_status"]),
            metadata: metadata(object),
            // Sessions had no `created` before 2022.
            created_at: time(object, &["created"]).unwrap_or(self.at),
            version: self.version(rank),
        });
        Ok(())
    }

    fn customer(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        let stripe_customer_id = required_text(object, "customer", "id")?;
        let is_deleted =
            self.event_type == "customer.deleted" || flag(object, &["deleted"]) == Some(true);
        let named = at(object, "metadata.user_id").and_then(user_id);
        self.link_user(
            facts,
            Some(&stripe_customer_id),
            named,
            LinkSource::CustomerMetadata,
        );
        if let Some(object) = at(object, "discount")
            && let Some(read) = discount(object)
        {
            self.keep_discount(object, read, None, facts);
        }
        let created_at = time(object, &["created"]);
        let type_rank = match self.event_type {
            "customer.created" => 1,
            "customer.deleted" => 3,
            _ => 2,
        };
        facts.customers.keep(Customer {
            stripe_customer_id,
            email: text(object, &["email"]),
            name: text(object, &["name"]),
            currency: currency(object, &["currency"]),
            delinquent: flag(object, &["delinquent"]),
            metadata: metadata(object),
            deleted_at: is_deleted.then_some(self.at),
            created_at,
            link: None,
            // A deletion may carry only the id: then it says nothing about the other fields.
            version: if is_deleted && created_at.is_none() {
                Version::unseen()
            } else {
                self.version(type_rank)
            },
        });
        Ok(())
    }

    fn subscription(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "subscription";
        let stripe_customer_id = required_id(object, OBJECT, &["customer"], "customer")?;
        let status = required_text(object, OBJECT, "status")?;
        let (mut items, has_unreadable) = items(object, self, facts);
        let is_ended = subscription::is_ended(&status);
        // An ended subscription without items has none; a live one does not show them.
        let shows_all = is_ended || !items.is_empty();
        let is_cut = has_unreadable || flag(object, &["items.has_more"]) == Some(true);
        let items_complete = shows_all && !is_cut;
        let currency = currency(object, &["currency", "plan.currency"])
            .or_else(|| items.iter().find_map(|item| item.price.currency));
        for item in &mut items {
            item.price = std::mem::take(&mut item.price).in_currency(currency);
        }
        let discounts = self.discounts(object, id(object, &["id"]), facts);
        let named = at(object, "metadata.user_id").and_then(user_id);
        self.link_user(
            facts,
            Some(&stripe_customer_id),
            named,
            LinkSource::SubscriptionMetadata,
        );
        let started_at = time(object, &["start_date", "start", "created"]);
        let is_paused = SubscriptionStatus::of(&status) == SubscriptionStatus::Paused
            || text(object, &["pause_collection.behavior"]).is_some();
        // Items may have periods of their own: the subscription's is the one that ends first.
        let periods = at(object, "items.data").and_then(Value::as_array);
        let ends_first = periods
            .into_iter()
            .flatten()
            .filter_map(|item| Some((time(item, &["current_period_end"])?, item)))
            .min_by_key(|(end, _)| *end)
            .map(|(_, item)| item);
        let period = |field: &str| {
            ends_first
                .and_then(|item| time(item, &[field]))
                .or_else(|| time(object, &[field]))
        };
        facts.subscriptions.keep(Subscription {
            stripe_subscription_id: required_text(object, OBJECT, "id")?,
            stripe_customer_id,
            currency,
            items_shown_at: (!items.is_empty()).then_some(self.at),
            items_complete: Some(items_complete),
            items,
            discounts,
            // What the customer has is known from the customer.
            inherited_discounts: None,
            current_period_start: period("current_period_start"),
            current_period_end: period("current_period_end"),
            cancel_at_period_end: flag(object, &["cancel_at_period_end"]).unwrap_or(false),
            cancellation_reason: text(
                object,
                &[
                    "cancellation_details.reason",
                    "cancellation_details.feedback",
                ],
            ),
            cancel_at: time(object, &["cancel_at"]),
            canceled_at: time(object, &["canceled_at"]),
            ended_at: time(object, &["ended_at"]).or(is_ended.then_some(self.at)),
            trial_start: time(object, &["trial_start"]),
            trial_end: time(object, &["trial_end"]),
            started_at,
            paused_at: is_paused.then_some(self.at),
            pause_behavior: text(object, &["pause_collection.behavior"]),
            metadata: metadata(object),
            created_at: time(object, &["created", "start_date", "start"]).unwrap_or(self.at),
            version: self.version(subscription::rank(&status, self.event_type)),
            status,
        });
        Ok(())
    }

    fn invoice(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "invoice";
        let stripe_invoice_id = required_text(object, OBJECT, "id")?;
        let stripe_customer_id = id(object, &["customer"]);
        let currency = currency(object, &["currency"]).ok_or(Error::MissingField {
            object: OBJECT,
            field: "currency",
        })?;
        let status = invoice_status(object, self.event_type).ok_or(Error::MissingField {
            object: OBJECT,
            field: "status",
        })?;
        let lines = lines(object);
        let total_cents = required_int(object, OBJECT, &["total", "amount_due"], "total")?;
        let amount_due_cents = int(object, &["amount_due"]).unwrap_or(total_cents);
        let is_out_of_band =
            status == InvoiceStatus::Paid && flag(object, &["paid_out_of_band"]) == Some(true);
        let is_paid = status == InvoiceStatus::Paid;
        let own_paid_cents =
            int(object, &["amount_paid"]).unwrap_or(if is_paid && !is_out_of_band {
                amount_due_cents
            } else {
                0
            });
        // Before basil a flag says that the rest came outside Stripe, and `amount_paid` leaves that out.
        let amount_paid_cents = if is_out_of_band {
            own_paid_cents.max(amount_due_cents)
        } else {
            own_paid_cents
        };
        let paid_at = time(object, &["status_transitions.paid_at"]).or(is_paid.then_some(self.at));
        let credit_notes_cents = int(object, &["pre_payment_credit_notes_amount"]).unwrap_or(0);
        let tax_breakdown = taxes(object, &["total_taxes", "total_tax_amounts"]);
        let finalized_at = time(object, &["status_transitions.finalized_at", "finalized_at"]);
        let created_at = time(object, &["created", "date"]).ok_or(Error::MissingField {
            object: OBJECT,
            field: "created",
        })?;
        let (billing_period_start, billing_period_end) = service_period(&lines);
        let named = at(object, "metadata.user_id")
            .or_else(|| at(object, "parent.subscription_details.metadata.user_id"))
            .or_else(|| at(object, "subscription_details.metadata.user_id"))
            .and_then(user_id);
        self.link_user(
            facts,
            stripe_customer_id.as_deref(),
            named,
            LinkSource::InvoiceMetadata,
        );
        let names_payment = id(object, &["payment_intent", "charge"]).is_some();
        let stated_cents = if is_out_of_band {
            Some(amount_paid_cents - own_paid_cents)
        } else if self.is_fetched() && !names_payment {
            // What the whole list of its payments does not hold came outside Stripe.
            paid_by_stripe(object).map(|by_stripe| (own_paid_cents - by_stripe).max(0))
        } else {
            None
        };
        let paid_cents = Some(own_paid_cents).filter(|paid| is_paid && *paid > 0);
        self.payments_of_invoice(object, paid_cents, paid_at, facts)?;
        facts.invoices.keep(Invoice {
            number: text(object, &["number"]),
            stripe_subscription_id: id(
                object,
                &["parent.subscription_details.subscription", "subscription"],
            )
            .or_else(|| subscription_of_lines(object)),
            subtotal_cents: int(object, &["subtotal"]).unwrap_or(total_cents),
            tax_cents: tax(object),
            inclusive_tax_cents: inclusive_tax(&tax_breakdown),
            discount_cents: sum_of(object, "total_discount_amounts", "amount").unwrap_or(0),
            pretax_credits_cents: pretax_credits(object),
            shipping_cents: int(
                object,
                &["shipping_cost.amount_subtotal", "amount_shipping"],
            )
            .unwrap_or(0),
            total_cents,
            due_before_credit_notes_cents: Some(amount_due_cents + credit_notes_cents),
            amount_paid_cents,
            amount_remaining_cents: int(object, &["amount_remaining"])
                .unwrap_or(amount_due_cents - amount_paid_cents),
            stated: stated_cents.map(|amount_cents| OutsideStripe {
                stated_at: self.at,
                amount_cents,
            }),
            names_payment: Some(names_payment),
            credit_notes_cents,
            billing_period_start,
            billing_period_end,
            due_at: time(object, &["due_date"])
                .or(finalized_at)
                .or(Some(created_at)),
            paid_at,
            voided_at: time(object, &["status_transitions.voided_at"])
                .or((status == InvoiceStatus::Void).then_some(self.at)),
            uncollectible_at: time(object, &["status_transitions.marked_uncollectible_at"])
                .or((status == InvoiceStatus::Uncollectible).then_some(self.at)),
            finalized_at,
            deleted_at: (self.event_type == "invoice.deleted").then_some(self.at),
            attempt_count: int(object, &["attempt_count"])
                .and_then(|count| i32::try_from(count).ok())
                .unwrap_or(0),
            next_payment_attempt_at: time(object, &["next_payment_attempt"]),
            lines_complete: flag(object, &["lines.has_more"]) != Some(true),
            lines,
            tax_breakdown: tax_breakdown.into(),
            billing_reason: text(object, &["billing_reason"]),
            collection_method: text(object, &["collection_method", "billing"]),
            invoice_pdf_url: text(object, &["invoice_pdf"]),
            notes: text(object, &["description"]),
            metadata: metadata(object),
            created_at,
            version: self.version(invoice::rank(status, self.event_type)),
            stripe_invoice_id,
            stripe_customer_id,
            status,
            currency,
        });
        Ok(())
    }

    /// The links that an invoice itself names: `payments.data[]`, or one intent or charge, which has paid `paid_cents`.
    fn payments_of_invoice(
        &self,
        object: &Value,
        paid_cents: Option<i64>,
        paid_at: Option<Timestamp>,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        if let Some(payments) = filled(object, "payments.data") {
            for payment in payments {
                self.invoice_payment(payment, Some(object), facts)?;
            }
            return Ok(());
        }
        let intent = id(object, &["payment_intent"]);
        let charge = id(object, &["charge"]);
        if intent.is_none() && charge.is_none() {
            return Ok(());
        }
        facts.invoice_payments.keep(InvoicePayment {
            stripe_charge_id: charge,
            amount_paid_cents: paid_cents,
            currency: currency(object, &["currency"]),
            status: paid_cents.map(|_| "paid".to_owned()),
            paid_at: paid_at.filter(|_| paid_cents.is_some()),
            ..self.link(
                &required_text(object, "invoice", "id")?,
                intent.as_deref(),
                None,
                &id(object, &["customer"]),
            )
        });
        for (path, kind) in [("payment_intent", "payment_intent"), ("charge", "charge")] {
            self.expanded(object, path, kind, facts)?;
        }
        Ok(())
    }

    fn invoice_payment(
        &self,
        object: &Value,
        invoice: Option<&Value>,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        const OBJECT: &str = "invoice payment";
        let intent = id(object, &["payment.payment_intent"]);
        let charge = id(object, &["payment.charge"]);
        let record = id(object, &["payment.payment_record"]);
        if intent.is_none() && charge.is_none() && record.is_none() {
            // It was paid by something that has no id here: what nobody can name came outside Stripe.
            return Ok(());
        }
        let invoice_id = id(object, &["invoice"])
            .or_else(|| invoice.and_then(|invoice| id(invoice, &["id"])))
            .ok_or(Error::MissingField {
                object: OBJECT,
                field: "invoice",
            })?;
        let status = text(object, &["status"]);
        let is_paid = status.as_deref() == Some("paid");
        let customer = invoice.and_then(|invoice| id(invoice, &["customer"]));
        facts.invoice_payments.keep(InvoicePayment {
            stripe_payment_record_id: record,
            reported_by: text(object, &["payment.payment_record.reported_by"]),
            stripe_invoice_payment_id: text(object, &["id"]),
            is_default: flag(object, &["is_default"]),
            amount_paid_cents: int(object, &["amount_paid"]).filter(|_| is_paid),
            currency: currency(object, &["currency"]),
            paid_at: time(object, &["status_transitions.paid_at"])
                .or(is_paid.then_some(self.at))
                .filter(|_| is_paid),
            status,
            ..self.link(&invoice_id, intent.as_deref(), charge.as_deref(), &customer)
        });
        for (path, kind) in [
            ("payment.payment_intent", "payment_intent"),
            ("payment.charge", "charge"),
        ] {
            self.expanded(object, path, kind, facts)?;
        }
        Ok(())
    }

    /// Reads an intent or charge that was expanded in place of its id.
    fn expanded(
        &self,
        object: &Value,
        path: &str,
        kind: &str,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        match at(object, path).filter(|value| value.is_object()) {
            Some(intent) if kind == "payment_intent" => self.payment_intent(intent, facts),
            Some(charge) => self.charge(charge, facts),
            None => Ok(()),
        }
    }

    fn payment_intent(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "payment intent";
        let intent_id = required_text(object, OBJECT, "id")?;
        let status = required_text(object, OBJECT, "status")?;
        let charges = at(object, "charges.data").and_then(Value::as_array);
        // `charges.data` has the newest first.
        let latest_charge_id = id(object, &["latest_charge"])
            .or_else(|| {
                charges
                    .and_then(|charges| charges.first())
                    .and_then(|c| id(c, &["id"]))
            })
            .or_else(|| id(object, &["last_payment_error.charge"]));
        let stripe_customer_id = id(object, &["customer"]);
        let currency = currency(object, &["currency"]).ok_or(Error::MissingField {
            object: OBJECT,
            field: "currency",
        })?;
        let stripe_invoice_id = id(object, &["invoice"]);
        if let Some(invoice) = &stripe_invoice_id {
            facts.invoice_payments.keep(self.link(
                invoice,
                Some(&intent_id),
                None,
                &stripe_customer_id,
            ));
        }
        let failure = at(object, "last_payment_error").filter(|error| error.is_object());
        let is_own_event = self.event_type.starts_with("payment_intent.") || self.is_fetched();
        facts.payment_intents.keep(PaymentIntent {
            amount_cents: required_int(object, OBJECT, &["amount"], "amount")?,
            amount_received_cents: int(object, &["amount_received"]),
            currency,
            latest_charge_id,
            payment_method: text(object, &["payment_method_types.0"])
                .filter(|_| at(object, "payment_method_types.1").is_none()),
            failure_code: failure.and_then(|error| text(error, &["code"])),
            decline_code: failure.and_then(|error| text(error, &["decline_code"])),
            failure_message: failure.and_then(|error| text(error, &["message"])),
            succeeded_at: (IntentStatus::of(&status) == IntentStatus::Succeeded
                && self.event_type == "payment_intent.succeeded")
                .then_some(self.at),
            canceled_at: time(object, &["canceled_at"]),
            user_id: at(object, "metadata.user_id").and_then(user_id),
            created_at: time(object, &["created"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            version: self.version(payment::intent_rank(
                &status,
                if is_own_event { self.event_type } else { "" },
            )),
            stripe_payment_intent_id: intent_id,
            stripe_customer_id,
            stripe_invoice_id,
            status,
        });
        for charge in charges
            .into_iter()
            .flatten()
            .filter(|charge| charge.is_object())
        {
            self.charge(charge, facts)?;
        }
        if let Some(charge) = at(object, "latest_charge").filter(|charge| charge.is_object()) {
            self.charge(charge, facts)?;
        }
        Ok(())
    }

    fn link(
        &self,
        invoice: &str,
        intent: Option<&str>,
        charge: Option<&str>,
        customer: &Option<String>,
    ) -> InvoicePayment {
        InvoicePayment {
            stripe_invoice_id: invoice.to_owned(),
            stripe_payment_intent_id: intent.map(str::to_owned),
            stripe_charge_id: charge.map(str::to_owned),
            stripe_payment_record_id: None,
            reported_by: None,
            stripe_invoice_payment_id: None,
            is_default: None,
            stripe_customer_id: customer.clone(),
            amount_paid_cents: None,
            currency: None,
            status: None,
            paid_at: None,
            version: self.version(0),
        }
    }

    fn charge(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "charge";
        let charge_id = required_text(object, OBJECT, "id")?;
        let amount_cents = required_int(object, OBJECT, &["amount"], "amount")?;
        let currency = currency(object, &["currency"]).ok_or(Error::MissingField {
            object: OBJECT,
            field: "currency",
        })?;
        let is_captured = flag(object, &["captured"]).unwrap_or(true);
        let amount_captured_cents =
            int(object, &["amount_captured"]).unwrap_or(if is_captured { amount_cents } else { 0 });
        // Charges had no `status` before 2015.
        let status = text(object, &["status"])
            .or_else(|| match flag(object, &["paid"]) {
                Some(true) => Some("succeeded".to_owned()),
                Some(false) => Some("failed".to_owned()),
                None => None,
            })
            .ok_or(Error::MissingField {
                object: OBJECT,
                field: "status",
            })?;
        let known_status = ChargeStatus::of(&status);
        let refunded_cents = int(object, &["amount_refunded"]);
        let stripe_customer_id = id(object, &["customer"]);
        let intent_id = id(object, &["payment_intent"]);
        let stripe_invoice_id = id(object, &["invoice"]);
        if let Some(invoice) = &stripe_invoice_id {
            let charge = intent_id.is_none().then_some(charge_id.as_str());
            facts.invoice_payments.keep(self.link(
                invoice,
                intent_id.as_deref(),
                charge,
                &stripe_customer_id,
            ));
        }
        let is_own_event = self.event_type.starts_with("charge.") || self.is_fetched();
        let event_type = if is_own_event { self.event_type } else { "" };
        let shows_capture = matches!(event_type, "charge.succeeded" | "charge.captured");
        for path in ["balance_transaction", "failure_balance_transaction"] {
            self.expanded_transaction(at(object, path), id(object, &["id"]), facts)?;
        }
        // The transaction is created with the capture. Only events show the time of the capture itself.
        let captured_at = if self.is_fetched() {
            time(object, &["balance_transaction.created"])
        } else {
            shows_capture.then_some(self.at)
        };
        facts.charges.keep(Charge {
            amount_cents,
            amount_captured_cents,
            currency,
            is_captured,
            failure_code: text(object, &["failure_code"]),
            decline_code: text(object, &["outcome.reason"])
                .filter(|_| known_status == ChargeStatus::Failed),
            failure_message: text(object, &["failure_message"]),
            payment_method: text(object, &["payment_method_details.type", "source.object"]),
            user_id: at(object, "metadata.user_id").and_then(user_id),
            succeeded_at: captured_at
                .filter(|_| known_status == ChargeStatus::Succeeded && is_captured),
            refund_totals: refunded_cents
                .map(|total| (self.at.as_second(), total))
                .into_iter()
                .collect(),
            stripe_balance_transaction_id: id(object, &["balance_transaction"]),
            failure_balance_transaction_id: id(object, &["failure_balance_transaction"]),
            attempted_at: time(object, &["created"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            version: self.version(payment::charge_rank(
                &status,
                refunded_cents > Some(0),
                event_type,
            )),
            stripe_charge_id: charge_id,
            stripe_payment_intent_id: intent_id,
            stripe_customer_id,
            stripe_invoice_id,
            status,
        });
        if let Some(Value::Array(refunds)) = at(object, "refunds.data") {
            for refund in refunds {
                self.refund(refund, Some(object), facts)?;
            }
        }
        if let Some(dispute) = at(object, "dispute").filter(|dispute| dispute.is_object()) {
            self.dispute(dispute, facts)?;
        }
        Ok(())
    }

    fn refund(
        &self,
        object: &Value,
        charge: Option<&Value>,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        const OBJECT: &str = "refund";
        // Refunds had no `status` before 2016: all of them had succeeded.
        let status = text(object, &["status"]).unwrap_or_else(|| "succeeded".to_owned());
        let has_failed = matches!(
            RefundStatus::of(&status),
            RefundStatus::Failed | RefundStatus::Canceled
        );
        let of_charge = |path| charge.and_then(|charge| id(charge, &[path]));
        for path in ["balance_transaction", "failure_balance_transaction"] {
            self.expanded_transaction(at(object, path), id(object, &["id"]), facts)?;
        }
        facts.refunds.keep(Refund {
            stripe_refund_id: required_text(object, OBJECT, "id")?,
            stripe_charge_id: id(object, &["charge"]).or_else(|| of_charge("id")),
            stripe_payment_intent_id: id(object, &["payment_intent"])
                .or_else(|| of_charge("payment_intent")),
            amount_cents: required_int(object, OBJECT, &["amount"], "amount")?,
            currency: currency(object, &["currency"])
                .or_else(|| charge.and_then(|charge| currency(charge, &["currency"])))
                .ok_or(Error::MissingField {
                    object: OBJECT,
                    field: "currency",
                })?,
            reason: text(object, &["reason"]),
            stripe_balance_transaction_id: id(object, &["balance_transaction"]),
            failure_balance_transaction_id: id(object, &["failure_balance_transaction"]),
            metadata: metadata(object),
            source: RefundSource::Stripe,
            stripe_invoice_id: None,
            created_at: time(object, &["created"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            failed_at: has_failed.then_some(self.at),
            version: self.version(payment::refund_rank(&status)),
            status,
        });
        Ok(())
    }

    fn dispute(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "dispute";
        let status = required_text(object, OBJECT, "status")?;
        let known_status = DisputeStatus::of(&status);
        let is_closed = matches!(
            known_status,
            DisputeStatus::Won
                | DisputeStatus::Lost
                | DisputeStatus::WarningClosed
                | DisputeStatus::ChargeRefunded
                | DisputeStatus::Prevented
        );
        // Older disputes name one.
        let listed = match at(object, "balance_transactions") {
            Some(list) => Some(list),
            None => at(object, "balance_transaction"),
        };
        let transactions = match listed {
            Some(Value::Array(transactions)) => Some(transactions.iter().collect()),
            Some(Value::Null) => Some(Vec::new()),
            Some(one) => Some(vec![one]),
            None => None,
        };
        let mut ids = BTreeSet::new();
        for transaction in transactions.iter().flatten() {
            ids.extend(
                id(transaction, &["id"]).or_else(|| transaction.as_str().map(str::to_owned)),
            );
            self.expanded_transaction(Some(transaction), id(object, &["id"]), facts)?;
        }
        if let Some(charge) = at(object, "charge").filter(|charge| charge.is_object()) {
            self.charge(charge, facts)?;
        }
        facts.disputes.keep(Dispute {
            stripe_dispute_id: required_text(object, OBJECT, "id")?,
            stripe_charge_id: id(object, &["charge"]),
            stripe_payment_intent_id: id(object, &["payment_intent"]),
            amount_cents: required_int(object, OBJECT, &["amount"], "amount")?,
            currency: currency(object, &["currency"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "currency",
            })?,
            reason: text(object, &["reason"]),
            balance_transaction_ids: transactions.map(|_| ids),
            funds_withdrawn_at: (self.event_type == "charge.dispute.funds_withdrawn")
                .then_some(self.at),
            funds_reinstated_at: (self.event_type == "charge.dispute.funds_reinstated")
                .then_some(self.at),
            // Only an event shows when it was decided.
            closed_at: (is_closed && !self.is_fetched()).then_some(self.at),
            evidence_due_by: time(object, &["evidence_details.due_by"]),
            created_at: time(object, &["created"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            version: self.version(payment::dispute_rank(&status)),
            status,
        });
        Ok(())
    }

    /// Reads a balance transaction that was expanded in place of its id, in the object that moved it. One without its
    /// figures is a name only.
    fn expanded_transaction(
        &self,
        transaction: Option<&Value>,
        source_id: Option<String>,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        let shows_figures = |one: &&Value| {
            int(one, &["amount"]).is_some()
                && int(one, &["fee"]).is_some()
                && currency(one, &["currency"]).is_some()
        };
        match transaction.filter(shows_figures) {
            Some(transaction) => self.balance_transaction(transaction, source_id, facts),
            None => Ok(()),
        }
    }

    fn balance_transaction(
        &self,
        object: &Value,
        carrier_id: Option<String>,
        facts: &mut Objects,
    ) -> Result<(), Error> {
        const OBJECT: &str = "balance transaction";
        let amount_cents = required_int(object, OBJECT, &["amount"], "amount")?;
        let fee_cents = required_int(object, OBJECT, &["fee"], "fee")?;
        let kind = text(object, &["type"]).unwrap_or_else(|| "adjustment".to_owned());
        let source_id = id(object, &["source"]).or(carrier_id);
        let category = || balance::reporting_category(&kind, source_id.as_deref(), amount_cents);
        facts.balance_transactions.keep(BalanceTransaction {
            stripe_balance_transaction_id: required_text(object, OBJECT, "id")?,
            reporting_category: text(object, &["reporting_category"])
                .unwrap_or_else(|| category().to_owned()),
            balance_type: text(object, &["balance_type"]).unwrap_or_else(|| "payments".to_owned()),
            currency: currency(object, &["currency"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "currency",
            })?,
            amount_cents,
            fee_cents,
            net_cents: amount_cents - fee_cents,
            fee_details: at(object, "fee_details").cloned().unwrap_or_default(),
            exchange_rate: decimal(object, &["exchange_rate"]),
            source_kind: None,
            payment_key: None,
            description: text(object, &["description"]),
            // Otherwise it was there when it was first shown.
            created_at: time(object, &["created"]).unwrap_or(self.at),
            available_at: time(object, &["available_on"]),
            // Where it was listed of one payout, the list says of which.
            stripe_payout_id: id(object, &["payout"]),
            version: self.version(0),
            source_id,
            kind,
        });
        Ok(())
    }

    fn payout(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "payout";
        let status = required_text(object, OBJECT, "status")?;
        for path in ["balance_transaction", "failure_balance_transaction"] {
            self.expanded_transaction(at(object, path), id(object, &["id"]), facts)?;
        }
        let reconciliation_status = text(object, &["reconciliation_status"]);
        // More may be assigned to it as long as Stripe has not made it up.
        let is_listed = flag(object, &["balance_transactions.has_more"]) == Some(false)
            && reconciliation_status.as_deref() != Some("in_progress");
        facts.payouts.keep(Payout {
            stripe_payout_id: required_text(object, OBJECT, "id")?,
            amount_cents: required_int(object, OBJECT, &["amount"], "amount")?,
            currency: currency(object, &["currency"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "currency",
            })?,
            automatic: flag(object, &["automatic"]).unwrap_or(false),
            method: text(object, &["method"]),
            arrival_on: time(object, &["arrival_date", "date"]).map(day_of),
            trace_id: text(object, &["trace_id.value", "trace_id"]),
            reconciliation_status,
            stripe_balance_transaction_id: id(object, &["balance_transaction"]),
            failure_balance_transaction_id: id(object, &["failure_balance_transaction"]),
            failure_code: text(object, &["failure_code"]),
            created_at: time(object, &["created", "date"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            transactions_listed_at: is_listed.then_some(self.at),
            version: self.version(Payout::rank(&status, self.event_type)),
            status,
        });
        Ok(())
    }

    fn tax_rate(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        facts.tax_rates.keep(TaxRate {
            stripe_tax_rate_id: required_text(object, "tax rate", "id")?,
            display_name: text(object, &["display_name"]),
            percentage: decimal(object, &["percentage"]),
            country: text(object, &["country"]),
            state: text(object, &["state"]),
            jurisdiction: text(object, &["jurisdiction"]),
            tax_type: text(object, &["tax_type"]),
            inclusive: flag(object, &["inclusive"]),
            created_at: time(object, &["created"]),
            version: self.version(type_rank(self.event_type)),
        });
        Ok(())
    }

    fn credit_note(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        const OBJECT: &str = "credit note";
        let status = if self.event_type == "credit_note.voided" {
            "void".to_owned()
        } else {
            text(object, &["status"]).unwrap_or_else(|| "issued".to_owned())
        };
        let amount_cents = required_int(object, OBJECT, &["amount", "total"], "amount")?;
        let tax_breakdown = taxes(object, &["total_taxes", "tax_amounts"]);
        let tax_in_total = || {
            let total = int(object, &["total"])?;
            Some(total - int(object, &["total_excluding_tax"])?)
        };
        let is_post_payment = text(object, &["type"]).as_deref() == Some("post_payment");
        facts.credit_notes.keep(CreditNote {
            stripe_credit_note_id: required_text(object, OBJECT, "id")?,
            stripe_invoice_id: required_id(object, OBJECT, &["invoice"], "invoice")?,
            stripe_customer_id: id(object, &["customer"]),
            amount_cents,
            pre_payment_cents: int(object, &["pre_payment_amount"]).unwrap_or(if is_post_payment {
                0
            } else {
                amount_cents
            }),
            tax_cents: sum_of(object, "total_taxes", "amount")
                .or_else(|| sum_of(object, "tax_amounts", "amount"))
                .or_else(tax_in_total)
                .unwrap_or(0),
            tax_breakdown: tax_breakdown.into(),
            out_of_band_cents: int(object, &["out_of_band_amount"]).unwrap_or(0),
            refunds: note_refunds(object),
            currency: currency(object, &["currency"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "currency",
            })?,
            reason: text(object, &["reason"]),
            voided_at: time(object, &["voided_at"]).or((status == "void").then_some(self.at)),
            created_at: time(object, &["created"]).ok_or(Error::MissingField {
                object: OBJECT,
                field: "created",
            })?,
            version: self.version(CreditNote::rank(&status)),
            status,
        });
        Ok(())
    }

    fn price(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        let is_deleted = self.event_type.ends_with(".deleted");
        let price = price(object).ok_or(Error::MissingField {
            object: "price",
            field: "id",
        })?;
        facts.prices.keep(PriceSnapshot {
            price,
            metadata: metadata(object),
            active: flag(object, &["active"]),
            deleted_at: is_deleted.then_some(self.at),
            created_at: time(object, &["created"]),
            version: self.version(type_rank(self.event_type)),
        });
        Ok(())
    }

    fn coupon(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        let coupon = coupon(object).ok_or(Error::MissingField {
            object: "coupon",
            field: "duration",
        })?;
        facts.coupons.keep(CouponSnapshot {
            coupon,
            deleted_at: self.event_type.eq("coupon.deleted").then_some(self.at),
            created_at: time(object, &["created"]),
            version: self.version(type_rank(self.event_type)),
        });
        Ok(())
    }

    /// Reads `customer.discount.*`: the coupon, and the id of the discount that applies it.
    fn discount(&self, object: &Value, facts: &mut Objects) -> Result<(), Error> {
        let read = discount(object).ok_or(Error::MissingField {
            object: "discount",
            field: "coupon",
        })?;
        self.keep_discount(object, read, None, facts);
        Ok(())
    }

    /// The discounts that a subscription or an item of it lists. Also collects what they say about coupons and ids.
    fn discounts(
        &self,
        object: &Value,
        subscription: Option<String>,
        facts: &mut Objects,
    ) -> Vec<Discount> {
        let listed = at(object, "discounts")
            .and_then(Value::as_array)
            .filter(|l| !l.is_empty());
        let single = at(object, "discount").filter(|discount| !discount.is_null());
        let values: Vec<&Value> = match listed {
            Some(listed) => listed.iter().collect(),
            None => single.into_iter().collect(),
        };
        let mut discounts = Vec::new();
        for value in values {
            let Some(read) = discount(value) else {
                continue;
            };
            // In one shape the ids are listed and the object is beside them.
            let (value, read) = match single.and_then(|single| Some((single, discount(single)?))) {
                Some((single, known))
                    if !value.is_object()
                        && known.stripe_discount_id == read.stripe_discount_id =>
                {
                    (single, known)
                }
                _ => (value, read),
            };
            if value.is_object() {
                self.keep_discount(value, read.clone(), subscription.clone(), facts);
            }
            discounts.push(read);
        }
        discounts
    }

    fn keep_discount(
        &self,
        object: &Value,
        read: Discount,
        subscription: Option<String>,
        facts: &mut Objects,
    ) {
        let deleted_at = (self.event_type == "customer.discount.deleted").then_some(self.at);
        let ends = [read.ends_at, deleted_at];
        // One of an invoice is nobody's recurring discount.
        let is_of_invoice = id(object, &["invoice", "invoice_item"]).is_some();
        if let Some(stripe_discount_id) = read.stripe_discount_id {
            facts.discounts.keep(DiscountSnapshot {
                stripe_discount_id,
                stripe_coupon_id: read.stripe_coupon_id,
                stripe_customer_id: id(object, &["customer"]).filter(|_| !is_of_invoice),
                stripe_subscription_id: id(object, &["subscription"]).or(subscription),
                ended_at: ends.into_iter().flatten().min(),
                created_at: read.starts_at,
                version: self.version(type_rank(self.event_type)),
            });
        }
        if let Some(coupon) = read.coupon {
            facts.coupons.keep(CouponSnapshot {
                coupon,
                deleted_at: None,
                created_at: at(object, "source.coupon")
                    .or_else(|| at(object, "coupon"))
                    .and_then(|coupon| time(coupon, &["created"])),
                version: self.version(0),
            });
        }
    }
}

fn type_rank(event_type: &str) -> i32 {
    if event_type.ends_with(".created") {
        1
    } else if event_type.ends_with(".deleted") {
        3
    } else {
        2
    }
}

/// The items, and whether there is one without a price.
fn items(object: &Value, source: &Source<'_>, facts: &mut Objects) -> (Vec<Item>, bool) {
    let mut items = Vec::new();
    let mut has_unreadable = false;
    for item in at(object, "items.data")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let terms = ["price", "plan"]
            .iter()
            .find_map(|path| at(item, path).filter(|terms| !terms.is_null()))
            .and_then(price);
        let Some(terms) = terms else {
            has_unreadable = true;
            continue;
        };
        items.push(Item {
            price: terms,
            quantity: int(item, &["quantity"]).unwrap_or(1),
            quantity_decimal: fraction(item),
            discounts: source.discounts(item, id(object, &["id"]), facts),
        });
    }
    // Before items there was one plan.
    if items.is_empty()
        && let Some(terms) = at(object, "plan").and_then(price)
    {
        items.push(Item {
            price: terms,
            quantity: int(object, &["quantity"]).unwrap_or(1),
            quantity_decimal: fraction(object),
            discounts: Vec::new(),
        });
    }
    (items, has_unreadable)
}

/// The terms of a price or a legacy plan, wherever they are.
fn price(object: &Value) -> Option<Price> {
    let stripe_price_id = id(object, &["id"]).or_else(|| object.as_str().map(str::to_owned))?;
    let interval = text(object, &["recurring.interval", "interval"]);
    let tiers = at(object, "tiers")
        .and_then(Value::as_array)
        .filter(|tiers| !tiers.is_empty());
    Some(Price {
        stripe_price_id,
        stripe_product_id: id(object, &["product"]),
        currency: currency(object, &["currency"]),
        unit_amount_decimal: decimal(
            object,
            &[
                "unit_amount_decimal",
                "unit_amount",
                "amount_decimal",
                "amount",
            ],
        ),
        billing_scheme: text(object, &["billing_scheme"]),
        tiers: tiers.map(|tiers| tiers.iter().map(tier).collect()),
        tiers_mode: text(object, &["tiers_mode"]),
        currency_options: at(object, "currency_options")
            .and_then(Value::as_object)
            .map(currency_options),
        transform_quantity: at(object, "transform_quantity")
            .or_else(|| at(object, "transform_usage"))
            .and_then(|transform| {
                Some(TransformQuantity {
                    divide_by: int(transform, &["divide_by"])?,
                    round: text(transform, &["round"])?,
                })
            }),
        interval,
        interval_count: int(object, &["recurring.interval_count", "interval_count"])
            .and_then(|count| i32::try_from(count).ok()),
        usage_type: text(object, &["recurring.usage_type", "usage_type"]),
        lookup_key: text(object, &["lookup_key"]),
        nickname: text(object, &["nickname", "name"]),
        plan: text(object, &["metadata.plan"]),
    })
}

fn currency_options(options: &Map<String, Value>) -> BTreeMap<Currency, CurrencyOption> {
    let mut read = BTreeMap::new();
    for (code, option) in options {
        let Ok(currency) = Currency::parse(code) else {
            continue;
        };
        let tiers = filled(option, "tiers").map(|tiers| tiers.iter().map(tier).collect());
        let unit_amount_decimal = decimal(option, &["unit_amount_decimal", "unit_amount"]);
        // Tiers appear only when asked for: without them the option says nothing.
        if unit_amount_decimal.is_some() || tiers.is_some() {
            let option = CurrencyOption {
                unit_amount_decimal,
                tiers,
            };
            read.insert(currency, option);
        }
    }
    read
}

fn tier(tier: &Value) -> Tier {
    Tier {
        up_to: int(tier, &["up_to"]),
        unit_amount_decimal: decimal(tier, &["unit_amount_decimal", "unit_amount", "amount"]),
        flat_amount_decimal: decimal(tier, &["flat_amount_decimal", "flat_amount"]),
    }
}

fn coupon(object: &Value) -> Option<Coupon> {
    Some(Coupon {
        stripe_coupon_id: id(object, &["id"])?,
        percent_off: decimal(object, &["percent_off_precise", "percent_off"]),
        amount_off_cents: int(object, &["amount_off"]),
        currency: currency(object, &["currency"]),
        duration: text(object, &["duration"])?,
        duration_in_months: int(object, &["duration_in_months"])
            .and_then(|months| i32::try_from(months).ok()),
        applies_to: at(object, "applies_to").map(|applies_to| {
            let products = at(applies_to, "products").and_then(Value::as_array);
            let products = products.into_iter().flatten();
            products
                .filter_map(|product| product.as_str().map(str::to_owned))
                .collect()
        }),
        currency_options: at(object, "currency_options").map(|options| {
            let options = options.as_object().into_iter().flatten();
            let amounts = options.filter_map(|(code, option)| {
                Some((Currency::parse(code).ok()?, int(option, &["amount_off"])?))
            });
            amounts.collect()
        }),
    })
}

/// A discount from its object, or from its id alone.
fn discount(value: &Value) -> Option<Discount> {
    if let Some(id) = value.as_str() {
        return Some(Discount {
            stripe_discount_id: Some(id.to_owned()),
            stripe_coupon_id: None,
            coupon: None,
            starts_at: None,
            ends_at: None,
        });
    }
    let coupon_value = at(value, "source.coupon")
        .filter(|coupon| !coupon.is_null())
        .or_else(|| at(value, "coupon").filter(|coupon| !coupon.is_null()));
    let stripe_discount_id = text(value, &["id"]);
    if stripe_discount_id.is_none() && coupon_value.is_none() {
        return None;
    }
    Some(Discount {
        stripe_discount_id,
        stripe_coupon_id: id(value, &["source.coupon", "coupon"]),
        coupon: coupon_value.and_then(coupon),
        starts_at: time(value, &["start"]),
        ends_at: time(value, &["end"]),
    })
}

fn invoice_status(object: &Value, event_type: &str) -> Option<InvoiceStatus> {
    if event_type == "invoice.deleted" {
        return Some(InvoiceStatus::Void);
    }
    if let Some(word) = text(object, &["status"]) {
        // An invoice in an unknown state is owed until something says otherwise.
        return Some(InvoiceStatus::parse(&word).unwrap_or(InvoiceStatus::Open));
    }
    // Before 2018-11 three flags had the state.
    if flag(object, &["paid"])? {
        Some(InvoiceStatus::Paid)
    } else if flag(object, &["forgiven"]) == Some(true) {
        Some(InvoiceStatus::Uncollectible)
    } else if flag(object, &["closed"]) == Some(true) {
        Some(InvoiceStatus::Void)
    } else {
        Some(InvoiceStatus::Open)
    }
}

/// What the intents, the charges and Stripe's own payment records of an invoice's list have paid; `None` unless the list
/// is whole.
fn paid_by_stripe(object: &Value) -> Option<i64> {
    let payments = at(object, "payments.data")?.as_array()?;
    if flag(object, &["payments.has_more"]) == Some(true) {
        return None;
    }
    let paid = payments.iter().filter(|payment| {
        let reported_by = text(payment, &["payment.payment_record.reported_by"]);
        let is_by_stripe = id(payment, &["payment.payment_intent", "payment.charge"]).is_some()
            || reported_by.as_deref() == Some("stripe");
        is_by_stripe && text(payment, &["status"]).as_deref() == Some("paid")
    });
    Some(
        paid.filter_map(|payment| int(payment, &["amount_paid"]))
            .sum(),
    )
}

fn tax(object: &Value) -> i64 {
    sum_of(object, "total_taxes", "amount")
        .or_else(|| sum_of(object, "total_tax_amounts", "amount"))
        .or_else(|| int(object, &["tax"]))
        .unwrap_or(0)
}

/// The taxes by the first of these lists that has any, as Stripe has them. What a single tax is of may be shown by the
/// document alone.
fn taxes(object: &Value, lists: &[&str]) -> Vec<Value> {
    let mut taxes = lists
        .iter()
        .find_map(|list| filled(object, list))
        .cloned()
        .unwrap_or_default();
    if let [Value::Object(tax)] = taxes.as_mut_slice()
        && tax.get("taxable_amount").is_none_or(Value::is_null)
        && let Some(taxable) = int(object, &["total_excluding_tax"])
    {
        tax.insert("taxable_amount".to_owned(), taxable.into());
    }
    taxes
}

/// The part of these taxes that the prices contain.
fn inclusive_tax(taxes: &[Value]) -> i64 {
    let inclusive = taxes.iter().filter(|tax| {
        flag(tax, &["inclusive"]) == Some(true)
            || at(tax, "tax_behavior").and_then(Value::as_str) == Some("inclusive")
    });
    inclusive.filter_map(|tax| int(tax, &["amount"])).sum()
}

/// What billing credits took off before tax. The list has the discounts too.
fn pretax_credits(object: &Value) -> i64 {
    let credits = filled(object, "total_pretax_credit_amounts");
    let credits = credits.into_iter().flatten().filter(|credit| {
        at(credit, "type").and_then(Value::as_str) == Some("credit_balance_transaction")
    });
    credits.filter_map(|credit| int(credit, &["amount"])).sum()
}

/// The refunds that a credit note covers; older versions name one, without its amount.
fn note_refunds(object: &Value) -> Vec<NoteRefund> {
    let refunds = filled(object, "refunds").into_iter().flatten();
    let listed = refunds.map(|refund| NoteRefund {
        kind: text(refund, &["type"]).unwrap_or_else(|| "refund".to_owned()),
        amount_cents: int(refund, &["amount_refunded"]),
        stripe_refund_id: id(refund, &["refund"]),
        stripe_payment_record_id: id(refund, &["payment_record_refund.payment_record"]),
    });
    let single = id(object, &["refund"]).map(|refund| NoteRefund {
        kind: "refund".to_owned(),
        amount_cents: None,
        stripe_refund_id: Some(refund),
        stripe_payment_record_id: None,
    });
    let mut covered: Vec<NoteRefund> = listed.collect();
    if covered.is_empty() {
        covered.extend(single);
    }
    covered
}

/// The sum of a field over a list; `None` when the list is missing or empty.
fn sum_of(object: &Value, list: &str, field: &str) -> Option<i64> {
    filled(object, list)?
        .iter()
        .map(|entry| int(entry, &[field]).unwrap_or(0))
        .try_fold(0_i64, i64::checked_add)
}

/// A list that is not empty. An empty one must not hide an older field.
fn filled<'a>(object: &'a Value, list: &str) -> Option<&'a Vec<Value>> {
    at(object, list)?.as_array().filter(|list| !list.is_empty())
}

fn lines(object: &Value) -> Vec<Line> {
    let lines = at(object, "lines.data")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    lines.map(line).collect()
}

fn line(object: &Value) -> Line {
    let quantity = int(object, &["quantity"]);
    let unit_amount_decimal = decimal(
        object,
        &[
            "pricing.unit_amount_decimal",
            "price.unit_amount_decimal",
            "price.unit_amount",
            "plan.amount_decimal",
            "plan.amount",
        ],
    );
    Line {
        description: text(object, &["description"]),
        quantity,
        quantity_decimal: decimal(object, &["quantity_decimal", "quantity"]),
        unit_price_cents: unit_amount_decimal
            .as_deref()
            .and_then(|amount| amount.parse().ok()),
        unit_amount_decimal,
        total_cents: int(object, &["amount", "amount_excluding_tax"]).unwrap_or(0),
        currency: currency(object, &["currency"]),
        price: id(object, &["pricing.price_details.price", "price", "plan"]),
        product: id(
            object,
            &[
                "pricing.price_details.product",
                "price.product",
                "plan.product",
            ],
        ),
        proration: flag(
            object,
            &[
                "parent.subscription_item_details.proration",
                "parent.invoice_item_details.proration",
                "proration",
            ],
        )
        .unwrap_or(false),
        period_start: time(object, &["period.start"]),
        period_end: time(object, &["period.end"]),
    }
}

fn subscription_of_lines(object: &Value) -> Option<String> {
    let lines = at(object, "lines.data")?.as_array()?;
    lines.iter().find_map(|line| {
        id(
            line,
            &[
                "parent.subscription_item_details.subscription",
                "subscription",
            ],
        )
    })
}

/// The period of the lines without prorations (`invoice.period_*` is the period before it).
fn service_period(lines: &[Line]) -> (Option<Timestamp>, Option<Timestamp>) {
    let regular = lines.iter().filter(|line| !line.proration).count() > 0;
    let counted = || lines.iter().filter(|line| !regular || !line.proration);
    (
        counted().filter_map(|line| line.period_start).min(),
        counted().filter_map(|line| line.period_end).max(),
    )
}

// Reads one value: from the first path that has it.

/// The value at a dotted path. A number in the path is an index.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    // Most paths are one key; looking for the dot byte by byte beats the search for a character.
    let (key, rest) = match path.bytes().position(|byte| byte == b'.') {
        Some(dot) => (&path[..dot], Some(&path[dot + 1..])),
        None => (path, None),
    };
    let found = match value {
        Value::Object(fields) => fields.get(key)?,
        Value::Array(elements) => elements.get(key.parse::<usize>().ok()?)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    match rest {
        Some(rest) => at(found, rest),
        None => Some(found),
    }
}

fn first<'a, T>(
    value: &'a Value,
    paths: &[&str],
    read: impl Fn(&'a Value) -> Option<T>,
) -> Option<T> {
    paths
        .iter()
        .find_map(|path| at(value, path).and_then(&read))
}

fn text(value: &Value, paths: &[&str]) -> Option<String> {
    first(value, paths, |found| {
        found
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    })
}

/// A whole number of a size that can be summed. A larger one counts as missing: its event is parked, instead of making
/// the sums of its day overflow for every other event.
fn int(value: &Value, paths: &[&str]) -> Option<i64> {
    first(value, paths, Value::as_i64).filter(|number| number.unsigned_abs() <= LARGEST_NUMBER)
}

fn flag(value: &Value, paths: &[&str]) -> Option<bool> {
    first(value, paths, Value::as_bool)
}

fn time(value: &Value, paths: &[&str]) -> Option<Timestamp> {
    first(value, paths, |found| {
        Timestamp::from_second(found.as_i64()?).ok()
    })
}

fn currency(value: &Value, paths: &[&str]) -> Option<Currency> {
    first(value, paths, |found| Currency::parse(found.as_str()?).ok())
}

/// An id, given as text or by the expanded object.
fn id(value: &Value, paths: &[&str]) -> Option<String> {
    first(value, paths, |found| match found {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Object(object) => object.get("id")?.as_str().map(str::to_owned),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            None
        }
    })
}

/// A decimal as text, from text or number, without binary arithmetic.
fn decimal(value: &Value, paths: &[&str]) -> Option<String> {
    first(value, paths, |found| match found {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    })
}

/// The user that a reference names: the application's ids are whole numbers.
fn user_id(value: &Value) -> Option<i32> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().and_then(|id| i32::try_from(id).ok()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The exact quantity of an item, when it is not whole.
fn fraction(item: &Value) -> Option<String> {
    let quantity = decimal(item, &["quantity_decimal"])?;
    let (_, fraction) = quantity.split_once('.')?;
    let is_whole = fraction.chars().all(|digit| digit == '0');
    (!is_whole).then_some(quantity)
}

fn metadata(object: &Value) -> Value {
    match at(object, "metadata") {
        Some(Value::Object(metadata)) => Value::Object(metadata.clone()),
        _ => Value::Object(Map::new()),
    }
}

fn required_text(
    value: &Value,
    object: &'static str,
    field: &'static str,
) -> Result<String, Error> {
    text(value, &[field]).ok_or(Error::MissingField { object, field })
}

fn required_id(
    value: &Value,
    object: &'static str,
    paths: &[&str],
    field: &'static str,
) -> Result<String, Error> {
    id(value, paths).ok_or(Error::MissingField { object, field })
}

fn required_int(
    value: &Value,
    object: &'static str,
    paths: &[&str],
    field: &'static str,
) -> Result<i64, Error> {
    int(value, paths).ok_or(Error::MissingField { object, field })
}
