//! What API Gateway does between HTTP and a function: payload format 2.0, there and back.
//!
//! Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>.

use crate::bundle::Route;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use jiff::Timestamp;
use lambda_http::Body;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Why an event is not one of API Gateway's, or an answer is not one for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event has not the shape of payload format 2.0.
    #[error("the event is not an API Gateway event (payload format 2.0)")]
    Event(#[source] serde_json::Error),
    /// The answer has not the shape of payload format 2.0.
    #[error("the function's answer is not an API Gateway response: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: &'static str,
        /// The parser's word, where there is one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// What the routes say to a method and a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Routing {
    /// This route, with the values of its `{param}` segments.
    Found(Route, BTreeMap<String, String>),
    /// The path is known, the method is not; these are.
    MethodNotAllowed(Vec<String>),
    /// No route has this path.
    NotFound,
}

/// Finds the route of a request. A trailing slash or `//` is another path.
#[must_use]
pub fn route(routes: &[Route], method: &Method, path: &str) -> Routing {
    let mut allowed = Vec::new();
    let mut found: Option<(Route, BTreeMap<String, String>)> = None;
    for candidate in routes {
        let Some(parameters) = matches(&candidate.path, path) else {
            continue;
        };
        allowed.push(candidate.method.clone());
        // `/invoices/export` goes before `/invoices/{id}`: the fewer parameters, the better.
        let better = found
            .as_ref()
            .is_none_or(|(_, other)| parameters.len() < other.len());
        if candidate.method == method.as_str() && better {
            found = Some((candidate.clone(), parameters));
        }
    }
    match found {
        Some((route, parameters)) => Routing::Found(route, parameters),
        None if allowed.is_empty() => Routing::NotFound,
        None => {
            allowed.sort_unstable();
            allowed.dedup();
            Routing::MethodNotAllowed(allowed)
        }
    }
}

fn matches(template: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(expected), Some(given)) => {
                let name = expected
                    .strip_prefix('{')
                    .and_then(|rest| rest.strip_suffix('}'));
                match name {
                    Some(name) if !given.is_empty() => {
                        parameters.insert(name.to_owned(), given.to_owned());
                    }
                    Some(_) => return None,
                    None if expected == given => {}
                    None => return None,
                }
            }
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

/// A request as it comes in from the network.
#[derive(Debug)]
pub struct Incoming<'a> {
    pub method: &'a Method,
    /// Path and query as the client sent them.
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// IP address of the client.
    pub source_ip: &'a str,
}

/// The event that API Gateway would send for a request.
#[must_use]
pub fn event(
    request: &Incoming<'_>,
    route: &Route,
    parameters: &BTreeMap<String, String>,
    request_id: &str,
    now: Timestamp,
) -> Value {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut cookies: Vec<String> = Vec::new();
    for (name, value) in request.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == http::header::COOKIE {
            cookies.extend(value.split("; ").map(str::to_owned));
        } else {
            headers.entry(name.as_str()).or_default().push(value);
        }
    }
    let headers: Map<String, Value> = headers
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values.join(",").into()))
        .collect();
    let text = |name: HeaderName| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let host = text(http::header::HOST).unwrap_or("localhost");
    let route_key = format!("{} {}", route.method, route.path);
    let mut event = json!({
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": request.uri.path(),
        "rawQueryString": request.uri.query().unwrap_or_default(),
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": "local",
            "http": {
                "method": request.method.as_str(),
                "path": request.uri.path(),
                "protocol": "HTTP/1.1",
                "sourceIp": request.source_ip,
                "userAgent": text(http::header::USER_AGENT).unwrap_or_default(),
            },
            "requestId": request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
            "timeEpoch": now.as_millisecond(),
        },
        "isBase64Encoded": false,
    });
    if !cookies.is_empty() {
        event["cookies"] = cookies.into();
    }
    if !parameters.is_empty() {
        event["pathParameters"] = json!(parameters);
    }
    if !request.body.is_empty() {
        // The gateway passes text on as text and everything else as base64.
        let content_type = text(http::header::CONTENT_TYPE).unwrap_or_default();
        let is_text =
            content_type.starts_with("text/") || content_type.starts_with("application/json");
        match std::str::from_utf8(request.body) {
            Ok(body) if is_text => event["body"] = body.into(),
            Ok(_) | Err(_) => {
                event["body"] = BASE64.encode(request.body).into();
                event["isBase64Encoded"] = true.into();
            }
        }
    }
    event
}

