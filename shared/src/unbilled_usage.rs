//! Usage of partners that no invoice carries: by prefix, source, type, reason and month.

use std::collections::BTreeMap;

use domain::partner::coverage::{self, UnbillableReason, UsageSource};
use domain::partner::draft::last_instant;
use domain::partner::terms::LATE_FOR;
use domain::period::{Month, Period};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use store::contracts::{self, Read, Which};
use store::outbox::NewMessage;
use store::unbilled_usage::{self, OfMonth, Unbilled};
use store::{contract_usage, partner_invoices, waived_periods};
use tokio_postgres::GenericClient;
use utoipa::ToSchema;

/// Contracts, and stretches of time, read at once.
const PER_READ: usize = 200;
/// The type under which the gateway's requests are shown.
const API_REQUEST: &str = "api_request";

/// Usage of a month that is on no invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnbilledUsage {
    pub api_key_prefix: String,
    pub source: UsageSource,
    /// The type of the events; `api_request` of the gateway's requests.
    pub event_type: String,
    pub reason: UnbillableReason,
    pub month: Month,
    pub events: i64,
    pub units: i64,
}

/// The days in which unbilled usage is looked for before an instant.
#[must_use]
pub fn looked_for(now: Timestamp) -> Period {
    Period {
        start: now.saturating_sub(LATE_FOR).unwrap_or(Timestamp::MIN),
        end: now,
    }
}

/// One stretch, with what it is told as.
struct Asked {
    api_key_prefix: String,
    reason: UnbillableReason,
    period: Period,
    types: Option<Vec<String>>,
    other_than: Option<Vec<String>>,
    ingested_after: Option<Timestamp>,
}

/// What was used in a period and is on no invoice, as contracts are read now; by prefix, month and reason.
///
/// # Errors
/// When a statement fails.
pub async fn list(
    db: &impl GenericClient,
    period: Period,
    now: Timestamp,
) -> Result<Vec<UnbilledUsage>, store::Error> {
    let (mut of_events, mut of_requests) = (Vec::new(), Vec::new());
    let mut after = 0;
    loop {
        let limit = i64::try_from(PER_READ).unwrap_or(i64::MAX);
        let ids = contracts::ids_after(db, after, limit).await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        let waived = waived_periods::of_contracts(db, &ids).await?;
        let invoiced = partner_invoices::periods(db, &ids).await?;
        for read in contracts::read(db, Which::Ids(&ids)).await? {
            let of = |rows: &[(i64, Period)]| -> Vec<Period> {
                let of_contract = rows.iter().filter(|(id, _)| *id == read.row.id);
                of_contract.map(|(_, period)| *period).collect()
            };
            ask(
                &read,
                &of(&waived),
                &of(&invoiced),
                period,
                now,
                &mut of_events,
                &mut of_requests,
            );
        }
    }
    let unknown = contract_usage::unknown_prefixes(db, period, i64::MAX).await?;
    for unknown in unknown {
        let asked = || Asked {
            api_key_prefix: unknown.api_key_prefix.clone(),
            reason: UnbillableReason::NoContract,
            period,
            types: None,
            other_than: None,
            ingested_after: None,
        };
        of_events.push(asked());
        of_requests.push(asked());
    }
    let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for (source, asked) in [
        (UsageSource::UsageEvents, &of_events),
        (UsageSource::ApiUsage, &of_requests),
    ] {
        for asked in asked.chunks(PER_READ) {
            for row in count(db, source, asked).await? {
                let Some(of) = asked.get(row.place) else {
                    continue;
                };
                let event_type = row.event_type.unwrap_or_else(|| API_REQUEST.to_owned());
                let key = (
                    of.api_key_prefix.clone(),
                    row.month,
                    of.reason,
                    source,
                    event_type,
                );
                let sum = sums.entry(key).or_default();
                sum.0 = sum.0.saturating_add(row.events);
                sum.1 = sum.1.saturating_add(row.units);
            }
        }
    }
    let rows = sums.into_iter();
    let rows = rows.map(
        |((api_key_prefix, month, reason, source, event_type), (events, units))| UnbilledUsage {
            api_key_prefix,
            source,
            event_type,
            reason,
            month,
            events,
            units,
        },
    );
    Ok(rows.collect())
}

