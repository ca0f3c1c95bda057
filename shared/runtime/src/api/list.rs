//! What every list has in common: the parameters of its page, and its answer.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::Error;
use super::values::Moment;
use domain::page::{Page, Position, Rows, Span};
use domain::period::day_of;

/// `limit` and `cursor`, the parameters of every list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most rows of the page; 100 when not given.
    #[param(minimum = 1, maximum = 500, value_type = Option<u16>)]
    limit: Option<Limit>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The parameter `limit` alone, of what is no list with pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LimitQuery {
    /// Most rows; 100 when not given.
    #[param(minimum = 1, maximum = 500, value_type = Option<u16>)]
    limit: Option<Limit>,
}

impl LimitQuery {
    /// When none is given.
    pub const DEFAULT: u16 = 100;

    /// The parameter `limit` as given; `None` when it was left out.
    #[must_use]
    pub fn limit(self) -> Option<u16> {
        self.limit.map(|Limit(limit)| limit)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(u16);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(limit @ 1..=500) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Limit(limit))
            }
            _ => Err(D::Error::custom("a number from 1 to 500")),
        }
    }
}

impl PageQuery {
    /// Whether a parameter of it is given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.limit.is_some() || self.cursor.is_some()
    }

    /// Most rows of the page, and where the page before ended, for a list that is sorted by something else than an
    /// instant.
    ///
    /// # Errors
    /// When the cursor is none of ours.
    pub fn after<T: DeserializeOwned>(&self) -> Result<(u16, Option<T>), Error> {
        let limit = self.limit.map_or(100, |Limit(limit)| limit);
        let after = self
            .cursor
            .as_deref()
            .map(super::parse_cursor)
            .transpose()?;
        Ok((limit, after))
    }

    /// The page that is asked for.
    ///
    /// # Errors
    /// When the cursor is none of ours.
    pub fn page<K: DeserializeOwned>(&self) -> Result<Page<K>, Error> {
        let limit = self.limit.map_or(100, |Limit(limit)| limit);
        let cursor = self.cursor.as_deref();
        let after: Option<Position<K>> = cursor.map(super::parse_cursor).transpose()?;
        match &after {
            // We never wrote such a one, and no column can be compared with it.
            Some(Position(at, _)) if day_of(*at).year() < 1 => Err(super::no_cursor_of_ours()),
            Some(_) | None => Ok(Page { after, limit }),
        }
    }
}

/// `from` and `to`, by which every list of what happened can be narrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SpanQuery {
    /// The first instant shown.
    #[param(inline)]
    from: Option<Moment>,
    /// The first instant no longer shown.
    #[param(inline)]
    to: Option<Moment>,
}

impl SpanQuery {
    /// `[from, to)`.
    ///
    /// # Errors
    /// When `from` is after `to`.
    pub fn span(self) -> Result<Span, Error> {
        let (from, to) = (self.from.map(|Moment(at)| at), self.to.map(|Moment(at)| at));
        match (from, to) {
            (Some(start), Some(end)) if start > end => {
                Err(Error::invalid_parameter("from", "not after to"))
            }
            _ => Ok(Span { from, to }),
        }
    }
}

/// A page of `T`s, newest first, as it is answered.
#[derive(Debug, Serialize)]
pub struct ListOf<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> ListOf<T> {
    /// The page, and where it ended unless it is the last.
    ///
    /// # Errors
    /// When the position cannot be written.
    pub fn new<K: Serialize>(data: Vec<T>, next: Option<&Position<K>>) -> Result<Self, Error> {
        let next_cursor = next.map(super::cursor).transpose()?;
        Ok(ListOf { data, next_cursor })
    }

    /// The rows of a page as they are.
    ///
    /// # Errors
    /// When the position cannot be written.
    pub fn of<K: Serialize>(rows: Rows<K, T>) -> Result<Self, Error> {
        ListOf::new(rows.rows, rows.next.as_ref())
    }
}

impl<T: ToSchema> PartialSchema for ListOf<T> {
    fn schema() -> RefOr<Schema> {
        let nullable = SchemaType::from_iter([Type::String, Type::Null]);
        ObjectBuilder::new()
            .property(
                "data",
                ArrayBuilder::new()
                    .items(Ref::from_schema_name(T::name()))
                    .description(Some("Newest first")),
            )
            .required("data")
            .property(
                "next_cursor",
                ObjectBuilder::new().schema_type(nullable).description(Some(
                    "What to pass as `cursor` for the next page; null on the last",
                )),
            )
            .required("next_cursor")
            .into()
    }
}

impl<T: ToSchema> ToSchema for ListOf<T> {
    fn name() -> Cow<'static, str> {
        format!("{}List", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}
