//! `docs/openapi.json` is what the functions say they take. `UPDATE_OPENAPI=1 cargo test -p local openapi` writes it.

use std::collections::BTreeSet;

use local::bundle::Bundle;
use local::openapi::document;
use serde_json::Value;
use testing::contract::Contract;
use testing::workspace_root;

#[expect(
    clippy::disallowed_methods,
    reason = "whether to write the file is said by who runs the test"
)]
fn is_to_be_written() -> bool {
    std::env::var("UPDATE_OPENAPI").is_ok_and(|value| value == "1")
}

#[test]
fn the_document_is_what_the_functions_say() {
    let document = document().unwrap();
    Contract::new(document.clone()).assert_complete();
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let file = workspace_root().join("docs/openapi.json");
    if is_to_be_written() {
        std::fs::write(&file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed
        .lines()
        .zip(text.lines())
        .position(|(committed, said)| committed != said);
    assert!(
        committed == text,
        "docs/openapi.json is stale from line {} on; write it with UPDATE_OPENAPI=1 cargo test -p local openapi",
        differs.unwrap_or_default() + 1
    );

    // Every route, and no other.
    let mut routes: Vec<(String, String)> = Bundle::routes()
        .iter()
        .map(|route| (route.path.clone(), route.method.to_lowercase()))
        .collect();
    routes.sort();
    let paths = document["paths"].as_object().unwrap();
    let mut described: Vec<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.keys().map(|method| (path.clone(), method.clone()))
        })
        .collect();
    described.sort();
    assert_eq!(described, routes);

    // What takes an id is linked from what names one. The words of reports and exports are in their schemas, and the
    // application has its users' ids.
    let unnamed = ["{report}", "{export}", "/usage/limit-check/user/{id}"];
    let operations = || {
        let methods = |(path, methods): (_, &'_ Value)| {
            let methods = methods.as_object().unwrap().clone();
            methods
                .into_values()
                .map(move |operation| (path, operation))
        };
        paths.iter().flat_map(methods)
    };
    let links = operations().flat_map(|(_, operation)| {
        let responses = operation["responses"].as_object().unwrap().clone();
        let links = |response: Value| response["links"].as_object().cloned().unwrap_or_default();
        responses.into_values().flat_map(links)
    });
    let linked: BTreeSet<String> = links.map(|(operation, _)| operation).collect();
    for (path, operation) in operations() {
        let id = operation["operationId"].as_str().unwrap();
        let takes_an_id = path.contains('{') && !unnamed.iter().any(|part| path.contains(part));
        assert_eq!(linked.contains(id), takes_an_id, "{id}");
    }

    // Only Stripe comes without a token: its signature is checked.
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let is_open = path == "/payments/webhook" || path == "/webhooks/stripe";
            assert_eq!(security.is_empty(), is_open, "{method} {path}");
        }
    }
}
