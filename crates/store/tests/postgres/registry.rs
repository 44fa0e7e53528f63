//! The registry's tables: who may know of what, and who may write it.

use std::time::Duration;

use model::{Digest, Error, ManifestReference, ProjectId, RepositoryId, RepositoryName, UploadId};
use sqlx::{Connection as _, Executor as _, PgConnection};
use store::{NewManifest, Page, ProjectScope, ProjectTx, Store};
use testkit::{Database, SeededProject};
use uuid::Uuid;

use crate::fresh;

fn image_svc(database: &Database) -> Store {
    Store::connect_lazy(&database.image, 8).expect("a url")
}

fn gateway(database: &Database) -> Store {
    Store::connect_lazy(&database.gateway, 8).expect("a url")
}

async fn open(store: &Store, project: ProjectId) -> ProjectTx {
    store.project_tx(&ProjectScope::delegated(project)).await.expect("tx")
}

async fn repository(store: &Store, project: &SeededProject, name: &str, n: u128) -> RepositoryId {
    let mut tx = open(store, project.id).await;
    let id = tx.repository_for_push(name, RepositoryId(Uuid::from_u128(n))).await.expect("made");
    tx.commit().await.expect("committed");
    id
}

async fn named(database: &Database, name: &str) -> RepositoryName {
    // Tenants are called by number here.
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    let tenant: String = sqlx::query_scalar("SELECT name FROM tenants ORDER BY id LIMIT 1")
        .fetch_one(&mut owner)
        .await
        .expect("a tenant");
    format!("{tenant}/main/{name}").parse().expect("a name")
}

