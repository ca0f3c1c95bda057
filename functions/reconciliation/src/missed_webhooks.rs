//! `reconciliation.missed-webhooks`: events that Stripe has and the ledger does not, applied like
//! deliveries.
//!
//! First what Stripe itself says it could not deliver; then, from where the last run came to, every
//! event, oldest first: an endpoint may have been missing, disabled, or asked for too few types. An
//! event that is in the inbox already is not applied again, so a run may be repeated.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use runtime::aws;
use runtime::telemetry::{cause_chain, log_failure};
use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::ledger::Outcome;
use store::{import_cursors, stripe_events};
use stripe::client::Error as StripeError;

use crate::ingest::ingest_all;
use crate::{App, Deadline};

/// How long Stripe keeps events.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// What is younger may still be on its way.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_mins(15);
/// Pages of undelivered events read in a run, the newest first: what is behind them is found by
/// the second part.
const UNDELIVERED_PAGES: u32 = 10;
/// Events applied in one transaction.
const SET: usize = 100;
/// Pages read to find the first event of an account's history.
const PAGES_TO_THE_FIRST: u32 = 2_000;
/// Why a run stopped at its deadline.
const THE_TIME_WAS_UP: &str = "the time was up";
/// The row of `import_cursors`.
const CURSOR: &str = "missed-webhooks";

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Events of Stripe's that were compared with the inbox.
    pub compared: u64,
    /// Events that were missing and are in the ledger now.
    pub applied: u64,
    /// Events that were missing and mean nothing to the ledger, or are not ours.
    pub ignored: u64,
    /// Events that were missing and could not be applied: parked for the redrive.
    pub parked: u64,
    /// Every event up to this instant has been compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compared_until: Option<Timestamp>,
    /// Why not all of them were, when the run stopped early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Why a run could not do anything.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database is away")]
    Database(#[from] store::Error),
    #[error("an event could neither be applied nor parked")]
    ParkedEvents(#[from] aws::Error),
}

/// What an event's `detail` asks for: `{"since": instant}`, to compare again what was compared.
pub(crate) async fn run_event(
    app: &App,
    detail: &Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, crate::Error> {
    let since = match detail["since"].as_str() {
        Some(text) => Some(text.parse().map_err(crate::Error::Time)?),
        None => None,
    };
    let summary = run(app, since, now, deadline).await?;
    Ok(json!(summary))
}

/// Compares the events of `[since, now - 15 minutes]` with the inbox and applies those that are
/// missing; without `since`, from where the last run came to. Stripe keeps 30 days.
///
/// # Errors
/// When the database, or the place for events that cannot be applied, is away. What Stripe does
/// not answer is in the summary.
pub(crate) async fn run(
    app: &App,
    since: Option<Timestamp>,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Summary, Error> {
    let mut run = Run {
        app,
        oldest: since.map_or(now - KEPT, |since| since.max(now - KEPT)),
        until: now - ON_ITS_WAY,
        now,
        deadline,
        summary: Summary::default(),
    };
    let stopped = if app.has_stripe_key() {
        match run.undelivered().await? {
            None => run.all(since.is_some()).await?,
            stopped => stopped,
        }
    } else {
        Some("STRIPE_API_KEY is not configured".to_owned())
    };
    run.summary.stopped = stopped;
    let summary = run.summary;
    if summary.stopped.is_some() {
        metrics::counter!("failures").increment(1);
    }
    tracing::info!(
        summary = %json!(summary),
        "Stripe's events are compared with the inbox"
    );
    Ok(summary)
}

struct Run<'a> {
    app: &'a App,
    oldest: Timestamp,
    until: Timestamp,
    now: Timestamp,
    deadline: Deadline,
    summary: Summary,
}

/// Why a part ended before its end.
type Stopped = Option<String>;

impl Run<'_> {
    fn created(&self) -> Value {
        json!({"gte": self.oldest.as_second(), "lte": self.until.as_second()})
    }

    async fn page(&self, params: Value) -> Result<(Vec<Value>, bool), StripeError> {
        let params = match params {
            Value::Object(params) => params,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        let page = self.app.stripe.list(&["events"], &params, self.now).await?;
        Ok((page.data, page.has_more))
    }

    /// What Stripe says it could not deliver: collected first, then applied oldest first.
    async fn undelivered(&mut self) -> Result<Stopped, Error> {
        let mut params = json!({"delivery_success": false, "created": self.created()});
        let mut missing = Vec::new();
        for _ in 0..UNDELIVERED_PAGES {
            let (events, has_more) = match self.page(params.clone()).await {
                Ok(page) => page,
                Err(error) => return Ok(stripe_stopped(&error)),
            };
            let last = id_of(events.last());
            missing.extend(self.missing(events).await?);
            match last {
                Some(last) if has_more => params["starting_after"] = last.into(),
                _ => break,
            }
        }
        missing.sort_by_key(|event| {
            (
                event["created"].as_i64(),
                event["id"].as_str().map(str::to_owned),
            )
        });
        self.apply(missing).await
    }

    /// Every event from the cursor on, a page at a time, oldest first.
    async fn all(&mut self, is_from_the_start: bool) -> Result<Stopped, Error> {
        let mut state = self.state(is_from_the_start).await?;
        if state["after"].is_null() {
            match self.before_the_first().await? {
                Found::Event(id) => state = self.advance(&state, &id, None).await?,
                Found::Nothing => {
                    self.summary.compared_until = Some(self.until);
                    return Ok(None);
                }
                Found::Stopped(reason) => return Ok(Some(reason)),
            }
        }
        loop {
            if self.deadline.is_reached() {
                return Ok(Some(THE_TIME_WAS_UP.to_owned()));
            }
            let params = json!({
                "ending_before": state["after"],
                "created": {"lte": self.until.as_second()},
            });
            let (mut events, has_more) = match self.page(params).await {
                Ok(page) => page,
                // The event it stands at is no longer kept.
                Err(StripeError::NotFound { .. } | StripeError::Invalid { .. }) => {
                    let client = self.app.database.client().await?;
                    import_cursors::delete(&**client, CURSOR).await?;
                    return Ok(Some(
                        "the cursor is too old: the next run begins anew".to_owned(),
                    ));
                }
                Err(error) => return Ok(stripe_stopped(&error)),
            };
            // Newest first within the page.
            events.reverse();
            let last = events.last().cloned();
            let last_id = id_of(last.as_ref());
            // The same cursor again would be read for ever.
            if has_more && last_id.as_deref().is_none_or(|id| state["after"] == id) {
                let error = StripeError::Unreadable("a list goes on from nowhere");
                return Ok(stripe_stopped(&error));
            }
            let missing = self.missing(events).await?;
            if let Some(reason) = self.apply(missing).await? {
                return Ok(Some(reason));
            }
            if let Some(id) = last_id {
                let created = last.as_ref().and_then(|event| event["created"].as_i64());
                state = self.advance(&state, &id, created).await?;
            }
            if !has_more {
                self.summary.compared_until = Some(self.until);
                return Ok(None);
            }
        }
    }

    /// Where to go on. A window that is asked for again begins earlier than that, or nothing would compare what lies
    /// between.
    async fn state(&self, is_from_the_start: bool) -> Result<Value, store::Error> {
        let client = self.app.database.client().await?;
        if is_from_the_start {
            let cursor = import_cursors::get(&**client, CURSOR).await?;
            let stands_at = cursor.and_then(|cursor| cursor.state["created"].as_i64());
            if stands_at.is_some_and(|second| second > self.oldest.as_second()) {
                import_cursors::delete(&**client, CURSOR).await?;
            }
        }
        let nowhere = json!({"after": null});
        import_cursors::insert(&**client, CURSOR, &nowhere, self.now).await?;
        let cursor = import_cursors::get(&**client, CURSOR).await?;
        Ok(cursor.map_or(nowhere, |cursor| cursor.state))
    }

    /// Moves the cursor. When another run has moved it meanwhile, that is as good: both go on from
    /// where they are, and nothing is applied twice.
    async fn advance(
        &mut self,
        from: &Value,
        after: &str,
        created: Option<i64>,
    ) -> Result<Value, store::Error> {
        let to = json!({"after": after, "created": created});
        let client = self.app.database.client().await?;
        import_cursors::advance(&**client, CURSOR, (from, &to), None, self.now).await?;
        self.summary.compared_until =
            created.and_then(|second| Timestamp::from_second(second).ok());
        Ok(to)
    }

    /// The event to start behind: the last one before the window, or the first one there is, which
    /// is applied here. Stripe reads forwards only from a known event.
    async fn before_the_first(&mut self) -> Result<Found, Error> {
        let params = json!({"created": {"lt": self.oldest.as_second()}, "limit": 1});
        match self.page(params).await {
            Ok((events, _)) => {
                if let Some(id) = id_of(events.first()) {
                    return Ok(Found::Event(id));
                }
            }
            Err(error) => return Ok(Found::Stopped(error.to_string())),
        }
        // Windows that grow from the beginning, so that not the whole history is paged through.
        for hours in [1, 6, 24, 72, 240, 31 * 24] {
            let end = (self.oldest + SignedDuration::from_hours(hours)).min(self.until);
            let window = json!({"gte": self.oldest.as_second(), "lte": end.as_second()});
            let params = Map::from_iter([("created".to_owned(), window)]);
            let path = ["events"];
            let mut pages = self
                .app
                .stripe
                .pages(&path, params, PAGES_TO_THE_FIRST, self.now);
            let mut first = None;
            loop {
                match pages.next_page().await {
                    Ok(Some(page)) => first = page.into_iter().next_back().or(first),
                    Ok(None) => break,
                    Err(error) => return Ok(Found::Stopped(error.to_string())),
                }
            }
            if let Some(event) = first {
                let id = id_of(Some(&event));
                let missing = self.missing(vec![event]).await?;
                if let Some(reason) = self.apply(missing).await? {
                    return Ok(Found::Stopped(reason));
                }
                return Ok(id.map_or(Found::Nothing, Found::Event));
            }
            if end == self.until {
                break;
            }
        }
        Ok(Found::Nothing)
    }

    /// Those of these events that are not in the inbox.
    async fn missing(&mut self, events: Vec<Value>) -> Result<Vec<Value>, store::Error> {
        let ids: Vec<String> = events
            .iter()
            .filter_map(|event| id_of(Some(event)))
            .collect();
        self.summary.compared += u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let client = self.app.database.client().await?;
        let missing = stripe_events::missing(&**client, &ids).await?;
        let missing: BTreeSet<String> = missing.into_iter().collect();
        Ok(events
            .into_iter()
            .filter(|event| id_of(Some(event)).is_some_and(|id| missing.contains(&id)))
            .collect())
    }

    /// Applies them, and parks what cannot be applied.
    async fn apply(&mut self, events: Vec<Value>) -> Result<Stopped, Error> {
        for set in events.chunks(SET) {
            if self.deadline.is_reached() {
                return Ok(Some(THE_TIME_WAS_UP.to_owned()));
            }
            for outcome in apply_or_park(self.app, set, self.now).await? {
                match outcome {
                    Some(Outcome::Applied) => self.summary.applied += 1,
                    Some(Outcome::Ignored | Outcome::Foreign | Outcome::Deferred) => {
                        self.summary.ignored += 1
                    }
                    // Delivered meanwhile.
                    Some(Outcome::Duplicate) => {}
                    None => self.summary.parked += 1,
                }
            }
        }
        Ok(None)
    }
}

/// Applies missed events like deliveries and answers the outcome of each that has an id; one that cannot be applied is
/// parked for the redrive, which is `None`.
///
/// # Errors
/// When the database, or the place for events that cannot be applied, is away.
pub(crate) async fn apply_or_park(
    app: &App,
    events: &[Value],
    now: Timestamp,
) -> Result<Vec<Option<Outcome>>, Error> {
    let with_id = events
        .iter()
        .filter_map(|event| Some((id_of(Some(event))?, event.to_string())));
    let with_id: Vec<(String, String)> = with_id.collect();
    let bodies: Vec<&str> = with_id.iter().map(|(_, body)| body.as_str()).collect();
    let ingested = ingest_all(app, &bodies, now).await?;
    let mut outcomes = Vec::new();
    for ((event_id, body), ingested) in with_id.iter().zip(ingested) {
        let (outcome, label) = match ingested {
            Ok(outcome) => (Some(outcome), outcome.as_str()),
            Err(reason) => {
                app.parked_events.park(event_id, body, &reason, now).await?;
                tracing::warn!(event_id, cause = reason, "a missed event is parked");
                (None, "parked")
            }
        };
        metrics::counter!("missed_webhooks", "outcome" => label).increment(1);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The event to start after, or why there is none.
enum Found {
    Event(String),
    /// There are no events in the window.
    Nothing,
    Stopped(String),
}

fn id_of(event: Option<&Value>) -> Option<String> {
    event?["id"].as_str().map(str::to_owned)
}

fn stripe_stopped(error: &StripeError) -> Stopped {
    if matches!(error, StripeError::Deadline) {
        return Some(THE_TIME_WAS_UP.to_owned());
    }
    log_failure("Stripe's events could not be read", error);
    Some(cause_chain(error))
}
