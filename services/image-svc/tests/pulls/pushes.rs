//! Pushes to a registry of somebody else, what that registry says of an image, and searches: Debian's
//! docker-registry is the somebody.

use contract::image::{DISTRIBUTION, PUSH, PullProgress, RegistryAuth, SEARCH};
use model::ProjectId;
use serde_json::{Value, json};

use crate::{
    debian::{DockerRegistry, PASSWORD},
    image::{TestImage, bytes, sha256},
    stage::Stage,
};

async fn push(stage: &Stage, project: ProjectId, reference: &str) -> (u16, Vec<PullProgress>) {
    push_with(stage, project, reference, None).await
}

async fn push_with(
    stage: &Stage,
    project: ProjectId,
    reference: &str,
    auth: Option<&RegistryAuth>,
) -> (u16, Vec<PullProgress>) {
    let request = json!({"project": project, "reference": reference, "auth": auth});
    let answer = stage.gateway.post(format!("{}{PUSH}", stage.base)).json(&request).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    let lines = text.lines().filter(|_| status == 200).map(|line| serde_json::from_str(line).expect("a line"));
    (status, lines.collect())
}

fn statuses(lines: &[PullProgress]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.status.as_deref()).collect()
}

/// Gives an image of a project a further name.
async fn tag(stage: &Stage, project: ProjectId, repository: &str) {
    sqlx::query("INSERT INTO image_tags (project_id, repository, tag, image_id) SELECT $1, $2, 'v1', id FROM images WHERE project_id = $1")
        .bind(project.0)
        .bind(repository)
        .execute(&stage.owner)
        .await
        .expect("a tag");
}

