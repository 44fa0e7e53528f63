//! Garbage collection under everything else (F36, F37): no client sees an error, everything that is read
//! is what its digest says, and in the end nothing is left that nothing refers to.

use std::time::{Duration, Instant};

use contract::{image::layer_path, registry::UPLOADS};
use model::{Digest, ProjectId};
use reqwest::Method;
use sqlx::Row as _;

use super::{Repo, header};
use crate::{
    image::{MANIFEST, TestImage, bytes, sha256},
    stage::Stage,
};

/// Links that nobody asks for go after some seconds, bytes at once.
fn eager(interval_ms: u64, link_kept_ms: u64) -> String {
    format!(
        "[registry]\nnames = ['registry.test:7300']\n\
         [collection]\ninterval_ms = {interval_ms}\nlink_kept_ms = {link_kept_ms}\nblob_kept_ms = 0\n"
    )
}

/// As often as a test has time for, or `WHARFAGE_COLLECTIONS` times a second apart. A push on a machine with
/// much else to do takes longer than links live in the short run: the long one meets such minutes.
fn rounds() -> (String, Duration) {
    match std::env::var("WHARFAGE_COLLECTIONS").ok().and_then(|text| text.parse().ok()) {
        Some(collections) => (eager(1_000, 15_000), Duration::from_secs(collections)),
        None => (eager(100, 3_000), Duration::from_secs(5)),
    }
}

/// Takes a link away; one that no manifest needs may have been taken already.
async fn unlink(repo: &Repo<'_>, layer: &[u8]) {
    let gone = repo.blob(Method::DELETE, &sha256(layer)).send().await.expect("an answer").status().as_u16();
    assert!([202, 404].contains(&gone), "DELETE answers {gone}");
}

/// Few blobs, which all pushes share: what one lets go of, another is just bringing.
fn shared(n: usize) -> Vec<u8> {
    bytes(&format!("shared {}", n % 5), 20_000 + n % 5)
}

fn image(n: usize) -> TestImage {
    let layers = [shared(n), shared(n + 1), shared(n + 3)];
    TestImage::new("amd64", &layers.each_ref().map(Vec::as_slice))
}

async fn read(repo: &Repo<'_>, digest: &str) {
    let answer = repo.blob(Method::GET, digest).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{digest}");
    assert_eq!(sha256(&answer.bytes().await.expect("bytes")), digest);
}

async fn pull_whole(repo: &Repo<'_>, tag: &str, image: &TestImage) {
    let answer = repo.manifest(Method::GET, tag).send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.bytes().await.expect("bytes").to_vec()),
        (200, image.manifest.clone())
    );
    for blob in image.layers.iter().chain([&image.config]) {
        read(repo, &sha256(blob)).await;
    }
}

async fn drop_manifest(repo: &Repo<'_>, image: &TestImage) {
    let gone = repo.manifest(Method::DELETE, &sha256(&image.manifest)).send().await.expect("an answer");
    assert_eq!(gone.status(), 202);
}

/// As clients do: what is there is not sent again.
async fn push(repo: &Repo<'_>, tag: &str, image: &TestImage) {
    for blob in image.layers.iter().chain([&image.config]) {
        let head = repo.blob(Method::HEAD, &sha256(blob)).send().await.expect("an answer");
        match head.status().as_u16() {
            200 => {}
            404 => repo.push_blob(blob).await,
            other => panic!("HEAD answers {other}"),
        }
    }
    let put = repo.put_manifest(tag, MANIFEST, &image.manifest).await;
    assert_eq!(put.status().as_u16(), 201, "{}", put.text().await.expect("a body"));
}

/// Pushes, pulls, deletes; every blob by DELETE too, so that its bytes are free at once.
async fn pushes(repo: Repo<'_>, until: Instant) -> u32 {
    let mut turns = 0;
    for n in 0.. {
        let image = image(n);
        push(&repo, "v1", &image).await;
        pull_whole(&repo, "v1", &image).await;
        drop_manifest(&repo, &image).await;
        if n % 2 == 0 {
            for layer in image.layers.iter().take(2) {
                unlink(&repo, layer).await;
            }
        }
        turns += 1;
        if Instant::now() > until {
            break;
        }
    }
    turns
}

