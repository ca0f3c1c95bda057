//! A run: contracts page by page, then what is left to do with the invoices, then the outbox.

use std::collections::HashSet;

use domain::money::Currency;
use domain::partner::cycle::BillingPeriod;
use domain::period::Period;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::cause_chain;
use serde_json::{Value, json};
use shared::publishing;
use store::settled_periods::{self, SettledPeriod};
use store::{contract_usage, contracts, invoice_runs};

use crate::plan::{Late, Plan, plan, settle};
use crate::request::Request;
use crate::summary::{Failure, Review, count};
use crate::{App, Deadline, Error, Summary, collect, file, issue};

/// Contracts read and counted at once: what a run keeps in memory.
const CONTRACTS_PER_PAGE: i64 = 200;
/// Contracts of which an invoice each is issued in one transaction.
const CONTRACTS_PER_TRANSACTION: usize = 25;
/// A contract that changes under the run is planned again so often.
const ATTEMPTS: u32 = 5;
/// Messages claimed from the outbox at once: ten calls of the bus.
const MESSAGES_PER_SWEEP: i64 = 100;
/// Usage of unknown prefixes is looked for in so many days before the run.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_hours(24 * 31);
const UNKNOWN_LISTED: i64 = 100;

/// What one invocation works on, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) app: &'a App,
    pub(crate) request: &'a Request,
    pub(crate) now: Timestamp,
    pub(crate) deadline: Deadline,
}

pub(crate) async fn run(run: Run<'_>) -> Result<Value, Error> {
    let mut summary = Summary {
        dry_run: run.request.dry_run,
        ..Summary::default()
    };
    let done = work(run, &mut summary).await;
    let noted = note(run, &summary).await;
    tell(&summary);
    match done.and(noted) {
        Err(cause) => Err(Error::Database {
            summary: Box::new(summary),
            cause,
        }),
        Ok(()) if summary.failed.is_empty() => Ok(json!(summary)),
        Ok(()) => Err(Error::Partial {
            summary: Box::new(summary),
        }),
    }
}

/// Everything, as far as the deadline lets it; an error when the database is away.
async fn work(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    if !run.request.dry_run {
        let client = run.app.database.client().await?;
        summary.run_id = Some(invoice_runs::begin(&**client, run.now).await?);
    }
    issue_all(run, summary).await?;
    report_unknown_prefixes(run, summary).await?;
    if run.request.dry_run {
        return Ok(());
    }
    file::file_all(run, summary).await?;
    collect::collect_all(run, summary).await?;
    publish(run, summary).await
}

async fn issue_all(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    let mut after = 0;
    loop {
        if run.deadline.is_reached() {
            summary.stopped_early = true;
            summary.stopped_after_contract_id = Some(after);
            return Ok(());
        }
        let client = run.app.database.client().await?;
        let page = contracts::after(
            &**client,
            after,
            run.request.contract_id,
            CONTRACTS_PER_PAGE,
        )
        .await?;
        drop(client);
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.id;
        summary.contracts += count(page.len());
        let mut valid = Vec::new();
        for read in page {
            match read.contract {
                Ok(contract) => valid.push(contract),
                Err(invalid) => summary.fail(
                    read.id,
                    "invoice",
                    format!("the contract is not valid: {}: {invalid}", invalid.field),
                ),
            }
        }
        let planned = plan(run, valid).await?;
        let mut plans = Vec::new();
        for (id, plan) in planned {
            match plan {
                Ok(plan) if plan.due.is_empty() => Job::new(plan).review().count(summary),
                Ok(plan) => plans.push(plan),
                Err(error) => summary.fail(id, "invoice", cause_chain(&error)),
            }
        }
        let mut groups = Vec::new();
        while !plans.is_empty() {
            let rest = plans.split_off(plans.len().min(CONTRACTS_PER_TRANSACTION));
            groups.push(std::mem::replace(&mut plans, rest));
        }
        // Boxed: the compiler gives up on the nesting of the types otherwise.
        let mut jobs = Vec::new();
        for plans in groups {
            jobs.push(bill_group(run, plans).boxed());
        }
        let mut jobs = stream::iter(jobs).buffer_unordered(run.app.concurrency);
        while let Some((billed, away)) = jobs.next().await {
            let mut settled = Vec::new();
            for mut billed in billed {
                settled.append(&mut billed.settled);
                billed.count(summary);
            }
            if !settled.is_empty() && !run.request.dry_run {
                let client = run.app.database.client().await?;
                settled_periods::insert_all(&**client, &settled, run.now).await?;
            }
            if let Some(error) = away {
                return Err(error);
            }
        }
    }
}

