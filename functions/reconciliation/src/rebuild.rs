//! `reconciliation.rebuild`: reads the archive again, after a release that reads more of events or means something else by
//! them. The migration of such a release begins it, the redrive goes on with it, and an invocation begins it by hand.

use std::collections::BTreeMap;

use domain::money::Currency;
use domain::period::Month;
use domain::reconciliation::{Discrepancy, Kind, ObjectType};
use domain::revenue::entries::DailyDelta;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::ledger::{self, Rebuilt};
use store::archive::{self, Place};
use store::{import_cursors, reconciliation_runs};
use tokio_postgres::Client;

use crate::{App, Deadline};

/// The name of its cursor.
const NAME: &str = "rebuild";
/// Events that are read in one transaction, and those of the second of the last.
const SLICE: i64 = 200;
/// Rows that are asked for in one transaction.
const ROWS: i64 = 200;
/// How often a transaction that met another one is run again.
const ATTEMPTS: u32 = 5;

/// Why a rebuild stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the detail is not valid")]
    Detail(#[source] serde_json::Error),
    #[error("one of `all`, `objects` and `kinds` says what is read again")]
    Nothing,
    #[error("the ledger cannot be read or written")]
    Ledger(#[from] ledger::Error),
    #[error("the database failed")]
    Store(#[from] store::Error),
}

/// What an invocation asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    /// Everything.
    #[serde(default)]
    all: bool,
    /// The events about these objects only, by Stripe's ids.
    #[serde(default)]
    objects: Vec<String>,
    /// The events about these kinds of objects only, in Stripe's words.
    #[serde(default)]
    kinds: Vec<String>,
}

/// How far it is: what `import_cursors.state` holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct State {
    /// The last event that was read; `None` at the beginning.
    #[serde(default)]
    after: Option<Place>,
    /// Whether the archive has been read, and fetched rows are asked for.
    #[serde(default)]
    is_read: bool,
    /// Kinds that are left out when this is not empty.
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    events: usize,
    #[serde(default)]
    asked: u64,
    /// The change of each month's figures, in minor units.
    #[serde(default)]
    restated: BTreeMap<String, Restated>,
}

/// The change of the figures of one month and currency, in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Restated {
    gross_cents: i64,
    fees_cents: i64,
    refunds_cents: i64,
    disputes_cents: i64,
}

impl Restated {
    fn add(&mut self, change: &Restated) -> Result<(), Error> {
        for (sum, change) in [
            (&mut self.gross_cents, change.gross_cents),
            (&mut self.fees_cents, change.fees_cents),
            (&mut self.refunds_cents, change.refunds_cents),
            (&mut self.disputes_cents, change.disputes_cents),
        ] {
            let added = sum.checked_add(change);
            *sum = added.ok_or(ledger::Error::Money(domain::money::Error::OutOfRange))?;
        }
        Ok(())
    }
}

impl From<&DailyDelta> for Restated {
    fn from(delta: &DailyDelta) -> Restated {
        Restated {
            gross_cents: delta.gross_cents,
            fees_cents: delta.fees_cents,
            refunds_cents: delta.refunds_cents,
            disputes_cents: delta.disputes_cents,
        }
    }
}

/// Begins what the detail asks for, and does as much of it as there is time for.
///
/// # Errors
/// When the detail asks for nothing, or the database is away.
pub(crate) async fn run(
    app: &App,
    detail: &Value,
    now: Timestamp,
    deadline: Deadline,
) -> Result<Value, Error> {
    let detail: Detail = serde_json::from_value(detail.clone()).map_err(Error::Detail)?;
    if !detail.objects.is_empty() {
        let rebuilt = objects(app, &detail.objects, now).await?;
        let restated = months(&rebuilt)?;
        return Ok(json!({"events": rebuilt.events, "restated": restated, "is_finished": true}));
    }
    if !detail.all && detail.kinds.is_empty() {
        return Err(Error::Nothing);
    }
    {
        let client = app.database.client().await?;
        let db: &Client = &client;
        let state = State {
            kinds: detail.kinds,
            ..State::default()
        };
        import_cursors::delete(db, NAME).await?;
        import_cursors::insert(db, NAME, &json!(state), now).await?;
    }
    go_on(app, now, deadline).await
}

