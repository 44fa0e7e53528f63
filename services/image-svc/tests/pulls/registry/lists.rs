//! Lists (spec: "Listing tags"; the catalog of a project).

use serde_json::{Value, json};

use super::{Repo, header, refusal};
use crate::{
    image::{INDEX, TestImage},
    stage::Stage,
};

const EMPTY: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_listed_in_order_so_many_at_a_time() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let none: Value = repo.tags(None, None).await.json().await.expect("JSON");
    assert_eq!(none, json!({"name": "acme/web/app", "tags": []}));
    for tag in ["b", "a", "C", "_x", "a.1"] {
        assert_eq!(repo.put_manifest(tag, INDEX, EMPTY).await.status(), 201);
    }
    let names = |answer: Value| answer["tags"].clone();
    let all = repo.tags(None, None).await;
    assert_eq!(header(&all, "link"), "");
    assert_eq!(names(all.json().await.expect("JSON")), json!(["C", "_x", "a", "a.1", "b"]));
    let two = repo.tags(Some("2"), None).await;
    assert_eq!(header(&two, "link"), "</v2/acme/web/app/tags/list?n=2&last=_x>; rel=\"next\"");
    assert_eq!(names(two.json().await.expect("JSON")), json!(["C", "_x"]));
    let rest = repo.tags(Some("3"), Some("_x")).await;
    assert_eq!(header(&rest, "link"), "", "nothing follows");
    assert_eq!(names(rest.json().await.expect("JSON")), json!(["a", "a.1", "b"]));
    assert_eq!(
        names(repo.tags(None, Some("aa")).await.json().await.expect("JSON")),
        json!(["b"]),
        "last need not be there"
    );
    let nothing = repo.tags(Some("0"), None).await;
    assert_eq!((nothing.status().as_u16(), names(nothing.json().await.expect("JSON"))), (200, json!([])));
    for bad in ["-1", "x"] {
        assert_eq!(refusal(repo.tags(Some(bad), None).await).await.1, "UNSUPPORTED");
    }
    let fresh = Repo::fresh(&stage, repo.query.project.expect("a project"), "nothing-here");
    assert_eq!(refusal(fresh.tags(None, None).await).await, (404, "NAME_UNKNOWN".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_has_the_projects_repositories_and_no_others() {
    let stage = Stage::set(&[], "").await;
    let (mine, theirs) = (stage.project("mine").await, stage.project("theirs").await);
    for (project, path) in [(mine, "b"), (mine, "a/x"), (theirs, "secret")] {
        let repo = Repo::made(&stage, project, path).await;
        assert_eq!(repo.put_manifest("v1", INDEX, EMPTY).await.status(), 201);
    }
    let repo = Repo::made(&stage, mine, "nothing-pushed").await;
    let all: Value = repo.catalog().send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(all, json!({"repositories": ["acme/web/a/x", "acme/web/b"]}));
    let one = repo.catalog().query(&[("n", "1")]).send().await.expect("an answer");
    assert_eq!(header(&one, "link"), "</v2/_catalog?n=1&last=acme/web/a/x>; rel=\"next\"");
    let rest = repo.catalog().query(&[("n", "1"), ("last", "acme/web/a/x")]).send().await.expect("an answer");
    assert_eq!(header(&rest, "link"), "");
    assert_eq!(rest.json::<Value>().await.expect("JSON"), json!({"repositories": ["acme/web/b"]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_goes_with_everything_in_it() {
    let stage = Stage::set(&[], "").await;
    let project = stage.project("a").await;
    let repo = Repo::made(&stage, project, "app").await;
    repo.push("v1", &TestImage::new("amd64", &[b"layer"])).await;
    sqlx::query("DELETE FROM projects").execute(&stage.owner).await.expect("what is in it does not hold it");
    for table in ["repositories", "repository_blobs", "repository_manifests", "repository_tags", "repository_uploads"] {
        let left = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        assert_eq!(left.fetch_one(&stage.owner).await.expect("a count"), 0, "{table}");
    }
}