/// The outcome of the periods of one contract.
#[derive(Debug, Default)]
struct Billed {
    contract_id: i64,
    issued: Vec<Issued>,
    nothing_to_bill: i64,
    /// The periods with nothing to bill.
    settled: Vec<SettledPeriod>,
    already_present: i64,
    reviews: Vec<Review>,
    failure: Option<Failure>,
    stopped: bool,
    /// The invoices that a dry run would make; empty otherwise.
    listed: Vec<Value>,
}

#[derive(Debug)]
struct Issued {
    currency: Currency,
    total_cents: i64,
    credit_applied_cents: i64,
    period: Period,
}

impl Billed {
    fn count(self, summary: &mut Summary) {
        for issued in &self.issued {
            let added = summary.add_invoice(
                issued.currency,
                issued.total_cents,
                issued.credit_applied_cents,
                issued.period,
            );
            if let Err(error) = added {
                summary.fail(self.contract_id, "summary", error.to_string());
            }
        }
        summary.nothing_to_bill += self.nothing_to_bill;
        summary.already_present += self.already_present;
        summary.needs_review.extend(self.reviews);
        for invoice in self.listed {
            summary.list_invoice(invoice);
        }
        if let Some(failure) = self.failure {
            tracing::error!(
                contract_id = failure.contract_id,
                cause = failure.error,
                "a contract could not be billed"
            );
            summary.failed.push(failure);
        }
        if self.stopped {
            summary.stopped_early = true;
        }
    }
}

/// A contract that is being billed.
struct Job {
    plan: Plan,
    billed: Billed,
}

