//! Starts `admin-revenue` as a Lambda behind the HTTP API.

use std::convert::Infallible;

use admin_revenue::{App, handle};
use jiff::Timestamp;
use lambda_http::{Error, Request, run, service_fn};
use runtime::config::Environment;
use runtime::{aws, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let environment = Environment::from_process();
    telemetry::init(&environment, "admin-revenue");
    let app = App::from_env(&environment, &aws::sdk_config(&environment))
        .inspect_err(|error| telemetry::log_failure("the configuration is not complete", error))?;
    app.warm().await;
    run(service_fn(async |request: Request| {
        let response = handle(&app, request, now()).await;
        telemetry::flush_metrics();
        Ok::<_, Infallible>(response)
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
