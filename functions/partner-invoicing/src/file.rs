//! Prints the invoices that have no PDF yet, stores each once and notes it: those of this run, and those that an
//! earlier one left.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use runtime::telemetry::cause_chain;
use shared::invoice_archive::{self, InvoiceArchive};
use store::{invoices, partner_invoices};

use crate::Summary;
use crate::run::Run;

/// Invoices looked for at once.
const PER_READ: i64 = 200;
/// Invoices read, and noted, in one statement.
const AT_ONCE: usize = 25;
/// Failures of the bucket before the run leaves the rest to the next one.
const FAILURES: u32 = 20;

/// Prints what is not printed. One that cannot be does not hold up the others; when the bucket is away the rest waits
/// for the next run.
///
/// # Errors
/// When the database is away.
pub(crate) async fn file_all(run: Run<'_>, summary: &mut Summary) -> Result<(), store::Error> {
    let mut after = 0;
    let failures = AtomicU32::new(0);
    loop {
        if run.deadline.is_reached() {
            summary.stopped_early = true;
            return Ok(());
        }
        let client = run.app.database.client().await?;
        let waiting =
            partner_invoices::without_pdf(&**client, after, run.request.contract_id, PER_READ)
                .await?;
        drop(client);
        let Some((last, contract_id)) = waiting.last().copied() else {
            return Ok(());
        };
        after = last;
        let archive = match &run.app.archive {
            Ok(archive) => archive,
            Err(error) => {
                // The same for all of them: one stands for the others.
                summary.fail_invoice(contract_id, last, "pdf", cause_chain(error));
                return Ok(());
            }
        };
        let mut jobs = Vec::new();
        for invoices in waiting.chunks(AT_ONCE) {
            jobs.push(file(run, archive, invoices.to_vec(), &failures).boxed());
        }
        let mut jobs = stream::iter(jobs).buffer_unordered(run.app.concurrency);
        while let Some(filed) = jobs.next().await {
            let filed = filed?;
            summary.pdfs_stored += filed.stored;
            for failure in filed.failed {
                let (contract_id, id) = failure.invoice;
                summary.fail_invoice(contract_id, id, "pdf", cause_chain(&failure.error));
            }
        }
        if failures.load(Ordering::Relaxed) >= FAILURES {
            return Ok(());
        }
    }
}

/// The outcome of some invoices.
#[derive(Debug, Default)]
struct Filed {
    /// PDFs stored and noted.
    stored: i64,
    failed: Vec<Failed>,
}

#[derive(Debug)]
struct Failed {
    /// Ids of the contract and of the invoice.
    invoice: (i64, i64),
    error: invoice_archive::Error,
}

/// Reads some invoices, `(id, contract)` of each, stores one PDF after the other and notes them together: those that
/// were stored and not noted, because the run was cut off in between, are found in the bucket by the next one.
///
/// # Errors
/// When the database is away.
async fn file(
    run: Run<'_>,
    archive: &InvoiceArchive,
    invoices: Vec<(i64, i64)>,
    failures: &AtomicU32,
) -> Result<Filed, store::Error> {
    let mut filed = Filed::default();
    let contract_of = |id: i64| {
        let invoice = invoices.iter().find(|(invoice, _)| *invoice == id);
        invoice.map_or(0, |(_, contract_id)| *contract_id)
    };
    let ids: Vec<i64> = invoices.iter().map(|(id, _)| *id).collect();
    let mut prepared = Vec::with_capacity(ids.len());
    let client = run.app.database.client().await?;
    // One that was voided meanwhile is as good as done.
    for row in invoices::find_all(&**client, &ids).await? {
        match InvoiceArchive::prepare(&**client, &row).await {
            Ok(invoice) => prepared.push(invoice),
            Err(invoice_archive::Error::Store(error)) if error.is_unavailable() => {
                return Err(error);
            }
            Err(error) => {
                let id = row.summary.id;
                let invoice = (contract_of(id), id);
                filed.failed.push(Failed { invoice, error });
            }
        }
    }
    drop(client);
    let mut stored = Vec::with_capacity(prepared.len());
    for invoice in prepared {
        if failures.load(Ordering::Relaxed) >= FAILURES {
            break;
        }
        match archive.store(&invoice).await {
            Ok(pdf) => stored.push((invoice.id, pdf)),
            Err(error) => {
                let is_away = matches!(error, invoice_archive::Error::Aws(_));
                failures.fetch_add(u32::from(is_away), Ordering::Relaxed);
                let invoice = (contract_of(invoice.id), invoice.id);
                filed.failed.push(Failed { invoice, error });
            }
        }
    }
    let pdfs: Vec<(i64, &str, &str)> = stored
        .iter()
        .map(|(id, pdf)| (*id, pdf.pdf_key.as_str(), pdf.pdf_sha256.as_str()))
        .collect();
    if !pdfs.is_empty() {
        let client = run.app.database.client().await?;
        // Fewer are noted when another run has noted other PDFs meanwhile: those count.
        invoices::set_pdfs(&**client, &pdfs, run.now).await?;
    }
    filed.stored = i64::try_from(pdfs.len()).unwrap_or(i64::MAX);
    Ok(filed)
}
