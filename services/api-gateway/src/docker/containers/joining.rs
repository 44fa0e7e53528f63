//! Containers that live in another one's network namespace (`--network container:`): found when they
//! are created, because both have to be on one host; asked for again when they are started.

use model::{ContainerSpec, Error, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, ProjectTx};

use super::{host_config::HostConfig, state, translate};

/// Finds the container whose network a new one shall have, and takes from it what goes along.
/// dockerd looks for it when the new one is started; here its host has to be known before.
pub(super) async fn join(tx: &mut ProjectTx, host: &HostConfig, spec: &mut ContainerSpec) -> Result<()> {
    let Some(reference) = translate::network_of(host) else { return Ok(()) };
    let other = match tx.find_container(reference).await {
        // Not as "not found", as with links: clients would take that for the image and pull it.
        Err(Error::NotFound(why)) => return Err(Error::InvalidArgument(nobody(&why))),
        found => found?,
    };
    if other.host.is_none() {
        return Err(Error::Unavailable(format!("container {} is being created; try again", other.name)));
    }
    if other.spec.runtime == "runsc" {
        return Err(Error::NotImplemented(format!(
            "NetworkMode=\"container:{reference}\": that container's runtime runsc takes its network namespace for \
             itself; joining it is not built yet on Wharfage"
        )));
    }
    let hostname = &other.spec.hostname;
    spec.hostname = if hostname.is_empty() { other.id.short().to_owned() } else { hostname.clone() };
    spec.domainname.clone_from(&other.spec.domainname);
    if let Some(Value::Object(shown)) = spec.shown.get_mut("HostConfig") {
        // Whoever it names later, it is this one.
        shown.insert("NetworkMode".into(), json!(format!("container:{}", other.id)));
    }
    spec.network_of = Some(other.id);
    Ok(())
}

/// Whether a container that is to be started can join the one it was created for.
pub(super) async fn check(tx: &mut ProjectTx, container: &ContainerRecord) -> Result<()> {
    let Some(other) = &container.spec.network_of else { return Ok(()) };
    let other = match tx.find_container(other.as_str()).await {
        Err(Error::NotFound(why)) => return Err(Error::Failed(nobody(&why))),
        found => found?,
    };
    match state::of(&other) {
        state::State::Running | state::State::Paused => Ok(()),
        state::State::Restarting => {
            Err(Error::Conflict(format!("cannot join network namespace of container: {}", state::restarting(&other))))
        }
        state @ (state::State::Created | state::State::Exited | state::State::Removing) => {
            Err(Error::Conflict(format!(
                "cannot join network namespace of a non running container: container {} is {}",
                other.name,
                state.as_str()
            )))
        }
    }
}

fn nobody(why: &str) -> String {
    format!("joining network namespace of container: {why}")
}
