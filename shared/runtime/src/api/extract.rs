//! What a handler takes from a request, typed: [`Json`], [`Path`], [`Query`], [`Now`]; and what it answers: [`Json`].
//!
//! The first three have these names because `utoipa` knows arguments by them.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use jiff::Timestamp;
use lambda_http::http;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

use super::router::{Bodies, Parameters, RawBody, extension, register};
use super::text;
use super::{Error, Pairs};

/// When the request is answered: the one clock of a request, read in `main`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now(pub Timestamp);

impl<S: Send + Sync> FromRequestParts<S> for Now {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Now, Error> {
        extension(parts)
    }
}

/// The request's id, by which the logs name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<RequestId, Error> {
        extension(parts)
    }
}

/// The parameters of the path, percent-decoded. What cannot be read names nothing: 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, Error> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters = parameters.map_err(|_not_utf8| Error::NotFound)?;
        match T::deserialize(text::named(parameters.iter())) {
            Ok(read) => Ok(Path(read)),
            Err(_names_nothing) => Err(Error::NotFound),
        }
    }
}

/// Parameters of the query, each of which the route's document lists; a handler may take several `Query`s, and each
/// reads its own. A value that cannot be read is a 400 that names the parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Query<T>, Error> {
        let Parameters(pairs) = extension(parts)?;
        query(&pairs).map(Query)
    }
}

fn query<T: DeserializeOwned>(pairs: &Pairs) -> Result<T, Error> {
    serde_path_to_error::deserialize(text::named(pairs.iter())).map_err(|error| {
        let (field, detail) = named(&error.path().to_string(), &error.inner().to_string());
        Error::invalid_parameter(&field, detail)
    })
}

/// A JSON object in the body, and the answer of a handler. In a request: what is no JSON object is a 400, a member that
/// is unknown, missing or not valid a 422 that names it. Derive `Deserialize` with `deny_unknown_fields`; a check that
/// a type cannot make is a constructor's, whose error becomes [`Error::invalid_member`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Json<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Json<T>, Error> {
        let RawBody(bytes) = extension(parts)?;
        let bodies: Bodies = extension(parts)?;
        object(&bytes, bodies).map(Json)
    }
}

/// A body whose JSON the handler reads by itself, with [`object`] and [`object_of`], because one part that is not valid
/// does not refuse the others.
#[derive(Debug, Clone)]
pub struct JsonBytes(pub axum::body::Bytes);

impl<S: Send + Sync> FromRequestParts<S> for JsonBytes {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<JsonBytes, Error> {
        let RawBody(bytes) = extension(parts)?;
        Ok(JsonBytes(bytes))
    }
}

/// A body that may have no members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoMembers {}

/// Reads a JSON object: `{` first and nothing behind its `}`. serde alone would take an array for a struct.
pub fn object<T: DeserializeOwned>(bytes: &[u8], bodies: Bodies) -> Result<T, Error> {
    let bytes = match bytes {
        [] if bodies.empty_is_object => b"{}",
        bytes => bytes,
    };
    let malformed = |detail: String| Error::malformed_body(bodies.malformed, detail);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(malformed("the body is not a JSON object".to_owned()));
    }
    // First whether it is JSON to its end: a member that is not valid is no reason to call the rest JSON.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| malformed(not_json(&error)))?;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (field, detail) = named(&error.path().to_string(), &text_of(error.inner()));
        Error::invalid_member(field, detail)
    })
}

/// A value that was read before, as one of a list is: the path of the member at fault, empty for the value itself, and
/// what was expected.
///
/// # Errors
/// When it is no object, or a member is not valid.
pub fn object_of<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, (String, String)> {
    if !value.is_object() {
        return Err((String::new(), "an object".to_owned()));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        named(&path, &text_of(error.inner()))
    })
}

/// The parser's own words may quote the body.
fn not_json(error: &serde_json::Error) -> String {
    format!(
        "the body is not JSON from line {}, column {} on",
        error.line(),
        error.column()
    )
}

