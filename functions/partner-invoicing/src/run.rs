//! A run: contracts page by page, then what is left to do with the invoices, then the outbox.

use domain::partner::draft::{Draft, DraftReason, Drafts, Rules};
use domain::period::Period;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::cause_chain;
use serde_json::{Value, json};
use shared::partner_billing::{self, DraftInvoice};
use shared::{publishing, unbilled_usage};
use store::{contract_usage, contracts, invoice_runs, outbox};
use tokio_postgres::Client;

use crate::request::Request;
use crate::summary::{Review, count};
use crate::{App, Deadline, Error, Summary, collect, file};

/// Contracts taken on at once.
const CONTRACTS_PER_PAGE: i64 = 200;
/// A contract whose transaction meets another one is billed again so often.
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
    report_unbilled_usage(run, summary).await?;
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
        let ids = match run.request.contract_id {
            Some(only) if after < only => vec![only],
            Some(_) => Vec::new(),
            None => contracts::ids_after(&**client, after, CONTRACTS_PER_PAGE).await?,
        };
        drop(client);
        let Some(last) = ids.last().copied() else {
            return Ok(());
        };
        after = last;
        // Boxed: the compiler gives up on the nesting of the types otherwise.
        let mut jobs = Vec::new();
        for id in ids {
            jobs.push(bill(run, id).boxed());
        }
        let mut jobs = stream::iter(jobs).buffer_unordered(run.app.concurrency);
        while let Some(done) = jobs.next().await {
            if let Some(contract) = done? {
                contract.count(summary);
            }
        }
        summary
            .needs_review
            .sort_by_key(|review| (review.contract_id, review.period_start));
    }
}

/// What a run did with one contract.
#[derive(Debug, Default)]
struct Contract {
    contract_id: i64,
    issued: Vec<(Draft, i64)>,
    nothing_to_bill: i64,
    is_invoiced: bool,
    reviews: Vec<Review>,
    /// The drafts that a dry run lists; empty otherwise.
    listed: Vec<Value>,
    failure: Option<String>,
    stopped: bool,
}

impl Contract {
    fn count(self, summary: &mut Summary) {
        summary.contracts += 1;
        for (draft, credit_applied_cents) in &self.issued {
            let bill = &draft.bill;
            let period = draft.period;
            let added = summary.add_invoice(
                bill.currency,
                bill.total_cents,
                *credit_applied_cents,
                period,
            );
            if let Err(error) = added {
                summary.fail(self.contract_id, "summary", error.to_string());
            }
        }
        summary.nothing_to_bill += self.nothing_to_bill;
        let nothing_happened = self.issued.is_empty() && self.failure.is_none();
        summary.already_present += i64::from(self.is_invoiced && nothing_happened);
        summary.needs_review.extend(self.reviews);
        for invoice in self.listed {
            summary.list_invoice(invoice);
        }
        if let Some(error) = self.failure {
            summary.fail(self.contract_id, "invoice", error);
        }
        summary.stopped_early |= self.stopped;
    }
}

/// Bills what is due of a contract, in one transaction; `None` when there is no such contract. What cannot be billed is
/// its own failure.
///
/// # Errors
/// When the database is away.
async fn bill(run: Run<'_>, contract_id: i64) -> Result<Option<Contract>, store::Error> {
    let failed = |failure: String| {
        Ok(Some(Contract {
            contract_id,
            failure: Some(failure),
            ..Contract::default()
        }))
    };
    for _ in 0..ATTEMPTS {
        match bill_once(run, contract_id).await {
            Ok(contract) => return Ok(contract),
            Err(partner_billing::Error::Store(error)) if error.is_unavailable() => {
                // A commit may have come through although its answer did not: the next attempt knows.
                if run.app.database.client().await.is_err() {
                    return Err(error);
                }
                tracing::warn!(
                    contract_id,
                    cause = cause_chain(&error),
                    "a contract is billed again because its connection was lost"
                );
            }
            Err(partner_billing::Error::Store(error))
                if error.is_retryable() || is_taken(&error) => {}
            Err(error) => return failed(cause_chain(&error)),
        }
    }
    failed("it could not be billed in several attempts".to_owned())
}

