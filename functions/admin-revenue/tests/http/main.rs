//! The function as the gateway calls it, over real services. One binary: it starts Postgres and moto once.

mod authorization;
mod cohorts;
mod contract_terms;
mod drafts;
mod exports;
mod gateway;
mod health;
mod ledger;
mod lists;
mod movements;
mod objects;
mod provisional;
mod reports;
mod revenue;
mod rollups;
mod scans;
mod statement;
mod story;
mod time_limits;
mod unbilled_usage;
mod writes;
