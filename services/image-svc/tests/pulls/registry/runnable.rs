//! What is pushed here can be pulled into a project, without a request to anywhere.

use super::Repo;
use crate::{
    image::{INDEX, MANIFEST, TestImage, bytes, index, sha256},
    stage::Stage,
};

const NAMES: &str = "[registry]\nnames = ['registry.test:7300']";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_pulled_from_the_store_itself() {
    let stage = Stage::set(&[], NAMES).await;
    let project = stage.project("acme").await;
    let repo = Repo::made(&stage, project, "app").await;
    let (amd, arm) = (TestImage::new("amd64", &[&bytes("amd", 5_000)]), TestImage::new("arm64", &[b"arm"]));
    repo.push("amd", &amd).await;
    repo.push("arm", &arm).await;
    let both = index(&[("amd64", &amd), ("arm64", &arm)]);
    assert_eq!(repo.put_manifest("v1", INDEX, &both).await.status(), 201);
    let name = "registry.test:7300/acme/acme/app:v1";
    let pulled = stage.pull(project, name).await;
    assert!(pulled.succeeded(), "{pulled:?}");
    assert!(pulled.statuses().contains(&"Pull complete"), "{pulled:?}");
    assert_eq!(pulled.statuses().last(), Some(&format!("Status: Downloaded newer image for {name}").as_str()));
    let by_digest = stage.pull(project, &format!("registry.test:7300/acme/acme/app@{}", sha256(&both))).await;
    assert!(by_digest.succeeded(), "{by_digest:?}");
    let other = stage.pull_with(project, name, Some("linux/arm64"), None).await;
    assert!(other.succeeded(), "{other:?}");
    // The image holds on to its layers, whatever becomes of the repository.
    sqlx::query("DELETE FROM repositories").execute(&stage.owner).await.expect("deleted");
    assert_eq!(stage.rows().await[0], ("images", 2));
    let gone = stage.pull(project, name).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_named_by_their_sha512_are_pulled_and_a_config_is_not() {
    let stage = Stage::set(&[], NAMES).await;
    let project = stage.project("acme").await;
    let repo = Repo::made(&stage, project, "app").await;
    let image = TestImage::new("amd64", &[&bytes("long", 5_000)]);
    let sha512 =
        |content: &[u8]| format!("sha512:{}", hex::encode(ring::digest::digest(&ring::digest::SHA512, content)));
    for blob in [&image.layers[0], &image.config] {
        for digest in [sha512(blob), sha256(blob)] {
            let begun = repo.begin().await;
            assert_eq!(repo.put(&begun, &digest).body(blob.clone()).send().await.expect("an answer").status(), 201);
        }
    }
    let text = String::from_utf8(image.manifest.clone()).expect("text");
    let layer = text.replace(&sha256(&image.layers[0]), &sha512(&image.layers[0]));
    assert_eq!(repo.put_manifest("layer", MANIFEST, layer.as_bytes()).await.status(), 201);
    let pulled = stage.pull(project, "registry.test:7300/acme/acme/app:layer").await;
    assert!(pulled.succeeded(), "{pulled:?}");
    let config = text.replace(&sha256(&image.config), &sha512(&image.config));
    assert_eq!(repo.put_manifest("config", MANIFEST, config.as_bytes()).await.status(), 201);
    let refused = stage.pull(project, "registry.test:7300/acme/acme/app:config").await;
    assert!(refused.error.contains("has a sha256 digest"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_projects_repository_is_pulled_only_while_it_is_public() {
    let stage = Stage::set(&[], NAMES).await;
    let (owner, stranger) = (stage.project("owner").await, stage.project("stranger").await);
    let repo = Repo::made(&stage, owner, "app").await;
    repo.push("v1", &TestImage::new("amd64", &[b"layer"])).await;
    let name = "registry.test:7300/owner/owner/app:v1";
    let private = stage.pull(stranger, name).await;
    let never = stage.pull(stranger, "registry.test:7300/owner/owner/nope:v1").await;
    assert_eq!((private.status, never.status), (404, 404), "{private:?}");
    assert_eq!(private.error.replace("owner/app", "X"), never.error.replace("owner/nope", "X"));
    sqlx::query("UPDATE repositories SET public = true").execute(&stage.owner).await.expect("opened");
    let public = stage.pull(stranger, name).await;
    assert!(public.succeeded(), "{public:?}");
    sqlx::query("UPDATE repositories SET public = false").execute(&stage.owner).await.expect("closed");
    assert_eq!(stage.pull(stranger, name).await.status, 404);
}
