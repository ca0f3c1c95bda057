//! The mirrored tables: a row for each object of Stripe's. [`mirrored!`] describes a table once, a line for each column;
//! its select list, its reader and its upsert come from there.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{GenericClient, Row};

use super::Error;
use super::columns::Column;
use domain::money::Currency;
use domain::payment::{Charge, Dispute, InvoicePayment, PaymentIntent, Refund, Settlement};
use domain::revenue::movement::SubscriptionVersion;
use domain::stripe_objects::catalog::{CouponSnapshot, DiscountSnapshot, PriceSnapshot};
use domain::stripe_objects::customer::{CheckoutSession, Customer, LinkSource, UserLink};
use domain::stripe_objects::invoice::{CreditNote, Invoice};
use domain::stripe_objects::snapshot::Version;
use domain::stripe_objects::subscription::Subscription;

/// A row as it is written: the value of each column by its name.
pub type Written = Map<String, Value>;

/// Some columns that are one member of a struct, or all of its own.
pub trait Columns: Sized {
    /// The names of the columns.
    fn names() -> Vec<&'static str>;

    /// Reads the columns of a row of `table`.
    ///
    /// # Errors
    /// When a column is missing or has no such value.
    fn read(row: &Row, table: &'static str) -> Result<Self, Error>;

    /// Adds the value of each column.
    ///
    /// # Errors
    /// When a value has no JSON.
    fn write(&self, table: &'static str, row: &mut Written) -> Result<(), Error>;
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
    /// Columns that are replaced under a condition on the stored row (`old`) and the written one (`excluded`) only.
    const REPLACED_IF: &'static [(&'static str, &'static [&'static str])] = &[];
    /// Whether the table notes when a row was written.
    const HAS_UPDATED_AT: bool = true;

    /// Adds the values of [`Mirrored::ADDED`].
    ///
    /// # Errors
    /// When a value cannot be computed.
    fn add(&self, _row: &mut Written) -> Result<(), Error> {
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

            fn read(row: &tokio_postgres::Row, table: &'static str) -> Result<$object, $crate::Error> {
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
                row: &mut $crate::mirror::Written,
            ) -> Result<(), $crate::Error> {
                $({
                    let column = $crate::mirror::column_of!($member $($column)?);
                    let value = $crate::columns::Column::write(&self.$member, table, column)?;
                    row.insert(column.to_owned(), value);
                })*
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
        $crate::columns::Column::read($row, $table, $column)?
    };
    ($row:ident, $table:ident, $column:ident, $or:ident) => {
        <Option<_> as $crate::columns::Column>::read($row, $table, $column)?.unwrap_or_default()
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

/// The rows that `condition` selects. `name` is the statement's, after the table's.
pub(crate) async fn select<T: Mirrored>(
    db: &impl GenericClient,
    name: &str,
    condition: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<T>, Error> {
    let statement = select_statement::<T>(name, &[], condition);
    read(&db.query_typed(&statement, parameters).await?)
}

/// Selects the columns of `T`, and more of the same table.
pub(crate) fn select_statement<T: Mirrored>(name: &str, more: &[&str], condition: &str) -> String {
    let table = T::TABLE;
    let columns = [T::names().as_slice(), more].concat().join(", ");
    format!("-- {table}::{name}\nSELECT {columns} FROM {table} WHERE {condition}")
}

/// What [`select_statement`] selects.
pub(crate) fn read<T: Mirrored>(rows: &[Row]) -> Result<Vec<T>, Error> {
    rows.iter().map(|row| T::read(row, T::TABLE)).collect()
}

/// Inserts or replaces the rows of some objects, in one statement.
///
/// # Errors
/// When the statement fails or a value cannot be written.
pub async fn upsert<'a, T: Mirrored + 'a>(
    db: &impl GenericClient,
    objects: impl IntoIterator<Item = &'a T>,
    now: Timestamp,
) -> Result<(), Error> {
    let objects = objects.into_iter();
    upsert_with(db, objects.map(|object| (object, Written::new())), now).await
}

/// As [`upsert`], each with the values of further [`Mirrored::ADDED`] columns.
pub(crate) async fn upsert_with<'a, T: Mirrored + 'a>(
    db: &impl GenericClient,
    objects: impl IntoIterator<Item = (&'a T, Written)>,
    now: Timestamp,
) -> Result<(), Error> {
    let rows = objects.into_iter().map(|(object, mut row)| {
        object.write(T::TABLE, &mut row)?;
        object.add(&mut row)?;
        Ok(row)
    });
    let rows: Vec<Written> = rows.collect::<Result<_, Error>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let written = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let rows = Json(&rows);
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&rows, Type::JSONB)];
    if T::HAS_UPDATED_AT {
        parameters.push((&now, Type::TIMESTAMPTZ));
    }
    let changed = db
        .execute_typed(&upsert_statement::<T>(), &parameters)
        .await?;
    Error::check_row_count(T::TABLE, written, changed)
}

/// Writes `$1`, a JSON array of rows, at `$2`.
fn upsert_statement<T: Mirrored>() -> String {
    let (table, key) = (T::TABLE, T::KEY);
    let mut names = T::names();
    names.extend(T::ADDED);
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
        values.push("$2".to_owned());
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
        "-- {table}::upsert
         INSERT INTO {table} AS old ({names})
         SELECT {values} FROM jsonb_populate_recordset(CAST(NULL AS {table}), $1) AS new
         ON CONFLICT {key} DO UPDATE SET {replaced}"
    )
}

/// The statement by which each mirrored table is written: of a JSON array of rows and, where it says `$2`, the time.
#[must_use]
pub fn upsert_statements() -> Vec<String> {
    vec![
        upsert_statement::<Customer>(),
        upsert_statement::<CheckoutSession>(),
        upsert_statement::<Subscription>(),
        upsert_statement::<SubscriptionVersion>(),
        upsert_statement::<Invoice>(),
        upsert_statement::<CreditNote>(),
        upsert_statement::<PaymentIntent>(),
        upsert_statement::<Charge>(),
        upsert_statement::<Refund>(),
        upsert_statement::<Dispute>(),
        upsert_statement::<InvoicePayment>(),
        upsert_statement::<PriceSnapshot>(),
        upsert_statement::<CouponSnapshot>(),
        upsert_statement::<DiscountSnapshot>(),
    ]
}

columns_of!(Version {
    created_at = "source_created_at",
    rank = "source_rank",
    event_id = "source_event_id",
});

/// All NULL while the charge's balance transaction is not known.
impl Columns for Option<Settlement> {
    fn names() -> Vec<&'static str> {
        vec![
            "settlement_currency",
            "settlement_amount_cents",
            "settlement_fee_cents",
            "exchange_rate",
        ]
    }

    fn read(row: &Row, table: &'static str) -> Result<Option<Settlement>, Error> {
        let currency: Option<Currency> = Column::read(row, table, "settlement_currency")?;
        let amount_cents: Option<i64> = row.try_get("settlement_amount_cents")?;
        let fee_cents: Option<i64> = row.try_get("settlement_fee_cents")?;
        let exchange_rate = row.try_get("exchange_rate")?;
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

    fn write(&self, table: &'static str, row: &mut Written) -> Result<(), Error> {
        let Some(known) = self else {
            return Ok(());
        };
        let mut put = |column: &'static str, value: Result<Value, Error>| {
            row.insert(column.to_owned(), value?);
            Ok::<(), Error>(())
        };
        put(
            "settlement_currency",
            known.currency.write(table, "settlement_currency"),
        )?;
        put("settlement_amount_cents", Ok(known.amount_cents.into()))?;
        put("settlement_fee_cents", Ok(known.fee_cents.into()))?;
        put("exchange_rate", Ok(known.exchange_rate.clone().into()))
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

    fn read(row: &Row, _table: &'static str) -> Result<Option<UserLink>, Error> {
        let source = LinkSource::from_rank(row.try_get("user_link_rank")?);
        let named_at: Option<Timestamp> = row.try_get("user_link_at")?;
        let event_id: Option<String> = row.try_get("user_link_event_id")?;
        let user_id: Option<i32> = row.try_get("user_link_user_id")?;
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

    fn write(&self, table: &'static str, row: &mut Written) -> Result<(), Error> {
        let rank = self.as_ref().map_or(0, |link| link.source.rank());
        row.insert("user_link_rank".to_owned(), rank.into());
        if let Some(link) = self {
            let at = link.named_at.write(table, "user_link_at")?;
            row.insert("user_link_at".to_owned(), at);
            row.insert(
                "user_link_event_id".to_owned(),
                link.event_id.clone().into(),
            );
            row.insert("user_link_user_id".to_owned(), link.user_id.into());
        }
        Ok(())
    }
}
