//! The sequences every ledger of Stripe events has to get right in any order, with the figures
//! they come to worked out by hand.
//!
//! Each scenario is a separate account: its name in camel case is the prefix of all its ids,
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
use super::payments::Outcome::{self, Fails, FailsForGood, Succeeds};

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
    facts: &'static [Fact],
}

use Fact::{
    Attempt, Currency, Disputed, Invoices, Paid, PaidOutOfBand, Plan, Refunded, Reinstated, Unpaid,
};

/// What the bank and Stripe take for a dispute.
const DISPUTE_FEE_CENTS: i64 = 1500;

/// What a payment has to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPayment {
    /// `payment_history.payment_key`: the intent, or the invoice when paid out of band.
    pub key: String,
    /// `payment_history.status` at the end.
    pub status: &'static str,
    /// Amount of the payment in minor units.
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
    /// The day in UTC, `YYYY-MM-DD`.
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
    /// MRR at the end, in minor units.
    pub mrr_cents: i64,
    /// In the order of time: kind and change (negative for contraction and churn).
    pub movements: Vec<(&'static str, i64)>,
    /// Every invoice: number and status.
    pub invoices: Vec<(String, &'static str)>,
    /// `users.plan` at the end, having begun as `free`.
    pub plan: &'static str,
}

/// One line of the figures of a scenario. Lines stand in the order of time; days are UTC.
#[derive(Clone, Copy)]
enum Fact {
    /// Of every amount, upper case; `USD` without this line.
    Currency(&'static str),
    /// A payment succeeded: instant, amount and estimated fee.
    Paid(&'static str, i64, i64),
    /// An invoice was paid outside Stripe: instant and amount. There is no fee, and that is known.
    PaidOutOfBand(&'static str, i64),
    /// A payment that never succeeded, with its status at the end and its amount.
    Unpaid(&'static str, i64),
    /// An attempt to pay failed on this day.
    Attempt(&'static str),
    /// Refunded of the last payment: day and amount.
    Refunded(&'static str, i64),
    /// The last payment was disputed: day and amount, with the fee of a dispute.
    Disputed(&'static str, i64),
    /// A dispute of the last payment was won: day and amount.
    Reinstated(&'static str, i64),
    /// The status of every invoice, by number.
    Invoices(&'static [&'static str]),
    /// `users.plan` at the end, and the movements that lead to the MRR at the end.
    Plan(&'static str, &'static [(&'static str, i64)]),
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
        let mut expected = Expected {
            currency: "USD",
            payments: Vec::new(),
            days: Vec::new(),
            mrr_cents: 0,
            movements: Vec::new(),
            invoices: Vec::new(),
            plan: "free",
        };
        for fact in self.facts {
            expected.add(self.prefix, *fact);
        }
        expected
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
}

impl Expected {
    fn add(&mut self, prefix: &str, fact: Fact) {
        match fact {
            Fact::Currency(currency) => self.currency = currency,
            Fact::Paid(instant, amount, fee) => {
                let payment = self.payment(prefix, "succeeded", amount);
                payment.fee_cents = fee;
                payment.fee_source = Some("estimated");
                payment.net_cents = amount - fee;
                payment.succeeded_at = Some(at(instant));
                let day = self.day(&instant[..10]);
                day.gross_cents += amount;
                day.fees_cents += fee;
                day.payments += 1;
            }
            Fact::PaidOutOfBand(instant, amount) => {
                // From basil on no event says it: the invoice just is paid.
                const WITHOUT: &[Shape] = &[Shape::Basil, Shape::Endive];
                self.add(prefix, Fact::Paid(instant, amount, 0));
                let payment = self.last_payment();
                payment.key = format!("in_1{prefix}0001");
                payment.fee_source = Some("actual");
                payment.by_lookup_in = WITHOUT;
                self.day(&instant[..10]).by_lookup_in = WITHOUT;
            }
            Fact::Unpaid(status, amount) => {
                self.payment(prefix, status, amount);
            }
            Fact::Attempt(day) => self.day(day).failed_payments += 1,
            Fact::Refunded(day, amount) => {
                let payment = self.last_payment();
                payment.refund_amount_cents += amount;
                payment.net_cents -= amount;
                payment.status = if payment.refund_amount_cents == payment.amount_cents {
                    "refunded"
                } else {
                    "partially_refunded"
                };
                self.day(day).refunds_cents += amount;
            }
            Fact::Disputed(day, amount) => {
                let payment = self.last_payment();
                payment.status = "disputed";
                payment.disputed_cents += amount;
                payment.net_cents -= amount;
                let day = self.day(day);
                day.disputes_cents += amount;
                day.fees_cents += DISPUTE_FEE_CENTS;
            }
            Fact::Reinstated(day, amount) => {
                let payment = self.last_payment();
                payment.status = "succeeded";
                payment.disputed_cents -= amount;
                payment.net_cents += amount;
                self.day(day).disputes_cents -= amount;
            }
            Fact::Invoices(statuses) => {
                let prefix = prefix.to_uppercase();
                let numbered = (1..).zip(statuses);
                self.invoices = numbered
                    .map(|(number, status)| (format!("{prefix}1-{number:04}"), *status))
                    .collect();
            }
            Fact::Plan(plan, movements) => {
                self.plan = plan;
                self.movements = movements.to_vec();
                self.mrr_cents = movements.iter().map(|(_, change)| change).sum();
            }
        }
    }

    /// A new payment, of the next intent.
    fn payment(
        &mut self,
        prefix: &str,
        status: &'static str,
        amount_cents: i64,
    ) -> &mut ExpectedPayment {
        self.payments.push(ExpectedPayment {
            key: format!("pi_3{prefix}{:04}", self.payments.len() + 1),
            status,
            amount_cents,
            refund_amount_cents: 0,
            fee_cents: 0,
            fee_source: None,
            net_cents: 0,
            disputed_cents: 0,
            succeeded_at: None,
            by_lookup_in: &[],
        });
        self.last_payment()
    }

    fn last_payment(&mut self) -> &mut ExpectedPayment {
        self.payments.last_mut().expect("a payment comes first")
    }

    /// The row of a day, the last one or a new one.
    fn day(&mut self, day: &'static str) -> &mut ExpectedDay {
        if self.days.last().is_none_or(|last| last.day != day) {
            self.days.push(ExpectedDay {
                day,
                ..ExpectedDay::default()
            });
        }
        self.days.last_mut().expect("a day was added")
    }

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
    monthly(account, buyer, "usd", 2900, 1)
}

/// So many seats of the professional plan at this price a month, bought through Checkout; answers the subscription.
fn monthly(
    account: &mut Account,
    buyer: Buyer<'_>,
    currency: &'static str,
    unit_amount: i64,
    quantity: i64,
) -> Result<String, Refusal> {
    let price = account.create_price(&NewPrice::monthly(currency, unit_amount, "professional"));
    let (_, subscription) = account.checkout(buyer, &items(&[(&price, quantity)]))?;
    Ok(subscription)
}

/// A payment in dollars of a customer without a subscription; answers the intent.
fn pay_once(
    account: &mut Account,
    buyer: Buyer<'_>,
    amount: i64,
    outcome: Outcome,
) -> Result<String, Refusal> {
    let customer = customer(account, buyer);
    account.pay_once(&customer, amount, "usd", outcome)
}

/// A customer without a subscription, linked to the user by its metadata.
fn customer(account: &mut Account, buyer: Buyer<'_>) -> String {
    let metadata = Metadata::from([("user_id".to_owned(), buyer.user_id.to_string())]);
    account.create_customer(Some(buyer.email), Some(buyer.name), metadata)
}

/// Every scenario. No two share an id, a customer or a user.
#[must_use]
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "first_paid_subscription",
            prefix: "FirstPaid",
            user_id: 9001,
            run: |account, buyer| professional(account, buyer).map(drop),
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Invoices(&["paid"]),
                Plan("professional", &[("new", 2900)]),
            ],
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
            facts: &[
                // The trial's own invoice is over nothing: no payment.
                Paid("2026-04-15T01:00:00Z", 2900, 114),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 2900)]),
            ],
        },
        Scenario {
            name: "renewal_success",
            prefix: "RenewalSuccess",
            user_id: 9003,
            run: |account, buyer| {
                let subscription = professional(account, buyer)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Paid("2026-05-01T01:00:00Z", 2900, 114),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 2900)]),
            ],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                // Both attempts are one intent, so one payment.
                Attempt("2026-05-01"),
                Paid("2026-05-04T01:00:00Z", 2900, 114),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 2900)]),
            ],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Attempt("2026-05-01"),
                Attempt("2026-05-04"),
                Unpaid("failed", 2900),
                Invoices(&["paid", "open"]),
                Plan("free", &[("new", 2900), ("churn", -2900)]),
            ],
        },
        Scenario {
            name: "one_off_payment",
            prefix: "OneOff",
            user_id: 9006,
            run: |account, buyer| pay_once(account, buyer, 4900, Succeeds).map(drop),
            facts: &[
                // 4900 × 2.9 % = 142.1 → 142, + 30.
                Paid("2026-04-01T00:00:00Z", 4900, 172),
            ],
        },
        Scenario {
            name: "one_off_payment_declined_then_paid",
            prefix: "OneOffRetry",
            user_id: 9007,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 4900, Fails)?;
                account.advance(60);
                account.confirm_intent(&intent, Succeeds)
            },
            facts: &[
                // One day, and both of its attempts.
                Attempt("2026-04-01"),
                Paid("2026-04-01T00:01:00Z", 4900, 172),
            ],
        },
        Scenario {
            name: "one_off_payment_declined_then_canceled",
            prefix: "OneOffCanceled",
            user_id: 9008,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 4900, Fails)?;
                account.advance(60);
                account.cancel_intent(&intent)
            },
            facts: &[Attempt("2026-04-01"), Unpaid("canceled", 4900)],
        },
        Scenario {
            name: "partial_then_full_refund",
            prefix: "Refunds",
            user_id: 9009,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 8000, Succeeds)?;
                account.advance(5 * 86_400);
                account.refund(&intent, 3000)?;
                account.advance(40 * 86_400);
                account.refund(&intent, 5000).map(drop)
            },
            facts: &[
                // 8000 × 2.9 % = 232, + 30; a refund does not give it back.
                Paid("2026-04-01T00:00:00Z", 8000, 262),
                // Gross stays in its month; each refund is on its own date: 5 and 40 days later.
                Refunded("2026-04-06", 3000),
                Refunded("2026-05-16", 5000),
            ],
        },
        Scenario {
            name: "refund_failed",
            prefix: "RefundFailed",
            user_id: 9010,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 6000, Succeeds)?;
                account.advance(86_400);
                account.refund(&intent, 1500)?;
                account.advance(86_400);
                let second = account.refund(&intent, 2000)?;
                account.advance(86_400);
                account.fail_refund(&second)
            },
            facts: &[
                // 6000 × 2.9 % = 174, + 30.
                Paid("2026-04-01T00:00:00Z", 6000, 204),
                // Neither the day of the 2000 nor the day it failed has a row.
                Refunded("2026-04-02", 1500),
            ],
        },
        Scenario {
            name: "dispute_won",
            prefix: "DisputeWon",
            user_id: 9011,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 5000, Succeeds)?;
                account.advance(10 * 86_400);
                let dispute = account.dispute(&intent)?;
                account.advance(2 * 86_400);
                account.submit_evidence(&dispute)?;
                account.advance(30 * 86_400);
                account.close_dispute(&dispute, true)
            },
            facts: &[
                // 5000 × 2.9 % = 145, + 30. The dispute's own fee is not the payment's.
                Paid("2026-04-01T00:00:00Z", 5000, 175),
                Disputed("2026-04-11", 5000),
                // 2 + 30 days later the money is back, the fee is not.
                Reinstated("2026-05-13", 5000),
            ],
        },
        Scenario {
            name: "dispute_lost",
            prefix: "DisputeLost",
            user_id: 9012,
            run: |account, buyer| {
                let intent = pay_once(account, buyer, 5000, Succeeds)?;
                account.advance(10 * 86_400);
                let dispute = account.dispute(&intent)?;
                account.advance(30 * 86_400);
                account.close_dispute(&dispute, false)
            },
            facts: &[
                Paid("2026-04-01T00:00:00Z", 5000, 175),
                // The money went on the day of the withdrawal; the closing moves nothing more.
                Disputed("2026-04-11", 5000),
            ],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                // Half of the new month minus half of the old: 4950 − 1450.
                // 3500 × 2.9 % = 101.5 → 102 (half to even), + 30.
                Paid("2026-04-16T00:00:00Z", 3500, 132),
                Invoices(&["paid", "paid"]),
                Plan("enterprise", &[("new", 2900), ("expansion", 7000)]),
            ],
        },
        Scenario {
            name: "quantity_change",
            prefix: "Quantity",
            user_id: 9014,
            run: |account, buyer| {
                let subscription = monthly(account, buyer, "usd", 1000, 3)?;
                account.set_now(at("2026-04-16T00:00:00Z"));
                account.change(&subscription, None, Some(5), Proration::NextInvoice)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            facts: &[
                // 3000 × 2.9 % = 87, + 30; 6000 × 2.9 % = 174, + 30.
                Paid("2026-04-01T00:00:00Z", 3000, 117),
                // 5 seats, and half a month of 5 instead of 3: 5000 − 1500 + 2500.
                Paid("2026-05-01T01:00:00Z", 6000, 204),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 3000), ("expansion", 2000)]),
            ],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Invoices(&["paid"]),
                Plan("free", &[("new", 2900), ("churn", -2900)]),
            ],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Invoices(&["paid"]),
                Plan("free", &[("new", 2900), ("churn", -2900)]),
            ],
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
            facts: &[Invoices(&["void"])],
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
            facts: &[
                // The intent that was made with the invoice.
                Unpaid("canceled", 12_000),
                // A minute and twelve days later.
                PaidOutOfBand("2026-04-13T00:01:00Z", 12_000),
                Invoices(&["paid"]),
            ],
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
            facts: &[Invoices(&["paid"]), Plan("starter", &[])],
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
            facts: &[
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                // 12 000 × 2.9 % = 348, + 30.
                Paid("2026-04-11T00:00:00Z", 12_000, 378),
                Invoices(&["paid", "paid"]),
                // The customer stays above nothing, so the first one's end is no churn.
                Plan(
                    "enterprise",
                    &[("new", 2900), ("expansion", 1000), ("contraction", -2900)],
                ),
            ],
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
                    prices: &[],
                });
                let new = NewSubscription {
                    coupon: Some(&coupon),
                    ..items(&[(&price, 1)])
                };
                account.checkout(buyer, &new).map(drop)
            },
            facts: &[
                // 60 000 × 2.9 % = 1740, + 30.
                Paid("2026-04-01T00:00:00Z", 60_000, 1770),
                Invoices(&["paid"]),
                Plan("enterprise", &[("new", 5000)]),
            ],
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
                    prices: &[],
                });
                let new = NewSubscription {
                    coupon: Some(&coupon),
                    ..items(&[(&price, 1)])
                };
                let (_, subscription) = account.checkout(buyer, &new)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            facts: &[
                // Nothing on the first day: its invoice is over nothing.
                Paid("2026-05-01T01:00:00Z", 2900, 114),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 2900)]),
            ],
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
            facts: &[
                Currency("EUR"),
                // The tax is paid, and is no recurring revenue.
                // 3000 × 2.9 % = 87, + 30: the fixed part is in the currency of the payment.
                Paid("2026-04-01T00:00:00Z", 3000, 117),
                Invoices(&["paid"]),
                Plan("professional", &[("new", 2500)]),
            ],
        },
        Scenario {
            name: "yen_customer",
            prefix: "Yen",
            user_id: 9024,
            run: |account, buyer| {
                let subscription = monthly(account, buyer, "jpy", 2999, 1)?;
                account.set_now(at("2026-04-05T00:00:00Z"));
                account.refund("pi_3Yen0001", 999)?;
                account.renew(&subscription, Succeeds).map(drop)
            },
            facts: &[
                Currency("JPY"),
                // 2999 × 2.9 % = 86.971 → 87, and no fixed part.
                Paid("2026-04-01T00:00:00Z", 2999, 87),
                Refunded("2026-04-05", 999),
                Paid("2026-05-01T01:00:00Z", 2999, 87),
                Invoices(&["paid", "paid"]),
                Plan("professional", &[("new", 2999)]),
            ],
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
            facts: &[
                // The paused month's invoice is voided before anything is charged.
                Paid("2026-04-01T00:00:00Z", 2900, 114),
                Invoices(&["paid", "void"]),
                Plan(
                    "professional",
                    &[("new", 2900), ("churn", -2900), ("reactivation", 2900)],
                ),
            ],
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
            facts: &[
                // 7500 × 2.9 % = 217.5 → 218 (half to even), + 30. Two days and a minute later.
                Paid("2026-04-03T00:01:00Z", 7500, 248),
                Invoices(&["paid"]),
            ],
        },
        Scenario {
            name: "two_changes_in_one_second",
            prefix: "SameSecond",
            user_id: 9027,
            run: |account, buyer| {
                let subscription = monthly(account, buyer, "usd", 1000, 1)?;
                account.set_now(at("2026-04-10T00:00:00Z"));
                // Only `previous_attributes` shows that 2 came after 3.
                account.change(&subscription, None, Some(3), Proration::None)?;
                account.change(&subscription, None, Some(2), Proration::None)
            },
            facts: &[
                // 1000 × 2.9 % = 29, + 30.
                Paid("2026-04-01T00:00:00Z", 1000, 59),
                Invoices(&["paid"]),
                // One movement per instant, netted.
                Plan("professional", &[("new", 1000), ("expansion", 1000)]),
            ],
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
            let outside: i64 = account.invoices.iter().map(|invoice| invoice.outside).sum();
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
            // Shown only when asked for.
            for member in ["amount_paid_off_stripe", "payments"] {
                assert_eq!(invoice.get(member), None, "{member}");
            }
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
