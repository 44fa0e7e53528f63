//! A project's history and its execs.

use std::collections::BTreeMap;

use model::{ContainerSpec, Error, EventKind, ExecId};
use store::{ProjectScope, Store};
use time::{Duration, OffsetDateTime};

use crate::fresh;

#[tokio::test]
async fn a_history_written_by_many_at_once_has_no_holes() {
    let (database, seed) = fresh("history").await;
    let store = Store::connect_lazy(&database.gateway, 16).expect("a url");
    let scope = ProjectScope::delegated(seed.project().await.expect("project").id);
    let writers: Vec<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut tx = store.project_tx(&scope).await.expect("tx");
                let at = OffsetDateTime::now_utc();
                tx.append_event(EventKind::Container, "start", "x", &BTreeMap::new(), at).await.expect("appended");
                // Every fourth changes its mind.
                if n % 4 != 0 {
                    tx.commit().await.expect("commit");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    let mut tx = store.project_tx(&scope).await.expect("tx");
    let sequences: Vec<i64> = tx.events_after(0, 1000).await.expect("read").iter().map(|e| e.sequence).collect();
    assert_eq!(sequences, (1..=48).collect::<Vec<_>>());
    assert_eq!(tx.last_event().await, Ok(48));
    assert_eq!(tx.events_after(40, 3).await.expect("read").len(), 3);
}

#[tokio::test]
async fn a_reader_begins_before_the_first_event_of_an_instant() {
    let (database, seed) = fresh("instants").await;
    let store = Store::connect_lazy(&database.gateway, 4).expect("a url");
    let scope = ProjectScope::delegated(seed.project().await.expect("project").id);
    let start = OffsetDateTime::UNIX_EPOCH;
    let mut tx = store.project_tx(&scope).await.expect("tx");
    for n in 0..3 {
        let at = start + Duration::seconds(n * 10);
        tx.append_event(EventKind::Image, "pull", "x", &BTreeMap::new(), at).await.expect("appended");
    }
    assert_eq!(tx.event_before(start).await, Ok(0));
    assert_eq!(tx.event_before(start + Duration::seconds(5)).await, Ok(1));
    assert_eq!(tx.event_before(start + Duration::seconds(99)).await, Ok(3));
}

#[tokio::test]
async fn an_exec_starts_once_and_only_in_its_project() {
    let (database, seed) = fresh("execs").await;
    let store = Store::connect_lazy(&database.gateway, 4).expect("a url");
    let (mine, theirs) = (seed.project().await.expect("project"), seed.project().await.expect("project"));
    let container = seed.container(&mine, &ContainerSpec::default()).await.expect("container");
    let id: ExecId = "e".repeat(64).parse().expect("id");
    let now = OffsetDateTime::now_utc();
    let mut tx = store.project_tx(&ProjectScope::delegated(mine.id)).await.expect("tx");
    tx.insert_exec(&id, &container, &vec!["true".to_owned()], now).await.expect("written");
    tx.commit().await.expect("commit");
    let mut tx = store.project_tx(&ProjectScope::delegated(mine.id)).await.expect("tx");
    assert_eq!(tx.find_exec::<Vec<String>>("eee").await.expect("by prefix").spec, ["true"]);
    assert_eq!(tx.claim_exec(&id, now).await, Ok(true));
    assert_eq!(tx.claim_exec(&id, now).await, Ok(false));
    assert_eq!(tx.open_execs(&container, 10).await, Ok(vec![id.clone()]));
    tx.commit().await.expect("commit");
    let mut foreign = store.project_tx(&ProjectScope::delegated(theirs.id)).await.expect("tx");
    let error = foreign.find_exec::<Vec<String>>(id.as_str()).await.expect_err("not theirs");
    assert_eq!(error, Error::NotFound(format!("No such exec instance: {id}")));
    assert_eq!(foreign.claim_exec(&id, now).await, Ok(false));
}
