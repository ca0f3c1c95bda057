//! The function over a database of a test's own, and requests to its real handler.

use std::sync::LazyLock;

use invoice_pdf::{App, handle, routes};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use lambda_http::{Body, Request, Response};
use runtime::config::Environment;
use serde_json::{Value, json};
use testing::contract::Contract;
use testing::roles::as_function;
use testing::{Aws, aws};

/// Signs the tests' tokens.
pub(crate) const JWT_SECRET: &str = "the secret of the host application";

/// The function over a database URL, and over the AWS stand-in or none.
pub(crate) fn app(database_url: &str, aws: Option<&Aws>, pairs: &[(&str, &str)]) -> App {
    let mut variables = vec![
        ("DATABASE_URL", database_url),
        ("DATABASE_POOL_SIZE", "4"),
        ("ADMIN_JWT_SECRET", JWT_SECRET),
    ];
    variables.extend(pairs);
    let sdk = match aws {
        Some(aws) => aws.sdk_config(),
        // Nobody listens there.
        None => aws::sdk_config("http://127.0.0.1:1"),
    };
    App::from_env(
        &as_function("invoice-pdf", &Environment::from_pairs(variables)),
        &sdk,
    )
    .expect("an app")
}

/// What the function answers, compared with its document: every answer of these tests is.
pub(crate) async fn answer(app: &App, request: Request, now: Timestamp) -> Response<Body> {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::new(routes().document()));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = handle(app, request, now).await;
    CONTRACT.check(method.as_str(), &path, &response);
    response
}

/// A request as the gateway hands it over.
pub(crate) fn request(method: &str, path: &str, authorization: Option<&str>) -> Request {
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = path.parse().expect("a path");
    if let Some(token) = authorization {
        let token = token.parse().expect("a header");
        request.headers_mut().insert("authorization", token);
    }
    request
}

/// The header of an admin whose token is valid at `now`.
pub(crate) fn admin(now: Timestamp) -> String {
    bearer(&json!({"exp": now.as_second() + 60, "role": "admin"}))
}

/// The header of a partner whose token is valid at `now`.
pub(crate) fn partner(api_key_prefix: &str, now: Timestamp) -> String {
    bearer(&json!({"exp": now.as_second() + 60, "partner": api_key_prefix}))
}

pub(crate) fn bearer(claims: &Value) -> String {
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes()).expect("a key");
    let token = jsonwebtoken::encode(&Header::default(), claims, &key).expect("a token");
    format!("Bearer {token}")
}

pub(crate) fn body(response: &Response<Body>) -> Value {
    serde_json::from_slice(response.body()).expect("a JSON body")
}
