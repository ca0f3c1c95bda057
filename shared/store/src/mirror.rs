//! The mirrored tables: a row for each object of Stripe's. [`mirrored!`] describes a table once, a line for each column;
//! how it is read and written comes from there, here and in the functions of the database ([`crate::ledger`]).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_postgres::types::Json;

use super::Error;
use domain::money::Currency;
use domain::payment::Settlement;
use domain::stripe_objects::customer::{LinkSource, UserLink};
use domain::stripe_objects::invoice::OutsideStripe;
use domain::stripe_objects::partial::Reason;
use domain::stripe_objects::snapshot::Version;

/// A row as JSON: the value of each column by its name.
pub type Cells = Map<String, Value>;

/// The column with the reasons why a row shows only a part of its object, sorted.
pub(crate) const PARTIAL: &str = "partial";

/// The reasons by the key of the object; an object that is not among them is shown whole.
pub type Partial = BTreeMap<String, Vec<Reason>>;

/// Some columns that are one member of a struct, or all of its own.
pub trait Columns: Sized {
    /// The names of the columns.
    fn names() -> Vec<&'static str>;

    /// Takes the columns from a row of `table`.
    ///
    /// # Errors
    /// When a column has no such value.
    fn read(row: &mut Cells, table: &'static str) -> Result<Self, Error>;

    /// Adds the value of each column.
    ///
    /// # Errors
    /// When a value has no JSON.
    fn write(&self, table: &'static str, row: &mut Cells) -> Result<(), Error>;
}

/// A mirrored table, and what its rows have besides the columns of the object.
pub trait Mirrored: Columns {
    /// The table's name.
    const TABLE: &'static str;
    /// What a row is unique by, as `ON CONFLICT` takes it.
    const KEY: &'static str;
    /// Columns that [`Mirrored::add`] computes, or that come with the object.
    const ADDED: &'static [&'static str] = &[];
    /// Columns that an SQL expression over the written row (`new`) gives.
    const LOOKED_UP: &'static [(&'static str, &'static str)] = &[];
    /// Columns that are read by an SQL expression.
    const READ_AS: &'static [(&'static str, &'static str)] = &[];
    /// Columns that are replaced under a condition on the stored row (`old`) and the written one (`excluded`) only.
    const REPLACED_IF: &'static [(&'static str, &'static [&'static str])] = &[];
    /// Whether the table notes when a row was written.
    const HAS_UPDATED_AT: bool = true;
    /// Whether the table notes what a row does not show of its object (`partial`).
    const IS_PARTIAL: bool = true;

    /// Adds the values of [`Mirrored::ADDED`].
    ///
    /// # Errors
    /// When a value cannot be computed.
    fn add(&self, _row: &mut Cells) -> Result<(), Error> {
        Ok(())
    }
}

/// Implements [`Columns`] for a struct: `member`, or `member = "column"` where the names differ; `member or default` for
/// a column that may be NULL in a member that may not; `..member: Type` for one with several columns; `!member` for one
/// that is not stored.
macro_rules! columns_of {
    ($object:ty {
        $($member:ident $(or $or:ident)? $(= $column:literal)?,)*
        $(..$part:ident: $columns:ty,)*
        $(!$absent:ident,)*
    }) => {
        impl $crate::mirror::Columns for $object {
            fn names() -> Vec<&'static str> {
                let names = vec![$($crate::mirror::column_of!($member $($column)?)),*];
                $(let names = [names, <$columns as $crate::mirror::Columns>::names()].concat();)*
                names
            }

            fn read(row: &mut $crate::mirror::Cells, table: &'static str) -> Result<$object, $crate::Error> {
                Ok(Self {
                    $($member: {
                        let column = $crate::mirror::column_of!($member $($column)?);
                        $crate::mirror::value_of!(row, table, column $(, $or)?)
                    },)*
                    $($part: <$columns as $crate::mirror::Columns>::read(row, table)?,)*
                    $($absent: Default::default(),)*
                })
            }

            fn write(
                &self,
                table: &'static str,
                row: &mut $crate::mirror::Cells,
            ) -> Result<(), $crate::Error> {
                $($crate::mirror::put(row, table, $crate::mirror::column_of!($member $($column)?), &self.$member)?;)*
                $($crate::mirror::Columns::write(&self.$part, table, row)?;)*
                Ok(())
            }
        }
    };
}

/// The name of a member's column.
macro_rules! column_of {
    ($member:ident) => {
        stringify!($member)
    };
    ($member:ident $column:literal) => {
        $column
    };
}

/// The value of a column.
macro_rules! value_of {
    ($row:ident, $table:ident, $column:ident) => {
        $crate::mirror::take($row, $table, $column)?
    };
    ($row:ident, $table:ident, $column:ident, $or:ident) => {
        $crate::mirror::take::<Option<_>>($row, $table, $column)?.unwrap_or_default()
    };
}

/// The user of the customer that a row names.
pub(crate) const USER: (&str, &str) = (
    "user_id",
    "(SELECT user_id FROM customers WHERE customers.stripe_customer_id = new.stripe_customer_id)",
);

