//! migrate: invoked by the deploy, or with `{}`.

use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use migrate::{App, handle_within, limit};
use runtime::config::Environment;
use runtime::{aws, telemetry};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment, "migrate");
    let app = App::from_env(&environment, &aws::sdk_config(&environment))
        .inspect_err(|error| telemetry::log_failure("the configuration is not complete", error))?;
    run(service_fn(async |event: LambdaEvent<Value>| {
        let now = now();
        let ends = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
        let limit = Timestamp::from_millisecond(ends).map_or(None, |ends| limit(ends, now));
        let answer = handle_within(&app, event.payload, now, limit).await;
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
