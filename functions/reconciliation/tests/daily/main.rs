//! `reconciliation.daily` against the fake Stripe, on real Postgres and S3.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod checks;
mod faults;
mod older;
mod runs;
mod site;
mod stripe_away;
mod year;
