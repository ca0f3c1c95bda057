//! API Gateway's envelope: the request in it, and the answer as the gateway wants it.
//!
//! `lambda_http` does the same; but it links every text encoding and the tables of international host names for it
//! (0.5 MB), and panics on a `Host` that is no host name.

use lambda_http::aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse};
use lambda_http::http::Uri;
use lambda_http::request::RequestContext;
use lambda_http::{Body, Context, Request, RequestExt, Response};

/// The request, as far as the webhook looks at it: method, path, headers, body, and the ids of its contexts.
pub(crate) fn request(envelope: ApiGatewayV2httpRequest, context: Context) -> Request {
    let is_base64 = envelope.is_base64_encoded;
    let body = envelope.body.as_deref();
    let mut request = Request::new(body.map_or(Body::Empty, |body| {
        Body::from_maybe_encoded(is_base64, body)
    }));
    let path = envelope.raw_path.unwrap_or_default();
    *request.method_mut() = envelope.request_context.http.method.clone();
    *request.uri_mut() = Uri::try_from(path.as_str()).unwrap_or_default();
    *request.headers_mut() = envelope.headers;
    request
        .with_raw_http_path(&path)
        .with_request_context(RequestContext::ApiGatewayV2(envelope.request_context))
        .with_lambda_context(context)
}

/// The answer; bodies are text here.
pub(crate) fn answer(response: Response<Body>) -> ApiGatewayV2httpResponse {
    let (parts, body) = response.into_parts();
    let mut answer = ApiGatewayV2httpResponse::default();
    answer.status_code = parts.status.as_u16().into();
    answer.headers = parts.headers;
    answer.body = Some(body);
    answer
}