/// Mounts from anywhere in the project what others are pushing and deleting; uploads in pieces what is
/// not there.
async fn mounts(repo: Repo<'_>, until: Instant) -> u32 {
    let mut mounted = 0;
    for n in 0.. {
        let image = image(n + 2);
        for blob in image.layers.iter().chain([&image.config]) {
            let digest = sha256(blob);
            let asked = repo.call(Method::POST, UPLOADS, |query| {
                query.mount = Some(digest.clone());
                query.from_anywhere = true;
            });
            let answer = asked.send().await.expect("an answer");
            if answer.status() == 201 {
                mounted += 1;
                continue;
            }
            assert_eq!(answer.status(), 202);
            let part = repo.upload(Method::PATCH, &answer).body(blob[..blob.len() / 2].to_vec());
            assert_eq!(part.send().await.expect("an answer").status(), 202);
            let rest = repo.put(&answer, &digest).body(blob[blob.len() / 2..].to_vec()).send().await;
            assert_eq!(rest.expect("an answer").status(), 201);
        }
        assert_eq!(repo.put_manifest("v1", MANIFEST, &image.manifest).await.status(), 201);
        pull_whole(&repo, "v1", &image).await;
        drop_manifest(&repo, &image).await;
        for blob in &image.layers {
            unlink(&repo, blob).await;
        }
        if Instant::now() > until {
            break;
        }
    }
    mounted
}

/// Blobs of pushes that never come to a manifest.
async fn gives_up(repo: Repo<'_>, until: Instant) {
    for n in 0.. {
        repo.push_blob(&bytes(&format!("given up {n}"), 1_000)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if Instant::now() > until {
            break;
        }
    }
}

/// Pulls into the project, places a container, fetches its layers as the host does, removes both.
async fn runs(repo: Repo<'_>, name: &str, project: ProjectId, until: Instant) -> u32 {
    let (stage, mut turns) = (repo.stage, 0);
    for n in 0.. {
        let image = image(n + 4);
        push(&repo, "v1", &image).await;
        let pulled = stage.pull(project, name).await;
        assert!(pulled.succeeded(), "{pulled:?}");
        let id = sha256(&image.config);
        execute(
            stage,
            "INSERT INTO containers (id, project_id, name, image_id, spec, host_id)
             SELECT 'c', $1, 'c', $2, '{}', id FROM hosts",
            project,
            &id,
        )
        .await;
        // The image holds its layers now, whatever becomes of the repository.
        drop_manifest(&repo, &image).await;
        for layer in &image.layers {
            unlink(&repo, layer).await;
        }
        for layer in &image.layers {
            let digest: Digest = sha256(layer).parse().expect("a digest");
            let url = format!("{}{}", stage.base, layer_path(&digest));
            let answer = stage.host.get(url).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "a container without its layer");
            assert_eq!(answer.bytes().await.expect("bytes"), layer.as_slice());
        }
        execute(stage, "DELETE FROM containers WHERE project_id = $1 AND image_id = $2", project, &id).await;
        execute(stage, "DELETE FROM images WHERE project_id = $1 AND id = $2", project, &id).await;
        turns += 1;
        if Instant::now() > until {
            break;
        }
    }
    turns
}

async fn execute(stage: &Stage, sql: &'static str, project: ProjectId, image: &str) {
    let done = sqlx::query(sql).bind(project.0).bind(image).execute(&stage.owner).await.expect(sql);
    assert_eq!(done.rows_affected(), 1, "{sql}");
}

