//! Runs on a real Postgres, S3 and bus: each invoice once, whatever happens in between.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod bills;
mod failures;
mod histories;
mod killed;
mod once;
mod site;
