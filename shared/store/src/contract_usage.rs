//! What contracts used: requests and units counted over stretches of time, for many contracts in one statement.
//!
//! Each stretch is a walk along the covering index of `api_usage` and one along that of `usage_events`, so the cost
//! follows the number of rows counted. `api_usage.created_at` may be TIMESTAMP or TIMESTAMPTZ (see
//! [`super::api_usage`]), and a session's time zone shifts it by less than a day. Rows further inside are counted by
//! the index's condition alone; only rows within a day of an edge are compared by their epoch. `date_part` and not
//! `extract`: a double holds the microseconds of some two centuries exactly, and NUMERIC takes as long as all the rest.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::{Json, Type};

use super::Error;
use domain::partner::contract::{Contract, PricingModel, UnitSource};
use domain::partner::draft::Window;
use domain::partner::pricing::Usage;
use domain::period::Period;

/// Usage under a prefix that no contract has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPrefix {
    /// The prefix as the gateway or the sender wrote it.
    pub api_key_prefix: String,
    /// The number of rows in `api_usage`.
    pub requests: i64,
    /// The number of events in `usage_events`.
    pub events: i64,
}

/// The usage in each window, in their order. Rows of `api_usage` count by their status, and of a request that was written
/// several times the earliest that counts; with `all` statuses each row counts. `units` come from the contract's unit source: the sum of the cost units of
/// `api_usage`, of the billable events of `usage_events` that were not voided, or of both. `requests` are rows of
/// `api_usage`, and 0 where the contract uses neither.
pub async fn read(db: &impl GenericClient, windows: &[Window<'_>]) -> Result<Vec<Usage>, Error> {
    if windows.is_empty() {
        return Ok(Vec::new());
    }
    let column = |of: fn(&Contract) -> bool| -> Vec<bool> {
        windows.iter().map(|window| of(window.contract)).collect()
    };
    let prefixes: Vec<&str> = windows
        .iter()
        .map(|window| window.contract.api_key_prefix.as_str())
        .collect();
    let starts: Vec<Timestamp> = windows.iter().map(|window| window.period.start).collect();
    let ends: Vec<Timestamp> = windows.iter().map(|window| window.period.end).collect();
    let event_types: Vec<Option<Json<&Vec<String>>>> = windows
        .iter()
        .map(|window| window.contract.billable_event_types.as_ref().map(Json))
        .collect();
    let since: Vec<Timestamp> = windows.iter().map(|window| window.since).collect();
    let until: Vec<Option<Timestamp>> =
        windows.iter().map(|window| window.ingested_until).collect();
    let statuses: Vec<Option<String>> = windows
        .iter()
        .map(|window| window.contract.billable_status_codes.multirange())
        .collect();
    let rows = db
        .query_typed(
            "-- contract_usage::read
             SELECT CAST(served.requests AS bigint) AS requests,
                    CAST(CASE WHEN windows.counts_api_usage THEN served.units ELSE 0 END + metered.units AS bigint)
                        AS units
             FROM (
                 SELECT prefix, start_at, end_at, since_at, ingested_until, counts_api_usage, counts_events, event_types,
                        position, CAST(statuses AS int4multirange) AS statuses,
                        reads_api_usage AND statuses IS NULL AS reads_each_row,
                        reads_api_usage AND statuses IS NOT NULL AS reads_requests,
                        start_at + interval '24 hours' AS inside_from,
                        greatest(start_at + interval '24 hours', end_at - interval '24 hours') AS inside_to,
                        date_part('epoch', start_at) AS start_epoch, date_part('epoch', end_at) AS end_epoch,
                        date_part('epoch', since_at) - 86400 AS since_epoch
                 FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) WITH ORDINALITY AS asked
                     (prefix, start_at, end_at, reads_api_usage, counts_api_usage, counts_events, event_types, since_at,
                      ingested_until, statuses, position)
                 -- Keeps what is computed here from being computed again for each row counted.
                 OFFSET 0
             ) AS windows
             CROSS JOIN LATERAL (
                 SELECT sum(requests) AS requests, sum(units) AS units
                 FROM (
                     SELECT count(*) AS requests, COALESCE(sum(cost_units), 0) AS units
                     FROM api_usage
                     WHERE windows.reads_each_row AND api_key_prefix = windows.prefix
                       AND created_at >= windows.inside_from AND created_at < windows.inside_to
                     UNION ALL
                     SELECT count(*), COALESCE(sum(cost_units), 0)
                     FROM api_usage
                     WHERE windows.reads_each_row AND api_key_prefix = windows.prefix
                       AND created_at > windows.start_at - interval '24 hours' AND created_at < windows.inside_from
                       AND date_part('epoch', created_at) >= windows.start_epoch
                       AND date_part('epoch', created_at) < windows.end_epoch
                     UNION ALL
                     SELECT count(*), COALESCE(sum(cost_units), 0)
                     FROM api_usage
                     WHERE windows.reads_each_row AND api_key_prefix = windows.prefix
                       AND created_at >= windows.inside_to AND created_at < windows.end_at + interval '24 hours'
                       AND date_part('epoch', created_at) >= windows.start_epoch
                       AND date_part('epoch', created_at) < windows.end_epoch
                     UNION ALL
                     -- Rows that name no request, each by itself.
                     SELECT count(*), COALESCE(sum(cost_units), 0)
                     FROM api_usage
                     WHERE windows.reads_requests AND api_key_prefix = windows.prefix AND request_id IS NULL
                       AND (status_code IS NULL OR windows.statuses @> CAST(status_code AS int))
                       AND created_at > windows.start_at - interval '24 hours'
                       AND created_at < windows.end_at + interval '24 hours'
                       AND (created_at >= windows.inside_from AND created_at < windows.inside_to
                            OR date_part('epoch', created_at) >= windows.start_epoch
                               AND date_part('epoch', created_at) < windows.end_epoch)
                     UNION ALL
                     -- Of each request its earliest billable row, where that is of this stretch.
                     SELECT count(*), COALESCE(sum(cost_units), 0)
                     FROM (
                         SELECT DISTINCT ON (request_id) cost_units,
                                created_at >= windows.inside_from AND created_at < windows.inside_to
                                OR date_part('epoch', created_at) >= windows.start_epoch AS is_of_stretch
                         FROM api_usage
                         WHERE windows.reads_requests AND api_key_prefix = windows.prefix AND request_id IS NOT NULL
                           AND (status_code IS NULL OR windows.statuses @> CAST(status_code AS int))
                           AND created_at > windows.since_at - interval '48 hours'
                           AND created_at < windows.end_at + interval '24 hours'
                           AND (created_at >= windows.inside_from AND created_at < windows.inside_to
                                OR date_part('epoch', created_at) >= windows.since_epoch
                                   AND date_part('epoch', created_at) < windows.end_epoch)
                         ORDER BY request_id, created_at, id
                     ) AS earliest
                     WHERE is_of_stretch
                 ) AS parts
             ) AS served
             CROSS JOIN LATERAL (
                 SELECT COALESCE(sum(cost_units), 0) AS units
                 FROM usage_events
                 WHERE windows.counts_events AND subject = 'partner:' || windows.prefix
                   AND created_at >= windows.start_at AND created_at < windows.end_at
                   AND billable AND voided_at IS NULL
                   AND (windows.ingested_until IS NULL OR ingested_at <= windows.ingested_until)
                   AND (windows.event_types IS NULL OR windows.event_types ? event_type)
             ) AS metered
             ORDER BY windows.position",
            &[
                (&prefixes, Type::TEXT_ARRAY),
                (&starts, Type::TIMESTAMPTZ_ARRAY),
                (&ends, Type::TIMESTAMPTZ_ARRAY),
                (&column(reads_api_usage), Type::BOOL_ARRAY),
                (&column(counts_api_usage), Type::BOOL_ARRAY),
                (&column(counts_events), Type::BOOL_ARRAY),
                (&event_types, Type::JSONB_ARRAY),
                (&since, Type::TIMESTAMPTZ_ARRAY),
                (&until, Type::TIMESTAMPTZ_ARRAY),
                (&statuses, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Usage {
                units: row.try_get("units")?,
                requests: row.try_get("requests")?,
            })
        })
        .collect()
}

