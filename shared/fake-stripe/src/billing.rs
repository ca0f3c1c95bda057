//! Operations on subscriptions and invoices.

use super::account::{Account, Refusal, add_intervals, divide_half_even};
use super::objects::{
    CreditNote, Discount, Invoice, InvoiceItem, InvoicePayment, Item, Line, Metadata, Object,
    PaymentOfInvoice, PaymentRecord, Session, Subscription,
};
use super::payments::{NewIntent, Outcome};

/// Seconds Stripe leaves a renewal's invoice in draft.
const DRAFT_SECONDS: i64 = 3600;
const DAY: i64 = 86_400;

/// What a new subscription is, beyond its customer.
#[derive(Debug, Clone, Default)]
pub struct NewSubscription<'a> {
    /// Price ids with quantities.
    pub items: Vec<(&'a str, i64)>,
    /// Days of free trial.
    pub trial_days: Option<i64>,
    /// Id of a coupon, applied from the first invoice on.
    pub coupon: Option<&'a str>,
    /// Exclusive tax on every line, in basis points.
    pub tax_bps: i64,
    /// Copied to the subscription and to its invoices.
    pub metadata: Metadata,
}

/// What a draft invoice without a subscription is.
#[derive(Debug, Clone, Default)]
pub struct NewInvoice<'a> {
    /// Lower case; none is the customer's, else `usd`.
    pub currency: Option<&'a str>,
    /// Descriptions with amounts in minor units.
    pub lines: Vec<(&'a str, i64)>,
    /// Sent to the customer and due in so many days; none is charged automatically.
    pub days_until_due: Option<i64>,
    /// Whether what waits for the customer's next invoice is put on it.
    pub include_pending: bool,
    /// Copied to the invoice.
    pub metadata: Metadata,
}

/// Who buys in Checkout, and what their session says.
#[derive(Debug, Clone, Copy)]
pub struct Buyer<'a> {
    /// The application's user id, sent as `client_reference_id` and `metadata.user_id`.
    pub user_id: i32,
    /// E-mail address of the customer.
    pub email: &'a str,
    /// Name of the customer.
    pub name: &'a str,
    /// Sent as `metadata.plan`; empty for none.
    pub plan: &'a str,
}

/// What happens to the difference when a subscription changes inside its period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proration {
    /// Invoiced at once, with this outcome of the payment.
    InvoiceNow(Outcome),
    /// Put on the next invoice.
    NextInvoice,
    /// Nothing is charged or credited.
    None,
}

