//! Objects as paths name them.

use runtime::api::values::{InvoiceId, ObjectId};
use serde::Deserialize;
use utoipa::IntoParams;

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

/// An invoice.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct InvoicePath {
    /// Our number of the invoice, or Stripe's id.
    #[param(inline)]
    pub(crate) id: InvoiceId,
}
