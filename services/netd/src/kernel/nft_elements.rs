//! nf_tables messages, written by hand: one transaction that takes elements out of the maps of
//! published ports and puts others in, and the question after the transaction count. An `nft`
//! process for each container that publishes a port would cost more than all else its start does.

use std::io;

use model::PortProtocol;
use rtnetlink::sys::Socket;

use crate::compile::{PortChange, PortKey, PortTarget};

pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
pub(super) const NLA_F_NESTED: u16 = 1 << 15;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NFPROTO_UNSPEC: u8 = 0;
pub(super) const NFPROTO_INET: u8 = 1;
const HEADER_BYTES: usize = 16;
/// Elements to a message: an attribute's length has sixteen bits.
const ELEMENTS_MAX: usize = 500;

/// The transaction count.
pub(super) fn generation(socket: &Socket) -> io::Result<u32> {
    let mut bytes = Vec::new();
    message(&mut bytes, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, NLM_F_REQUEST, NFPROTO_UNSPEC, 0, |_| {});
    socket.send(&bytes, 0)?;
    loop {
        for (kind, payload) in split(&receive(socket)?) {
            if kind == NLMSG_ERROR {
                refusal(payload)?;
            }
            // After four bytes of nfgenmsg: attributes, the count among them.
            let attribute = payload.get(4..12);
            if kind == (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN
                && let Some(&[_, _, a, b, c, d, e, f]) = attribute
                && u16::from_ne_bytes([a, b]) == NFTA_GEN_ID
            {
                return Ok(u32::from_be_bytes([c, d, e, f]));
            }
        }
    }
}

/// Makes the change: all of it or none.
pub(super) fn commit(socket: &Socket, change: &PortChange) -> io::Result<()> {
    transaction(socket, |bytes| {
        let removals = change.remove.keys().map(|k| (*k, None)).collect::<Vec<_>>();
        let additions = change.add.iter().map(|(k, t)| (*k, Some(*t))).collect::<Vec<_>>();
        let mut messages = 0;
        for elements in [removals, additions] {
            let (one, any): (Vec<_>, Vec<_>) = elements.into_iter().partition(|(k, _)| k.address.is_some());
            for (map, elements) in [("published", any), ("published_at", one)] {
                for elements in elements.chunks(ELEMENTS_MAX) {
                    elements_message(bytes, map, elements);
                    messages += 1;
                }
            }
        }
        messages
    })
}

/// Sends the messages that `write` appends, and says how many they are, as one transaction.
pub(super) fn transaction(socket: &Socket, write: impl FnOnce(&mut Vec<u8>) -> usize) -> io::Result<()> {
    let mut bytes = Vec::new();
    let subsystem = NFNL_SUBSYS_NFTABLES;
    message(&mut bytes, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, NFPROTO_UNSPEC, subsystem, |_| {});
    let expected = write(&mut bytes);
    if expected == 0 {
        return Ok(());
    }
    message(&mut bytes, NFNL_MSG_BATCH_END, NLM_F_REQUEST, NFPROTO_UNSPEC, subsystem, |_| {});
    socket.send(&bytes, 0)?;
    let mut answered = 0;
    let mut result = Ok(());
    while answered < expected {
        for (kind, payload) in split(&receive(socket)?) {
            if kind == NLMSG_ERROR {
                answered += 1;
                // A refusal ends the transaction; what follows it may not be answered at all.
                result = result.and(refusal(payload));
            }
        }
        if result.is_err() {
            drain(socket);
            return result;
        }
    }
    result
}

fn elements_message(bytes: &mut Vec<u8>, map: &str, elements: &[(PortKey, Option<PortTarget>)]) {
    let adds = elements.iter().any(|(_, target)| target.is_some());
    let (kind, flags) = if adds { (NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL) } else { (NFT_MSG_DELSETELEM, 0) };
    let kind = (NFNL_SUBSYS_NFTABLES << 8) | kind;
    message(bytes, kind, NLM_F_REQUEST | NLM_F_ACK | flags, NFPROTO_INET, 0, |bytes| {
        attribute(bytes, NFTA_SET_ELEM_LIST_TABLE, |b| b.extend_from_slice(b"wharfage\0"));
        attribute(bytes, NFTA_SET_ELEM_LIST_SET, |b| {
            b.extend_from_slice(map.as_bytes());
            b.push(0);
        });
        attribute(bytes, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, |bytes| {
            for (key, target) in elements {
                attribute(bytes, NFTA_LIST_ELEM | NLA_F_NESTED, |bytes| element(bytes, key, target.as_ref()));
            }
        });
    });
}

fn element(bytes: &mut Vec<u8>, key: &PortKey, target: Option<&PortTarget>) {
    // Each part of a concatenation fills whole registers of four bytes.
    attribute(bytes, NFTA_SET_ELEM_KEY | NLA_F_NESTED, |bytes| {
        attribute(bytes, NFTA_DATA_VALUE, |bytes| {
            if let Some(address) = key.address {
                bytes.extend_from_slice(&address.octets());
            }
            let protocol = match key.protocol {
                PortProtocol::Tcp => libc::IPPROTO_TCP,
                PortProtocol::Udp => libc::IPPROTO_UDP,
            };
            bytes.extend_from_slice(&[u8::try_from(protocol).unwrap_or_default(), 0, 0, 0]);
            register(bytes, key.port);
        });
    });
    let Some(target) = target else { return };
    attribute(bytes, NFTA_SET_ELEM_DATA | NLA_F_NESTED, |bytes| {
        attribute(bytes, NFTA_DATA_VALUE, |bytes| {
            bytes.extend_from_slice(&target.address.octets());
            register(bytes, target.port);
        });
    });
}

fn register(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
}

/// A netlink message with an nfgenmsg in front of its attributes.
pub(super) fn message(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    body(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

pub(super) fn attribute(bytes: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    body(bytes);
    let length = u16::try_from(bytes.len() - start).expect("ELEMENTS_MAX bounds every attribute");
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    loop {
        match socket.recv(&mut bytes, 0) {
            Ok(_) => return Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Answers that nobody waits for must not be taken for those to the next question.
fn drain(socket: &Socket) {
    let mut bytes = Vec::with_capacity(16 * 1024);
    while socket.recv(&mut bytes, libc::MSG_DONTWAIT).is_ok() {
        bytes.clear();
    }
}

/// The messages in a datagram: type and payload.
fn split(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut messages = Vec::new();
    while let Some(&[a, b, c, d, e, f]) = bytes.get(..6) {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(payload) = bytes.get(HEADER_BYTES..length) else { break };
        messages.push((u16::from_ne_bytes([e, f]), payload));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn refusal(payload: &[u8]) -> io::Result<()> {
    match payload {
        [a, b, c, d, ..] => match i32::from_ne_bytes([*a, *b, *c, *d]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
