//! Operations on money: payment intents, charges, refunds, disputes, payouts.

use super::account::{Account, Refusal, divide_half_even};
use super::objects::{
    BalanceTransaction, Charge, Decline, Dispute, INSUFFICIENT_FUNDS, Metadata,
    NO_FUNDS_ON_ACCOUNT, Object, PaymentIntent, Payout, Refund,
};

/// What an attempted payment comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The card is charged.
    Succeeds,
    /// The bank declines; Stripe tries again later.
    Fails,
    /// The bank declines, and Stripe gives up.
    FailsForGood,
}

/// What a new payment intent is.
pub(super) struct NewIntent<'a> {
    pub(super) customer: Option<&'a str>,
    pub(super) amount: i64,
    pub(super) currency: &'a str,
    pub(super) invoice: Option<&'a str>,
    pub(super) description: Option<&'a str>,
    pub(super) metadata: Metadata,
}

/// The dispute fee of a US account, in the settlement currency.
const DISPUTE_FEE: i64 = 1500;
/// The account settles in this currency.
const SETTLEMENT_CURRENCY: &str = "usd";

impl Account {
    /// What `amount` of `currency` settles at, with the exchange rate in millionths when it is
    /// converted.
    fn settle(currency: &str, amount: i64) -> (i64, Option<i64>) {
        // The rate is between whole units, so yen (which have no cents) gain two digits.
        let (rate_micros, scale) = match currency {
            SETTLEMENT_CURRENCY => return (amount, None),
            "jpy" => (6_700, 100),
            "gbp" => (1_270_000, 1),
            _ => (1_080_000, 1),
        };
        let settled = divide_half_even(
            i128::from(amount) * i128::from(rate_micros) * scale,
            1_000_000,
        );
        (settled, Some(rate_micros))
    }

    fn book(
        &mut self,
        kind: &'static str,
        reporting_category: &'static str,
        source: &str,
        (currency, amount): (&str, i64),
        fee: Option<i64>,
    ) -> BalanceTransaction {
        let settled = Account::settle(currency, amount);
        self.book_settled(kind, reporting_category, source, settled, fee)
    }

    /// As [`Account::book`], with what it settles at and the rate.
    fn book_settled(
        &mut self,
        kind: &'static str,
        reporting_category: &'static str,
        source: &str,
        (settled, exchange_rate_micros): (i64, Option<i64>),
        fee: Option<i64>,
    ) -> BalanceTransaction {
        // 2.9 % and 30 cents, the list price of a US card.
        let fee = fee.unwrap_or_else(|| divide_half_even(i128::from(settled) * 29, 1000) + 30);
        let transaction = BalanceTransaction {
            id: self.id("txn_3"),
            source: source.to_owned(),
            kind,
            reporting_category,
            amount: settled,
            fee,
            currency: SETTLEMENT_CURRENCY.to_owned(),
            exchange_rate_micros,
            description: None,
            payout: None,
            created: self.now,
        };
        self.balance_transactions
            .add(&transaction.id, transaction.clone());
        transaction
    }

