//! Balance transactions: what Stripe kept of each charge, and whether payouts are the sums of theirs.

use std::collections::BTreeSet;

use domain::money::Currency;
use domain::reconciliation;
use domain::stripe_objects::balance::{BalanceTransaction, Source, SourceKind};
use jiff::SignedDuration;
use serde_json::{Map, Value};
use shared::ledger;
use store::stripe_lookups;
use stripe::{client, reader};

use super::rows::Rows;
use super::subject::Subject;
use super::walk::{Listed, PAGES, batch, page};
use super::{Run, Stop};

/// From a payout's creation until its transactions are all assigned, at most.
const MADE_UP_WITHIN: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Balance transactions applied at once.
const SLICE: usize = 100;

impl Run<'_> {
    /// Takes in what the ledger does not have of some listed transactions; returns those that it has, and how many of the
    /// others are as they should be. A charge's is asked for by a look-up, and a dispute brings its own; all others come
    /// with this list, so that they are no discrepancies.
    pub(super) async fn take_in(
        &mut self,
        listed: Vec<Listed>,
        rows: &Rows,
    ) -> Result<(Vec<Listed>, i64), Stop> {
        let (known, unknown): (Vec<Listed>, Vec<Listed>) = listed
            .into_iter()
            .partition(|one| rows.has(Subject::BalanceTransaction, &one.id));
        if unknown.is_empty() {
            return Ok((known, 0));
        }
        let sources = self.sources(&unknown).await?;
        let ids: Vec<&str> = unknown.iter().map(|one| one.id.as_str()).collect();
        let looked_up = {
            let client = self.app.database.client().await?;
            stripe_lookups::unfinished(&**client, "balance_transaction", &ids).await?
        };
        let mut well = 0;
        let mut taken = Vec::new();
        for one in unknown {
            let is_looked_up = looked_up.contains(&one.id);
            let Some(transaction) = one.facts.balance_transactions.get(&one.id) else {
                continue;
            };
            match sources.explain(transaction, is_looked_up) {
                Missing::Awaited => {
                    self.tally.fees_settled += i64::from(self.window.heal);
                    taken.push(one.object);
                    well += 1;
                }
                Missing::FromTheList => {
                    taken.push(one.object);
                    well += 1;
                }
                Missing::Lost => {
                    let listed = Some(one.object);
                    let subject = Subject::BalanceTransaction;
                    well += i64::from(self.examine(subject, &one.id, listed).await?);
                }
                Missing::Behind(subject) => {
                    let source = transaction.source_id.clone().unwrap_or_default();
                    well += i64::from(self.examine(subject, &source, None).await?);
                }
            }
        }
        if self.window.heal {
            for slice in taken.chunks(SLICE) {
                self.apply_all(slice).await?;
            }
        }
        Ok((known, well))
    }

    /// The ledger's rows of the objects behind these transactions.
    async fn sources(&self, transactions: &[Listed]) -> Result<Sources, Stop> {
        let source = |one: &Listed| {
            let transaction = one.facts.balance_transactions.get(&one.id)?;
            transaction.source_id.clone()
        };
        let ids: BTreeSet<String> = transactions.iter().filter_map(source).collect();
        let of = |wanted| {
            let ids = ids.iter().filter(|id| Source::of(id) == Some(wanted));
            ids.cloned().collect::<Vec<String>>()
        };
        let client = self.app.database.client().await?;
        let estimate = self.app.fee_estimate;
        Ok(Sources {
            charges: Rows::load(&client, Subject::Charge, &of(Source::Charge), estimate).await?,
            refunds: Rows::load(&client, Subject::Refund, &of(Source::Refund), estimate).await?,
            disputes: Rows::load(&client, Subject::Dispute, &of(Source::Dispute), estimate).await?,
        })
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
                self.compare_of_payout(transactions).await?;
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

    /// The transactions of a payout, which may be older than the window. They are not counted: most are counted elsewhere.
    async fn compare_of_payout(&mut self, objects: Vec<Value>) -> Result<(), Stop> {
        let mut listed = Vec::with_capacity(objects.len());
        for object in objects {
            let id = text(&object, "id")?.to_owned();
            let facts = reader::read_fetched(&object, self.now)
                .map_err(|error| Stop::from(ledger::Error::from(error)))?;
            listed.push(Listed { id, object, facts });
        }
        let ids: Vec<String> = listed.iter().map(|one| one.id.clone()).collect();
        let subject = Subject::BalanceTransaction;
        let rows = {
            let client = self.app.database.client().await?;
            Rows::load(&client, subject, &ids, self.app.fee_estimate).await?
        };
        let (known, _) = self.take_in(listed, &rows).await?;
        for one in known {
            if !rows.compare(subject, &one.id, &one.facts).is_empty() {
                self.examine(subject, &one.id, Some(one.object)).await?;
            }
        }
        Ok(())
    }
}

/// The rows of what is behind some transactions.
struct Sources {
    charges: Rows,
    refunds: Rows,
    disputes: Rows,
}

/// Why the ledger does not have a transaction.
enum Missing {
    /// A look-up asks for it: until then the fee is an estimate, which is no mistake.
    Awaited,
    /// Nothing but the list brings it.
    FromTheList,
    /// The object behind it is missing, or does not say all that it should.
    Behind(Subject),
    /// It was there, or should be.
    Lost,
}

impl Sources {
    fn explain(&self, transaction: &BalanceTransaction, is_looked_up: bool) -> Missing {
        let id = transaction.stripe_balance_transaction_id.as_str();
        let Some(source) = transaction.source_id.as_deref() else {
            return Missing::FromTheList;
        };
        match Source::of(source) {
            Some(Source::Charge) => match self.charges.charge(source) {
                None => Missing::Behind(Subject::Charge),
                Some(_) if is_looked_up => Missing::Awaited,
                Some(charge) if charge.names_transaction(id) => Missing::Lost,
                Some(_) if transaction.kind_by_category() == Some(SourceKind::Charge) => {
                    Missing::Behind(Subject::Charge)
                }
                Some(_) => Missing::FromTheList,
            },
            Some(Source::Dispute) => match self.disputes.dispute(source) {
                Some(dispute) if dispute.names_transaction(id) => Missing::Lost,
                Some(_) | None => Missing::Behind(Subject::Dispute),
            },
            Some(Source::Refund) if !self.refunds.has(Subject::Refund, source) => {
                Missing::Behind(Subject::Refund)
            }
            Some(Source::Refund) | None => Missing::FromTheList,
        }
    }
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
