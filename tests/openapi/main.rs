//! `openapi/*.json` is generated from the code and checked in; this fails when they differ.
//! `make openapi` rewrites them.

use std::collections::BTreeSet;

use expect_test::expect_file;
use utoipa::openapi::OpenApi;

fn pretty(document: &OpenApi) -> String {
    document.to_pretty_json().expect("a document is JSON") + "\n"
}

#[test]
fn the_gateways_document_is_checked_in() {
    expect_file!["../../openapi/api-gateway.json"].assert_eq(&pretty(&api_gateway::openapi()));
}

#[test]
fn image_svcs_document_is_checked_in() {
    expect_file!["../../openapi/image-svc.json"].assert_eq(&pretty(&image_svc::openapi()));
}

#[test]
fn the_schedulers_document_is_checked_in() {
    expect_file!["../../openapi/scheduler.json"].assert_eq(&pretty(&scheduler::openapi()));
}

#[test]
fn the_node_agents_document_is_checked_in() {
    expect_file!["../../openapi/node-agent.json"].assert_eq(&pretty(&node_agent::openapi()));
}

#[test]
fn netds_document_is_checked_in() {
    expect_file!["../../openapi/netd.json"].assert_eq(&pretty(&netd::openapi()));
}

#[test]
fn no_reference_dangles_and_operation_ids_are_unique() {
    for document in
        [api_gateway::openapi(), image_svc::openapi(), scheduler::openapi(), node_agent::openapi(), netd::openapi()]
    {
        let json = serde_json::to_value(&document).expect("a document is JSON");
        let mut references = BTreeSet::new();
        collect_references(&json, &mut references);
        for reference in references {
            let pointer = reference.trim_start_matches('#');
            assert!(json.pointer(pointer).is_some(), "{reference} dangles in {}", document.info.title);
        }
        let ids: Vec<&str> = json["paths"]
            .as_object()
            .into_iter()
            .flat_map(|paths| paths.values())
            .filter_map(|item| item.as_object())
            .flat_map(|item| item.values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "doubled ids in {}", document.info.title);
    }
}

fn collect_references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = value["$ref"].as_str() {
        found.insert(reference.to_owned());
    }
    for part in value.as_object().into_iter().flat_map(|map| map.values()).chain(value.as_array().into_iter().flatten())
    {
        collect_references(part, found);
    }
}
