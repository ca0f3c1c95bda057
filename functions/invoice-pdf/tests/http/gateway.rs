//! The sample envelope of API Gateway, as `cargo lambda invoke` sends it.

use jiff::Timestamp;
use lambda_http::http::HeaderValue;
use testing::{TestDatabase, logs};

use crate::requests::{admin, answer, app, body};

#[tokio::test]
async fn the_sample_envelope_is_answered() {
    let database = TestDatabase::create().await;
    let app = app(&database.url, None, &[]);
    let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    let text = include_str!("../../../../events/apigw_invoice_pdf.json");
    let envelope = || lambda_http::request::from_str(text).expect("an envelope");
    let without_a_token = answer(&app, envelope(), now).await;
    assert_eq!(
        without_a_token.status(),
        401,
        "the sample has a placeholder"
    );
    let mut request = envelope();
    let token = HeaderValue::from_str(&admin(now)).unwrap();
    request.headers_mut().insert("authorization", token);
    let response = answer(&app, request, now).await;
    assert_eq!(response.status(), 404, "an empty ledger");
    assert_eq!(body(&response)["code"], "not_found");
    let id = response.headers()["x-request-id"].to_str().unwrap();
    assert!(text.contains(&format!("\"requestId\": \"{id}\"")), "{id}");
}

#[test]
fn without_its_configuration_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_invoice-pdf"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("DATABASE_URL"), "{line}");
}
