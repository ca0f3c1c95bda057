//! `reconciliation.daily`: Stripe's objects of a window against the ledger's, both ways, and what differs put right.
//!
//! 1. **Compare.** Each list of Stripe is paged through together with the ledger's rows of the same span, so that memory
//!    does not grow with their number. What seems to differ is looked at again before it is noted: Stripe is asked for
//!    the object, the ledger for its rows.
//! 2. **Heal.** The events of the window that never arrived are applied as if delivered; what differs still is put
//!    right with the object itself, through the webhook's projection, and looked at once more. Nothing is ever deleted
//!    or canceled because Stripe does not know it. Lists are read by when an object was created: what happened in the
//!    window to an older one is in these events, and the objects they name are looked at before.
//! 3. **Check** the ledger against itself: days, totals, numbers.
//!
//! A list that could not be read to its end stands in `not_checked`, and nothing is concluded from what it did not say.

mod checks;
mod examine;
mod heal;
mod report;
mod rows;
mod subject;
mod tally;
mod transactions;
mod walk;
mod window;

use domain::reconciliation::{completeness_bps, sums_line};
use jiff::{SignedDuration, Timestamp};
use runtime::telemetry::{cause_chain, log_failure};
use serde_json::{Value, json};
use shared::ledger;
use shared::publishing::publish_after_commit;
use store::outbox::NewMessage;
use store::reconciliation_runs::{self, Ending};
use store::{outbox, reconciliation_window};
use stripe::client;
use tokio_postgres::Client;

use crate::{App, Deadline, Error};

use self::subject::Subject;
use self::tally::{NotChecked, Tally};
use self::window::Window;

pub use self::window::Invalid;

/// A run that began this long ago and has not ended was cut off: the platform allows fifteen minutes.
const CUT_OFF: SignedDuration = SignedDuration::from_hours(1);

/// What is left of one run's work.
struct Run<'a> {
    app: &'a App,
    run_id: i64,
    window: Window,
    now: Timestamp,
    deadline: Deadline,
    tally: Tally,
}

