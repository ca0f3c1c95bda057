//! The connection pool and the outbox on a real Postgres.

mod outbox;
mod pool;
