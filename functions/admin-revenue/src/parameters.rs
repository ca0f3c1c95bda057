//! Parameters that several routes have.

use domain::money::Currency;
use domain::page::Span;
use jiff::Timestamp;
use runtime::api::Error;
use runtime::api::values::{Instant, InvoiceId, ObjectId};
use serde::Deserialize;
use shared::figures::asked::{Asked, Longest};
use utoipa::IntoParams;

use crate::Clients;

/// What figures are asked for.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
pub(crate) struct FiguresQuery {
    /// The currency of the figures; the reporting currency when not given.
    #[param(inline)]
    currency: Option<Currency>,
    /// A past instant; what happened later does not count. Now when not given.
    #[param(inline)]
    as_of: Option<Instant>,
}

impl FiguresQuery {
    pub(crate) fn currency(self, app: &Clients) -> Currency {
        self.currency.unwrap_or(app.reporting_currency)
    }

    pub(crate) fn as_of(self) -> Option<Timestamp> {
        self.as_of.map(|Instant(at)| at)
    }

    /// The range of a report, with what has happened by `as_of`.
    pub(crate) fn range(
        self,
        span: Span,
        longest: Longest,
        now: Timestamp,
    ) -> Result<Asked, Error> {
        Asked::new((span.from, span.to), self.as_of(), longest, now)
    }
}

/// A parameter that a route has only with other values of its path.
pub(crate) fn unknown_parameter(name: &str, detail: &str) -> Error {
    Error::BadRequest {
        code: "unknown_parameter",
        field: Some(name.to_owned()),
        detail: detail.to_owned(),
    }
}

/// An object by our number of it.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct NumberPath {
    /// Our number of the object.
    #[param(inline)]
    id: ObjectId,
}

impl NumberPath {
    pub(crate) fn number(&self) -> i64 {
        self.id.0
    }
}

/// The invoice that a path names.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct InvoicePath {
    /// Our number of the invoice, or Stripe's id.
    #[param(inline)]
    pub(crate) id: InvoiceId,
}
