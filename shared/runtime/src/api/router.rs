//! The route table of a function: each route with who may call it, and the OpenAPI document of all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request as AxumRequest, State};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::BodyExt;
use jiff::Timestamp;
use lambda_http::{Body, Request, Response, Service};
use serde_json::{Map, Value, json};
use tracing::Instrument;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;

use super::access::{Access, Authenticator, Caller};
use super::extract::{Json, JsonBytes, Now, Path, Query, RequestId};
use super::problem::{PROBLEM_JSON, Problem, Refusal, insert};
use super::{BODY_LIMIT_BYTES, Error, Pairs, path, percent_decode, request_id};
use crate::time_limit::TimeOuts;

/// How long a route may take unless it says otherwise: with what stopping it takes, the answer leaves within 5 seconds.
const TIME_LIMIT: Duration = Duration::from_millis(4_500);
/// The detail of a write's 503.
const WRITE_IN_DOUBT: &str = "it is not known whether this was written: the same request with the same Idempotency-Key finds it out";

/// The header in which a caller sends its key.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Whether a write asks for an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// A caller may do without: twice the same is seen by people, or does no harm.
    Optional,
    /// Without a key it is a 400: a lost answer must not become a second payment.
    Required,
}

/// One route, as tests, the template check, the local gateway and the document know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The HTTP method that the route answers.
    pub method: Method,
    /// With its parameters in braces: `/admin/invoices/{id}`.
    pub path: String,
    /// Who may call it.
    pub access: Access,
    /// Whether it takes an `Idempotency-Key`; `None` for what is not a write.
    pub key: Option<KeyRule>,
    /// The parameters its query may have.
    query: Vec<String>,
    time_limit: Duration,
    /// How a caller finds out whether it was done all the same, after a 503.
    in_doubt: Option<&'static str>,
}

/// Which bodies of JSON a function takes, apart from what their members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bodies {
    /// The code of the 400 for what is no JSON object.
    pub malformed: &'static str,
    /// Whether no body at all is an object without members.
    pub empty_is_object: bool,
}

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies {
            malformed: "invalid_body",
            empty_is_object: true,
        }
    }
}

type Schemas = Vec<(String, RefOr<Schema>)>;

thread_local! {
    // `IntoResponses::responses` has no place for the schemas it refers to: what an answer's type is made of waits here
    // until its route is added.
    static ANSWERS: RefCell<Vec<fn(&mut Schemas)>> = const { RefCell::new(Vec::new()) };
}

/// Has the document list an answer's type and all that it is made of, with the next route that is added.
pub(super) fn register<T: ToSchema>() {
    ANSWERS.with_borrow_mut(|answers| {
        answers.push(|schemas| {
            schemas.push((T::name().into_owned(), T::schema()));
            T::schemas(schemas);
        });
    });
}

/// What the document says of one route besides its [`Route`].
#[derive(Clone)]
struct Described {
    operation: Operation,
    takes_json: bool,
    requests: Schemas,
    answers: Vec<fn(&mut Schemas)>,
}

/// A handler with its arguments' parameters: what [`routes!`](crate::routes) makes.
pub struct Routed<S> {
    route: UtoipaMethodRouter<S>,
    parameters: Vec<Parameter>,
    takes_json: bool,
    time_limit: Option<Duration>,
    in_doubt: Option<&'static str>,
}

impl<S> Routed<S> {
    /// `utoipa` documents parameters that are listed by hand; here the handler's arguments are asked.
    pub fn new<M, H: Handler<M>>(route: UtoipaMethodRouter<S>, handler: &H) -> Routed<S> {
        Routed {
            route,
            parameters: handler.parameters(),
            takes_json: H::TAKES_JSON,
            time_limit: None,
            in_doubt: None,
        }
    }

    /// Has it take another time than those beside it before it is given up.
    #[must_use]
    pub fn with_time_limit(self, time_limit: Duration) -> Routed<S> {
        let time_limit = Some(time_limit);
        Routed { time_limit, ..self }
    }

