//! `waived_periods`: periods of contracts that are never billed.

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::{Error, columns};
use domain::period::Period;

/// The waived periods of these contracts, with whose they are; oldest first.
///
/// # Errors
/// When the statement fails.
pub async fn of_contracts(
    db: &impl GenericClient,
    contract_ids: &[i64],
) -> Result<Vec<(i64, Period)>, Error> {
    let rows = db
        .query_typed(
            "-- waived_periods::of_contracts
             SELECT contract_id, period_start, period_end FROM waived_periods WHERE contract_id = ANY($1)
             ORDER BY contract_id, period_start, period_end",
            &[(&contract_ids, Type::INT8_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let period = columns::period(row, "period_start", "period_end")?;
            Ok((row.try_get("contract_id")?, period))
        })
        .collect()
}

/// The waived periods of these partners, with their prefixes.
///
/// # Errors
/// When the statement fails.
pub async fn of_partners(
    db: &impl GenericClient,
    api_key_prefixes: &[&str],
) -> Result<Vec<(String, Period)>, Error> {
    let rows = db
        .query_typed(
            "-- waived_periods::of_partners
             SELECT api_key_prefix, period_start, period_end
             FROM waived_periods JOIN api_partner_contracts AS contracts ON contracts.id = contract_id
             WHERE api_key_prefix = ANY($1)",
            &[(&api_key_prefixes, Type::TEXT_ARRAY)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let period = columns::period(row, "period_start", "period_end")?;
            Ok((row.try_get("api_key_prefix")?, period))
        })
        .collect()
}

/// Records that a period is never billed. One that is recorded already stays as it is.
///
/// # Errors
/// When the statement fails.
pub async fn insert(
    db: &impl GenericClient,
    contract_id: i64,
    period: Period,
    reason: &str,
    waived_by: &str,
    now: Timestamp,
) -> Result<(), Error> {
    db.execute_typed(
        "-- waived_periods::insert
         INSERT INTO waived_periods (contract_id, period_start, period_end, reason, waived_by, waived_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
        &[
            (&contract_id, Type::INT8),
            (&period.start, Type::TIMESTAMPTZ),
            (&period.end, Type::TIMESTAMPTZ),
            (&reason, Type::TEXT),
            (&waived_by, Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
        ],
    )
    .await?;
    Ok(())
}
