//! What every `main` does: it reads the configuration, starts telemetry and serves one invocation after the other.

use std::convert::Infallible;
use std::future::Future;

use aws_types::SdkConfig;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response, lambda_runtime, service_fn};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{self, Environment};
use crate::{aws, telemetry};

pub use lambda_http::{Error, LambdaEvent};

/// Starts telemetry under the name of the function, and builds its clients from the environment of the process.
///
/// # Errors
/// When the configuration is not complete. The error is logged here.
pub fn start<App>(
    function: &'static str,
    from_env: impl FnOnce(&Environment, &SdkConfig) -> Result<App, config::Error>,
) -> Result<App, config::Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment, function);
    from_env(&environment, &aws::sdk_config(&environment))
        .inspect_err(|error| telemetry::log_failure("the configuration is not complete", error))
}

/// Answers the HTTP API's requests until Lambda stops the sandbox.
///
/// # Errors
/// When the Runtime API cannot be reached.
pub async fn serve_http<Answer>(answer: impl Fn(Request, Timestamp) -> Answer) -> Result<(), Error>
where
    Answer: Future<Output = Response<Body>> + Send,
{
    lambda_http::run(service_fn(|request: Request| {
        let answer = answer(request, now());
        async {
            let response = answer.await;
            telemetry::flush_metrics();
            Ok::<_, Infallible>(response)
        }
    }))
    .await
}

/// Answers the events of schedules, buses and deploys until Lambda stops the sandbox.
///
/// # Errors
/// When the Runtime API cannot be reached.
pub async fn serve<Event, Answer, Failure>(
    answer: impl Fn(LambdaEvent<Event>, Timestamp) -> Answer,
) -> Result<(), Error>
where
    Event: for<'de> Deserialize<'de>,
    Answer: Future<Output = Result<Value, Failure>>,
    Failure: Into<Error>,
{
    lambda_runtime::run(service_fn(|event: LambdaEvent<Event>| {
        let answer = answer(event, now());
        async {
            let answer = answer.await;
            telemetry::flush_metrics();
            answer.map_err(Failure::into)
        }
    }))
    .await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a function reads the clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