    /// Has its 503 say how a caller finds out whether it was done all the same. Writes with a key say it by themselves.
    #[must_use]
    pub fn in_doubt(self, detail: &'static str) -> Routed<S> {
        let in_doubt = Some(detail);
        Routed { in_doubt, ..self }
    }
}

/// `routes!(credits::void)`: the handler, its path, and all that the document says of it, for [`Routes::add`].
#[macro_export]
macro_rules! routes {
    ($($handler:tt)+) => {
        $crate::api::router::Routed::new($crate::api::utoipa_axum::routes!($($handler)+), &$($handler)+)
    };
}

/// What an argument of a handler reads of the request.
pub trait Argument {
    /// Whether it is the body as JSON, which may be malformed or have a member that is not valid.
    const IS_JSON: bool = false;

    /// The parameters that it reads, as the document lists them.
    #[must_use]
    fn parameters() -> Vec<Parameter> {
        Vec::new()
    }
}

impl<S> Argument for State<S> {}
impl Argument for Parts {}
impl Argument for HeaderMap {}
impl Argument for RawBody {}
impl Argument for Caller {}
impl Argument for Now {}
impl Argument for RequestId {}

impl Argument for JsonBytes {
    const IS_JSON: bool = true;
}

impl<T> Argument for Json<T> {
    const IS_JSON: bool = true;
}

impl<T: IntoParams> Argument for Path<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Path))
    }
}

impl<T: IntoParams> Argument for Query<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Query))
    }
}

/// A function whose arguments say what they read.
pub trait Handler<M> {
    /// Whether one of its arguments is the body as JSON.
    const TAKES_JSON: bool;

    /// The parameters that its arguments read, in their order.
    fn parameters(&self) -> Vec<Parameter>;
}

macro_rules! handlers {
    ($($argument:ident)*) => {
        impl<F, R, $($argument,)*> Handler<($($argument,)*)> for F
        where
            F: Fn($($argument,)*) -> R,
            $($argument: Argument,)*
        {
            const TAKES_JSON: bool = false $(|| $argument::IS_JSON)*;

            fn parameters(&self) -> Vec<Parameter> {
                let all: Vec<Vec<Parameter>> = vec![$($argument::parameters(),)*];
                all.into_iter().flatten().collect()
            }
        }
        handlers!(@fewer $($argument)*);
    };
    (@fewer) => {};
    (@fewer $first:ident $($rest:ident)*) => { handlers!($($rest)*); };
}

handlers!(A B C D E G H I J);

