//! The OpenAPI document of the HTTP routes, asked from the functions themselves.
//!
//! Every route of the tables is sent requests that cannot succeed, and what the handler answers says what it takes:
//! which tokens it lets through, which parameters, words and members it knows, whether it honours an
//! `Idempotency-Key`. What no refusal tells (what an answer holds, in words and schemas) stands in `described`.

mod described;
mod probe;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::Error;
use crate::bundle::{Bundle, Route};
use probe::{Asked, Prober};

/// A column of a table, as the catalog of the migrated database has it.
#[derive(Debug, Clone)]
pub struct Column {
    /// `invoices`.
    pub table: String,
    /// `amount_due_cents`.
    pub name: String,
    /// `bigint`.
    pub data_type: String,
    /// Whether it may be NULL.
    pub is_nullable: bool,
}

/// The document. `columns` are those of the tables whose rows are answered.
///
/// # Errors
/// When a route is not described, a description has no route, or a handler says nothing that can be understood.
pub async fn document(columns: &[Column], now: jiff::Timestamp) -> Result<Value, Error> {
    let prober = Prober::new(now)?;
    let mut descriptions = described::operations();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in Bundle::routes() {
        let key = format!("{} {}", route.method, route.path);
        let description = descriptions
            .remove(&key)
            .ok_or_else(|| Error::new(format!("openapi/described.rs does not describe {key}")))?;
        let operation = operation(&prober, route, &description).await?;
        paths
            .entry(route.path)
            .or_default()
            .insert(route.method.to_lowercase(), operation);
    }
    if let Some(key) = descriptions.keys().next() {
        return Err(Error::new(format!(
            "openapi/described.rs describes {key}, which is no route"
        )));
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DeedPro Billing",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "Amounts are integers in minor units of their currency; instants are RFC 3339 in UTC. Errors \
                are application/problem+json with a stable code. Every answer carries x-request-id.",
        },
        "servers": [{"url": "http://127.0.0.1:9000", "description": "cargo run -p local"}],
        "tags": [
            {"name": "webhook", "description": "What Stripe calls"},
            {"name": "admin-revenue", "description": "The admin dashboard"},
            {"name": "usage", "description": "The application's backend and the partners"},
            {"name": "invoice-pdf", "description": "Invoices as documents"},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "admin": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "The host application's JWT whose role or scope contains admin"},
                "partner": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "A JWT with partner: its api_key_prefix; reads what is its own"},
                "service": {"type": "http", "scheme": "bearer",
                    "description": "A service token of the application's backend"},
            },
            "schemas": schemas(columns)?,
            "responses": {"Problem": {
                "description": "Why not",
                "headers": {"x-request-id": {"schema": {"type": "string"}}},
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
        },
    }))
}

async fn operation(prober: &Prober, route: Route, description: &Value) -> Result<Value, Error> {
    let asked = Box::pin(prober.ask(route, &description["path"])).await?;
    let mut parameters = path_parameters(route.path, &description["path"]);
    parameters.extend(asked.parameters.iter().map(|(name, words)| {
        let required = description["required"]
            .as_array()
            .is_some_and(|required| required.contains(&json!(name)));
        json!({"name": name, "in": "query", "required": required, "schema": schema_of_parameter(name, words)})
    }));
    if let Some(required) = asked.key_required {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": required,
            "description": "The same request under the same key gets the first answer",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        }));
    }
    if !description["headers"].is_null() {
        parameters.extend(
            description["headers"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        );
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [route.function],
        "summary": description["summary"],
        "security": asked.security.iter().map(|name| json!({ *name: [] })).collect::<Vec<_>>(),
        "responses": responses(route, description, &asked),
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body(description, &asked)? {
        operation["requestBody"] = body;
    }
    Ok(operation)
}

/// `get_admin_invoices_id`.
fn operation_id(route: Route) -> String {
    let path: String = route
        .path
        .chars()
        .filter(|letter| !matches!(letter, '{' | '}'))
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    format!("{}{path}", route.method.to_lowercase())
}

fn path_parameters(path: &str, described: &Value) -> Vec<Value> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let schema = match described.get(name) {
                Some(words) => json!({"type": "string", "enum": words}),
                None => json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9_.:-]+$"}),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect()
}