/// Another transaction has issued it, or taken its number, a moment before.
fn is_taken(error: &store::Error) -> bool {
    matches!(error.constraint(), Some(name) if name.starts_with("invoices_"))
}

async fn bill_once(
    run: Run<'_>,
    contract_id: i64,
) -> Result<Option<Contract>, partner_billing::Error> {
    let mut contract = Contract {
        contract_id,
        ..Contract::default()
    };
    if run.deadline.is_reached() {
        contract.stopped = true;
        return Ok(Some(contract));
    }
    let mut connection = run.app.database.client().await?;
    let client: &mut Client = &mut connection;
    let rules = Rules {
        reviewed: run.request.reviewed,
        ..run.app.draft_rules
    };
    if run.request.dry_run {
        let Some(read) = contracts::find(client, contract_id).await? else {
            return Ok(None);
        };
        let stored = read
            .contract(run.now)
            .map_err(partner_billing::Error::Invalid)?;
        let drafts = partner_billing::drafts(client, &stored, &rules, run.now).await?;
        let due = contract.take(run, drafts);
        contract.issued = due.into_iter().map(|draft| (draft, 0)).collect();
        return Ok(Some(contract));
    }
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let Some(read) = contracts::lock(&transaction, contract_id).await? else {
        return Ok(None);
    };
    let stored = partner_billing::store_terms(&transaction, &read, run.now).await?;
    let drafts = partner_billing::drafts(&transaction, &stored, &rules, run.now).await?;
    for draft in contract.take(run, drafts) {
        let issued = partner_billing::issue(&transaction, contract_id, &draft, run.now).await?;
        contract.issued.push((draft, issued.credit_applied_cents));
    }
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(Some(contract))
}

impl Contract {
    /// Notes what waits and what comes to nothing, and returns what is to be issued.
    fn take(&mut self, run: Run<'_>, drafts: Drafts) -> Vec<Draft> {
        self.nothing_to_bill = drafts.nothing_to_bill;
        self.is_invoiced = drafts.is_invoiced;
        let selects = |draft: &Draft| run.request.selects(draft);
        let catch_up: Vec<&Draft> = drafts
            .drafts
            .iter()
            .filter(|draft| draft.reason == Some(DraftReason::CatchUp))
            .collect();
        self.reviews
            .extend(Review::of_catch_up(self.contract_id, &catch_up));
        let mut due = Vec::new();
        for draft in drafts.drafts.into_iter().filter(selects) {
            if run.request.dry_run {
                self.listed.push(shown(self.contract_id, &draft));
            }
            match draft.reason {
                None => due.push(draft),
                Some(DraftReason::CatchUp) => {}
                Some(reason) => self.reviews.push(Review {
                    contract_id: self.contract_id,
                    period_start: draft.period.start,
                    status: "needs_review",
                    reason,
                    count: None,
                    total_cents: draft.bill.total_cents - draft.bill.carried_over_cents,
                    currency: draft.bill.currency,
                }),
            }
        }
        due
    }
}

/// A draft as a dry run shows it.
fn shown(contract_id: i64, draft: &Draft) -> Value {
    let is_waiting = draft.reason.is_some();
    let mut shown = json!(DraftInvoice::new(contract_id, draft));
    shown["status"] = json!(if is_waiting {
        "needs_review"
    } else {
        "would_be_issued"
    });
    shown
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

/// Lists usage that is on no invoice, and announces it: once for each prefix, reason and month.
async fn report_unbilled_usage(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    if run.request.contract_id.is_some() {
        return Ok(());
    }
    let client = run.app.database.client().await?;
    let period = unbilled_usage::looked_for(run.now);
    let rows = unbilled_usage::list(&**client, period, run.now).await?;
    if !run.request.dry_run {
        let messages = unbilled_usage::messages(&rows, run.now);
        outbox::insert_all(&**client, &messages, run.now).await?;
    }
    summary.list_unbilled(rows);
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
