//! The webhook Lambda: HTTP deliveries from API Gateway, and Stripe's EventBridge partner events.

use runtime::lambda::{Error, serve, start};
use webhook::{App, handle_invocation};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("webhook", App::from_env)?;
    // Boxed: the compiler gives up on the nesting of the types otherwise.
    let serve = serve(|invocation, now| Box::pin(handle_invocation(app, invocation, now)));
    // A database that is away must not delay the first poll; the first event waits for the
    // connection that is being opened instead of opening another.
    let (served, ()) = tokio::join!(serve, app.warm());
    served
}
