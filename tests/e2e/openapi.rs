//! The document and its page.

use tests::Suite;

#[test]
fn the_document_is_openapi_3_1_and_covers_all_faces() {
    let document = Suite::here().rest().get("/openapi.json").json();
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")));
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/containers/json", "/containers/create", "/api/v1/hosts", "/api/v1/tenants"] {
        assert!(paths.contains_key(path), "{path} is missing");
    }
}

#[test]
fn the_reference_page_needs_nothing_from_elsewhere() {
    let page = Suite::here().rest().get("/docs/");
    assert_eq!(page.status, 200);
    assert!(!page.body.contains("https://"), "an asset comes from elsewhere: {}", page.body);
}
