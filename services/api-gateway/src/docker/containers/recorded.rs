//! The events the gateway itself adds to a project's history, with Docker's attributes: the labels
//! flattened in, the image's and the container's name.

use std::collections::BTreeMap;

use contract::wake::Topic;
use model::{EventKind, Result};
use store::{ContainerRecord, ProjectScope, ProjectTx};

use crate::Gateway;

/// What every event of a container tells.
pub(crate) fn attributes(container: &ContainerRecord) -> BTreeMap<String, String> {
    let mut attributes = container.spec.labels.clone();
    attributes.insert("image".into(), container.spec.image.clone());
    attributes.insert("name".into(), container.name.to_string());
    attributes
}

/// Adds an event within a transaction; do it last. The caller wakes [`Topic::Project`] after the commit.
pub(crate) async fn within(
    gateway: &Gateway,
    tx: &mut ProjectTx,
    container: &ContainerRecord,
    action: &str,
    more: &[(&str, &str)],
) -> Result<()> {
    let mut attributes = attributes(container);
    attributes.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let at = gateway.clock.now();
    tx.append_event(EventKind::Container, action, container.id.as_str(), &attributes, at).await?;
    Ok(())
}

/// Adds an event by itself and tells who listens. A failure is logged: what it tells of has happened.
pub(crate) async fn alone(
    gateway: &Gateway,
    scope: &ProjectScope,
    container: &ContainerRecord,
    action: &str,
    more: &[(&str, &str)],
) {
    let recorded = async {
        let mut tx = gateway.store.project_tx(scope).await?;
        within(gateway, &mut tx, container, action, more).await?;
        tx.commit().await
    };
    match recorded.await {
        Ok(()) => gateway.bus.publish(&Topic::Project(scope.project())),
        Err(error) => tracing::warn!(%error, action, "an event could not be recorded"),
    }
}
