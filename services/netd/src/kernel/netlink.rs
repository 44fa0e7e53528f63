//! One blocking route-netlink socket. Requests go out many to a message and the kernel does them in
//! order; it answers before the call returns, so there is nothing to wait for and no task to wake.
//! A socket belongs to the network namespace its thread was in when it was opened.

use std::io;

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkExtentMask, LinkMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::error::{Doing as _, KernelError, Result};

/// The kernel fills at most this much of one datagram of a dump.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// See the module.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

/// Something to do.
pub(super) struct Request {
    what: &'static str,
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// Make it; fail if it is there.
    pub(super) fn create(what: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { what, message, flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Change or delete it.
    pub(super) fn change(what: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { what, message, flags: 0 }
    }

    /// With other flags.
    pub(super) fn with_flags(what: &'static str, message: RouteNetlinkMessage, flags: u16) -> Self {
        Self { what, message, flags }
    }
}

impl Netlink {
    /// Opens one in the namespace the thread is in.
    pub(super) fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Errors need not carry the request back.
            socket.set_cap_ack(true)?;
            Ok::<_, io::Error>(socket)
        };
        let socket = open().doing(|| "opening netlink".to_owned())?;
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Does all of them, in order, in one call to the kernel. Every one is tried; the first error
    /// is the answer.
    pub(super) fn run(&mut self, requests: Vec<Request>) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let what: Vec<_> = requests.iter().map(|r| r.what).collect();
        let mut bytes = Vec::with_capacity(1024);
        for request in requests {
            self.encode(request.message, NLM_F_REQUEST | NLM_F_ACK | request.flags, &mut bytes);
        }
        self.socket.send(&bytes, 0).doing(|| "sending to netlink".to_owned())?;
        let mut answers: Vec<Option<io::Result<()>>> = what.iter().map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            for message in self.receive()? {
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                if let (Some(answer), NetlinkPayload::Error(error)) = (answers.get_mut(index), message.payload) {
                    *answer = Some(error.code.map_or(Ok(()), |_| Err(error.to_io())));
                }
            }
        }
        for (answer, what) in answers.into_iter().zip(what) {
            answer.unwrap_or(Ok(())).doing(|| what.to_owned())?;
        }
        Ok(())
    }

    /// Does one.
    pub(super) fn run_one(&mut self, request: Request) -> Result<()> {
        self.run(vec![request])
    }

    /// Everything the kernel has of a kind.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set, of which a dump has these")]
    pub(super) fn dump(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let mut bytes = Vec::with_capacity(64);
        let sequence = self.encode(message, NLM_F_REQUEST | NLM_F_DUMP, &mut bytes);
        self.socket.send(&bytes, 0).doing(|| what.to_owned())?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(KernelError::new(what, error.to_io())),
                    _ => {}
                }
            }
        }
    }

    /// A link by name; `None` if there is none.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an open set, of which an answer has these")]
    pub(super) fn link(&mut self, name: &str) -> Result<Option<LinkMessage>> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        wanted.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut bytes = Vec::with_capacity(64);
        let sequence = self.encode(RouteNetlinkMessage::GetLink(wanted), NLM_F_REQUEST, &mut bytes);
        self.socket.send(&bytes, 0).doing(|| format!("looking up {name}"))?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => return Ok(Some(link)),
                    NetlinkPayload::Error(error) => {
                        let error = KernelError::new(format!("looking up {name}"), error.to_io());
                        return if error.is_absent() { Ok(None) } else { Err(error) };
                    }
                    _ => {}
                }
            }
        }
    }

    /// The index of a link that must be there.
    pub(super) fn index(&mut self, name: &str) -> Result<u32> {
        match self.link(name)? {
            Some(link) => Ok(link.header.index),
            None => Err(KernelError::new(format!("looking up {name}"), io::Error::from_raw_os_error(libc::ENODEV))),
        }
    }

    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        // Each message of a batch begins on a multiple of four bytes.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
        self.sequence
    }

    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        self.received.clear();
        loop {
            match self.socket.recv(&mut self.received, 0) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(KernelError::new("receiving from netlink", e)),
            }
        }
        let mut messages = Vec::new();
        let mut rest = &self.received[..];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let Some(bytes) = rest.get(..length).filter(|b| b.len() >= 16) else { break };
            match NetlinkMessage::deserialize(bytes) {
                Ok(message) => messages.push(message),
                // A link of a kind this library reads wrongly is not one of ours.
                Err(e) => tracing::debug!(error = %e, "a netlink message cannot be read"),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}
