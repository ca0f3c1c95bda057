//! The ledger's rows of some objects of one list, and the comparison with what Stripe says of each.

use std::collections::BTreeMap;

use domain::payment::{
    Charge, Dispute, FeeEstimate, InvoicePayment, Payment, PaymentIntent, Refund,
};
use domain::reconciliation::{self, Discrepancy, InvoiceRow, PaymentRow, SubscriptionRow};
use domain::revenue::entries::RevenueEntry;
use domain::stripe_objects::balance::{BalanceTransaction, Payout, TaxRate};
use domain::stripe_objects::objects::{Ids, Kind, Objects};
use domain::stripe_objects::snapshot::Snapshot;
use futures_util::try_join;
use shared::ledger;
use store::ledger::{State, read};
use store::reconciliation_window as window;
use tokio_postgres::Client;

use super::subject::Subject;

/// By their ids; only those tables are read that the list is about.
#[derive(Debug, Default)]
pub(super) struct Rows {
    charges: BTreeMap<String, Charge>,
    intents: BTreeMap<String, PaymentIntent>,
    refunds: BTreeMap<String, Refund>,
    disputes: BTreeMap<String, Dispute>,
    invoices: BTreeMap<String, InvoiceRow>,
    links: BTreeMap<String, InvoicePayment>,
    subscriptions: BTreeMap<String, SubscriptionRow>,
    /// Rows of `payment_history`, by payment key.
    payments: BTreeMap<String, PaymentRow>,
    /// The payments that follow from the stored objects, by payment key: what `payment_history` should hold.
    derived: BTreeMap<String, Payment>,
    entries: BTreeMap<String, Vec<RevenueEntry>>,
    transactions: BTreeMap<String, BalanceTransaction>,
    payouts: BTreeMap<String, Payout>,
    tax_rates: BTreeMap<String, TaxRate>,
}

impl Rows {
    pub(super) async fn load(
        db: &Client,
        subject: Subject,
        ids: &[String],
        estimate: FeeEstimate,
    ) -> Result<Rows, ledger::Error> {
        let mut rows = Rows::default();
        match subject {
            Subject::Charge => {
                let named = Ids {
                    charges: ids.to_vec(),
                    ..Ids::default()
                };
                rows.charges = read(db, &named).await?.objects.charges;
                // A charge with an intent is a part of the intent's payment.
                let alone: Vec<String> = ids
                    .iter()
                    .filter(|id| {
                        let charge = rows.charges.get(*id);
                        charge.is_none_or(|one| one.stripe_payment_intent_id.is_none())
                    })
                    .cloned()
                    .collect();
                if !alone.is_empty() {
                    let named = Ids {
                        charges: alone.clone(),
                        ..Ids::default()
                    };
                    rows.load_payments(db, &named, &alone, estimate).await?;
                }
            }
            Subject::PaymentIntent => {
                let named = Ids {
                    payment_intents: ids.to_vec(),
                    ..Ids::default()
                };
                let state = rows.load_payments(db, &named, ids, estimate).await?;
                rows.intents = state.objects.payment_intents;
            }
            Subject::Refund => {
                let named = Ids {
                    refunds: ids.to_vec(),
                    ..Ids::default()
                };
                rows.refunds = read(db, &named).await?.objects.refunds;
            }
            Subject::Dispute => {
                let named = Ids {
                    disputes: ids.to_vec(),
                    ..Ids::default()
                };
                rows.disputes = read(db, &named).await?.objects.disputes;
            }
            Subject::Invoice => rows.load_invoices(db, ids).await?,
            Subject::Subscription => rows.load_subscriptions(db, ids).await?,
            Subject::BalanceTransaction => {
                let named = Ids {
                    balance_transactions: ids.to_vec(),
                    ..Ids::default()
                };
                rows.transactions = read(db, &named).await?.objects.balance_transactions;
            }
            Subject::Payout => {
                let named = Ids {
                    payouts: ids.to_vec(),
                    ..Ids::default()
                };
                rows.payouts = read(db, &named).await?.objects.payouts;
            }
            Subject::TaxRate => {
                let named = Ids {
                    tax_rates: ids.to_vec(),
                    ..Ids::default()
                };
                rows.tax_rates = read(db, &named).await?.objects.tax_rates;
            }
        }
        Ok(rows)
    }