/// Without the place, which says nothing of a member.
fn text_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(text) => text.to_owned(),
        None => text,
    }
}

/// The member at fault and what was expected of it, from what serde says. `serde_path_to_error` names the object that
/// lacks a member, not the member; and serde quotes what it found, which the caller knows.
fn named(path: &str, text: &str) -> (String, String) {
    let path = if path == "." { "" } else { path };
    let quoted = |prefix: &str| {
        let rest = text.strip_prefix(prefix)?;
        rest.split('`').next().map(str::to_owned)
    };
    if let Some(missing) = quoted("missing field `") {
        let field = match path {
            "" => missing,
            path => format!("{path}.{missing}"),
        };
        return (field, "it is missing".to_owned());
    }
    if quoted("unknown field `").is_some() {
        let known = text.rsplit_once(", expected ").map(|(_, known)| known);
        let detail = match known.map(|known| known.replace('`', "")) {
            None => "no member is known here".to_owned(),
            Some(known) => {
                let known = known.trim_start_matches("one of ").replace(" or ", ", ");
                format!("known members: {known}")
            }
        };
        return (path.to_owned(), detail);
    }
    let expected = text
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let detail = match expected {
        None => text.to_owned(),
        Some("i16" | "i32" | "i64" | "u16" | "u32" | "u64" | "usize") => {
            "a whole number within range".to_owned()
        }
        Some("a string" | "string" | "a borrowed string") => "a text".to_owned(),
        Some("a boolean") => "true or false".to_owned(),
        Some("a sequence") => "a list".to_owned(),
        Some(expected) if expected.starts_with("struct ") => "an object".to_owned(),
        Some(expected) => expected.replace('`', ""),
    };
    (path.to_owned(), detail)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> axum::response::Response {
        answer(StatusCode::OK, &self.0)
    }
}

impl<T: ToSchema> IntoResponses for Json<T> {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        documented::<T>(StatusCode::OK, None)
    }
}

/// A JSON answer; one that cannot be written is ours.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> axum::response::Response {
    match serde_json::to_string(body) {
        Ok(text) => (status, [(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => Error::Internal(Box::new(error)).into_response(),
    }
}

/// An answer of this type in the document; its description is the type's own unless one is given.
pub fn documented<T: ToSchema>(
    status: StatusCode,
    description: Option<&str>,
) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    register::<T>();
    let response = ResponseBuilder::new()
        .description(description.unwrap_or_default())
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(T::name())))
                .build(),
        )
        .build();
    BTreeMap::from([(status.as_str().to_owned(), RefOr::T(response))])
}

/// A file in the answer itself: CSV, or another text that a browser saves.
#[derive(Debug)]
pub struct Attachment {
    /// Media type of the file with its parameters, as in `text/csv; charset=utf-8`.
    pub content_type: &'static str,
    /// The name under which a browser saves it: letters, digits, dots and hyphens only, since it is not escaped.
    pub filename: String,
    /// The contents of the file.
    pub text: String,
}

impl IntoResponse for Attachment {
    fn into_response(self) -> axum::response::Response {
        let disposition = format!("attachment; filename=\"{}\"", self.filename);
        let headers = [
            (CONTENT_TYPE, self.content_type.to_owned()),
            (http::header::CONTENT_DISPOSITION, disposition),
        ];
        (headers, self.text).into_response()
    }
}

impl IntoResponses for Attachment {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let text = utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String);
        let response = ResponseBuilder::new()
            .description("The file")
            .content("text/csv", ContentBuilder::new().schema(Some(text)).build())
            .build();
        BTreeMap::from([("200".to_owned(), RefOr::T(response))])
    }
}

/// 302: the file lies at a link that works for some minutes.
#[derive(Debug)]
pub struct Found(pub String);

impl IntoResponse for Found {
    fn into_response(self) -> axum::response::Response {
        redirect(StatusCode::FOUND, &self.0)
    }
}