    /// The intent with its charges, as an event shows it.
    pub(super) fn intent_snapshot(&self, intent: &str) -> Result<Object, Refusal> {
        let intent = self.intents.get(intent)?;
        let charges = intent
            .charges
            .iter()
            .map(|charge| self.charges.get(charge).cloned())
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Object::PaymentIntent(intent.clone(), charges))
    }

    pub(super) fn emit_intent(&mut self, kind: &'static str, intent: &str) -> Result<(), Refusal> {
        let snapshot = self.intent_snapshot(intent)?;
        self.emit(kind, snapshot);
        Ok(())
    }

    pub(super) fn new_intent(&mut self, new: NewIntent<'_>) -> Result<String, Refusal> {
        let intent = PaymentIntent {
            id: self.id("pi_3"),
            customer: new.customer.map(str::to_owned),
            amount: new.amount,
            amount_received: 0,
            currency: new.currency.to_owned(),
            status: "requires_payment_method",
            invoice: new.invoice.map(str::to_owned),
            charges: Vec::new(),
            last_error: None,
            canceled_at: None,
            description: new.description.map(str::to_owned),
            metadata: new.metadata,
            created: self.now,
        };
        let id = intent.id.clone();
        self.intents.add(&id, intent);
        self.emit_intent("payment_intent.created", &id)?;
        Ok(id)
    }

    /// One attempt to charge an intent; logs the charge's and the intent's events.
    pub(super) fn charge_intent(
        &mut self,
        intent_id: &str,
        outcome: Outcome,
    ) -> Result<String, Refusal> {
        let intent = self.intents.get(intent_id)?.clone();
        if !matches!(
            intent.status,
            "requires_payment_method" | "requires_confirmation"
        ) {
            return Err(Refusal::state(
                "payment_intent_unexpected_state",
                format!(
                    "This PaymentIntent's status is {}; it cannot be confirmed.",
                    intent.status
                ),
            ));
        }
        let succeeds = outcome == Outcome::Succeeds;
        let decline: Option<Decline> = (!succeeds).then_some(INSUFFICIENT_FUNDS);
        let charge_id = self.id("ch_3");
        let balance_transaction = succeeds.then(|| {
            self.book(
                "charge",
                "charge",
                &charge_id,
                (&intent.currency, intent.amount),
                None,
            )
            .id
        });
        let charge = Charge {
            id: charge_id.clone(),
            payment_intent: intent.id.clone(),
            invoice: intent.invoice.clone(),
            customer: intent.customer.clone(),
            amount: intent.amount,
            amount_refunded: 0,
            currency: intent.currency.clone(),
            status: if succeeds { "succeeded" } else { "failed" },
            decline: decline.clone(),
            balance_transaction,
            failure_balance_transaction: None,
            method: "card",
            settled: false,
            disputed: false,
            refunds: Vec::new(),
            metadata: intent.metadata.clone(),
            created: self.now,
        };
        self.charges.add(&charge_id, charge.clone());
        let row = self.intents.get_mut(intent_id)?;
        row.charges.push(charge_id.clone());
        row.last_error = decline;
        if succeeds {
            row.status = "succeeded";
            row.amount_received = row.amount;
            self.unsettled.push(charge_id.clone());
            self.emit("charge.succeeded", Object::Charge(charge));
            self.emit_intent("payment_intent.succeeded", intent_id)?;
        } else {
            self.emit("charge.failed", Object::Charge(charge));
            self.emit_intent("payment_intent.payment_failed", intent_id)?;
        }
        Ok(charge_id)
    }

    /// Three seconds later Stripe has captured: newer versions learn the balance transaction
    /// through `charge.updated`. Every operation that charges ends with this.
    pub(super) fn settle_charges(&mut self) -> Result<(), Refusal> {
        let charges = std::mem::take(&mut self.unsettled);
        if charges.is_empty() {
            return Ok(());
        }
        self.by_itself();
        self.advance(3);
        for charge in charges {
            let row = self.charges.get_mut(&charge)?;
            row.settled = true;
            let snapshot = row.clone();
            self.emit("charge.updated", Object::Charge(snapshot));
        }
        Ok(())
    }

    /// A payment without an invoice; answers the intent's id.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn pay_once(
        &mut self,
        customer: &str,
        amount: i64,
        currency: &str,
        outcome: Outcome,
    ) -> Result<String, Refusal> {
        self.customers.get(customer)?;
        self.by_request();
        let intent = self.new_intent(NewIntent {
            customer: Some(customer),
            amount,
            currency,
            invoice: None,
            description: None,
            metadata: Metadata::new(),
        })?;
        self.charge_intent(&intent, outcome)?;
        self.settle_charges()?;
        Ok(intent)
    }

    /// A debit of a bank account, which takes days to succeed or fail; answers the intent's id.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn debit(
        &mut self,
        customer: &str,
        amount: i64,
        currency: &str,
    ) -> Result<String, Refusal> {
        self.customers.get(customer)?;
        self.by_request();
        let intent = self.new_intent(NewIntent {
            customer: Some(customer),
            amount,
            currency,
            invoice: None,
            description: None,
            metadata: Metadata::new(),
        })?;
        let id = self.id("py_3");
        let transaction = self.book("payment", "charge", &id, (currency, amount), Some(0));
        let charge = Charge {
            id: id.clone(),
            payment_intent: intent.clone(),
            invoice: None,
            customer: Some(customer.to_owned()),
            amount,
            amount_refunded: 0,
            currency: currency.to_owned(),
            status: "pending",
            decline: None,
            balance_transaction: Some(transaction.id),
            failure_balance_transaction: None,
            method: "us_bank_account",
            settled: true,
            disputed: false,
            refunds: Vec::new(),
            metadata: Metadata::new(),
            created: self.now,
        };
        self.charges.add(&id, charge.clone());
        let row = self.intents.get_mut(&intent)?;
        row.charges.push(id);
        row.status = "processing";
        self.emit("charge.pending", Object::Charge(charge));
        self.emit_intent("payment_intent.processing", &intent)?;
        Ok(intent)
    }

    /// The bank refuses a debit after all: Stripe takes it back, and charges `fee` for that.
    ///
    /// # Errors
    /// When there is no such debit, or it is decided.
    pub fn fail_debit(&mut self, intent: &str, fee: i64) -> Result<(), Refusal> {
        self.by_itself();
        let id = self.charge_of(intent)?;
        let charge = self.charges.get(&id)?.clone();
        if charge.status != "pending" {
            return Err(Refusal::state(
                "charge_not_pending",
                "The debit is decided.",
            ));
        }
        let taken = (charge.currency.as_str(), -charge.amount);
        let kind = "payment_failure_refund";
        let transaction = self.book(kind, "charge_failure", &id, taken, Some(fee));
        let row = self.charges.get_mut(&id)?;
        row.status = "failed";
        row.decline = Some(NO_FUNDS_ON_ACCOUNT);
        row.failure_balance_transaction = Some(transaction.id);
        let failed = row.clone();
        let row = self.intents.get_mut(intent)?;
        row.status = "requires_payment_method";
        row.last_error = Some(NO_FUNDS_ON_ACCOUNT);
        self.emit("charge.failed", Object::Charge(failed));
        self.emit_intent("payment_intent.payment_failed", intent)
    }

    /// Another attempt at an intent without an invoice.
    ///
    /// # Errors
    /// When there is no such intent, or it is not waiting for a payment method.
    pub fn confirm_intent(&mut self, intent: &str, outcome: Outcome) -> Result<(), Refusal> {
        self.by_request();
        self.charge_intent(intent, outcome)?;
        self.settle_charges()
    }

    /// Cancels an intent that has not succeeded.
    ///
    /// # Errors
    /// When there is no such intent, or it has succeeded.
    pub fn cancel_intent(&mut self, intent: &str) -> Result<(), Refusal> {
        self.by_request();
        let now = self.now;
        let row = self.intents.get_mut(intent)?;
        if matches!(row.status, "succeeded" | "canceled") {
            return Err(Refusal::state(
                "payment_intent_unexpected_state",
                format!(
                    "A PaymentIntent with status {} cannot be canceled.",
                    row.status
                ),
            ));
        }
        row.status = "canceled";
        row.canceled_at = Some(now);
        self.emit_intent("payment_intent.canceled", intent)
    }

    /// The charge that paid an intent.
    ///
    /// # Errors
    /// When there is no such intent, or nothing was charged.
    pub fn charge_of(&self, intent: &str) -> Result<String, Refusal> {
        self.intents
            .get(intent)?
            .charges
            .last()
            .cloned()
            .ok_or_else(|| Refusal::missing("charge", intent))
    }

    /// The customer's newest intent.
    ///
    /// # Errors
    /// When it has none.
    pub fn last_intent(&self, customer: &str) -> Result<String, Refusal> {
        self.intents
            .iter()
            .rev()
            .find(|intent| intent.customer.as_deref() == Some(customer))
            .map(|intent| intent.id.clone())
            .ok_or_else(|| Refusal::missing("payment_intent", customer))
    }

    /// Refunds `amount` of the payment of an intent; answers the refund's id.
    ///
    /// # Errors
    /// When there is no such payment, or less than `amount` is left of it.
    pub fn refund(&mut self, intent: &str, amount: i64) -> Result<String, Refusal> {
        let charge_id = self.charge_of(intent)?;
        let charge = self.charges.get(&charge_id)?.clone();
        if amount < 1 || amount > charge.amount - charge.amount_refunded {
            return Err(Refusal::parameter(
                "amount",
                "charge_already_refunded",
                format!("Refund amount ({amount}) is greater than the unrefunded amount."),
            ));
        }
        self.by_request();
        let id = self.id("re_3");
        let transaction = self.book(
            "refund",
            "refund",
            &id,
            (&charge.currency, -amount),
            Some(0),
        );
        let refund = Refund {
            id: id.clone(),
            charge: charge_id.clone(),
            payment_intent: charge.payment_intent.clone(),
            amount,
            currency: charge.currency.clone(),
            status: "succeeded",
            reason: Some("requested_by_customer".to_owned()),
            failure_reason: None,
            balance_transaction: Some(transaction.id),
            failure_balance_transaction: None,
            metadata: Metadata::new(),
            created: self.now,
        };
        self.refunds.add(&id, refund.clone());
        let row = self.charges.get_mut(&charge_id)?;
        row.amount_refunded += amount;
        row.refunds.push(refund.clone());
        let snapshot = row.clone();
        self.emit("charge.refunded", Object::Charge(snapshot));
        self.emit("refund.created", Object::Refund(refund));
        Ok(id)
    }

    /// The bank sends a refund back: it counts nowhere any more.
    ///
    /// # Errors
    /// When there is no such refund, or it has failed already.
    pub fn fail_refund(&mut self, refund: &str) -> Result<(), Refusal> {
        let before = self.refunds.get(refund)?.clone();
        if before.status == "failed" {
            return Err(Refusal::state(
                "refund_failed",
                "The refund has failed already.",
            ));
        }
        self.by_itself();
        let transaction = self.book(
            "refund_failure",
            "refund_failure",
            refund,
            (&before.currency, before.amount),
            Some(0),
        );
        let row = self.refunds.get_mut(refund)?;
        row.status = "failed";
        row.failure_reason = Some("expired_or_canceled_card");
        row.failure_balance_transaction = Some(transaction.id);
        let failed = row.clone();
        let charge = self.charges.get_mut(&failed.charge)?;
        charge.amount_refunded -= failed.amount;
        for inner in &mut charge.refunds {
            if inner.id == failed.id {
                *inner = failed.clone();
            }
        }
        self.emit("charge.refund.updated", Object::Refund(failed.clone()));
        self.emit("refund.failed", Object::Refund(failed));
        Ok(())
    }

    /// The cardholder disputes the whole payment of an intent; the funds are withdrawn at once.
    /// Answers the dispute's id.
    ///
    /// # Errors
    /// When there is no such payment.
    pub fn dispute(&mut self, intent: &str) -> Result<String, Refusal> {
        let charge = self.charges.get(&self.charge_of(intent)?)?;
        let (settled, _) = Account::settle(&charge.currency, charge.amount);
        self.dispute_at(intent, settled)
    }

    /// As [`Account::dispute`], when the exchange rate has changed since: what is withdrawn, in the settlement currency.
    ///
    /// # Errors
    /// When there is no such payment.
    pub fn dispute_at(&mut self, intent: &str, withdrawn: i64) -> Result<String, Refusal> {
        let charge_id = self.charge_of(intent)?;
        self.by_itself();
        let now = self.now;
        let row = self.charges.get_mut(&charge_id)?;
        row.disputed = true;
        let charge = row.clone();
        let mut dispute = Dispute {
            id: self.id("dp_1"),
            charge: charge_id,
            payment_intent: charge.payment_intent,
            amount: charge.amount,
            currency: charge.currency,
            reason: "fraudulent",
            status: "needs_response",
            has_evidence: false,
            due_by: now + 7 * 86_400,
            balance_transactions: Vec::new(),
            created: now,
        };
        self.emit("charge.dispute.created", Object::Dispute(dispute.clone()));
        let (_, rate) = Account::settle(&dispute.currency, dispute.amount);
        let withdrawn = self.book_settled(
            "adjustment",
            "dispute",
            &dispute.id,
            (-withdrawn, rate),
            Some(DISPUTE_FEE),
        );
        dispute.balance_transactions.push(withdrawn);
        self.disputes.add(&dispute.id, dispute.clone());
        self.emit(
            "charge.dispute.funds_withdrawn",
            Object::Dispute(dispute.clone()),
        );
        Ok(dispute.id)
    }

    /// Hands in evidence: the dispute is under review.
    ///
    /// # Errors
    /// When there is no such dispute.
    pub fn submit_evidence(&mut self, dispute: &str) -> Result<(), Refusal> {
        self.by_request();
        let row = self.disputes.get_mut(dispute)?;
        row.has_evidence = true;
        row.status = "under_review";
        let snapshot = row.clone();
        self.emit("charge.dispute.updated", Object::Dispute(snapshot));
        Ok(())
    }

    /// The bank decides. Won: the funds come back, the fee does not.
    ///
    /// # Errors
    /// When there is no such dispute.
    pub fn close_dispute(&mut self, dispute: &str, won: bool) -> Result<(), Refusal> {
        self.by_itself();
        let row = self.disputes.get_mut(dispute)?;
        row.status = if won { "won" } else { "lost" };
        let closed = row.clone();
        self.emit("charge.dispute.closed", Object::Dispute(closed.clone()));
        if won {
            let back = self.book(
                "adjustment",
                "dispute_reversal",
                dispute,
                (&closed.currency, closed.amount),
                Some(0),
            );
            let row = self.disputes.get_mut(dispute)?;
            row.balance_transactions.push(back);
            let snapshot = row.clone();
            self.emit("charge.dispute.funds_reinstated", Object::Dispute(snapshot));
        }
        Ok(())
    }

    /// Money of a dispute moves once more, whatever its status: `amount` and `fee` in the settlement currency, negative
    /// when it is withdrawn.
    ///
    /// # Errors
    /// When there is no such dispute.
    pub fn move_dispute(&mut self, dispute: &str, amount: i64, fee: i64) -> Result<(), Refusal> {
        self.by_itself();
        self.disputes.get(dispute)?;
        let (category, event) = if amount < 0 {
            ("dispute", "charge.dispute.funds_withdrawn")
        } else {
            ("dispute_reversal", "charge.dispute.funds_reinstated")
        };
        let moved = (SETTLEMENT_CURRENCY, amount);
        let transaction = self.book("adjustment", category, dispute, moved, Some(fee));
        let row = self.disputes.get_mut(dispute)?;
        row.balance_transactions.push(transaction);
        let snapshot = row.clone();
        self.emit(event, Object::Dispute(snapshot));
        Ok(())
    }

    /// A manual payout of `amount` in the settlement currency; answers its id.
    ///
    /// # Errors
    /// When there is nothing to pay out.
    pub fn pay_out(&mut self, amount: i64) -> Result<String, Refusal> {
        let payout = self.new_payout(amount, false)?;
        self.complete_payout(&payout)?;
        Ok(payout)
    }

    /// The automatic payout of everything that has not gone out yet; answers its id.
    ///
    /// # Errors
    /// When there is nothing to pay out.
    pub fn pay_out_balance(&mut self) -> Result<String, Refusal> {
        let available: Vec<(String, i64)> = self
            .balance_transactions
            .iter()
            .filter(|one| one.payout.is_none() && one.kind != "payout")
            .map(|one| (one.id.clone(), one.amount - one.fee))
            .collect();
        let id = self.new_payout(available.iter().map(|(_, net)| net).sum(), true)?;
        let own = self.payouts.get(&id)?.balance_transaction.clone();
        for transaction in available.into_iter().map(|(id, _)| id).chain([own]) {
            self.balance_transactions.get_mut(&transaction)?.payout = Some(id.clone());
        }
        self.complete_payout(&id)?;
        Ok(id)
    }

    /// Takes a transaction out of the payout it went out with: what is left is not its sum.
    ///
    /// # Errors
    /// When there is no such transaction.
    pub fn lose_from_payout(&mut self, balance_transaction: &str) -> Result<(), Refusal> {
        self.balance_transactions
            .get_mut(balance_transaction)?
            .payout = None;
        Ok(())
    }

    /// The balance transaction of the charge that paid an intent.
    ///
    /// # Errors
    /// When there is no such intent, or nothing was charged.
    pub fn balance_transaction_of(&self, intent: &str) -> Result<String, Refusal> {
        let charge = self.charges.get(&self.charge_of(intent)?)?;
        charge
            .balance_transaction
            .clone()
            .ok_or_else(|| Refusal::missing("balance_transaction", intent))
    }

    fn new_payout(&mut self, amount: i64, automatic: bool) -> Result<String, Refusal> {
        if amount < 1 {
            return Err(Refusal::parameter(
                "amount",
                "parameter_invalid_integer",
                "The amount must be at least 1.",
            ));
        }
        self.by_itself();
        let id = self.id("po_1");
        let transaction = self.book(
            "payout",
            "payout",
            &id,
            (SETTLEMENT_CURRENCY, -amount),
            Some(0),
        );
        let payout = Payout {
            id: id.clone(),
            amount,
            currency: SETTLEMENT_CURRENCY.to_owned(),
            status: "in_transit",
            reconciliation_status: if automatic {
                "in_progress"
            } else {
                "not_applicable"
            },
            automatic,
            balance_transaction: transaction.id,
            arrival_date: self.now + 86_400,
            created: self.now,
        };
        self.payouts.add(&id, payout.clone());
        self.emit("payout.created", Object::Payout(payout));
        Ok(id)
    }

    /// The payout has arrived, and Stripe has told which transactions it consists of.
    fn complete_payout(&mut self, payout: &str) -> Result<(), Refusal> {
        let row = self.payouts.get_mut(payout)?;
        row.status = "paid";
        let paid = row.clone();
        self.emit("payout.paid", Object::Payout(paid.clone()));
        if paid.automatic {
            let row = self.payouts.get_mut(payout)?;
            row.reconciliation_status = "completed";
            let reconciled = row.clone();
            self.emit(
                "payout.reconciliation_completed",
                Object::Payout(reconciled),
            );
        }
        Ok(())
    }
}
