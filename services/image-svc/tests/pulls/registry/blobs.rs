//! Blobs (spec: "Pulling blobs", "Deleting blobs").

use reqwest::Method;

use super::{Repo, header, refusal};
use crate::{
    image::{TestImage, bytes, sha256},
    stage::Stage,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_read_whole_in_part_and_not_at_all_by_whoever_has_it() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let content = bytes("blob", 10_000);
    let digest = sha256(&content);
    repo.push_blob(&content).await;
    let head = repo.blob(Method::HEAD, &digest).send().await.expect("an answer");
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "10000"));
    assert_eq!(header(&head, "docker-content-digest"), digest);
    assert!(head.bytes().await.expect("no bytes").is_empty());
    let get = |name: &'static str, value: String| repo.blob(Method::GET, &digest).header(name, value).send();
    let part = get("range", "bytes=10-19".into()).await.expect("an answer");
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 10-19/10000"));
    assert_eq!(part.bytes().await.expect("bytes"), content[10..20]);
    let tail = get("range", "bytes=-5".into()).await.expect("an answer");
    assert_eq!(tail.bytes().await.expect("bytes"), content[9_995..]);
    let behind = get("range", "bytes=10000-".into()).await.expect("an answer");
    assert_eq!((behind.status().as_u16(), header(&behind, "content-range")), (416, "bytes */10000"));
    for has_it in [format!("\"{digest}\""), format!("\"x\", W/\"{digest}\""), "*".into()] {
        let answer = get("if-none-match", has_it).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), header(&answer, "docker-content-digest")), (304, digest.as_str()));
    }
    assert_eq!(get("if-none-match", "\"x\"".into()).await.expect("an answer").status(), 200);
    let stale = repo.blob(Method::GET, &digest).header("range", "bytes=0-0").header("if-range", "\"x\"");
    assert_eq!(stale.send().await.expect("an answer").status(), 200, "a part of something else is of no use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knowing_a_digest_opens_no_repositorys_blob() {
    let stage = Stage::set(&[], "").await;
    let (mine, theirs) = (stage.project("mine").await, stage.project("theirs").await);
    let (repo, other) = (Repo::made(&stage, mine, "app").await, Repo::made(&stage, mine, "other").await);
    let foreign = Repo::made(&stage, theirs, "app").await;
    let secret = bytes("secret", 1000);
    repo.push_blob(&secret).await;
    for stranger in [&other, &foreign] {
        for method in [Method::HEAD, Method::GET, Method::DELETE] {
            let known = stranger.blob(method.clone(), &sha256(&secret)).send().await.expect("an answer");
            let never = stranger.blob(method.clone(), &sha256(b"never")).send().await.expect("an answer");
            assert_eq!((known.status().as_u16(), never.status().as_u16()), (404, 404), "{method}");
            let names = |answer: &reqwest::Response| {
                let ours = ["date", "x-request-id", "content-length"];
                let mut names: Vec<String> = answer.headers().keys().map(ToString::to_string).collect();
                names.retain(|name| !ours.contains(&name.as_str()));
                names
            };
            assert_eq!(names(&known), names(&never));
            assert_eq!(known.bytes().await.expect("bytes"), never.bytes().await.expect("bytes"));
        }
    }
    // Another project that has the same content itself reads it.
    foreign.push_blob(&secret).await;
    assert_eq!(foreign.blob(Method::GET, &sha256(&secret)).send().await.expect("an answer").status(), 200);
    assert_eq!(stage.files().await.len(), 1, "identical content is stored once");
    let wrong_scope = Repo {
        stage: &stage,
        query: contract::registry::RegistryQuery { repository: repo.query.repository, ..foreign.query.clone() },
    };
    let answer = wrong_scope.blob(Method::GET, &sha256(&secret)).send().await.expect("an answer");
    assert_eq!(refusal(answer).await, (404, "BLOB_UNKNOWN".into()), "a repository is read in its own project only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_is_deleted_unless_a_manifest_needs_it() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let image = TestImage::new("amd64", &[b"layer"]);
    repo.push("v1", &image).await;
    let needed = repo.blob(Method::DELETE, &sha256(b"layer")).send().await.expect("an answer");
    assert_eq!(refusal(needed).await, (405, "UNSUPPORTED".into()));
    let digest = sha256(&image.manifest);
    assert_eq!(repo.manifest(Method::DELETE, &digest).send().await.expect("an answer").status(), 202);
    assert_eq!(repo.blob(Method::DELETE, &sha256(b"layer")).send().await.expect("an answer").status(), 202);
    assert_eq!(repo.blob(Method::GET, &sha256(b"layer")).send().await.expect("an answer").status(), 404);
    let twice = repo.blob(Method::DELETE, &sha256(b"layer")).send().await.expect("an answer");
    assert_eq!(refusal(twice).await, (404, "BLOB_UNKNOWN".into()));
    let bad = repo.blob(Method::GET, "sha256:12").send().await.expect("an answer");
    assert_eq!(refusal(bad).await, (400, "DIGEST_INVALID".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_it_opens_to_anybody_but_the_gateway() {
    let stage = Stage::set(&[], "").await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let url = format!("{}{}/x", stage.base, contract::registry::BLOBS);
    let answer = stage.host.get(url).query(&repo.query).send().await.expect("an answer");
    assert_eq!(refusal(answer).await, (401, "UNAUTHORIZED".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_project_has_is_uploaded_to_the_last_byte() {
    let stage = Stage::set(&[], "").await;
    let (theirs, mine) = (stage.project("theirs").await, stage.project("mine").await);
    let (foreign, repo) = (Repo::made(&stage, theirs, "app").await, Repo::made(&stage, mine, "app").await);
    let secret = bytes("secret", 1_000);
    foreign.push_blob(&secret).await;
    // Whoever knows a digest and lacks bytes is told the same whether somebody else has them or not.
    let never = bytes("never", 1_000);
    for content in [&secret, &never] {
        for part in [&content[..0], &content[..999]] {
            let begun = repo.begin().await;
            let put = repo.put(&begun, &sha256(content)).body(part.to_vec()).send().await.expect("an answer");
            assert_eq!(refusal(put).await, (400, "DIGEST_INVALID".into()));
            assert_eq!(repo.blob(Method::HEAD, &sha256(content)).send().await.expect("an answer").status(), 404);
        }
    }
}
