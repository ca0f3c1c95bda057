//! Values that members, parameters and ids have in common: each is valid once it is read.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{is_plain, parse_id, parse_moment};

/// A text that may stand in a column and be looked for: 1 to 255 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 255)]
pub struct PlainText(pub String);

impl PlainText {
    /// The text as the request has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for PlainText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PlainText, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_plain(&text) {
            return Ok(PlainText(text));
        }
        Err(D::Error::custom(
            "a text of 1 to 255 characters, none of them a control character",
        ))
    }
}

/// An instant, written `2025-11-01T00:00:00Z`, or `2025-11-01` for midnight UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, examples("2025-11-01", "2025-11-01T00:00:00Z"))]
pub struct Moment(pub Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_moment(&text).map(Moment).ok_or_else(|| {
            D::Error::custom("written 2025-11-01, which is midnight UTC, or 2025-11-01T00:00:00Z")
        })
    }
}

/// An instant, written `2025-11-01T00:00:00Z`: a date alone is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2025-11-01T00:00:00Z"))]
pub struct Instant(pub Timestamp);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let text = String::deserialize(deserializer)?;
        let instant = text.parse().map(Instant);
        instant.map_err(|_not_an_instant: jiff::Error| {
            D::Error::custom("an instant is written 2025-11-01T00:00:00Z")
        })
    }
}

/// Our own number of an object, as a path has it: digits without leading zero. Anything else names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = i64, minimum = 1)]
pub struct ObjectId(pub i64);

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ObjectId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = parse_id(&text).map(ObjectId);
        id.ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &"a number"))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An invoice, as a path has it: our number of it, or Stripe's id (`in_…`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InvoiceId {
    /// Our number of the invoice, the column `invoices.id`.
    Number(i64),
    /// Stripe's id of the invoice (`in_…`), the column `invoices.stripe_invoice_id`.
    Stripe(String),
}

impl InvoiceId {
    /// As [`invoices::find`](store::invoices::find) takes it.
    #[must_use]
    pub fn parts(&self) -> (Option<i64>, Option<&str>) {
        match self {
            InvoiceId::Number(number) => (Some(*number), None),
            InvoiceId::Stripe(id) => (None, Some(id)),
        }
    }
}

impl PartialSchema for InvoiceId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Our number of an invoice, or Stripe's id of it"))
            .examples(["7", "in_1S5zJkLq"])
            .into()
    }
}

impl ToSchema for InvoiceId {}

impl<'de> Deserialize<'de> for InvoiceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InvoiceId, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Some(number) = parse_id(&text) {
            return Ok(InvoiceId::Number(number));
        }
        if text.starts_with("in_") && is_plain(&text) {
            return Ok(InvoiceId::Stripe(text));
        }
        Err(D::Error::invalid_value(
            Unexpected::Str(&text),
            &"an invoice",
        ))
    }
}
