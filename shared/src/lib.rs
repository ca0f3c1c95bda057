//! DeedPro Billing: the crate every function stands on.

// Domain: pure. No async, no I/O, no clock, no floats.
pub mod bridge;
pub mod cash;
pub mod catalog;
pub mod cohort;
pub mod contract;
pub mod credit;
pub mod customer;
pub mod cycle;
pub mod invoice;
pub mod journal;
pub mod money;
pub mod movement;
pub mod payment;
pub mod period;
pub mod plan_change;
pub mod pricing;
pub mod reconciliation;
pub mod revenue;
pub mod snapshot;
pub mod statement;
pub mod subscription;
pub mod usage;

// Documents: pure. Data in, bytes out.
pub mod document;

// Edges: the only modules that talk to the outside world.
pub mod api;
pub mod aws;
pub mod config;
pub mod deadline;
pub mod http_call;
pub mod store;
pub mod stripe;
pub mod telemetry;
mod tls;

// What several functions do alike: invoices to PDFs, what Stripe says to the ledger, the outbox to the bus.
pub mod filing;
pub mod ledger;
pub mod publishing;

#[cfg(feature = "test-support")]
pub mod test_support;
