//! The webhook Lambda: HTTP deliveries from API Gateway, and Stripe's EventBridge partner events.

use jiff::Timestamp;
use lambda_http::lambda_runtime::{self, LambdaEvent};
use lambda_http::{Error, service_fn};
use runtime::config::Environment;
use runtime::{aws, telemetry};
use serde_json::value::RawValue;
use webhook::App;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment, "webhook");
    let app = App::from_env(&environment, &aws::sdk_config(&environment))
        .inspect_err(|error| telemetry::log_failure("the configuration is not complete", error))?;
    let app = &app;
    let serve = lambda_runtime::run(service_fn(
        move |invocation: LambdaEvent<Box<RawValue>>| async move {
            // Boxed: the compiler gives up on the nesting of the types otherwise.
            let answer = Box::pin(webhook::handle_invocation(app, invocation, now())).await;
            telemetry::flush_metrics();
            answer
        },
    ));
    // A database that is away must not delay the first poll; the first event waits for the
    // connection that is being opened instead of opening another.
    let (served, ()) = tokio::join!(serve, app.warm());
    served
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
