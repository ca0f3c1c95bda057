//! Files in the answer itself.

use lambda_http::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use lambda_http::{Body, Response};
use runtime::api::Error;

/// The type of every CSV.
pub(crate) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// A CSV file that the browser saves under `name`, which is made of letters, digits, dots and hyphens.
pub(crate) fn csv(name: &str, bytes: Vec<u8>) -> Result<Response<Body>, Error> {
    let text = String::from_utf8(bytes).map_err(|error| Error::Internal(Box::new(error)))?;
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
        .map_err(|error| Error::Internal(Box::new(error)))?;
    let mut response = Response::new(Body::Text(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CSV));
    headers.insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}
