//! The rules of the trade: money, revenue, what Stripe's objects mean, partner billing, usage, reconciliation.
//!
//! Pure. Nothing here is async, does I/O, reads a clock or uses a float: what a function needs is an argument.

pub mod money;
pub mod page;
pub mod partner;
pub mod payment;
pub mod period;
pub mod reconciliation;
pub mod revenue;
pub mod stripe_objects;
pub mod usage;
mod words;
