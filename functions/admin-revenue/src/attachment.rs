//! Files in the answer itself.

use documents::csv_export;
use lambda_http::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use lambda_http::{Body, Response};
use runtime::api::Error;

/// A CSV file that the browser saves under `name`, which is made of letters, digits, dots and hyphens.
pub(crate) fn csv(name: &str, text: String) -> Result<Response<Body>, Error> {
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
        .map_err(|error| Error::Internal(Box::new(error)))?;
    let mut response = Response::new(Body::Text(text));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(csv_export::CONTENT_TYPE),
    );
    headers.insert(CONTENT_DISPOSITION, disposition);
    Ok(response)
}
