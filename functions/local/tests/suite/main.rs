//! The local bundle, and what several functions do together. `binaries` is a separate target: it measures how long a
//! function takes to start, so nothing may run beside it.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod bundle;
mod openapi;
mod partner_collection;
mod partner_reconciliation;
mod routes;
mod stripe_client;