/// Describes a mirrored table: `Charge in "payment_attempts" by "(stripe_charge_id)" { … }`, its columns as
/// [`columns_of!`] takes them, then what [`Mirrored`] has besides.
macro_rules! mirrored {
    ($object:ty => $table:literal by $key:literal { $($columns:tt)* } $($beside:item)*) => {
        $crate::mirror::columns_of!($object { $($columns)* });

        impl $crate::mirror::Mirrored for $object {
            const TABLE: &'static str = $table;
            const KEY: &'static str = $key;
            $($beside)*
        }
    };
}

pub(crate) use {column_of, columns_of, mirrored, value_of};

/// Takes the value of a column.
pub(crate) fn take<T: DeserializeOwned>(
    row: &mut Cells,
    table: &'static str,
    column: &'static str,
) -> Result<T, Error> {
    let value = row.get_mut(column).map(Value::take).unwrap_or_default();
    serde_json::from_value(value).map_err(|_other_value| Error::Unreadable {
        table,
        column,
        row: String::new(),
    })
}

/// Adds the value of a column.
pub(crate) fn put(
    row: &mut Cells,
    table: &'static str,
    column: &'static str,
    value: &impl Serialize,
) -> Result<(), Error> {
    let value = serde_json::to_value(value);
    let value = value.map_err(|_no_json| Error::Unwritable { table, column })?;
    row.insert(column.to_owned(), value);
    Ok(())
}

/// The object of one row.
pub(crate) fn one<T: Mirrored>(Json(mut cells): Json<Cells>) -> Result<T, Error> {
    let names = T::names();
    let key = names.first().and_then(|name| cells.get(*name)).cloned();
    T::read(&mut cells, T::TABLE).map_err(|mut error| {
        if let (Error::Unreadable { row, .. }, Some(Value::String(key))) = (&mut error, key) {
            *row = key;
        }
        error
    })
}

/// The reasons of the rows that [`select`] has selected, in the order of the rows.
///
/// # Errors
/// When a word is none of the reasons.
pub(crate) fn reasons(rows: &Value, table: &'static str) -> Result<Vec<Vec<Reason>>, Error> {
    let rows = rows.as_array().into_iter().flatten();
    let reasons = rows.map(|row| match row.get(PARTIAL) {
        Some(Value::Null) | None => Ok(Vec::new()),
        Some(reasons) => Vec::<Reason>::deserialize(reasons),
    });
    let reasons: Result<Vec<Vec<Reason>>, serde_json::Error> = reasons.collect();
    reasons.map_err(|_other_word| Error::Unreadable {
        table,
        column: PARTIAL,
        row: String::new(),
    })
}

/// The objects of the rows that [`select`] has selected; none of `null`.
pub(crate) fn read<T: Mirrored>(rows: Value) -> Result<Vec<T>, Error> {
    let Value::Array(rows) = rows else {
        return Ok(Vec::new());
    };
    let rows = rows.into_iter().map(|row| match row {
        Value::Object(row) => one(Json(row)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Error::Unreadable {
                table: T::TABLE,
                column: "a row",
                row: String::new(),
            })
        }
    });
    rows.collect()
}

/// Selects the rows under a condition as one JSON array; NULL when there are none.
pub(crate) fn select<T: Mirrored>(condition: &str) -> String {
    let read = |name: &&'static str| match T::READ_AS.iter().find(|(known, _)| known == name) {
        Some((_, expression)) => format!("{expression} AS {name}"),
        None => (*name).to_owned(),
    };
    let mut columns: Vec<String> = T::names().iter().map(read).collect();
    if T::IS_PARTIAL {
        columns.push(PARTIAL.to_owned());
    }
    let columns = columns.join(", ");
    let table = T::TABLE;
    format!("SELECT json_agg(one) FROM (SELECT {columns} FROM {table} WHERE {condition}) AS one")
}

/// The rows of some objects, as the upsert takes them.
///
/// # Errors
/// When a value cannot be written.
pub(crate) fn rows<'a, T: Mirrored + 'a>(
    objects: impl IntoIterator<Item = &'a T>,
) -> Result<Vec<Cells>, Error> {
    let objects = objects.into_iter();
    rows_with(objects.map(|object| (object, Cells::new())))
}

