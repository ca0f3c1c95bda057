//! One bounded `PUT` to an address that carries its own permission: how the deploy is told what became of a request.

use std::time::Duration;

use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lambda_http::http::{Request, StatusCode};

use crate::config::BoxError;

/// Longest time one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Puts `body` under `url` (`http` or `https`) and answers the status. Follows no redirect; sends no content type, which
/// a pre-signed address would have to have signed.
///
/// # Errors
/// When the address is none, or nobody answers in time.
pub async fn http_put(url: &str, body: String) -> Result<StatusCode, BoxError> {
    tokio::time::timeout(TIMEOUT, put(url, body)).await?
}

async fn put(url: &str, body: String) -> Result<StatusCode, BoxError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(crate::tls::client_config(None)?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::put(url)
        .header("user-agent", "deedpro-billing")
        .body(Full::new(std::io::Cursor::new(body)))?;
    Ok(client.request(request).await?.status())
}