async fn ask(stage: &Stage, path: &str, body: Value) -> (u16, Value) {
    let answer = stage.gateway.post(format!("{}{path}", stage.base)).json(&body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("a document"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_sends_what_the_registry_does_not_have_and_says_so() {
    let (from, to) = (DockerRegistry::start().await, DockerRegistry::start().await);
    let layers = [bytes("pushed", 3_000_000), bytes("small", 10)];
    let image = TestImage::new("amd64", &[&layers[0], &layers[1]]);
    from.push("team/app", "latest", &image).await;
    let stage = Stage::set(&[&from.address, &to.address], "").await;
    let project = stage.project("a").await;
    assert!(stage.pull(project, &format!("{}/team/app", from.address)).await.succeeded());
    let there = format!("{}/new/app", to.address);
    tag(&stage, project, &there).await;

    let (status, lines) = push(&stage, project, &format!("{there}:v1")).await;
    let said = statuses(&lines);
    assert_eq!((status, said[0]), (200, format!("The push refers to repository [{there}]").as_str()), "{lines:?}");
    let count = |said: &[&str], wanted: &str| said.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(&said, "Preparing"), count(&said, "Pushed")), (2, 2), "{lines:?}");
    let digest = sha256(&image.manifest);
    let last = format!("v1: digest: {digest} size: {}", image.manifest.len());
    assert_eq!(said.last(), Some(&last.as_str()));
    let aux = lines.last().and_then(|line| line.aux.clone()).expect("what came of it");
    assert_eq!(aux, json!({"Tag": "v1", "Digest": digest, "Size": image.manifest.len()}));

    let again = push(&stage, project, &format!("{there}:v1")).await.1;
    assert_eq!(count(&statuses(&again), "Layer already exists"), 2, "{again:?}");
    let other = format!("{}/new/other", to.address);
    tag(&stage, project, &other).await;
    let mounted = push(&stage, project, &format!("{other}:v1")).await.1;
    assert_eq!(count(&statuses(&mounted), "Mounted from new/app"), 2, "{mounted:?}");

    let second = stage.project("b").await;
    let pulled = stage.pull(second, &format!("{there}:v1")).await;
    assert!(pulled.succeeded() && pulled.statuses().contains(&format!("Digest: {digest}").as_str()), "{pulled:?}");
    let events: (i64,) = sqlx::query_as("SELECT count(*) FROM events WHERE action = 'push'")
        .fetch_one(&stage.owner)
        .await
        .expect("a count");
    assert_eq!(events.0, 3);
}

/// Debian's docker-registry with a password file: what `docker push` and `docker pull` send along as
/// `X-Registry-Auth` opens it, for that request and for nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_wants_a_password_opens_to_the_requests_own_credentials_alone() {
    let (from, locked) = (DockerRegistry::start().await, DockerRegistry::for_alice().await);
    let layer = bytes("behind a password", 100_000);
    let image = TestImage::new("amd64", &[&layer]);
    from.push("team/app", "latest", &image).await;
    let stage = Stage::set(&[&from.address, &locked.address], "").await;
    let (mine, other) = (stage.project("a").await, stage.project("b").await);
    assert!(stage.pull(mine, &format!("{}/team/app", from.address)).await.succeeded());
    let repository = format!("{}/team/app", locked.address);
    tag(&stage, mine, &repository).await;
    let name = format!("{repository}:v1");
    let alice = |password: &str| RegistryAuth {
        username: "alice".into(),
        password: password.into(),
        server_address: locked.address.clone(),
        ..RegistryAuth::default()
    };
    let (right, wrong) = (alice(PASSWORD), alice("guess"));
    let failed = |lines: &[PullProgress]| lines.last().is_some_and(|line| line.error.is_some());
    for auth in [None, Some(&wrong)] {
        let (status, lines) = push_with(&stage, mine, &name, auth).await;
        assert!(status != 200 || failed(&lines), "{auth:?}: {status} {lines:?}");
        assert!(!format!("{lines:?}").contains("guess"));
    }
    assert_eq!(locked.repositories().await, Vec::<String>::new(), "nothing got there");
    let (status, lines) = push_with(&stage, mine, &name, Some(&right)).await;
    assert!(status == 200 && !failed(&lines), "{lines:?}");
    assert_eq!(locked.repositories().await, ["team/app"]);
    for auth in [None, Some(wrong)] {
        let refused = stage.pull_with(other, &name, None, auth).await;
        assert!(!refused.succeeded(), "{refused:?}");
    }
    let pulled = stage.pull_with(other, &name, None, Some(right.clone())).await;
    let digest = format!("Digest: {}", sha256(&image.manifest));
    assert!(pulled.succeeded() && pulled.statuses().contains(&digest.as_str()), "{pulled:?}");
    // What is here by now opens to nobody who cannot open it there.
    let third = stage.project("c").await;
    assert!(!stage.pull(third, &name).await.succeeded());
    // Credentials for one registry are not shown to another.
    let elsewhere = RegistryAuth { server_address: from.address.clone(), ..right };
    assert!(!stage.pull_with(third, &name, None, Some(elsewhere)).await.succeeded());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_reaches_no_address_that_a_pull_does_not() {
    let (from, private) = (DockerRegistry::start().await, DockerRegistry::start().await);
    from.push("team/app", "latest", &TestImage::new("amd64", &[&bytes("kept", 100)])).await;
    let mirrored = format!(
        "upstreams = [{{ registry = 'docker.io', mirrors = ['http://{}'], mirrors_only = true }}]",
        from.address
    );
    let stage = Stage::set(&[&from.address], &mirrored).await;
    let project = stage.project("a").await;
    assert!(stage.pull(project, &format!("{}/team/app", from.address)).await.succeeded());
    let port = private.address.rsplit(':').next().expect("a port");
    for registry in [private.address.clone(), format!("127.1:{port}"), "169.254.169.254".to_owned()] {
        tag(&stage, project, &format!("{registry}/x/y")).await;
        let (_, lines) = push(&stage, project, &format!("{registry}/x/y:v1")).await;
        let error = lines.last().and_then(|line| line.error.clone()).unwrap_or_default();
        assert!(error.contains("not a public address"), "{registry}: {lines:?}");
    }
    tag(&stage, project, "docker.io/library/app").await;
    assert_eq!(push(&stage, project, "app:v1").await.0, 403, "mirrors are not pushed to");
    assert_eq!(private.repositories().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_asked_for_descriptor_and_platforms_and_searched_by_its_catalog() {
    let upstream = DockerRegistry::start().await;
    let (amd, arm) = (TestImage::new("amd64", &[&bytes("x", 10)]), TestImage::new("arm64", &[&bytes("y", 10)]));
    upstream.push("library/busybox", "one", &amd).await;
    upstream.push("library/busybox", "other", &arm).await;
    let index = crate::image::index(&[("amd64", &amd), ("arm64", &arm)]);
    upstream.push_index("library/busybox", "latest", index.clone()).await;
    upstream.push("team/tools", "latest", &amd).await;
    let more = format!(
        "upstreams = [{{ registry = 'docker.io', mirrors = ['http://{}'], mirrors_only = true, search = true }}]\n\
         registry = {{ names = ['r.test:1'] }}",
        upstream.address
    );
    let stage = Stage::set(&[], &more).await;
    let project = stage.project("a").await;
    let of = |name: &str| json!({"project": project, "reference": name});

    let (status, whole) = ask(&stage, DISTRIBUTION, of("busybox")).await;
    assert_eq!((status, whole["descriptor"]["digest"].as_str()), (200, Some(sha256(&index).as_str())));
    assert_eq!(whole["descriptor"]["size"], json!(index.len()));
    assert_eq!(
        whole["platforms"],
        json!([{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"}])
    );
    let (_, one) = ask(&stage, DISTRIBUTION, of("busybox:other")).await;
    assert_eq!(one["platforms"], json!([{"architecture": "arm64", "os": "linux"}]));
    for (name, status) in [("busybox:absent", 404), ("r.test:1/acme/web/app", 404), ("127.0.0.1:1/x", 403), ("A", 400)]
    {
        assert_eq!(ask(&stage, DISTRIBUTION, of(name)).await.0, status, "{name}");
    }

    let found = async |term: &str| ask(&stage, SEARCH, json!({"project": project, "term": term, "limit": 25})).await;
    assert_eq!(found("BUSY").await.1, json!([{"name": "busybox", "is_official": true}]));
    assert_eq!(found("tool").await.1, json!([{"name": "team/tools", "is_official": false}]));
    assert_eq!(found("library").await.1, json!([]), "what Docker does not show is not searched");
    assert_eq!(found("r.test:1/busybox").await, (200, json!([])));
    assert_eq!(found("elsewhere.example/x").await.0, 501);
}