/// The request that a function sees for an event.
///
/// # Errors
/// When the event is not of payload format 2.0.
pub fn request(event: &Value) -> Result<lambda_http::Request, Error> {
    lambda_http::request::from_str(&event.to_string()).map_err(Error::Event)
}

/// What a function's response looks like to API Gateway.
#[must_use]
pub fn response(response: Response<Body>) -> Value {
    let (parts, body) = response.into_parts();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    let mut cookies: Vec<String> = Vec::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == http::header::SET_COOKIE {
            cookies.push(value);
            continue;
        }
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert(value);
    }
    let (body, is_base64) = match &body {
        Body::Text(text) => (text.clone(), false),
        // `Body` may grow; whatever it is, it has bytes.
        Body::Binary(_) | Body::Empty | _ => (BASE64.encode(&*body), !body.is_empty()),
    };
    json!({
        "statusCode": parts.status.as_u16(),
        "headers": headers,
        "multiValueHeaders": {},
        "cookies": cookies,
        "body": body,
        "isBase64Encoded": is_base64,
    })
}

/// The HTTP response that API Gateway makes of a function's answer.
///
/// # Errors
/// When the answer is not of payload format 2.0.
pub fn http_response(answer: &Value) -> Result<Response<Vec<u8>>, Error> {
    let status = answer
        .get("statusCode")
        .and_then(Value::as_u64)
        .and_then(|status| u16::try_from(status).ok())
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(Error::Answer {
            reason: "no valid statusCode",
            source: None,
        })?;
    let text = answer
        .get("body")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let body = if answer.get("isBase64Encoded").and_then(Value::as_bool) == Some(true) {
        BASE64
            .decode(text)
            .map_err(|error| unusable("a body that is not base64", error))?
    } else {
        text.as_bytes().to_vec()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = answer.get("headers").and_then(Value::as_object);
    for (name, value) in headers.into_iter().flatten() {
        let name = HeaderName::try_from(name.as_str())
            .map_err(|error| unusable("an invalid header name", error))?;
        let value = HeaderValue::try_from(value.as_str().unwrap_or_default())
            .map_err(|error| unusable("an invalid header value", error))?;
        response.headers_mut().insert(name, value);
    }
    let cookies = answer.get("cookies").and_then(Value::as_array);
    for cookie in cookies.into_iter().flatten().filter_map(Value::as_str) {
        let value =
            HeaderValue::try_from(cookie).map_err(|error| unusable("an invalid cookie", error))?;
        response
            .headers_mut()
            .append(http::header::SET_COOKIE, value);
    }
    Ok(response)
}

fn unusable(
    reason: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Answer {
        reason,
        source: Some(source.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Incoming, Routing, event, http_response, request, response, route};
    use crate::bundle::Route;
    use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
    use jiff::Timestamp;
    use lambda_http::{Body, RequestExt};
    use std::collections::BTreeMap;

    fn routes() -> [Route; 3] {
        [
            ("a", "GET", "/invoices/{id}"),
            ("a", "GET", "/invoices/export"),
            ("b", "POST", "/invoices/{id}/void"),
        ]
        .map(|(function, method, path)| Route {
            function,
            method: method.to_owned(),
            path: path.to_owned(),
        })
    }

    fn parts(body: &[u8], content_type: &str) -> lambda_http::Request {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            HeaderValue::from_str(content_type).expect("a value"),
        );
        headers.append("x-twice", HeaderValue::from_static("1"));
        headers.append("x-twice", HeaderValue::from_static("2"));
        headers.insert("host", HeaderValue::from_static("127.0.0.1:9000"));
        let uri = Uri::from_static("/invoices/a%20b?x=1&x=2&y=%C3%A4");
        let incoming = Incoming {
            method: &Method::GET,
            uri: &uri,
            headers: &headers,
            body,
            source_ip: "127.0.0.1",
        };
        let parameters = BTreeMap::from([("id".to_owned(), "a%20b".to_owned())]);
        let event = event(
            &incoming,
            &routes()[0],
            &parameters,
            "request-1",
            Timestamp::UNIX_EPOCH,
        );
        request(&event).expect("an event that lambda_http reads")
    }

    #[test]
    fn a_body_arrives_byte_for_byte_whatever_it_is() {
        for body in [
            b"{\"a\": 1}\n".as_slice(),
            b"\xff\xfe\x00",
            "ä\r\n".as_bytes(),
            b"",
        ] {
            for content_type in [
                "application/json",
                "application/octet-stream",
                "text/plain; charset=utf-8",
            ] {
                assert_eq!(parts(body, content_type).body().as_ref(), body);
            }
        }
    }

    #[test]
    fn path_query_and_headers_arrive_as_in_lambda() {
        let request = parts(b"", "text/plain");
        assert_eq!(request.uri().path(), "/invoices/a%20b");
        assert_eq!(request.uri().query(), Some("x=1&x=2&y=%C3%A4"));
        let query = request.query_string_parameters();
        assert_eq!(query.all("x"), Some(vec!["1", "2"]));
        assert_eq!(query.first("y"), Some("ä"));
        assert_eq!(request.headers()["x-twice"], "1,2");
        assert_eq!(request.path_parameters().first("id"), Some("a%20b"));
    }

    #[test]
    fn a_response_comes_back_byte_for_byte() {
        for body in [
            Body::Text("ä".to_owned()),
            Body::Binary(vec![0xff, 0]),
            Body::Empty,
        ] {
            let bytes = body.as_ref().to_vec();
            let mut given = Response::new(body);
            *given.status_mut() = StatusCode::PAYMENT_REQUIRED;
            given
                .headers_mut()
                .insert("x-request-id", HeaderValue::from_static("1"));
            given
                .headers_mut()
                .append("set-cookie", HeaderValue::from_static("a=1"));
            given
                .headers_mut()
                .append("set-cookie", HeaderValue::from_static("b=2"));
            let back = http_response(&response(given)).expect("a response");
            assert_eq!(back.status(), StatusCode::PAYMENT_REQUIRED);
            assert_eq!(back.headers()["x-request-id"], "1");
            assert_eq!(back.headers().get_all("set-cookie").iter().count(), 2);
            assert_eq!(*back.body(), bytes);
        }
    }

    #[test]
    fn a_path_finds_its_route_or_says_why_not() {
        let found = |method, path| match route(&routes(), &method, path) {
            Routing::Found(route, _) => route.path,
            Routing::MethodNotAllowed(methods) => methods.join(","),
            Routing::NotFound => "not found".to_owned(),
        };
        assert_eq!(found(Method::GET, "/invoices/7"), "/invoices/{id}");
        assert_eq!(found(Method::GET, "/invoices/export"), "/invoices/export");
        assert_eq!(
            found(Method::POST, "/invoices/7/void"),
            "/invoices/{id}/void"
        );
        assert_eq!(found(Method::DELETE, "/invoices/7"), "GET");
        assert_eq!(found(Method::HEAD, "/invoices/7"), "GET");
        for other in [
            "/invoices/",
            "/invoices//void",
            "/invoices/7/",
            "//invoices/7",
            "/",
        ] {
            assert_eq!(found(Method::GET, other), "not found", "{other}");
        }
    }
}
