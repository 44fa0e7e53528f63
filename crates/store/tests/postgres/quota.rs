//! What a project keeps follows from its links, whatever happened to them.

use std::time::Duration;

use model::{Digest, ProjectId, RepositoryId, UploadId};
use sqlx::PgPool;
use store::{ProjectScope, ProjectTx, Store};
use uuid::Uuid;

use crate::fresh;

/// The same numbers every time (Knuth, MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn digest(n: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Digest::sha256(bytes)
}

async fn open(store: &Store, project: ProjectId) -> ProjectTx {
    store.project_tx(&ProjectScope::delegated(project)).await.expect("tx")
}

/// As the links and the uploads themselves say.
async fn recomputed(owner: &PgPool, project: ProjectId) -> (i64, i64) {
    let sums = "SELECT (SELECT coalesce(sum(size_bytes), 0)::bigint FROM repository_blobs WHERE project_id = $1),
                       (SELECT coalesce(sum(reserved_bytes), 0)::bigint FROM repository_uploads WHERE project_id = $1)";
    sqlx::query_as(sums).bind(project.0).fetch_one(owner).await.expect("sums")
}

#[tokio::test]
async fn what_a_project_keeps_never_drifts_from_its_links() {
    let (database, seed) = fresh("registry_quota").await;
    let store = Store::connect_lazy(&database.image, 8).expect("a url");
    let owner = PgPool::connect(&database.owner).await.expect("the owner");
    let projects = [seed.project().await.expect("project").id, seed.project().await.expect("project").id];
    sqlx::query("UPDATE projects SET registry_bytes_max = 20000 WHERE id = $1")
        .bind(projects[0].0)
        .execute(&owner)
        .await
        .expect("limited");
    let mut dice = Dice(7);
    let (mut uploads, mut refused) = (Vec::new(), 0);
    for step in 0..400 {
        let project = projects[usize::from(dice.below(2) == 1)];
        let mut tx = open(&store, project).await;
        let name = format!("r{}", dice.below(3));
        let fresh = RepositoryId(Uuid::from_u128(1_000 + step));
        let repository = tx.repository_for_push(&name, fresh).await.expect("made");
        let n = dice.below(12);
        let size = 100 + n * 371;
        let mut done = true;
        match dice.below(10) {
            0..=3 => match tx.claim_registry_bytes(size).await {
                Ok(()) => tx.link_blob(repository, &digest(n), size).await.expect("linked"),
                Err(_) => done = false,
            },
            4 => drop(tx.unlink_blob(repository, &digest(n)).await.expect("unlinked")),
            5 => {
                let id = UploadId(Uuid::from_u128(step));
                match tx.begin_upload(id, repository, size).await {
                    Ok(()) => uploads.push((project, repository, id, n)),
                    Err(_) => done = false,
                }
            }
            6 | 7 => {
                let ours = uploads.iter().position(|(of, ..)| *of == project);
                if let Some((_, to, id, n)) = ours.map(|at| uploads.remove(at)) {
                    let open = tx.end_upload(id).await.expect("ended");
                    // Half of them finish.
                    if open && dice.below(2) == 1 {
                        tx.link_blob(to, &digest(n), 100 + n * 371).await.expect("linked");
                    }
                }
            }
            8 => {
                tx.link_blob(repository, &digest(99), 5_000_000).await.expect("linked");
                drop(tx);
                tx = open(&store, project).await;
            }
            _ if dice.below(3) == 0 => {
                sqlx::query("DELETE FROM repositories WHERE id = $1").bind(repository.0).execute(&owner).await.ok();
            }
            _ => {}
        }
        if done {
            tx.commit().await.expect("committed");
        } else {
            refused += 1;
        }
        if step % 37 == 0 {
            store.add_up_registry_usage(4).await.expect("added up");
        }
        if step % 90 == 89 {
            store.drop_unneeded_links(Duration::ZERO, 5).await.expect("dropped");
        }
        for project in projects {
            let quota = open(&store, project).await.registry_quota().await.expect("a quota");
            let counted = (quota.used_bytes, quota.reserved_bytes);
            assert_eq!(counted, recomputed(&owner, project).await, "after step {step}");
            assert!(quota.bytes_max.is_none_or(|most| counted.0 + counted.1 <= most), "over its limit: {quota:?}");
        }
    }
    assert!(refused > 5, "the limit was never reached");
    store.add_up_registry_usage(0).await.expect("added up");
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM registry_usage").fetch_one(&owner).await.expect("a count");
    assert!(rows <= 2, "{rows} rows for two projects");
    sqlx::query("DELETE FROM repositories").execute(&owner).await.expect("emptied");
    for project in projects {
        assert_eq!(open(&store, project).await.registry_quota().await.expect("a quota").used_bytes, 0);
    }
}