fn pairs(pairs: &[(&str, String)]) -> Metadata {
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

impl Account {
    /// A completed Checkout session of a new customer who subscribes; answers the customer's and
    /// the subscription's ids.
    ///
    /// # Errors
    /// When a price or the coupon does not exist.
    pub fn checkout(
        &mut self,
        buyer: Buyer<'_>,
        new: &NewSubscription<'_>,
    ) -> Result<(String, String), Refusal> {
        let customer = self.create_customer(Some(buyer.email), Some(buyer.name), Metadata::new());
        let subscription = self.checkout_again(&customer, buyer, new)?;
        Ok((customer, subscription))
    }

    /// A completed Checkout session of a customer that exists; answers the subscription's id.
    ///
    /// # Errors
    /// When the customer, a price or the coupon does not exist.
    pub fn checkout_again(
        &mut self,
        customer: &str,
        buyer: Buyer<'_>,
        new: &NewSubscription<'_>,
    ) -> Result<String, Refusal> {
        self.by_request();
        let subscription = self.start_subscription(customer, new)?;
        let row = self.subscriptions.get(&subscription)?.clone();
        let invoice = row.latest_invoice.clone();
        let amount_total = invoice
            .as_deref()
            .map(|id| self.invoices.get(id).map(|invoice| invoice.total))
            .transpose()?
            .unwrap_or_default();
        let session = Session {
            id: self.id("cs_test_a1"),
            customer: customer.to_owned(),
            customer_email: Some(buyer.email.to_owned()),
            customer_name: Some(buyer.name.to_owned()),
            client_reference_id: Some(buyer.user_id.to_string()),
            mode: "subscription",
            subscription: Some(subscription.clone()),
            payment_intent: None,
            invoice,
            amount_total,
            currency: row.currency,
            metadata: pairs(&[
                ("plan", buyer.plan.to_owned()),
                ("user_id", buyer.user_id.to_string()),
            ]),
            created: self.now,
        };
        self.sessions.add(&session.id, session.clone());
        self.emit("checkout.session.completed", Object::Session(session));
        self.settle_charges()?;
        Ok(subscription)
    }

    /// A subscription made over the API, without Checkout; answers its id.
    ///
    /// # Errors
    /// When the customer, a price or the coupon does not exist.
    pub fn subscribe(
        &mut self,
        customer: &str,
        new: &NewSubscription<'_>,
    ) -> Result<String, Refusal> {
        self.by_request();
        let subscription = self.start_subscription(customer, new)?;
        self.settle_charges()?;
        Ok(subscription)
    }

    fn start_subscription(
        &mut self,
        customer: &str,
        new: &NewSubscription<'_>,
    ) -> Result<String, Refusal> {
        self.customers.get(customer)?;
        let now = self.now;
        let id = self.id("sub_1");
        let mut items = Vec::new();
        for (price, quantity) in &new.items {
            items.push(Item {
                id: self.id("si_"),
                price: self.prices.get(price)?.clone(),
                quantity: *quantity,
                created: now,
            });
        }
        let Some(first) = items.first().map(|item| item.price.clone()) else {
            return Err(Refusal::parameter(
                "items",
                "parameter_missing",
                "Missing required param: items.",
            ));
        };
        let Some(interval) = first.interval.clone() else {
            return Err(Refusal::parameter(
                "items",
                "resource_missing",
                "The price specified is set to `type=one_time`.",
            ));
        };
        let trial_end = new.trial_days.map(|days| now + days * DAY);
        let anchor = trial_end.unwrap_or(now);
        let mut subscription = Subscription {
            id: id.clone(),
            customer: customer.to_owned(),
            items,
            status: "incomplete",
            currency: first.currency.clone(),
            collection_method: "charge_automatically",
            billing_cycle_anchor: anchor,
            cycles: if trial_end.is_some() { 0 } else { 1 },
            current_period_start: now,
            current_period_end: trial_end
                .unwrap_or_else(|| add_intervals(anchor, &interval, first.interval_count)),
            trial_start: trial_end.map(|_| now),
            trial_end,
            cancel_at_period_end: false,
            cancel_at: None,
            canceled_at: None,
            ended_at: None,
            cancellation_reason: None,
            discounts: Vec::new(),
            pause_behavior: None,
            latest_invoice: None,
            tax_bps: new.tax_bps,
            metadata: new.metadata.clone(),
            created: now,
        };
        if let Some(coupon) = new.coupon {
            let discount = Discount {
                id: self.id("di_1"),
                coupon: self.coupons.get(coupon)?.clone(),
                customer: customer.to_owned(),
                subscription: Some(id.clone()),
                start: now,
                end: None,
            };
            self.discounts.add(&discount.id, discount.clone());
            self.emit(
                "customer.discount.created",
                Object::Discount(discount.clone()),
            );
            subscription.discounts.push(discount);
        }
        let lines = self.period_lines(&subscription);
        let invoice =
            self.draft_invoice(customer, Some(&subscription), "subscription_create", lines)?;
        subscription.latest_invoice = Some(invoice.clone());
        let free = self.invoices.get(&invoice)?.amount_due == 0;
        if trial_end.is_some() {
            subscription.status = "trialing";
        } else if free {
            subscription.status = "active";
        }
        self.subscriptions.add(&id, subscription.clone());
        self.emit(
            "customer.subscription.created",
            Object::Subscription(subscription),
        );
        let row = self.customers.get_mut(customer)?;
        if row.currency.is_none() {
            row.currency = Some(first.currency);
            let snapshot = row.clone();
            self.emit("customer.updated", Object::Customer(snapshot));
        }
        // The first invoice is finalised in the same request: `invoice.created` already shows it
        // open, and paid when there is nothing to pay.
        self.open_invoice(&invoice)?;
        if free {
            self.mark_paid(&invoice)?;
        } else {
            self.intend(&invoice)?;
        }
        self.emit_invoice("invoice.created", &invoice)?;
        self.emit_invoice("invoice.finalized", &invoice)?;
        if free {
            self.emit_invoice("invoice.paid", &invoice)?;
            self.emit_invoice("invoice.payment_succeeded", &invoice)?;
        } else {
            self.attempt(&invoice, Outcome::Succeeds)?;
        }
        self.drop_once_discounts(&id)?;
        Ok(id)
    }

    /// Stripe's notice three days before a trial ends.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub fn announce_trial_end(&mut self, subscription: &str) -> Result<(), Refusal> {
        self.by_itself();
        let snapshot = self.subscriptions.get(subscription)?.clone();
        self.emit(
            "customer.subscription.trial_will_end",
            Object::Subscription(snapshot),
        );
        Ok(())
    }

    /// Moves the clock to the end of the period (or trial) and lets the next one begin: the
    /// invoice is drafted, an hour later finalised and charged. Answers the invoice's id.
    ///
    /// # Errors
    /// When there is no such subscription, or it has ended.
    pub fn renew(&mut self, subscription: &str, outcome: Outcome) -> Result<String, Refusal> {
        let before = self.live(subscription)?.clone();
        self.by_itself();
        self.now = self.now.max(before.current_period_end);
        let row = self.subscriptions.get_mut(subscription)?;
        let (interval, count) = row.items.first().map_or_else(
            || ("month".to_owned(), 1),
            |item| {
                let interval = item.price.interval.clone().unwrap_or_default();
                (interval, item.price.interval_count)
            },
        );
        row.cycles += 1;
        row.current_period_start = row.current_period_end;
        row.current_period_end =
            add_intervals(row.billing_cycle_anchor, &interval, row.cycles * count);
        if row.status == "trialing" {
            row.status = "active";
        }
        let renewed = row.clone();
        let mut lines = self.pending_lines(subscription);
        lines.extend(self.period_lines(&renewed));
        let invoice = self.draft_invoice(
            &renewed.customer,
            Some(&renewed),
            "subscription_cycle",
            lines,
        )?;
        self.subscriptions.get_mut(subscription)?.latest_invoice = Some(invoice.clone());
        self.emit_invoice("invoice.created", &invoice)?;
        self.emit_subscription("customer.subscription.updated", subscription)?;
        self.advance(DRAFT_SECONDS);
        match renewed.pause_behavior.as_deref() {
            Some("keep_as_draft") => return Ok(invoice),
            Some(behavior) => {
                // Nothing will be charged, so there is no payment intent.
                self.open_invoice(&invoice)?;
                self.emit_invoice("invoice.finalized", &invoice)?;
                if behavior == "mark_uncollectible" {
                    self.mark_uncollectible(&invoice)?;
                } else {
                    self.void_invoice(&invoice)?;
                }
                return Ok(invoice);
            }
            None => {}
        }
        self.finalize(&invoice)?;
        if self.invoices.get(&invoice)?.status == "open" {
            self.attempt(&invoice, outcome)?;
        }
        self.drop_once_discounts(subscription)?;
        self.settle_charges()?;
        Ok(invoice)
    }

    /// Another attempt at an open invoice. When it fails for good, its subscription is canceled.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not open.
    pub fn retry(&mut self, invoice: &str, outcome: Outcome) -> Result<(), Refusal> {
        self.by_itself();
        self.attempt(invoice, outcome)?;
        if outcome == Outcome::FailsForGood
            && let Some(subscription) = self.invoices.get(invoice)?.subscription.clone()
        {
            self.end(&subscription, "payment_failed")?;
        }
        self.settle_charges()
    }

    /// The customer pays an open invoice, or an operator has it charged.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not open.
    pub fn pay_invoice(&mut self, invoice: &str, outcome: Outcome) -> Result<(), Refusal> {
        self.by_request();
        if self.invoices.get(invoice)?.status == "draft" {
            self.finalize(invoice)?;
            if self.invoices.get(invoice)?.status == "paid" {
                return Ok(());
            }
        }
        self.attempt(invoice, outcome)?;
        self.settle_charges()
    }

    /// Somebody paid by wire: no payment object, and no `invoice.payment_succeeded`.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not open.
    pub fn pay_out_of_band(&mut self, invoice: &str) -> Result<(), Refusal> {
        self.by_request();
        if self.invoices.get(invoice)?.status == "draft" {
            self.finalize(invoice)?;
        }
        self.expect_open(invoice)?;
        let row = self.invoices.get_mut(invoice)?;
        row.outside += row.amount_due - row.amount_paid;
        self.cancel_default(invoice)?;
        self.mark_paid(invoice)?;
        self.emit_invoice("invoice.updated", invoice)?;
        self.emit_invoice("invoice.paid", invoice)
    }

    /// A card pays a part of an open invoice, beside its default payment. Answers the intent.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not open.
    pub fn pay_part(&mut self, invoice: &str, amount: i64) -> Result<String, Refusal> {
        let row = self.expect_due(invoice, amount)?;
        let intent = self.new_intent(NewIntent {
            customer: Some(&row.customer),
            amount,
            currency: &row.currency,
            invoice: Some(invoice),
            description: Some("Part of an invoice"),
            metadata: Metadata::new(),
        })?;
        self.charge_intent(&intent, Outcome::Succeeds)?;
        self.apply_payment(&row, PaymentOfInvoice::Intent(intent.clone()), amount)?;
        self.settle_charges()?;
        Ok(intent)
    }

    /// Money that came outside Stripe is reported to it, for an open invoice. Answers the payment record.
    ///
    /// # Errors
    /// When there is no such invoice, it is not open, or less is due.
    pub fn report_payment(&mut self, invoice: &str, amount: i64) -> Result<String, Refusal> {
        let row = self.expect_due(invoice, amount)?;
        let id = self.id("pr_1");
        let record = PaymentRecord {
            id: id.clone(),
            customer: Some(row.customer.clone()),
            amount,
            currency: row.currency.clone(),
            reported_by: "self",
            reference: format!("wire for {}", row.number.clone().unwrap_or_default()),
            created: self.now,
        };
        self.payment_records.add(&id, record);
        self.invoices.get_mut(invoice)?.outside += amount;
        self.apply_payment(&row, PaymentOfInvoice::Record(id.clone()), amount)?;
        Ok(id)
    }

    fn expect_due(&mut self, invoice: &str, amount: i64) -> Result<Invoice, Refusal> {
        self.by_request();
        if self.invoices.get(invoice)?.status == "draft" {
            self.finalize(invoice)?;
        }
        self.expect_open(invoice)?;
        let row = self.invoices.get(invoice)?.clone();
        if amount < 1 || amount > row.amount_due - row.amount_paid {
            return Err(Refusal::parameter(
                "amount",
                "amount_too_large",
                "Not as much is due.",
            ));
        }
        Ok(row)
    }

    /// A payment beside the default one, which is canceled when it was the last.
    fn apply_payment(
        &mut self,
        invoice: &Invoice,
        payment: PaymentOfInvoice,
        amount: i64,
    ) -> Result<(), Refusal> {
        let payment = InvoicePayment {
            id: self.id("inpay_1"),
            invoice: invoice.id.clone(),
            payment,
            is_default: false,
            amount,
            currency: invoice.currency.clone(),
            status: "paid",
            paid_at: Some(self.now),
            created: self.now,
        };
        self.invoice_payments.add(&payment.id, payment.clone());
        let row = self.invoices.get_mut(&invoice.id)?;
        row.amount_paid += amount;
        let is_paid = row.amount_paid == row.amount_due;
        if is_paid {
            self.cancel_default(&invoice.id)?;
            self.mark_paid(&invoice.id)?;
        }
        self.emit_invoice("invoice.updated", &invoice.id)?;
        self.emit("invoice_payment.paid", Object::InvoicePayment(payment));
        if is_paid {
            self.emit_invoice("invoice.paid", &invoice.id)?;
        }
        Ok(())
    }

    /// The money of an invoice has come another way than by the intent that was made with it.
    fn cancel_default(&mut self, invoice: &str) -> Result<(), Refusal> {
        let intent = self.intend(invoice)?;
        self.cancel_intent(&intent)?;
        self.set_default(&intent, "canceled", None)
    }

    fn default_payment(&self, intent: &str) -> Result<InvoicePayment, Refusal> {
        self.invoice_payments
            .iter()
            .find(|one| one.is_default && one.payment.intent() == Some(intent))
            .cloned()
            .ok_or_else(|| Refusal::missing("invoice_payment", intent))
    }

    /// Moves an invoice's default payment on.
    fn set_default(
        &mut self,
        intent: &str,
        status: &'static str,
        paid_at: Option<i64>,
    ) -> Result<(), Refusal> {
        let id = self.default_payment(intent)?.id;
        let row = self.invoice_payments.get_mut(&id)?;
        row.status = status;
        row.paid_at = paid_at;
        Ok(())
    }

    /// Voids an open (or uncollectible) invoice; its payment intent is canceled.
    ///
    /// # Errors
    /// When there is no such invoice, or it is a draft, paid or void.
    pub fn void_invoice(&mut self, invoice: &str) -> Result<(), Refusal> {
        let now = self.now;
        let row = self.invoices.get_mut(invoice)?;
        if !matches!(row.status, "open" | "uncollectible") {
            return Err(Refusal::state(
                "invoice_not_editable",
                format!(
                    "You can only void open invoices; this one is {}.",
                    row.status
                ),
            ));
        }
        row.status = "void";
        row.voided_at = Some(now);
        row.next_payment_attempt = None;
        let intent = row.payment_intent.clone();
        if let Some(intent) = intent {
            self.cancel_intent(&intent)?;
            self.set_default(&intent, "canceled", None)?;
        }
        self.emit_invoice("invoice.updated", invoice)?;
        self.emit_invoice("invoice.voided", invoice)
    }

    /// Gives up on an open invoice without voiding it.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not open.
    pub fn mark_uncollectible(&mut self, invoice: &str) -> Result<(), Refusal> {
        self.expect_open(invoice)?;
        let now = self.now;
        let row = self.invoices.get_mut(invoice)?;
        row.status = "uncollectible";
        row.uncollectible_at = Some(now);
        row.next_payment_attempt = None;
        self.emit_invoice("invoice.updated", invoice)?;
        self.emit_invoice("invoice.marked_uncollectible", invoice)
    }

    /// A draft invoice of one-off lines (description, amount), to be sent to the customer and
    /// due in 30 days. Answers its id.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn create_invoice(
        &mut self,
        customer: &str,
        currency: &str,
        lines: &[(&str, i64)],
    ) -> Result<String, Refusal> {
        self.create_draft(
            customer,
            &NewInvoice {
                currency: Some(currency),
                lines: lines.to_vec(),
                days_until_due: Some(30),
                include_pending: false,
                metadata: Metadata::new(),
            },
        )
    }

    /// A draft invoice without a subscription; answers its id.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn create_draft(
        &mut self,
        customer: &str,
        new: &NewInvoice<'_>,
    ) -> Result<String, Refusal> {
        self.customers.get(customer)?;
        self.by_request();
        let now = self.now;
        let mut lines = if new.include_pending {
            self.pending_customer_lines(customer)
        } else {
            Vec::new()
        };
        for (description, amount) in &new.lines {
            let mut line = self.one_off_line(description, *amount);
            line.invoice_item = Some(self.id("ii_1"));
            lines.push(line);
        }
        let invoice = self.draft_invoice(customer, None, "manual", lines)?;
        let row = self.invoices.get_mut(&invoice)?;
        if let Some(currency) = new.currency {
            row.currency = currency.to_owned();
        }
        if let Some(days) = new.days_until_due {
            row.collection_method = "send_invoice";
            row.due_date = Some(now + days * DAY);
        }
        row.metadata.clone_from(&new.metadata);
        self.emit_invoice("invoice.created", &invoice)?;
        Ok(invoice)
    }

    /// Puts an amount on a draft, or on the customer's next invoice; answers the item's id.
    ///
    /// # Errors
    /// When there is no such customer or invoice, or the invoice is not a draft.
    pub fn create_invoice_item(
        &mut self,
        customer: &str,
        invoice: Option<&str>,
        currency: &str,
        description: &str,
        amount: i64,
    ) -> Result<String, Refusal> {
        self.customers.get(customer)?;
        if let Some(invoice) = invoice
            && self.invoices.get(invoice)?.status != "draft"
        {
            return Err(Refusal::state(
                "invoice_not_editable",
                "Invoice items can only be added to draft invoices.",
            ));
        }
        self.by_request();
        let line = self.one_off_line(description, amount);
        let id = self.add_pending(customer, None, currency, line);
        if let Some(invoice) = invoice {
            let item = self.invoice_items.get_mut(&id)?;
            item.invoice = Some(invoice.to_owned());
            let line = item.line.clone();
            let row = self.invoices.get_mut(invoice)?;
            row.lines.push(line);
            row.currency = currency.to_owned();
            add_up(row);
            self.emit_invoice("invoice.updated", invoice)?;
        }
        Ok(id)
    }

    fn one_off_line(&mut self, description: &str, amount: i64) -> Line {
        Line {
            id: self.id("il_1"),
            description: description.to_owned(),
            amount,
            quantity: 1,
            price: None,
            period_start: self.now,
            period_end: self.now,
            proration: false,
            subscription: None,
            subscription_item: None,
            invoice_item: None,
            discount: None,
            tax: 0,
        }
    }

    /// Finalises a draft: it gets its number and is open, or paid when nothing is due.
    ///
    /// # Errors
    /// When there is no such invoice, or it is not a draft.
    pub fn finalize(&mut self, invoice: &str) -> Result<(), Refusal> {
        if self.invoices.get(invoice)?.status != "draft" {
            return Err(Refusal::state(
                "invoice_not_editable",
                "This invoice is already finalized.",
            ));
        }
        self.open_invoice(invoice)?;
        let row = self.invoices.get(invoice)?;
        let due = row.amount_due;
        if due > 0 && row.collection_method == "charge_automatically" {
            self.intend(invoice)?;
        }
        self.emit_invoice("invoice.finalized", invoice)?;
        if due == 0 {
            self.mark_paid(invoice)?;
            self.emit_invoice("invoice.updated", invoice)?;
            self.emit_invoice("invoice.paid", invoice)?;
            self.emit_invoice("invoice.payment_succeeded", invoice)?;
        }
        Ok(())
    }

    /// Sends a finalised invoice to its customer.
    ///
    /// # Errors
    /// When there is no such invoice.
    pub fn send_invoice(&mut self, invoice: &str) -> Result<(), Refusal> {
        self.by_request();
        if self.invoices.get(invoice)?.status == "draft" {
            self.finalize(invoice)?;
        }
        self.emit_invoice("invoice.sent", invoice)
    }

    /// A credit note of `amount`: it lowers what is due while the invoice is open, and is a credit
    /// after it was paid. Answers its id.
    ///
    /// # Errors
    /// When there is no such invoice, it is a draft or void, or less than `amount` is left.
    pub fn credit(&mut self, invoice: &str, amount: i64) -> Result<String, Refusal> {
        self.credit_or_pay_back(invoice, amount, false)
    }

    /// A credit note of `amount` on a paid invoice that says that it was paid back outside Stripe. Answers its id.
    ///
    /// # Errors
    /// As [`Account::credit`].
    pub fn pay_back_outside(&mut self, invoice: &str, amount: i64) -> Result<String, Refusal> {
        self.credit_or_pay_back(invoice, amount, true)
    }

    fn credit_or_pay_back(
        &mut self,
        invoice: &str,
        amount: i64,
        out_of_band: bool,
    ) -> Result<String, Refusal> {
        let before = self.invoices.get(invoice)?.clone();
        let left = before.total - before.pre_payment_credit - before.post_payment_credit;
        if !matches!(before.status, "open" | "paid") || amount < 1 || amount > left {
            return Err(Refusal::parameter(
                "amount",
                "invalid_credit_note",
                "The credit note is larger than what is left of the invoice.",
            ));
        }
        self.by_request();
        let pre_payment = before.status == "open";
        let row = self.invoices.get_mut(invoice)?;
        if pre_payment {
            row.pre_payment_credit += amount;
            row.amount_due -= amount;
        } else {
            row.post_payment_credit += amount;
        }
        let note = CreditNote {
            id: self.id("cn_1"),
            invoice: invoice.to_owned(),
            customer: before.customer,
            number: format!("{}-CN-01", before.number.unwrap_or_default()),
            amount,
            tax: before.tax_total * amount / before.total,
            tax_rate: before.tax_rate,
            currency: before.currency,
            status: "issued",
            pre_payment,
            out_of_band: out_of_band && !pre_payment,
            reason: Some("product_unsatisfactory".to_owned()),
            voided_at: None,
            created: self.now,
        };
        self.credit_notes.add(&note.id, note.clone());
        self.emit_invoice("invoice.updated", invoice)?;
        self.emit("credit_note.created", Object::CreditNote(note.clone()));
        if let Some(intent) = before.payment_intent
            && pre_payment
        {
            self.intents.get_mut(&intent)?.amount -= amount;
        }
        Ok(note.id)
    }

    /// Moves a subscription's only item to another price or quantity inside its period.
    ///
    /// # Errors
    /// When there is no such subscription or price, or the subscription has ended.
    pub fn change(
        &mut self,
        subscription: &str,
        price: Option<&str>,
        quantity: Option<i64>,
        proration: Proration,
    ) -> Result<(), Refusal> {
        self.by_request();
        let before = self.live(subscription)?.clone();
        let Some(item) = before.items.first().cloned() else {
            return Err(Refusal::missing("subscription_item", subscription));
        };
        let new_price = match price {
            Some(price) => self.prices.get(price)?.clone(),
            None => item.price.clone(),
        };
        let new_quantity = quantity.unwrap_or(item.quantity);
        let now = self.now;
        let same_interval = new_price.interval == item.price.interval
            && new_price.interval_count == item.price.interval_count;
        let row = self.subscriptions.get_mut(subscription)?;
        if let Some(first) = row.items.first_mut() {
            first.price = new_price.clone();
            first.quantity = new_quantity;
        }
        if !same_interval {
            // Another interval starts another cycle now.
            let interval = new_price.interval.clone().unwrap_or_default();
            row.billing_cycle_anchor = now;
            row.cycles = 1;
            row.current_period_start = now;
            row.current_period_end = add_intervals(now, &interval, new_price.interval_count);
        }
        let changed = row.clone();
        let length = before.current_period_end - before.current_period_start;
        let rest = (before.current_period_end - now).max(0);
        let share = |amount: i64| {
            divide_half_even(i128::from(amount) * i128::from(rest), i128::from(length))
        };
        let mut lines = Vec::new();
        if proration != Proration::None && before.status != "trialing" {
            let credit = -share(item.price.amount(item.quantity));
            lines.push((
                "Unused time",
                item.price.clone(),
                item.quantity,
                credit,
                true,
            ));
            let full = new_price.amount(new_quantity);
            let (charge, prorated) = if same_interval {
                (share(full), true)
            } else {
                (full, false)
            };
            lines.push(("Remaining time", new_price, new_quantity, charge, prorated));
        }
        let lines: Vec<Line> = lines
            .into_iter()
            .map(|(what, price, quantity, amount, prorated)| Line {
                id: self.id("il_1"),
                description: format!("{what} on {quantity} × {}", price.product),
                amount,
                quantity,
                price: Some(price),
                period_start: now,
                period_end: changed.current_period_end,
                proration: prorated,
                subscription: Some(subscription.to_owned()),
                subscription_item: Some(item.id.clone()),
                invoice_item: None,
                discount: None,
                tax: 0,
            })
            .collect();
        match proration {
            Proration::InvoiceNow(outcome) if !lines.is_empty() => {
                let invoice = self.draft_invoice(
                    &changed.customer,
                    Some(&changed),
                    "subscription_update",
                    lines,
                )?;
                self.subscriptions.get_mut(subscription)?.latest_invoice = Some(invoice.clone());
                self.emit_subscription("customer.subscription.updated", subscription)?;
                self.emit_invoice("invoice.created", &invoice)?;
                self.finalize(&invoice)?;
                if self.invoices.get(&invoice)?.status == "open" {
                    self.attempt(&invoice, outcome)?;
                }
            }
            Proration::InvoiceNow(_) | Proration::NextInvoice | Proration::None => {
                for line in lines {
                    let (customer, currency) = (&changed.customer, &changed.currency);
                    self.add_pending(customer, Some(subscription), currency, line);
                }
                self.emit_subscription("customer.subscription.updated", subscription)?;
            }
        }
        self.settle_charges()
    }

    /// Sets (or takes back) the cancellation at the end of the period.
    ///
    /// # Errors
    /// When there is no such subscription, or it has ended.
    pub fn cancel_at_period_end(
        &mut self,
        subscription: &str,
        cancel: bool,
    ) -> Result<(), Refusal> {
        self.by_request();
        self.live(subscription)?;
        let now = self.now;
        let row = self.subscriptions.get_mut(subscription)?;
        row.cancel_at_period_end = cancel;
        row.cancel_at = cancel.then_some(row.current_period_end);
        row.canceled_at = cancel.then_some(now);
        row.cancellation_reason = cancel.then_some("cancellation_requested");
        self.emit_subscription("customer.subscription.updated", subscription)
    }

    /// Moves the clock to the end of the period and ends the subscription.
    ///
    /// # Errors
    /// When there is no such subscription, or it has ended.
    pub fn end_period(&mut self, subscription: &str) -> Result<(), Refusal> {
        let end = self.live(subscription)?.current_period_end;
        self.now = self.now.max(end);
        self.by_itself();
        self.end(subscription, "cancellation_requested")
    }

    /// Ends a subscription at once.
    ///
    /// # Errors
    /// When there is no such subscription, or it has ended.
    pub fn cancel_now(&mut self, subscription: &str) -> Result<(), Refusal> {
        self.live(subscription)?;
        self.by_request();
        self.end(subscription, "cancellation_requested")
    }

    /// Pauses collection with a behaviour, or resumes it with none.
    ///
    /// # Errors
    /// When there is no such subscription, or it has ended.
    pub fn pause_collection(
        &mut self,
        subscription: &str,
        behavior: Option<&str>,
    ) -> Result<(), Refusal> {
        self.by_request();
        self.live(subscription)?;
        self.subscriptions.get_mut(subscription)?.pause_behavior = behavior.map(str::to_owned);
        self.emit_subscription("customer.subscription.updated", subscription)
    }

    fn end(&mut self, subscription: &str, reason: &'static str) -> Result<(), Refusal> {
        let now = self.now;
        let row = self.subscriptions.get_mut(subscription)?;
        row.status = "canceled";
        row.ended_at = Some(now);
        row.canceled_at = row.canceled_at.or(Some(now));
        row.cancellation_reason = Some(reason);
        self.emit_subscription("customer.subscription.deleted", subscription)
    }

    fn live(&self, subscription: &str) -> Result<&Subscription, Refusal> {
        let row = self.subscriptions.get(subscription)?;
        if row.ended_at.is_some() {
            return Err(Refusal::missing("subscription", subscription));
        }
        Ok(row)
    }

    fn emit_subscription(&mut self, kind: &'static str, id: &str) -> Result<(), Refusal> {
        let snapshot = self.subscriptions.get(id)?.clone();
        self.emit(kind, Object::Subscription(snapshot));
        Ok(())
    }

    fn emit_invoice(&mut self, kind: &'static str, id: &str) -> Result<(), Refusal> {
        let snapshot = self.invoices.get(id)?.clone();
        self.emit(kind, Object::Invoice(Box::new(snapshot)));
        Ok(())
    }

    /// The lines of a subscription's current period.
    fn period_lines(&mut self, subscription: &Subscription) -> Vec<Line> {
        let trial = subscription.status == "trialing"
            || (subscription.cycles == 0 && subscription.trial_end.is_some());
        subscription
            .items
            .iter()
            .map(|item| Line {
                id: self.id("il_1"),
                description: if trial {
                    format!("Trial period for {}", item.price.product)
                } else {
                    format!("{} × {}", item.quantity, item.price.product)
                },
                amount: if trial {
                    0
                } else {
                    item.price.amount(item.quantity)
                },
                quantity: item.quantity,
                price: Some(item.price.clone()),
                period_start: subscription.current_period_start,
                period_end: subscription.current_period_end,
                proration: false,
                subscription: Some(subscription.id.clone()),
                subscription_item: Some(item.id.clone()),
                invoice_item: None,
                discount: None,
                tax: 0,
            })
            .collect()
    }

    fn add_pending(
        &mut self,
        customer: &str,
        subscription: Option<&str>,
        currency: &str,
        mut line: Line,
    ) -> String {
        let id = self.id("ii_1");
        line.invoice_item = Some(id.clone());
        let item = InvoiceItem {
            id: id.clone(),
            customer: customer.to_owned(),
            subscription: subscription.map(str::to_owned),
            invoice: None,
            line,
            currency: currency.to_owned(),
            created: self.now,
        };
        self.invoice_items.add(&id, item.clone());
        self.emit("invoiceitem.created", Object::InvoiceItem(Box::new(item)));
        id
    }

    /// What waits for the subscription's next invoice.
    fn pending_lines(&self, subscription: &str) -> Vec<Line> {
        self.pending(|item| item.subscription.as_deref() == Some(subscription))
    }

    /// What waits for the customer's next invoice without a subscription.
    fn pending_customer_lines(&self, customer: &str) -> Vec<Line> {
        self.pending(|item| item.subscription.is_none() && item.customer == customer)
    }

    fn pending(&self, wanted: impl Fn(&InvoiceItem) -> bool) -> Vec<Line> {
        self.invoice_items
            .iter()
            .filter(|item| item.invoice.is_none() && wanted(item))
            .map(|item| item.line.clone())
            .collect()
    }

    /// A draft invoice with its amounts worked out; logs nothing.
    fn draft_invoice(
        &mut self,
        customer: &str,
        subscription: Option<&Subscription>,
        billing_reason: &'static str,
        mut lines: Vec<Line>,
    ) -> Result<String, Refusal> {
        let id = self.id("in_1");
        let buyer = self.customers.get(customer)?.clone();
        let mut discounts: Vec<Discount> = subscription
            .map(|one| one.discounts.clone())
            .unwrap_or_default();
        if discounts.is_empty() {
            discounts.extend(buyer.discount.clone());
        }
        let tax_bps = subscription.map_or(0, |one| one.tax_bps);
        let tax_rate = self.tax_rate_of(tax_bps);
        for line in &lines {
            if let Some(item) = &line.invoice_item
                && let Ok(item) = self.invoice_items.get_mut(item)
            {
                item.invoice = Some(id.clone());
            }
        }
        if let Some(discount) = discounts.first() {
            take_off(discount, &mut lines);
        }
        for line in &mut lines {
            let net = line.amount - line.discount.as_ref().map_or(0, |(_, amount)| *amount);
            line.tax = divide_half_even(i128::from(net) * i128::from(tax_bps), 10_000);
        }
        let mut invoice = Invoice {
            id: id.clone(),
            customer: customer.to_owned(),
            customer_email: buyer.email,
            customer_name: buyer.name,
            subscription: subscription.map(|one| one.id.clone()),
            subscription_metadata: subscription
                .map(|one| one.metadata.clone())
                .unwrap_or_default(),
            number: None,
            status: "draft",
            billing_reason,
            collection_method: "charge_automatically",
            currency: subscription.map_or_else(
                || buyer.currency.clone().unwrap_or_else(|| "usd".to_owned()),
                |one| one.currency.clone(),
            ),
            lines,
            discounts,
            tax_bps,
            tax_rate,
            subtotal: 0,
            discount_total: 0,
            tax_total: 0,
            total: 0,
            amount_due: 0,
            amount_paid: 0,
            pre_payment_credit: 0,
            post_payment_credit: 0,
            outside: 0,
            attempt_count: 0,
            next_payment_attempt: None,
            due_date: None,
            period_start: subscription.map_or(self.now, |one| one.current_period_start),
            period_end: self.now,
            finalized_at: None,
            paid_at: None,
            voided_at: None,
            uncollectible_at: None,
            payment_intent: None,
            charge: None,
            metadata: Metadata::new(),
            created: self.now,
        };
        add_up(&mut invoice);
        self.invoices.add(&id, invoice);
        Ok(id)
    }

    /// Gives a draft its number and opens it; logs nothing.
    fn open_invoice(&mut self, invoice: &str) -> Result<(), Refusal> {
        let now = self.now;
        let customer = self.invoices.get(invoice)?.customer.clone();
        let customer = self.customers.get_mut(&customer)?;
        let number = format!(
            "{}-{:04}",
            customer.invoice_prefix, customer.next_invoice_sequence
        );
        customer.next_invoice_sequence += 1;
        let row = self.invoices.get_mut(invoice)?;
        row.number = Some(number);
        row.status = "open";
        row.finalized_at = Some(now);
        Ok(())
    }

    /// The payment intent of an invoice, made when there is none.
    fn intend(&mut self, invoice: &str) -> Result<String, Refusal> {
        let row = self.invoices.get(invoice)?.clone();
        if let Some(intent) = row.payment_intent {
            return Ok(intent);
        }
        let description = match row.billing_reason {
            "subscription_create" => "Subscription creation",
            "manual" => "Payment for Invoice",
            _ => "Subscription update",
        };
        let intent = self.new_intent(NewIntent {
            customer: Some(&row.customer),
            amount: row.amount_due,
            currency: &row.currency,
            invoice: Some(invoice),
            description: Some(description),
            metadata: Metadata::new(),
        })?;
        self.invoices.get_mut(invoice)?.payment_intent = Some(intent.clone());
        let payment = InvoicePayment {
            id: self.id("inpay_1"),
            invoice: invoice.to_owned(),
            payment: PaymentOfInvoice::Intent(intent.clone()),
            is_default: true,
            amount: row.amount_due,
            currency: row.currency,
            status: "open",
            paid_at: None,
            created: self.now,
        };
        self.invoice_payments.add(&payment.id, payment.clone());
        Ok(intent)
    }

    fn expect_open(&self, invoice: &str) -> Result<(), Refusal> {
        let row = self.invoices.get(invoice)?;
        if !matches!(row.status, "open" | "uncollectible") {
            return Err(Refusal::state(
                "invoice_not_open",
                format!("Invoice is not open: it is {}.", row.status),
            ));
        }
        Ok(())
    }

    fn mark_paid(&mut self, invoice: &str) -> Result<(), Refusal> {
        let now = self.now;
        let row = self.invoices.get_mut(invoice)?;
        row.status = "paid";
        row.paid_at = Some(now);
        row.amount_paid = row.amount_due;
        row.next_payment_attempt = None;
        Ok(())
    }

    /// One attempt to charge an open invoice, with all that follows for its subscription.
    fn attempt(&mut self, invoice: &str, outcome: Outcome) -> Result<(), Refusal> {
        self.expect_open(invoice)?;
        let now = self.now;
        let intent = self.intend(invoice)?;
        let charge = self.charge_intent(&intent, outcome)?;
        let row = self.invoices.get_mut(invoice)?;
        row.attempt_count += 1;
        row.charge = Some(charge);
        let subscription = row.subscription.clone();
        if outcome == Outcome::Succeeds {
            self.mark_paid(invoice)?;
            self.emit_invoice("invoice.updated", invoice)?;
            self.emit_invoice("invoice.paid", invoice)?;
            self.emit_invoice("invoice.payment_succeeded", invoice)?;
            self.set_default(&intent, "paid", Some(now))?;
            let payment = self.default_payment(&intent)?;
            self.emit("invoice_payment.paid", Object::InvoicePayment(payment));
        } else {
            row.next_payment_attempt = (outcome == Outcome::Fails).then_some(now + 3 * DAY);
            self.emit_invoice("invoice.updated", invoice)?;
            self.emit_invoice("invoice.payment_failed", invoice)?;
        }
        let Some(subscription) = subscription else {
            return Ok(());
        };
        let row = self.subscriptions.get_mut(&subscription)?;
        let status = match (outcome == Outcome::Succeeds, row.status) {
            (true, "incomplete" | "past_due" | "unpaid") => "active",
            (false, "active") => "past_due",
            (_, unchanged) => unchanged,
        };
        if status != row.status {
            row.status = status;
            self.emit_subscription("customer.subscription.updated", &subscription)?;
        }
        self.set_delinquent(invoice, outcome != Outcome::Succeeds)
    }

    fn set_delinquent(&mut self, invoice: &str, delinquent: bool) -> Result<(), Refusal> {
        let customer = self.invoices.get(invoice)?.customer.clone();
        let row = self.customers.get_mut(&customer)?;
        if row.delinquent != delinquent {
            row.delinquent = delinquent;
            let snapshot = row.clone();
            self.emit("customer.updated", Object::Customer(snapshot));
        }
        Ok(())
    }

    /// A `once` coupon is spent with the first invoice.
    fn drop_once_discounts(&mut self, subscription: &str) -> Result<(), Refusal> {
        let now = self.now;
        let row = self.subscriptions.get_mut(subscription)?;
        let (spent, kept): (Vec<Discount>, Vec<Discount>) = row
            .discounts
            .drain(..)
            .partition(|discount| discount.coupon.duration == "once");
        row.discounts = kept;
        if spent.is_empty() {
            return Ok(());
        }
        for mut discount in spent {
            discount.end = Some(now);
            if let Ok(row) = self.discounts.get_mut(&discount.id) {
                row.end = Some(now);
            }
            self.emit("customer.discount.deleted", Object::Discount(discount));
        }
        self.emit_subscription("customer.subscription.updated", subscription)
    }
}

/// Works an invoice's amounts out from its lines.
fn add_up(invoice: &mut Invoice) {
    let lines = &invoice.lines;
    invoice.subtotal = lines.iter().map(|line| line.amount).sum();
    invoice.discount_total = lines
        .iter()
        .filter_map(|line| line.discount.as_ref().map(|(_, amount)| *amount))
        .sum();
    invoice.tax_total = lines.iter().map(|line| line.tax).sum();
    invoice.total = invoice.subtotal - invoice.discount_total + invoice.tax_total;
    invoice.amount_due = invoice.total.max(0);
}

/// Writes what a discount takes off to the lines: a percentage of each, or an amount from the
/// first lines until it is used up.
fn take_off(discount: &Discount, lines: &mut [Line]) {
    let mut left = discount.coupon.amount_off.unwrap_or_default();
    for line in lines.iter_mut().filter(|line| line.amount > 0) {
        let amount = match discount.coupon.percent_off_bps {
            Some(bps) => divide_half_even(i128::from(line.amount) * i128::from(bps), 10_000),
            None => left.min(line.amount),
        };
        left -= amount;
        if amount > 0 {
            line.discount = Some((discount.id.clone(), amount));
        }
    }
}
