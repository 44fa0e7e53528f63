//! From plan to kernel: compile, diff, do. One op's failure costs what depends on it and no more.

use std::collections::{BTreeMap, BTreeSet};

use super::Worker;
use crate::{
    compile::{compile, wanted_ports},
    diff::{Op, diff},
    kernel,
};

/// What could not be made, by container or network id, and why.
pub(super) type Failed = BTreeMap<String, String>;

/// What went wrong so far in one round, and what that rules out.
#[derive(Default)]
struct Round {
    failed: Failed,
    firewall: Option<String>,
    networks: BTreeSet<u32>,
}

impl Worker {
    /// Everything, removals included.
    pub(super) fn sync_all(&mut self) -> kernel::Result<Failed> {
        self.sync(&|_, _| true)
    }

    /// What a request waits for.
    pub(super) fn sync_soon(&mut self) -> kernel::Result<Failed> {
        self.sync(&|op, desired| !op.can_wait(desired))
    }

    /// What may be done without being told. A sandbox of which something is left is not made anew:
    /// who lives in the old namespace would be left behind.
    pub(super) fn sync_additive(&mut self) -> kernel::Result<Failed> {
        let remains: BTreeSet<_> = self.observed.sandboxes.keys().cloned().collect();
        self.sync(&|op, _| op.is_additive() && !matches!(op, Op::Sandbox(s) if remains.contains(&s.container)))
    }

    /// Takes down what emptied networks left.
    pub(super) fn retire(&mut self) {
        for op in diff(&self.desired, &self.observed).iter().filter(|op| op.can_wait(&self.desired)) {
            match self.kernel.apply(op) {
                Ok(()) => self.observed.note(op),
                Err(error) => tracing::warn!(%error, ?op, "cannot take down an empty network"),
            }
        }
    }

    fn sync(&mut self, wanted: &dyn Fn(&Op, &crate::compile::Desired) -> bool) -> kernel::Result<Failed> {
        let Some(plan) = &self.plan else { return Ok(Failed::new()) };
        let taken = self.kernel.claim_ports(&wanted_ports(plan));
        self.desired = compile(plan, &self.host, &taken);
        let mut round = self.round(wanted);
        if !round.failed.is_empty() {
            // Perhaps things are not as we thought: somebody deleted a bridge, say.
            self.look_again()?;
            round = self.round(wanted);
        }
        for (id, why) in &self.desired.refused {
            round.failed.entry(id.clone()).or_insert_with(|| why.clone());
        }
        let there = self.desired.sandboxes.keys().filter(|c| self.observed.sandboxes.get(*c).is_some_and(|s| s.netns));
        for (container, why) in self.resolvers.serve(&self.kernel, there) {
            tracing::warn!(%container, why, "failed");
            round.failed.entry(container.to_string()).or_insert(why);
        }
        Ok(round.failed)
    }

    fn round(&mut self, wanted: &dyn Fn(&Op, &crate::compile::Desired) -> bool) -> Round {
        let mut round = Round::default();
        for op in diff(&self.desired, &self.observed) {
            if !wanted(&op, &self.desired) {
                continue;
            }
            if let Op::RemoveSandbox(container) = &op {
                self.resolvers.stop(container);
            }
            let done = match self.ruled_out(&op, &round) {
                Some(why) => Err(why),
                None => self.kernel.apply(&op).map_err(|e| e.to_string()),
            };
            match done {
                Ok(()) => self.observed.note(&op),
                Err(why) => {
                    tracing::warn!(why, ?op, "failed");
                    self.note_failure(&op, why, &mut round);
                }
            }
        }
        round
    }

    /// Whether something before it failed that this stands on.
    fn ruled_out(&self, op: &Op, round: &Round) -> Option<String> {
        let needed: Vec<u32> = match op {
            Op::Tunnel(tunnel) => vec![tunnel.vni],
            Op::Sandbox(sandbox) => sandbox.veths.values().map(|v| v.vni).collect(),
            Op::Link(_, _, veth) | Op::Rejoin(_, _, veth) => vec![veth.vni],
            Op::Bridge(_)
            | Op::Firewall { .. }
            | Op::Route(_)
            | Op::Mtu(_)
            | Op::RemoveSandbox(_)
            | Op::RemoveLink(..)
            | Op::RemoveTunnel(_)
            | Op::RemoveBridge { .. }
            | Op::RemoveStray(_) => Vec::new(),
        };
        if needed.is_empty() {
            return None;
        }
        if let Some(why) = &round.firewall {
            // Nothing joins a network that is not shut in.
            return Some(why.clone());
        }
        needed.iter().any(|vni| round.networks.contains(vni)).then(|| "its network could not be made".to_owned())
    }

    fn note_failure(&self, op: &Op, why: String, round: &mut Round) {
        let id = match op {
            Op::Bridge(bridge) => {
                round.networks.insert(bridge.vni);
                self.network_id(bridge.vni)
            }
            Op::Tunnel(tunnel) => {
                round.networks.insert(tunnel.vni);
                self.network_id(tunnel.vni)
            }
            Op::Firewall { .. } => {
                round.firewall = Some(why.clone());
                "firewall".to_owned()
            }
            Op::Sandbox(sandbox) | Op::Route(sandbox) | Op::Mtu(sandbox) => sandbox.container.to_string(),
            Op::RemoveSandbox(container)
            | Op::RemoveLink(container, _)
            | Op::Link(container, ..)
            | Op::Rejoin(container, ..) => container.to_string(),
            Op::RemoveTunnel(vni) | Op::RemoveBridge { vni, .. } => self.network_id(*vni),
            Op::RemoveStray(name) => name.clone(),
        };
        round.failed.insert(id, why);
    }

    fn network_id(&self, vni: u32) -> String {
        let networks = self.plan.iter().flat_map(|p| p.networks.values());
        networks.clone().find(|n| n.vni == vni).map_or_else(|| format!("vni {vni}"), |n| n.id.to_string())
    }
}
