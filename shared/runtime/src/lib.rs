//! What all functions need to run: configuration, logs and metrics, TLS, AWS, and the HTTP edge.

pub mod api;
pub mod aws;
pub mod config;
pub mod deadline;
pub mod http_call;
pub mod lambda;
pub mod telemetry;
pub mod time_limit;
pub mod tls;
