//! The HTTP edge: one function = one route = its request type, its answer type and its documentation.
//!
//! ```ignore
//! /// What is left of a user's month.                                 ← summary and description in the document
//! #[utoipa::path(get, path = "/usage/limit-check/user/{id}")]
//! pub(crate) async fn user(
//!     State(app): State<Arc<Clients>>,                                // what the function may reach
//!     Path(UserPath { id }): Path<UserPath>,                          // Deserialize + IntoParams; unreadable: 404
//!     Query(filter): Query<Filter>, Query(page): Query<PageQuery>,    // Deserialize + IntoParams; as many as one likes
//!     caller: Caller, Now(now): Now,                                  // who, and when
//!     Json(body): Json<Body>,                                         // Deserialize (deny_unknown_fields) + ToSchema
//! ) -> Result<Json<UserLimit>, Error> { … }                           // Serialize + ToSchema; or a refusals! enum
//!
//! pub fn routes() -> Routes<…> {
//!     Routes::new()
//!         .add(Access::Viewer, routes!(credits::list))
//!         .add_write(Access::Finance, KeyRule::Required, routes!(credits::void))
//! }
//! ```
//!
//! * [`router`]: [`Routes::add`](router::Routes::add) is the only way to a route, and takes its [`access::Access`]. It
//!   checks the token, then that every parameter of the query is one that the handler's `Query`s list, then calls the
//!   handler. `table()` has every route for tests, the local gateway and the template check; `document()` the OpenAPI
//!   document; `serve()` makes the [`Api`](router::Api) that answers.
//! * [`extract`]: the arguments above, [`extract::Found`] (302) and [`extract::Attachment`] (CSV). They are called
//!   `Json`, `Path` and `Query` because `utoipa` knows arguments by these names; an argument must be named or
//!   destructured, since `utoipa` skips `_`.
//! * [`values`]: members and parameters that are valid once read: [`values::PlainText`], [`values::Moment`],
//!   [`values::ObjectId`], [`values::InvoiceId`]. In `IntoParams` write `#[param(inline)]` above such a member.
//! * [`list`]: [`list::PageQuery`], [`list::SpanQuery`] and [`list::ListOf`].
//! * [`Error`] is what any route may answer; the table documents it. Further reasons of one route (404 without a
//!   parameter of the path, 409, …) are an enum by [`refusals!`](crate::refusals).
//! * A write takes a `shared::write::Writer` and hands an action to its `run`, which has transaction, idempotency key,
//!   audit, commit, stored answer and publishing.
//!
//! In an answer a member that may be null is always there. One that may be absent has
//! `#[serde(skip_serializing_if = "Option::is_none")]` and `#[schema(nullable = false)]`: so the document tells the two
//! apart, and the tests compare every answer with it.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::Date;
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use domain::period::{day_of, start_of_day};

pub mod access;
pub mod authentication;
pub mod extract;
pub mod list;
mod problem;
pub mod router;
mod text;
pub mod values;

#[doc(hidden)]
pub use utoipa_axum;

pub use problem::{CommonError, Error, PROBLEM_JSON, Problem, payment_required, refusals_of};

/// Largest body accepted but from Stripe.
pub const BODY_LIMIT_BYTES: usize = 1024 * 1024;
/// Longest query string read.
const QUERY_LIMIT_BYTES: usize = 8 * 1024;

/// The gateway's request id, else the runtime's, else the caller's own when it is a plain word, else a number.
pub fn request_id(request: &Request) -> String {
    static UNNAMED: AtomicU64 = AtomicU64::new(1);
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref()
        && let Some(id) = context.request_id.as_deref().filter(|id| is_word(id))
    {
        return id.to_owned();
    }
    if let Some(context) = request.lambda_context_ref()
        && is_word(&context.request_id)
    {
        return context.request_id.clone();
    }
    let own = request.headers().get("x-request-id");
    match own.and_then(|value| value.to_str().ok()) {
        Some(id) if is_word(id) => id.to_owned(),
        _ => format!("local-{}", UNNAMED.fetch_add(1, Ordering::Relaxed)),
    }
}

fn is_word(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_=.:".contains(&byte))
}

/// The path below the gateway's stage.
fn path(request: &Request) -> &str {
    let raw = match request.raw_http_path() {
        "" => request.uri().path(),
        raw => raw,
    };
    if let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref()
        && let Some(stage) = context.stage.as_deref()
        && let Some(below) = raw
            .strip_prefix('/')
            .and_then(|raw| raw.strip_prefix(stage))
        && below.starts_with('/')
    {
        return below;
    }
    raw
}

/// The parameters of a query, each known and given once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pairs {
    parameters: Vec<(String, String)>,
}