fn redirect(status: StatusCode, link: &str) -> axum::response::Response {
    match http::HeaderValue::from_str(link) {
        Ok(link) => (status, [(http::header::LOCATION, link)]).into_response(),
        Err(error) => Error::Internal(Box::new(error)).into_response(),
    }
}

fn redirected(status: StatusCode) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let link = utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .format(Some(utoipa::openapi::SchemaFormat::Custom(
            "uri".to_owned(),
        )));
    let response = ResponseBuilder::new()
        .description("Where the file lies; the link works for some minutes")
        .header("location", utoipa::openapi::Header::new(link))
        .build();
    BTreeMap::from([(status.as_str().to_owned(), RefOr::T(response))])
}

impl IntoResponses for Found {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        redirected(StatusCode::FOUND)
    }
}

/// 303: the file lies at a link that works for some minutes, and is fetched from there.
#[derive(Debug)]
pub struct SeeOther(pub String);

impl IntoResponse for SeeOther {
    fn into_response(self) -> axum::response::Response {
        redirect(StatusCode::SEE_OTHER, &self.0)
    }
}

impl IntoResponses for SeeOther {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        redirected(StatusCode::SEE_OTHER)
    }
}

/// A file that is answered itself, or, when it is large, by a link to it.
#[derive(Debug)]
pub enum FileAnswer {
    /// 200 with the file.
    Attached(Attachment),
    /// 303 to the file.
    Stored(SeeOther),
}

impl IntoResponse for FileAnswer {
    fn into_response(self) -> axum::response::Response {
        match self {
            FileAnswer::Attached(attachment) => attachment.into_response(),
            FileAnswer::Stored(link) => link.into_response(),
        }
    }
}

impl IntoResponses for FileAnswer {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut responses = Attachment::responses();
        responses.extend(SeeOther::responses());
        responses
    }
}

/// JSON or, where the path ends in `.csv`, the same as a file.
#[derive(Debug)]
pub enum JsonOr<F, T> {
    /// The answer for a path that ends in `.csv`.
    File(F),
    /// The answer for any other path: 200 with this as JSON.
    Json(T),
}

impl<F: IntoResponse, T: Serialize> IntoResponse for JsonOr<F, T> {
    fn into_response(self) -> axum::response::Response {
        match self {
            JsonOr::File(file) => file.into_response(),
            JsonOr::Json(body) => answer(StatusCode::OK, &body),
        }
    }
}

impl<F: IntoResponses, T: ToSchema> IntoResponses for JsonOr<F, T> {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let mut responses = F::responses();
        for (status, response) in documented::<T>(StatusCode::OK, None) {
            match (responses.get_mut(&status), response) {
                (Some(RefOr::T(file)), RefOr::T(json)) => file.content.extend(json.content),
                (_, response) => {
                    responses.insert(status, response);
                }
            }
        }
        responses
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what they are read as is what is tested")]
    struct Grant {
        amount_cents: i64,
        reason: Reason,
        note: Option<String>,
        lines: Option<Vec<Line>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Reason {
        Goodwill,
        Refund,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "as those of Grant")]
    struct Line {
        units: i64,
    }

    fn read(body: &str) -> Result<Grant, Error> {
        object(body.as_bytes(), Bodies::default())
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for body in [
            "[]",
            "[1, \"goodwill\"]",
            "1",
            "{",
            "null",
            "  ",
            r#"{"amount_cents": 1, "reason": "goodwill"} x"#,
            r#"{"amount_cents": 1, "reason": "goodwill"} {}"#,
            r#"{"colour": [1,]}"#,
        ] {
            let error = read(body).unwrap_err();
            assert_eq!(
                (error.status().as_u16(), error.code()),
                (400, "invalid_body"),
                "{body}"
            );
        }
        let none: Result<NoMembers, _> = object(b"", Bodies::default());
        assert_eq!(none.unwrap(), NoMembers {});
        let strict = Bodies {
            malformed: "invalid_json",
            empty_is_object: false,
        };
        let none: Result<NoMembers, _> = object(b"", strict);
        assert_eq!(none.unwrap_err().code(), "invalid_json");
    }

