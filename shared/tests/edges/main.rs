//! The edges against what they talk to: Postgres, moto, an identity provider's key set. One binary, so that each is
//! started once.

mod aws;
mod documents;
mod key_set;
mod outbox;
mod pool;
