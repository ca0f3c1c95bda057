//! The sequences every ledger of Stripe events has to get right in any order, with the figures
//! they come to worked out by hand.
//!
//! Each scenario is an account of its own: its name in camel case is the prefix of all its ids,
//! ids are counted per kind, and so the second payment intent of `RenewalSuccess` is
//! `pi_3RenewalSuccess0002`, and its customer's first invoice number `RENEWALSUCCESS1-0001`.
//!
//! No event of any shape expands a charge's balance transaction, so every fee is the estimate:
//! 2.9 % (half-even) + 30, nothing fixed in yen. 2900 × 2.9 % = 84.1 → 84, + 30 = 114, which
//! leaves 2786. The fee of a dispute is expanded in all of them: 15.00, actual. A renewal is
//! charged when its draft is an hour old.

use jiff::Timestamp;
use serde_json::Value;

use super::Shape;
use super::account::{Account, NewCoupon, NewPrice, Refusal};
use super::billing::{Buyer, NewSubscription, Proration};
use super::objects::Metadata;
use super::payments::Outcome::{Fails, FailsForGood, Succeeds};

/// A sequence of events with known figures.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The sequence in words, snake case.
    pub name: &'static str,
    /// The prefix of every id in it.
    pub prefix: &'static str,
    /// The application's user it is about; exists in no other scenario.
    pub user_id: i32,
    run: fn(&mut Account, Buyer<'static>) -> Result<(), Refusal>,
    expected: fn(&Scenario) -> Expected,
}

/// What a payment has to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPayment {
    /// `payment_history.payment_key`: the intent, or the invoice when paid out of band.
    pub key: String,
    /// `payment_history.status`.
    pub status: &'static str,
    /// Minor units.
    pub amount_cents: i64,
    /// Minor units, running total of what has not failed.
    pub refund_amount_cents: i64,
    /// `payment_history.stripe_fee_cents`, without the fee of a dispute.
    pub fee_cents: i64,
    /// `actual` or `estimated`; none while nothing is paid.
    pub fee_source: Option<&'static str>,
    /// Amount − fee − refunds − what is disputed.
    pub net_cents: i64,
    /// Of disputes that are open or lost.
    pub disputed_cents: i64,
    /// The earliest event that shows the success.
    pub succeeded_at: Option<Timestamp>,
    /// Shapes whose events alone do not show this payment: it takes a look-up at Stripe.
    pub by_lookup_in: &'static [Shape],
}

/// What a day has to come to: one row of `revenue_daily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpectedDay {
    /// UTC, `YYYY-MM-DD`.
    pub day: &'static str,
    /// Captured on the day.
    pub gross_cents: i64,
    /// Of the payments of the day and of the disputes withdrawn on it.
    pub fees_cents: i64,
    /// By the refund's date.
    pub refunds_cents: i64,
    /// Withdrawn less reinstated on the day.
    pub disputes_cents: i64,
    /// Number of payments in `gross_cents`.
    pub payments: i64,
    /// Number of failed attempts.
    pub failed_payments: i64,
    /// Shapes whose events alone do not show the day: it takes a look-up at Stripe.
    pub by_lookup_in: &'static [Shape],
}