/// Every row has its file, at any moment.
async fn rows_have_files(stage: &Stage, until: Instant) {
    while Instant::now() < until {
        for row in blobs(stage).await {
            let there = || stage.data_dir.join("blobs/sha256").join(&row[7..9]).join(&row[7..]).exists();
            if !there() {
                assert!(!blobs(stage).await.contains(&row) || there(), "{row} is recorded and not stored");
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn blobs(stage: &Stage) -> Vec<String> {
    let rows = sqlx::query("SELECT digest FROM blobs").fetch_all(&stage.owner).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn collected(stage: &Stage, what: &str) -> u64 {
    let answer = stage.gateway.get(format!("{}/metrics", stage.base)).send().await.expect("an answer");
    let text = answer.text().await.expect("text");
    let line = text.lines().find(|l| l.starts_with("wharfage_collected_total{") && l.contains(&format!("\"{what}\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {what} in {text}"))
}

/// How many collections there were.
async fn collections(stage: &Stage) -> u64 {
    let answer = stage.gateway.get(format!("{}/metrics", stage.base)).send().await.expect("an answer");
    let text = answer.text().await.expect("text");
    let line = text.lines().find(|line| line.starts_with("wharfage_collection_duration_seconds_count{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

/// Waits until nothing is stored.
async fn until_empty(stage: &Stage) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (rows, files) = (blobs(stage).await, stage.files().await);
        if rows.is_empty() && files.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left: {rows:?}, {files:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_at_any_moment_costs_no_client_anything() {
    let (config, time) = rounds();
    let stage = Stage::set(&[], &config).await;
    let (mine, theirs) = (stage.project("mine").await, stage.project("theirs").await);
    sqlx::query(
        "INSERT INTO hosts (id, name, address, agent_port, nano_cpus, memory_bytes, max_containers)
         VALUES ($1, 'n', '127.0.0.1', 1, 1, 1, 1)",
    )
    .bind(stage.host_id.0)
    .execute(&stage.owner)
    .await
    .expect("host");
    let made = async |project, path| Repo::made(&stage, project, path).await;
    let repos = (made(mine, "one").await, made(mine, "two").await, made(theirs, "three").await);
    let (idle, run) = (made(theirs, "idle").await, made(theirs, "run").await);
    let until = Instant::now() + time;
    let (pushed, mounted, foreign, (), ran, ()) = tokio::join!(
        pushes(repos.0, until),
        mounts(repos.1, until),
        pushes(repos.2, until),
        gives_up(idle, until),
        runs(run, "registry.test:7300/theirs/theirs/run:v1", theirs, until),
        rows_have_files(&stage, until),
    );
    assert!(pushed > 2 && foreign > 2 && ran > 1 && mounted > 0, "{pushed} {foreign} {ran} {mounted}");
    let during = collected(&stage, "blobs").await;
    println!(
        "pushed, re-hashed and deleted {pushed} + {foreign} images, mounted {mounted} blobs, ran {ran} containers; \
         {during} blobs were collected meanwhile, in {} collections",
        collections(&stage).await
    );
    assert!(during > 5, "{during} blobs were collected meanwhile");
    // What is left are links that no manifest needs; nobody asks for them any more.
    until_empty(&stage).await;
    assert!(collected(&stage, "links").await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_referred_to_stays_and_what_was_asked_for_stays_a_while() {
    let stage = Stage::set(&[], &eager(100, 3_000)).await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    let (image, lonely) = (image(0), bytes("lonely", 100));
    repo.push("v1", &image).await;
    repo.push_blob(&lonely).await;
    // An untagged manifest stays, with all it needs.
    assert_eq!(repo.manifest(Method::DELETE, "v1").send().await.expect("an answer").status(), 202);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let head = repo.blob(Method::HEAD, &sha256(&lonely)).send().await.expect("an answer");
        assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, "100"), "it is asked for");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while stage.files().await.len() > image.layers.len() + 1 {
        assert!(Instant::now() < deadline, "nobody asks any more");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(repo.blob(Method::HEAD, &sha256(&lonely)).send().await.expect("an answer").status(), 404);
    pull_whole(&repo, &sha256(&image.manifest), &image).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_without_a_row_goes_and_an_upload_nobody_goes_on_with_too() {
    let stage = Stage::set(&[], &eager(100, 3_000)).await;
    let repo = Repo::made(&stage, stage.project("a").await, "app").await;
    for (algorithm, length) in [("sha256", 64), ("sha512", 128)] {
        let shard = stage.data_dir.join("blobs").join(algorithm).join("ff");
        std::fs::create_dir_all(&shard).expect("a directory");
        std::fs::write(shard.join("f".repeat(length)), b"row gone, file there").expect("a file");
    }
    let begun = repo.begin().await;
    let part = repo.upload(Method::PATCH, &begun).body("half").send().await.expect("an answer");
    assert_eq!(part.status(), 202);
    let uploads = || std::fs::read_dir(stage.data_dir.join("uploads")).expect("the directory").count();
    // Nothing came of the one that made the repository.
    assert_eq!(uploads(), 1);
    sqlx::query("UPDATE repository_uploads SET touched_at = now() - interval '25 hours'")
        .execute(&stage.owner)
        .await
        .expect("a day passes");
    until_empty(&stage).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while uploads() > 0 {
        assert!(Instant::now() < deadline, "files of uploads stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let gone = repo.upload(Method::GET, &begun).send().await.expect("an answer");
    assert_eq!(gone.status(), 404);
    assert_eq!((collected(&stage, "files").await, collected(&stage, "uploads").await), (2, 2));
}
