//! Answers compared with the OpenAPI document: a member too many or too few, a status or a type that it does not list.
//!
//! Objects are closed here: a member that no schema names fails, whatever `additionalProperties` would allow by default.

use std::collections::{BTreeMap, BTreeSet};

use lambda_http::{Body, Response};
use serde_json::Value;

use runtime::api::PROBLEM_JSON;

/// A document to compare answers with.
#[derive(Debug)]
pub struct Contract {
    document: Value,
}

impl Contract {
    /// Of a function's route table, or of the whole bundle.
    #[must_use]
    pub fn new(document: Value) -> Contract {
        Contract { document }
    }

    /// # Panics
    /// When the answer to `method path` is not as the document says.
    pub fn check(&self, method: &str, path: &str, response: &Response<Body>) {
        let path = path.split('?').next().unwrap_or_default();
        let status = response.status();
        if let Err(complaint) = self.compare(method, path, response) {
            let body = String::from_utf8_lossy(response.body());
            panic!(
                "{method} {path} answers {status} not as its document says: {complaint}\n{body}"
            );
        }
    }

    fn compare(&self, method: &str, path: &str, response: &Response<Body>) -> Result<(), String> {
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.and_then(|value| value.to_str().ok())
        };
        if header("x-request-id").is_none() {
            return Err("no x-request-id".to_owned());
        }
        let content_type =
            header("content-type").map(|text| text.split(';').next().unwrap_or(text));
        let operation = self.operation(method, path);
        let Some(operation) = operation else {
            // No route: whatever it is called, it is refused in the form that every refusal has.
            let problem = serde_json::json!({"$ref": "#/components/schemas/Problem"});
            return match (response.status().as_u16(), content_type) {
                (404 | 405 | 413, Some(PROBLEM_JSON)) => self.json(&problem, response),
                other => Err(format!("{other:?} on a path that is none")),
            };
        };
        let described = &operation["responses"][response.status().as_str()];
        if described.is_null() {
            return Err("this status is not listed".to_owned());
        }
        for (name, _) in described["headers"].as_object().into_iter().flatten() {
            if header(name).is_none() {
                return Err(format!("no header {name}"));
            }
        }
        let content = described["content"].as_object();
        match (content, content_type) {
            (None, None) if response.body().is_empty() => Ok(()),
            (None, _) => Err("a body where none is listed".to_owned()),
            (Some(_), None) => Err("no content type".to_owned()),
            (Some(content), Some(content_type)) => match content.get(content_type) {
                None => Err(format!("{content_type} is not listed")),
                Some(content) if content_type.ends_with("json") => {
                    self.json(&content["schema"], response)
                }
                Some(_) => Ok(()),
            },
        }
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let paths = self.document["paths"].as_object()?;
        // `/events/parked` goes before `/events/{id}`.
        let known = paths
            .iter()
            .filter(|(pattern, _)| matches(pattern, path))
            .min_by_key(|(pattern, _)| pattern.matches('{').count());
        known?.1.get(method.to_lowercase())
    }

    fn json(&self, schema: &Value, response: &Response<Body>) -> Result<(), String> {
        let body = serde_json::from_slice(response.body())
            .map_err(|error| format!("the body is not JSON: {error}"))?;
        self.validate(schema, &body, "")
    }

    /// A schema itself, not a reference to it.
    fn resolved<'a>(&'a self, schema: &'a Value) -> Result<&'a Value, String> {
        match schema["$ref"].as_str() {
            None => Ok(schema),
            Some(reference) => {
                let target = reference.strip_prefix('#');
                let target = target.and_then(|pointer| self.document.pointer(pointer));
                let target = target.ok_or_else(|| format!("{reference} leads nowhere"))?;
                self.resolved(target)
            }
        }
    }

    fn validate(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolved(schema)?;
        let here = |complaint: String| {
            let at = if at.is_empty() { "the body" } else { at };
            Err(format!("{at}: {complaint}"))
        };
        if let Some(choices) = schema["anyOf"].as_array() {
            let mut complaints = Vec::new();
            for choice in choices {
                match self.validate(choice, value, at) {
                    Ok(()) => return Ok(()),
                    Err(complaint) => complaints.push(complaint),
                }
            }
            return here(format!("none of anyOf: {}", complaints.join("; ")));
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return here(format!("{value} is none of {words:?}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|name| is_of(name, value)) {
            return here(format!("{value} is not of type {types:?}"));
        }
        match value {
            Value::Object(members) => self.validate_object(schema, members, at),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.validate(&schema["items"], item, &format!("{at}[{index}]"))?;
                }
                Ok(())
            }
            Value::String(text) => match schema["format"].as_str() {
                Some("date-time") if text.parse::<jiff::Timestamp>().is_err() => {
                    here(format!("{text} is no instant"))
                }
                Some("date") if text.parse::<jiff::civil::Date>().is_err() => {
                    here(format!("{text} is no date"))
                }
                _ => Ok(()),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn validate_object(
        &self,
        schema: &Value,
        members: &serde_json::Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        let mut properties = BTreeMap::new();
        let mut required = BTreeSet::new();
        let mut others = None;
        self.collect(schema, &mut properties, &mut required, &mut others)?;
        if properties.is_empty() && others.is_none() {
            // `{}`: anything.
            return Ok(());
        }
        let inside = |name: &str| {
            if at.is_empty() {
                name.to_owned()
            } else {
                format!("{at}.{name}")
            }
        };
        for (name, value) in members {
            match (properties.get(name.as_str()), others) {
                (Some(schemas), _) => {
                    for schema in schemas {
                        self.validate(schema, value, &inside(name))?;
                    }
                }
                (None, Some(others)) => self.validate(others, value, &inside(name))?,
                (None, None) => return Err(format!("{} is in no schema", inside(name))),
            }
        }
        match required.iter().find(|name| !members.contains_key(**name)) {
            Some(missing) => Err(format!("{} is missing", inside(missing))),
            None => Ok(()),
        }
    }

    /// The members of an object and of all that `allOf` adds to it.
    fn collect<'a>(
        &'a self,
        schema: &'a Value,
        properties: &mut BTreeMap<&'a str, Vec<&'a Value>>,
        required: &mut BTreeSet<&'a str>,
        others: &mut Option<&'a Value>,
    ) -> Result<(), String> {
        let schema = self.resolved(schema)?;
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            properties.entry(name).or_default().push(property);
        }
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.filter_map(Value::as_str));
        let additional = &schema["additionalProperties"];
        if additional.is_object() || *additional == true {
            *others = Some(additional);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.collect(part, properties, required, others)?;
        }
        Ok(())
    }

    /// # Panics
    /// When a reference leads nowhere, an object has no members listed, or a value is of no type, and no description says
    /// why.
    pub fn assert_complete(&self) {
        let mut complaints = Vec::new();
        self.complain(&self.document, "#", &mut complaints);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }

    fn complain(&self, value: &Value, at: &str, complaints: &mut Vec<String>) {
        if let Err(complaint) = self.resolved(value) {
            complaints.push(format!("{at}: {complaint}"));
        }
        let is_object = value["type"] == "object"
            || value["type"]
                .as_array()
                .is_some_and(|types| types.iter().any(|name| name == "object"));
        let has = |word: &str| !value[word].is_null();
        if is_object && !has("properties") && !has("additionalProperties") {
            complaints.push(format!("{at}: an object of which nothing is said"));
        }
        if is_object && has("additionalProperties") && !has("properties") && !has("description") {
            complaints.push(format!("{at}: a map that no description explains"));
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let at = format!("{at}/{name}");
                    // The examples of an answer are no schemas.
                    if name == "properties" {
                        for (name, property) in member.as_object().into_iter().flatten() {
                            if property.as_object().is_some_and(serde_json::Map::is_empty) {
                                complaints.push(format!("{at}/{name}: of no type, without a word"));
                            }
                        }
                    }
                    if !matches!(name.as_str(), "example" | "examples" | "default") {
                        self.complain(member, &at, complaints);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.complain(item, &format!("{at}/{index}"), complaints);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (expected, given) = (pattern.split('/'), path.split('/'));
    expected.clone().count() == given.clone().count()
        && expected.zip(given).all(|(expected, given)| {
            expected == given || (expected.starts_with('{') && !given.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn contract() -> Contract {
        Contract::new(json!({
            "paths": {"/a/{id}": {"get": {"responses": {
                "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}},
                "302": {"headers": {"location": {}}},
            }}}},
            "components": {"schemas": {
                "Problem": {"type": "object", "properties": {"code": {"type": "string"}}},
                "Base": {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}, "required": ["n"]},
                "A": {"allOf": [{"$ref": "#/components/schemas/Base"},
                    {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"},
                        "by": {"type": "object", "additionalProperties": {"type": "integer"}}}}]},
            }},
        }))
    }

    fn complaint(status: u16, body: &str, content_type: Option<&str>) -> Option<String> {
        let mut response = Response::builder()
            .status(status)
            .header("x-request-id", "1");
        if let Some(content_type) = content_type {
            response = response.header("content-type", content_type);
        }
        let response = response.body(Body::from(body)).unwrap();
        contract().compare("GET", "/a/1", &response).err()
    }

    #[test]
    fn an_answer_is_as_its_schema_says_and_nothing_else() {
        let json = Some("application/json");
        for good in [
            r#"{"n": 1}"#,
            r#"{"n": null, "at": "2025-01-01T00:00:00Z", "by": {"x": 1}}"#,
        ] {
            assert_eq!(complaint(200, good, json), None, "{good}");
        }
        for (body, expected) in [
            ("{}", "n is missing"),
            (r#"{"n": 1, "m": 1}"#, "m is in no schema"),
            (r#"{"n": "1"}"#, "not of type"),
            (r#"{"n": 1.5}"#, "not of type"),
            (r#"{"n": 1, "at": "yesterday"}"#, "no instant"),
            (r#"{"n": 1, "at": null}"#, "not of type"),
            (r#"{"n": 1, "by": {"x": "1"}}"#, "by.x"),
            ("{", "not JSON"),
        ] {
            let found = complaint(200, body, json).expect(body);
            assert!(found.contains(expected), "{body}: {found}");
        }
        assert!(complaint(201, r#"{"n": 1}"#, json).is_some(), "a status");
        assert!(complaint(200, r#"{"n": 1}"#, Some("text/csv")).is_some());
        assert!(complaint(302, "", None).unwrap().contains("location"));
    }

    #[test]
    #[should_panic(expected = "leads nowhere")]
    fn a_reference_that_leads_nowhere_is_found() {
        let mut contract = contract();
        contract.document["components"]["schemas"]["Base"].take();
        contract.document["components"]["schemas"]["Base"] = json!({"$ref": "#/nowhere"});
        contract.assert_complete();
    }

    #[test]
    #[should_panic(expected = "nothing is said")]
    fn a_bare_object_is_found() {
        let mut contract = contract();
        contract.document["components"]["schemas"]["Base"] = json!({"type": "object"});
        contract.assert_complete();
    }
}
