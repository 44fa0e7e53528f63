//! Name service inside sandboxes: 127.0.0.11 port 53, for containers on networks that serve names. A
//! container is told names of its own networks and nothing of any other. What it asks beyond that
//! goes to its resolvers, unless no network of it leads outside.
//!
//! The kernel thread says who is served ([`Resolvers`]); tasks of the runtime serve. A sandbox's
//! sockets hold its namespace, so they go with it.

mod answer;
mod directory;
mod forward;
mod serve;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use contract::net::{NetDelta, NetPlan};
use model::ContainerId;
use tokio::{runtime::Handle, task::AbortHandle};

use crate::kernel::{self, Kernel};
use directory::Directory;

/// Where a container asks.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Everybody who is served.
pub(crate) struct Resolvers {
    directory: Arc<Directory>,
    served: BTreeMap<ContainerId, AbortHandle>,
    runtime: Handle,
}

/// What a task needs to ask from inside a sandbox.
struct Inside {
    container: ContainerId,
    host: File,
    namespace: File,
}

impl Resolvers {
    /// Serves nobody yet.
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { directory: Arc::default(), served: BTreeMap::new(), runtime }
    }

    /// Takes over the names of a whole plan.
    pub(crate) fn replace(&mut self, plan: &NetPlan) {
        self.directory.replace(plan);
    }

    /// Takes over what a delta says of names. `plan` has the delta in it.
    pub(crate) fn change(&mut self, plan: &NetPlan, delta: &NetDelta) {
        self.directory.change(plan, delta);
    }

    /// Stops serving a sandbox that is about to go.
    pub(crate) fn stop(&mut self, container: &ContainerId) {
        if let Some(task) = self.served.remove(container) {
            task.abort();
        }
    }

    /// Serves every sandbox of `there` that shall be served, and no other. Answers with those that
    /// cannot be, and why.
    pub(crate) fn serve<'a>(
        &mut self,
        kernel: &Kernel,
        there: impl Iterator<Item = &'a ContainerId>,
    ) -> BTreeMap<ContainerId, String> {
        let wanted: BTreeSet<&ContainerId> = there.filter(|container| self.directory.serves(container)).collect();
        let gone: Vec<ContainerId> =
            self.served.keys().filter(|container| !wanted.contains(container)).cloned().collect();
        for container in gone {
            self.stop(&container);
        }
        let mut failed = BTreeMap::new();
        for container in wanted {
            // A task that ended lost its sockets; it is begun anew.
            if self.served.get(container).is_some_and(|task| !task.is_finished()) {
                continue;
            }
            match self.begin(kernel, container) {
                Ok(task) => drop(self.served.insert(container.clone(), task)),
                Err(error) => drop(failed.insert(container.clone(), format!("names cannot be served: {error}"))),
            }
        }
        failed
    }

    fn begin(&self, kernel: &Kernel, container: &ContainerId) -> kernel::Result<AbortHandle> {
        let (host, namespace) = kernel.doors(container)?;
        let sockets = kernel::inside(&host, &namespace, || kernel::listen(ADDRESS))?;
        let inside = Inside { container: container.clone(), host, namespace };
        let task = serve::serve(sockets, Arc::new(inside), self.directory.clone());
        Ok(self.runtime.spawn(task).abort_handle())
    }
}