/// Goes on with what was begun; does nothing when there is nothing left.
///
/// # Errors
/// When the database is away.
pub(crate) async fn go_on(app: &App, now: Timestamp, deadline: Deadline) -> Result<Value, Error> {
    let mut attempt = 1;
    let mut last = State::default();
    while !deadline.is_reached() {
        match slice(app, now).await {
            Ok(Slice::Nothing) => return Ok(json!({"events": 0, "is_finished": true})),
            Ok(Slice::Over(state)) => return Ok(summary(&state, true)),
            Ok(Slice::Done(state)) => {
                last = state;
                attempt = 1;
            }
            Err(Error::Ledger(error)) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(summary(&last, false))
}

fn summary(state: &State, is_finished: bool) -> Value {
    json!({
        "events": state.events,
        "asked": state.asked,
        "restated": state.restated,
        "is_finished": is_finished,
    })
}

/// How a slice ended.
enum Slice {
    /// Nothing was begun, or it is over.
    Nothing,
    Done(State),
    Over(State),
}

async fn slice(app: &App, now: Timestamp) -> Result<Slice, Error> {
    let mut client = app.database.client().await?;
    let cursor = import_cursors::get(&**client, NAME).await?;
    let Some(cursor) = cursor.filter(|cursor| cursor.finished_at.is_none()) else {
        return Ok(Slice::Nothing);
    };
    let mut state: State = serde_json::from_value(cursor.state.clone()).unwrap_or_default();
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let is_over = if state.is_read {
        let asked = archive::look_again(&*transaction, ROWS).await?;
        state.asked += asked;
        asked == 0
    } else {
        let events = archive::slice(&*transaction, state.after.as_ref(), SLICE).await?;
        match events.last() {
            Some(last) => state.after = Some(last.place.clone()),
            None => state.is_read = true,
        }
        let is_asked = |payload: &Value| {
            let object = payload["data"]["object"]["object"].as_str();
            state.kinds.is_empty() || state.kinds.iter().any(|kind| Some(kind.as_str()) == object)
        };
        let payloads = events
            .into_iter()
            .map(|event| event.payload)
            .filter(is_asked);
        let payloads: Vec<Value> = payloads.collect();
        let rebuilt = ledger::rebuild(&transaction, payloads, app.fee_estimate, now).await?;
        state.events += rebuilt.events;
        for (month, delta) in months(&rebuilt)? {
            state.restated.entry(month).or_default().add(&delta)?;
        }
        false
    };
    if is_over {
        state
            .restated
            .retain(|_, delta| *delta != Restated::default());
        tell(&transaction, &state, now).await?;
    }
    let to = json!(state);
    let finished_at = is_over.then_some(now);
    let places = (&cursor.state, &to);
    // Another run may have done this slice.
    if import_cursors::advance(&*transaction, NAME, places, finished_at, now).await? {
        transaction.commit().await.map_err(store::Error::from)?;
    }
    Ok(match is_over {
        true => Slice::Over(state),
        false => Slice::Done(state),
    })
}

async fn objects(app: &App, ids: &[String], now: Timestamp) -> Result<Rebuilt, Error> {
    let mut client = app.database.client().await?;
    let transaction = client.transaction().await.map_err(store::Error::from)?;
    let payloads = archive::of_objects(&*transaction, ids).await?;
    let rebuilt = ledger::rebuild(&transaction, payloads, app.fee_estimate, now).await?;
    transaction.commit().await.map_err(store::Error::from)?;
    Ok(rebuilt)
}

/// The change of each month's figures.
fn months(rebuilt: &Rebuilt) -> Result<BTreeMap<String, Restated>, Error> {
    let mut months: BTreeMap<String, Restated> = BTreeMap::new();
    for (day, currency, delta) in &rebuilt.daily {
        let month = Month::of_day(*day);
        let sum = months.entry(format!("{month}:{currency}")).or_default();
        sum.add(&delta.into())?;
    }
    months.retain(|_, delta| *delta != Restated::default());
    Ok(months)
}

/// Notes each month and figure that changed, with before and after.
async fn tell(
    db: &tokio_postgres::Transaction<'_>,
    state: &State,
    now: Timestamp,
) -> Result<(), Error> {
    if state.restated.is_empty() {
        return Ok(());
    }
    let run_id = reconciliation_runs::begin_rebuild(db, now).await?;
    let after = archive::months(db).await?;
    for (month, delta) in &state.restated {
        let currency = month.split_once(':').map(|(_, currency)| currency);
        let currency = currency.and_then(|currency| Currency::parse(currency).ok());
        let shown = after.get(month).copied().unwrap_or_default();
        for (figure, after, delta) in [
            ("gross", shown[0], delta.gross_cents),
            ("fees", shown[1], delta.fees_cents),
            ("refunds", shown[2], delta.refunds_cents),
            ("disputes", shown[3], delta.disputes_cents),
        ] {
            if delta == 0 {
                continue;
            }
            let item = Discrepancy {
                kind: Kind::Restated,
                object_type: ObjectType::RevenueDaily,
                object_id: format!("{month}:{figure}"),
                currency,
                stripe_value: Some(after.to_string()),
                ledger_value: Some((after - delta).to_string()),
            };
            reconciliation_runs::insert_healed(db, run_id, &item, now).await?;
        }
    }
    reconciliation_runs::end_rebuild(db, run_id, now).await?;
    Ok(())
}
