//! What the registry's door answers by itself: manifests out of memory, blobs out of image-svc's directory.
//! Whether somebody may have them, and what a tag means, is read from Postgres for each request all the same.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, extract::Request as Incoming, http::Request, response::IntoResponse as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{Digest, ManifestReference, RepositoryId};
use serde_json::{Value, json};
use store::NewManifest;

use crate::world::{OpenProject, Reply, World};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(content: &[u8]) -> Digest {
    Digest::sha256(chassis::ids::sha256(content))
}

/// A gateway whose image-svc has these documents, and counts how often it is asked.
async fn world(name: &str, documents: &'static [&'static [u8]], more: &str) -> (World, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let serve = move |request: Incoming| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let path = percent_decoded(request.uri().path());
            let found = documents.iter().find(|content| path.ends_with(digest(content).as_str()));
            match found {
                Some(content) => content.to_vec().into_response(),
                None => axum::http::StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(serve)).await });
    (World::with(name, &address, more).await, asked)
}

fn percent_decoded(path: &str) -> String {
    path.replace("%3A", ":")
}

/// A repository, as the first push makes it.
async fn repository(world: &World, project: &OpenProject) -> RepositoryId {
    let (store, scope) = world.image_service(project.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    let id = tx.repository_for_push("app", RepositoryId(chassis::ids::uuid_v7())).await.expect("made");
    tx.commit().await.expect("committed");
    id
}

/// Puts a manifest that needs these blobs, as image-svc does.
async fn put(world: &World, project: &OpenProject, id: RepositoryId, content: &[u8], tag: &str, blobs: &[&[u8]]) {
    let (store, scope) = world.image_service(project.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    let digests: Vec<Digest> = blobs.iter().map(|blob| digest(blob)).collect();
    for blob in blobs {
        tx.link_blob(id, &digest(blob), blob.len() as u64).await.expect("linked");
    }
    let manifest = NewManifest {
        digest: &digest(content),
        media_type: TYPE,
        content,
        subject: None,
        artifact_type: None,
        annotations: None,
        blobs: &digests,
    };
    tx.put_manifest(id, &manifest, Some(tag)).await.expect("kept");
    tx.commit().await.expect("committed");
}

async fn token(world: &World, project: &OpenProject) -> String {
    let credential = format!("Basic {}", STANDARD.encode(format!("anyone:{}", project.token)));
    let request = Request::get("/v2/token?service=wharfage&scope=repository:owner/main/app:pull,push,delete");
    let request = request.header("authorization", credential).body(Body::empty()).expect("a request");
    world.send(request).await.json()["token"].as_str().expect("a token").to_owned()
}

fn code(reply: &Reply) -> String {
    reply.json()["errors"][0]["code"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

#[tokio::test]
async fn a_manifest_is_read_once_and_given_to_whoever_may_have_it_now_and_to_nobody_else() {
    let documents: &'static [&'static [u8]] = &[b"{\"one\":1}", b"{\"two\":2}"];
    let (world, asked) = world("registry_reads", documents, "").await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    let id = repository(&world, &owner).await;
    put(&world, &owner, id, documents[0], "v1", &[]).await;
    let (signed, foreign) = (token(&world, &owner).await, token(&world, &stranger).await);
    let get = |reference: &str, credential: &str| {
        let (path, credential) = (format!("/v2/owner/main/app/manifests/{reference}"), credential.to_owned());
        let world = &world;
        async move { world.get(&path, &credential).await }
    };
    let (one, two) = (digest(documents[0]), digest(documents[1]));
    for reference in ["v1", one.as_str(), "v1"] {
        let reply = get(reference, &signed).await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, documents[0]), "{}", reply.text());
        assert_eq!(reply.header("docker-content-digest"), Some(one.as_str()));
        assert_eq!(reply.header("etag"), Some(format!("\"{one}\"").as_str()));
        assert_eq!((reply.header("content-type"), reply.header("content-length")), (Some(TYPE), Some("9")));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it was kept");
    let head = world.call("HEAD", "/v2/owner/main/app/manifests/v1", Some(&signed), None).await;
    assert_eq!((head.status, head.header("docker-content-digest")), (200, Some(one.as_str())));
    // Another project's name is unknown whatever is in memory.
    let refused = get("v1", &foreign).await;
    assert_eq!((refused.status, code(&refused).as_str()), (404, "NAME_UNKNOWN"));
    // A tag means what it means now, whoever moved it.
    put(&world, &owner, id, documents[1], "v1", &[]).await;
    assert_eq!(get("v1", &signed).await.header("docker-content-digest"), Some(two.as_str()));
    let path = format!("/api/v1/project/repositories/{id}");
    let opened = world.call("PATCH", &path, Some(&owner.token), Some(json!({ "public": true }))).await;
    assert_eq!(opened.status, 200);
    // The token of before was given no right to it.
    let foreign = token(&world, &stranger).await;
    assert_eq!(get("v1", &foreign).await.body, documents[1]);
    let closed = world.call("PATCH", &path, Some(&owner.token), Some(json!({ "public": false }))).await;
    assert_eq!((closed.status, get("v1", &foreign).await.status), (200, 404), "closed means now");
    let (store, scope) = world.image_service(owner.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    assert!(tx.delete_manifest(id, &ManifestReference::Digest(two.clone())).await.expect("deleted"));
    tx.commit().await.expect("committed");
    let before = asked.load(Ordering::SeqCst);
    for gone in ["v1", two.as_str()] {
        // What is not there is image-svc's to say.
        let _ = get(gone, &signed).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 2, "it is gone, and not given from memory");
    assert_eq!(get(one.as_str(), &signed).await.status, 200);
    let revoke = format!("/api/v1/projects/{}/tokens/{}", owner.id, owner.token_id);
    assert_eq!(world.operate("DELETE", &revoke, Value::Null).await.status, 204);
    assert_eq!(get(one.as_str(), &signed).await.status, 401, "revoked means now");
}

fn store_blob(directory: &Path, content: &[u8]) -> std::path::PathBuf {
    let file = directory.join(contract::registry::blob_file(&digest(content)));
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    std::fs::write(&file, content).expect("written");
    file
}

#[tokio::test]
async fn a_blob_that_a_manifest_needs_is_sent_from_the_directory_and_all_else_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let documents: &'static [&'static [u8]] = &[b"needed", b"lonely"];
    let more = format!("[registry]\nblobs_dir = \"{}\"\n", directory.path().display());
    let (world, asked) = world("registry_blob_reads", documents, &more).await;
    let (owner, stranger) = (world.project("owner").await, world.project("stranger").await);
    let id = repository(&world, &owner).await;
    put(&world, &owner, id, b"{}", "v1", &[b"needed"]).await;
    let file = store_blob(directory.path(), b"needed");
    store_blob(directory.path(), b"lonely");
    // Somebody else's, on the same disk.
    store_blob(directory.path(), b"secret");
    let (signed, foreign) = (token(&world, &owner).await, token(&world, &stranger).await);
    let path = |content: &[u8]| format!("/v2/owner/main/app/blobs/{}", digest(content));
    let reply = world.get(&path(b"needed"), &signed).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"needed".as_slice()), "{}", reply.text());
    assert_eq!(reply.header("docker-content-digest"), Some(digest(b"needed").as_str()));
    assert_eq!((reply.header("content-length"), reply.header("accept-ranges")), (Some("6"), Some("bytes")));
    for unlinked in [b"secret".as_slice(), b"lonely", b"nobody's"] {
        let reply = world.get(&path(unlinked), &signed).await;
        assert_eq!((reply.status, code(&reply).as_str()), (404, "BLOB_UNKNOWN"));
    }
    let refused = world.get(&path(b"needed"), &foreign).await;
    assert_eq!((refused.status, code(&refused).as_str()), (404, "NAME_UNKNOWN"));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "image-svc was not asked");
    let mut times = 0;
    let mut passed_on = |what: &str| {
        times += 1;
        assert_eq!(asked.load(Ordering::SeqCst), times, "{what}");
    };
    // Who asks whether it is there counts on the answer.
    let _ = world.call("HEAD", &path(b"needed"), Some(&signed), None).await;
    passed_on("HEAD");
    let part = Request::get(path(b"needed")).header("authorization", format!("Bearer {signed}"));
    let _ = world.send(part.header("range", "bytes=1-2").body(Body::empty()).expect("a request")).await;
    passed_on("a part");
    let (store, scope) = world.image_service(owner.id);
    let mut tx = store.project_tx(&scope).await.expect("a transaction");
    tx.link_blob(id, &digest(b"lonely"), 6).await.expect("linked");
    tx.commit().await.expect("committed");
    assert_eq!(world.get(&path(b"lonely"), &signed).await.body, b"lonely");
    passed_on("a link that no manifest needs");
    std::fs::remove_file(file).expect("removed");
    assert_eq!(world.get(&path(b"needed"), &signed).await.body, b"needed");
    passed_on("a file that is not there");
}
