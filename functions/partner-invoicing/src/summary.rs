//! What a run did, as it answers, and as `invoice_runs` keeps it.

use std::collections::BTreeMap;
use std::fmt;

use domain::money::{self, Currency};
use domain::partner::draft::{Draft, DraftReason};
use domain::period::Period;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::unbilled_usage::UnbilledUsage;
use store::invoice_runs::Done;

/// Lists in a summary are cut off after so many: an answer may have six megabytes.
const LISTED: usize = 1_000;

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// `invoice_runs.run_id`; none of a dry run.
    pub run_id: Option<i64>,
    /// A dry run: nothing was written.
    pub dry_run: bool,
    /// Number of contracts that the run looked at.
    pub contracts: i64,
    /// Invoices issued; of a dry run, those that would be.
    pub invoices_created: i64,
    /// Contracts whose last ended period was invoiced before.
    pub already_present: i64,
    /// Periods with nothing to bill.
    pub nothing_to_bill: i64,
    /// What could not be done.
    pub failed: Vec<Failure>,
    /// What somebody has to look at first.
    pub needs_review: Vec<Review>,
    /// Totals of the invoices issued, by currency.
    pub total_cents: BTreeMap<Currency, i64>,
    /// Credits they took, by currency.
    pub credit_applied_cents: BTreeMap<Currency, i64>,
    /// Number of PDFs stored in the bucket.
    pub pdfs_stored: i64,
    /// Invoices handed to Stripe.
    pub collected: i64,
    /// Messages the bus took.
    pub published: i64,
    /// Messages that stay in the outbox; the sweep tries again.
    pub publish_failed: i64,
    /// Usage in the last month of prefixes that no contract has.
    pub unknown_prefixes: Vec<Value>,
    /// Usage of the last 396 days that is on no invoice, and why.
    pub unbilled_usage: Vec<UnbilledUsage>,
    /// The deadline came first; the next run goes on.
    pub stopped_early: bool,
    /// The last contract looked at when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_after_contract_id: Option<i64>,
    /// Of a dry run: the invoices it would make.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invoices: Vec<Value>,
    /// The newest period billed.
    #[serde(skip)]
    pub(crate) newest_period: Option<Period>,
}

/// What could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub contract_id: i64,
    /// The step that failed: `invoice`, `pdf` or `stripe`.
    pub step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_start: Option<Timestamp>,
    /// Why, without any text of the contract's.
    pub error: String,
}

/// An invoice that is not issued until somebody has looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Review {
    pub contract_id: i64,
    pub period_start: Timestamp,
    /// The word `needs_review`: a person has to look before it is billed.
    pub status: &'static str,
    /// Why, such as `above_the_cap` or `late_usage_after_the_last_invoice`.
    pub reason: DraftReason,
    /// Of `catch_up`, how many drafts wait, from this one on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// What it comes to, of several together; negative when it is a credit.
    pub total_cents: i64,
    pub currency: Currency,
}

impl Review {
    /// The drafts of a contract that has missed too many periods, together: one for each currency.
    pub(crate) fn of_catch_up(contract_id: i64, drafts: &[&Draft]) -> Vec<Review> {
        let mut reviews: Vec<Review> = Vec::new();
        for draft in drafts {
            let bill = &draft.bill;
            let of_currency = |review: &&mut Review| review.currency == bill.currency;
            match reviews.iter_mut().find(of_currency) {
                Some(review) => {
                    review.count = review.count.map(|count| count + 1);
                    review.total_cents = review.total_cents.saturating_add(bill.total_cents);
                }
                None => reviews.push(Review {
                    contract_id,
                    period_start: draft.period.start,
                    status: "needs_review",
                    reason: DraftReason::CatchUp,
                    count: Some(1),
                    total_cents: bill.total_cents,
                    currency: bill.currency,
                }),
            }
        }
        reviews
    }
}

impl Summary {
    /// Counts an issued invoice and adds its amounts, in minor units, to the totals of its currency.
    pub(crate) fn add_invoice(
        &mut self,
        currency: Currency,
        total_cents: i64,
        credit_applied_cents: i64,
        period: Period,
    ) -> Result<(), money::Error> {
        self.invoices_created += 1;
        for (sums, cents) in [
            (&mut self.total_cents, total_cents),
            (&mut self.credit_applied_cents, credit_applied_cents),
        ] {
            let sum = sums.entry(currency).or_default();
            *sum = sum.checked_add(cents).ok_or(money::Error::OutOfRange)?;
        }
        if self
            .newest_period
            .is_none_or(|newest| newest.end < period.end)
        {
            self.newest_period = Some(period);
        }
        Ok(())
    }

    /// Notes what could not be done with a contract.
    pub(crate) fn fail(&mut self, contract_id: i64, step: &'static str, error: String) {
        tracing::error!(
            contract_id,
            step,
            cause = error,
            "a contract could not be billed"
        );
        self.failed.push(Failure {
            contract_id,
            step,
            invoice_id: None,
            period_start: None,
            error,
        });
    }

    /// Notes what could not be done with an invoice that is issued.
    pub(crate) fn fail_invoice(
        &mut self,
        contract_id: i64,
        invoice_id: i64,
        step: &'static str,
        error: String,
    ) {
        tracing::error!(
            invoice_id,
            step,
            cause = error,
            "an issued invoice is not complete"
        );
        self.failed.push(Failure {
            contract_id,
            step,
            invoice_id: Some(invoice_id),
            period_start: None,
            error,
        });
    }

    /// Keeps what is on no invoice, as far as the list has room.
    pub(crate) fn list_unbilled(&mut self, mut rows: Vec<UnbilledUsage>) {
        rows.truncate(LISTED);
        self.unbilled_usage = rows;
    }

    /// Adds an invoice to the list of a dry run, as long as it has room.
    pub(crate) fn list_invoice(&mut self, invoice: Value) {
        if self.invoices.len() < LISTED {
            self.invoices.push(invoice);
        }
    }

    /// Keeps the summary in `invoice_runs`.
    pub(crate) fn done<'a>(&self, errors: &'a Value, items: &'a Value) -> Done<'a> {
        Done {
            period: self.newest_period,
            contracts: self.contracts,
            created: self.invoices_created,
            already_present: self.already_present,
            failed: count(self.failed.len()),
            needs_review: count(self.needs_review.len()),
            errors,
            items,
            stopped_early: self.stopped_early,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        json!(self).fmt(formatter)
    }
}

pub(crate) fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}
