//! A bounded `GET` or `PUT` without credentials: for the key set of the admin's identity provider, to check whether
//! Stripe is reachable, and to report the result of a deployment to CloudFormation.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lambda_http::http::{Request, StatusCode};

use crate::config::BoxError;

/// The longest time to wait for the whole answer to a `GET`.
const GET_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a `PUT`.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read. A key set has a few kilobytes.
const BODY_BYTES: usize = 256 * 1024;

/// The status and the body of `url` (`http` or `https`). Follows no redirect and sends no credentials.
///
/// # Errors
/// When the address is invalid, the answer is too large, or nobody answers in time.
pub async fn http_get(url: &str) -> Result<(StatusCode, Vec<u8>), BoxError> {
    tokio::time::timeout(GET_TIMEOUT, get(url)).await?
}

/// Puts `body` to `url` (`http` or `https`), which carries its permission, and returns the status. Follows no redirect,
/// and sends no content type, which a pre-signed address would have to include.
///
/// # Errors
/// When the address is invalid, or nobody answers in time.
pub async fn http_put(url: &str, body: String) -> Result<StatusCode, BoxError> {
    tokio::time::timeout(PUT_TIMEOUT, put(url, body)).await?
}

async fn get(url: &str) -> Result<(StatusCode, Vec<u8>), BoxError> {
    let request = Request::get(url)
        .header("user-agent", "deedpro-billing")
        .header("accept", "application/json")
        .body(Empty::<&[u8]>::new())?;
    let client = Client::builder(TokioExecutor::new()).build(connector()?);
    let answer = client.request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES)
        .collect()
        .await?;
    Ok((status, body.to_bytes().to_vec()))
}

async fn put(url: &str, body: String) -> Result<StatusCode, BoxError> {
    let request = Request::put(url)
        .header("user-agent", "deedpro-billing")
        .body(Full::new(std::io::Cursor::new(body)))?;
    let client = Client::builder(TokioExecutor::new()).build(connector()?);
    Ok(client.request(request).await?.status())
}

fn connector() -> Result<hyper_rustls::HttpsConnector<HttpConnector>, BoxError> {
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(crate::tls::client_config(None)?)
        .https_or_http()
        .enable_http1()
        .build())
}
