//! Columns that every mirrored table has, read one way.

use tokio_postgres::Row;

use super::Error;
use crate::money::Currency;
use crate::snapshot::Version;

/// `source_created_at`, `source_rank`, `source_event_id`.
pub(super) fn version(row: &Row) -> Result<Version, Error> {
    Ok(Version {
        created_at: row.try_get("source_created_at")?,
        rank: row.try_get("source_rank")?,
        event_id: row.try_get("source_event_id")?,
    })
}

/// A currency that must be there.
pub(super) fn currency(row: &Row, table: &'static str, key: &str) -> Result<Currency, Error> {
    optional_currency(row, table, "currency", key)?.ok_or_else(|| Error::Unreadable {
        table,
        column: "currency",
        row: key.to_owned(),
    })
}

/// A currency that may be NULL.
pub(super) fn optional_currency(
    row: &Row,
    table: &'static str,
    column: &'static str,
    key: &str,
) -> Result<Option<Currency>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(Currency::parse)
        .transpose()
        .map_err(|_not_a_currency| Error::Unreadable {
            table,
            column,
            row: key.to_owned(),
        })
}

/// A JSONB column as the type it was written from.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row,
    table: &'static str,
    column: &'static str,
    key: &str,
) -> Result<T, Error> {
    let value: serde_json::Value = row.try_get(column)?;
    serde_json::from_value(value).map_err(|_other_shape| Error::Unreadable {
        table,
        column,
        row: key.to_owned(),
    })
}
