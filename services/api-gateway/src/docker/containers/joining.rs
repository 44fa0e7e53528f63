//! Containers that live in another one's namespaces (`--network`, `--pid` and `--ipc container:`): found
//! when they are created, because both have to be on one host; asked for again when they are started.

use model::{ContainerId, ContainerSpec, Error, IpcMode, Result};
use serde_json::{Value, json};
use store::{ContainerRecord, ProjectTx};

use super::{host_config::HostConfig, state, translate};

/// A namespace that can be another container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Network,
    Pid,
    Ipc,
}

impl Namespace {
    const ALL: [Self; 3] = [Self::Network, Self::Pid, Self::Ipc];

    /// The field of `HostConfig` that asks for it.
    fn field(self) -> &'static str {
        match self {
            Self::Network => "NetworkMode",
            Self::Pid => "PidMode",
            Self::Ipc => "IpcMode",
        }
    }

    fn wanted(self, host: &HostConfig) -> Option<&str> {
        match self {
            Self::Network => translate::network_of(host),
            Self::Pid => translate::namespace_of(self.field(), &host.pid_mode),
            Self::Ipc => translate::namespace_of(self.field(), &host.ipc_mode),
        }
    }

    fn of(self, spec: &ContainerSpec) -> Option<&ContainerId> {
        match self {
            Self::Network => spec.network_of.as_ref(),
            Self::Pid => spec.pid_of.as_ref(),
            Self::Ipc => spec.ipc_of.as_ref(),
        }
    }

    /// Why it cannot be joined, in dockerd's frame.
    fn refused(self, why: &str) -> String {
        match self {
            Self::Network => format!("joining network namespace of container: {why}"),
            Self::Pid => format!("failed to join PID namespace: {why}"),
            Self::Ipc => format!("failed to join IPC namespace: {why}"),
        }
    }
}

/// Finds the containers whose namespaces a new one shall have, and takes from them what goes along.
/// dockerd looks for them when the new one is started; here its host has to be known before.
pub(super) async fn join(tx: &mut ProjectTx, host: &HostConfig, spec: &mut ContainerSpec) -> Result<()> {
    for namespace in Namespace::ALL {
        let Some(reference) = namespace.wanted(host) else { continue };
        let other = match tx.find_container(reference).await {
            // Not as "not found", as with links: clients would take that for the image and pull it.
            Err(Error::NotFound(why)) => return Err(Error::InvalidArgument(namespace.refused(&why))),
            found => found?,
        };
        if other.host.is_none() {
            return Err(Error::Unavailable(format!("container {} is being created; try again", other.name)));
        }
        let field = namespace.field();
        if let Some(runtime) = [&spec.runtime, &other.spec.runtime].into_iter().find(|runtime| *runtime == "runsc") {
            return Err(Error::NotImplemented(format!(
                "{field}=\"container:{reference}\": the runtime {runtime} takes its namespaces for itself; joining \
                 one is not built yet on Wharfage"
            )));
        }
        if let Some(Value::Object(shown)) = spec.shown.get_mut("HostConfig") {
            // Whoever it names later, it is this one.
            shown.insert(field.into(), json!(format!("container:{}", other.id)));
        }
        match namespace {
            Namespace::Network => {
                let hostname = &other.spec.hostname;
                spec.hostname = if hostname.is_empty() { other.id.short().to_owned() } else { hostname.clone() };
                spec.domainname.clone_from(&other.spec.domainname);
                spec.network_of = Some(other.id);
            }
            Namespace::Pid => spec.pid_of = Some(other.id),
            Namespace::Ipc => spec.ipc_of = Some(other.id),
        }
    }
    Ok(())
}

/// Whether a container that is to be started can join those it was created for.
pub(super) async fn check(tx: &mut ProjectTx, container: &ContainerRecord) -> Result<()> {
    for namespace in Namespace::ALL {
        let Some(other) = namespace.of(&container.spec) else { continue };
        let other = match tx.find_container(other.as_str()).await {
            Err(Error::NotFound(why)) if namespace == Namespace::Network => {
                return Err(Error::Failed(namespace.refused(&why)));
            }
            Err(Error::NotFound(why)) => return Err(Error::InvalidArgument(namespace.refused(&why))),
            found => found?,
        };
        runs(namespace, &other)?;
        if namespace == Namespace::Ipc && other.spec.ipc != IpcMode::Shareable {
            return Err(Error::InvalidArgument(namespace.refused(&format!(
                "container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                other.id
            ))));
        }
    }
    Ok(())
}

fn runs(namespace: Namespace, other: &ContainerRecord) -> Result<()> {
    let state = state::of(other);
    let why = match (state, namespace) {
        (state::State::Running | state::State::Paused, _) => return Ok(()),
        (state::State::Restarting, Namespace::Network) => {
            format!("cannot join network namespace of container: {}", state::restarting(other))
        }
        (state::State::Restarting, _) => namespace.refused(&state::restarting(other).to_string()),
        (_, Namespace::Network) => format!(
            "cannot join network namespace of a non running container: container {} is {}",
            other.name,
            state.as_str()
        ),
        (_, _) => namespace.refused(&format!("container {} is not running", other.id)),
    };
    Err(Error::Conflict(why))
}
