//! RFC 9457 problems: why a request is not answered with what it asked for, and how the caller reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::IntoResponse;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use lambda_http::{Body, Response};
use serde::Serialize;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

use crate::aws::secrets;
use crate::config::BoxError;

/// The content type of every refusal.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The code of a 503 that trying again may mend …
const UNAVAILABLE: &str = "unavailable";
/// … after so long.
const RETRY_AFTER_SECONDS: &str = "2";

/// Why a request was refused. `code` is stable and for programs, `detail` is for people; a 5xx has one only
/// where its outcome is not known.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem<'a> {
    /// What clients compare: it never changes, in snake_case.
    code: &'a str,
    /// The reason phrase of the status, such as `Not Found`.
    title: &'a str,
    /// The HTTP status of the answer, repeated.
    status: u16,
    /// What is wrong with the request. A 5xx has it only when what was asked for may have been done all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// The `x-request-id` of the answer; the logs name it.
    request_id: &'a str,
    /// The member of the body, the parameter or the header at fault, where it is one: `events[3].cost_units`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'a str>,
}

/// What any route may answer instead of what it was asked for: the only place that maps to HTTP. A route that refuses
/// for further reasons lists them in an enum, written with [`refusals!`](crate::refusals).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: the request cannot be read. `code` is stable, `detail` is for people.
    #[error("{detail}")]
    BadRequest {
        /// What clients compare: it never changes, in snake_case.
        code: &'static str,
        /// The parameter or header at fault.
        field: Option<String>,
        /// What was expected, for people.
        detail: String,
    },
    /// 401: no token, or none that holds.
    #[error("{detail}")]
    Unauthenticated {
        /// What is wrong with the token, without repeating it.
        detail: &'static str,
    },
    /// 403: the token holds but does not allow this.
    #[error("{detail}")]
    Forbidden {
        /// The role or token that is needed.
        detail: &'static str,
    },
    /// 404: no such path, or nothing under this id.
    #[error("there is nothing here")]
    NotFound,
    /// 405: the path is known, the method is not.
    #[error("this path answers {allow}")]
    MethodNotAllowed {
        /// The methods it answers, comma separated.
        allow: String,
    },
    /// 409: a key was used before with other content, or the state does not allow it.
    #[error("{detail}")]
    Conflict {
        /// What clients compare: it never changes, in snake_case.
        code: &'static str,
        /// What is in the way.
        detail: String,
    },
    /// A reason of one kind of route, as [`refusals!`](crate::refusals) lists it.
    #[error("{detail}")]
    Refused {
        /// The status of the answer, always a 4xx.
        status: StatusCode,
        /// What clients compare: it never changes, in snake_case.
        code: &'static str,
        /// What is in the way.
        detail: Cow<'static, str>,
    },
    /// 413: the body is larger than `limit_bytes`.
    #[error("the body is larger than {limit_bytes} bytes")]
    PayloadTooLarge {
        /// The limit of this route.
        limit_bytes: usize,
    },
    /// 402: the quota is used up. `members` are added to the answer.
    #[error("the included units are used up")]
    PaymentRequired {
        /// What an upgrade or the overage would cost.
        members: serde_json::Map<String, serde_json::Value>,
    },
    /// 422: the body is well-formed, a value in it is not valid.
    #[error("{detail}")]
    Unprocessable {
        /// The member at fault.
        field: String,
        /// What was expected, for people.
        detail: String,
    },
    /// 429: too many requests of this caller.
    #[error("too many requests")]
    TooManyRequests {
        /// After how many seconds to try again; sent as `Retry-After`.
        retry_after_seconds: u32,
    },
    /// 503: something the request needs is away; trying again may help.
    #[error("a service this request needs is unavailable")]
    Unavailable(#[source] BoxError),
    /// 503: something the request needs did not answer in time; trying again may help.
    #[error("a service this request needs did not answer in time")]
    TimedOut(#[source] BoxError),
    /// 503: what was asked for may have been done all the same.
    #[error("{detail}")]
    InDoubt {
        /// How the caller finds out.
        detail: &'static str,
        /// [`Error::Unavailable`] or [`Error::TimedOut`].
        #[source]
        cause: Arc<Error>,
    },
    /// 503 `not_configured`: the deployment lacks a variable, which the log names. Never the caller's fault.
    #[error("the deployment is not complete")]
    NotConfigured(#[source] BoxError),
    /// 500: a fault of ours, which trying again does not mend.
    #[error("the request could not be answered")]
    Internal(#[source] BoxError),
}

impl Error {
    /// A parameter that cannot be read.
    pub fn invalid_parameter(field: &str, detail: impl Into<String>) -> Error {
        Error::BadRequest {
            code: "invalid_parameter",
            field: Some(field.to_owned()),
            detail: detail.into(),
        }
    }

    /// The HTTP status that the error is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Error::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            Error::Forbidden { .. } => StatusCode::FORBIDDEN,
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Error::Conflict { .. } => StatusCode::CONFLICT,
            Error::Refused { status, .. } => *status,
            Error::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::PaymentRequired { .. } => StatusCode::PAYMENT_REQUIRED,
            Error::Unprocessable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Unavailable(_)
            | Error::TimedOut(_)
            | Error::InDoubt { .. }
            | Error::NotConfigured(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Error::BadRequest { code, .. }
            | Error::Conflict { code, .. }
            | Error::Refused { code, .. } => code,
            Error::Unauthenticated { .. } => "unauthenticated",
            Error::Forbidden { .. } => "forbidden",
            Error::NotFound => "not_found",
            Error::MethodNotAllowed { .. } => "method_not_allowed",
            Error::PayloadTooLarge { .. } => "payload_too_large",
            Error::PaymentRequired { .. } => "payment_required",
            Error::Unprocessable { .. } => "unprocessable",
            Error::TooManyRequests { .. } => "too_many_requests",
            Error::Unavailable(_) | Error::TimedOut(_) | Error::InDoubt { .. } => UNAVAILABLE,
            Error::NotConfigured(_) => "not_configured",
            Error::Internal(_) => "internal",
        }
    }

    pub(super) fn field(&self) -> Option<&str> {
        if let Error::BadRequest { field, .. } = self {
            return field.as_deref();
        }
        if let Error::Unprocessable { field, .. } = self {
            return Some(field);
        }
        None
    }

    /// A body that is no JSON object: a 400 of this code.
    pub fn malformed_body(code: &'static str, detail: impl Into<String>) -> Error {
        Error::BadRequest {
            code,
            field: None,
            detail: detail.into(),
        }
    }

    /// A member of the body that is not valid.
    pub fn invalid_member(field: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Unprocessable {
            field: field.into(),
            detail: detail.into(),
        }
    }

    /// Whether trying again soon may help: 503 `unavailable`.
    pub(super) fn is_unavailable(&self) -> bool {
        self.code() == UNAVAILABLE
    }

    /// RFC 9457. A 5xx tells the caller nothing but the code and how to find out what came of it; the log has its causes.
    pub(super) fn to_problem(&self, request_id: &str) -> Response<Body> {
        let status = self.status();
        let problem = Problem {
            code: self.code(),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: (!status.is_server_error() || matches!(self, Error::InDoubt { .. }))
                .then(|| self.to_string()),
            request_id,
            field: self.field(),
        };
        let mut body = serde_json::to_value(problem).unwrap_or_default();
        if let (Error::PaymentRequired { members }, Some(problem)) = (self, body.as_object_mut()) {
            problem.extend(members.clone());
        }
        let body = body.to_string();
        let mut response = Response::new(Body::Text(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Error::MethodNotAllowed { allow } = self {
            insert(headers, ALLOW, allow);
        }
        if let Error::Unauthenticated { .. } = self {
            insert(headers, WWW_AUTHENTICATE, "Bearer");
        }
        if let Error::TooManyRequests {
            retry_after_seconds,
        } = self
        {
            insert(headers, RETRY_AFTER, &retry_after_seconds.to_string());
        }
        if self.is_unavailable() {
            insert(headers, RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

impl From<secrets::Error> for Error {
    fn from(error: secrets::Error) -> Error {
        match error {
            secrets::Error::NotConfigured { .. } | secrets::Error::Empty { .. } => {
                Error::NotConfigured(Box::new(error))
            }
            secrets::Error::Unavailable(_) => Error::Unavailable(Box::new(error)),
        }
    }
}

impl From<crate::aws::Error> for Error {
    fn from(error: crate::aws::Error) -> Error {
        Error::Unavailable(Box::new(error))
    }
}

impl From<domain::money::Error> for Error {
    fn from(error: domain::money::Error) -> Error {
        Error::Internal(Box::new(error))
    }
}

/// The error travels to the one place that renders it, where the request's id is known and a failure is logged.
impl IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(Refusal(Arc::new(self)));
        response
    }
}

/// What [`Error`] leaves in an answer's extensions.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) Arc<Error>);

/// Every route may answer with these, and the route table adds them to the document: there is nothing to say here.
impl IntoResponses for Error {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::new()
    }
}

/// Documents refusals of a route by status and code: a [`Problem`] whose code is one of those given.
pub fn refusals_of(
    refusals: &[(u16, &'static str, &'static str)],
) -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    let mut of_status: BTreeMap<u16, Vec<(&str, &str)>> = BTreeMap::new();
    for (status, code, detail) in refusals {
        of_status.entry(*status).or_default().push((*code, *detail));
    }
    let document = |(status, refusals): (u16, Vec<(&str, &str)>)| {
        let codes = refusals.iter().map(|(code, _)| *code);
        let said: Vec<String> = refusals
            .iter()
            .map(|(code, detail)| format!("`{code}`: {detail}"))
            .collect();
        let schema = AllOfBuilder::new()
            .item(Ref::from_schema_name("Problem"))
            .item(
                ObjectBuilder::new().property(
                    "code",
                    ObjectBuilder::new()
                        .schema_type(utoipa::openapi::schema::Type::String)
                        .enum_values(Some(codes)),
                ),
            );
        let response = ResponseBuilder::new()
            .description(said.join("; "))
            .content(
                PROBLEM_JSON,
                ContentBuilder::new().schema(Some(schema)).build(),
            )
            .build();
        (status.to_string(), RefOr::T(response))
    };
    of_status.into_iter().map(document).collect()
}

/// The reasons for which one kind of route refuses: `Variant = status "code" "detail"`. The enum also has `Other`,
/// which is whatever any route may answer, so that `?` takes an [`Error`] and what becomes one. The document lists each
/// status with its codes.
///
/// ```
/// runtime::refusals! {
///     /// Why a credit is not voided.
///     pub enum VoidError {
///         /// Something of it was applied to an invoice.
///         Used = 409 "credit_used" "something of this credit has been used",
///     }
/// }
/// assert_eq!(runtime::api::Error::from(VoidError::Used).status(), 409);
/// ```
#[macro_export]
macro_rules! refusals {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $status:literal $code:literal $detail:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis enum $name {
            $( $(#[$variant_meta])* $variant, )+
            /// What any route may answer.
            Other($crate::api::Error),
        }

        impl<E: $crate::api::CommonError> From<E> for $name {
            fn from(error: E) -> $name {
                $name::Other(error.into())
            }
        }

        impl From<$name> for $crate::api::Error {
            fn from(refusal: $name) -> $crate::api::Error {
                match refusal {
                    $( $name::$variant => $crate::api::Error::refused($status, $code, $detail), )+
                    $name::Other(error) => error,
                }
            }
        }

        impl ::axum::response::IntoResponse for $name {
            fn into_response(self) -> ::axum::response::Response {
                $crate::api::Error::from(self).into_response()
            }
        }

        impl ::utoipa::IntoResponses for $name {
            fn responses() -> ::std::collections::BTreeMap<
                String,
                ::utoipa::openapi::RefOr<::utoipa::openapi::Response>,
            > {
                $crate::api::refusals_of(&[ $( ($status, $code, $detail), )+ ])
            }
        }
    };
}

/// What `?` turns into an [`Error`] in a route that has an enum by [`refusals!`](crate::refusals).
pub trait CommonError: Into<Error> {}

impl CommonError for Error {}
impl CommonError for secrets::Error {}
impl CommonError for crate::aws::Error {}
impl CommonError for domain::money::Error {}

/// Documents a 402: a [`Problem`] with the members of `T`.
pub fn payment_required<T: ToSchema>() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
    super::router::register::<T>();
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(Ref::from_schema_name(T::name()));
    let response = ResponseBuilder::new()
        .description("`payment_required`: the included units are used up")
        .content(
            PROBLEM_JSON,
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build();
    BTreeMap::from([("402".to_owned(), RefOr::T(response))])
}

impl Error {
    /// 402 with the members of an offer.
    pub fn payment_required(offer: &impl Serialize) -> Error {
        match serde_json::to_value(offer) {
            Ok(serde_json::Value::Object(members)) => Error::PaymentRequired { members },
            Ok(_) => Error::Internal("an offer is no object".into()),
            Err(error) => Error::Internal(Box::new(error)),
        }
    }

    /// A reason of one kind of route. `status` is a literal of [`refusals!`](crate::refusals): what is no status is ours.
    pub fn refused(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Error {
        match StatusCode::from_u16(status) {
            Ok(status) => Error::Refused {
                status,
                code,
                detail: detail.into(),
            },
            Err(error) => Error::Internal(Box::new(error)),
        }
    }
}

pub(super) fn insert(
    headers: &mut HeaderMap,
    name: impl http::header::IntoHeaderName,
    value: &str,
) {
    // A value that is no header value would be our own; leaving it out beats failing the response.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
