//! The AWS services that the bundle uses, each behind the few calls it needs.

use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_types::SdkConfig;

use crate::config::Environment;

pub mod document_bucket;
pub mod event_bus;
mod http_client;
pub mod parked_events;
pub mod secrets;

/// The longest time for one call on the path of a request, retries included. Together with the database's time-outs,
/// the webhook answers within 5 seconds even when everything is unavailable.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_900);

/// Why a call to an AWS service failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service was not reached, refused the call, or failed: try again later.
    #[error("{service} is unavailable")]
    Unavailable {
        /// The name of the service.
        service: &'static str,
        /// The SDK's error, with its cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what was stored there.
    #[error("{service} holds something else than expected: {what}")]
    Unreadable {
        /// The name of the service.
        service: &'static str,
        /// Which part is unreadable, without its value.
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

/// Region, credentials and endpoint from `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN` and `AWS_ENDPOINT_URL`. Lambda sets the first four for the life of a sandbox. The first call
/// that needs a missing one fails.
pub fn sdk_config(environment: &Environment) -> SdkConfig {
    let mut sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client::shared());
    sdk.set_region(environment.optional("AWS_REGION").map(Region::new));
    sdk.set_endpoint_url(environment.optional("AWS_ENDPOINT_URL"));
    if let (Some(key_id), Some(secret_key)) = (
        environment.optional("AWS_ACCESS_KEY_ID"),
        environment.optional("AWS_SECRET_ACCESS_KEY"),
    ) {
        let session_token = environment.optional("AWS_SESSION_TOKEN");
        let credentials = Credentials::new(key_id, secret_key, session_token, None, "environment");
        sdk.set_credentials_provider(Some(SharedCredentialsProvider::new(credentials)));
    }
    sdk.build()
}

/// The same configuration for calls that somebody waits for: connect 1 s, attempt 1 s, two attempts, 1.9 s in all.
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

/// An S3 client. With a configured endpoint it uses paths instead of host names, as stand-ins for S3 require.
fn s3_client(sdk: &SdkConfig) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(sdk)
        .force_path_style(sdk.endpoint_url().is_some())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}
