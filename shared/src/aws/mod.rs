//! The AWS services the bundle stands on, each behind the few calls it needs.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

pub mod document_bucket;
pub mod event_bus;
pub mod parked_events;
pub mod secrets;

/// Longest time one call may take on the path of a request, retries included. Together with the database's time-outs
/// the webhook stays within 5 seconds when everything is away.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_900);

/// What an AWS service answered, or that it did not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not reached, not allowed, or broken: try again later.
    #[error("{service} is unavailable")]
    Unavailable {
        /// The service.
        service: &'static str,
        /// What the SDK says of it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is not what was put there.
    #[error("{service} holds something else than expected: {what}")]
    Unreadable {
        /// The service.
        service: &'static str,
        /// Which part, without its value.
        what: String,
    },
}

impl Error {
    fn unavailable(
        service: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Unavailable {
            service,
            source: source.into(),
        }
    }
}

/// Region, credentials and endpoint as the SDK finds them. Called once by `main`.
pub async fn load_sdk_config() -> SdkConfig {
    aws_config::load_defaults(BehaviorVersion::latest()).await
}

/// The same configuration for calls somebody waits for: connect 1 s, attempt 1 s, two attempts, 1.9 s in all.
pub fn impatient(sdk: &SdkConfig) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(1))
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(2)
        .with_initial_backoff(Duration::from_millis(50));
    sdk.to_builder()
        .timeout_config(timeouts)
        .retry_config(retries)
        .build()
}

/// An S3 client; with paths instead of host names when an endpoint is configured, as stand-ins for S3 need.
fn s3_client(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(sdk)
        .force_path_style(sdk.endpoint_url().is_some())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}
