//! An image and a container that is made of it, when one is removed while the other is created.

use std::time::Duration;

use model::{ContainerId, ContainerName, ContainerSpec, Digest, Error, Result};
use store::{NewContainer, ProjectScope, ProjectTx, Store};
use testkit::{Seed, SeededProject};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::fresh;

async fn insert(tx: &mut ProjectTx, image: &Digest, n: u32) -> Result<bool> {
    let (id, name) = (container(n), format!("c{n}").parse::<ContainerName>()?);
    let spec = ContainerSpec { image: "busybox".into(), ..ContainerSpec::default() };
    let new =
        NewContainer { id: &id, name: &name, image_id: image, spec: &spec, created_at: OffsetDateTime::now_utc() };
    tx.insert_container(new).await
}

fn container(n: u32) -> ContainerId {
    format!("{n:064x}").parse().expect("hex")
}

fn gone() -> Error {
    Error::NotFound("No such image: busybox:latest".into())
}

/// Removes an image unless a container uses it, as the gateway does.
async fn remove(store: Store, scope: ProjectScope, image: Digest) -> Result<bool> {
    let mut tx = store.project_tx(&scope).await?;
    if !tx.claim_image(&image, true).await? || !tx.image_uses(&image).await?.is_empty() {
        return Ok(false);
    }
    let removed = tx.delete_image(&image).await?;
    tx.commit().await?;
    Ok(removed)
}

async fn create(store: Store, scope: ProjectScope, image: Digest, n: u32) -> Result<bool> {
    let mut tx = store.project_tx(&scope).await?;
    let written = insert(&mut tx, &image, n).await?;
    tx.commit().await?;
    Ok(written)
}

async fn until_somebody_waits(seed: &Seed) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(seed.pool()).await.expect("asked") == 0 {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn stage(name: &str) -> (Store, Seed, SeededProject, ProjectScope, Digest) {
    let (database, seed) = fresh(name).await;
    let store = Store::connect_lazy(&database.gateway, 8).expect("a url");
    let project = seed.project().await.expect("project");
    let (scope, image) = (ProjectScope::delegated(project.id), project.image.parse().expect("a digest"));
    (store, seed, project, scope, image)
}

#[tokio::test]
async fn a_removal_waits_for_a_create_and_then_sees_its_container() {
    let (store, seed, _, scope, image) = stage("image_create_first").await;
    let mut creating = store.project_tx(&scope).await.expect("tx");
    assert_eq!(insert(&mut creating, &image, 1).await, Ok(true));
    let mut pruning = store.project_tx(&scope).await.expect("tx");
    assert_eq!(pruning.claim_image(&image, false).await, Ok(false), "a prune passes over it");
    drop(pruning);
    let removal = tokio::spawn(remove(store.clone(), scope, image.clone()));
    until_somebody_waits(&seed).await;
    creating.commit().await.expect("committed");
    assert_eq!(removal.await.expect("no panic"), Ok(false), "the container was not seen");
    let mut tx = store.project_tx(&scope).await.expect("tx");
    assert!(tx.image_by_id(&image).await.expect("asked").is_some());
    let uses = tx.image_uses(&image).await.expect("asked");
    assert!(uses[0].unfetched, "no host has it yet: {uses:?}");
}

#[tokio::test]
async fn a_create_waits_for_a_removal_and_is_told_that_there_is_no_such_image() {
    let (store, seed, _, scope, image) = stage("image_removal_first").await;
    let mut removing = store.project_tx(&scope).await.expect("tx");
    assert_eq!(removing.claim_image(&image, true).await, Ok(true));
    assert_eq!(removing.delete_image(&image).await, Ok(true));
    let creating = tokio::spawn(create(store.clone(), scope, image.clone(), 1));
    until_somebody_waits(&seed).await;
    removing.commit().await.expect("committed");
    assert_eq!(creating.await.expect("no panic"), Err(gone()));
    let mut tx = store.project_tx(&scope).await.expect("tx");
    assert_eq!(tx.claim_image(&image, true).await, Ok(false));
    assert!(tx.list_containers(true).await.expect("listed").is_empty());
}

#[tokio::test]
async fn of_a_create_and_a_removal_at_once_one_wins() {
    let (store, seed, project, scope, image) = stage("image_race").await;
    let (mut created, mut removed) = (0, 0);
    for n in 0..60 {
        sqlx::query(
            "INSERT INTO images (project_id, id, manifest_digest, manifest, config, layers, architecture, os, size_bytes)
             VALUES ($1, $2, $2, '', '', '[]', 'amd64', 'linux', 0) ON CONFLICT DO NOTHING",
        )
        .bind(project.id.0)
        .bind(image.as_str())
        .execute(seed.pool())
        .await
        .expect("an image");
        let making = tokio::spawn(create(store.clone(), scope, image.clone(), n));
        let removal = tokio::spawn(remove(store.clone(), scope, image.clone()));
        let (making, removal) = (making.await.expect("no panic"), removal.await.expect("no panic"));
        match (making, removal) {
            (Ok(true), Ok(false)) => created += 1,
            (Err(error), Ok(true)) => {
                assert_eq!(error, gone());
                removed += 1;
            }
            other => panic!("round {n}: {other:?}"),
        }
        sqlx::query("DELETE FROM containers").execute(seed.pool()).await.expect("cleared");
    }
    println!("{created} containers were created, {removed} images removed");
}

#[tokio::test]
async fn a_project_cannot_claim_the_image_of_another() {
    let (store, seed, _, _, image) = stage("image_claims").await;
    let stranger = seed.project().await.expect("project");
    let mut tx = store.project_tx(&ProjectScope::delegated(stranger.id)).await.expect("tx");
    assert_eq!(tx.claim_image(&image, true).await, Ok(false));
}
