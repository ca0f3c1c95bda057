//! Prints the invoices that have no PDF yet, stores each once and notes it: those of this run, and those that an
//! earlier one left.

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use shared::filing::{self, Filing};
use shared::store::{self, invoices, partner_invoices};
use shared::telemetry::cause_chain;

use crate::request::Request;
use crate::{App, Deadline, Summary};

/// Invoices read at once.
const PER_READ: i64 = 200;
/// Failures of the bucket before the run leaves the rest to the next one.
const FAILURES: u32 = 20;

/// Prints what is not printed. One that cannot be does not hold up the others; when the bucket is away the rest waits
/// for the next run.
///
/// # Errors
/// When the database is away.
pub(crate) async fn file_all(
    app: &App,
    request: &Request,
    now: Timestamp,
    deadline: Deadline,
    summary: &mut Summary,
) -> Result<(), store::Error> {
    let mut after = 0;
    let mut failures = 0;
    loop {
        if deadline.is_reached() {
            summary.stopped_early = true;
            return Ok(());
        }
        let client = app.database.client().await?;
        let waiting =
            partner_invoices::without_pdf(&**client, after, request.contract_id, PER_READ).await?;
        drop(client);
        let Some((last, contract_id)) = waiting.last().copied() else {
            return Ok(());
        };
        after = last;
        let filing = match &app.filing {
            Ok(filing) => filing,
            Err(error) => {
                // The same for all of them: one stands for the others.
                summary.fail_invoice(contract_id, last, "pdf", cause_chain(error));
                return Ok(());
            }
        };
        let jobs = waiting.into_iter().map(|(id, contract_id)| async move {
            (id, contract_id, file(app, filing, id, now).await)
        });
        let mut jobs = stream::iter(jobs).buffer_unordered(app.concurrency);
        while let Some((id, contract_id, filed)) = jobs.next().await {
            match filed {
                Ok(()) => summary.pdfs_stored += 1,
                Err(filing::Error::Store(error)) if error.is_unavailable() => return Err(error),
                Err(error) => {
                    failures += u32::from(matches!(error, filing::Error::Aws(_)));
                    summary.fail_invoice(contract_id, id, "pdf", cause_chain(&error));
                    if failures == FAILURES {
                        return Ok(());
                    }
                }
            }
        }
    }
}

async fn file(app: &App, filing: &Filing, id: i64, now: Timestamp) -> Result<(), filing::Error> {
    let client = app.database.client().await?;
    // One that was voided meanwhile, or printed by another run, is as good as done.
    let Some(invoice) = invoices::find(&**client, Some(id), None).await? else {
        return Ok(());
    };
    filing.file(&**client, &invoice, now).await?;
    Ok(())
}