/// The routes of a function, being put together. `S` is the state its handlers share.
pub struct Routes<S> {
    router: Router<S>,
    table: Vec<Arc<Route>>,
    described: Vec<Described>,
    bodies: Bodies,
    body_limit_bytes: usize,
    time_limit: Duration,
    time_outs: TimeOuts,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Routes<S> {
        Routes {
            router: Router::new(),
            table: Vec::new(),
            described: Vec::new(),
            bodies: Bodies::default(),
            body_limit_bytes: BODY_LIMIT_BYTES,
            time_limit: TIME_LIMIT,
            time_outs: TimeOuts::default(),
        }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// A table without routes.
    #[must_use]
    pub fn new() -> Routes<S> {
        Routes::default()
    }

    /// Has other bodies be taken than `invalid_body` and `{}` for none.
    #[must_use]
    pub fn with_bodies(self, bodies: Bodies) -> Routes<S> {
        Routes { bodies, ..self }
    }

    /// Takes larger or only smaller bodies than [`BODY_LIMIT_BYTES`].
    #[must_use]
    pub fn with_body_limit(self, body_limit_bytes: usize) -> Routes<S> {
        Routes {
            body_limit_bytes,
            ..self
        }
    }

    /// Has the routes that are added from here on be given up, with a 503, earlier or later than after 4.5 s.
    #[must_use]
    pub fn with_time_limit(self, time_limit: Duration) -> Routes<S> {
        Routes { time_limit, ..self }
    }

    /// Adds what [`routes!(handler)`](crate::routes) names.
    #[must_use]
    pub fn add(self, access: Access, route: Routed<S>) -> Routes<S> {
        self.insert(access, None, route)
    }

    /// Adds a write, whose handler takes a `shared::write::Writer`.
    #[must_use]
    pub fn add_write(self, access: Access, key: KeyRule, route: Routed<S>) -> Routes<S> {
        self.insert(access, Some(key), route)
    }

    fn insert(
        mut self,
        access: Access,
        key: Option<KeyRule>,
        Routed {
            route: (requests, paths, methods),
            parameters,
            takes_json,
            time_limit,
            in_doubt,
        }: Routed<S>,
    ) -> Routes<S> {
        let answers = ANSWERS.with_borrow_mut(std::mem::take);
        let mut added: Vec<Arc<Route>> = Vec::new();
        for (path, item) in paths.paths {
            for (method, mut operation) in operations(item) {
                let headers = operation.parameters.take().into_iter().flatten();
                let headers = headers.filter(|parameter| match parameter {
                    RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Header,
                    RefOr::Ref(_) => true,
                });
                let all = headers.chain(parameters.iter().cloned().map(RefOr::T));
                operation.parameters = Some(all.collect());
                let of_query = parameters
                    .iter()
                    .filter(|parameter| parameter.parameter_in == ParameterIn::Query);
                added.push(Arc::new(Route {
                    method,
                    path: path.clone(),
                    access,
                    key,
                    query: of_query.map(|parameter| parameter.name.clone()).collect(),
                    time_limit: time_limit.unwrap_or(self.time_limit),
                    in_doubt,
                }));
                self.described.push(Described {
                    operation,
                    takes_json,
                    requests: requests.clone(),
                    answers: answers.clone(),
                });
            }
        }
        if let Some(path) = added.first().map(|route| route.path.clone()) {
            let here: Arc<[Arc<Route>]> = added.clone().into();
            let time_outs = self.time_outs.clone();
            let methods = methods.route_layer(from_fn(move |request: AxumRequest, next: Next| {
                let (here, time_outs) = (Arc::clone(&here), time_outs.clone());
                async move {
                    let route = here.iter().find(|route| route.method == *request.method());
                    match route {
                        Some(route) => Ok(in_time(route, &time_outs, request, next).await),
                        // axum would answer HEAD as GET.
                        None => Err(not_allowed_here()),
                    }
                }
            }));
            self.router = self.router.route(&path, methods);
        }
        self.table.extend(added);
        self
    }

    /// Every route, in the order they were added.
    #[must_use]
    pub fn table(&self) -> Vec<Route> {
        self.table.iter().map(|route| (**route).clone()).collect()
    }

    /// Takes requests for these routes, with the state that the handlers share.
    #[must_use]
    pub fn serve(self, state: S, authenticator: Authenticator) -> Api {
        let router = self
            .router
            .fallback(async || Error::NotFound)
            .method_not_allowed_fallback(async || not_allowed_here());
        Api {
            router: router.with_state(state),
            table: self.table.into(),
            authenticator,
            bodies: self.bodies,
            body_limit_bytes: self.body_limit_bytes,
        }
    }

    /// The OpenAPI document of these routes: `paths` and `components.schemas`, for [`merge`].
    #[must_use]
    pub fn document(&self) -> Value {
        let mut paths = Map::new();
        let mut schemas = Map::new();
        schemas.insert("Problem".to_owned(), answer_schema(&Problem::schema()));
        for (route, described) in self.table.iter().zip(&self.described) {
            for (name, schema) in &described.requests {
                let schema = serde_json::to_value(schema).unwrap_or_default();
                schemas.entry(name.clone()).or_insert(schema);
            }
            let mut answers = Vec::new();
            for collect in &described.answers {
                collect(&mut answers);
            }
            for (name, schema) in &answers {
                schemas.insert(name.clone(), answer_schema(schema));
            }
            let item = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
            item[route.method.as_str().to_lowercase()] = operation(route, described, self.bodies);
        }
        let mut document = json!({"paths": paths, "components": {"schemas": schemas}});
        say_any_of(&mut document);
        document
    }
}

/// Answers the requests of a function. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Api {
    router: Router,
    table: Arc<[Arc<Route>]>,
    authenticator: Authenticator,
    bodies: Bodies,
    body_limit_bytes: usize,
}

