//! Laws of `diff`, on generated plans: doing what it says leaves nothing to do, whatever was there
//! before, and no step stands on something that is not there yet or takes away what others stand on.

use std::collections::{BTreeMap, BTreeSet};

use contract::net::{NetAttachment, NetEndpoint, NetNetwork, NetPlan};
use model::{ContainerId, NetworkId, PortProtocol, PublishedPort};
use netd::{
    compile::{Desired, HostConfig, Veth, compile},
    diff::{Observed, Op, diff},
};
use proptest::prelude::*;

/// A network: its peers, and whether it is internal. An endpoint: its networks by link, its address, a published port.
type Shape = (BTreeMap<u8, (Vec<u8>, bool)>, BTreeMap<u8, (BTreeMap<u8, u8>, u8, Option<u16>)>, u16);

fn shapes() -> impl Strategy<Value = Shape> {
    let peers = prop::collection::vec(1..4_u8, 0..3);
    let networks = prop::collection::btree_map(1..5_u8, (peers, any::<bool>()), 0..4);
    let endpoint = (prop::collection::btree_map(0..3_u8, 1..5_u8, 0..3), 2..9_u8, prop::option::of(8000..8003_u16));
    (networks, prop::collection::btree_map(1..9_u8, endpoint, 0..7), prop::sample::select(vec![4789_u16, 4790]))
}

fn desired((networks, endpoints, vxlan_port): &Shape) -> Desired {
    let id = |n: u8| NetworkId::from_bytes([n; 32]);
    let networks = networks.iter().map(|(n, (peers, internal))| NetNetwork {
        id: id(*n),
        vni: u32::from(*n),
        subnet: format!("10.128.{n}.0/24").parse().expect("a subnet"),
        gateway: None,
        internal: *internal,
        names: None,
        peers: peers.iter().map(|p| format!("10.200.0.{p}").parse().expect("an address")).collect(),
    });
    let endpoints = endpoints.iter().map(|(n, (on, host, port))| NetEndpoint {
        container: ContainerId::from_bytes([*n; 32]),
        attachments: on
            .iter()
            .map(|(interface, on)| NetAttachment {
                network: id(*on),
                ip: format!("10.128.{on}.{host}").parse().expect("an address"),
                interface: *interface,
                mac: None,
                links: BTreeMap::new(),
            })
            .collect(),
        resolvers: Vec::new(),
        owner: None,
        ports: port
            .iter()
            .map(|p| PublishedPort { container_port: 80, protocol: PortProtocol::Tcp, host_ip: None, host_port: *p })
            .collect(),
    });
    let plan = NetPlan {
        networks: networks.map(|n| (n.id.to_string(), n)).collect(),
        endpoints: endpoints.map(|e| (e.container.to_string(), e)).collect(),
    };
    let host = HostConfig {
        address: "10.200.0.1".parse().expect("an address"),
        vxlan_port: *vxlan_port,
        protected: Vec::new(),
        underlay_mtu: 1500,
        routed: Vec::new(),
    };
    compile(&plan, &host, &BTreeMap::new())
}

