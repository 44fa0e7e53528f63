//! Manifests (spec: "Pulling manifests", "Pushing manifests", "Deleting manifests", "Deleting tags").

use reqwest::Method;
use serde_json::{Value, json};

use super::{Repo, header, refusal};
use crate::{
    image::{INDEX, MANIFEST, TestImage, descriptor, index, sha256},
    stage::Stage,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_kept_byte_for_byte_and_read_by_tag_and_by_digest() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let image = TestImage::new("amd64", &[b"layer"]);
    repo.push("v1", &image).await;
    let digest = sha256(&image.manifest);
    for reference in ["v1", digest.as_str()] {
        let head = repo.manifest(Method::HEAD, reference).send().await.expect("an answer");
        let length = image.manifest.len().to_string();
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, length.as_str()), "{reference}");
        assert_eq!(
            (header(&head, "content-type"), header(&head, "docker-content-digest")),
            (MANIFEST, digest.as_str())
        );
        let get = repo.manifest(Method::GET, reference).send().await.expect("an answer");
        assert_eq!((header(&get, "content-type"), header(&get, "docker-content-digest")), (MANIFEST, digest.as_str()));
        assert_eq!(get.bytes().await.expect("bytes"), image.manifest);
        let held = repo.manifest(Method::GET, reference).header("if-none-match", format!("\"{digest}\""));
        assert_eq!(held.send().await.expect("an answer").status(), 304);
    }
    let again = repo.put_manifest("v2", MANIFEST, &image.manifest).await;
    assert_eq!((again.status().as_u16(), header(&again, "docker-content-digest")), (201, digest.as_str()));
    assert_eq!(header(&again, "location"), format!("/v2/acme/web/app/manifests/{digest}"));
    let other = TestImage::new("arm64", &[b"layer"]);
    repo.push("v1", &other).await;
    let moved = repo.manifest(Method::GET, "v1").send().await.expect("an answer");
    assert_eq!(header(&moved, "docker-content-digest"), sha256(&other.manifest), "the last writer's");
    for unknown in ["v9", &sha256(b"never"), "-no-tag"] {
        let answer = repo.manifest(Method::GET, unknown).send().await.expect("an answer");
        assert_eq!(refusal(answer).await, (404, "MANIFEST_UNKNOWN".into()), "{unknown}");
    }
    let fresh = Repo::fresh(&stage, repo.query.project.expect("a project"), "nothing-here");
    let answer = fresh.manifest(Method::GET, "v1").send().await.expect("an answer");
    assert_eq!(refusal(answer).await, (404, "NAME_UNKNOWN".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_stands_only_with_everything_it_needs() {
    let stage = Stage::set(&[], "").await;
    let project = stage.project("a").await;
    let (repo, other) = (Repo::made(&stage, project, "app").await, Repo::made(&stage, project, "other").await);
    let image = TestImage::new("amd64", &[b"layer"]);
    other.push("v1", &image).await;
    let missing = repo.put_manifest("v1", MANIFEST, &image.manifest).await;
    assert_eq!(refusal(missing).await, (400, "MANIFEST_BLOB_UNKNOWN".into()), "another repository's do not count");
    repo.push_blob(&image.config).await;
    let missing = repo.put_manifest("v1", MANIFEST, &image.manifest).await;
    assert_eq!(refusal(missing).await, (400, "MANIFEST_BLOB_UNKNOWN".into()));
    repo.push_blob(b"layer").await;
    assert_eq!(repo.put_manifest("v1", MANIFEST, &image.manifest).await.status(), 201);
    let lies = String::from_utf8(image.manifest.clone()).expect("text").replace("\"size\":5", "\"size\":6");
    assert_eq!(
        refusal(repo.put_manifest("v1", MANIFEST, lies.as_bytes()).await).await,
        (400, "MANIFEST_INVALID".into())
    );
    // An index needs its manifests.
    let arm = TestImage::new("arm64", &[b"layer"]);
    let both = index(&[("amd64", &image), ("arm64", &arm)]);
    let missing = repo.put_manifest("multi", INDEX, &both).await;
    assert_eq!(refusal(missing).await, (400, "MANIFEST_BLOB_UNKNOWN".into()));
    repo.push("arm", &arm).await;
    let kept = repo.put_manifest(&sha256(&both), INDEX, &both).await;
    assert_eq!((kept.status().as_u16(), header(&kept, "docker-content-digest")), (201, sha256(&both).as_str()));
    let read = repo.manifest(Method::GET, &sha256(&both)).send().await.expect("an answer");
    assert_eq!(header(&read, "content-type"), INDEX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_manifest_or_not_what_its_digest_says_is_refused() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let wrong = repo.put_manifest(&sha256(b"another"), INDEX, empty.as_bytes()).await;
    assert_eq!(refusal(wrong).await, (400, "DIGEST_INVALID".into()));
    for (kind, body) in [(MANIFEST, empty.as_str()), ("text/plain", "{}"), (INDEX, "no JSON"), ("", empty.as_str())] {
        let answer = repo.put_manifest("x", kind, body.as_bytes()).await;
        assert_eq!(refusal(answer).await, (400, "MANIFEST_INVALID".into()), "{kind} {body}");
    }
    let bad = repo.put_manifest("-x", INDEX, empty.as_bytes()).await;
    assert_eq!(refusal(bad).await, (400, "MANIFEST_INVALID".into()));
    let long = json!({"schemaVersion": 2, "manifests": [], "annotations": {"a": "x".repeat(4 << 20)}}).to_string();
    assert_eq!(refusal(repo.put_manifest("x", INDEX, long.as_bytes()).await).await, (413, "SIZE_INVALID".into()));
    let sha512 = format!("sha512:{}", hex::encode(ring::digest::digest(&ring::digest::SHA512, empty.as_bytes())));
    let kept = repo.put_manifest(&sha512, INDEX, empty.as_bytes()).await;
    assert_eq!((kept.status().as_u16(), header(&kept, "docker-content-digest")), (201, sha512.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_goes_alone_and_a_manifest_with_its_tags() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let image = TestImage::new("amd64", &[b"layer"]);
    for tag in ["v1", "v2", "v3"] {
        repo.push(tag, &image).await;
    }
    let delete = |reference: String| repo.manifest(Method::DELETE, &reference).send();
    assert_eq!(delete("v1".into()).await.expect("an answer").status(), 202);
    assert_eq!(refusal(delete("v1".into()).await.expect("an answer")).await, (404, "MANIFEST_UNKNOWN".into()));
    let digest = sha256(&image.manifest);
    let still = repo.manifest(Method::GET, &digest).send().await.expect("an answer");
    assert_eq!(still.status(), 200);
    let listed: Value = repo.tags(None, None).await.json().await.expect("JSON");
    assert_eq!(listed["tags"], json!(["v2", "v3"]));
    assert_eq!(delete(digest.clone()).await.expect("an answer").status(), 202);
    for gone in ["v2", "v3", digest.as_str()] {
        assert_eq!(repo.manifest(Method::GET, gone).send().await.expect("an answer").status(), 404, "{gone}");
    }
    assert_eq!(refusal(delete(digest).await.expect("an answer")).await, (404, "MANIFEST_UNKNOWN".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_a_manifest_says_so_and_is_listed_by_kind() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let image = TestImage::new("amd64", &[b"layer"]);
    let subject = descriptor(MANIFEST, &image.manifest);
    repo.push_blob(b"{}").await;
    let about = |kind: &str| {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "subject": subject,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": [], "annotations": {"by": kind},
        })
        .to_string()
    };
    let (signature, report) = (about("application/x.signature"), about("application/x.report"));
    // The subject need not be there yet.
    let kept = repo.put_manifest(&sha256(signature.as_bytes()), MANIFEST, signature.as_bytes()).await;
    assert_eq!((kept.status().as_u16(), header(&kept, "oci-subject")), (201, sha256(&image.manifest).as_str()));
    repo.push("v1", &image).await;
    assert_eq!(repo.put_manifest(&sha256(report.as_bytes()), MANIFEST, report.as_bytes()).await.status(), 201);
    let all = repo.referrers(&sha256(&image.manifest), None).send().await.expect("an answer");
    assert_eq!((all.status().as_u16(), header(&all, "content-type")), (200, INDEX));
    assert_eq!(header(&all, "oci-filters-applied"), "");
    let all: Value = all.json().await.expect("JSON");
    assert_eq!((all["schemaVersion"].as_i64(), all["manifests"].as_array().map(Vec::len)), (Some(2), Some(2)));
    let some = repo.referrers(&sha256(&image.manifest), Some("application/x.report")).send().await.expect("an answer");
    assert_eq!(header(&some, "oci-filters-applied"), "artifactType");
    let some: Value = some.json().await.expect("JSON");
    let expected = json!({
        "mediaType": MANIFEST, "digest": sha256(report.as_bytes()), "size": report.len(),
        "artifactType": "application/x.report", "annotations": {"by": "application/x.report"},
    });
    assert_eq!(some["manifests"], json!([expected]));
    let none = repo.referrers(&sha256(b"never"), None).send().await.expect("an answer");
    assert_eq!(none.json::<Value>().await.expect("JSON")["manifests"], json!([]));
    assert_eq!(
        repo.manifest(Method::DELETE, &sha256(report.as_bytes())).send().await.expect("an answer").status(),
        202
    );
    let left: Value = repo
        .referrers(&sha256(&image.manifest), Some("application/x.report"))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    assert_eq!(left["manifests"], json!([]));
    let bad = repo.referrers("sha256:12", None).send().await.expect("an answer");
    assert_eq!(refusal(bad).await, (400, "DIGEST_INVALID".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_said_to_lie_elsewhere_is_fetched_from_nowhere() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    elsewhere.set_nonblocking(true).expect("a listener that does not wait");
    let stage = Stage::set(&[], "[registry]\nnames = ['registry.test:7300']").await;
    let project = stage.project("acme").await;
    let repo = Repo::made(&stage, project, "app").await;
    let image = TestImage::new("amd64", &[b"far away"]);
    repo.push_blob(&image.config).await;
    let mut document: Value = serde_json::from_slice(&image.manifest).expect("JSON");
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    document["layers"][0]["urls"] = json!([format!("http://{}/layer", elsewhere.local_addr().expect("an address"))]);
    let kept = repo.put_manifest("v1", MANIFEST, document.to_string().as_bytes()).await;
    assert_eq!(kept.status(), 201, "it need not be here to be named");
    let pulled = stage.pull(project, "registry.test:7300/acme/acme/app:v1").await;
    assert!(pulled.error.contains("unknown blob"), "{pulled:?}");
    let asked = elsewhere.accept().expect_err("somebody followed the address");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
}