impl Api {
    /// Answers one request inside a span with its id. An error becomes a problem and, when it is ours, one log line with
    /// all its causes. Every answer carries `x-request-id`.
    pub async fn answer(&self, request: Request, now: Timestamp) -> Response<Body> {
        let request_id = request_id(&request);
        let span = tracing::info_span!("request", request_id, path = request.uri().path());
        async {
            let mut response = match self.route(request, &request_id, now).await {
                Ok(response) => response,
                Err(error) => {
                    if error.status().is_server_error() {
                        crate::telemetry::log_failure("a request failed", &*error);
                    }
                    error.to_problem(&request_id)
                }
            };
            metrics::counter!("requests", "status" => response.status().as_str().to_owned())
                .increment(1);
            insert(response.headers_mut(), "x-request-id", &request_id);
            response
                .headers_mut()
                .entry(CACHE_CONTROL)
                .or_insert(HeaderValue::from_static("no-store"));
            response
        }
        .instrument(span)
        .await
    }

    async fn route(
        &self,
        request: Request,
        request_id: &str,
        now: Timestamp,
    ) -> Result<Response<Body>, Arc<Error>> {
        let request = self.prepared(request, request_id, now).map_err(Arc::new)?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // A router is always ready.
        let Ok(mut response) = self.router.clone().call(request).await;
        match response.extensions_mut().remove::<Refusal>() {
            None => collected(response).await.map_err(Arc::new),
            Some(Refusal(error)) if matches!(*error, Error::MethodNotAllowed { .. }) => {
                Err(Arc::new(self.not_allowed(&method, &uri)))
            }
            Some(Refusal(error)) => Err(error),
        }
    }

    /// The request as the router takes it: below the gateway's stage, its body and all else beside it.
    fn prepared(
        &self,
        request: Request,
        request_id: &str,
        now: Timestamp,
    ) -> Result<AxumRequest, Error> {
        let path = path(&request).to_owned();
        let (mut parts, body) = request.into_parts();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "`Body` may get variants, and each has bytes"
        )]
        let body = match body {
            Body::Text(text) => axum::body::Bytes::from(text),
            Body::Binary(bytes) => axum::body::Bytes::from(bytes),
            other => axum::body::Bytes::copy_from_slice(&other),
        };
        let limit_bytes = self.body_limit_bytes;
        if body.len() > limit_bytes {
            return Err(Error::PayloadTooLarge { limit_bytes });
        }
        // A path with a `%` that stands for nothing is no path of ours.
        percent_decode(&path).ok_or(Error::NotFound)?;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        parts.uri = Uri::try_from(target).map_err(|_no_path| Error::NotFound)?;
        parts.extensions.insert(Now(now));
        parts.extensions.insert(RequestId(request_id.to_owned()));
        parts.extensions.insert(RawBody(body));
        parts.extensions.insert(self.bodies);
        parts.extensions.insert(self.authenticator.clone());
        Ok(AxumRequest::from_parts(parts, axum::body::Body::empty()))
    }

    /// The methods of the path, which is known.
    fn not_allowed(&self, method: &Method, uri: &Uri) -> Error {
        let mut allow: Vec<&str> = Vec::new();
        for route in &*self.table {
            let known = route.method.as_str();
            if route.method != *method
                && matches(&route.path, uri.path())
                && !allow.contains(&known)
            {
                allow.push(known);
            }
        }
        Error::MethodNotAllowed {
            allow: allow.join(", "),
        }
    }
}

/// Whether a path is of a pattern, segment by segment.
fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let all = pattern.split('/').all(|expected| {
        segments.next().is_some_and(|segment| {
            segment == expected || (expected.starts_with('{') && !segment.is_empty())
        })
    });
    all && segments.next().is_none()
}

