//! Upstreams that are wrong, broken or absent: a clear error, and nothing half-made.

use std::time::{Duration, Instant};

use crate::{
    debian::DockerRegistry,
    hostile::{Blob, Hostile},
    image::{TestImage, bytes, descriptor, sha256},
    stage::Stage,
};

const IMPATIENT: &str = "timeouts = { connect_ms = 500, idle_ms = 300 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_dockerds_words() {
    let registry = DockerRegistry::start().await;
    registry.push("library/busybox", "latest", &TestImage::new("amd64", &[b"layer"])).await;
    let mirror = format!(
        "upstreams = [{{ registry = 'docker.io', mirrors = ['http://{}'], mirrors_only = true }}]",
        registry.address
    );
    let stage = Stage::set(&["127.0.0.1:1"], &mirror).await;
    let project = stage.project("a").await;
    let said = |o: crate::stage::Outcome| (o.status, o.error);
    assert_eq!(
        said(stage.pull(project, "busybox:nope").await),
        (404, "manifest for busybox:nope not found: manifest unknown: manifest unknown".into())
    );
    let denied = "pull access denied for nope, repository does not exist or may require 'docker login': \
                  denied: requested access to the resource is denied";
    assert_eq!(said(stage.pull(project, "nope").await), (404, denied.into()));
    assert_eq!(
        said(stage.pull(project, "127.0.0.1:1/app").await),
        (503, "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused".into())
    );
    let (status, error) = said(stage.pull(project, "Busybox").await);
    assert_eq!(status, 400);
    assert!(error.contains("must be lowercase"), "{error}");
    let (status, _) = said(stage.pull_with(project, "busybox", Some("a/b/c/d"), None).await);
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_lies_leaves_nothing() {
    let upstream = Hostile::start().await;
    let layer = bytes("layer", 200_000);
    upstream.hold("latest", &TestImage::new("amd64", &[&layer]));
    let stage = Stage::set(&[&upstream.address], IMPATIENT).await;
    let project = stage.project("a").await;
    let name = format!("{}/app", upstream.address);
    let before = (stage.rows().await, stage.files().await);

    upstream.set_blob(&sha256(&layer), Blob::Lies(layer.clone()));
    let lied = stage.pull(project, &name).await;
    let got = sha256(&vec![b'x'; layer.len()]);
    assert!(lied.error.contains(&format!("expected {}, got {got}", sha256(&layer))), "{lied:?}");
    assert_eq!((stage.rows().await, stage.files().await), before);

    upstream.set_blob(&sha256(&layer), Blob::Honest(bytes("layer", 100)));
    let short = stage.pull(project, &name).await;
    assert!(short.error.contains("sends 100 bytes where the manifest says 200000"), "{short:?}");
    upstream.set_blob(&sha256(&layer), Blob::Endless);
    let endless = stage.pull(project, &name).await;
    assert!(endless.error.contains("longer than the 200000 bytes"), "{endless:?}");
    assert_eq!((stage.rows().await, stage.files().await), before);

    upstream.set_blob(&sha256(&layer), Blob::Honest(layer));
    assert!(stage.pull(project, &name).await.succeeded(), "and then it can still be pulled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_or_config_that_lies_leaves_nothing() {
    let upstream = Hostile::start().await;
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let before = (stage.rows().await, stage.files().await);
    let image = TestImage::new("amd64", &[b"layer"]);
    upstream.hold("latest", &image);
    upstream.set_blob(&sha256(&image.config), Blob::Lies(image.config.clone()));
    let config = stage.pull(project, &format!("{}/app", upstream.address)).await;
    assert!(config.error.contains("image config verification failed"), "{config:?}");
    let two = TestImage::with_config(image.config.clone(), &[b"layer", b"second"]);
    upstream.hold("two", &two);
    let count = stage.pull(project, &format!("{}/app:two", upstream.address)).await;
    assert!(count.error.contains("1 diff_ids for 2 layers"), "{count:?}");
    let pinned = stage.pull(project, &format!("{}/app@{}", upstream.address, sha256(b"another"))).await;
    assert_eq!(pinned.status, 404);
    upstream.hold_index(&sha256(b"another"), br#"{"schemaVersion":2,"manifests":[]}"#.to_vec());
    let pinned = stage.pull(project, &format!("{}/app@{}", upstream.address, sha256(b"another"))).await;
    assert!(pinned.error.contains("manifest verification failed"), "{pinned:?}");
    let nested = |inner: &[u8]| {
        let mut entry = descriptor(crate::image::INDEX, inner);
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
        serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes()
    };
    let mut deep = nested(&image.manifest);
    for _ in 0..10 {
        upstream.hold_index(&sha256(&deep), deep.clone());
        deep = nested(&deep);
    }
    upstream.hold_index("deep", deep);
    let deep = stage.pull(project, &format!("{}/app:deep", upstream.address)).await;
    assert!(deep.error.contains("nested"), "{deep:?}");
    upstream.hold_index("huge", vec![b' '; 5 * 1024 * 1024]);
    let huge = stage.pull(project, &format!("{}/app:huge", upstream.address)).await;
    assert!(huge.error.contains("longer than 4194304 bytes"), "{huge:?}");
    assert_eq!((stage.rows().await, stage.files().await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let upstream = Hostile::start().await;
    let (resumed, restarted) = (bytes("resumed", 500_000), bytes("restarted", 400_000));
    upstream.hold("latest", &TestImage::new("amd64", &[&resumed, &restarted]));
    upstream.set_blob(&sha256(&resumed), Blob::BreaksOff(resumed.clone(), 200_000));
    upstream.set_blob(&sha256(&restarted), Blob::BreaksOffOnce(restarted.clone(), 100_000));
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let pulled = stage.pull(project, &format!("{}/app", upstream.address)).await;
    assert!(pulled.succeeded(), "{pulled:?}");
    let ranges: Vec<String> =
        upstream.asked().into_iter().filter(|a| a.path.ends_with(&sha256(&resumed))).filter_map(|a| a.range).collect();
    assert_eq!(ranges, ["bytes=200000-", "bytes=400000-"]);
    assert_eq!(upstream.blob_gets(&sha256(&restarted)), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_is_given_up() {
    let upstream = Hostile::start().await;
    let layer = bytes("layer", 1000);
    upstream.hold("latest", &TestImage::new("amd64", &[&layer]));
    upstream.set_blob(&sha256(&layer), Blob::Hangs(1000));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let silent_address = silent.local_addr().expect("address").to_string();
    let stage = Stage::set(&[&upstream.address, &silent_address], IMPATIENT).await;
    let project = stage.project("a").await;
    let before = (stage.rows().await, stage.files().await);
    let began = Instant::now();
    let hung = stage.pull(project, &format!("{}/app", upstream.address)).await;
    assert!(hung.error.contains("download broke off"), "{hung:?}");
    let mute = stage.pull(project, &format!("{silent_address}/app")).await;
    assert_eq!(mute.status, 503);
    assert!(mute.error.contains("request canceled"), "{mute:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((stage.rows().await, stage.files().await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_ends_its_pull() {
    let upstream = Hostile::start().await;
    let layer = bytes("layer", 1000);
    upstream.hold("latest", &TestImage::new("amd64", &[&layer]));
    upstream.set_blob(&sha256(&layer), Blob::Hangs(1000));
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/app", upstream.address);
    let cut = tokio::time::timeout(Duration::from_millis(500), stage.pull(project, &name)).await;
    assert!(cut.is_err(), "it hangs: {cut:?}");
    assert_eq!(stage.files().await, Vec::<String>::new());
    // A new pull begins a download of its own; the old one holds nothing up.
    upstream.set_blob(&sha256(&layer), Blob::Honest(layer));
    let pulled = tokio::time::timeout(Duration::from_secs(10), stage.pull(project, &name)).await;
    assert!(pulled.expect("in time").succeeded());
}

#[test]
fn the_description_names_every_route() {
    let (_, document) = image_svc::api();
    let mut paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "/hosts/v1/layers/{digest}",
            "/internal/v1/archives",
            "/internal/v1/archives/saved",
            "/internal/v1/distributions",
            "/internal/v1/images",
            "/internal/v1/layers",
            "/internal/v1/logins",
            "/internal/v1/pulls",
            "/internal/v1/pushes",
            "/internal/v1/registry/blobs/{digest}",
            "/internal/v1/registry/catalog",
            "/internal/v1/registry/manifests/{reference}",
            "/internal/v1/registry/referrers/{digest}",
            "/internal/v1/registry/tags",
            "/internal/v1/registry/uploads",
            "/internal/v1/registry/uploads/{id}",
            "/internal/v1/searches",
        ]
    );
}
