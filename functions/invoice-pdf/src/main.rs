//! Starts `invoice-pdf` as a Lambda behind the HTTP API.

use invoice_pdf::{App, handle};
use runtime::lambda::{Error, serve_http, start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = &start("invoice-pdf", App::from_env)?;
    app.warm().await;
    serve_http(|request, now| handle(app, request, now)).await
}
