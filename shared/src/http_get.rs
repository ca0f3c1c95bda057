//! One bounded `GET`: for the key set of the admin's identity provider and to see whether Stripe can be reached.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use lambda_http::http::{Request, StatusCode};

use crate::config::BoxError;

/// Longest time to wait for the whole answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer read; a key set has a few kilobytes.
const BODY_BYTES: usize = 256 * 1024;

/// The status and the body of `url` (`http` or `https`). Follows no redirect, sends no credentials.
pub async fn http_get(url: &str) -> Result<(StatusCode, Vec<u8>), BoxError> {
    tokio::time::timeout(TIMEOUT, get(url)).await?
}

async fn get(url: &str) -> Result<(StatusCode, Vec<u8>), BoxError> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(crate::tls::client_config(None)?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(url)
        .header("user-agent", "deedpro-billing")
        .header("accept", "application/json")
        .body(Empty::<&[u8]>::new())?;
    let answer = client.request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES)
        .collect()
        .await?;
    Ok((status, body.to_bytes().to_vec()))
}
