//! Healing from Stripe: look-ups, missed webhooks and the backfill, on real Postgres and DynamoDB
//! and against the fake Stripe.

#![expect(clippy::unwrap_used, reason = "a panic is the report")]

mod backfill;
mod lookups;
mod missed_webhooks;
mod site;
