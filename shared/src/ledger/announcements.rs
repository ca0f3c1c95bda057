//! The domain events that a Stripe event causes.
//!
//! Each stands for one fact and is keyed by it, so that a fact which arrives in several events, or twice, is announced
//! once. They carry ids and amounts only.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::decision::{LedgerChanges, Said};
use domain::payment::{Charge, Payment};
use domain::stripe_objects::balance::Payout;
use domain::stripe_objects::invoice::{Invoice, InvoiceStatus};
use domain::stripe_objects::objects::Objects;
use domain::stripe_objects::status::SubscriptionStatus;
use domain::stripe_objects::subscription::{Subscription, is_entitled};
use store::outbox::NewMessage;
use stripe::event::Event;

/// The messages to publish after the commit. What follows from several events is said to be of the last one.
pub(super) fn announce(said: &[Said<'_>], changes: &LedgerChanges) -> Vec<NewMessage> {
    let events = said.iter().filter_map(|one| Some((one.event?, &one.facts)));
    let events: Vec<_> = events
        .filter_map(|(event, facts)| Some((event.created_at?, event, facts)))
        .collect();
    let Some(at) = events.iter().map(|(at, ..)| *at).max() else {
        return Vec::new();
    };
    let mut announcements = Announcements {
        at,
        messages: Vec::new(),
    };
    for payment in &changes.payments {
        announcements.payment(payment);
    }
    announcements.unknown_plans(changes);
    for (at, event, facts) in events {
        announcements.at = at;
        announcements.event(event, facts, changes);
    }
    announcements.messages
}

struct Announcements {
    at: Timestamp,
    messages: Vec<NewMessage>,
}

impl Announcements {
    /// Adds one message. `subject` distinguishes this fact from others of its kind.
    fn add(&mut self, detail_type: &'static str, subject: &str, data: Value) {
        let dedupe_key = format!("{detail_type}:{subject}");
        let detail = json!({
            "event_id": dedupe_key,
            "occurred_at": self.at,
            "subject": subject,
            "data": data,
        });
        self.messages.push(NewMessage {
            detail_type,
            dedupe_key,
            detail,
        });
    }

    /// What one event says.
    fn event(&mut self, event: &Event, facts: &Objects, changes: &LedgerChanges) {
        let at = self.at;
        for charge in facts.charges.values().filter(|charge| charge.has_failed()) {
            self.add(
                "payment.failed",
                &charge.stripe_charge_id,
                json!({
                    "stripe_charge_id": charge.stripe_charge_id,
                    "stripe_payment_intent_id": charge.stripe_payment_intent_id,
                    "stripe_customer_id": charge.stripe_customer_id,
                    "amount_cents": charge.amount_cents,
                    "currency": charge.currency,
                    "failure_code": charge.failure_code,
                }),
            );
        }
        if event.event_type == "payment_intent.payment_failed" {
            for intent in facts.payment_intents.values() {
                // The charge is the attempt. Without one, the refusal itself is.
                let subject = intent.latest_charge_id.clone().unwrap_or_else(|| {
                    format!("{}@{}", intent.stripe_payment_intent_id, at.as_second())
                });
                self.add(
                    "payment.failed",
                    &subject,
                    json!({
                        "stripe_charge_id": intent.latest_charge_id,
                        "stripe_payment_intent_id": intent.stripe_payment_intent_id,
                        "stripe_customer_id": intent.stripe_customer_id,
                        "amount_cents": intent.amount_cents,
                        "currency": intent.currency,
                        "failure_code": intent.failure_code,
                    }),
                );
            }
        }
        if event.event_type == "charge.refunded" {
            for charge in facts.charges.values() {
                self.refunded(charge, &changes.payments);
            }
        }
        for invoice in facts.invoices.values() {
            self.invoice(event, invoice);
        }
        for subscription in facts.subscriptions.values() {
            self.subscription(event, subscription);
        }
        self.unknown_plans_of_sessions(facts, changes);
        for payout in facts.payouts.values() {
            self.payout(payout);
        }
        for dispute in facts
            .disputes
            .values()
            .filter(|dispute| !dispute.is_inquiry())
        {
            let data = json!({
                "stripe_dispute_id": dispute.stripe_dispute_id,
                "stripe_charge_id": dispute.stripe_charge_id,
                "stripe_payment_intent_id": dispute.stripe_payment_intent_id,
                "amount_cents": dispute.amount_cents,
                "currency": dispute.currency,
                "reason": dispute.reason,
                "status": dispute.status,
                "evidence_due_by": dispute.evidence_due_by,
            });
            if dispute.closed_at.is_some() {
                self.add("dispute.closed", &dispute.stripe_dispute_id, data.clone());
            }
            self.add("dispute.opened", &dispute.stripe_dispute_id, data);
        }
    }

    fn payment(&mut self, payment: &Payment) {
        if payment.succeeded_at.is_none() {
            return;
        }
        self.add(
            "payment.succeeded",
            &payment.payment_key,
            json!({
                "payment_key": payment.payment_key,
                "stripe_customer_id": payment.stripe_customer_id,
                "stripe_invoice_id": payment.stripe_invoice_id,
                "amount_cents": payment.amount_cents,
                "currency": payment.currency,
            }),
        );
    }

    /// The amount of a payment that has been refunded by now. Money that never came is not refunded: an authorisation
    /// that was released whole, or the part of it beyond what was captured.
    fn refunded(&mut self, charge: &Charge, payments: &[Payment]) {
        let charge_id = &charge.stripe_charge_id;
        let Some(payment) = payments.iter().find(|payment| {
            payment.stripe_charge_id.as_ref() == Some(charge_id) && payment.succeeded_at.is_some()
        }) else {
            return;
        };
        let shown = charge.refund_totals.values().copied().max().unwrap_or(0);
        let total = shown - payment.released_cents;
        if total <= 0 {
            return;
        }
        self.add(
            "payment.refunded",
            &format!("{charge_id}@{total}"),
            json!({
                "stripe_charge_id": charge_id,
                "stripe_payment_intent_id": charge.stripe_payment_intent_id,
                "stripe_customer_id": charge.stripe_customer_id,
                "refund_amount_cents": total,
                "amount_cents": payment.amount_cents,
                "currency": charge.currency,
            }),
        );
    }

    fn payout(&mut self, payout: &Payout) {
        let detail_type = match payout.status.as_str() {
            "paid" => "payout.paid",
            "failed" => "payout.failed",
            _ => return,
        };
        self.add(
            detail_type,
            &payout.stripe_payout_id,
            json!({
                "stripe_payout_id": payout.stripe_payout_id,
                "amount_cents": payout.amount_cents,
                "currency": payout.currency,
                "arrival_on": payout.arrival_on,
                "failure_code": payout.failure_code,
            }),
        );
    }

    fn invoice(&mut self, event: &Event, invoice: &Invoice) {
        let data = json!({
            "stripe_invoice_id": invoice.stripe_invoice_id,
            "stripe_customer_id": invoice.stripe_customer_id,
            "stripe_subscription_id": invoice.stripe_subscription_id,
            "total_cents": invoice.total_cents,
            "amount_due_cents": invoice.amount_remaining_cents,
            "currency": invoice.currency,
        });
        let id = &invoice.stripe_invoice_id;
        if invoice.status != InvoiceStatus::Draft && invoice.deleted_at.is_none() {
            self.add("invoice.finalized", id, data.clone());
        }
        if invoice.status == InvoiceStatus::Paid {
            self.add("invoice.paid", id, data.clone());
        }
        if event.event_type == "invoice.overdue" {
            self.add("invoice.overdue", id, data);
        }
    }

    fn subscription(&mut self, event: &Event, subscription: &Subscription) {
        let id = &subscription.stripe_subscription_id;
        let data = json!({
            "stripe_subscription_id": id,
            "stripe_customer_id": subscription.stripe_customer_id,
            "status": subscription.status,
            "trial_end": subscription.trial_end,
            "current_period_end": subscription.current_period_end,
            "ended_at": subscription.ended_at,
        });
        match SubscriptionStatus::of(&subscription.status) {
            SubscriptionStatus::Active | SubscriptionStatus::Trialing => {
                self.add("subscription.activated", id, data.clone())
            }
            SubscriptionStatus::PastDue => {
                let period = subscription
                    .current_period_start
                    .map_or(0, Timestamp::as_second);
                self.add(
                    "subscription.past_due",
                    &format!("{id}@{period}"),
                    data.clone(),
                );
            }
            SubscriptionStatus::Canceled => {
                self.add("subscription.canceled", id, data.clone());
            }
            SubscriptionStatus::Incomplete
            | SubscriptionStatus::IncompleteExpired
            | SubscriptionStatus::Unpaid
            | SubscriptionStatus::Paused
            | SubscriptionStatus::Unknown => {}
        }
        if event.event_type == "customer.subscription.trial_will_end" {
            let end = subscription.trial_end.map_or(0, Timestamp::as_second);
            self.add(
                "subscription.trial_ending",
                &format!("{id}@{end}"),
                data.clone(),
            );
        }
        if changes_price(event) {
            self.add("subscription.plan_changed", &event.event_id, data);
        }
    }

    /// Announces what was paid for although nothing names its plan. The plan is never guessed.
    fn unknown_plans(&mut self, changes: &LedgerChanges) {
        for id in changes
            .computed
            .keys()
            .filter(|id| !names_plan(changes, id))
        {
            let subscription = changes.objects.subscriptions.get(id);
            let entitled = subscription.filter(|one| is_entitled(&one.status));
            if let Some(subscription) = entitled {
                self.unknown_plan(id, Some(&subscription.stripe_customer_id));
            }
        }
    }

    fn unknown_plans_of_sessions(&mut self, facts: &Objects, changes: &LedgerChanges) {
        for session in facts.checkout_sessions.values() {
            if let Some(id) = &session.stripe_subscription_id
                && session.is_paid()
                && session.plan_name.is_none()
                && !names_plan(changes, id)
            {
                self.unknown_plan(id, session.stripe_customer_id.as_ref());
            }
        }
    }

    fn unknown_plan(&mut self, id: &str, customer: Option<&String>) {
        let data = json!({"stripe_subscription_id": id, "stripe_customer_id": customer});
        self.add("subscription.plan_unknown", id, data);
    }
}

fn names_plan(changes: &LedgerChanges, id: &str) -> bool {
    let computed = changes.computed.get(id);
    computed.is_some_and(|computed| computed.plan_name.is_some())
}

/// Whether an update says that the price of an item has changed.
fn changes_price(event: &Event) -> bool {
    let Some(previous) = &event.previous_attributes else {
        return false;
    };
    if event.event_type != "customer.subscription.updated" {
        return false;
    }
    let price_ids = |object: &Value| -> Vec<String> {
        let items = object.pointer("/items/data").and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(|item| {
                item.pointer("/price/id")
                    .or_else(|| item.pointer("/plan/id"))
            })
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    };
    let before = price_ids(previous);
    let plan_before = previous.pointer("/plan/id");
    (!before.is_empty() && before != price_ids(&event.object))
        || plan_before.is_some_and(|plan| Some(plan) != event.object.pointer("/plan/id"))
}
