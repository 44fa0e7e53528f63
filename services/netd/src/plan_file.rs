//! The last accepted plan, on disk, so that a netd that died goes on where it was. A snapshot is
//! replaced by rename; deltas are appended to a journal that belongs to exactly that snapshot, so
//! that one container's start does not rewrite a thousand. Nothing is fsynced: the file has to
//! outlive the process, not the machine, whose network is gone with it anyway.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use contract::net::{NetDelta, NetPlan};
use serde::{Deserialize, Serialize};

/// A journal longer than this is folded into a new snapshot.
const JOURNAL_MAX_BYTES: u64 = 1 << 20;
const SNAPSHOT: &str = "plan.json";

/// Where the plan is kept, and the journal being written.
#[derive(Debug)]
pub(crate) struct PlanFile {
    dir: PathBuf,
    epoch: u64,
    journal: Option<File>,
    journal_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Snapshot<P> {
    /// Names the journal that continues this snapshot.
    epoch: u64,
    plan: P,
}

impl PlanFile {
    /// Reads what is there. `None`: no plan was ever accepted, or it cannot be read any more.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<NetPlan>)> {
        fs::create_dir_all(dir)?;
        let mut file = Self { dir: dir.to_owned(), epoch: 0, journal: None, journal_bytes: 0 };
        let bytes = match fs::read(dir.join(SNAPSHOT)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((file, None)),
            Err(e) => return Err(e),
        };
        let snapshot: Snapshot<NetPlan> = match serde_json::from_slice(&bytes) {
            Ok(snapshot) => snapshot,
            Err(e) => {
                tracing::error!(error = %e, "the stored plan is unreadable; waiting for a whole one");
                return Ok((file, None));
            }
        };
        file.epoch = snapshot.epoch;
        let mut plan = snapshot.plan;
        file.replay(&mut plan)?;
        Ok((file, Some(plan)))
    }

    fn replay(&mut self, plan: &mut NetPlan) -> io::Result<()> {
        let text = match fs::read_to_string(self.journal_path()) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let mut whole = 0;
        for line in text.split_inclusive('\n') {
            // A line cut short is a delta that was never answered.
            let Some(delta) = line.strip_suffix('\n').and_then(|l| serde_json::from_str::<NetDelta>(l).ok()) else {
                break;
            };
            merge(plan, &delta);
            whole += line.len() as u64;
        }
        let journal = self.open_journal()?;
        journal.set_len(whole)?;
        self.journal = Some(journal);
        self.journal_bytes = whole;
        Ok(())
    }

