//! Reads archived events again, as this release understands them.

use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Transaction;

use super::Error;
use super::decision::Said;
use super::flight::Scope;
use super::state::Found;
use domain::payment::FeeEstimate;
use domain::revenue::entries::DailyDelta;
use stripe::event::Event;
use stripe::reader;

/// What reading a part of the archive again has changed.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// How many events were read.
    pub events: usize,
    /// The change of each day's figures.
    pub daily: Vec<(jiff::civil::Date, domain::money::Currency, DailyDelta)>,
}

/// Applies archived events again in the caller's transaction: a row that shows one of them gets what this release reads of
/// it besides, and everything that is derived from it is derived anew. Nothing is announced. All events of one object and
/// second have to be among them. A second call with the same events changes nothing.
///
/// # Errors
/// When an amount is out of range, or a statement fails.
pub async fn rebuild(
    db: &Transaction<'_>,
    payloads: Vec<Value>,
    estimate: FeeEstimate,
    now: Timestamp,
) -> Result<Rebuilt, Error> {
    let mut rebuilt = Rebuilt::default();
    let mut events = Vec::new();
    for payload in payloads {
        rebuilt.events += 1;
        let event = Event::from_value(payload)?;
        // What cannot be read lacks what its payload was redacted of: its row stays as it is.
        if let Ok(facts) = reader::read(&event) {
            events.push((event, facts));
        }
    }
    let said = events.iter().map(|(event, facts)| Said {
        event: Some(event),
        facts: facts.clone(),
    });
    let said: Vec<Said<'_>> = said.collect();
    if said.iter().all(|one| one.facts.ids().is_empty()) {
        return Ok(rebuilt);
    }
    if let Some(found) = Found::open(Scope::within(db), &[], said, now).await? {
        let daily = found.read_again(estimate, now).await?;
        let daily = daily
            .into_iter()
            .map(|((day, currency), delta)| (day, currency, delta));
        rebuilt.daily = daily.collect();
    }
    Ok(rebuilt)
}