    #[test]
    fn a_member_that_is_unknown_missing_or_not_valid_is_named_where_it_stands() {
        for (body, field, detail) in [
            ("{}", "amount_cents", "it is missing"),
            (r#"{"amount_cents": 1}"#, "reason", "it is missing"),
            (
                r#"{"amount_cents": null, "reason": "refund"}"#,
                "amount_cents",
                "a whole number within range",
            ),
            (
                r#"{"amount_cents": "1", "reason": "refund"}"#,
                "amount_cents",
                "a whole number within range",
            ),
            (
                r#"{"amount_cents": 1.5, "reason": "refund"}"#,
                "amount_cents",
                "a whole number within range",
            ),
            (
                r#"{"amount_cents": 9223372036854775808, "reason": "refund"}"#,
                "amount_cents",
                "a whole number within range",
            ),
            (
                r#"{"amount_cents": 1, "reason": "mood"}"#,
                "reason",
                "goodwill or refund",
            ),
            (
                r#"{"amount_cents": 1, "reason": "refund", "note": 1}"#,
                "note",
                "a text",
            ),
            (
                r#"{"amount_cents": 1, "reason": "refund", "colour": 1}"#,
                "colour",
                "known members: amount_cents, reason, note, lines",
            ),
            (
                r#"{"amount_cents": 1, "reason": "refund", "lines": [{}]}"#,
                "lines[0].units",
                "it is missing",
            ),
            (
                r#"{"amount_cents": 1, "reason": "refund", "lines": [{"units": 1}, {"units": true}]}"#,
                "lines[1].units",
                "a whole number within range",
            ),
            (
                r#"{"amount_cents": 1, "reason": "refund", "lines": [{"q": 1}]}"#,
                "lines[0].q",
                "known members: units",
            ),
        ] {
            let error = read(body).unwrap_err();
            assert_eq!(error.status().as_u16(), 422, "{body}");
            assert_eq!(error.field(), Some(field), "{body}");
            assert_eq!(error.to_string(), detail, "{body}");
        }
        assert!(read(r#"{"amount_cents": 1, "reason": "refund", "note": null}"#).is_ok());
        let empty: Result<NoMembers, _> = object(br#"{"a": 1}"#, Bodies::default());
        assert_eq!(empty.unwrap_err().to_string(), "no member is known here");
    }

    #[test]
    fn what_was_read_before_is_named_within_itself() {
        for (value, field) in [
            ("[]", ""),
            ("{}", "units"),
            (r#"{"units": 1, "q": 1}"#, "q"),
        ] {
            let value: Value = serde_json::from_str(value).unwrap();
            assert_eq!(object_of::<Line>(value).unwrap_err().0, field);
        }
    }

    #[test]
    fn parameters_are_texts_read_strictly() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Filter {
            user_id: i32,
            billable: Option<bool>,
            reason: Option<String>,
        }
        let known = ["user_id", "billable", "reason"];
        let read = |text: &str| query::<Filter>(&Pairs::of(text, &known).unwrap());
        for (text, field) in [
            ("", "user_id"),
            ("user_id=", "user_id"),
            ("user_id=x", "user_id"),
            ("user_id=-1", "user_id"),
            ("user_id=%2B1", "user_id"),
            ("user_id=1.0", "user_id"),
            ("user_id=2147483648", "user_id"),
            ("user_id=1&billable=yes", "billable"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(
                (error.code(), error.field()),
                ("invalid_parameter", Some(field)),
                "{text}"
            );
        }
        let expected = Filter {
            user_id: 7,
            billable: Some(true),
            reason: Some(String::new()),
        };
        assert_eq!(read("user_id=007&billable=true&reason").unwrap(), expected);
    }
}