/// The figures a scenario has to come to, worked out by hand from what happens in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Of all amounts, upper case.
    pub currency: &'static str,
    /// Every payment, and no other.
    pub payments: Vec<ExpectedPayment>,
    /// Every day on which money moved or an attempt failed, and no other, in the order of time.
    pub days: Vec<ExpectedDay>,
    /// At the end.
    pub mrr_cents: i64,
    /// In the order of time: kind and change (negative for contraction and churn).
    pub movements: Vec<(&'static str, i64)>,
    /// Every invoice: number and status.
    pub invoices: Vec<(String, &'static str)>,
    /// `users.plan` at the end, having begun as `free`.
    pub plan: &'static str,
}

/// Types a lean endpoint has not subscribed to: they say nothing the others do not.
const NOISE: &[&str] = &[
    "product.created",
    "payment_intent.created",
    "invoice.updated",
    "invoiceitem.created",
    "customer.updated",
];

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Scenario {
    /// The account at the end of the scenario, for tests that also ask it over HTTP.
    ///
    /// # Panics
    /// When the scenario does what a Stripe account refuses; that is a mistake in this file.
    #[must_use]
    pub fn account(&self) -> Account {
        // The first second of a month of 30 days: half a period is a whole number of days.
        let mut account = Account::new(self.prefix, at("2026-04-01T00:00:00Z"));
        (self.run)(&mut account, self.buyer()).expect("a scenario only does what Stripe allows");
        account
    }

    /// The events a lean endpoint receives, in the order Stripe made them. The same on every call.
    #[must_use]
    pub fn events(&self, shape: Shape) -> Vec<Value> {
        let mut events = self.all_events(shape);
        events.retain(|event| {
            event["type"]
                .as_str()
                .is_none_or(|kind| !NOISE.contains(&kind))
        });
        events
    }

    /// The same with the types that repeat what others say.
    #[must_use]
    pub fn all_events(&self, shape: Shape) -> Vec<Value> {
        self.account().events(shape)
    }

    /// The figures the scenario comes to.
    #[must_use]
    pub fn expected(&self) -> Expected {
        (self.expected)(self)
    }

    /// Who the scenario is about.
    #[must_use]
    pub fn buyer(&self) -> Buyer<'static> {
        Buyer {
            user_id: self.user_id,
            email: "buyer@example.com",
            name: "Sample Buyer",
            plan: "professional",
        }
    }

    /// A payment that succeeded and was left alone; its fee is the estimate.
    fn paid(
        &self,
        intent: u32,
        succeeded_at: &str,
        amount: i64,
        fee: i64,
        net: i64,
    ) -> ExpectedPayment {
        ExpectedPayment {
            fee_cents: fee,
            fee_source: Some("estimated"),
            net_cents: net,
            succeeded_at: Some(at(succeeded_at)),
            ..self.unpaid(intent, "succeeded", amount)
        }
    }

    /// A payment that never succeeded: no money, no fee.
    fn unpaid(&self, intent: u32, status: &'static str, amount: i64) -> ExpectedPayment {
        ExpectedPayment {
            key: format!("pi_3{}{intent:04}", self.prefix),
            status,
            amount_cents: amount,
            refund_amount_cents: 0,
            fee_cents: 0,
            fee_source: None,
            net_cents: 0,
            disputed_cents: 0,
            succeeded_at: None,
            by_lookup_in: &[],
        }
    }

    fn invoices(&self, statuses: &[&'static str]) -> Vec<(String, &'static str)> {
        (1..)
            .zip(statuses)
            .map(|(number, status)| {
                (
                    format!("{}1-{number:04}", self.prefix.to_uppercase()),
                    *status,
                )
            })
            .collect()
    }
}

impl Expected {
    /// The payments that events of `shape` alone show.
    #[must_use]
    pub fn payments_in(&self, shape: Shape) -> Vec<&ExpectedPayment> {
        self.payments
            .iter()
            .filter(|payment| !payment.by_lookup_in.contains(&shape))
            .collect()
    }

    /// The days that events of `shape` alone show.
    #[must_use]
    pub fn days_in(&self, shape: Shape) -> Vec<&ExpectedDay> {
        self.days
            .iter()
            .filter(|day| !day.by_lookup_in.contains(&shape))
            .collect()
    }
}

/// The instant an RFC 3339 text of this file names.
fn at(text: &str) -> Timestamp {
    text.parse().expect("instants in this file are well-formed")
}

fn items<'a>(items: &[(&'a str, i64)]) -> NewSubscription<'a> {
    NewSubscription {
        items: items.to_vec(),
        ..NewSubscription::default()
    }
}

/// The professional plan, 29.00 a month, bought through Checkout; answers the subscription.
fn professional(account: &mut Account, buyer: Buyer<'_>) -> Result<String, Refusal> {
    let price = account.create_price(&NewPrice::monthly("usd", 2900, "professional"));
    let (_, subscription) = account.checkout(buyer, &items(&[(&price, 1)]))?;
    Ok(subscription)
}

/// A customer without a subscription, linked to the user by its metadata.
fn customer(account: &mut Account, buyer: Buyer<'_>) -> String {
    let metadata = Metadata::from([("user_id".to_owned(), buyer.user_id.to_string())]);
    account.create_customer(Some(buyer.email), Some(buyer.name), metadata)
}

/// A day without anything on it yet.
fn on(day: &'static str) -> ExpectedDay {
    ExpectedDay {
        day,
        ..ExpectedDay::default()
    }
}

/// A day with one payment and nothing else.
fn paid_on(day: &'static str, gross_cents: i64, fees_cents: i64) -> ExpectedDay {
    ExpectedDay {
        gross_cents,
        fees_cents,
        payments: 1,
        ..on(day)
    }
}

/// A day with one failed attempt and nothing else.
fn failed_on(day: &'static str) -> ExpectedDay {
    ExpectedDay {
        failed_payments: 1,
        ..on(day)
    }
}

/// What nothing but payments without a subscription comes to.
fn only_payments(payments: Vec<ExpectedPayment>, days: Vec<ExpectedDay>) -> Expected {
    Expected {
        currency: "USD",
        payments,
        days,
        mrr_cents: 0,
        movements: Vec::new(),
        invoices: Vec::new(),
        plan: "free",
    }
}

