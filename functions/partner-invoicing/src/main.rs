//! partner-invoicing: invoked by its schedule.

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use partner_invoicing::{App, Deadline, handle_until};
use runtime::config::Environment;
use runtime::{aws, telemetry};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment, "partner-invoicing");
    let app = App::from_env(&environment, &aws::sdk_config(&environment))
        .inspect_err(|error| telemetry::log_failure("the configuration is not complete", error))?;
    run(service_fn(async |event: LambdaEvent<Value>| {
        let now = now();
        let deadline = Deadline::of_invocation(event.context.deadline, now);
        let answer = handle_until(&app, event.payload, now, deadline).await;
        telemetry::flush_metrics();
        answer.map_err(Error::from)
    }))
    .await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