    /// Stores a whole plan.
    ///
    /// # Errors
    /// It could not be written; the one before is still there.
    pub(crate) fn replace(&mut self, plan: &NetPlan) -> io::Result<()> {
        let old_journal = self.journal_path();
        let next = PathBuf::from(format!("{SNAPSHOT}.new"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.dir.join(&next))?;
        let snapshot = Snapshot { epoch: self.epoch + 1, plan };
        file.write_all(&serde_json::to_vec(&snapshot).map_err(io::Error::other)?)?;
        fs::rename(self.dir.join(next), self.dir.join(SNAPSHOT))?;
        self.epoch += 1;
        self.journal = None;
        self.journal_bytes = 0;
        match fs::remove_file(old_journal) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether the journal is long enough to be folded into a new snapshot.
    #[must_use]
    pub(crate) fn is_long(&self) -> bool {
        self.journal_bytes > JOURNAL_MAX_BYTES
    }

    /// Stores a delta, before it is merged into the plan.
    ///
    /// # Errors
    /// It could not be written; the plan on disk is as before.
    pub(crate) fn append(&mut self, delta: &NetDelta) -> io::Result<()> {
        let mut line = serde_json::to_vec(delta).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut journal = match self.journal.take() {
            Some(journal) => journal,
            None => self.open_journal()?,
        };
        let written = journal.write_all(&line);
        if written.is_err() {
            // Part of a line would hide every later one.
            journal.set_len(self.journal_bytes)?;
        } else {
            self.journal_bytes += line.len() as u64;
        }
        self.journal = Some(journal);
        written
    }

    fn journal_path(&self) -> PathBuf {
        self.dir.join(format!("plan.{}.ndjson", self.epoch))
    }

    fn open_journal(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.journal_path())
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// A file could not be removed.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("plan.") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The plan with a delta merged in.
pub(crate) fn merge(plan: &mut NetPlan, delta: &NetDelta) {
    for network in &delta.networks {
        plan.networks.insert(network.id.to_string(), network.clone());
    }
    for container in &delta.remove_endpoints {
        plan.endpoints.remove(container.as_str());
    }
    for endpoint in &delta.endpoints {
        plan.endpoints.insert(endpoint.container.to_string(), endpoint.clone());
    }
    // A network goes with its last endpoint; one that comes with this delta may be ahead of its first.
    let used: std::collections::BTreeSet<_> =
        plan.endpoints.values().flat_map(|e| &e.attachments).map(|a| a.network.clone()).collect();
    plan.networks.retain(|_, n| used.contains(&n.id) || delta.networks.iter().any(|named| named.id == n.id));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use contract::net::{NetAttachment, NetEndpoint, NetNetwork};
    use model::{ContainerId, NetworkId};

    fn network(n: u8) -> NetNetwork {
        let subnet = format!("10.128.{n}.0/24").parse().expect("a subnet");
        NetNetwork {
            id: NetworkId::from_bytes([n; 32]),
            vni: u32::from(n),
            subnet,
            gateway: None,
            internal: false,
            peers: Vec::new(),
            names: None,
        }
    }

    fn endpoint(n: u8, on: u8) -> NetEndpoint {
        let ip = format!("10.128.{on}.{n}").parse().expect("an address");
        let attachments = vec![NetAttachment {
            network: NetworkId::from_bytes([on; 32]),
            ip,
            interface: 0,
            mac: None,
            links: BTreeMap::new(),
        }];
        NetEndpoint {
            container: ContainerId::from_bytes([n; 32]),
            attachments,
            ports: Vec::new(),
            resolvers: Vec::new(),
            owner: None,
        }
    }

    fn add(n: u8, on: u8) -> NetDelta {
        NetDelta { networks: vec![network(on)], endpoints: vec![endpoint(n, on)], ..NetDelta::default() }
    }

    #[test]
    fn a_plan_and_its_deltas_are_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, none) = PlanFile::open(dir.path()).expect("opens");
        assert_eq!(none, None);
        let mut plan = NetPlan::default();
        file.replace(&plan).expect("writes");
        for n in 2..6 {
            merge(&mut plan, &add(n, 1));
            file.append(&add(n, 1)).expect("appends");
        }
        let (mut file, read) = PlanFile::open(dir.path()).expect("opens");
        assert_eq!(read.as_ref(), Some(&plan));
        merge(&mut plan, &add(9, 2));
        file.append(&add(9, 2)).expect("appends to the same journal");
        assert_eq!(PlanFile::open(dir.path()).expect("opens").1, Some(plan));
    }

    #[test]
    fn a_delta_cut_short_by_a_crash_is_not_part_of_the_plan_and_hides_nothing_after_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, _) = PlanFile::open(dir.path()).expect("opens");
        let mut plan = NetPlan::default();
        file.replace(&plan).expect("writes");
        merge(&mut plan, &add(2, 1));
        file.append(&add(2, 1)).expect("appends");
        let mut journal = OpenOptions::new().append(true).open(file.journal_path()).expect("opens");
        journal.write_all(b"{\"endpoints\":[{\"cont").expect("writes");
        let (mut file, read) = PlanFile::open(dir.path()).expect("opens");
        assert_eq!(read.as_ref(), Some(&plan));
        merge(&mut plan, &add(3, 1));
        file.append(&add(3, 1)).expect("appends");
        assert_eq!(PlanFile::open(dir.path()).expect("opens").1, Some(plan));
    }

    #[test]
    fn a_network_goes_with_its_last_endpoint() {
        let mut plan = NetPlan::default();
        merge(&mut plan, &add(2, 1));
        merge(&mut plan, &add(3, 1));
        let gone = |n: u8| NetDelta { remove_endpoints: vec![ContainerId::from_bytes([n; 32])], ..Default::default() };
        merge(&mut plan, &gone(2));
        assert_eq!(plan.networks.len(), 1);
        merge(&mut plan, &gone(3));
        assert_eq!(plan, NetPlan::default());
    }

    #[test]
    fn an_endpoint_removed_and_named_in_one_delta_is_made_anew() {
        let mut plan = NetPlan::default();
        merge(&mut plan, &add(2, 1));
        let mut delta = add(2, 1);
        delta.remove_endpoints.push(ContainerId::from_bytes([2; 32]));
        merge(&mut plan, &delta);
        assert_eq!(plan.endpoints.len(), 1);
    }
}