/// Every scenario, each with ids, a customer and a user of its own.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "first_paid_subscription",
            prefix: "FirstPaid",
            user_id: 9001,
            run: |account, buyer| professional(account, buyer).map(drop),
            expected: |this| Expected {
                currency: "USD",
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-04-01", 2900, 114)],
                mrr_cents: 2900,
                movements: vec![("new", 2900)],
                invoices: this.invoices(&["paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "free_trial_then_conversion",
            prefix: "Trial",
            user_id: 9002,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("usd", 2900, "professional"));
                let trial = NewSubscription {
                    trial_days: Some(14),
                    ..items(&[(&price, 1)])
                };
                let (_, subscription) = account.checkout(buyer, &trial)?;
                account.set_now(at("2026-04-12T00:00:00Z"));
                account.announce_trial_end(&subscription)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            expected: |this| Expected {
                currency: "USD",
                // The trial's own invoice is over nothing: no payment.
                payments: vec![this.paid(1, "2026-04-15T01:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-04-15", 2900, 114)],
                mrr_cents: 2900,
                movements: vec![("new", 2900)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "renewal_success",
            prefix: "RenewalSuccess",
            user_id: 9003,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            expected: |this| Expected {
                currency: "USD",
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786),
                    this.paid(2, "2026-05-01T01:00:00Z", 2900, 114, 2786),
                ],
                days: vec![
                    paid_on("2026-04-01", 2900, 114),
                    paid_on("2026-05-01", 2900, 114),
                ],
                mrr_cents: 2900,
                movements: vec![("new", 2900)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "renewal_failure_then_recovery",
            prefix: "Recovery",
            user_id: 9004,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                let invoice = account.renew(&subscription, Fails)?;
                account.advance(3 * 86_400);
                account.retry(&invoice, Succeeds)
            },
            expected: |this| Expected {
                currency: "USD",
                // Both attempts are one intent, so one payment.
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786),
                    this.paid(2, "2026-05-04T01:00:00Z", 2900, 114, 2786),
                ],
                days: vec![
                    paid_on("2026-04-01", 2900, 114),
                    failed_on("2026-05-01"),
                    paid_on("2026-05-04", 2900, 114),
                ],
                mrr_cents: 2900,
                movements: vec![("new", 2900)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "exhausted_retries_then_canceled",
            prefix: "Exhausted",
            user_id: 9005,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                let invoice = account.renew(&subscription, Fails)?;
                account.advance(3 * 86_400);
                account.retry(&invoice, FailsForGood)
            },
            expected: |this| Expected {
                currency: "USD",
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786),
                    this.unpaid(2, "failed", 2900),
                ],
                days: vec![
                    paid_on("2026-04-01", 2900, 114),
                    failed_on("2026-05-01"),
                    failed_on("2026-05-04"),
                ],
                mrr_cents: 0,
                movements: vec![("new", 2900), ("churn", -2900)],
                invoices: this.invoices(&["paid", "open"]),
                plan: "free",
            },
        },
        Scenario {
            name: "one_off_payment",
            prefix: "OneOff",
            user_id: 9006,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                account.pay_once(&customer, 4900, "usd", Succeeds).map(drop)
            },
            expected: |this| {
                // 4900 × 2.9 % = 142.1 → 142, + 30.
                only_payments(
                    vec![this.paid(1, "2026-04-01T00:00:00Z", 4900, 172, 4728)],
                    vec![paid_on("2026-04-01", 4900, 172)],
                )
            },
        },
        Scenario {
            name: "one_off_payment_declined_then_paid",
            prefix: "OneOffRetry",
            user_id: 9007,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 4900, "usd", Fails)?;
                account.advance(60);
                account.confirm_intent(&intent, Succeeds)
            },
            expected: |this| {
                only_payments(
                    vec![this.paid(1, "2026-04-01T00:01:00Z", 4900, 172, 4728)],
                    // One row, and both of its attempts.
                    vec![ExpectedDay {
                        failed_payments: 1,
                        ..paid_on("2026-04-01", 4900, 172)
                    }],
                )
            },
        },
        Scenario {
            name: "one_off_payment_declined_then_canceled",
            prefix: "OneOffCanceled",
            user_id: 9008,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 4900, "usd", Fails)?;
                account.advance(60);
                account.cancel_intent(&intent)
            },
            expected: |this| {
                only_payments(
                    vec![this.unpaid(1, "canceled", 4900)],
                    vec![failed_on("2026-04-01")],
                )
            },
        },
        Scenario {
            name: "partial_then_full_refund",
            prefix: "Refunds",
            user_id: 9009,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 8000, "usd", Succeeds)?;
                account.advance(5 * 86_400);
                account.refund(&intent, 3000)?;
                account.advance(40 * 86_400);
                account.refund(&intent, 5000).map(drop)
            },
            expected: |this| {
                let payment = ExpectedPayment {
                    status: "refunded",
                    refund_amount_cents: 8000,
                    // 8000 × 2.9 % = 232, + 30; a refund does not give it back: 8000 − 262 − 8000.
                    ..this.paid(1, "2026-04-01T00:00:00Z", 8000, 262, -262)
                };
                // Gross stays in its month; each refund is on its own date: 5 and 40 days later.
                let days = vec![
                    paid_on("2026-04-01", 8000, 262),
                    ExpectedDay {
                        refunds_cents: 3000,
                        ..on("2026-04-06")
                    },
                    ExpectedDay {
                        refunds_cents: 5000,
                        ..on("2026-05-16")
                    },
                ];
                only_payments(vec![payment], days)
            },
        },
        Scenario {
            name: "refund_failed",
            prefix: "RefundFailed",
            user_id: 9010,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 6000, "usd", Succeeds)?;
                account.advance(86_400);
                account.refund(&intent, 1500)?;
                account.advance(86_400);
                let second = account.refund(&intent, 2000)?;
                account.advance(86_400);
                account.fail_refund(&second)
            },
            expected: |this| {
                let payment = ExpectedPayment {
                    status: "partially_refunded",
                    refund_amount_cents: 1500,
                    // 6000 × 2.9 % = 174, + 30; 6000 − 204 − 1500.
                    ..this.paid(1, "2026-04-01T00:00:00Z", 6000, 204, 4296)
                };
                // Neither the day of the 2000 nor the day it failed has a row.
                let days = vec![
                    paid_on("2026-04-01", 6000, 204),
                    ExpectedDay {
                        refunds_cents: 1500,
                        ..on("2026-04-02")
                    },
                ];
                only_payments(vec![payment], days)
            },
        },
        Scenario {
            name: "dispute_won",
            prefix: "DisputeWon",
            user_id: 9011,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 5000, "usd", Succeeds)?;
                account.advance(10 * 86_400);
                let dispute = account.dispute(&intent)?;
                account.advance(2 * 86_400);
                account.submit_evidence(&dispute)?;
                account.advance(30 * 86_400);
                account.close_dispute(&dispute, true)
            },
            expected: |this| {
                // 5000 × 2.9 % = 145, + 30. The dispute's own fee is not the payment's.
                let payment = this.paid(1, "2026-04-01T00:00:00Z", 5000, 175, 4825);
                let days = vec![
                    paid_on("2026-04-01", 5000, 175),
                    ExpectedDay {
                        fees_cents: 1500,
                        disputes_cents: 5000,
                        ..on("2026-04-11")
                    },
                    // 2 + 30 days later the money is back, the fee is not.
                    ExpectedDay {
                        disputes_cents: -5000,
                        ..on("2026-05-13")
                    },
                ];
                only_payments(vec![payment], days)
            },
        },
        Scenario {
            name: "dispute_lost",
            prefix: "DisputeLost",
            user_id: 9012,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let intent = account.pay_once(&customer, 5000, "usd", Succeeds)?;
                account.advance(10 * 86_400);
                let dispute = account.dispute(&intent)?;
                account.advance(30 * 86_400);
                account.close_dispute(&dispute, false)
            },
            expected: |this| {
                let payment = ExpectedPayment {
                    status: "disputed",
                    disputed_cents: 5000,
                    // 5000 − 175 − 5000.
                    ..this.paid(1, "2026-04-01T00:00:00Z", 5000, 175, -175)
                };
                // The money went on the day of the withdrawal; the closing moves nothing more.
                let days = vec![
                    paid_on("2026-04-01", 5000, 175),
                    ExpectedDay {
                        fees_cents: 1500,
                        disputes_cents: 5000,
                        ..on("2026-04-11")
                    },
                ];
                only_payments(vec![payment], days)
            },
        },
        Scenario {
            name: "upgrade_with_proration",
            prefix: "Upgrade",
            user_id: 9013,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                let enterprise =
                    account.create_price(&NewPrice::monthly("usd", 9900, "enterprise"));
                account.set_now(at("2026-04-16T00:00:00Z"));
                account.change(
                    &subscription,
                    Some(&enterprise),
                    None,
                    Proration::InvoiceNow(Succeeds),
                )
            },
            expected: |this| Expected {
                currency: "USD",
                // Half of the new month minus half of the old: 4950 − 1450.
                // 3500 × 2.9 % = 101.5 → 102 (half to even), + 30.
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786),
                    this.paid(2, "2026-04-16T00:00:00Z", 3500, 132, 3368),
                ],
                days: vec![
                    paid_on("2026-04-01", 2900, 114),
                    paid_on("2026-04-16", 3500, 132),
                ],
                mrr_cents: 9900,
                movements: vec![("new", 2900), ("expansion", 7000)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "enterprise",
            },
        },
        Scenario {
            name: "quantity_change",
            prefix: "Quantity",
            user_id: 9014,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("usd", 1000, "professional"));
                let (_, subscription) = account.checkout(buyer, &items(&[(&price, 3)]))?;
                account.set_now(at("2026-04-16T00:00:00Z"));
                account.change(&subscription, None, Some(5), Proration::NextInvoice)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            expected: |this| Expected {
                currency: "USD",
                // 5 seats, and half a month of 5 instead of 3: 5000 − 1500 + 2500.
                // 3000 × 2.9 % = 87, + 30; 6000 × 2.9 % = 174, + 30.
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 3000, 117, 2883),
                    this.paid(2, "2026-05-01T01:00:00Z", 6000, 204, 5796),
                ],
                days: vec![
                    paid_on("2026-04-01", 3000, 117),
                    paid_on("2026-05-01", 6000, 204),
                ],
                mrr_cents: 5000,
                movements: vec![("new", 3000), ("expansion", 2000)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "cancel_at_period_end",
            prefix: "CancelLater",
            user_id: 9015,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                account.set_now(at("2026-04-10T09:30:00Z"));
                account.cancel_at_period_end(&subscription, true)?;
                account.end_period(&subscription)
            },
            expected: |this| Expected {
                currency: "USD",
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-04-01", 2900, 114)],
                mrr_cents: 0,
                movements: vec![("new", 2900), ("churn", -2900)],
                invoices: this.invoices(&["paid"]),
                plan: "free",
            },
        },
        Scenario {
            name: "cancel_now",
            prefix: "CancelNow",
            user_id: 9016,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                account.set_now(at("2026-04-10T09:30:00Z"));
                account.cancel_now(&subscription)
            },
            expected: |this| Expected {
                currency: "USD",
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-04-01", 2900, 114)],
                mrr_cents: 0,
                movements: vec![("new", 2900), ("churn", -2900)],
                invoices: this.invoices(&["paid"]),
                plan: "free",
            },
        },
        Scenario {
            name: "invoice_voided",
            prefix: "Voided",
            user_id: 9017,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let invoice = account.create_invoice(&customer, "usd", &[("Consulting", 5000)])?;
                account.advance(60);
                account.send_invoice(&invoice)?;
                account.advance(86_400);
                account.by_request();
                account.void_invoice(&invoice)
            },
            expected: |this| Expected {
                invoices: this.invoices(&["void"]),
                ..only_payments(Vec::new(), Vec::new())
            },
        },
        Scenario {
            name: "paid_out_of_band",
            prefix: "OutOfBand",
            user_id: 9018,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let invoice = account.create_invoice(
                    &customer,
                    "usd",
                    &[("Consulting", 10_000), ("Travel", 2000)],
                )?;
                account.advance(60);
                account.send_invoice(&invoice)?;
                account.advance(12 * 86_400);
                account.pay_out_of_band(&invoice)
            },
            expected: |this| Expected {
                payments: vec![ExpectedPayment {
                    key: "in_1OutOfBand0001".to_owned(),
                    // Basil has neither the flag nor the amount: the invoice just is paid.
                    by_lookup_in: &[Shape::Basil],
                    // Known to be nothing, so no estimate. A minute and twelve days later.
                    fee_source: Some("actual"),
                    ..this.paid(1, "2026-04-13T00:01:00Z", 12_000, 0, 12_000)
                }],
                days: vec![ExpectedDay {
                    by_lookup_in: &[Shape::Basil],
                    ..paid_on("2026-04-13", 12_000, 0)
                }],
                invoices: this.invoices(&["paid"]),
                ..only_payments(Vec::new(), Vec::new())
            },
        },
        Scenario {
            name: "zero_invoice",
            prefix: "Zero",
            user_id: 9019,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("usd", 0, "starter"));
                let buyer = Buyer {
                    plan: "starter",
                    ..buyer
                };
                account.checkout(buyer, &items(&[(&price, 1)])).map(drop)
            },
            expected: |this| Expected {
                invoices: this.invoices(&["paid"]),
                plan: "starter",
                ..only_payments(Vec::new(), Vec::new())
            },
        },
        Scenario {
            name: "two_subscriptions_of_one_customer",
            prefix: "TwoSubs",
            user_id: 9020,
            run: |account, buyer| {
                let monthly = account.create_price(&NewPrice::monthly("usd", 2900, "professional"));
                let yearly = account.create_price(&NewPrice::yearly("usd", 12_000, "enterprise"));
                let (customer, first) = account.checkout(buyer, &items(&[(&monthly, 1)]))?;
                account.set_now(at("2026-04-11T00:00:00Z"));
                account.subscribe(&customer, &items(&[(&yearly, 1)]))?;
                account.set_now(at("2026-04-21T00:00:00Z"));
                account.cancel_now(&first)
            },
            expected: |this| Expected {
                currency: "USD",
                // 12 000 × 2.9 % = 348, + 30.
                payments: vec![
                    this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786),
                    this.paid(2, "2026-04-11T00:00:00Z", 12_000, 378, 11_622),
                ],
                days: vec![
                    paid_on("2026-04-01", 2900, 114),
                    paid_on("2026-04-11", 12_000, 378),
                ],
                mrr_cents: 1000,
                // The customer stays above nothing, so the first one's end is no churn.
                movements: vec![("new", 2900), ("expansion", 1000), ("contraction", -2900)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "enterprise",
            },
        },
        Scenario {
            name: "forever_coupon_on_a_yearly_price",
            prefix: "CouponForever",
            user_id: 9021,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::yearly("usd", 120_000, "enterprise"));
                let coupon = account.create_coupon(&NewCoupon {
                    percent_off_bps: Some(5000),
                    amount_off: None,
                    duration: "forever",
                    duration_in_months: None,
                });
                let new = NewSubscription {
                    coupon: Some(&coupon),
                    ..items(&[(&price, 1)])
                };
                account.checkout(buyer, &new).map(drop)
            },
            expected: |this| Expected {
                currency: "USD",
                // 60 000 × 2.9 % = 1740, + 30.
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 60_000, 1770, 58_230)],
                days: vec![paid_on("2026-04-01", 60_000, 1770)],
                mrr_cents: 5000,
                movements: vec![("new", 5000)],
                invoices: this.invoices(&["paid"]),
                plan: "enterprise",
            },
        },
        Scenario {
            name: "once_coupon_makes_the_first_month_free",
            prefix: "CouponOnce",
            user_id: 9022,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("usd", 2900, "professional"));
                let coupon = account.create_coupon(&NewCoupon {
                    percent_off_bps: Some(10_000),
                    amount_off: None,
                    duration: "once",
                    duration_in_months: None,
                });
                let new = NewSubscription {
                    coupon: Some(&coupon),
                    ..items(&[(&price, 1)])
                };
                let (_, subscription) = account.checkout(buyer, &new)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            expected: |this| Expected {
                currency: "USD",
                // Nothing on the first day: its invoice is over nothing.
                payments: vec![this.paid(1, "2026-05-01T01:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-05-01", 2900, 114)],
                mrr_cents: 2900,
                movements: vec![("new", 2900)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "euro_customer_with_tax",
            prefix: "Euro",
            user_id: 9023,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("eur", 2500, "professional"));
                let new = NewSubscription {
                    tax_bps: 2000,
                    ..items(&[(&price, 1)])
                };
                account.checkout(buyer, &new).map(drop)
            },
            expected: |this| Expected {
                currency: "EUR",
                // The tax is paid, and is no recurring revenue.
                // 3000 × 2.9 % = 87, + 30: the fixed part is in the currency of the payment.
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 3000, 117, 2883)],
                days: vec![paid_on("2026-04-01", 3000, 117)],
                mrr_cents: 2500,
                movements: vec![("new", 2500)],
                invoices: this.invoices(&["paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "yen_customer",
            prefix: "Yen",
            user_id: 9024,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("jpy", 2999, "professional"));
                let (_, subscription) = account.checkout(buyer, &items(&[(&price, 1)]))?;
                account.set_now(at("2026-04-05T00:00:00Z"));
                account.refund("pi_3Yen0001", 999)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            expected: |this| Expected {
                currency: "JPY",
                // 2999 × 2.9 % = 86.971 → 87, and no fixed part; 2999 − 87 − 999.
                payments: vec![
                    ExpectedPayment {
                        status: "partially_refunded",
                        refund_amount_cents: 999,
                        ..this.paid(1, "2026-04-01T00:00:00Z", 2999, 87, 1913)
                    },
                    this.paid(2, "2026-05-01T01:00:00Z", 2999, 87, 2912),
                ],
                days: vec![
                    paid_on("2026-04-01", 2999, 87),
                    ExpectedDay {
                        refunds_cents: 999,
                        ..on("2026-04-05")
                    },
                    paid_on("2026-05-01", 2999, 87),
                ],
                mrr_cents: 2999,
                movements: vec![("new", 2999)],
                invoices: this.invoices(&["paid", "paid"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "collection_paused_and_resumed",
            prefix: "Paused",
            user_id: 9025,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                account.set_now(at("2026-04-10T00:00:00Z"));
                account.pause_collection(&subscription, Some("void"))?;
                account.renew(&subscription, Succeeds)?;
                account.set_now(at("2026-05-10T00:00:00Z"));
                account.pause_collection(&subscription, None)
            },
            expected: |this| Expected {
                currency: "USD",
                // The paused month's invoice is voided before anything is charged.
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 2900, 114, 2786)],
                days: vec![paid_on("2026-04-01", 2900, 114)],
                mrr_cents: 2900,
                movements: vec![("new", 2900), ("churn", -2900), ("reactivation", 2900)],
                invoices: this.invoices(&["paid", "void"]),
                plan: "professional",
            },
        },
        Scenario {
            name: "credit_note_before_payment",
            prefix: "CreditNote",
            user_id: 9026,
            run: |account, buyer| {
                let customer = customer(account, buyer);
                let invoice =
                    account.create_invoice(&customer, "usd", &[("Consulting", 10_000)])?;
                account.advance(60);
                account.send_invoice(&invoice)?;
                account.advance(86_400);
                account.credit(&invoice, 2500)?;
                account.advance(86_400);
                account.pay_invoice(&invoice, Succeeds)
            },
            expected: |this| Expected {
                // 7500 × 2.9 % = 217.5 → 218 (half to even), + 30. Two days and a minute later.
                payments: vec![this.paid(1, "2026-04-03T00:01:00Z", 7500, 248, 7252)],
                days: vec![paid_on("2026-04-03", 7500, 248)],
                invoices: this.invoices(&["paid"]),
                ..only_payments(Vec::new(), Vec::new())
            },
        },
        Scenario {
            name: "two_changes_in_one_second",
            prefix: "SameSecond",
            user_id: 9027,
            run: |account, buyer| {
                let price = account.create_price(&NewPrice::monthly("usd", 1000, "professional"));
                let (_, subscription) = account.checkout(buyer, &items(&[(&price, 1)]))?;
                account.set_now(at("2026-04-10T00:00:00Z"));
                // Only `previous_attributes` tells that 2 came after 3.
                account.change(&subscription, None, Some(3), Proration::None)?;
                account.change(&subscription, None, Some(2), Proration::None)
            },
            expected: |this| Expected {
                currency: "USD",
                // 1000 × 2.9 % = 29, + 30.
                payments: vec![this.paid(1, "2026-04-01T00:00:00Z", 1000, 59, 941)],
                days: vec![paid_on("2026-04-01", 1000, 59)],
                mrr_cents: 2000,
                // One movement per instant, netted.
                movements: vec![("new", 1000), ("expansion", 1000)],
                invoices: this.invoices(&["paid"]),
                plan: "professional",
            },
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;

    /// The object before a change: its `previous_attributes` laid over it.
    fn undo(after: &Value, previous: &Value) -> Value {
        let (Value::Object(after), Value::Object(previous)) = (after, previous) else {
            return previous.clone();
        };
        let mut before = after.clone();
        for (key, was) in previous {
            let is = after.get(key).unwrap_or(&Value::Null);
            let whole = was.get("id").is_some() || !is.is_object() || !was.is_object();
            let value = if whole { was.clone() } else { undo(is, was) };
            before.insert(key.clone(), value);
        }
        Value::Object(before)
    }

    /// Absent and null are the same to Stripe's differences.
    fn without_nulls(value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => value.clone(),
        }
    }

    #[test]
    fn every_scenario_renders_in_every_shape_with_unique_event_ids() {
        for shape in Shape::ALL {
            let mut ids = BTreeSet::new();
            for scenario in scenarios() {
                let events = scenario.events(shape);
                assert!(
                    (3..=27).contains(&events.len()),
                    "{} has {} events",
                    scenario.name,
                    events.len()
                );
                for event in &events {
                    assert_eq!(event["api_version"], shape.api_version());
                    assert!(event["data"]["object"]["id"].is_string());
                    assert!(ids.insert(event["id"].to_string()), "{} twice", event["id"]);
                }
                assert_eq!(events, scenario.events(shape), "{} changes", scenario.name);
            }
        }
    }

    #[test]
    fn previous_attributes_lead_back_to_the_previous_snapshot() {
        for shape in Shape::ALL {
            for scenario in scenarios() {
                let mut shown: BTreeMap<String, Value> = BTreeMap::new();
                for event in scenario.all_events(shape) {
                    let object = &event["data"]["object"];
                    let id = object["id"].as_str().expect("an id").to_owned();
                    if let (Some(before), Some(previous)) =
                        (shown.get(&id), event["data"].get("previous_attributes"))
                    {
                        let undone = without_nulls(&undo(object, previous));
                        assert_eq!(
                            undone,
                            without_nulls(before),
                            "{} {} in {shape:?}",
                            scenario.name,
                            event["type"]
                        );
                    }
                    shown.insert(id, object.clone());
                }
            }
        }
    }

    #[test]
    fn names_prefixes_and_users_are_unique() {
        let all = scenarios();
        let names: BTreeSet<_> = all.iter().map(|one| one.name).collect();
        let prefixes: BTreeSet<_> = all.iter().map(|one| one.prefix).collect();
        let users: BTreeSet<_> = all.iter().map(|one| one.user_id).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(prefixes.len(), all.len());
        assert_eq!(users.len(), all.len());
    }

    #[test]
    fn the_hand_written_keys_and_amounts_exist_in_the_account() {
        for scenario in scenarios() {
            let account = scenario.account();
            let expected = scenario.expected();
            for payment in &expected.payments {
                if let Ok(intent) = account.intents.get(&payment.key) {
                    assert_eq!(intent.amount, payment.amount_cents, "{}", scenario.name);
                } else {
                    let invoice = account.invoices.get(&payment.key).expect("the invoice");
                    assert_eq!(
                        invoice.amount_paid, payment.amount_cents,
                        "{}",
                        scenario.name
                    );
                }
            }
            let intents = account.intents.iter().count();
            let by_intent = expected
                .payments
                .iter()
                .filter(|one| one.key.starts_with("pi_"))
                .count();
            assert_eq!(intents, by_intent, "{}", scenario.name);
            let invoices: Vec<(String, &str)> = account
                .invoices
                .iter()
                .map(|one| (one.number.clone().unwrap_or_default(), one.status))
                .collect();
            assert_eq!(invoices, expected.invoices, "{}", scenario.name);
        }
    }

    #[test]
    fn the_hand_written_days_are_the_hand_written_payments() {
        for scenario in scenarios() {
            let expected = scenario.expected();
            let (payments, days) = (&expected.payments, &expected.days);
            let paid: Vec<&ExpectedPayment> = payments
                .iter()
                .filter(|payment| payment.succeeded_at.is_some())
                .collect();
            let of_payments = [
                paid.iter().map(|one| one.amount_cents).sum::<i64>(),
                paid.iter().map(|one| one.refund_amount_cents).sum(),
                paid.iter().map(|one| one.disputed_cents).sum(),
                i64::try_from(paid.len()).expect("few payments"),
            ];
            let of_days: [i64; 4] = [
                days.iter().map(|day| day.gross_cents).sum(),
                days.iter().map(|day| day.refunds_cents).sum(),
                days.iter().map(|day| day.disputes_cents).sum(),
                days.iter().map(|day| day.payments).sum(),
            ];
            assert_eq!(of_payments, of_days, "{}", scenario.name);
            for payment in paid {
                let taken =
                    payment.fee_cents + payment.refund_amount_cents + payment.disputed_cents;
                let net = payment.amount_cents - taken;
                assert_eq!(payment.net_cents, net, "{}", payment.key);
            }
        }
    }

    /// The estimate is the price the fake charges, so without a conversion the days have to add
    /// up to what the account's balance grew by, and to what came in outside Stripe.
    #[test]
    fn the_hand_written_days_are_the_balance_of_the_account() {
        let dollars = scenarios()
            .into_iter()
            .filter(|scenario| scenario.expected().currency == "USD");
        for scenario in dollars {
            let expected = scenario.expected();
            let net_of = |day: &ExpectedDay| {
                day.gross_cents - day.fees_cents - day.refunds_cents - day.disputes_cents
            };
            let net: i64 = expected.days.iter().map(net_of).sum();
            let account = scenario.account();
            let outside: i64 = account
                .invoices
                .iter()
                .filter(|invoice| invoice.out_of_band)
                .map(|invoice| invoice.amount_paid)
                .sum();
            let balance: i64 = account
                .balance_transactions
                .iter()
                .map(|transaction| transaction.amount - transaction.fee)
                .sum();
            assert_eq!(net, balance + outside, "{}", scenario.name);
        }
    }

    #[test]
    fn each_shape_keeps_its_fields_where_that_version_had_them() {
        let scenario = scenarios().remove(0);
        let object = |shape: Shape, kind: &str| {
            scenario
                .all_events(shape)
                .into_iter()
                .find(|event| event["type"] == kind)
                .map(|event| event["data"]["object"].clone())
        };
        for shape in Shape::ALL {
            let new = shape >= Shape::Basil;
            let intent = object(shape, "payment_intent.succeeded").expect("an intent");
            assert_eq!(intent.get("charges").is_some(), shape == Shape::V2020_08_27);
            assert_eq!(
                intent.get("latest_charge").is_some(),
                shape != Shape::V2020_08_27
            );
            assert_eq!(intent.get("invoice").is_none(), new);
            let charge = object(shape, "charge.succeeded").expect("a charge");
            assert_eq!(charge.get("refunds").is_some(), shape == Shape::V2020_08_27);
            assert_eq!(charge["balance_transaction"].is_null(), new);
            let invoice = object(shape, "invoice.paid").expect("an invoice");
            assert_eq!(invoice.get("subscription").is_none(), new);
            assert_eq!(invoice.get("parent").is_some(), new);
            assert_eq!(invoice["lines"]["data"][0].get("price").is_none(), new);
            assert_eq!(
                invoice.get("amount_paid_off_stripe").is_some(),
                shape == Shape::Endive
            );
            let subscription =
                object(shape, "customer.subscription.created").expect("a subscription");
            assert_eq!(subscription.get("current_period_end").is_none(), new);
            assert_eq!(
                subscription["items"]["data"][0]
                    .get("current_period_end")
                    .is_some(),
                new
            );
            assert_eq!(object(shape, "invoice_payment.paid").is_some(), new);
            assert_eq!(object(shape, "charge.updated").is_some(), new);
        }
    }
}
