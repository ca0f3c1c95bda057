//! The fake Stripe: a stateful account whose objects and webhooks come in four API shapes.
//!
//! `account` holds the state, `billing` and `payments` are the operations on it, `render` is the
//! only place that knows API shapes, `scenarios` and `sample_story` are the stories told with it,
//! and `server` is the account over HTTP.

pub mod account;
mod api;
pub mod billing;
mod control;
pub mod delivery;
mod form;
mod journal;
mod listing;
pub mod objects;
pub mod payments;
mod render;
pub mod sample_story;
pub mod scenarios;
pub mod server;

pub use account::{Account, Refusal};
pub use sample_story::{sample_account, sample_story, sample_users};
pub use scenarios::{Expected, Scenario, scenarios};
pub use server::{FakeStripe, Fault, Options};

/// The API shape objects and events are rendered in. Ordered: a later shape is a newer version.
///
/// Source of the differences: <https://docs.stripe.com/changelog>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// `2020-08-27`: charges inside the intent, refunds inside the charge.
    V2020_08_27,
    /// `2022-11-15`: `latest_charge`, refunds as separate events.
    V2022_11_15,
    /// `2025-03-31.basil`: `parent`, `pricing`, invoice payments, periods on items.
    Basil,
    /// `2026-09-30.endive`: the coupon under `source`.
    Endive,
}

impl Shape {
    /// Every shape, oldest first.
    pub const ALL: [Shape; 4] = [
        Shape::V2020_08_27,
        Shape::V2022_11_15,
        Shape::Basil,
        Shape::Endive,
    ];

    /// The `api_version` an event of this shape carries.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Shape::V2020_08_27 => "2020-08-27",
            Shape::V2022_11_15 => "2022-11-15",
            Shape::Basil => "2025-03-31.basil",
            Shape::Endive => "2026-09-30.endive",
        }
    }

    /// The shape of an `api_version`, or of the release name alone (`basil`, `endive`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Shape> {
        Shape::ALL.into_iter().find(|shape| {
            shape.api_version() == text || shape.api_version().split('.').nth(1) == Some(text)
        })
    }
}
