//! Starts `usage` as a Lambda behind the HTTP API.

use runtime::lambda::{Error, serve_http, start};
use usage::{App, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("usage", App::from_env)?;
    app.warm().await;
    serve_http(|request, now| handle(app, request, now)).await
}
