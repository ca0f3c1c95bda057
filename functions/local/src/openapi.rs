//! The OpenAPI document of the bundle: what the functions' route tables say of their routes, put together.

use runtime::api::router::merge;
use serde_json::{Value, json};

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