/// Prefixes used from `from` to before `to` that no contract has, by name, at most `limit`. Steps along the index from
/// one prefix to the next, whatever the number of rows.
pub async fn unknown_prefixes(
    db: &impl GenericClient,
    period: Period,
    limit: i64,
) -> Result<Vec<UnknownPrefix>, Error> {
    let rows = db
        .query_typed(
            "-- contract_usage::unknown_prefixes
             WITH RECURSIVE served AS (
                 SELECT CAST(min(api_key_prefix) AS text) AS prefix FROM api_usage
                 UNION ALL
                 SELECT (SELECT CAST(min(api_key_prefix) AS text) FROM api_usage WHERE api_key_prefix > served.prefix)
                 FROM served WHERE served.prefix IS NOT NULL
             ), used AS (
                 SELECT prefix FROM served WHERE prefix IS NOT NULL
                 UNION
                 SELECT DISTINCT substr(subject, 9) FROM usage_daily
                 WHERE starts_with(subject, 'partner:')
                   AND day >= CAST($1 AT TIME ZONE 'UTC' AS date) AND day <= CAST($2 AT TIME ZONE 'UTC' AS date)
                   AND events > 0
             )
             SELECT used.prefix, requests.count AS requests, events.count AS events
             FROM used
             CROSS JOIN LATERAL (
                 SELECT count(*) AS count FROM api_usage
                 WHERE api_key_prefix = used.prefix
                   AND created_at > $1 - interval '1 day' AND created_at < $2 + interval '1 day'
                   AND extract(epoch FROM created_at) >= extract(epoch FROM $1)
                   AND extract(epoch FROM created_at) < extract(epoch FROM $2)
             ) AS requests
             CROSS JOIN LATERAL (
                 SELECT count(*) AS count FROM usage_events
                 WHERE subject = 'partner:' || used.prefix AND created_at >= $1 AND created_at < $2
                   AND billable AND voided_at IS NULL
             ) AS events
             WHERE NOT EXISTS (SELECT FROM api_partner_contracts WHERE api_key_prefix = used.prefix)
               AND requests.count + events.count > 0
             ORDER BY used.prefix LIMIT $3",
            &[
                (&period.start, Type::TIMESTAMPTZ),
                (&period.end, Type::TIMESTAMPTZ),
                (&limit, Type::INT8),
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(UnknownPrefix {
                api_key_prefix: row.try_get("prefix")?,
                requests: row.try_get("requests")?,
                events: row.try_get("events")?,
            })
        })
        .collect()
}

fn counts_api_usage(contract: &Contract) -> bool {
    match contract.unit_source {
        UnitSource::ApiUsage | UnitSource::Both => true,
        UnitSource::UsageEvents => false,
    }
}

fn reads_api_usage(contract: &Contract) -> bool {
    counts_api_usage(contract) || contract.pricing_model == PricingModel::PerRequest
}

fn counts_events(contract: &Contract) -> bool {
    match contract.unit_source {
        UnitSource::UsageEvents | UnitSource::Both => true,
        UnitSource::ApiUsage => false,
    }
}