impl Pairs {
    /// Reads the query string; a parameter that is not among `known`, comes twice or is not encoded properly is a
    /// 400 that names it.
    fn of(text: &str, known: &[&str]) -> Result<Pairs, Error> {
        if text.len() > QUERY_LIMIT_BYTES {
            return Err(Error::BadRequest {
                code: "invalid_query",
                field: None,
                detail: format!("the query has more than {QUERY_LIMIT_BYTES} bytes"),
            });
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = percent_decode(&name.replace('+', " ")) else {
                return Err(Error::invalid_parameter(
                    name,
                    "it is not percent-encoded UTF-8",
                ));
            };
            if !known.contains(&name.as_str()) {
                return Err(Error::BadRequest {
                    code: "unknown_parameter",
                    detail: match known {
                        [] => "this path takes no parameters".to_owned(),
                        _ => format!("known parameters: {}", known.join(", ")),
                    },
                    field: Some(name),
                });
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Error::invalid_parameter(&name, "it is given twice"));
            }
            let Some(value) = percent_decode(&value.replace('+', " ")) else {
                return Err(Error::invalid_parameter(
                    &name,
                    "it is not percent-encoded UTF-8",
                ));
            };
            parameters.push((name, value));
        }
        Ok(Pairs { parameters })
    }

    /// Names and values, in order.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A position in a list from what [`cursor`] wrote.
fn parse_cursor<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        // No text of Postgres has U+0000: it comes from nowhere, and no statement takes it.
        .filter(|json| !json.windows(6).any(|letters| letters == b"\\u0000"))
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or_else(no_cursor_of_ours)
}

fn no_cursor_of_ours() -> Error {
    Error::invalid_parameter("cursor", "pass on the next_cursor of a list")
}

/// A position in a list as the opaque text of `next_cursor`.
pub fn cursor(position: &impl Serialize) -> Result<String, Error> {
    let json = serde_json::to_vec(position).map_err(|error| Error::Internal(Box::new(error)))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Whether a text may stand in a column and be looked for: 1 to 255 characters, no control characters.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= 255 && !text.chars().any(char::is_control)
}

/// The surrogate key that a segment of a path names, written as we write it; anything else names nothing.
pub fn parse_id(segment: &str) -> Option<i64> {
    let is_canonical =
        segment.bytes().all(|byte| byte.is_ascii_digit()) && !segment.starts_with('0');
    segment.parse().ok().filter(|_| is_canonical)
}

/// An RFC 3339 instant, or midnight UTC of a civil date; since the year 1, which every column can hold.
pub fn parse_moment(text: &str) -> Option<Timestamp> {
    let is_date = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    let moment = if is_date {
        start_of_day(text.parse::<Date>().ok()?)
    } else {
        text.parse::<Timestamp>().ok()?
    };
    (day_of(moment).year() >= 1).then_some(moment)
}

/// Strict: `%` is followed by two digits, and the bytes are UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_repeated_or_broken_parameter_is_named() {
        for (text, known, field) in [
            ("curency=USD", "currency", "curency"),
            ("a=1&a=1", "a", "a"),
            ("a=%zz", "a", "a"),
            ("a=%ff", "a", "a"),
            ("a=%2", "a", "a"),
        ] {
            let error = Pairs::of(text, &[known]).unwrap_err();
            assert_eq!(error.status(), 400, "{text}");
            assert_eq!(error.field(), Some(field), "{text}");
        }
        let read = Pairs::of("a=x%20y+z&&b", &["a", "b"]).unwrap();
        let pairs: Vec<_> = read.iter().collect();
        assert_eq!(pairs, [("a", "x y z"), ("b", "")]);
        let long = format!("a={}", "x".repeat(QUERY_LIMIT_BYTES));
        assert_eq!(
            Pairs::of(&long, &["a"]).unwrap_err().code(),
            "invalid_query"
        );
    }

    #[test]
    fn an_id_is_written_in_one_way() {
        assert_eq!(parse_id("12"), Some(12));
        for other in [
            "",
            "0",
            "012",
            "+12",
            "-1",
            "1.0",
            "x",
            "9223372036854775808",
        ] {
            assert_eq!(parse_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_moment_is_an_instant_or_a_day_since_the_year_one() {
        for text in [
            "yesterday",
            "2025-02-30",
            "2025-11-01T00:00:00",
            "0000-01-01",
            "-004800-01-01T00:00:00Z",
            "2025-1-1",
            "2025-11",
            "",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
        let midnight = parse_moment("2025-11-01");
        assert_eq!(midnight.unwrap().to_string(), "2025-11-01T00:00:00Z");
        assert_eq!(parse_moment("2025-11-01T02:00:00+02:00"), midnight);
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let text = cursor(&(7_i64, "in_1")).unwrap();
        let read: (i64, String) = parse_cursor(&text).unwrap();
        assert_eq!(read, (7, "in_1".to_owned()));
        for other in ["!!", "e30x", ""] {
            assert!(parse_cursor::<(i64, String)>(other).is_err(), "{other}");
        }
    }
}
