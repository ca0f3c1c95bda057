//! Balance transactions: what Stripe kept of each charge, and whether payouts are the sums of theirs.

use std::collections::BTreeSet;

use domain::money::Currency;
use domain::reconciliation::{self, SettlementMatch};
use futures_util::join;
use jiff::SignedDuration;
use serde_json::{Map, Value};
use shared::ledger;
use stripe::{client, reader};

use super::rows::Rows;
use super::subject::Subject;
use super::walk::{PAGES, batch, page};
use super::{Run, Stop};

/// From a payout's creation until its transactions are all assigned, at most.
const MADE_UP_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A balance transaction and the object behind it.
struct Transaction {
    id: String,
    subject: Subject,
    source: String,
    object: Value,
}

impl Run<'_> {
    /// Each transaction of the window against the charge, refund or dispute behind it, which may be older.
    pub(super) async fn walk_balance_transactions(&mut self) -> Result<(), Stop> {
        let app = self.app;
        self.tally.examined = 0;
        let mut pages = app.stripe.pages(
            &["balance_transactions"],
            self.window.params(),
            PAGES,
            self.now,
        );
        let deadline = self.deadline;
        let mut next = batch(&mut pages, deadline).await?;
        while let Some(transactions) = next {
            let (compared, following) = join!(
                self.compare_transactions(transactions, true),
                batch(&mut pages, deadline)
            );
            compared?;
            next = following?;
        }
        Ok(())
    }

    /// Each automatic payout that Stripe has made up: only of these it can tell the transactions. It may do so days after
    /// it has created one, so those of the week before are summed again.
    pub(super) async fn walk_payouts(&mut self) -> Result<(), Stop> {
        let app = self.app;
        let since = self.window.since;
        let window = super::Window {
            since: since.saturating_sub(MADE_UP_WITHIN).unwrap_or(since),
            ..self.window
        };
        let mut pages = app
            .stripe
            .pages(&["payouts"], window.params(), PAGES, self.now);
        while let Some(payouts) = page(&mut pages, self.deadline).await? {
            for payout in payouts {
                if self.deadline.is_reached() {
                    return Err(Stop::Deadline);
                }
                if is_made_up(&payout) {
                    self.compare_payout(&payout).await?;
                }
            }
        }
        Ok(())
    }

    async fn compare_payout(&mut self, payout: &Value) -> Result<(), Stop> {
        let app = self.app;
        let id = text(payout, "id")?;
        let is_in_window = integer(payout, "created")? >= self.window.since.as_second();
        let amount_cents = integer(payout, "amount")?;
        let params = Map::from_iter([("payout".to_owned(), Value::from(id))]);
        let mut pages = app
            .stripe
            .pages(&["balance_transactions"], params, PAGES, self.now);
        let mut sum_cents = 0_i64;
        while let Some(transactions) = batch(&mut pages, self.deadline).await? {
            for transaction in &transactions {
                // The payout's own transaction takes out what the others brought.
                if !text(transaction, "type")?.starts_with("payout") {
                    sum_cents = sum_cents
                        .checked_add(integer(transaction, "net")?)
                        .ok_or(client::Error::Unreadable("a payout's sum is out of range"))?;
                }
            }
            if is_in_window {
                self.compare_transactions(transactions, false).await?;
            }
        }
        self.tally.compared += 1;
        let currency = Currency::parse(text(payout, "currency")?).ok();
        let found = reconciliation::payout(id, currency, amount_cents, sum_cents);
        if found.is_empty() {
            self.tally.matched += 1;
        }
        self.tell_all(found).await?;
        Ok(())
    }

    /// Those that were counted elsewhere already are not counted again.
    async fn compare_transactions(
        &mut self,
        objects: Vec<Value>,
        is_counted: bool,
    ) -> Result<(), Stop> {
        let mut transactions = Vec::with_capacity(objects.len());
        for object in objects {
            let id = text(&object, "id")?.to_owned();
            if let Some((subject, source)) = source(&object) {
                let source = source.to_owned();
                transactions.push(Transaction {
                    id,
                    subject,
                    source,
                    object,
                });
            }
        }
        for subject in [Subject::Charge, Subject::Refund, Subject::Dispute] {
            let of_subject = transactions.iter().filter(|one| one.subject == subject);
            let sources: BTreeSet<String> = of_subject.map(|one| one.source.clone()).collect();
            if sources.is_empty() {
                continue;
            }
            let sources: Vec<String> = sources.into_iter().collect();
            let rows = {
                let client = self.app.database.client().await?;
                Rows::load(&client, subject, &sources, self.app.fee_estimate).await?
            };
            for one in transactions.iter().filter(|one| one.subject == subject) {
                let is_equal = match self.settled(one, &rows)? {
                    SettlementMatch::Known => true,
                    SettlementMatch::AwaitedFee => {
                        self.settle(one).await?;
                        true
                    }
                    SettlementMatch::Differs => self.examine(subject, &one.source, None).await?,
                };
                if is_counted {
                    self.tally.compared += 1;
                    self.tally.matched += i64::from(is_equal);
                }
            }
        }
        Ok(())
    }

    fn settled(&self, transaction: &Transaction, rows: &Rows) -> Result<SettlementMatch, Stop> {
        let Transaction { id, source, .. } = transaction;
        let is_known = match transaction.subject {
            Subject::Charge => {
                let facts = reader::read_fetched(&transaction.object, self.now)
                    .map_err(|error| Stop::from(ledger::Error::from(error)))?;
                let settlement = facts.settlements.get(id);
                return Ok(settlement.map_or(SettlementMatch::Known, |settlement| {
                    reconciliation::settlement(id, settlement, rows.charge(source))
                }));
            }
            Subject::Dispute => rows
                .dispute(source)
                .is_some_and(|dispute| dispute.balance_transactions.contains_key(id)),
            Subject::Refund | Subject::PaymentIntent | Subject::Invoice | Subject::Subscription => {
                rows.has(transaction.subject, source)
            }
        };
        Ok(if is_known {
            SettlementMatch::Known
        } else {
            SettlementMatch::Differs
        })
    }

    /// The actual fee in place of the estimate. That it was an estimate until now is no mistake of anybody's.
    async fn settle(&mut self, transaction: &Transaction) -> Result<(), Stop> {
        if !self.window.heal {
            return Ok(());
        }
        self.apply(&transaction.object).await?;
        self.tally.fees_settled += 1;
        Ok(())
    }
}