/// Bills what is due of some contracts, period after period: of each round one invoice of each contract, all of them in
/// one transaction. When that fails, or something has changed, the contracts concerned go on alone, so that one that
/// cannot be billed does not stop the others. Answers the outcomes, and the error when the database went away before
/// the end.
async fn bill_group(run: Run<'_>, plans: Vec<Plan>) -> (Vec<Billed>, Option<store::Error>) {
    let mut jobs: Vec<Job> = plans.into_iter().map(Job::new).collect();
    let (mut done, mut alone) = (Vec::new(), Vec::new());
    while !jobs.is_empty() {
        let mut batch = Vec::new();
        let mut prefixes = HashSet::new();
        for mut job in std::mem::take(&mut jobs) {
            // Two of one series cannot be numbered in one statement.
            let prefix = issue::prefix_in_series(&job.plan.contract.terms.api_key_prefix);
            if !prefixes.insert(prefix) {
                alone.push(job);
                continue;
            }
            match job.next(run) {
                Ok(Some((period, draft))) => batch.push((job, period, draft)),
                Ok(None) => done.push(job.billed),
                Err(error) => {
                    job.billed.fail(cause_chain(&error));
                    done.push(job.billed);
                }
            }
        }
        match issue_batch(run, &batch).await {
            Ok(outcomes) => {
                for ((mut job, period, draft), outcome) in batch.into_iter().zip(outcomes) {
                    match outcome {
                        issue::Outcome::Issued {
                            credit_applied_cents,
                        } => {
                            job.note(&period, draft, credit_applied_cents);
                            jobs.push(job);
                        }
                        issue::Outcome::Changed => alone.push(job),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(
                    contracts = batch.len(),
                    cause = cause_chain(&error),
                    "invoices could not be issued together; each is tried alone"
                );
                alone.extend(batch.into_iter().map(|(job, _, _)| job));
            }
        }
    }
    for job in alone {
        match bill_alone(run, job).await {
            Ok(billed) => done.push(billed),
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}

async fn issue_batch(
    run: Run<'_>,
    batch: &[(Job, BillingPeriod, issue::Draft)],
) -> Result<Vec<issue::Outcome>, store::Error> {
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let due: Vec<issue::Due<'_>> = batch
        .iter()
        .map(|(job, period, draft)| issue::Due {
            plan: &job.plan,
            period,
            draft,
        })
        .collect();
    let mut client = run.app.database.client().await?;
    issue::issue_all(&mut client, &due, run.now).await
}

/// Plans one contract again and bills what is due of it. A period that cannot be billed ends it: the next one's
/// adjustments would be wrong.
///
/// # Errors
/// When the database is away.
async fn bill_alone(run: Run<'_>, mut job: Job) -> Result<Billed, store::Error> {
    let contract_id = job.plan.contract.id;
    for _ in 0..ATTEMPTS {
        // A commit may have come through although its answer did not: the new plan knows.
        let client = run.app.database.client().await?;
        let read = contracts::after(&**client, 0, Some(contract_id), 1).await?;
        let contracts = read.into_iter().filter_map(|read| read.contract.ok());
        drop(client);
        let planned = plan(run, contracts.collect()).await?;
        job.plan = match planned.into_iter().next() {
            Some((_, Ok(plan))) => plan,
            Some((_, Err(error))) => {
                job.billed.fail(cause_chain(&error));
                return Ok(job.billed);
            }
            None => {
                let gone = "the contract is gone, or no longer valid";
                job.billed.fail(gone.to_owned());
                return Ok(job.billed);
            }
        };
        if job.plan.due.is_empty() {
            job.billed.already_present += i64::from(job.plan.is_invoiced);
            return Ok(job.billed);
        }
        // What needs review or comes to nothing is due again, and counted again.
        job.billed.nothing_to_bill = 0;
        job.billed.settled.clear();
        job.billed.reviews.clear();
        match bill_due(run, &mut job).await {
            Ok(Progress::Done) => return Ok(job.billed),
            Ok(Progress::Changed) => {}
            Err(Failed::Contract(error)) => {
                job.billed.fail(cause_chain(&error));
                return Ok(job.billed);
            }
            Err(Failed::Store(error)) if error.is_unavailable() => return Err(error),
            Err(Failed::Store(error)) if error.is_retryable() || is_taken(&error) => {}
            Err(Failed::Store(error)) => {
                job.billed.fail(cause_chain(&error));
                return Ok(job.billed);
            }
        }
    }
    let changes = "it changed again and again while it was billed";
    job.billed.fail(changes.to_owned());
    Ok(job.billed)
}

/// Another transaction has issued it, or taken its number, a moment before.
fn is_taken(error: &store::Error) -> bool {
    matches!(error.constraint(), Some(name) if name.starts_with("invoices_"))
}

enum Progress {
    Done,
    Changed,
}

/// Why a contract's periods could not all be billed.
enum Failed {
    Contract(crate::plan::Error),
    Store(store::Error),
}

async fn bill_due(run: Run<'_>, job: &mut Job) -> Result<Progress, Failed> {
    while let Some((period, draft)) = job.next(run).map_err(Failed::Contract)? {
        let due = issue::Due {
            plan: &job.plan,
            period: &period,
            draft: &draft,
        };
        let client = run.app.database.client().await;
        let mut client = client.map_err(Failed::Store)?;
        let issued = issue::issue_all(&mut client, &[due], run.now).await;
        match issued.map_err(Failed::Store)?.first() {
            Some(issue::Outcome::Issued {
                credit_applied_cents,
            }) => job.note(&period, draft, *credit_applied_cents),
            Some(issue::Outcome::Changed) | None => return Ok(Progress::Changed),
        }
    }
    Ok(Progress::Done)
}

impl Job {
    fn new(plan: Plan) -> Job {
        let contract_id = plan.contract.id;
        Job {
            plan,
            billed: Billed {
                contract_id,
                ..Billed::default()
            },
        }
    }

    /// The next invoice of the contract that is to be issued: what needs review is noted, what comes to nothing is
    /// counted, and in a dry run everything is listed instead. `None` at the end, and at the deadline.
    fn next(
        &mut self,
        run: Run<'_>,
    ) -> Result<Option<(BillingPeriod, issue::Draft)>, crate::plan::Error> {
        while !self.plan.due.is_empty() {
            if run.deadline.is_reached() {
                self.billed.stopped = true;
                return Ok(None);
            }
            let period = self.plan.due.remove(0);
            let late = self.plan.late(&period)?;
            self.review_former_currencies(&late);
            let Some(draft) = issue::draft(&self.plan, &period, late, run.now)? else {
                self.billed.nothing_to_bill += 1;
                let settled = settle(&self.plan.contract, &period)?;
                self.billed.settled.push(settled);
                continue;
            };
            let reason = issue::review_reason(&self.plan, &draft, run.app.review_cap_cents)?
                .filter(|_| !run.request.reviewed);
            if run.request.dry_run {
                let listed = shown(&self.plan, &period, &draft, reason);
                self.billed.listed.push(listed);
            }
            if let Some(reason) = reason {
                self.billed.reviews.push(Review {
                    contract_id: self.plan.contract.id,
                    period_start: period.period.start,
                    status: "needs_review",
                    reason,
                    total_cents: draft.bill.total_cents,
                    currency: draft.bill.currency,
                });
            } else if run.request.dry_run {
                self.note(&period, draft, 0);
            } else {
                return Ok(Some((period, draft)));
            }
        }
        Ok(None)
    }

    /// Of a contract that nothing is due of: whether it is invoiced, and what no invoice to come corrects.
    fn review(mut self) -> Billed {
        self.billed.already_present += i64::from(self.plan.is_invoiced);
        match self.plan.corrections() {
            Ok(late) => {
                let currency = self.plan.contract.terms.currency;
                for correction in &late.adjustments {
                    let (period, amount_cents) = (correction.period, correction.amount_cents);
                    let reason = "late_usage_after_the_last_invoice";
                    self.review_once(period, reason, amount_cents, currency);
                }
                self.review_former_currencies(&late);
            }
            Err(error) => self.billed.fail(cause_chain(&error)),
        }
        self.billed
    }

    /// Notes corrections that no invoice of the contract can carry any more.
    fn review_former_currencies(&mut self, late: &Late) {
        for (corrected, amount_cents, currency) in &late.in_another_currency {
            let reason = "late_usage_in_a_former_currency";
            self.review_once(*corrected, reason, *amount_cents, *currency);
        }
    }

    /// Notes a correction for somebody to look at, each period once.
    fn review_once(
        &mut self,
        corrected: Period,
        reason: &'static str,
        amount_cents: i64,
        currency: Currency,
    ) {
        let is_known = |review: &Review| review.period_start == corrected.start;
        if amount_cents == 0 || self.billed.reviews.iter().any(is_known) {
            return;
        }
        self.billed.reviews.push(Review {
            contract_id: self.plan.contract.id,
            period_start: corrected.start,
            status: "needs_review",
            reason,
            total_cents: amount_cents,
            currency,
        });
    }

    /// Notes an invoice that is issued.
    fn note(&mut self, period: &BillingPeriod, draft: issue::Draft, credit_applied_cents: i64) {
        let total_cents = draft.bill.total_cents;
        self.plan
            .note_issued(period.period, draft.billed, total_cents);
        self.billed.issued.push(Issued {
            currency: draft.bill.currency,
            total_cents,
            credit_applied_cents,
            period: period.period,
        });
    }
}

/// An invoice as a dry run shows it.
fn shown(plan: &Plan, period: &BillingPeriod, draft: &issue::Draft, reason: Option<&str>) -> Value {
    json!({
        "contract_id": plan.contract.id,
        "api_key_prefix": plan.contract.terms.api_key_prefix,
        "status": if reason.is_some() { "needs_review" } else { "would_be_issued" },
        "reason": reason,
        "period_start": period.period.start,
        "period_end": period.period.end,
        "due_at": draft.due_at,
        "currency": draft.bill.currency,
        "lines": draft.bill.lines,
        "subtotal_cents": draft.bill.subtotal_cents,
        "tax_cents": draft.bill.tax_cents,
        "total_cents": draft.bill.total_cents,
        "carried_over_cents": draft.bill.carried_over_cents,
    })
}

impl Billed {
    fn fail(&mut self, error: String) {
        self.failure = Some(Failure {
            contract_id: self.contract_id,
            step: "invoice",
            invoice_id: None,
            period_start: None,
            error,
        });
    }
}

async fn report_unknown_prefixes(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    if run.request.contract_id.is_some() {
        return Ok(());
    }
    let period = Period {
        start: run
            .now
            .saturating_sub(UNKNOWN_FOR)
            .unwrap_or(Timestamp::MIN),
        end: run.now,
    };
    let client = run.app.database.client().await?;
    let unknown = contract_usage::unknown_prefixes(&**client, period, UNKNOWN_LISTED).await?;
    for prefix in unknown {
        tracing::warn!(
            api_key_prefix = prefix.api_key_prefix,
            requests = prefix.requests,
            events = prefix.events,
            "usage of a prefix that has no contract"
        );
        summary.unknown_prefixes.push(json!({
            "api_key_prefix": prefix.api_key_prefix,
            "requests": prefix.requests,
            "events": prefix.events,
        }));
    }
    Ok(())
}

/// Until nothing is due, or the bus takes nothing any more.
async fn publish(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    loop {
        let sweep = publishing::sweep(
            &run.app.database,
            &run.app.event_bus,
            MESSAGES_PER_SWEEP,
            run.now,
        );
        let swept = sweep.await?;
        summary.published += count(swept.published);
        summary.publish_failed += count(swept.failed);
        if swept.published == 0 || run.deadline.is_reached() {
            return Ok(());
        }
    }
}

/// Writes the summary into the row of the run in `invoice_runs`; does nothing for a dry run.
async fn note(run: Run<'_>, summary: &Summary) -> Result<(), store::Error> {
    let Some(run_id) = summary.run_id else {
        return Ok(());
    };
    let client = run.app.database.client().await?;
    let (errors, items) = (json!(summary.failed), json!(summary.needs_review));
    invoice_runs::finish(&**client, run_id, &summary.done(&errors, &items), run.now).await
}

fn tell(summary: &Summary) {
    let gauge = |name: &'static str, value: usize| {
        metrics::gauge!(name).set(u32::try_from(value).unwrap_or(u32::MAX));
    };
    gauge("partner_invoices_failed", summary.failed.len());
    gauge("partner_invoices_to_review", summary.needs_review.len());
    tracing::info!(
        contracts = summary.contracts,
        invoices_created = summary.invoices_created,
        already_present = summary.already_present,
        nothing_to_bill = summary.nothing_to_bill,
        failed = summary.failed.len(),
        needs_review = summary.needs_review.len(),
        pdfs_stored = summary.pdfs_stored,
        collected = summary.collected,
        stopped_early = summary.stopped_early,
        "the run of partner invoicing is done"
    );
}
