//! `reconciliation.daily` against the fake Stripe, on real Postgres and S3.

mod checks;
mod faults;
mod older;
mod runs;
mod site;
mod stripe_away;
mod year;
