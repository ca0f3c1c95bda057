//! The whole bundle on one machine: the backing services, every function, and a fake Stripe.
//!
//! `command` is what the command line asks for; `services` are Postgres, moto and the fake Stripe;
//! `bundle` holds the functions; `gateway` turns HTTP into the events API Gateway sends and back;
//! `server` is the one port they all answer on; `story` replays the sample through it.

pub mod bundle;
pub mod command;
pub mod gateway;
pub mod openapi;
pub mod sandboxes;
pub mod server;
pub mod services;
pub mod state;
pub mod story;
pub mod summary;
pub mod token;

/// Where the time comes from: only `main.rs` reads the clock.
pub type Clock = fn() -> jiff::Timestamp;

/// What went wrong, in a sentence for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A problem found here.
    pub fn new(what: impl Into<String>) -> Error {
        Error {
            what: what.into(),
            source: None,
        }
    }

    /// reqwest could not be set up.
    #[must_use]
    pub fn no_http_client(error: reqwest::Error) -> Error {
        Error::because("no HTTP client", error)
    }

    /// A problem with its cause.
    pub fn because(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            what: what.into(),
            source: Some(source.into()),
        }
    }
}
