//! The OpenAPI document: whole, without loose ends, and what is checked in.

use std::collections::BTreeSet;

use expect_test::expect_file;
use serde_json::Value;

/// Method, path and description of every operation.
pub(crate) fn operations() -> Vec<(String, String, Value)> {
    let document = serde_json::to_value(api_gateway::openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").clone();
    let verbs = ["get", "put", "post", "delete", "head", "patch"];
    paths
        .into_iter()
        .flat_map(|(path, item)| {
            let item = item.as_object().expect("an item").clone();
            item.into_iter()
                .filter(move |(verb, _)| verbs.contains(&verb.as_str()))
                .map(move |(verb, operation)| (verb.to_ascii_uppercase(), path.clone(), operation))
        })
        .collect()
}

/// Whether an operation says that it needs no credential.
pub(crate) fn is_open(operation: &Value) -> bool {
    operation["security"].as_array().expect("every operation says what it needs") == &[serde_json::json!({})]
}

#[test]
fn openapi_is_what_is_checked_in() {
    let text = api_gateway::openapi().to_pretty_json().expect("JSON") + "\n";
    expect_file!["../../../../openapi/api-gateway.json"].assert_eq(&text);
}

#[test]
fn openapi_has_no_loose_ends() {
    let document = serde_json::to_value(api_gateway::openapi()).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} dangles");
    }
    let ids: Vec<String> =
        operations().iter().map(|(_, _, o)| o["operationId"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an operation id twice");
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| collect(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| collect(inner, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn openapi_names_every_path_parameter() {
    for (method, path, operation) in operations() {
        let named: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "path")
            .filter_map(|p| p["name"].as_str())
            .collect();
        let written: BTreeSet<&str> = path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, written, "{method} {path}");
    }
}

#[test]
fn openapi_has_all_108_operations_of_dockers_own_description() {
    let docker: Vec<_> = operations()
        .into_iter()
        .filter(|(_, path, _)| !path.starts_with("/api/") && !path.starts_with("/v2/"))
        .collect();
    assert_eq!(docker.len(), 108, "{:?}", docker.iter().map(|(m, p, _)| format!("{m} {p}")).collect::<Vec<_>>());
}
