//! One port for everything: the HTTP routes behind a gateway, and the Lambda Invoke path.

use crate::bundle::{Bundle, InvokeError, Route};
use crate::gateway::{self, Incoming, Routing};
use crate::{Clock, Error};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What API Gateway takes at most.
const BODY_LIMIT: usize = 10 * 1024 * 1024;

/// Before and after the function's name in the path of the Invoke API.
const INVOKE_PATH: (&str, &str) = ("/2015-03-31/functions/", "/invocations");

#[derive(Debug)]
struct Server {
    bundle: Arc<Bundle>,
    routes: Vec<Route>,
    clock: Clock,
}

/// Answers until `stop` is ready, then finishes what it is at.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    bundle: Arc<Bundle>,
    clock: Clock,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let server = Arc::new(Server {
        bundle,
        routes: Bundle::routes(),
        clock,
    });
    let app = axum::Router::new()
        .fallback(answer)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(server)
        .into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await
        .map_err(|error| Error::because("the HTTP server failed", error))
}

async fn answer(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response<Body> {
    let now = (server.clock)();
    let request_id = format!("local-{:016x}", rand::random::<u64>());
    let body = match body {
        Ok(body) => body,
        Err(refused) => {
            let title = "the body is longer than 10 MB, or broke off";
            return problem(refused.status(), "payload_too_large", title, &request_id);
        }
    };
    if let Some(function) = invoked_function(uri.path()) {
        return match method {
            Method::POST => invocation(&server, function, &headers, &body, now).await,
            _ => method_not_allowed("POST", &request_id),
        };
    }
    match gateway::route(&server.routes, &method, uri.path()) {
        Routing::NotFound => problem(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such path",
            &request_id,
        ),
        Routing::MethodNotAllowed(allowed) => method_not_allowed(&allowed.join(", "), &request_id),
        Routing::Found(route, parameters) => {
            let incoming = Incoming {
                method: &method,
                uri: &uri,
                headers: &headers,
                body: &body,
                source_ip: &peer.ip().to_string(),
            };
            let event = gateway::event(&incoming, &route, &parameters, &request_id, now);
            let answer = invoke(&server, route.function, event, now).await;
            match answer.map(|answer| gateway::http_response(&answer)) {
                Ok(Ok(response)) => response.map(Body::from),
                Ok(Err(error)) => {
                    tracing::error!(function = route.function, %error, "a function's answer is unusable");
                    internal_error(&request_id)
                }
                Err(error) => {
                    tracing::error!(function = route.function, %error, "a function failed");
                    internal_error(&request_id)
                }
            }
        }
    }
}

/// The Invoke API: <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>.
async fn invocation(
    server: &Arc<Server>,
    function: &str,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Response<Body> {
    let event: Value = if body.is_empty() {
        json!({})
    } else {
        match serde_json::from_slice(body) {
            Ok(event) => event,
            Err(error) => {
                let message = format!("Could not parse request body into json: {error}");
                let answer = json!({ "Type": "User", "message": message });
                return with_header(
                    respond(StatusCode::BAD_REQUEST, "application/json", &answer),
                    "x-amzn-errortype",
                    HeaderValue::from_static("InvalidRequestContentException"),
                );
            }
        }
    };
    if !Bundle::FUNCTIONS.contains(&function) {
        let answer =
            json!({ "Type": "User", "Message": format!("Function not found: {function}") });
        return with_header(
            respond(StatusCode::NOT_FOUND, "application/json", &answer),
            "x-amzn-errortype",
            HeaderValue::from_static("ResourceNotFoundException"),
        );
    }
    let kind = headers
        .get("x-amz-invocation-type")
        .map(HeaderValue::as_bytes);
    if kind == Some(b"DryRun") {
        // The caller might invoke it, and nothing runs.
        return status_only(StatusCode::NO_CONTENT);
    }
    if kind == Some(b"Event") {
        let (server, function) = (Arc::clone(server), function.to_owned());
        drop(tokio::spawn(async move {
            if let Err(error) = invoke(&server, &function, event, now).await {
                tracing::error!(%function, %error, "an invocation failed");
            }
        }));
        return status_only(StatusCode::ACCEPTED);
    }
    match invoke(server, function, event, now).await {
        Ok(answer) => respond(StatusCode::OK, "application/json", &answer),
        Err(error) => {
            let answer = json!({ "errorType": "Error", "errorMessage": error.to_string() });
            with_header(
                respond(StatusCode::OK, "application/json", &answer),
                "x-amz-function-error",
                HeaderValue::from_static("Unhandled"),
            )
        }
    }
}

/// Runs the function in a separate task: a caller that hangs up does not cut it off, and a panic becomes a
/// failed invocation, as in Lambda.
async fn invoke(
    server: &Arc<Server>,
    function: &str,
    event: Value,
    now: Timestamp,
) -> Result<Value, InvokeError> {
    let (bundle, function) = (Arc::clone(&server.bundle), function.to_owned());
    let invocation = tokio::spawn(async move { bundle.invoke(&function, event, now).await });
    match invocation.await {
        Ok(answer) => answer,
        Err(error) => Err(InvokeError::Failed(error.to_string())),
    }
}

fn invoked_function(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix(INVOKE_PATH.0)?
        .strip_suffix(INVOKE_PATH.1)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn method_not_allowed(allowed: &str, request_id: &str) -> Response<Body> {
    let title = "the path does not take this method";
    let response = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        title,
        request_id,
    );
    match HeaderValue::try_from(allowed) {
        Ok(allow) => with_header(response, header::ALLOW.as_str(), allow),
        Err(_) => response,
    }
}

fn internal_error(request_id: &str) -> Response<Body> {
    let title = "something went wrong on our side";
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        title,
        request_id,
    )
}

/// A refusal as `application/problem+json` (RFC 9457).
fn problem(status: StatusCode, code: &str, title: &str, request_id: &str) -> Response<Body> {
    let body = json!({
        "type": "about:blank",
        "code": code,
        "title": title,
        "status": status.as_u16(),
        "request_id": request_id,
    });
    let response = respond(status, "application/problem+json", &body);
    match HeaderValue::try_from(request_id) {
        Ok(id) => with_header(response, "x-request-id", id),
        Err(_) => response,
    }
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    with_header(
        response,
        header::CONTENT_TYPE.as_str(),
        HeaderValue::from_static(content_type),
    )
}

fn with_header(mut response: Response<Body>, name: &str, value: HeaderValue) -> Response<Body> {
    if let Ok(name) = header::HeaderName::try_from(name) {
        response.headers_mut().insert(name, value);
    }
    response
}