/// As [`rows`], each with the values of further [`Mirrored::ADDED`] columns.
pub(crate) fn rows_with<'a, T: Mirrored + 'a>(
    objects: impl IntoIterator<Item = (&'a T, Cells)>,
) -> Result<Vec<Cells>, Error> {
    let rows = objects.into_iter().map(|(object, mut row)| {
        object.write(T::TABLE, &mut row)?;
        object.add(&mut row)?;
        Ok(row)
    });
    rows.collect()
}

/// Inserts or replaces the rows of `written`, a JSON array, noting `now`.
pub(crate) fn upsert<T: Mirrored>(written: &str, now: &str) -> String {
    let (table, key) = (T::TABLE, T::KEY);
    let mut names = T::names();
    names.extend(T::ADDED);
    if T::IS_PARTIAL {
        names.push(PARTIAL);
    }
    let mut values: Vec<String> = names.iter().map(|name| format!("new.{name}")).collect();
    for (name, expression) in T::LOOKED_UP {
        match names.iter().position(|known| known == name) {
            Some(index) => values[index] = (*expression).to_owned(),
            None => {
                names.push(name);
                values.push((*expression).to_owned());
            }
        }
    }
    if T::HAS_UPDATED_AT {
        names.push("updated_at");
        values.push(now.to_owned());
    }
    let replaced = names.iter().map(|name| {
        let condition = T::REPLACED_IF
            .iter()
            .find(|(_, names)| names.contains(name));
        condition.map_or_else(
            || format!("{name} = excluded.{name}"),
            |(condition, _)| {
                format!("{name} = CASE WHEN {condition} THEN excluded.{name} ELSE old.{name} END")
            },
        )
    });
    let replaced = replaced.collect::<Vec<_>>().join(", ");
    let (names, values) = (names.join(", "), values.join(", "));
    format!(
        "INSERT INTO {table} AS old ({names})
         SELECT {values} FROM jsonb_populate_recordset(CAST(NULL AS {table}), {written}) AS new
         ON CONFLICT {key} DO UPDATE SET {replaced}"
    )
}

columns_of!(Version {
    created_at = "source_created_at",
    rank = "source_rank",
    event_id = "source_event_id",
});

/// All NULL while the balance transaction of the payment's charge is not known.
impl Columns for Option<Settlement> {
    fn names() -> Vec<&'static str> {
        vec![
            "settlement_currency",
            "settlement_amount_cents",
            "settlement_fee_cents",
            "exchange_rate",
        ]
    }

    fn read(row: &mut Cells, table: &'static str) -> Result<Option<Settlement>, Error> {
        let currency: Option<Currency> = take(row, table, "settlement_currency")?;
        let amount_cents: Option<i64> = take(row, table, "settlement_amount_cents")?;
        let fee_cents: Option<i64> = take(row, table, "settlement_fee_cents")?;
        let exchange_rate = take(row, table, "exchange_rate")?;
        let known = currency.zip(amount_cents).zip(fee_cents);
        Ok(
            known.map(|((currency, amount_cents), fee_cents)| Settlement {
                currency,
                amount_cents,
                fee_cents,
                exchange_rate,
            }),
        )
    }

    fn write(&self, table: &'static str, row: &mut Cells) -> Result<(), Error> {
        let Some(known) = self else {
            return Ok(());
        };
        put(row, table, "settlement_currency", &known.currency)?;
        put(row, table, "settlement_amount_cents", &known.amount_cents)?;
        put(row, table, "settlement_fee_cents", &known.fee_cents)?;
        put(row, table, "exchange_rate", &known.exchange_rate)
    }
}

/// Both NULL until a snapshot has stated it.
impl Columns for Option<OutsideStripe> {
    fn names() -> Vec<&'static str> {
        vec!["outside_stripe_stated_at", "outside_stripe_stated_cents"]
    }

    fn read(row: &mut Cells, table: &'static str) -> Result<Option<OutsideStripe>, Error> {
        let stated_at: Option<Timestamp> = take(row, table, "outside_stripe_stated_at")?;
        let amount_cents: Option<i64> = take(row, table, "outside_stripe_stated_cents")?;
        let stated = stated_at.zip(amount_cents);
        Ok(stated.map(|(stated_at, amount_cents)| OutsideStripe {
            stated_at,
            amount_cents,
        }))
    }

    fn write(&self, table: &'static str, row: &mut Cells) -> Result<(), Error> {
        let Some(stated) = self else {
            return Ok(());
        };
        put(row, table, "outside_stripe_stated_at", &stated.stated_at)?;
        put(
            row,
            table,
            "outside_stripe_stated_cents",
            &stated.amount_cents,
        )
    }
}

/// Rank 0 and NULLs while no event has named the user.
impl Columns for Option<UserLink> {
    fn names() -> Vec<&'static str> {
        vec![
            "user_link_rank",
            "user_link_at",
            "user_link_event_id",
            "user_link_user_id",
        ]
    }

    fn read(row: &mut Cells, table: &'static str) -> Result<Option<UserLink>, Error> {
        let source = LinkSource::from_rank(take(row, table, "user_link_rank")?);
        let named_at: Option<Timestamp> = take(row, table, "user_link_at")?;
        let event_id: Option<String> = take(row, table, "user_link_event_id")?;
        let user_id: Option<i32> = take(row, table, "user_link_user_id")?;
        let known = source.zip(named_at).zip(event_id.zip(user_id));
        Ok(
            known.map(|((source, named_at), (event_id, user_id))| UserLink {
                source,
                named_at,
                event_id,
                user_id,
            }),
        )
    }

    fn write(&self, table: &'static str, row: &mut Cells) -> Result<(), Error> {
        let rank = self.as_ref().map_or(0, |link| link.source.rank());
        put(row, table, "user_link_rank", &rank)?;
        if let Some(link) = self {
            put(row, table, "user_link_at", &link.named_at)?;
            put(row, table, "user_link_event_id", &link.event_id)?;
            put(row, table, "user_link_user_id", &link.user_id)?;
        }
        Ok(())
    }
}