async fn count(
    db: &impl GenericClient,
    source: UsageSource,
    asked: &[Asked],
) -> Result<Vec<OfMonth>, store::Error> {
    let stretches: Vec<Unbilled<'_>> = asked
        .iter()
        .map(|asked| Unbilled {
            api_key_prefix: &asked.api_key_prefix,
            period: asked.period,
            types: asked.types.as_deref(),
            other_than: asked.other_than.as_deref(),
            ingested_after: asked.ingested_after,
        })
        .collect();
    match source {
        UsageSource::UsageEvents => unbilled_usage::events(db, &stretches).await,
        UsageSource::ApiUsage => unbilled_usage::requests(db, &stretches).await,
    }
}

/// The stretches in which usage of a contract is not billed. Of one that cannot be read nobody can say.
fn ask(
    read: &Read,
    waived: &[Period],
    invoiced: &[Period],
    period: Period,
    now: Timestamp,
    of_events: &mut Vec<Asked>,
    of_requests: &mut Vec<Asked>,
) {
    let Ok(contract) = read.contract(now) else {
        return;
    };
    let history = Some(&contract.history);
    let asked = |reason, period| Asked {
        api_key_prefix: read.row.api_key_prefix.clone(),
        reason,
        period,
        types: None,
        other_than: None,
        ingested_after: None,
    };
    for span in coverage::spans(history, waived, period, UsageSource::ApiUsage).unwrap_or_default()
    {
        // Only outside billed days: what a billed day does not count, its status says.
        match span.reason {
            None | Some(UnbillableReason::SourceNotCounted) => {}
            Some(reason) => of_requests.push(asked(reason, span.period)),
        }
    }
    for span in
        coverage::spans(history, waived, period, UsageSource::UsageEvents).unwrap_or_default()
    {
        if let Some(reason) = span.reason {
            of_events.push(asked(reason, span.period));
            continue;
        }
        if let Some(types) = &span.counted_types {
            of_events.push(Asked {
                other_than: Some(types.clone()),
                ..asked(UnbillableReason::EventTypeNotCounted, span.period)
            });
        }
        for invoiced in invoiced {
            let both = Period::new(
                span.period.start.max(invoiced.start),
                span.period.end.min(invoiced.end),
            );
            if let Ok(both) = both
                && now > last_instant(*invoiced)
                && span.is_billed
            {
                of_events.push(Asked {
                    types: span.counted_types.clone(),
                    ingested_after: Some(last_instant(*invoiced)),
                    ..asked(UnbillableReason::TooLate, both)
                });
            }
        }
    }
}

/// `usage.unbillable`, once for each prefix, reason and month.
#[must_use]
pub fn messages(rows: &[UnbilledUsage], now: Timestamp) -> Vec<NewMessage> {
    let mut sums: BTreeMap<(&str, UnbillableReason, Month), (i64, i64)> = BTreeMap::new();
    for row in rows {
        let sum = sums
            .entry((&row.api_key_prefix, row.reason, row.month))
            .or_default();
        sum.0 = sum.0.saturating_add(row.events);
        sum.1 = sum.1.saturating_add(row.units);
    }
    let messages = sums
        .into_iter()
        .map(|((prefix, reason, month), (events, units))| {
            let subject = format!("partner:{prefix}:{}:{month}", reason.as_str());
            let dedupe_key = format!("usage.unbillable:{subject}");
            NewMessage {
                detail_type: "usage.unbillable",
                detail: json!({
                    "event_id": dedupe_key,
                    "occurred_at": now,
                    "subject": subject,
                    "data": {
                        "api_key_prefix": prefix,
                        "reason": reason,
                        "month": month,
                        "events": events,
                        "units": units,
                    },
                }),
                dedupe_key,
            }
        });
    messages.collect()
}
