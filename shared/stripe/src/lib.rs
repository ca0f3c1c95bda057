//! Stripe: verifies and reads what it sends, and calls its API.

pub mod account;
pub mod client;
pub mod event;
pub mod reader;
pub mod signature;
