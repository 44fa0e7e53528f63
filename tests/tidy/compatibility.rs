//! `docs/compatibility.md` against the OpenAPI document: every Docker operation has one row there,
//! no row names an operation that does not exist, and "501" and "503" are what the document says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// What may stand in the second column.
const STATES: [&str; 4] = ["works", "partly", "501", "503"];
const METHODS: [&str; 6] = ["get", "post", "put", "delete", "head", "patch"];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout");
    fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Docker's operations of the checked-in document (platform API and registry are not Docker's), as `GET /info`.
fn documented() -> BTreeMap<String, Value> {
    let document: Value = serde_json::from_str(&read("openapi/api-gateway.json")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let docker = paths.iter().filter(|(path, _)| !path.starts_with("/api/") && !path.starts_with("/v2/"));
    docker
        .flat_map(|(path, item)| {
            let item = item.as_object().expect("a path item");
            item.iter()
                .filter(|(method, _)| METHODS.contains(&method.as_str()))
                .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation.clone()))
        })
        .collect()
}

/// Rows of the tables of operations: `` | `GET /info` | partly | … | ``.
fn rows() -> Vec<(String, String)> {
    read("docs/compatibility.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let operation = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let (method, path) = operation.split_once(' ')?;
            let is_operation = METHODS.contains(&method.to_lowercase().as_str()) && path.starts_with('/');
            is_operation.then(|| (operation.to_owned(), cells.next().unwrap_or_default().to_owned()))
        })
        .collect()
}

fn named<'a>(rows: &'a [(String, String)], state: &str) -> BTreeSet<&'a str> {
    rows.iter().filter(|(_, given)| given == state).map(|(operation, _)| operation.as_str()).collect()
}

/// Operations whose one answer in the document is this status.
fn answering_only<'a>(documented: &'a BTreeMap<String, Value>, status: &str) -> BTreeSet<&'a str> {
    let only = |operation: &Value| {
        operation["responses"].as_object().is_some_and(|answers| answers.keys().all(|answer| answer == status))
    };
    documented.iter().filter(|(_, operation)| only(operation)).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn every_docker_operation_has_one_row_and_every_row_is_an_operation() {
    let (documented, rows) = (documented(), rows());
    assert_eq!(documented.len(), 108, "Docker's own description has 108 operations");
    let listed: BTreeSet<&String> = rows.iter().map(|(operation, _)| operation).collect();
    assert_eq!(listed.len(), rows.len(), "a row stands there twice");
    assert_eq!(listed, documented.keys().collect(), "rows (left) are not the operations (right)");
}

#[test]
fn a_row_says_works_partly_501_or_503_and_partly_says_why() {
    for (operation, state) in rows() {
        assert!(STATES.contains(&state.as_str()), "{operation}: {state:?}");
    }
    let page = read("docs/compatibility.md");
    let silent = page.lines().find(|line| line.starts_with("| `") && line.contains("| partly |  |"));
    assert_eq!(silent, None, "a row says partly and not what is missing");
}

#[test]
fn what_is_not_built_is_marked_so_and_nothing_else_is() {
    let (documented, rows) = (documented(), rows());
    for status in ["501", "503"] {
        assert_eq!(named(&rows, status), answering_only(&documented, status), "rows {status} (left), document (right)");
    }
}

#[test]
fn the_totals_at_the_top_are_the_tables_own() {
    let (page, rows) = (read("docs/compatibility.md"), rows());
    let count = |state| named(&rows, state).len();
    let sentence = format!(
        "**{} work, {} work partly, {} answer 501, {} answer 503**",
        count("works"),
        count("partly"),
        count("501"),
        count("503")
    );
    assert!(page.contains(&sentence), "the page does not say: {sentence}");
}