/// Does all ops on a model of the kernel that, like the kernel, refuses what cannot be.
fn carry_out(ops: &[Op], observed: &mut Observed, desired: &Desired) -> Result<(), TestCaseError> {
    for op in ops {
        match op {
            Op::Tunnel(tunnel) => {
                prop_assert!(observed.bridges.contains_key(&tunnel.vni), "a tunnel before its bridge");
                prop_assert_eq!(observed.firewall.as_ref(), Some(&desired.firewall), "a tunnel before its guard");
                let same = observed.tunnels.get(&tunnel.vni).is_none_or(|t| t.port == tunnel.port);
                prop_assert!(same, "the kernel changes no tunnel's port");
            }
            Op::Sandbox(sandbox) => {
                prop_assert!(!observed.sandboxes.contains_key(&sandbox.container), "made over remains");
                prop_assert_eq!(observed.firewall.as_ref(), Some(&desired.firewall), "joined before it was shut in");
                for veth in sandbox.veths.values() {
                    joins(observed, veth)?;
                }
            }
            Op::Link(container, number, veth) => {
                let there = observed.sandboxes.get(container);
                prop_assert!(there.is_some_and(|s| s.netns && !s.veths.contains_key(number)), "made over remains");
                prop_assert_eq!(observed.firewall.as_ref(), Some(&desired.firewall), "joined before it was shut in");
                joins(observed, veth)?;
            }
            Op::Rejoin(container, _, veth) => {
                let there = observed.sandboxes.get(container);
                prop_assert!(there.is_some_and(|s| s.netns), "into a namespace that is not there");
                prop_assert!(observed.bridges.contains_key(&veth.vni), "joined a bridge that is not there");
            }
            Op::Route(sandbox) => {
                let there = &observed.sandboxes[&sandbox.container];
                prop_assert!(there.veths.keys().eq(sandbox.veths.keys()), "a route before its link");
            }
            // Whatever is on one that is in the way: the kernel lets its links stay, on no bridge.
            Op::RemoveBridge { in_the_way: true, .. } => {}
            Op::RemoveBridge { vni, .. } => {
                prop_assert!(!observed.tunnels.contains_key(vni), "a bridge went before its tunnel");
                let on = observed.sandboxes.values().flat_map(|s| s.veths.values()).any(|v| v.vni == Some(*vni));
                prop_assert!(!on, "a bridge went before its containers");
            }
            Op::Bridge(_)
            | Op::Firewall { .. }
            | Op::Mtu(_)
            | Op::RemoveSandbox(_)
            | Op::RemoveLink(..)
            | Op::RemoveTunnel(_)
            | Op::RemoveStray(_) => {}
        }
        observed.note(op);
    }
    Ok(())
}

fn joins(observed: &Observed, veth: &Veth) -> Result<(), TestCaseError> {
    prop_assert!(observed.bridges.contains_key(&veth.vni), "joined a bridge that is not there");
    let mine = veth.address.addr();
    let mut others = observed.sandboxes.values().flat_map(|s| s.veths.values());
    prop_assert!(others.all(|o| o.vni != Some(veth.vni) || o.address != mine), "two hold {}", mine);
    Ok(())
}

proptest! {
    #[test]
    fn doing_what_it_says_leaves_nothing_to_do(before in shapes(), after in shapes()) {
        let mut observed = Observed::default();
        for shape in [before, after] {
            let desired = desired(&shape);
            let ops = diff(&desired, &observed);
            carry_out(&ops, &mut observed, &desired)?;
            prop_assert_eq!(diff(&desired, &observed), Vec::new());
        }
    }

    #[test]
    fn a_crash_after_any_step_is_made_good(before in shapes(), after in shapes(), done in 0..30_usize) {
        let mut observed = Observed::default();
        let (before, after) = (desired(&before), desired(&after));
        carry_out(&diff(&before, &observed), &mut observed, &before)?;
        let ops = diff(&after, &observed);
        carry_out(&ops[..done.min(ops.len())], &mut observed, &after)?;
        // What a crash leaves behind besides: a namespace without its pair, a pair without alias,
        // a firewall nobody remembers having loaded.
        observed.firewall = None;
        observed.strays.insert("wvdeadbeef000".to_owned());
        if let Some(sandbox) = observed.sandboxes.values_mut().next() {
            sandbox.veths.clear();
        }
        carry_out(&diff(&after, &observed), &mut observed, &after)?;
        prop_assert_eq!(diff(&after, &observed), Vec::new());
    }

    #[test]
    fn what_is_left_alone_is_not_touched(shape in shapes()) {
        let desired = desired(&shape);
        let mut observed = Observed::default();
        carry_out(&diff(&desired, &observed), &mut observed, &desired)?;
        let mut fewer = desired.clone();
        let Some(gone) = fewer.sandboxes.keys().next().cloned() else { return Ok(()) };
        fewer.sandboxes.remove(&gone);
        prop_assert_eq!(diff(&fewer, &observed), vec![Op::RemoveSandbox(gone)]);
    }

    #[test]
    fn what_may_be_done_unasked_removes_nothing(before in shapes(), after in shapes()) {
        let mut observed = Observed::default();
        let (before, after) = (desired(&before), desired(&after));
        carry_out(&diff(&before, &observed), &mut observed, &before)?;
        let had: BTreeSet<_> = observed.sandboxes.keys().cloned().collect();
        for op in diff(&after, &observed).iter().filter(|op| op.is_additive()) {
            observed.note(op);
        }
        prop_assert!(had.iter().all(|id| observed.sandboxes.contains_key(id)));
    }
}
