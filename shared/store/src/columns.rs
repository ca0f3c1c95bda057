//! Reads the columns that every mirrored table has.

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::Error;
use super::list::{LISTED_AT, Object};
use domain::money::Currency;
use domain::period::Period;
use domain::stripe_objects::snapshot::Version;

/// Reads `source_created_at`, `source_rank` and `source_event_id`.
pub(super) fn version(row: &Row) -> Result<Version, Error> {
    Ok(Version {
        created_at: row.try_get("source_created_at")?,
        rank: row.try_get("source_rank")?,
        event_id: row.try_get("source_event_id")?,
    })
}

/// A currency that must not be NULL.
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

/// As [`json`], for a column that may be NULL.
pub(super) fn optional_json<T: serde::de::DeserializeOwned>(
    row: &Row,
    table: &'static str,
    column: &'static str,
    key: &str,
) -> Result<Option<T>, Error> {
    match row.try_get::<_, Option<Value>>(column)? {
        None => Ok(None),
        Some(_) => json(row, table, column, key).map(Some),
    }
}

/// The period between the columns of its start and its end.
pub(super) fn period(row: &Row, start: &str, end: &str) -> Result<Period, Error> {
    Ok(Period {
        start: row.try_get(start)?,
        end: row.try_get(end)?,
    })
}

/// The row as a JSON object named by its columns: amounts as numbers, instants as RFC 3339 in UTC. Leaves out the
/// columns that the page is sorted by.
pub(super) fn object(row: &Row) -> Result<Object, Error> {
    let mut object = Object::new();
    for (index, column) in row.columns().iter().enumerate() {
        if column.name() == LISTED_AT {
            continue;
        }
        let value = match *column.type_() {
            Type::BOOL => value(row.try_get::<_, Option<bool>>(index)?),
            Type::INT4 => value(row.try_get::<_, Option<i32>>(index)?),
            Type::INT8 => value(row.try_get::<_, Option<i64>>(index)?),
            Type::TIMESTAMPTZ => value(
                row.try_get::<_, Option<Timestamp>>(index)?
                    .map(|instant| instant.to_string()),
            ),
            Type::DATE => value(
                row.try_get::<_, Option<Date>>(index)?
                    .map(|day| day.to_string()),
            ),
            Type::JSONB => value(row.try_get::<_, Option<Value>>(index)?),
            Type::TEXT_ARRAY => value(row.try_get::<_, Option<Vec<String>>>(index)?),
            // Text. Any other type is an error, which the first test of the statement finds.
            _ => value(row.try_get::<_, Option<String>>(index)?),
        };
        object.insert(column.name().to_owned(), value);
    }
    Ok(object)
}

fn value(stored: Option<impl Into<Value>>) -> Value {
    stored.map_or(Value::Null, Into::into)
}
