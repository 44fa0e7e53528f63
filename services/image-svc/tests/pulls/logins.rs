//! Credentials tried for `docker login`, and repositories pulled whole.

use contract::image::RegistryAuth;

use crate::{
    hostile::Hostile,
    image::{TestImage, bytes},
    stage::Stage,
};

fn alice(server: &str, password: &str) -> RegistryAuth {
    RegistryAuth {
        username: "alice".into(),
        password: password.into(),
        server_address: server.into(),
        ..RegistryAuth::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_tries_the_credentials_at_the_registry_they_are_for() {
    let upstream = Hostile::start().await;
    let at = upstream.address.clone();
    let stage = Stage::set(&[&at], "").await;
    let failed = format!("login attempt to http://{at}/v2/ failed with status: 401 Unauthorized");
    assert_eq!(stage.login(&alice(&at, "any")).await, (200, None), "a registry that asks for nothing");

    upstream.challenge("Basic realm=\"registry\"");
    assert_eq!(stage.login(&alice(&at, "s3cret")).await, (200, None));
    assert_eq!(stage.login(&alice(&format!("http://{at}/v1/"), "s3cret")).await, (200, None));
    assert_eq!(stage.login(&alice(&at, "guess")).await, (200, Some(failed)));

    upstream.challenge(&format!("Bearer realm=\"http://{at}/token\",service=\"registry\""));
    assert_eq!(stage.login(&alice(&at, "s3cret")).await, (200, None));
    let wrong = stage.login(&alice(&at, "guess")).await;
    let text = format!("Get \"http://{at}/v2/\": unauthorized: incorrect username or password");
    assert_eq!(wrong, (200, Some(text)), "and nothing of the password");
    let tokens: Vec<_> = upstream.asked().into_iter().filter(|a| a.path == "/token").collect();
    assert!(tokens.iter().all(|t| !t.query.contains("scope")), "a login is for no repository: {tokens:?}");
    let nobody = RegistryAuth { server_address: at, ..RegistryAuth::default() };
    assert_eq!(stage.login(&nobody).await, (200, Some("no user name and no token was given".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_reaches_no_further_than_a_pull() {
    let (upstream, tripwire) = (Hostile::start().await, Hostile::start().await);
    let stage = Stage::set(&[&upstream.address], "").await;
    let (status, why) = stage.login(&alice(&tripwire.address, "s3cret")).await;
    assert_eq!(status, 403);
    assert!(why.expect("a reason").contains("not a public address"));
    upstream.challenge(&format!("Bearer realm=\"http://{}/token\",service=\"x\"", tripwire.address));
    assert_eq!(stage.login(&alice(&upstream.address, "s3cret")).await.0, 403, "a token service inside");
    assert!(tripwire.asked().is_empty(), "{:?}", tripwire.asked());
    let host = stage.host.post(format!("{}{}", stage.base, contract::image::LOGINS));
    let answer = host.json(&alice(&upstream.address, "s3cret")).send().await.expect("an answer");
    assert_eq!(answer.status(), 401, "a host has no credentials to try");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_pulled_whole_page_by_page() {
    let upstream = Hostile::start().await;
    for tag in ["1.0", "1.1", "2.0"] {
        upstream.hold(tag, &TestImage::new("amd64", &[&bytes(tag, 1000)]));
    }
    upstream.list_tags(&[&["1.0", "1.1"], &["2.0"]]);
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/app", upstream.address);
    let pulled = stage.pull_all(project, &name).await;
    assert!(pulled.succeeded(), "{pulled:?}");
    let told = |word: &str| pulled.statuses().iter().filter(|status| status.starts_with(word)).count();
    assert_eq!((told("Pulling from app"), told("Digest: "), told("Status: ")), (3, 3, 1));
    let last = format!("Status: Downloaded newer image for {name}");
    assert_eq!(pulled.statuses().last(), Some(&last.as_str()));
    let tags: Vec<String> =
        sqlx::query_scalar("SELECT tag FROM image_tags ORDER BY tag").fetch_all(&stage.owner).await.expect("tags");
    assert_eq!(tags, ["1.0", "1.1", "2.0"]);
    let again = stage.pull_all(project, &name).await;
    let last = format!("Status: Image is up to date for {name}");
    assert_eq!(again.statuses().last(), Some(&last.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_without_bound_or_with_tags_that_are_none_is_refused() {
    let upstream = Hostile::start().await;
    upstream.hold("good", &TestImage::new("amd64", &[&bytes("good", 100)]));
    let stage = Stage::set(&[&upstream.address], "").await;
    let project = stage.project("a").await;
    let name = format!("{}/app", upstream.address);
    let unknown = stage.pull_all(project, &name).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error.starts_with("pull access denied"), "{unknown:?}");
    let page = vec!["good"; 501];
    upstream.list_tags(&[&page, &page]);
    let many = stage.pull_all(project, &name).await;
    assert!(many.error.contains("more than 1000 tags"), "{many:?}");
    let pages = vec![&["good"][..]; 200];
    upstream.list_tags(&pages);
    assert!(stage.pull_all(project, &name).await.error.contains("more than 1000 tags"), "pages for ever");
    upstream.list_tags(&[&["good", "../evil"]]);
    let evil = stage.pull_all(project, &name).await;
    assert!(evil.error.contains("has a tag that is none"), "{evil:?}");
}
