//! What a project may keep in its repositories.

use bytes::Bytes;
use contract::registry::UPLOADS;
use futures::{future::join_all, stream};
use model::ProjectId;
use reqwest::{Body, Method, Response};

use super::{Repo, header, refusal};
use crate::{
    image::{TestImage, bytes, sha256},
    stage::Stage,
};

async fn limit(stage: &Stage, project: ProjectId, most: i64) {
    let limited = sqlx::query("UPDATE projects SET registry_bytes_max = $2 WHERE id = $1").bind(project.0).bind(most);
    limited.execute(&stage.owner).await.expect("limited");
}

/// What is used and what is reserved.
async fn kept(stage: &Stage, project: ProjectId) -> (i64, i64) {
    let row = sqlx::query_as("SELECT used_bytes, reserved_bytes FROM registry_quota($1)").bind(project.0);
    row.fetch_one(&stage.owner).await.expect("a row")
}

async fn push_whole(repo: &Repo<'_>, content: &[u8]) -> Response {
    let post = repo.call(Method::POST, UPLOADS, |query| query.digest = Some(sha256(content)));
    post.body(content.to_vec()).send().await.expect("an answer")
}

async fn mount(repo: &Repo<'_>, content: &[u8]) -> Response {
    let post = repo.call(Method::POST, UPLOADS, |query| {
        query.mount = Some(sha256(content));
        query.from_anywhere = true;
    });
    post.send().await.expect("an answer")
}

fn denied() -> (u16, String) {
    (403, "DENIED".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_taken_before_bytes_come_and_given_back_however_an_upload_ends() {
    let stage = Stage::set(&[], "[collection]\ninterval_ms = 100").await;
    let project = stage.project("a").await;
    let (repo, other) = (Repo::made(&stage, project, "app").await, Repo::made(&stage, project, "other").await);
    limit(&stage, project, 10_000).await;
    let too_long = push_whole(&repo, &bytes("too long", 10_001)).await;
    let text = too_long.text().await.expect("a body");
    assert!(text.contains("DENIED") && text.contains("may keep 10000 bytes") && text.contains("10001 more"), "{text}");
    assert_eq!(kept(&stage, project).await, (0, 0), "nothing is left of it");

    // Reserved with the request that says how much will come; given back by whoever cancels.
    let begun = repo.begin().await;
    let part = repo.upload(Method::PATCH, &begun).body(bytes("part", 6_000));
    assert_eq!(part.send().await.expect("an answer").status(), 202);
    assert_eq!(kept(&stage, project).await, (0, 6_000));
    let five = bytes("five", 5_000);
    assert_eq!(refusal(push_whole(&other, &five).await).await, denied());
    let more = repo.upload(Method::PATCH, &begun).body(bytes("more", 5_000)).send().await.expect("an answer");
    assert_eq!(refusal(more).await, denied());
    let status = repo.upload(Method::GET, &begun).send().await.expect("an answer");
    assert_eq!(header(&status, "range"), "0-5999", "what came before stays");
    assert_eq!(repo.upload(Method::DELETE, &begun).send().await.expect("an answer").status(), 204);
    assert_eq!(push_whole(&other, &five).await.status(), 201);
    assert_eq!(kept(&stage, project).await, (5_000, 0));

    // Nobody says how much: as far as there is room.
    let begun = repo.begin().await;
    let drops = (0..6).map(|n| Ok::<_, std::io::Error>(Bytes::from(bytes(&format!("drop {n}"), 1_000))));
    let endless = repo.upload(Method::PATCH, &begun).body(Body::wrap_stream(stream::iter(drops)));
    assert_eq!(refusal(endless.send().await.expect("an answer")).await, denied());
    assert!(kept(&stage, project).await.1 <= 5_000);
    // And by time.
    let old = "UPDATE repository_uploads SET touched_at = now() - interval '25 hours'";
    sqlx::query(old).execute(&stage.owner).await.expect("a day passes");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while kept(&stage, project).await != (5_000, 0) {
        assert!(std::time::Instant::now() < deadline, "a reservation outlives its upload");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // A link is as long as what it links, whoever stores it; one that is there already costs nothing.
    assert_eq!(mount(&repo, &five).await.status(), 201);
    assert_eq!(kept(&stage, project).await, (10_000, 0));
    assert_eq!(mount(&repo, &five).await.status(), 201);
    let third = Repo::fresh(&stage, project, "third");
    assert_eq!(refusal(third.post().send().await.expect("an answer")).await, denied(), "nothing fits, nothing begins");
    assert_eq!(refusal(mount(&third, &five).await).await, denied());
    assert_eq!(repo.blob(Method::DELETE, &sha256(&five)).send().await.expect("an answer").status(), 202);
    assert_eq!(kept(&stage, project).await, (5_000, 0));
    // Others have nothing to do with it.
    let stranger = Repo::made(&stage, stage.project("b").await, "app").await;
    assert_eq!(push_whole(&stranger, &bytes("much", 100_000)).await.status(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_pushes_at_once_those_succeed_that_fit() {
    let stage = Stage::set(&[], "").await;
    let project = stage.project("a").await;
    let repo = Repo::made(&stage, project, "app").await;
    limit(&stage, project, 10_500).await;
    let contents: Vec<Vec<u8>> = (0..20).map(|n| bytes(&format!("at once {n}"), 1_000)).collect();
    let answers = join_all(contents.iter().map(|content| push_whole(&repo, content))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201; 10], vec![403; 10]].concat());
    assert_eq!(kept(&stage, project).await, (10_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_pulled_counts_for_no_repository() {
    let stage = Stage::set(&[], "[registry]\nnames = ['registry.test:7300']").await;
    let project = stage.project("acme").await;
    let repo = Repo::made(&stage, project, "app").await;
    repo.push("v1", &TestImage::new("amd64", &[&bytes("layer", 3_000)])).await;
    let before = kept(&stage, project).await;
    assert!(stage.pull(project, "registry.test:7300/acme/acme/app:v1").await.succeeded());
    assert_eq!(kept(&stage, project).await, before);
    sqlx::query("DELETE FROM repositories").execute(&stage.owner).await.expect("deleted");
    assert_eq!(kept(&stage, project).await, (0, 0), "a repository takes its links along");
}
