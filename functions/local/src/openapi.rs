//! The OpenAPI document of the bundle: what the functions' route tables say of their routes, put together.

use runtime::api::router::merge;
use serde_json::{Map, Value, json};

use crate::Error;

/// `docs/openapi.json`.
///
/// # Errors
/// When two functions have the same route, or mean different things by one name; the error says which.
pub fn document() -> Result<Value, Error> {
    let documents = [
        ("webhook", webhook::routes().document()),
        ("admin-revenue", admin_revenue::routes().document()),
        ("usage", usage::routes().document()),
        ("invoice-pdf", invoice_pdf::routes().document()),
    ];
    let documents = documents
        .into_iter()
        .map(|(function, document)| tagged(document, function));
    let mut document = merge(documents).map_err(Error::new)?;
    link(&mut document);
    document["openapi"] = "3.1.0".into();
    document["info"] = json!({
        "title": "DeedPro Billing",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "MIT", "identifier": "MIT"},
        "description": "Amounts are integers in minor units of their currency; instants are RFC 3339 in UTC. Errors \
            are application/problem+json with a stable code. Every answer carries x-request-id.",
    });
    document["servers"] =
        json!([{"url": "http://127.0.0.1:9000", "description": "cargo run -p local"}]);
    document["tags"] = json!([
        {"name": "webhook", "description": "What Stripe calls"},
        {"name": "admin-revenue", "description": "The admin dashboard"},
        {"name": "usage", "description": "The application's backend and the partners"},
        {"name": "invoice-pdf", "description": "Invoices as documents"},
    ]);
    let staff = |role: &str| {
        let description = format!(
            "The host application's JWT whose role or scope contains {role}, or a higher role: viewer, finance, admin"
        );
        json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": description})
    };
    document["components"]["securitySchemes"] = json!({
        "viewer": staff("viewer"),
        "finance": staff("finance"),
        "admin": staff("admin"),
        "partner": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A JWT with partner: its api_key_prefix; reads what is its own"},
        "service": {"type": "http", "scheme": "bearer",
            "description": "A service token of the application's backend"},
    });
    Ok(document)
}

/// Each operation with the name of its function.
fn tagged(mut document: Value, function: &str) -> Value {
    let items = document["paths"].as_object_mut().into_iter().flatten();
    for (_, item) in items {
        for (_, operation) in item.as_object_mut().into_iter().flatten() {
            operation["tags"] = json!([function]);
        }
    }
    document
}

/// An operation with what is needed to link it.
struct Operation {
    method: String,
    path: String,
    id: String,
    /// By status, the JSON pointers into its answer, each with the name of the member it leads to.
    answers: Vec<(String, Vec<(String, String)>)>,
}

/// Links each answer to the operations that go on with what it names: a list of invoices to the invoice, and to what voids
/// it. A member is taken for a path's parameter when it has the parameter's name and the same collection, or says by its
/// name which collection it belongs to (`invoice_id`).
fn link(document: &mut Value) {
    let operations = operations(document);
    for from in &operations {
        for (status, members) in &from.answers {
            let mut links = Map::new();
            let others = operations
                .iter()
                .filter(|to| to.id != from.id && segments(&to.path, 1) == segments(&from.path, 1));
            for to in others {
                // Each path has at most one parameter.
                let Some((before, after)) = to.path.split_once('{') else {
                    continue;
                };
                let parameter = after.split('}').next().unwrap_or(after);
                let names = |member: &str| {
                    let same_collection = segments(&from.path, 2) == segments(&to.path, 2);
                    (member == parameter && same_collection)
                        || member == named_elsewhere(before, parameter)
                };
                if let Some((pointer, _)) = members.iter().find(|(_, member)| names(member)) {
                    let expression = format!("$response.body#{pointer}");
                    let link = json!({"operationId": to.id, "parameters": {parameter: expression}});
                    links.insert(to.id.clone(), link);
                }
            }
            if !links.is_empty() {
                document["paths"][&from.path][&from.method]["responses"][status]["links"] =
                    links.into();
            }
        }
    }
}

/// The first `count` segments: 2 of `/admin/invoices/{id}/void` are `/admin/invoices`.
fn segments(path: &str, count: usize) -> &str {
    let end = path.match_indices('/').nth(count);
    end.map_or(path, |(end, _)| path.split_at(end).0)
}

/// What other answers call a path's parameter: `invoice_id` for the `{id}` of `/admin/invoices/{id}`.
fn named_elsewhere(before: &str, parameter: &str) -> String {
    match parameter {
        "id" => {
            let plural = before.trim_end_matches('/').rsplit('/').next();
            format!("{}_id", plural.unwrap_or_default().trim_end_matches('s'))
        }
        "prefix" => "api_key_prefix".to_owned(),
        other => other.to_owned(),
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let responses = operation["responses"].as_object().into_iter().flatten();
            let answers = responses.filter(|(status, _)| status.starts_with('2')).map(
                |(status, response)| {
                    let schema = &response["content"]["application/json"]["schema"];
                    let mut members = Vec::new();
                    collect_members(document, schema, "", &mut members);
                    (status.clone(), members)
                },
            );
            operations.push(Operation {
                method: method.clone(),
                path: path.clone(),
                id: text(&operation["operationId"]),
                answers: answers.collect(),
            });
        }
    }
    operations
}

/// The members of an answer and of the first item of its list.
fn collect_members(
    document: &Value,
    schema: &Value,
    pointer: &str,
    members: &mut Vec<(String, String)>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        collect_members(document, target.unwrap_or(&Value::Null), pointer, members);
    }
    for word in ["allOf", "anyOf"] {
        for part in schema[word].as_array().into_iter().flatten() {
            collect_members(document, part, pointer, members);
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let here = format!("{pointer}/{name}");
        if pointer.is_empty() && property["type"] == "array" {
            collect_members(document, &property["items"], &format!("{here}/0"), members);
        }
        members.push((here, name.clone()));
    }
}
