//! Rows as a file writes them: each member of a struct under its name.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use domain::period::Month;
use domain::revenue::plan_change::Change;

/// A value of a row, as a file writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<'a> {
    /// NULL, or a figure that is undefined.
    Null,
    /// Amounts in minor units, counts and ids.
    Number(i64),
    /// A boolean, written `true` or `false`.
    Flag(bool),
    /// What people, partners and Stripe wrote, JSON, and words of ours.
    Text(Cow<'a, str>),
    /// An instant, written in UTC.
    Instant(Timestamp),
}

/// A struct whose members are the columns of a file.
pub trait Fields {
    /// The names of the fields, in their order.
    const NAMES: &'static [&'static str];

    /// The values in the order of [`Fields::NAMES`].
    fn fields(&self) -> Vec<Field<'_>>;
}

/// A type that a field may have.
pub trait AsField {
    /// The value as a file writes it.
    fn as_field(&self) -> Field<'_>;
}

impl AsField for i32 {
    fn as_field(&self) -> Field<'_> {
        Field::Number(i64::from(*self))
    }
}

impl AsField for i64 {
    fn as_field(&self) -> Field<'_> {
        Field::Number(*self)
    }
}

impl AsField for bool {
    fn as_field(&self) -> Field<'_> {
        Field::Flag(*self)
    }
}

impl AsField for &'static str {
    fn as_field(&self) -> Field<'_> {
        Field::Text(Cow::Borrowed(self))
    }
}

impl AsField for String {
    fn as_field(&self) -> Field<'_> {
        Field::Text(Cow::Borrowed(self))
    }
}

impl AsField for Timestamp {
    fn as_field(&self) -> Field<'_> {
        Field::Instant(*self)
    }
}

impl AsField for Value {
    fn as_field(&self) -> Field<'_> {
        Field::Text(Cow::Owned(self.to_string()))
    }
}

impl AsField for Month {
    fn as_field(&self) -> Field<'_> {
        Field::Text(Cow::Owned(self.to_string()))
    }
}

impl AsField for Change {
    fn as_field(&self) -> Field<'_> {
        Field::Text(Cow::Borrowed(self.as_str()))
    }
}

impl<T: AsField> AsField for Option<T> {
    fn as_field(&self) -> Field<'_> {
        self.as_ref().map_or(Field::Null, AsField::as_field)
    }
}

/// Defines a struct that the API answers and a file writes: `Serialize`, `ToSchema` and
/// [`Fields`](crate::row::Fields).
#[macro_export]
macro_rules! fields {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$of_field:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            $($(#[$of_field])* pub $field: $type,)*
        }

        impl $crate::row::Fields for $name {
            const NAMES: &'static [&'static str] =
                &[$(stringify!($field)),*];

            fn fields(&self) -> Vec<$crate::row::Field<'_>> {
                vec![$($crate::row::AsField::as_field(&self.$field)),*]
            }
        }
    };
}

/// Defines a struct with `columns!` whose members are also the columns of a file.
macro_rules! file_columns {
    (
        $(#[$of_struct:meta])*
        pub struct $name:ident of $table:literal {
            $($(#[$of_member:meta])* pub $column:ident: $type:ty,)*
        }
    ) => {
        $crate::columns::columns! {
            $(#[$of_struct])*
            pub struct $name of $table {
                $($(#[$of_member])* pub $column: $type,)*
            }
        }

        impl $crate::row::Fields for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($column)),*];

            fn fields(&self) -> Vec<$crate::row::Field<'_>> {
                vec![$($crate::row::AsField::as_field(&self.$column)),*]
            }
        }
    };
}

pub(crate) use file_columns;
