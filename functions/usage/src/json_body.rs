//! Bodies: JSON objects, and what becomes of one that is not.

use domain::usage::Rejection;
use runtime::api::Error;
use serde_json::Value;

/// The body as a JSON object; a 400 otherwise.
pub(crate) fn object(body: &[u8]) -> Result<Value, Error> {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(malformed("the body is a JSON object".to_owned())),
        // The parser's own words may quote the body.
        Err(error) => Err(malformed(format!(
            "the body is not JSON from line {}, column {} on",
            error.line(),
            error.column()
        ))),
    }
}

/// A body that was read and says something that cannot be: 422.
pub(crate) fn unprocessable(rejection: Rejection) -> Error {
    Error::Unprocessable {
        field: rejection.field,
        detail: rejection.message,
    }
}

fn malformed(detail: String) -> Error {
    Error::BadRequest {
        code: "invalid_json",
        field: None,
        detail,
    }
}
