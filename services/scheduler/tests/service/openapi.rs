//! The document is checked in, and every contract path is in it.

use std::path::Path;

#[test]
fn the_checked_in_document_is_the_one_the_code_makes() {
    let made = scheduler::openapi().to_pretty_json().expect("json") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/scheduler.json");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &made).expect("write");
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == checked_in, "openapi/scheduler.json is out of date; run with UPDATE_EXPECT=1");
}

#[test]
fn every_path_of_the_contract_is_described() {
    let document = scheduler::openapi();
    let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
    for path in [contract::place::PLACE, contract::host::JOIN, contract::host::PLAN, contract::host::REPORT] {
        assert!(paths.contains(&path), "{path} is missing in {paths:?}");
    }
}
