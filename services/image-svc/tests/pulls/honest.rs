//! Pulls that succeed, and the words they are told in.

use sqlx::Row as _;
use store::{ProjectScope, Store};

use crate::{
    debian::DockerRegistry,
    hostile::Hostile,
    image::{TestImage, bytes, index, sha256},
    stage::Stage,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_docker_hub_comes_from_the_mirror_as_dockerd_tells_it() {
    let registry = DockerRegistry::start().await;
    let (low, high) = (bytes("low", 3_000_000), bytes("high", 100));
    let image = TestImage::new("amd64", &[&low, &high]);
    registry.push("library/busybox", "latest", &image).await;
    let mirror = format!(
        "upstreams = [{{ registry = 'docker.io', mirrors = ['http://{}'], mirrors_only = true }}]",
        registry.address
    );
    let stage = Stage::set(&[], &mirror).await;
    let project = stage.project("a").await;

    let pulled = stage.pull(project, "busybox").await;
    assert!(pulled.succeeded(), "{pulled:?}");
    let first = &pulled.lines[0];
    assert_eq!((first.status.as_deref(), first.id.as_deref()), (Some("Pulling from library/busybox"), Some("latest")));
    let low_id = &sha256(&low)[7..19];
    let of_low: Vec<&str> =
        pulled.lines.iter().filter(|l| l.id.as_deref() == Some(low_id)).filter_map(|l| l.status.as_deref()).collect();
    assert_eq!(of_low.first(), Some(&"Pulling fs layer"));
    assert!(of_low.contains(&"Downloading"));
    assert_eq!(of_low[of_low.len() - 3..], ["Verifying Checksum", "Download complete", "Pull complete"]);
    let digest = sha256(&image.manifest);
    let last = [format!("Digest: {digest}"), "Status: Downloaded newer image for busybox:latest".to_owned()];
    assert_eq!(pulled.statuses()[pulled.statuses().len() - 2..], last);

    let again = stage.pull(project, "docker.io/library/busybox:latest").await;
    let up_to_date = [
        "Pulling from library/busybox".to_owned(),
        format!("Digest: {digest}"),
        "Status: Image is up to date for busybox:latest".to_owned(),
    ];
    assert_eq!(again.statuses(), up_to_date);

    let mut expected = vec![sha256(&low)[7..].to_owned(), sha256(&high)[7..].to_owned()];
    expected.sort();
    assert_eq!(stage.files().await, expected);
    let store = Store::from_pool(stage.owner.clone());
    let mut tx = store.project_tx(&ProjectScope::delegated(project)).await.expect("tx");
    let row = tx.resolve_image("busybox").await.expect("image");
    assert_eq!(row.id.as_str(), sha256(&image.config));
    assert_eq!(row.config, image.config);
    assert_eq!(row.tags, ["busybox:latest"]);
    assert_eq!(row.digests, [format!("busybox@{digest}")]);
    assert_eq!(row.layers.iter().map(|l| l.size_bytes).collect::<Vec<_>>(), [3_000_000, 100]);
    for name in [row.id.as_str(), &row.id.hex()[..12], &row.digests[0], "library/busybox:latest"] {
        assert_eq!(tx.resolve_image_id(name).await.as_ref(), Ok(&row.id), "{name}");
    }
    drop(tx);
    let events = sqlx::query("SELECT sequence, action, actor_id FROM events ORDER BY sequence").fetch_all(&stage.owner);
    let events: Vec<(i64, String, String)> =
        events.await.expect("events").iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], (1, "pull".into(), "busybox:latest".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_has_names_that_come_and_go() {
    let registry = DockerRegistry::start().await;
    let image = TestImage::new("amd64", &[b"layer"]);
    registry.push("team/app", "v1", &image).await;
    let stage = Stage::set(&[&registry.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/team/app", registry.address);
    let pulled = stage.pull(project, &format!("{name}:v1")).await;
    assert_eq!(pulled.statuses().last(), Some(&format!("Status: Downloaded newer image for {name}:v1").as_str()));
    let by_digest = stage.pull(project, &format!("{name}@{}", sha256(&image.manifest))).await;
    assert!(by_digest.succeeded(), "{by_digest:?}");

    let store = Store::from_pool(stage.owner.clone());
    let mut tx = store.project_tx(&ProjectScope::delegated(project)).await.expect("tx");
    let id = tx.resolve_image_id(&format!("{name}:v1")).await.expect("image");
    tx.tag_image(&id, &"mine:1".parse().expect("reference")).await.expect("tag");
    assert_eq!(tx.resolve_image("mine:1").await.expect("image").tags, [format!("{name}:v1"), "mine:1".into()]);
    assert_eq!(tx.untag_image(&id, &"mine:1".parse().expect("reference")).await, Ok(true));
    assert_eq!(tx.untag_image(&id, &"mine:1".parse().expect("reference")).await, Ok(false));
    assert_eq!(tx.image_uses(&id).await, Ok(Vec::new()));
    assert_eq!(tx.delete_image(&id).await, Ok(true));
    assert_eq!(tx.delete_image(&id).await, Ok(false));
    let gone = tx.resolve_image("mine:1").await.expect_err("deleted");
    assert_eq!(gone, model::Error::NotFound("No such image: mine:1".into()));
    tx.commit().await.expect("commit");
    let left = stage.rows().await;
    assert!(left[..4].iter().all(|(_, rows)| *rows == 0), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_gives_the_fleets_platform_or_the_one_asked_for() {
    let registry = DockerRegistry::start().await;
    let (amd, arm) = (TestImage::new("amd64", &[b"amd"]), TestImage::new("arm64", &[b"arm"]));
    registry.push("a/b", "amd", &amd).await;
    registry.push("a/b", "arm", &arm).await;
    let both = index(&[("amd64", &amd), ("arm64", &arm)]);
    registry.push_index("a/b", "multi", both.clone()).await;
    let stage = Stage::set(&[&registry.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/a/b:multi", registry.address);
    let store = Store::from_pool(stage.owner.clone());
    for (platform, image) in [(None, &amd), (Some("linux/arm64"), &arm)] {
        let pulled = stage.pull_with(project, &name, platform, None).await;
        assert!(pulled.statuses().contains(&format!("Digest: {}", sha256(&both)).as_str()), "{pulled:?}");
        let mut tx = store.project_tx(&ProjectScope::delegated(project)).await.expect("tx");
        assert_eq!(tx.resolve_image_id(&name).await.expect("image").as_str(), sha256(&image.config));
    }
    let none = stage.pull_with(project, &name, Some("linux/s390x"), None).await;
    assert_eq!(
        (none.status, none.error.as_str()),
        (404, "no matching manifest for linux/s390x in the manifest list entries")
    );
    let single = stage.pull_with(project, &name.replace("multi", "amd"), Some("linux/arm64"), None).await;
    assert!(single.error.contains("does not match the specified platform (linux/arm64)"), "{single:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_at_the_same_time_fetch_each_blob_once() {
    let upstream = Hostile::start().await;
    let layers = [bytes("one", 4_000_000), bytes("two", 4_000_000), bytes("three", 10)];
    let image = TestImage::new("amd64", &[&layers[0], &layers[1], &layers[2]]);
    upstream.hold("latest", &image);
    let stage = Stage::set(&[&upstream.address], "").await;
    let projects = [stage.project("a").await, stage.project("b").await, stage.project("c").await];
    let name = format!("{}/app", upstream.address);
    let pulls = projects.iter().chain(&projects).map(|project| stage.pull(*project, &name));
    for outcome in futures::future::join_all(pulls).await {
        assert!(outcome.succeeded(), "{outcome:?}");
    }
    for layer in &layers {
        assert_eq!(upstream.blob_gets(&sha256(layer)), 1);
    }
    assert_eq!(stage.rows().await[0], ("images", 3));
}
