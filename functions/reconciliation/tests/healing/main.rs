//! Healing: look-ups, missed webhooks, the backfill, and the life of a parked event, on real
//! Postgres and DynamoDB and against the fake Stripe.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod backfill;
mod lookups;
mod missed_webhooks;
mod parked;
mod site;