    async fn load_payments(
        &mut self,
        db: &Client,
        named: &Ids,
        payment_keys: &[String],
        estimate: FeeEstimate,
    ) -> Result<State, ledger::Error> {
        let (state, payments) = try_join!(read(db, named), window::payments(db, payment_keys))?;
        for payment in ledger::derived_payments(&state, estimate)? {
            self.derived.insert(payment.payment_key.clone(), payment);
        }
        for entry in &state.entries {
            let of_payment = self.entries.entry(entry.payment_key.clone()).or_default();
            of_payment.push(entry.clone());
        }
        for row in payments {
            self.payments.insert(row.payment_key.clone(), row);
        }
        Ok(state)
    }

    async fn load_invoices(&mut self, db: &Client, ids: &[String]) -> Result<(), ledger::Error> {
        let named = Ids {
            invoices: ids.to_vec(),
            ..Ids::default()
        };
        let (state, due) = try_join!(read(db, &named), window::invoices_due(db, ids))?;
        for (id, invoice) in state.objects.invoices {
            let (amount_due_cents, is_ours) = due.get(&id).copied().unwrap_or_default();
            let row = InvoiceRow {
                invoice,
                amount_due_cents,
                is_ours,
            };
            self.invoices.insert(id, row);
        }
        self.links = state.objects.invoice_payments;
        Ok(())
    }

    async fn load_subscriptions(
        &mut self,
        db: &Client,
        ids: &[String],
    ) -> Result<(), ledger::Error> {
        let named = Ids {
            subscriptions: ids.to_vec(),
            ..Ids::default()
        };
        let (state, mrr) = try_join!(read(db, &named), window::subscriptions_mrr(db, ids))?;
        let mut snapshots = state.objects.subscriptions;
        for (id, mrr_microcents) in mrr {
            // None while only a checkout session has named the subscription.
            let snapshot = snapshots.remove(&id);
            let computed = match &snapshot {
                Some(snapshot) => Some(snapshot.current_revenue()?),
                None => None,
            };
            let computed = computed.filter(|revenue| !revenue.is_provisional);
            let row = SubscriptionRow {
                snapshot,
                mrr_microcents,
                computed_mrr_microcents: computed.map(|revenue| revenue.mrr_microcents),
            };
            self.subscriptions.insert(id, row);
        }
        Ok(())
    }

    /// Whether the ledger has any row of the object.
    pub(super) fn has(&self, subject: Subject, id: &str) -> bool {
        match subject {
            Subject::Charge => self.charges.contains_key(id) || self.payments.contains_key(id),
            Subject::PaymentIntent => {
                self.intents.contains_key(id) || self.payments.contains_key(id)
            }
            Subject::Refund => self.refunds.contains_key(id),
            Subject::Dispute => self.disputes.contains_key(id),
            // A deleted draft's row is kept, and is right to say that Stripe has none.
            Subject::Invoice => self
                .invoices
                .get(id)
                .is_some_and(|row| row.invoice.deleted_at.is_none()),
            Subject::Subscription => self.subscriptions.contains_key(id),
            Subject::BalanceTransaction => self.transactions.contains_key(id),
            Subject::Payout => self.payouts.contains_key(id),
            Subject::TaxRate => self.tax_rates.contains_key(id),
        }
    }

    pub(super) fn charge(&self, charge_id: &str) -> Option<&Charge> {
        self.charges.get(charge_id)
    }

    pub(super) fn dispute(&self, dispute_id: &str) -> Option<&Dispute> {
        self.disputes.get(dispute_id)
    }

