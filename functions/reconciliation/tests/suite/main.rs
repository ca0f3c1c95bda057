//! The jobs of reconciliation over real services. One binary: it starts Postgres and moto once.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod daily;
mod healing;
mod redrive;
mod usage_rollup;
