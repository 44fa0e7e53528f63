//! Who may do what: certificates in front, credentials and reach behind.

use contract::image::{PULL, RegistryAuth, layer_path};
use model::Digest;

use crate::{
    hostile::{Blob, Hostile},
    image::{TestImage, bytes, sha256},
    stage::Stage,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_reads_the_layers_of_its_containers_and_no_others() {
    let upstream = Hostile::start().await;
    let (layer, other) = (bytes("mine", 1_000_000), bytes("other", 10));
    upstream.hold("mine", &TestImage::new("amd64", &[&layer]));
    upstream.hold("other", &TestImage::new("amd64", &[&other]));
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    for tag in ["mine", "other"] {
        assert!(stage.pull(project, &format!("{}/app:{tag}", upstream.address)).await.succeeded());
    }
    let digest: Digest = sha256(&layer).parse().expect("digest");
    let url = format!("{}{}", stage.base, layer_path(&digest));
    assert_eq!(stage.host.get(&url).send().await.expect("answer").status(), 404, "nothing is placed there yet");
    place_container(&stage, project, &digest).await;

    let whole = stage.host.get(&url).send().await.expect("answer");
    assert_eq!((whole.status().as_u16(), whole.content_length()), (200, Some(1_000_000)));
    assert!(whole.bytes().await.expect("bytes") == layer);
    let part = stage.host.get(&url).header("range", "bytes=999990-").send().await.expect("answer");
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 999990-999999/1000000");
    assert_eq!(part.bytes().await.expect("bytes"), layer[999_990..]);
    let behind = stage.host.get(&url).header("range", "bytes=1000000-").send().await.expect("answer");
    assert_eq!(behind.status(), 416);

    for unneeded in [sha256(&other), sha256(b"nothing"), "sha256:..%2f..%2fetc".to_owned()] {
        let url = format!("{}/hosts/v1/layers/{unneeded}", stage.base);
        assert_eq!(stage.host.get(&url).send().await.expect("answer").status(), 404, "{unneeded}");
    }
    assert_eq!(stage.gateway.get(&url).send().await.expect("answer").status(), 401, "the gateway is no host");
    let pull = serde_json::json!({"project": project, "reference": "busybox"});
    let as_host = stage.host.post(format!("{}{PULL}", stage.base)).json(&pull).send().await.expect("answer");
    assert_eq!(as_host.status(), 401, "a host may not pull");
}

async fn place_container(stage: &Stage, project: model::ProjectId, layer: &Digest) {
    sqlx::query(
        "INSERT INTO hosts (id, name, address, agent_port, nano_cpus, memory_bytes, max_containers)
         VALUES ($1, 'n', '127.0.0.1', 1, 1, 1, 1)",
    )
    .bind(stage.host_id.0)
    .execute(&stage.owner)
    .await
    .expect("host");
    sqlx::query(
        "INSERT INTO containers (id, project_id, name, image_id, spec, host_id)
         SELECT 'c', project_id, 'c', image_id, '{}', $1 FROM image_layers WHERE project_id = $2 AND digest = $3",
    )
    .bind(stage.host_id.0)
    .bind(project.0)
    .bind(layer.as_str())
    .execute(&stage.owner)
    .await
    .expect("container");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_meet_the_token_flow_and_stay_where_they_belong() {
    let (upstream, storage) = (Hostile::start().await, Hostile::start().await);
    let layer = bytes("private", 1000);
    upstream.hold("latest", &TestImage::new("amd64", &[&layer]));
    upstream.challenge(&format!(
        "Bearer realm=\"http://{}/token\",service=\"registry\",scope=\"repository:team/app:pull\"",
        upstream.address
    ));
    let elsewhere = format!("http://{}/v2/x/blobs/{}", storage.address, sha256(&layer));
    upstream.set_blob(&sha256(&layer), Blob::Redirects(elsewhere));
    storage.set_blob(&sha256(&layer), Blob::Honest(layer.clone()));
    let stage = Stage::set(&[&upstream.address, &storage.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/team/app", upstream.address);

    let anonymous = stage.pull(project, &name).await;
    assert_eq!(anonymous.status, 404);
    assert!(
        anonymous.error.starts_with(&format!("pull access denied for {name}, repository does not exist")),
        "{anonymous:?}"
    );
    let auth = |password: &str| {
        Some(RegistryAuth { username: "alice".into(), password: password.into(), ..RegistryAuth::default() })
    };
    let wrong = stage.pull_with(project, &name, None, auth("guess")).await;
    assert_eq!(wrong.status, 500);
    assert!(wrong.error.contains("incorrect username or password") && !wrong.error.contains("guess"), "{wrong:?}");

    let pulled = stage.pull_with(project, &name, None, auth("s3cret")).await;
    assert!(pulled.succeeded(), "{pulled:?}");
    let tokens: Vec<_> = upstream.asked().into_iter().filter(|a| a.path == "/token").collect();
    assert!(
        tokens
            .iter()
            .all(|t| t.query.contains("scope=repository%3Ateam%2Fapp%3Apull") && t.query.contains("service=registry"))
    );
    let at_storage = storage.asked();
    assert_eq!(at_storage.len(), 1);
    assert_eq!(at_storage[0].authorization, None, "the redirect's target got the credentials");
    assert!(
        upstream
            .asked()
            .iter()
            .filter(|a| a.path != "/token")
            .all(|a| { a.authorization.as_deref().is_none_or(|text| text.starts_with("Bearer ")) })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tenant_and_no_registry_can_make_the_service_reach_inward() {
    let (upstream, tripwire) = (Hostile::start().await, Hostile::start().await);
    let layer = bytes("layer", 10);
    upstream.hold("latest", &TestImage::new("amd64", &[&layer]));
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let port = tripwire.address.rsplit(':').next().expect("port").to_owned();
    for registry in
        [tripwire.address.clone(), format!("localhost:{port}"), format!("127.1:{port}"), format!("2130706433:{port}")]
    {
        let refused = stage.pull(project, &format!("{registry}/library/app")).await;
        assert_eq!(refused.status, 403, "{registry}: {refused:?}");
        assert!(refused.error.contains("not a public address"), "{refused:?}");
    }
    let name = format!("{}/app", upstream.address);
    upstream.set_blob(&sha256(&layer), Blob::Redirects(format!("http://{}/secret", tripwire.address)));
    let redirected = stage.pull(project, &name).await;
    assert!(redirected.error.contains("not a public address"), "{redirected:?}");
    upstream.set_blob(&sha256(&layer), Blob::Redirects("file:///etc/passwd".into()));
    assert!(!stage.pull(project, &name).await.succeeded());
    upstream.set_blob(
        &sha256(&layer),
        Blob::Redirects(format!("http://{}/v2/app/blobs/{}", upstream.address, sha256(&layer))),
    );
    let circle = stage.pull(project, &name).await;
    assert!(circle.error.contains("redirects"), "{circle:?}");
    upstream.challenge(&format!("Bearer realm=\"http://{}/token\",service=\"x\"", tripwire.address));
    let realm = stage.pull(project, &name).await;
    assert_eq!(realm.status, 403, "{realm:?}");
    assert!(tripwire.asked().is_empty(), "{:?}", tripwire.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn knowing_a_digest_does_not_open_another_projects_layer() {
    let (theirs, evil) = (Hostile::start().await, Hostile::start().await);
    let secret = bytes("secret", 5000);
    let image = TestImage::new("amd64", &[&secret]);
    theirs.hold("latest", &image);
    evil.hold("latest", &image);
    evil.drop_blob(&sha256(&secret));
    let stage = Stage::set(&[&theirs.address, &evil.address], "").await;
    let (victim, attacker) = (stage.project("victim").await, stage.project("attacker").await);
    assert!(stage.pull(victim, &format!("{}/app", theirs.address)).await.succeeded());
    let stolen = stage.pull(attacker, &format!("{}/app", evil.address)).await;
    assert!(stolen.error.contains("unknown blob"), "{stolen:?}");
    assert!(!stolen.statuses().contains(&"Already exists"));
    assert_eq!(stage.rows().await[0], ("images", 1));
    // The same upstream says itself that the second project may read it: no second download.
    assert!(stage.pull(attacker, &format!("{}/app", theirs.address)).await.succeeded());
    assert_eq!(theirs.blob_gets(&sha256(&secret)), 1);
}
