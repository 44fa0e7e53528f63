//! Holds published ports with sockets of this process, as Docker's proxy does by listening: a port
//! that a service of the host uses is found out instead of being led away from it, and none can
//! take one later. Nobody ever connects to these sockets: the firewall leads everything away first.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use model::PortProtocol;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt::ReuseAddr,
};

use crate::compile::PortKey;

/// The sockets, by what they hold.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<PortKey, OwnedFd>);

impl Claims {
    pub(super) fn hold(&mut self, wanted: &BTreeSet<PortKey>) -> BTreeMap<PortKey, String> {
        self.0.retain(|key, _| wanted.contains(key));
        let mut taken = BTreeMap::new();
        for key in wanted {
            if self.0.contains_key(key) {
                continue;
            }
            match claim(key) {
                Ok(socket) => {
                    self.0.insert(*key, socket);
                }
                // An address this host does not have now cannot be robbed of a port either.
                Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    taken.insert(*key, "port is already allocated".to_owned());
                }
                Err(e) => {
                    taken.insert(*key, e.to_string());
                }
            }
        }
        taken
    }
}

fn claim(key: &PortKey) -> io::Result<OwnedFd> {
    let (kind, tcp) = match key.protocol {
        PortProtocol::Tcp => (SockType::Stream, true),
        PortProtocol::Udp => (SockType::Datagram, false),
    };
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if tcp {
        // Connections of a former owner may linger in TIME_WAIT; a listener still refuses us.
        setsockopt(&socket, ReuseAddr, &true)?;
    }
    let address = SocketAddrV4::new(key.address.unwrap_or(Ipv4Addr::UNSPECIFIED), key.port);
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(address))?;
    if tcp {
        listen(&socket, Backlog::new(1)?)?;
    }
    Ok(socket)
}