/// Why a part of the work was broken off.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the deadline was near")]
    Deadline,
    #[error("more than {0} objects differ")]
    TooMany(usize),
    #[error(transparent)]
    Stripe(#[from] client::Error),
    #[error("the database failed")]
    Database(#[from] store::Error),
}

impl From<ledger::Error> for Stop {
    fn from(error: ledger::Error) -> Stop {
        match error {
            ledger::Error::Store(error) => Stop::Database(error),
            // An answer of Stripe, or a row, that makes no sense.
            ledger::Error::Reader(_)
            | ledger::Error::Event(_)
            | ledger::Error::Money(_)
            | ledger::Error::Subscription(_) => {
                tracing::warn!(cause = cause_chain(&error), "an object cannot be read");
                Stop::Stripe(client::Error::Unreadable("an object lacks what is needed"))
            }
        }
    }
}

/// Whether somebody has to give us another key, or this one its rights.
fn is_refused(error: &client::Error) -> bool {
    matches!(
        error,
        client::Error::NoKey(_) | client::Error::Unauthorized { .. } | client::Error::WrongMode
    )
}

pub(crate) async fn run(
    app: &App,
    detail: &Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, Error> {
    let window = Window::parse(detail, now)?;
    let run_id = {
        let client = app.database.client().await?;
        let db: &Client = &client;
        if let Ok(began_before) = now.checked_sub(CUT_OFF) {
            reconciliation_runs::close_abandoned(db, began_before, now).await?;
        }
        reconciliation_runs::begin_daily(db, window.since, window.until, now).await?
    };
    let mut run = Run {
        app,
        run_id,
        window,
        now,
        deadline,
        tally: Tally::default(),
    };
    run.compare().await?;
    if run.window.heal {
        run.heal().await?;
    }
    run.check().await?;
    run.finish().await
}

impl Run<'_> {
    /// Each list of Stripe; one that breaks off does not keep the others from being read.
    async fn compare(&mut self) -> Result<(), store::Error> {
        for subject in Subject::ALL {
            let walked = self.walk(subject).await;
            self.note(subject.list(), walked)?;
        }
        let walked = self.walk_older_payments().await;
        self.note(Subject::PaymentIntent.list(), walked)?;
        let walked = self.walk_payouts().await;
        self.note("payout_transactions", walked)
    }

    /// Keeps in mind what could not be done; without the database nothing can.
    fn note(&mut self, what: &'static str, done: Result<(), Stop>) -> Result<(), store::Error> {
        let stop = match done {
            Ok(()) => return Ok(()),
            Err(Stop::Database(error)) if error.is_unavailable() => return Err(error),
            Err(stop) => stop,
        };
        let is_failure = match &stop {
            Stop::Stripe(error) => {
                log_failure("a list of Stripe could not be checked", error);
                error.is_temporary() || is_refused(error)
            }
            Stop::Database(error) => {
                log_failure("the ledger could not be checked", error);
                true
            }
            Stop::Deadline | Stop::TooMany(_) => false,
        };
        self.tally.not_checked.push(NotChecked {
            what,
            reason: cause_chain(&stop),
            is_failure,
        });
        Ok(())
    }

    /// Writes the report, records the end of the run, and publishes its messages.
    async fn finish(mut self) -> Result<Value, Error> {
        let window = self.window;
        let (ledger_sums, counts) = {
            let client = self.app.database.client().await?;
            let db: &Client = &client;
            let from = window.last_day_from();
            (
                reconciliation_window::charged_sums(db, from, window.until).await?,
                reconciliation_runs::counts(db, self.run_id).await?,
            )
        };
        let count = |resolution: &str| -> i64 {
            let of_resolution = counts.iter().filter(|(_, found, _)| found == resolution);
            of_resolution.map(|(_, _, items)| items).sum()
        };
        let (healed, open) = (count("healed"), count("open"));
        let report_key = match self.write_report().await? {
            Ok(key) => Some(key),
            Err(error) => {
                log_failure("the report could not be stored", &error);
                self.tally.not_checked.push(NotChecked {
                    what: "report",
                    reason: error.to_string(),
                    is_failure: true,
                });
                None
            }
        };
        let is_complete = self.tally.not_checked.is_empty();
        let completeness = match completeness_bps(self.tally.matched, self.tally.compared) {
            None if is_complete => Some(10_000),
            completeness => completeness,
        };
        let summary = self.summary(&ledger_sums, &counts, completeness, report_key.as_deref());
        let messages = self.messages(&summary, open);
        let ending = Ending {
            status: if is_complete {
                "completed"
            } else {
                "incomplete"
            },
            compared: self.tally.compared,
            matched: self.tally.matched,
            healed,
            open,
            completeness_bps: completeness,
            summary: &summary,
            report_key: report_key.as_deref(),
        };
        let mut connection = self.app.database.client().await?;
        let client: &mut Client = &mut connection;
        let transaction = client.transaction().await.map_err(store::Error::from)?;
        reconciliation_runs::finish(&transaction, self.run_id, &ending, self.now).await?;
        let messages = outbox::insert_all(&transaction, &messages, self.now).await?;
        transaction.commit().await.map_err(store::Error::from)?;
        let (database, bus) = (&self.app.database, Some(&self.app.event_bus));
        publish_after_commit(database, connection, bus, &messages, self.now).await;
        metrics::gauge!("reconciliation_open_discrepancies")
            .set(u32::try_from(open).unwrap_or(u32::MAX));
        if open > 0 {
            tracing::error!(run_id = self.run_id, open, "Stripe and the ledger differ");
        }
        // Somebody will look at what differs; what could not be asked is worth asking again, or with another key.
        if self.tally.not_checked.iter().any(|one| one.is_failure) {
            let summary = Box::new(summary);
            return Err(Error::Incomplete { summary });
        }
        Ok(summary)
    }

    fn summary(
        &self,
        ledger_sums: &std::collections::BTreeMap<domain::money::Currency, i64>,
        counts: &[(String, String, i64)],
        completeness_bps: Option<i32>,
        report_key: Option<&str>,
    ) -> Value {
        let tally = &self.tally;
        let is_known = !tally
            .not_checked
            .iter()
            .any(|one| one.what == Subject::Charge.list());
        let currencies: std::collections::BTreeSet<_> =
            ledger_sums.keys().chain(tally.charged.keys()).collect();
        let sums: Vec<Value> = currencies
            .into_iter()
            .map(|currency| {
                let stripe = tally.charged.get(currency).copied().unwrap_or_default();
                let stripe = is_known.then_some(stripe);
                let ledger = ledger_sums.get(currency).copied().unwrap_or_default();
                json!({
                    "currency": currency.as_str(),
                    "stripe_cents": stripe,
                    "ledger_cents": ledger,
                    "line": sums_line(stripe, ledger),
                })
            })
            .collect();
        let of = |resolution: &str| {
            let of_resolution = counts.iter().filter(|(_, found, _)| found == resolution);
            let by_kind = of_resolution.map(|(kind, _, items)| (kind.clone(), json!(items)));
            Value::Object(by_kind.collect())
        };
        let total = |resolution: &str| -> i64 {
            let of_resolution = counts.iter().filter(|(_, found, _)| found == resolution);
            of_resolution.map(|(_, _, items)| items).sum()
        };
        json!({
            "run_id": self.run_id,
            "since": self.window.since,
            "until": self.window.until,
            "status": if tally.not_checked.is_empty() { "completed" } else { "incomplete" },
            "compared": tally.compared,
            "matched": tally.matched,
            "completeness_bps": completeness_bps,
            "healed": total("healed"),
            "open": total("open"),
            "accepted": tally.accepted.len(),
            "healed_by_kind": of("healed"),
            "open_by_kind": of("open"),
            "events_applied": tally.events_applied,
            "events_failed": tally.events_failed,
            "fees_settled": tally.fees_settled,
            "sums": sums,
            "not_checked": tally.not_checked,
            "report": report_key,
        })
    }

    fn messages(&self, summary: &Value, open: i64) -> Vec<NewMessage> {
        let message = |detail_type: &'static str, data: Value| {
            let dedupe_key = format!("{detail_type}:{}", self.run_id);
            NewMessage {
                detail_type,
                detail: json!({
                    "event_id": dedupe_key,
                    "occurred_at": self.now,
                    "subject": format!("reconciliation:{}", self.run_id),
                    "data": data,
                }),
                dedupe_key,
            }
        };
        let mut messages = vec![message("reconciliation.completed", summary.clone())];
        if open > 0 {
            let data = json!({
                "run_id": self.run_id,
                "open": open,
                "open_by_kind": summary["open_by_kind"],
                "report": summary["report"],
            });
            messages.push(message("reconciliation.discrepancy_found", data));
        }
        messages
    }
}
