//! Legacy links (`--link` on the project's own bridge, `HostConfig.Links`): the other container's
//! address stands in `/etc/hosts` under its alias, its host name and its name. As with dockerd 29 the
//! environment of the other one is not handed over, and a link goes with the container it leads to. On
//! networks of users a link is a name that only its container sees (`attachments`).

use model::{ContainerSpec, Error, Link, Result, parse_link};
use store::{ContainerRecord, ProjectTx};

use super::{host_config::HostConfig, state};

/// Links of one container.
const LINKS_MAX: usize = 64;

/// Finds what a new container links to.
pub(super) async fn register(
    tx: &mut ProjectTx,
    host: &HostConfig,
    spec: &mut ContainerSpec,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let written = host.links.as_deref().unwrap_or_default();
    if written.is_empty() || !matches!(host.network_mode.as_str(), "" | "default" | "bridge" | "none") {
        return Ok(());
    }
    if host.network_mode == "none" {
        warnings.push("Links have no effect without a network".into());
        return Ok(());
    }
    if written.len() > LINKS_MAX {
        return Err(Error::InvalidArgument(format!("Links: at most {LINKS_MAX} are possible")));
    }
    for link in written {
        let (target, alias) = parse_link(link)?;
        if spec.links.iter().any(|earlier| earlier.alias == alias) {
            return Err(Error::InvalidArgument(format!("Links: the alias {alias:?} is given twice")));
        }
        let mut other = match tx.find_container(target).await {
            // As dockerd: clients would take "not found" for the image and pull it.
            Err(Error::NotFound(why)) => {
                return Err(Error::InvalidArgument(format!("could not get container for {target}: {why}")));
            }
            found => found?,
        };
        while let Some(shared) = &other.spec.network_of {
            other = tx.find_container(shared.clone().as_str()).await?;
        }
        spec.links.push(Link { container: other.id, alias: alias.to_owned() });
    }
    Ok(())
}

/// Whether a container that is to be started finds what it links to. Those that are gone are no matter.
pub(super) async fn check(tx: &mut ProjectTx, container: &ContainerRecord) -> Result<()> {
    let is_on_bridge = |of: &ContainerRecord| of.endpoints.iter().any(|endpoint| !endpoint.named);
    if !is_on_bridge(container) {
        return Ok(());
    }
    for (link, other) in targets(tx, container).await? {
        if !state::of(&other).is_running() {
            return Err(Error::Failed(format!(
                "Cannot link to a non running container: /{} AS /{}/{}",
                other.name, container.name, link.alias
            )));
        }
        if !is_on_bridge(&other) {
            return Err(Error::Failed(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                other.name
            )));
        }
    }
    Ok(())
}

/// `HostConfig.Links` as inspect shows them: by the names of now.
pub(super) async fn shown(tx: &mut ProjectTx, container: &ContainerRecord) -> Result<Vec<String>> {
    let of = |(link, other): (Link, ContainerRecord)| format!("/{}:/{}/{}", other.name, container.name, link.alias);
    Ok(targets(tx, container).await?.into_iter().map(of).collect())
}

/// Takes away the link that a name stands for: `web/db` is that of `web` called `db`. What runs is told.
///
/// dockerd looks for whom the name leads to first, and then for whose link it is.
pub(super) async fn remove(tx: &mut ProjectTx, name: &str) -> Result<ContainerRecord> {
    let nobody = || Error::NotFound(format!("No such container: {name}"));
    let Some((parent, alias)) = name.trim_start_matches('/').rsplit_once('/') else {
        tx.find_container(name).await?;
        return Err(Error::Failed("Conflict, cannot remove the default link name of the container".into()));
    };
    let container = match tx.lock_container(parent).await {
        Ok(container) if container.name.as_str() == parent => container,
        Ok(_) | Err(Error::NotFound(_) | Error::InvalidArgument(_)) => return Err(nobody()),
        Err(error) => return Err(error),
    };
    if !targets(tx, &container).await?.iter().any(|(link, _)| link.alias == alias) {
        return Err(nobody());
    }
    tx.remove_link(&container.id, alias).await?;
    Ok(container)
}

async fn targets(tx: &mut ProjectTx, container: &ContainerRecord) -> Result<Vec<(Link, ContainerRecord)>> {
    let mut there = Vec::new();
    for link in &container.spec.links {
        match tx.find_container(link.container.as_str()).await {
            Ok(other) => there.push((link.clone(), other)),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(there)
}
