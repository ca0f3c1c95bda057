//! A run: contracts page by page, then what is left to do with the invoices, then the outbox.

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shared::period::Period;
use shared::publishing;
use shared::store::{self, contract_usage, contracts, invoice_runs};
use shared::telemetry::cause_chain;

use crate::plan::{Plan, plan};
use crate::request::Request;
use crate::summary::{Failure, Review, count};
use crate::{App, Deadline, Error, Summary, collect, file, issue};

/// Contracts read and counted at once: what a run keeps in memory.
const CONTRACTS_PER_PAGE: i64 = 200;
/// A contract that changes under the run is planned again so often.
const ATTEMPTS: u32 = 5;
/// Messages claimed from the outbox at once: ten calls of the bus.
const MESSAGES_PER_SWEEP: i64 = 100;
/// Usage of unknown prefixes is looked for in so many days before the run.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_hours(24 * 31);
const UNKNOWN_LISTED: i64 = 100;

pub(crate) async fn run(
    app: &App,
    request: &Request,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, Error> {
    let mut summary = Summary {
        dry_run: request.dry_run,
        ..Summary::default()
    };
    let done = work(app, request, now, deadline, &mut summary).await;
    let noted = note(app, &summary, now).await;
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
async fn work(
    app: &App,
    request: &Request,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    if !request.dry_run {
        let client = app.database.client().await?;
        summary.run_id = Some(invoice_runs::begin(&**client, now).await?);
    }
    issue_all(app, request, now, deadline, summary).await?;
    report_unknown_prefixes(app, request, now, summary).await?;
    if request.dry_run {
        return Ok(());
    }
    file::file_all(app, request, now, deadline, summary).await?;
    collect::collect_all(app, request, now, deadline, summary).await?;
    publish(app, now, deadline, summary).await
}

async fn issue_all(
    app: &App,
    request: &Request,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let mut after = 0;
    loop {
        if deadline.is_reached() {
            summary.stopped_early = true;
            summary.stopped_after_contract_id = Some(after);
            return Ok(());
        }
        let client = app.database.client().await?;
        let page =
            contracts::after(&**client, after, request.contract_id, CONTRACTS_PER_PAGE).await?;
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
        let planned = plan(&client, valid, request, now).await?;
        drop(client);
        let mut jobs = Vec::new();
        for (id, plan) in planned {
            match plan {
                Ok(plan) if plan.due.is_empty() => {
                    summary.already_present += i64::from(plan.is_invoiced);
                }
                Ok(plan) => jobs.push(bill(app, request, plan, now, deadline)),
                Err(error) => summary.fail(id, "invoice", cause_chain(&error)),
            }
        }
        let mut jobs = stream::iter(jobs).buffer_unordered(app.concurrency);
        while let Some(billed) = jobs.next().await {
            billed?.count(summary);
        }
    }
}

/// What became of the periods of one contract.
#[derive(Debug, Default)]
struct Billed {
    contract_id: i64,
    issued: Vec<Issued>,
    nothing_to_bill: i64,
    already_present: i64,
    reviews: Vec<Review>,
    failure: Option<Failure>,
    stopped: bool,
    /// Of a dry run.
    listed: Vec<Value>,
}

#[derive(Debug)]
struct Issued {
    currency: shared::money::Currency,
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

/// Bills what is due of one contract, period after period. One that cannot be billed ends it: the next period's
/// adjustments would be wrong.
///
/// # Errors
/// When the database is away, and still is when asked again.
async fn bill(
    app: &App,
    request: &Request,
    planned: Plan,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Billed, store::Error> {
    let contract_id = planned.contract.id;
    let mut billed = Billed {
        contract_id,
        ..Billed::default()
    };
    let mut planned = planned;
    for attempt in 1..=ATTEMPTS {
        match bill_due(app, request, &mut planned, now, deadline, &mut billed).await {
            Ok(Progress::Done) => return Ok(billed),
            Ok(Progress::Changed) => {}
            Err(Failed::Contract(error)) => {
                billed.fail(cause_chain(&error));
                return Ok(billed);
            }
            // A commit may have come through although its answer did not: the plan is made again, and knows.
            Err(Failed::Store(error)) if error.is_unavailable() && attempt > 1 => {
                return Err(error);
            }
            Err(Failed::Store(error))
                if error.is_unavailable() || error.is_retryable() || is_taken(&error) => {}
            Err(Failed::Store(error)) => {
                billed.fail(cause_chain(&error));
                return Ok(billed);
            }
        }
        let client = app.database.client().await?;
        let read = contracts::after(&**client, 0, Some(contract_id), 1).await?;
        let contracts = read.into_iter().filter_map(|read| read.contract.ok());
        match plan(&client, contracts.collect(), request, now)
            .await?
            .pop()
        {
            Some((_, Ok(again))) => {
                billed.already_present += i64::from(again.due.is_empty() && again.is_invoiced);
                planned = again;
            }
            Some((_, Err(error))) => {
                billed.fail(cause_chain(&error));
                return Ok(billed);
            }
            None => {
                billed.fail("the contract is gone, or no longer valid".to_owned());
                return Ok(billed);
            }
        }
    }
    billed.fail("it changed again and again while it was billed".to_owned());
    Ok(billed)
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

async fn bill_due(
    app: &App,
    request: &Request,
    planned: &mut Plan,
    now: Timestamp,
    deadline: Deadline,
    billed: &mut Billed,
) -> Result<Progress, Failed> {
    billed.nothing_to_bill = 0;
    billed.reviews.clear();
    for period in std::mem::take(&mut planned.due) {
        if deadline.is_reached() {
            billed.stopped = true;
            return Ok(Progress::Done);
        }
        let contract = |error: shared::money::Error| Failed::Contract(error.into());
        let late = planned.late(&period).map_err(Failed::Contract)?;
        for (corrected, amount_cents, currency) in late.in_another_currency {
            let is_new = |review: &&Review| review.period_start == corrected.start;
            if billed.reviews.iter().find(is_new).is_none() {
                billed.reviews.push(Review {
                    contract_id: planned.contract.id,
                    period_start: corrected.start,
                    status: "needs_review",
                    reason: "late_usage_in_a_former_currency",
                    total_cents: amount_cents,
                    currency,
                });
            }
        }
        let draft = issue::draft(planned, &period, now).map_err(Failed::Contract)?;
        let Some(draft) = draft else {
            billed.nothing_to_bill += 1;
            continue;
        };
        let reason = issue::review_reason(planned, &draft, app.review_cap_cents);
        let reason = reason.map_err(contract)?.filter(|_| !request.reviewed);
        if let Some(reason) = reason {
            billed.reviews.push(Review {
                contract_id: planned.contract.id,
                period_start: period.period.start,
                status: "needs_review",
                reason,
                total_cents: draft.bill.total_cents,
                currency: draft.bill.currency,
            });
        }
        let credit_applied_cents = if request.dry_run {
            billed.listed.push(shown(planned, &period, &draft, reason));
            if reason.is_some() {
                continue;
            }
            0
        } else {
            if reason.is_some() {
                continue;
            }
            let client = app.database.client().await;
            let mut client = client.map_err(Failed::Store)?;
            let issued = issue::issue(&mut client, planned, &period, &draft, now).await;
            match issued.map_err(Failed::Store)? {
                issue::Outcome::Changed => return Ok(Progress::Changed),
                issue::Outcome::Issued {
                    credit_applied_cents,
                } => credit_applied_cents,
            }
        };
        let total_cents = draft.bill.total_cents;
        planned.note_issued(period.period, draft.billed, total_cents);
        billed.issued.push(Issued {
            currency: draft.bill.currency,
            total_cents,
            credit_applied_cents,
            period: period.period,
        });
    }
    Ok(Progress::Done)
}

/// An invoice as a dry run shows it.
fn shown(
    plan: &Plan,
    period: &shared::cycle::BillingPeriod,
    draft: &issue::Draft,
    reason: Option<&str>,
) -> Value {
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

async fn report_unknown_prefixes(
    app: &App,
    request: &Request,
    now: Timestamp,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    if request.contract_id.is_some() {
        return Ok(());
    }
    let period = Period {
        start: now.saturating_sub(UNKNOWN_FOR).unwrap_or(Timestamp::MIN),
        end: now,
    };
    let client = app.database.client().await?;
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
async fn publish(
    app: &App,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    loop {
        let sweep = publishing::sweep(&app.database, &app.event_bus, MESSAGES_PER_SWEEP, now);
        let swept = sweep.await?;
        summary.published += count(swept.published);
        summary.publish_failed += count(swept.failed);
        if swept.published == 0 || deadline.is_reached() {
            return Ok(());
        }
    }
}

/// Keeps what the run did.
async fn note(app: &App, summary: &Summary, now: Timestamp) -> Result<(), store::Error> {
    let Some(run_id) = summary.run_id else {
        return Ok(());
    };
    let client = app.database.client().await?;
    let (errors, items) = (json!(summary.failed), json!(summary.needs_review));
    invoice_runs::finish(&**client, run_id, &summary.done(&errors, &items), now).await
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
