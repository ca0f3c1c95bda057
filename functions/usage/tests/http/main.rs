//! The function as the gateway calls it, over real services. One binary: it starts Postgres once.

mod alerts;
mod bad_input;
mod events;
mod gateway;
mod histories;
mod ledger;
mod limits;
mod monthly;
mod partners;
mod reserve;
mod time_limits;
mod tokens;
mod void;