#[tokio::test]
async fn a_name_is_known_to_its_project_and_to_others_only_while_it_is_public() {
    let (database, seed) = fresh("registry_names").await;
    let (owner, stranger) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    let (images, gateway) = (image_svc(&database), gateway(&database));
    let id = repository(&images, &owner, "app", 1).await;
    let (app, never) = (named(&database, "app").await, named(&database, "never").await);
    let ask = |name: RepositoryName, asking: Option<ProjectId>| {
        let gateway = &gateway;
        async move { gateway.registry_repository(&name, asking).await.expect("an answer") }
    };
    let own = ask(app.clone(), Some(owner.id)).await.expect("its own");
    assert_eq!((own.project, own.repository, own.owned), (owner.id, Some(id), true));
    let fresh = ask(never.clone(), Some(owner.id)).await.expect("its own namespace");
    assert_eq!((fresh.repository, fresh.owned), (None, true));
    for asking in [Some(stranger.id), None] {
        assert_eq!(ask(app.clone(), asking).await, None);
        assert_eq!(ask(never.clone(), asking).await, None);
    }
    let mut tx = open(&gateway, owner.id).await;
    tx.set_repository_public(id, true).await.expect("opened");
    tx.commit().await.expect("committed");
    for asking in [Some(stranger.id), None] {
        let public = ask(app.clone(), asking).await.expect("public");
        assert_eq!((public.project, public.repository, public.owned), (owner.id, Some(id), false));
        assert_eq!(ask(never.clone(), asking).await, None, "what is not there is not public");
    }
    let mut tx = open(&gateway, stranger.id).await;
    assert!(matches!(tx.set_repository_public(id, false).await, Err(Error::NotFound(_))));
    assert!(matches!(tx.delete_repository(id).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_repositorys_rows_are_seen_in_its_project_alone_and_written_by_image_svc_alone() {
    let (database, seed) = fresh("registry_rows").await;
    let (owner, stranger) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    let images = image_svc(&database);
    let id = repository(&images, &owner, "app", 1).await;
    let (blob, manifest) = (Digest::sha256([1; 32]), Digest::sha256([2; 32]));
    let mut tx = open(&images, owner.id).await;
    tx.link_blob(id, &blob, 10).await.expect("linked");
    let new = NewManifest {
        digest: &manifest,
        media_type: "application/x",
        content: b"{}",
        subject: None,
        artifact_type: None,
        annotations: None,
        blobs: std::slice::from_ref(&blob),
    };
    tx.put_manifest(id, &new, Some("v1")).await.expect("kept");
    tx.begin_upload(UploadId(Uuid::from_u128(9)), id, 0).await.expect("begun");
    tx.commit().await.expect("committed");
    let tag = ManifestReference::Tag("v1".into());
    let mut tx = open(&images, stranger.id).await;
    assert_eq!(tx.linked_blob(id, &blob).await, Ok(None));
    assert_eq!(tx.blob_linked_in_project(&blob).await, Ok(None));
    assert!(tx.manifest(id, &tag, true).await.expect("an answer").is_none());
    assert_eq!(tx.upload(UploadId(Uuid::from_u128(9)), id).await, Ok(None));
    assert_eq!(tx.repository_names(&Page { after: "", limit: 10 }).await, Ok(Vec::new()));
    assert!(tx.link_blob(id, &blob, 10).await.is_err(), "nobody links into another project's repository");
    drop(tx);
    let mut tx = open(&images, owner.id).await;
    assert!(matches!(tx.unlink_blob(id, &blob).await, Err(Error::Conflict(_))), "the manifest needs it");
    drop(tx);
    let other = Digest::sha256([3; 32]);
    let mut tx = open(&images, owner.id).await;
    let lacking = NewManifest { digest: &other, blobs: std::slice::from_ref(&other), ..new };
    assert!(matches!(tx.put_manifest(id, &lacking, None).await, Err(Error::Conflict(_))));
    drop(tx);
    // The gateway says who may read and whether it stays, and writes nothing that is in it.
    let mut gateway = PgConnection::connect(&database.gateway).await.expect("connect");
    for statement in [
        "INSERT INTO repository_tags (repository_id, project_id, name, digest) SELECT id, project_id, 'x', 'y' FROM repositories",
        "DELETE FROM repository_blobs",
        "UPDATE repository_manifests SET content = ''",
        "UPDATE repositories SET name = 'x'",
        "SELECT * FROM repository_uploads",
    ] {
        let refused = gateway.execute(statement).await.expect_err(statement).to_string();
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
    let mut images = PgConnection::connect(&database.image).await.expect("connect");
    for statement in ["SELECT * FROM registry_keys", "UPDATE repositories SET public = true"] {
        let refused = images.execute(statement).await.expect_err(statement).to_string();
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
    let mut tx = open(&self::gateway(&database), owner.id).await;
    tx.delete_repository(id).await.expect("everything in it goes along");
    tx.commit().await.expect("committed");
}

#[tokio::test]
async fn gateways_share_one_key_and_an_old_one_goes() {
    let (database, _seed) = fresh("registry_keys").await;
    let (one, two) = (gateway(&database), gateway(&database));
    let (day, kept) = (Duration::from_secs(86_400), Duration::from_secs(90_000));
    let first = one.registry_keys((Uuid::from_u128(1), [1; 32]), day, kept).await.expect("made");
    let same = two.registry_keys((Uuid::from_u128(2), [2; 32]), day, kept).await.expect("found");
    assert_eq!((first.len(), same.len(), same[0].id), (1, 1, first[0].id));
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    owner.execute("UPDATE registry_keys SET made_at = now() - interval '24 hours 1 second'").await.expect("aged");
    let two_keys = two.registry_keys((Uuid::from_u128(3), [3; 32]), day, kept).await.expect("made");
    assert_eq!(
        two_keys.iter().map(|key| key.id.as_u128()).collect::<Vec<_>>(),
        [3, 1],
        "the youngest signs, both verify"
    );
    owner.execute("UPDATE registry_keys SET made_at = now() - interval '26 hours'").await.expect("aged");
    let renewed = one.registry_keys((Uuid::from_u128(4), [4; 32]), day, kept).await.expect("made");
    assert_eq!(renewed.iter().map(|key| key.id.as_u128()).collect::<Vec<_>>(), [4]);
}

#[tokio::test]
async fn an_idle_upload_ends_and_one_that_goes_on_does_not() {
    let (database, seed) = fresh("registry_uploads").await;
    let project = seed.project().await.expect("project");
    let images = image_svc(&database);
    let id = repository(&images, &project, "app", 1).await;
    let (idle, busy) = (UploadId(Uuid::from_u128(1)), UploadId(Uuid::from_u128(2)));
    let mut tx = open(&images, project.id).await;
    tx.begin_upload(idle, id, 0).await.expect("begun");
    tx.begin_upload(busy, id, 0).await.expect("begun");
    tx.commit().await.expect("committed");
    let mut owner = PgConnection::connect(&database.owner).await.expect("connect");
    owner.execute("UPDATE repository_uploads SET touched_at = now() - interval '2 hours'").await.expect("aged");
    let mut tx = open(&images, project.id).await;
    assert_eq!(tx.advance_upload(busy, 5).await, Ok(true));
    tx.commit().await.expect("committed");
    assert_eq!(images.end_idle_uploads(Duration::from_secs(3600), 10).await, Ok(vec![idle]));
    assert_eq!(images.uploads_alive(&[idle, busy]).await, Ok(vec![busy]));
}
