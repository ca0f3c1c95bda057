//! partner-invoicing: invoked by its schedule.

use partner_invoicing::{App, Deadline, handle_until};
use runtime::lambda::{Error, serve, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("partner-invoicing", App::from_env)?;
    serve(|invocation, now| {
        let deadline = Deadline::of_invocation(invocation.context.deadline, now);
        handle_until(app, invocation.payload, now, deadline)
    })
    .await
}
