//! The function as the gateway calls it, over real services. One binary: it starts Postgres and moto once.

mod authorization;
mod exports;
mod gateway;
mod health;
mod ledger;
mod lists;
mod movements;
mod objects;
mod revenue;