fn schema_of_parameter(name: &str, words: &BTreeSet<String>) -> Value {
    if !words.is_empty() {
        return json!({"type": "string", "enum": words});
    }
    match name {
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 500, "default": 100}),
        "from" | "to" => json!({"anyOf": [
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date-time"},
        ], "description": "An instant, or a date, which means midnight UTC"}),
        "as_of" | "occurred_at" => json!({"type": "string", "format": "date-time"}),
        "currency" => json!({"type": "string", "pattern": "^[A-Z]{3}$", "examples": ["USD"]}),
        "user_id" => json!({"type": "integer", "minimum": 1, "maximum": i32::MAX}),
        "units" | "cost_units" | "unit_price_cents" => json!({"type": "integer", "minimum": 0}),
        "invoice_id" => json!({"type": "integer", "minimum": 1, "maximum": i64::MAX}),
        "cursor" => json!({"type": "string", "description": "The next_cursor of the page before"}),
        _ => json!({"type": "string", "minLength": 1, "maxLength": 255}),
    }
}

fn body(description: &Value, asked: &Asked) -> Result<Option<Value>, Error> {
    let content = if !description["raw_body"].is_null() {
        description["raw_body"].clone()
    } else if asked.members.is_empty() {
        return Ok(None);
    } else {
        let described = &description["body"]["properties"];
        let mut schema = description["body"].clone();
        let mut properties = Map::new();
        for name in &asked.members {
            let property = described.get(name).ok_or_else(|| {
                Error::new(format!(
                    "openapi/described.rs does not describe the member {name}"
                ))
            })?;
            properties.insert(name.clone(), property.clone());
        }
        for name in described
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            if !asked.members.contains(name) {
                return Err(Error::new(format!("{name} is described and is no member")));
            }
        }
        schema["properties"] = properties.into();
        schema["type"] = json!("object");
        schema["additionalProperties"] = json!(false);
        let schema = match description["batch"].as_str() {
            Some(member) => json!({"oneOf": [
                schema,
                {"type": "object", "required": [member], "additionalProperties": false,
                 "properties": {member: {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": "object"}}}},
            ]}),
            None => schema,
        };
        json!({"application/json": {"schema": schema}})
    };
    let required = description["body_optional"].is_null();
    Ok(Some(json!({"required": required, "content": content})))
}

/// What is answered when all is well, and every refusal that this kind of route can make.
fn responses(route: Route, description: &Value, asked: &Asked) -> Value {
    let mut responses = Map::new();
    let id = json!({"x-request-id": {"schema": {"type": "string"}}});
    for (status, content) in description["answers"].as_object().into_iter().flatten() {
        let mut response = json!({"description": content["description"].as_str().unwrap_or("Done"), "headers": id});
        if !content["schema"].is_null() {
            response["content"] = json!({"application/json": {"schema": content["schema"]}});
        }
        if content["csv"] == true {
            response["content"]["text/csv"] = json!({"schema": {"type": "string"}});
        }
        if content["location"] == true {
            response["headers"]["location"] =
                json!({"schema": {"type": "string", "format": "uri"}});
        }
        responses.insert(status.clone(), response);
    }
    let writes = route.method != "GET";
    let mut refusals = vec!["400", "413", "500", "503"];
    if !asked.security.is_empty() {
        refusals.extend(["401", "403", "404"]);
        if writes {
            refusals.extend(["409", "422"]);
        }
    }
    if asked.can_require_payment {
        refusals.push("402");
    }
    let others = description["refusals"].as_array().into_iter().flatten();
    refusals.extend(others.filter_map(Value::as_str));
    for status in refusals {
        let problem = json!({"$ref": "#/components/responses/Problem"});
        responses.entry(status.to_owned()).or_insert(problem);
    }
    Value::Object(responses)
}

/// The schemas that are written down, and one for the rows of each table that is answered.
fn schemas(columns: &[Column]) -> Result<Value, Error> {
    let mut schemas = described::schemas();
    for (name, table) in described::ROWS {
        let mut properties = Map::new();
        for column in columns.iter().filter(|column| column.table == *table) {
            properties.insert(column.name.clone(), schema_of_column(column));
        }
        if properties.is_empty() {
            return Err(Error::new(format!("{table} has no columns")));
        }
        schemas[*name] = json!({
            "type": "object",
            "description": format!("A row of {table}: those of its columns that are shown, and what belongs to it"),
            "properties": properties,
        });
    }
    Ok(schemas)
}

fn schema_of_column(column: &Column) -> Value {
    let type_ = match column.data_type.as_str() {
        "bigint" | "integer" => "integer",
        "boolean" => "boolean",
        "ARRAY" => "array",
        "jsonb" | "numeric" | "double precision" => return json!({}),
        _ => "string",
    };
    let mut schema = if column.is_nullable {
        json!({"type": [type_, "null"]})
    } else {
        json!({ "type": type_ })
    };
    match column.data_type.as_str() {
        "timestamp with time zone" => schema["format"] = json!("date-time"),
        "date" => schema["format"] = json!("date"),
        _ => {}
    }
    schema
}
