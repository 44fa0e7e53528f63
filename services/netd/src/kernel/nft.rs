//! Loads the firewall. Rules go through `nft` as one transaction; elements of the published-port
//! maps, which change with every container that publishes one, go through netlink directly.
//!
//! nf_tables counts its transactions. Whoever changes any table moves the count, which is how
//! [`Nft::changed`] notices a flushed ruleset without reading it.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{
    error::{Doing as _, KernelError, Result},
    nft_elements, nft_guard,
};
use crate::compile::PortChange;

/// See the module.
pub(super) struct Nft {
    socket: Socket,
    /// The count right after we last changed something and nobody else did.
    generation: Option<u32>,
}

impl Nft {
    pub(super) fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok::<_, io::Error>(socket)
        };
        let socket = open().doing(|| "opening nf_tables' netlink".to_owned())?;
        Ok(Self { socket, generation: None })
    }

    /// Sets up the guard that a flush of the ruleset leaves alone; it needs doing once.
    pub(super) fn guard(&self) -> Result<()> {
        nft_guard::load(&self.socket).doing(|| "setting up the guard table".to_owned())
    }

    /// Runs a script as one transaction.
    pub(super) fn load(&mut self, script: &str) -> Result<()> {
        let before = nft_elements::generation(&self.socket).ok();
        self.generation = None;
        run(script).doing(|| "loading the firewall".to_owned())?;
        self.committed(before);
        Ok(())
    }

    /// Changes elements of the maps as one transaction.
    pub(super) fn change_ports(&mut self, change: &PortChange) -> Result<()> {
        let before = nft_elements::generation(&self.socket).ok();
        self.generation = None;
        nft_elements::commit(&self.socket, change).doing(|| "changing published ports".to_owned())?;
        self.committed(before);
        Ok(())
    }

    /// Whether somebody changed a table since. Unknown counts as changed.
    pub(super) fn changed(&mut self) -> bool {
        match (self.generation, nft_elements::generation(&self.socket)) {
            (Some(known), Ok(now)) => known != now,
            (None, Ok(_)) => true,
            // Cannot tell. Loading would most likely fail too, and says why.
            (_, Err(_)) => true,
        }
    }

    /// Ours was the only transaction if the count moved by one.
    fn committed(&mut self, before: Option<u32>) {
        let now = nft_elements::generation(&self.socket).ok();
        self.generation = now.filter(|now| before.map(|b| b.wrapping_add(1)) == Some(*now));
    }

    /// Removes our tables.
    pub(super) fn remove_tables(&mut self) -> Result<()> {
        // Adding first makes deleting what is not there no error.
        let script = "table inet wharfage\ndelete table inet wharfage\n\
                      table bridge wharfage\ndelete table bridge wharfage\n";
        let guard = nft_guard::remove(&self.socket).doing(|| "removing the guard table".to_owned());
        self.load(script).and(guard)
    }
}

/// Calls `changed` whenever somebody has changed a table, until it answers false. Blocks.
pub(crate) fn watch(mut changed: impl FnMut() -> bool) -> io::Result<()> {
    /// `NFNLGRP_NFTABLES`.
    const GROUP: u32 = 7;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.add_membership(GROUP)?;
    let mut bytes = Vec::with_capacity(64 * 1024);
    loop {
        bytes.clear();
        match socket.recv(&mut bytes, 0) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // More than fits was said: something did change.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(e) => return Err(e),
            Ok(_) => {}
        }
        if !changed() {
            return Ok(());
        }
    }
}

fn run(script: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| KernelError::new("starting nft", e))
        .map_err(io::Error::other)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<_> = said.lines().filter(|l| l.contains("rror")).take(3).collect();
    Err(io::Error::other(format!("nft: {}", said.join("; "))))
}