fn not_allowed_here() -> Error {
    Error::MethodNotAllowed {
        allow: String::new(),
    }
}

/// The answer, or a 503 once the route's time is over: whatever hangs, a caller is answered.
async fn in_time(
    route: &Arc<Route>,
    time_outs: &TimeOuts,
    request: AxumRequest,
    next: Next,
) -> axum::response::Response {
    let has_key = route.key.is_some() && request.headers().contains_key(IDEMPOTENCY_KEY);
    let in_doubt = route.in_doubt.or(has_key.then_some(WRITE_IN_DOUBT));
    let admitted = async {
        admit(Arc::clone(route), request, next)
            .await
            .into_response()
    };
    let is_time_out = |response: &axum::response::Response| {
        let refusal = response.extensions().get::<Refusal>();
        refusal.is_some_and(|Refusal(error)| matches!(**error, Error::TimedOut(_)))
    };
    let answered = time_outs.within(route.time_limit, admitted, is_time_out);
    let mut response = match answered.await {
        Ok(response) => response,
        Err(given_up) => {
            let error = Error::TimedOut(given_up.to_string().into());
            given_up.stop().await;
            error.into_response()
        }
    };
    if let Some(detail) = in_doubt
        && let Some(Refusal(error)) = response.extensions_mut().get_mut::<Refusal>()
        && error.is_unavailable()
    {
        let cause = Arc::clone(error);
        *error = Arc::new(Error::InDoubt { detail, cause });
    }
    response
}

/// Who may ask is looked at before anything else of the request is; then whether its parameters are known.
async fn admit(
    route: Arc<Route>,
    request: AxumRequest,
    next: Next,
) -> Result<axum::response::Response, Error> {
    let (mut parts, body) = request.into_parts();
    let authenticator: Authenticator = extension(&parts)?;
    let Now(now) = extension(&parts)?;
    let parameters = RawPathParams::from_request_parts(&mut parts, &()).await;
    let parameters = parameters.map_err(|_not_utf8| Error::NotFound)?;
    let parameter = |name: &str| {
        let mut parameters = parameters.iter();
        let found = parameters.find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_owned())
    };
    let caller: Caller = authenticator
        .authorize(route.access, &parts.headers, parameter, now)
        .await?;
    let known: Vec<&str> = route.query.iter().map(String::as_str).collect();
    let pairs = Pairs::of(parts.uri.query().unwrap_or_default(), &known)?;
    parts.extensions.insert(caller);
    parts.extensions.insert(Parameters(Arc::new(pairs)));
    parts.extensions.insert(route);
    Ok(next.run(AxumRequest::from_parts(parts, body)).await)
}

/// The query of a request, each parameter known to its route and given once.
#[derive(Debug, Clone)]
pub(super) struct Parameters(pub(super) Arc<Pairs>);

/// The body as received, not yet parsed.
#[derive(Debug, Clone)]
pub struct RawBody(pub axum::body::Bytes);

impl<S: Send + Sync> FromRequestParts<S> for RawBody {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<RawBody, Error> {
        extension(parts)
    }
}

/// What the route table has left beside a request.
pub fn extension<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Error> {
    let found = parts.extensions.get::<T>().cloned();
    found.ok_or_else(|| {
        let path = parts.extensions.get::<MatchedPath>();
        let path = path.map_or("a path", MatchedPath::as_str);
        let lacks = format!("{path} lacks {}", std::any::type_name::<T>());
        Error::Internal(lacks.into())
    })
}

async fn collected(response: axum::response::Response) -> Result<Response<Body>, Error> {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await;
    let bytes = bytes.map_err(|error| Error::Internal(Box::new(error)))?;
    let bytes = Vec::from(bytes.to_bytes());
    let body = match bytes.is_empty() {
        true => Body::Empty,
        false => match String::from_utf8(bytes) {
            Ok(text) => Body::Text(text),
            Err(other) => Body::Binary(other.into_bytes()),
        },
    };
    Ok(Response::from_parts(parts, body))
}

