//! The connection pool, long exports and the outbox on a real Postgres.

mod exports;
mod outbox;
mod pool;
