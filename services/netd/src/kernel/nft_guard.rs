//! The one rule that must hold even while somebody flushes the whole ruleset: nothing is routed from
//! one bridge to another unless a published port was dialled. It lives in a table that belongs to
//! this process's socket, which the kernel keeps out of `nft flush ruleset` and lets nobody else
//! change, and that stays when the process dies. `nft` of the day cannot write such tables.

use std::io;

use rtnetlink::sys::Socket;

use super::nft_elements::{
    NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFTA_DATA_VALUE, NFTA_LIST_ELEM, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE,
    NLM_F_REQUEST, attribute, message, transaction,
};

const TABLE: &[u8] = b"wharfage_guard\0";
const CHAIN: &[u8] = b"forward\0";

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NLM_F_APPEND: u16 = 0x800;
/// Belongs to the socket that made it, and outlives it.
const OWNER_AND_PERSIST: u32 = 0x2 | 0x4;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_INET_FORWARD: u32 = 2;
/// Just before the `forward` chain of the main table.
const PRIORITY: i32 = -11;
const REGISTER: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;
const FIB_RESULT_OIF: u32 = 1;
/// `fib daddr . iif oif exists`.
const FIB_DADDR_IIF_PRESENT: u32 = 2 | 8 | 32;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

/// Makes the table, or takes it over from a process that died, and sets its rules.
///
/// # Errors
/// The kernel is older than 6.9, or another process holds it.
pub(super) fn load(socket: &Socket) -> io::Result<()> {
    transaction(socket, |bytes| {
        table(bytes, NFT_MSG_NEWTABLE, NLM_F_CREATE, Some(OWNER_AND_PERSIST));
        chain(bytes);
        // Without a handle: all rules an earlier process left in the chain.
        change(bytes, NFT_MSG_DELRULE, 0, rule_of_chain);
        rule(bytes, NF_ACCEPT, |b| {
            number(b, "ct", &[(1, REGISTER), (2, CT_STATUS)]);
            bitwise(b, IPS_DST_NAT);
            compare(b, CMP_NEQ, &[0; 4]);
        });
        // The same bridge, where br_netfilter shows bridged packets to tables of this family.
        rule(bytes, NF_ACCEPT, |b| {
            number(b, "fib", &[(1, REGISTER), (2, FIB_RESULT_OIF), (3, FIB_DADDR_IIF_PRESENT)]);
            compare(b, CMP_EQ, &[1]);
        });
        rule(bytes, NF_DROP, |_| {});
        6
    })
}

/// Removes the table. None is fine.
///
/// # Errors
/// A netd that runs holds it.
pub(super) fn remove(socket: &Socket) -> io::Result<()> {
    let removed = transaction(socket, |bytes| {
        table(bytes, NFT_MSG_DELTABLE, 0, None);
        1
    });
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn change(bytes: &mut Vec<u8>, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let kind = (NFNL_SUBSYS_NFTABLES << 8) | kind;
    message(bytes, kind, NLM_F_REQUEST | NLM_F_ACK | flags, NFPROTO_INET, 0, body);
}

fn table(bytes: &mut Vec<u8>, kind: u16, flags: u16, owned: Option<u32>) {
    change(bytes, kind, flags, |b| {
        text(b, 1, TABLE);
        if let Some(owned) = owned {
            be(b, 2, owned);
        }
    });
}

fn chain(bytes: &mut Vec<u8>) {
    change(bytes, NFT_MSG_NEWCHAIN, NLM_F_CREATE, |b| {
        text(b, 1, TABLE);
        text(b, 3, CHAIN);
        attribute(b, 4 | NLA_F_NESTED, |b| {
            be(b, 1, NF_INET_FORWARD);
            be(b, 2, PRIORITY.cast_unsigned());
        });
        be(b, 5, NF_ACCEPT);
        text(b, 7, b"filter\0");
    });
}

fn rule_of_chain(bytes: &mut Vec<u8>) {
    text(bytes, 1, TABLE);
    text(bytes, 2, CHAIN);
}

/// Of what goes from one of our bridges to one of our bridges.
fn rule(bytes: &mut Vec<u8>, verdict: u32, condition: impl FnOnce(&mut Vec<u8>)) {
    change(bytes, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |b| {
        rule_of_chain(b);
        attribute(b, 4 | NLA_F_NESTED, |b| {
            for key in [META_IIFNAME, META_OIFNAME] {
                number(b, "meta", &[(1, REGISTER), (2, key)]);
                // Two bytes of the register: names that begin so.
                compare(b, CMP_EQ, crate::compile::BRIDGE_PREFIX.as_bytes());
            }
            condition(b);
            expression(b, "immediate", |b| {
                be(b, 1, 0);
                attribute(b, 2 | NLA_F_NESTED, |b| attribute(b, 2 | NLA_F_NESTED, |b| be(b, 1, verdict)));
            });
        });
    });
}

fn expression(bytes: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    attribute(bytes, NFTA_LIST_ELEM | NLA_F_NESTED, |b| {
        attribute(b, 1, |b| {
            b.extend_from_slice(name.as_bytes());
            b.push(0);
        });
        attribute(b, 2 | NLA_F_NESTED, data);
    });
}

/// An expression whose attributes are all numbers.
fn number(bytes: &mut Vec<u8>, name: &str, attributes: &[(u16, u32)]) {
    expression(bytes, name, |b| attributes.iter().for_each(|(kind, value)| be(b, *kind, *value)));
}

fn compare(bytes: &mut Vec<u8>, how: u32, with: &[u8]) {
    expression(bytes, "cmp", |b| {
        be(b, 1, REGISTER);
        be(b, 2, how);
        value(b, 3, with);
    });
}

fn bitwise(bytes: &mut Vec<u8>, mask: u32) {
    expression(bytes, "bitwise", |b| {
        be(b, 1, REGISTER);
        be(b, 2, REGISTER);
        be(b, 3, 4);
        value(b, 4, &mask.to_ne_bytes());
        value(b, 5, &[0; 4]);
    });
}

fn value(bytes: &mut Vec<u8>, kind: u16, with: &[u8]) {
    attribute(bytes, kind | NLA_F_NESTED, |b| attribute(b, NFTA_DATA_VALUE, |b| b.extend_from_slice(with)));
}

fn text(bytes: &mut Vec<u8>, kind: u16, zero_terminated: &[u8]) {
    attribute(bytes, kind, |b| b.extend_from_slice(zero_terminated));
}

fn be(bytes: &mut Vec<u8>, kind: u16, number: u32) {
    attribute(bytes, kind, |b| b.extend_from_slice(&number.to_be_bytes()));
}
