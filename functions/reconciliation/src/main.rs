//! reconciliation: invoked by its schedules.

use reconciliation::{App, Deadline, handle_until};
use runtime::lambda::{Error, serve, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("reconciliation", App::from_env)?;
    serve(|invocation, now| {
        let deadline = Deadline::of_invocation(invocation.context.deadline, now);
        handle_until(app, invocation.payload, now, deadline)
    })
    .await
}
