//! Rows as structs: [`columns!`] defines one, and [`all`] and [`first`] read it. Also the columns that every mirrored
//! table has.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use domain::money::Currency;
use domain::partner::credit::CreditReason;
use domain::payment::{FeeSource, PaymentStatus, RefundSource};
use domain::period::Period;
use domain::stripe_objects::invoice::{InvoiceKind, InvoiceStatus};

/// A struct that a row is read into.
pub(super) trait FromRow: Sized {
    /// Reads each member from the column of its name.
    ///
    /// # Errors
    /// When the row has no such column, or the column has no such value.
    fn from_row(row: &Row) -> Result<Self, Error>;
}

/// A type that a member of a row may have.
pub(super) trait Column: Serialize + Sized {
    /// The column's value in this row.
    ///
    /// # Errors
    /// When there is no such column, or it has no such value; a word that is not known names table, column and row.
    fn read(row: &Row, table: &'static str, column: &'static str) -> Result<Self, Error>;
}

macro_rules! stored_as_they_are {
    ($($type:ty),*) => {
        $(stored_as_they_are!(@ $type);)*
        $(stored_as_they_are!(@ Option<$type>);)*
    };
    (@ $type:ty) => {
        impl Column for $type {
            fn read(row: &Row, _table: &'static str, column: &'static str) -> Result<Self, Error> {
                Ok(row.try_get(column)?)
            }
        }
    };
}

stored_as_they_are!(bool, i32, i64, String, Timestamp, Date, Value, Vec<String>);

macro_rules! stored_as_words {
    ($($type:ty),*) => {$(
        impl Column for $type {
            fn read(row: &Row, table: &'static str, column: &'static str) -> Result<Self, Error> {
                Option::read(row, table, column)?.ok_or_else(|| unreadable(row, table, column))
            }
        }

        impl Column for Option<$type> {
            fn read(row: &Row, table: &'static str, column: &'static str) -> Result<Self, Error> {
                let word: Option<&str> = row.try_get(column)?;
                let value = word.map(str::parse).transpose();
                value.map_err(|_no_such_word| unreadable(row, table, column))
            }
        }
    )*};
}

stored_as_words!(
    Currency,
    CreditReason,
    FeeSource,
    InvoiceKind,
    InvoiceStatus,
    PaymentStatus,
    RefundSource
);

/// The error for a column whose value is not valid. It names the row by its first column, which is the key.
fn unreadable(row: &Row, table: &'static str, column: &'static str) -> Error {
    let number = row.try_get::<_, i64>(0).map(|id| id.to_string());
    let key = number.or_else(|_no_number| row.try_get(0));
    Error::Unreadable {
        table,
        column,
        row: key.unwrap_or_default(),
    }
}

/// Defines a struct whose members are columns of a table. `COLUMNS` is what a statement selects for it, so that none can
/// be missing there; the first is the table's key.
macro_rules! columns {
    (
        $(#[$of_struct:meta])*
        pub struct $name:ident of $table:literal {
            $($(#[$of_member:meta])* pub $column:ident: $type:ty,)*
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
        $(#[$of_struct])*
        pub struct $name {
            $($(#[$of_member])* pub $column: $type,)*
        }

        impl $name {
            /// The columns, separated by commas, for the select list of a statement.
            pub const COLUMNS: &'static str =
                $crate::columns::without_first(concat!($(", ", stringify!($column)),*));
        }

        impl $crate::columns::FromRow for $name {
            fn from_row(row: &tokio_postgres::Row) -> Result<$name, $crate::Error> {
                Ok($name {
                    $($column: $crate::columns::Column::read(row, $table, stringify!($column))?,)*
                })
            }
        }
    };
}

pub(crate) use columns;

/// The list without the comma it begins with.
pub(crate) const fn without_first(list: &'static str) -> &'static str {
    list.split_at(2).1
}

/// Every row of a statement.
pub(super) async fn all<T: FromRow>(
    db: &impl GenericClient,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<T>, Error> {
    let rows = db.query_typed(statement, parameters).await?;
    rows.iter().map(T::from_row).collect()
}

/// The first row of a statement, when there is one.
pub(super) async fn first<T: FromRow>(
    db: &impl GenericClient,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Option<T>, Error> {
    let rows = db.query_typed(statement, parameters).await?;
    rows.first().map(T::from_row).transpose()
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

/// The period between the columns of its start and its end.
pub(super) fn period(row: &Row, start: &str, end: &str) -> Result<Period, Error> {
    Ok(Period {
        start: row.try_get(start)?,
        end: row.try_get(end)?,
    })
}