    /// How the object differs from the rows; `facts` are what Stripe says of it.
    pub(super) fn compare(&self, subject: Subject, id: &str, facts: &Objects) -> Vec<Discrepancy> {
        let mut found = match subject {
            Subject::Charge => compared(&facts.charges, id, &self.charges, reconciliation::charge),
            Subject::PaymentIntent => compared(
                &facts.payment_intents,
                id,
                &self.intents,
                reconciliation::payment_intent,
            ),
            Subject::Refund => compared(&facts.refunds, id, &self.refunds, reconciliation::refund),
            Subject::Dispute => {
                compared(&facts.disputes, id, &self.disputes, reconciliation::dispute)
            }
            Subject::Invoice => {
                compared(&facts.invoices, id, &self.invoices, reconciliation::invoice)
            }
            Subject::Subscription => compared(
                &facts.subscriptions,
                id,
                &self.subscriptions,
                reconciliation::subscription,
            ),
            Subject::BalanceTransaction => compared(
                &facts.balance_transactions,
                id,
                &self.transactions,
                reconciliation::balance_transaction,
            ),
            Subject::Payout => compared(
                &facts.payouts,
                id,
                &self.payouts,
                reconciliation::payout_row,
            ),
            Subject::TaxRate => compared(
                &facts.tax_rates,
                id,
                &self.tax_rates,
                reconciliation::tax_rate,
            ),
        };
        match subject {
            Subject::Charge | Subject::PaymentIntent => found.extend(self.payment(id)),
            Subject::Invoice => {
                found.extend(self.outside_stripe(id, facts));
                for link in facts.invoice_payments.values() {
                    let known = self.links.get(&link.key());
                    found.extend(reconciliation::invoice_payment(link, known));
                }
            }
            Subject::Refund
            | Subject::Dispute
            | Subject::Subscription
            | Subject::BalanceTransaction
            | Subject::Payout
            | Subject::TaxRate => {}
        }
        found
    }

    /// How much came outside Stripe for an invoice, where Stripe has shown all its payments.
    fn outside_stripe(&self, id: &str, facts: &Objects) -> Vec<Discrepancy> {
        let shown = facts.invoices.get(id).filter(|one| one.stated.is_some());
        let Some((shown, row)) = shown.zip(self.invoices.get(id)) else {
            return Vec::new();
        };
        let stripe = shown.money(facts.invoice_payments.values());
        let ledger = row.invoice.money(self.links.values());
        match (stripe, ledger) {
            (Ok(stripe), Ok(ledger)) => {
                reconciliation::outside_stripe(shown, stripe.outside_cents, ledger.outside_cents)
            }
            (Err(_out_of_range), _) | (_, Err(_out_of_range)) => Vec::new(),
        }
    }

    /// How a payment's row differs from what its facts add up to.
    fn payment(&self, key: &str) -> Vec<Discrepancy> {
        let entries = self.entries.get(key).map_or(&[][..], Vec::as_slice);
        self.derived.get(key).map_or_else(Vec::new, |derived| {
            reconciliation::payment(derived, self.payments.get(key), entries)
        })
    }

    /// Whether a payment's row is what its facts add up to.
    pub(super) fn is_as_derived(&self, key: &str) -> bool {
        self.payment(key).is_empty()
    }

    /// Whether the object is worth asking for although the list shows no difference: a list does not say what paid an
    /// invoice.
    pub(super) fn is_unexplained(&self, subject: Subject, id: &str) -> bool {
        if subject != Subject::Invoice {
            return false;
        }
        self.invoices.get(id).is_some_and(|row| {
            let money = row.invoice.money(self.links.values());
            money.is_ok_and(|money| money.unexplained_cents > 0)
        })
    }

    /// Whether there is anything to compare: Stripe sends no event about a payment that nobody has tried yet.
    pub(super) fn is_comparable(&self, subject: Subject, id: &str, facts: &Objects) -> bool {
        if subject != Subject::PaymentIntent || self.has(subject, id) {
            return true;
        }
        let mut intents = facts.payment_intents.values();
        intents.any(|intent| intent.key() == id && reconciliation::is_announced(intent))
    }
}

fn compared<T: Snapshot, R>(
    facts: &Kind<T>,
    id: &str,
    rows: &BTreeMap<String, R>,
    compare: impl Fn(&T, Option<&R>) -> Vec<Discrepancy>,
) -> Vec<Discrepancy> {
    let fact = facts.get(id);
    fact.map_or_else(Vec::new, |fact| compare(fact, rows.get(id)))
}
