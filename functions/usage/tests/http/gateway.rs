//! The sample envelopes under `events/`, as the gateway sends them.

use lambda_http::Request;
use serde_json::{Value, json};
use testing::contract::Contract;
use testing::logs;
use usage::routes;

use crate::ledger::{Ledger, NOW, answer, body, event, service};

const SAMPLES: [(&str, &str); 10] = [
    (
        "one event",
        include_str!("../../../../events/apigw_usage_event.json"),
    ),
    (
        "a batch",
        include_str!("../../../../events/apigw_usage_events_batch.json"),
    ),
    (
        "the query form",
        include_str!("../../../../events/apigw_usage_events_query.json"),
    ),
    (
        "a reservation",
        include_str!("../../../../events/apigw_usage_reserve.json"),
    ),
    (
        "a limit check",
        include_str!("../../../../events/apigw_usage_limit_check.json"),
    ),
    (
        "a quote",
        include_str!("../../../../events/apigw_usage_overage_quote.json"),
    ),
    (
        "months",
        include_str!("../../../../events/apigw_usage_monthly.json"),
    ),
    (
        "a void",
        include_str!("../../../../events/apigw_usage_void.json"),
    ),
    (
        "what an invoice would be",
        include_str!("../../../../events/apigw_usage_current.json"),
    ),
    (
        "invoices",
        include_str!("../../../../events/apigw_usage_invoices.json"),
    ),
];

fn envelope(text: &str) -> Request {
    lambda_http::request::from_str(text).expect("an envelope")
}

#[tokio::test]
async fn the_sample_envelopes_are_answered_one_after_the_other() {
    let ledger = Ledger::create().await;
    ledger
        .run("INSERT INTO users (id, plan) VALUES (42, 'free')")
        .await;
    ledger.contract("dp_pk_live", "api_usage", -1).await;
    let mut answers: Vec<Value> = Vec::new();
    for (name, text) in SAMPLES {
        let without_a_token = answer(&ledger.app, envelope(text), NOW.parse().unwrap()).await;
        assert_eq!(
            without_a_token.status(),
            401,
            "{name}: the sample has a placeholder"
        );
        let mut request = envelope(text);
        request
            .headers_mut()
            .insert("authorization", service().parse().unwrap());
        let response = answer(&ledger.app, request, NOW.parse().unwrap()).await;
        assert_eq!(response.status(), 200, "{name}: {}", body(&response));
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert!(
            text.contains(&format!("\"requestId\": \"{id}\"")),
            "{name}: the gateway's own id: {id}"
        );
        answers.push(body(&response));
    }
    let [
        one,
        batch,
        query,
        reserved,
        check,
        quote,
        months,
        voided,
        current,
        invoices,
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(
        (&one["accepted"], &batch["accepted"], &query["accepted"]),
        (&json!(1), &json!(1), &json!(1))
    );
    // The partner's contract counts the gateway's requests.
    assert_eq!(batch["unbillable"], 1);
    assert_eq!((&reserved["used"], &check["used"]), (&json!(3), &json!(3)));
    assert_eq!(
        (&quote["free_units"], &quote["total_cents"]),
        (&json!(2), &json!(500))
    );
    assert_eq!(months[0]["events"], 3);
    assert_eq!(voided["subject"], "user:42");
    assert_eq!(current["total_cents"], 0);
    assert_eq!(invoices, &json!({"data": [], "next_cursor": null}));
}

#[tokio::test]
async fn another_method_or_path_is_told_apart() {
    let ledger = Ledger::create().await;
    for (method, path, status) in [
        ("GET", "/usage/events", 405),
        ("POST", "/usage/overage/quote", 405),
        ("POST", "/usage/events/", 404),
        ("POST", "/usage//events", 404),
        ("GET", "/usage/limit-check/user/", 404),
        ("GET", "/usage", 404),
    ] {
        let sent = crate::ledger::request(method, path, Some(&service()), None);
        assert_eq!(ledger.call(sent, NOW).await.0, status, "{method} {path}");
    }
    let large = json!({"events": [event(1, &"x".repeat(1024 * 1024))]});
    assert_eq!(ledger.post("/usage/events", &large, NOW).await.0, 413);
}

#[test]
fn the_document_says_what_everything_is_and_every_reference_leads_somewhere() {
    Contract::new(routes().document()).assert_complete();
}

#[test]
fn without_its_configuration_the_program_says_which_variable_is_missing() {
    let line = logs::of_a_start_without_configuration(env!("CARGO_BIN_EXE_usage"));
    assert_eq!(line["level"], "ERROR");
    let cause = line["fields"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("DATABASE_URL"), "{line}");
}
