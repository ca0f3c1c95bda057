//! migrate: invoked by the deploy, or with `{}`.

use jiff::Timestamp;
use migrate::{App, handle_within, limit};
use runtime::lambda::{Error, serve, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("migrate", App::from_env)?;
    serve(|invocation, now| {
        let ends = i64::try_from(invocation.context.deadline).unwrap_or(i64::MAX);
        let limit = Timestamp::from_millisecond(ends).map_or(None, |ends| limit(ends, now));
        handle_within(app, invocation.payload, now, limit)
    })
    .await
}
