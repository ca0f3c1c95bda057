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
//! ) -> Result<Json<UserLimit>, Error> { … }                           // Serialize + ToSchema; refusals! for its own
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
//!   [`values::ObjectId`], [`values::InvoiceId`]. In `IntoParams` write `#[param(inline)]` above a type of one's own.
//! * [`list`]: [`list::PageQuery`], [`list::SpanQuery`] and [`list::ListOf`].
//! * [`Error`] is what any route may answer; the table documents it. A route's own reasons (404 without a parameter of the
//!   path, 409, …) are an enum by [`refusals!`](crate::refusals).
//! * [`write`](mod@write): a handler takes a [`write::Writer`] and hands an action to [`write::Writer::run`], which has
//!   transaction, idempotency key, audit, commit, stored answer and publishing.
//!
//! In an answer a member that may be null is always there. One that may be absent has
//! `#[serde(skip_serializing_if = "Option::is_none")]` and `#[schema(nullable = false)]`: so the document tells the two
//! apart, and the tests compare every answer with it.

use std::future::Future;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use jiff::Timestamp;
use jiff::civil::Date;
use lambda_http::request::RequestContext;
use lambda_http::{Body, Request, RequestExt, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use domain::money::Currency;
use domain::period::{day_of, start_of_day};

pub mod access;
pub mod authentication;
pub mod extract;
pub mod list;
pub mod members;
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

/// Runs an action inside a span with the request's id; turns its error into a response and, when it is ours, into one
/// log line with all its causes. Every response carries `x-request-id`.
pub async fn respond(
    request: &Request,
    action: impl Future<Output = Result<Response<Body>, Error>>,
) -> Response<Body> {
    let request_id = request_id(request);
    let span = tracing::info_span!("request", request_id, path = request.uri().path());
    async {
        let mut response = match action.await {
            Ok(response) => response,
            Err(error) => {
                if error.status().is_server_error() {
                    crate::telemetry::log_failure("a request failed", &error);
                }
                error.to_problem(&request_id)
            }
        };
        metrics::counter!("requests", "status" => response.status().as_str().to_owned())
            .increment(1);
        problem::insert(response.headers_mut(), "x-request-id", &request_id);
        response
            .headers_mut()
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        response
    }
    .instrument(span)
    .await
}

/// A JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Response<Body>, Error> {
    let text = serde_json::to_string(body).map_err(|error| Error::Internal(Box::new(error)))?;
    let mut response = Response::new(Body::Text(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The file is there; `status` says how to ask for it.
pub fn redirect(status: StatusCode, link: &str) -> Result<Response<Body>, Error> {
    let link = HeaderValue::from_str(link).map_err(|error| Error::Internal(Box::new(error)))?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, link);
    Ok(response)
}

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

/// The row of a route table a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// As in the table, `/admin/invoices/{id}`.
    pub pattern: &'static str,
    parameters: Vec<(&'static str, String)>,
}

impl Route {
    /// The segment that stands for `{name}`, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(parameter, _)| *parameter == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Finds a request's route in `(method, pattern)` rows. A known path with another method is a 405 with `Allow`; a
/// trailing slash or `//` makes another path, which is a 404.
pub fn route(routes: &[(&'static str, &'static str)], request: &Request) -> Result<Route, Error> {
    let path = path(request);
    let mut allow: Vec<&str> = Vec::new();
    for (method, pattern) in routes {
        let Some(parameters) = match_path(pattern, path) else {
            continue;
        };
        if request.method().as_str() == *method {
            return Ok(Route {
                pattern,
                parameters,
            });
        }
        if !allow.contains(method) {
            allow.push(method);
        }
    }
    if allow.is_empty() {
        Err(Error::NotFound)
    } else {
        Err(Error::MethodNotAllowed {
            allow: allow.join(", "),
        })
    }
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

fn match_path(pattern: &'static str, path: &str) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) if !segment.is_empty() => {
                parameters.push((name, percent_decode(segment)?));
            }
            Some(_) => return None,
            None if segment == expected => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

/// The bytes of the body, or a 413.
pub fn body(request: &Request, limit_bytes: usize) -> Result<&[u8], Error> {
    let bytes = request.body().as_ref();
    if bytes.len() > limit_bytes {
        Err(Error::PayloadTooLarge { limit_bytes })
    } else {
        Ok(bytes)
    }
}

/// Query parameters, each known and given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads the query string; a parameter that is not among `known`, comes twice or is not encoded properly is a
    /// 400 that names it.
    pub fn parse(request: &Request, known: &[&str]) -> Result<Query, Error> {
        Query::of(request.uri().query().unwrap_or_default(), known)
    }

    /// The same of the query's text.
    fn of(text: &str, known: &[&str]) -> Result<Query, Error> {
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
        Ok(Query { parameters })
    }

    /// Names and values, in order.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value as text; given but empty is a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(parameter, _)| parameter == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value as a currency.
    pub fn currency(&self, name: &str) -> Result<Option<Currency>, Error> {
        self.get(name)
            .map(|text| {
                Currency::parse(text)
                    .map_err(|error| Error::invalid_parameter(name, error.to_string()))
            })
            .transpose()
    }

    /// The value as an RFC 3339 instant.
    pub fn instant(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_not_an_instant: jiff::Error| {
                    Error::invalid_parameter(name, "an instant is written 2025-11-01T00:00:00Z")
                })
            })
            .transpose()
    }

    /// The value as a whole number that is not negative, written in digits.
    pub fn integer<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        self.get(name)
            .map(|text| {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = digits.then(|| text.parse().ok()).flatten();
                number.ok_or_else(|| Error::invalid_parameter(name, "a whole number within range"))
            })
            .transpose()
    }

    /// The value as one of these words.
    pub fn one_of<'a>(&'a self, name: &str, words: &[&str]) -> Result<Option<&'a str>, Error> {
        match self.get(name) {
            Some(text) if !words.contains(&text) => Err(Error::invalid_parameter(
                name,
                format!("one of {}", words.join(", ")),
            )),
            value => Ok(value),
        }
    }

    /// The value as a text that may stand in a column: not empty, not long, no control characters.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.get(name) {
            Some(text) if !is_plain(text) => Err(Error::invalid_parameter(
                name,
                "a text of 1 to 255 characters, none of them a control character",
            )),
            value => Ok(value),
        }
    }

    /// The value as an RFC 3339 instant, or as a civil date, which means its first instant in UTC.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, Error> {
        self.get(name)
            .map(|text| {
                parse_moment(text).ok_or_else(|| {
                    Error::invalid_parameter(
                        name,
                        "written 2025-11-01, which is midnight UTC, or 2025-11-01T00:00:00Z",
                    )
                })
            })
            .transpose()
    }

    /// The parameters `from` (inclusive) and `to` (exclusive), in this order.
    pub fn from_to(&self) -> Result<(Option<Timestamp>, Option<Timestamp>), Error> {
        let (from, to) = (self.moment("from")?, self.moment("to")?);
        match (from, to) {
            (Some(start), Some(end)) if start > end => {
                Err(Error::invalid_parameter("from", "not after to"))
            }
            _ => Ok((from, to)),
        }
    }

    /// The page size: 1 to 500, 100 when not given.
    pub fn limit(&self) -> Result<u16, Error> {
        match self.get("limit") {
            None => Ok(100),
            Some(text) => match text.parse() {
                Ok(limit @ 1..=500) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(limit),
                _ => Err(Error::invalid_parameter("limit", "a number from 1 to 500")),
            },
        }
    }

    /// Where the previous page ended, as [`cursor`] wrote it.
    pub fn cursor<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.get("cursor").map(parse_cursor).transpose()
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

