//! Stripe: what arrives from it, and what is asked of it.

pub mod client;
pub mod event;
pub mod reader;
pub mod signature;
