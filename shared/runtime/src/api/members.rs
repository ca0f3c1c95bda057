//! The members of a JSON body, each known and of its type.
//!
//! What is no JSON object is a 400; an object with a member that is unknown, missing or not valid is a 422 that names
//! the member. `null` is as good as nothing.

use jiff::Timestamp;
use lambda_http::Request;
use serde_json::{Map, Value};

use super::{BODY_LIMIT_BYTES, Error, body, is_plain, parse_moment};
use domain::money::Currency;

/// The members of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    object: Map<String, Value>,
}

impl Members {
    /// Reads the body; none at all is an object without members.
    pub fn parse(request: &Request, known: &[&str]) -> Result<Members, Error> {
        let object = object(request)?;
        match object.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(invalid(
                unknown,
                match known {
                    [] => "no member is known here".to_owned(),
                    _ => format!("known members: {}", known.join(", ")),
                },
            )),
            None => Ok(Members { object }),
        }
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        self.read(name, "a whole number", Value::as_i64)
    }

    /// A text that may stand in a column.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        self.read(
            name,
            "a text of 1 to 255 characters, none of them a control character",
            |value| value.as_str().filter(|text| is_plain(text)),
        )
    }

    /// One of these words.
    pub fn one_of(
        &self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, Error> {
        let expected = format!("one of {}", words.join(", "));
        self.read(name, &expected, |value| {
            words.iter().find(|word| *value == **word).copied()
        })
    }

    /// A currency.
    pub fn currency(&self, name: &str) -> Result<Option<Currency>, Error> {
        self.read(name, "a currency, as in USD", |value| {
            value.as_str().and_then(|code| Currency::parse(code).ok())
        })
    }

    /// An RFC 3339 instant, or a civil date, which means its first instant in UTC.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        let expected = "written 2025-11-01, which is midnight UTC, or 2025-11-01T00:00:00Z";
        self.read(name, expected, |value| {
            value.as_str().and_then(parse_moment)
        })
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| invalid(name, expected)),
        }
    }
}

/// The body as a JSON object; none at all is an empty one.
pub fn object(request: &Request) -> Result<Map<String, Value>, Error> {
    let bytes = body(request, BODY_LIMIT_BYTES)?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(Error::BadRequest {
            code: "invalid_body",
            field: None,
            detail: "the body is not a JSON object".to_owned(),
        }),
    }
}

/// A member that must be there.
pub fn required<T>(name: &str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| invalid(name, "it is missing"))
}

/// A member that is not valid.
pub fn invalid(name: &str, expected: impl Into<String>) -> Error {
    Error::Unprocessable {
        field: name.to_owned(),
        detail: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["amount_cents", "method", "reference", "paid_at", "currency"];

    fn members(body: &str) -> Result<Members, Error> {
        let mut request = Request::new(lambda_http::Body::Empty);
        *request.body_mut() = lambda_http::Body::from(body.to_owned());
        Members::parse(&request, &KNOWN)
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for body in ["[]", "1", "{", "\"x\"", "null", "{} {}"] {
            let error = members(body).unwrap_err();
            assert_eq!(error.status().as_u16(), 400, "{body}");
        }
        assert!(members("").unwrap().object.is_empty());
    }

    #[test]
    fn a_member_that_is_not_valid_is_named() {
        for (body, field) in [
            (r#"{"amount": 1}"#, "amount"),
            (r#"{"amount_cents": 1.5}"#, "amount_cents"),
            (r#"{"amount_cents": "1"}"#, "amount_cents"),
            (r#"{"amount_cents": 9223372036854775808}"#, "amount_cents"),
            (r#"{"method": "cash"}"#, "method"),
            (r#"{"method": 1}"#, "method"),
            (r#"{"reference": ""}"#, "reference"),
            (r#"{"reference": "a\u0000"}"#, "reference"),
            (r#"{"paid_at": "yesterday"}"#, "paid_at"),
            (r#"{"paid_at": 5}"#, "paid_at"),
            (r#"{"currency": "dollar"}"#, "currency"),
        ] {
            let read = members(body).and_then(|members| {
                members.integer("amount_cents")?;
                members.one_of("method", &["wire", "check"])?;
                members.text("reference")?;
                members.moment("paid_at")?;
                members.currency("currency")
            });
            let error = read.unwrap_err();
            assert_eq!(error.status().as_u16(), 422, "{body}");
            assert_eq!(error.field(), Some(field), "{body}");
        }
        let read = members(r#"{"amount_cents": -5, "method": "wire", "paid_at": null}"#).unwrap();
        assert_eq!(read.integer("amount_cents").unwrap(), Some(-5));
        assert_eq!(read.one_of("method", &["wire"]).unwrap(), Some("wire"));
        assert_eq!(read.moment("paid_at").unwrap(), None);
        let missing = required("paid_at", read.moment("paid_at").unwrap()).unwrap_err();
        assert_eq!(missing.field(), Some("paid_at"));
    }
}
