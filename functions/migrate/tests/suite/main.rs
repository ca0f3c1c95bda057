//! Migrations as a deploy runs them, on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod balance;
mod custom_resource;
mod kinds;
mod predecessor;
mod roles;
mod upgrade;