/// The invoice that a segment of a path names: our number of it, or Stripe's id.
///
/// # Errors
/// [`Error::NotFound`] when it can be neither.
pub fn parse_invoice_id(segment: &str) -> Result<(Option<i64>, Option<&str>), Error> {
    let number = parse_id(segment);
    let stripe_id = Some(segment).filter(|id| id.starts_with("in_") && is_plain(id));
    match (number, stripe_id) {
        (None, None) => Err(Error::NotFound),
        found => Ok(found),
    }
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

    const ROUTES: &[(&str, &str)] = &[
        ("GET", "/admin/revenue"),
        ("GET", "/admin/invoices/{id}"),
        ("POST", "/admin/invoices/{id}/void"),
        ("GET", "/admin/contracts"),
        ("POST", "/admin/contracts"),
    ];

    fn request(method: &str, uri: &str) -> Request {
        http::Request::builder()
            .method(method)
            .uri(uri)
            .body(Body::Empty)
            .unwrap()
    }

    fn query(text: &str, known: &[&str]) -> Result<Query, Error> {
        Query::parse(&request("GET", &format!("/x?{text}")), known)
    }

    fn field_of(error: Error) -> String {
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        error.field().unwrap().to_owned()
    }

    #[test]
    fn a_route_is_its_method_and_its_exact_path() {
        let found = route(ROUTES, &request("GET", "/admin/invoices/in%5F1?x=1")).unwrap();
        assert_eq!(found.pattern, "/admin/invoices/{id}");
        assert_eq!(found.parameter("id"), Some("in_1"));
        for path in [
            "/",
            "/admin/revenue/",
            "/admin//revenue",
            "//admin/revenue",
            "/Admin/revenue",
            "/admin/invoices/",
            "/admin/invoices/1/2",
            "/admin/invoices/%zz",
            "/admin/revenue%2F",
        ] {
            let error = route(ROUTES, &request("GET", path)).unwrap_err();
            assert!(matches!(error, Error::NotFound), "{path}");
        }
    }

    #[test]
    fn another_method_is_told_which_ones_there_are() {
        for (method, path, expected) in [
            ("HEAD", "/admin/revenue", "GET"),
            ("DELETE", "/admin/contracts", "GET, POST"),
            ("GET", "/admin/invoices/1/void", "POST"),
        ] {
            match route(ROUTES, &request(method, path)) {
                Err(Error::MethodNotAllowed { allow }) => assert_eq!(allow, expected),
                other => panic!("{method} {path}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stage_of_the_gateway_is_not_part_of_the_path() {
        let envelope = r#"{"version":"2.0","routeKey":"$default","rawPath":"/prod/admin/revenue",
            "rawQueryString":"","headers":{},"requestContext":{"stage":"prod","requestId":"abc=",
            "http":{"method":"GET","path":"/prod/admin/revenue"}},"isBase64Encoded":false}"#;
        let request = lambda_http::request::from_str(envelope).unwrap();
        assert_eq!(route(ROUTES, &request).unwrap().pattern, "/admin/revenue");
        assert_eq!(request_id(&request), "abc=");
    }

    #[test]
    fn an_unknown_repeated_or_broken_parameter_is_named() {
        assert_eq!(
            field_of(query("curency=USD", &["currency"]).unwrap_err()),
            "curency"
        );
        assert_eq!(field_of(query("a=1&a=1", &["a"]).unwrap_err()), "a");
        assert_eq!(field_of(query("a=%zz", &["a"]).unwrap_err()), "a");
        assert_eq!(field_of(query("a=%ff", &["a"]).unwrap_err()), "a");
        assert_eq!(field_of(query("a=%2", &["a"]).unwrap_err()), "a");
        let read = query("a=x%20y+z&&b", &["a", "b"]).unwrap();
        assert_eq!((read.get("a"), read.get("b")), (Some("x y z"), Some("")));
    }

    #[test]
    fn values_are_read_strictly() {
        let known = ["currency", "as_of", "limit", "cursor"];
        for (text, field) in [
            ("currency=dollar", "currency"),
            ("currency=", "currency"),
            ("as_of=yesterday", "as_of"),
            ("as_of=2025-11-01", "as_of"),
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=+1", "limit"),
            ("cursor=!!", "cursor"),
            ("cursor=e30x", "cursor"),
        ] {
            let read = query(text, &known).unwrap();
            let error = match field {
                "currency" => read.currency(field).map(drop),
                "as_of" => read.instant(field).map(drop),
                "limit" => read.limit().map(drop),
                _ => read.cursor::<(i64, String)>().map(drop),
            };
            assert_eq!(field_of(error.unwrap_err()), field, "{text}");
        }
        let read = query(
            "currency=eur&as_of=2025-11-01T02:00:00%2B02:00&limit=500",
            &known,
        );
        let read = read.unwrap();
        assert_eq!(read.currency("currency").unwrap().unwrap().as_str(), "EUR");
        let instant = read.instant("as_of").unwrap().unwrap();
        assert_eq!(instant.to_string(), "2025-11-01T00:00:00Z");
        assert_eq!(read.limit().unwrap(), 500);
    }

    #[test]
    fn filters_are_read_strictly() {
        let known = ["user_id", "status", "customer", "from", "to"];
        for (text, field) in [
            ("user_id=", "user_id"),
            ("user_id=x", "user_id"),
            ("user_id=-1", "user_id"),
            ("user_id=+1", "user_id"),
            ("user_id=1.0", "user_id"),
            ("user_id=2147483648", "user_id"),
            ("status=Open", "status"),
            ("status=", "status"),
            ("customer=", "customer"),
            ("customer=a%00b", "customer"),
            ("customer=a%0Ab", "customer"),
            ("from=yesterday", "from"),
            ("from=2025-02-30", "from"),
            ("from=2025-11-01T00:00:00", "from"),
            ("from=0000-01-01", "from"),
            ("from=-004800-01-01T00:00:00Z", "from"),
            ("to=2025-1-1", "to"),
            ("to=2025-11", "to"),
            ("to=", "to"),
            ("from=2025-11-02&to=2025-11-01", "from"),
        ] {
            let read = query(text, &known).unwrap();
            let error = match field {
                "user_id" => read.integer::<i32>(field).map(drop),
                "status" => read.one_of(field, &["open", "paid"]).map(drop),
                "customer" => read.text(field).map(drop),
                _ => read.from_to().map(drop),
            };
            assert_eq!(field_of(error.unwrap_err()), field, "{text}");
        }
        let long = format!("customer={}", "x".repeat(256));
        let read = query(&long, &known).unwrap();
        assert_eq!(field_of(read.text("customer").unwrap_err()), "customer");
        let read = query(
            "user_id=007&status=open&customer=cus_%C3%A4&from=2025-11-01&to=2025-11-01T02:00:00%2B02:00",
            &known,
        )
        .unwrap();
        assert_eq!(read.integer("user_id").unwrap(), Some(7_i32));
        assert_eq!(read.one_of("status", &["open"]).unwrap(), Some("open"));
        assert_eq!(read.text("customer").unwrap(), Some("cus_ä"));
        let (from, to) = read.from_to().unwrap();
        assert_eq!(from.unwrap().to_string(), "2025-11-01T00:00:00Z");
        assert_eq!(from, to);
        assert_eq!(query("", &known).unwrap().from_to().unwrap(), (None, None));
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
    fn a_cursor_comes_back_as_it_went() {
        let text = cursor(&(7_i64, "in_1")).unwrap();
        let read = query(&format!("cursor={text}"), &["cursor"]).unwrap();
        assert_eq!(
            read.cursor::<(i64, String)>().unwrap(),
            Some((7, "in_1".to_owned()))
        );
    }

    #[tokio::test]
    async fn a_problem_says_what_the_caller_can_mend_and_nothing_of_ours() {
        let asked = request("GET", "/admin/revenue");
        let error = Error::invalid_parameter("as_of", "an instant");
        let response = respond(&asked, async { Err(error) }).await;
        assert_eq!(response.status(), 400);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(problem["code"], "invalid_parameter");
        assert_eq!(problem["title"], "Bad Request");
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["field"], "as_of");
        assert_eq!(
            problem["request_id"].as_str().unwrap(),
            response.headers()["x-request-id"].to_str().unwrap()
        );
        let cause = std::io::Error::other("password of db-1 refused");
        let response = respond(&asked, async { Err(Error::Internal(Box::new(cause))) }).await;
        assert_eq!(response.status(), 500);
        let body = std::str::from_utf8(response.body()).unwrap();
        assert!(!body.contains("db-1") && !body.contains("detail"), "{body}");
    }

    #[test]
    fn a_body_beyond_the_limit_is_too_large() {
        let mut asked = request("POST", "/x");
        *asked.body_mut() = Body::Binary(vec![0; 11]);
        assert_eq!(body(&asked, 11).unwrap().len(), 11);
        let error = body(&asked, 10).unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
