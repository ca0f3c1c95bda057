//! The function as the gateway calls it, over real services. One binary: it starts Postgres and moto once.

mod gateway;
mod links;
mod printing;
mod requests;
