//! The webhook over real services. One binary: it starts Postgres and moto once.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod balance;
mod bundle;
mod convergence;
mod failures;
mod foreign;
mod late_facts;
mod meanings;
mod queue;
mod round_trips;
mod time_limits;
