//! The hosts' agents: one client each, kept by host and address. A host is only believed to be
//! itself when its certificate says so. Tenants are never told an address or a name of a host.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use chassis::{ClientTls, ExpectedPeer, client::Internal, tls};
use model::{Error, HostId, Result};
use store::{ContainerRecord, HostAddress};

/// What a tenant reads when a host is away.
const HOST_AWAY: &str = "the host of this container does not answer now; the container itself may well be running on";

/// Clients to agents; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Agents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: plain HTTP, for tests on loopback.
    tls: Option<ClientTls>,
    clients: Mutex<HashMap<HostId, (IpAddr, u16, Internal)>>,
}

impl Agents {
    /// Clients with this service's own certificate.
    pub(crate) fn new(tls: Option<ClientTls>) -> Self {
        Self(Arc::new(Inner { tls, clients: Mutex::default() }))
    }

    /// The agent of a placed container.
    ///
    /// # Errors
    /// `Unavailable` if it is on no host (yet).
    pub(crate) fn of(&self, container: &ContainerRecord) -> Result<Internal> {
        let host = container.host.as_ref();
        self.at(host.ok_or_else(|| Error::Unavailable("this container is on no host yet".into()))?)
    }

    /// The agent at a host's address.
    ///
    /// # Errors
    /// Our own certificate cannot be used.
    pub(crate) fn at(&self, host: &HostAddress) -> Result<Internal> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, port, client)) = clients.get(&host.id)
            && (*address, *port) == (host.address, host.agent_port)
        {
            return Ok(client.clone());
        }
        let place = SocketAddr::new(host.address, host.agent_port);
        let client = match &self.0.tls {
            Some(files) => tls::client(files, ExpectedPeer::host(host.id))
                .and_then(|http| Internal::new(&format!("https://{place}"), http)),
            None => Internal::plain(&format!("http://{place}")),
        }
        .map_err(|e| Error::Internal(format!("client of host {}: {e:#}", host.id)))?;
        clients.insert(host.id, (host.address, host.agent_port, client.clone()));
        Ok(client)
    }
}

/// An agent's error as a tenant may read it: addresses of hosts are in `Unavailable`'s text.
pub(crate) fn tenant_error(error: Error) -> Error {
    match error {
        Error::Unavailable(detail) => {
            tracing::warn!(%detail, "a host's agent does not answer");
            Error::Unavailable(HOST_AWAY.into())
        }
        Error::Unauthenticated(detail) | Error::Forbidden(detail) => {
            Error::Internal(format!("an agent refused the gateway: {detail}"))
        }
        other @ (Error::NotFound(_)
        | Error::InvalidArgument(_)
        | Error::Conflict(_)
        | Error::NotModified
        | Error::LimitExceeded(_)
        | Error::NoCapacity(_)
        | Error::NotImplemented(_)
        | Error::Failed(_)
        | Error::Internal(_)) => other,
    }
}
