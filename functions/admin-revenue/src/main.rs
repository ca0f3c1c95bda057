//! Starts `admin-revenue` as a Lambda behind the HTTP API.

use admin_revenue::{App, handle};
use runtime::lambda::{Error, serve_http, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("admin-revenue", App::from_env)?;
    app.warm().await;
    serve_http(|request, now| handle(app, request, now)).await
}
