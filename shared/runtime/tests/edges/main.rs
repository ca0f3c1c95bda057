//! What the functions reach outside of Postgres, against real servers: the AWS stand-in and an HTTP server.

mod aws;
mod documents;
mod key_set;