/// The object behind a transaction, when the ledger has rows of its kind.
fn source(transaction: &Value) -> Option<(Subject, &str)> {
    let source = transaction.get("source")?;
    let id = source.as_str().or_else(|| source.get("id")?.as_str())?;
    let kind = transaction.get("type")?.as_str()?;
    let subject = match id.split_once('_')?.0 {
        "ch" | "py" if matches!(kind, "charge" | "payment") => Subject::Charge,
        "re" | "pyr" => Subject::Refund,
        "dp" | "du" => Subject::Dispute,
        _ => return None,
    };
    Some((subject, id))
}

/// Whether the payout is automatic, goes or went to the bank, and its transactions are all assigned.
fn is_made_up(payout: &Value) -> bool {
    let is = |field: &str, value: &str| payout.get(field).and_then(Value::as_str) == Some(value);
    payout.get("automatic").and_then(Value::as_bool) == Some(true)
        && ["pending", "in_transit", "paid"]
            .iter()
            .any(|status| is("status", status))
        && !is("reconciliation_status", "in_progress")
}

fn text<'a>(object: &'a Value, field: &str) -> Result<&'a str, client::Error> {
    let text = object.get(field).and_then(Value::as_str);
    text.ok_or(client::Error::Unreadable(
        "an object of the balance lacks a text",
    ))
}

fn integer(object: &Value, field: &str) -> Result<i64, client::Error> {
    let number = object.get(field).and_then(Value::as_i64);
    number.ok_or(client::Error::Unreadable(
        "an object of the balance lacks an amount",
    ))
}