fn operations(item: PathItem) -> impl Iterator<Item = (Method, Operation)> {
    [
        (Method::GET, item.get),
        (Method::POST, item.post),
        (Method::PUT, item.put),
        (Method::PATCH, item.patch),
        (Method::DELETE, item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}

/// A schema of answers. There a member that may be null is always there: what may be absent says `nullable = false`.
fn answer_schema(schema: &RefOr<Schema>) -> Value {
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    require_nullable(&mut schema);
    schema
}

fn require_nullable(schema: &mut Value) {
    let nullable: Vec<Value> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, property)| is_nullable(property))
        .map(|(name, _)| Value::from(name.as_str()))
        .collect();
    if !nullable.is_empty() {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let missing = nullable.into_iter().filter(|name| !required.contains(name));
        schema["required"] = required.iter().cloned().chain(missing).collect();
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(require_nullable),
        Value::Array(items) => items.iter_mut().for_each(require_nullable),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_nullable(schema: &Value) -> bool {
    let is_null = |value: &Value| value == "null";
    let of_type = schema["type"].as_array();
    let choices = schema["oneOf"].as_array();
    of_type.is_some_and(|types| types.iter().any(is_null))
        || choices.is_some_and(|choices| choices.iter().any(|schema| is_null(&schema["type"])))
}

/// Turns `oneOf` into `anyOf`: an untagged enum is the first of its variants that fits, and others may fit too.
fn say_any_of(document: &mut Value) {
    match document {
        Value::Object(members) => {
            if let Some(choices) = members.remove("oneOf") {
                members.insert("anyOf".to_owned(), choices);
            }
            members.values_mut().for_each(say_any_of);
        }
        Value::Array(items) => items.iter_mut().for_each(say_any_of),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The operation with what the table knows: who may call it, and how every route of its kind may refuse.
fn operation(route: &Route, described: &Described, bodies: Bodies) -> Value {
    let mut operation = serde_json::to_value(&described.operation).unwrap_or_default();
    let words: Vec<&str> = route
        .path
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let method = route.method.as_str().to_lowercase();
    operation["operationId"] = format!("{method}_{}", words.join("_")).into();
    let schemes = route.access.schemes().iter();
    operation["security"] = schemes.map(|scheme| json!({ *scheme: [] })).collect();
    if let Some(rule) = route.key {
        let parameter = json!({
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "required": rule == KeyRule::Required,
            "description": "The same request again with the same key gets the first answer. A key belongs to who uses it and to the route.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
        });
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(parameter),
            None => operation["parameters"] = json!([parameter]),
        }
    }
    let id =
        json!({"schema": {"type": "string"}, "description": "The request's id; the logs name it"});
    if let Some(responses) = operation["responses"].as_object_mut() {
        for (status, code) in common_refusals(route, described, bodies) {
            add_refusal(responses, status, code);
        }
        for (status, response) in responses {
            response["headers"]["x-request-id"] = id.clone();
            // The specification requires one, and an answer's type may have none.
            if response["description"].as_str().is_none_or(str::is_empty) {
                let status = status
                    .parse()
                    .ok()
                    .and_then(|code| StatusCode::from_u16(code).ok());
                let reason = status.and_then(|status| status.canonical_reason());
                response["description"] = reason.unwrap_or("The answer").into();
            }
        }
    }
    operation
}

/// What any route of this kind may refuse, by status and code.
fn common_refusals(
    route: &Route,
    described: &Described,
    bodies: Bodies,
) -> Vec<(u16, &'static str)> {
    let mut refusals = vec![
        (400, "invalid_query"),
        (400, "unknown_parameter"),
        (413, "payload_too_large"),
        (500, "internal"),
        (503, "unavailable"),
        (503, "not_configured"),
    ];
    let has_path = route.path.contains('{');
    if has_path || !route.query.is_empty() {
        refusals.push((400, "invalid_parameter"));
    }
    if has_path {
        refusals.push((404, "not_found"));
    }
    match route.access {
        Access::Public => {}
        Access::Service => refusals.push((401, "unauthenticated")),
        Access::Admin
        | Access::Finance
        | Access::Viewer
        | Access::ViewerOrPartner
        | Access::Partner { .. } => {
            refusals.extend([(401, "unauthenticated"), (403, "forbidden")]);
        }
    }
    if described.takes_json {
        refusals.extend([(400, bodies.malformed), (422, "unprocessable")]);
    }
    if let Some(rule) = route.key {
        refusals.extend([(400, "invalid_header"), (409, "idempotency_key_reused")]);
        if rule == KeyRule::Required {
            refusals.push((400, "missing_header"));
        }
    }
    refusals
}

/// Adds a code to those that a status comes with.
fn add_refusal(responses: &mut Map<String, Value>, status: u16, code: &str) {
    let schema = Ref::from_schema_name("Problem");
    let response = responses.entry(status.to_string()).or_insert_with(|| {
        let schema = json!({"allOf": [schema, {"type": "object", "properties": {"code": {"type": "string", "enum": []}}}]});
        json!({
            "description": http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused"),
            "content": {PROBLEM_JSON: {"schema": schema}},
        })
    });
    let codes = response
        .pointer_mut("/content/application~1problem+json/schema/allOf/1/properties/code/enum")
        .and_then(Value::as_array_mut);
    if let Some(codes) = codes
        && !codes.iter().any(|known| known == code)
    {
        codes.push(code.into());
    }
}

/// The document of several functions: their paths, and their schemas, of which two of one name are the same.
///
/// # Errors
/// When two functions have the same route, or mean different things by one name; the error says which.
pub fn merge(documents: impl IntoIterator<Item = Value>) -> Result<Value, String> {
    let mut merged: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for mut document in documents {
        for (kind, pointer) in [("paths", "/paths"), ("schemas", "/components/schemas")] {
            let members = document.pointer_mut(pointer).map(Value::take);
            let Some(Value::Object(members)) = members else {
                continue;
            };
            let all = merged.entry(kind).or_default();
            for (name, value) in members {
                match all.get(&name) {
                    Some(known) if *known != value => {
                        return Err(format!("two functions have another {name} in {kind}"));
                    }
                    Some(_) | None => all.insert(name, value),
                };
            }
        }
    }
    Ok(json!({
        "paths": merged.remove("paths").unwrap_or_default(),
        "components": {"schemas": merged.remove("schemas").unwrap_or_default()},
    }))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::api::values::ObjectId;

    #[derive(Deserialize, IntoParams)]
    struct ById {
        #[param(inline)]
        id: ObjectId,
    }

    #[derive(Serialize, ToSchema)]
    struct Thing {
        id: i64,
        /// Null when it has none.
        name: Option<String>,
    }

    /// One thing.
    #[utoipa::path(get, path = "/things/{id}")]
    async fn get(Path(ById { id }): Path<ById>) -> Result<Json<Thing>, Error> {
        let ObjectId(id) = id;
        Ok(Json(Thing { id, name: None }))
    }

    /// Fails.
    #[utoipa::path(get, path = "/things")]
    async fn list() -> Result<Json<Thing>, Error> {
        let cause = std::io::Error::other("password of db-1 refused");
        Err(Error::Internal(Box::new(cause)))
    }

    /// Nothing.
    #[utoipa::path(post, path = "/things")]
    async fn create(caller: Caller) -> Result<Json<Thing>, Error> {
        let name = Some(caller.actor().to_owned());
        Ok(Json(Thing { id: 1, name }))
    }

    fn routes() -> Routes<()> {
        Routes::new()
            .with_body_limit(10)
            .add(Access::Public, crate::routes!(get))
            .add(Access::Public, crate::routes!(list))
            .add(Access::Public, crate::routes!(create))
    }

    fn request(method: &str, uri: &str) -> Request {
        let request = http::Request::builder().method(method).uri(uri);
        request.body(Body::Empty).unwrap()
    }

    async fn answer(request: Request) -> (u16, Value, Response<Body>) {
        let api = routes().serve((), Authenticator::of_nobody());
        let response = api.answer(request, Timestamp::UNIX_EPOCH).await;
        let body = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body, response)
    }

    #[tokio::test]
    async fn a_route_is_its_method_and_its_exact_path() {
        let (status, body, response) = answer(request("GET", "/things/%37")).await;
        assert_eq!((status, body), (200, json!({"id": 7, "name": null})));
        assert_eq!(response.headers()["cache-control"], "no-store");
        for path in [
            "/",
            "/things/",
            "/things//",
            "//things",
            "/Things",
            "/things/7/",
            "/things/7/8",
            "/things/x",
            "/things/%zz",
            "/things/%ff",
            "/things%2F7",
        ] {
            let (status, problem, _) = answer(request("GET", path)).await;
            assert_eq!(
                (status, &problem["code"]),
                (404, &json!("not_found")),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn another_method_is_told_which_ones_there_are() {
        for (method, path, expected) in [
            ("HEAD", "/things/7", "GET"),
            ("POST", "/things/7", "GET"),
            ("DELETE", "/things", "GET, POST"),
            ("HEAD", "/things", "GET, POST"),
        ] {
            let (status, problem, response) = answer(request(method, path)).await;
            assert_eq!(status, 405, "{method} {path}");
            assert_eq!(problem["code"], "method_not_allowed");
            assert_eq!(response.headers()["allow"], expected, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn a_stage_of_the_gateway_is_not_part_of_the_path() {
        let envelope = r#"{"version":"2.0","routeKey":"$default","rawPath":"/prod/things/7",
            "rawQueryString":"","headers":{},"requestContext":{"stage":"prod","requestId":"abc=",
            "http":{"method":"GET","path":"/prod/things/7"}},"isBase64Encoded":false}"#;
        let request = lambda_http::request::from_str(envelope).unwrap();
        let (status, _, response) = answer(request).await;
        assert_eq!(status, 200);
        assert_eq!(response.headers()["x-request-id"], "abc=");
    }

    #[tokio::test]
    async fn a_problem_says_what_the_caller_can_mend_and_nothing_of_ours() {
        let (status, problem, response) = answer(request("GET", "/things/7?x=1")).await;
        assert_eq!(
            problem,
            json!({"code": "unknown_parameter", "title": "Bad Request", "status": 400, "field": "x",
                "detail": "this path takes no parameters", "request_id": problem["request_id"]})
        );
        assert_eq!(status, 400);
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(problem["request_id"], id);
        let (status, problem, _) = answer(request("GET", "/things")).await;
        assert_eq!((status, &problem["code"]), (500, &json!("internal")));
        assert!(!problem.to_string().contains("db-1") && problem["detail"].is_null());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_too_large() {
        for (bytes, expected) in [(10, 200), (11, 413)] {
            let mut sent = request("POST", "/things");
            *sent.body_mut() = Body::Binary(vec![b' '; bytes]);
            let (status, body, _) = answer(sent).await;
            assert_eq!(status, expected, "{body}");
        }
    }

    #[test]
    fn the_document_has_what_the_types_say_and_how_each_route_may_refuse() {
        let document = routes().document();
        let get = &document["paths"]["/things/{id}"]["get"];
        assert_eq!(get["operationId"], "get_things_id");
        assert_eq!(get["summary"], "One thing.");
        assert_eq!(get["security"], json!([]));
        assert_eq!(get["parameters"][0]["name"], "id");
        let statuses: Vec<&String> = get["responses"].as_object().unwrap().keys().collect();
        assert_eq!(statuses, ["200", "400", "404", "413", "500", "503"]);
        let thing = &document["components"]["schemas"]["Thing"];
        assert_eq!(
            thing["required"],
            json!(["id", "name"]),
            "null, and always there"
        );
        let twice = merge([document.clone(), document.clone()]).unwrap();
        assert_eq!(twice["paths"], document["paths"]);
        let mut other = document.clone();
        other["components"]["schemas"]["Thing"]["required"] = json!([]);
        assert!(merge([document, other]).unwrap_err().contains("Thing"));
    }
}
