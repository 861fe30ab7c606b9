//! What all routes have in common, added to the OpenAPI document once: problems, tokens, dry runs, keys.

use super::access::{Scope, rule_of};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::openapi::OpenApi;

/// The document that is served; where no tokens are asked for, it asks for none.
pub(super) fn finished(document: &OpenApi, is_open: bool) -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(document)?;
    tell_unsigned(&mut document);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, methods) in paths.into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                finish(&method.to_uppercase(), path, operation);
            }
        }
    }
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        let bearer = json!({"type": "http", "scheme": "bearer", "description": "A token: see docs/api.md"});
        components.insert("securitySchemes".to_owned(), json!({ "token": bearer }));
    }
    if let Some(document) = document.as_object_mut() {
        let security = if is_open { json!([]) } else { json!([{ "token": [] }]) };
        document.insert("security".to_owned(), security);
    }
    serde_json::to_string_pretty(&document)
}

/// The names that a query may have, by method and route.
pub(super) type Queries = BTreeMap<(String, String), BTreeSet<String>>;

/// What may be asked in queries, as the document tells it.
pub(super) fn queries(document: &str) -> Result<Queries, serde_json::Error> {
    let document: Value = serde_json::from_str(document)?;
    let mut queries = Queries::new();
    let paths = document.get("paths").and_then(Value::as_object);
    for (path, methods) in paths.into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
            let of_query = parameters.filter(|parameter| parameter.get("in").is_some_and(|place| place == "query"));
            let names = of_query.filter_map(|parameter| parameter.get("name")?.as_str().map(str::to_owned));
            queries.insert((method.to_uppercase(), path.clone()), names.collect());
        }
    }
    Ok(queries)
}

/// A number that is no less than 0 and has 64 bits is one without a sign, which `int64` is not.
fn tell_unsigned(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is = |name: &str, wanted: &Value| members.get(name) == Some(wanted);
            if is("format", &json!("int64")) && is("minimum", &json!(0)) {
                members.insert("format".to_owned(), json!("uint64"));
                members.insert("maximum".to_owned(), json!(u64::MAX));
            }
            members.values_mut().for_each(tell_unsigned);
        }
        Value::Array(items) => items.iter_mut().for_each(tell_unsigned),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn finish(method: &str, path: &str, operation: &mut Map<String, Value>) {
    if rule_of(method, path).is_some_and(|rule| rule.scope == Scope::Anyone) {
        operation.insert("security".to_owned(), json!([]));
    }
    let mut more = Vec::new();
    if method == "POST" {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"});
        let description = "Sent again with the same key, the request is carried out once";
        more.push(json!({"name": "Idempotency-Key", "in": "header", "schema": schema, "description": description}));
    }
    if method != "GET" {
        let description = "Check it as for real, answer as it would be, and change nothing";
        let schema = json!({"type": "boolean"});
        more.push(json!({"name": "dry_run", "in": "query", "schema": schema, "description": description}));
    }
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
        Some(parameters) => parameters.append(&mut more),
        None => drop(operation.insert("parameters".to_owned(), more.into())),
    }
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        finish_responses(method != "GET", responses);
    }
}

fn finish_responses(is_change: bool, responses: &mut Map<String, Value>) {
    for content in responses.values_mut().filter_map(|response| response.get_mut("content")?.as_object_mut()) {
        let is_problem = content
            .get("application/json")
            .is_some_and(|body| body.pointer("/schema/$ref").and_then(Value::as_str) == Some(PROBLEM));
        if is_problem && let Some(body) = content.remove("application/json") {
            content.insert("application/problem+json".to_owned(), body);
        }
    }
    let problem = json!({"application/problem+json": {"schema": {"$ref": PROBLEM}}});
    let any = json!({"description": "A problem: its code tells which", "content": problem});
    responses.insert("default".to_owned(), any);
    if is_change {
        let dry_run = json!({"$ref": "#/components/schemas/DryRun"});
        let schema = match responses.get("200").and_then(|known| known.pointer("/content/application~1json/schema")) {
            Some(known) => json!({"anyOf": [known, dry_run]}),
            None => dry_run,
        };
        let known = responses.get("200").and_then(|known| known.get("description")?.as_str());
        let description = known.filter(|text| !text.is_empty()).map_or("A dry run", |text| text).to_owned();
        let content = json!({"application/json": {"schema": schema}});
        responses.insert("200".to_owned(), json!({"description": description, "content": content}));
    }
}

const PROBLEM: &str = "#/components/schemas/Problem";
