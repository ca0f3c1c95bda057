//! Healing: look-ups, missed webhooks, the backfill, and the life of a parked event, on real
//! Postgres and DynamoDB and against the fake Stripe.

mod backfill;
mod balance;
mod lookups;
mod missed_webhooks;
mod parked;
mod rebuild;
mod site;
