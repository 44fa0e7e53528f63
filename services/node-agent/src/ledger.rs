//! What the agent must know again when it is started without a control plane: the plan of each
//! container, how far it got, the networks, the generation reached. One small file each, written
//! beside and renamed.
//!
//! Durable means two things here. Against the agent's own death, a rename is enough: the page cache
//! survives it. Against power loss, all but one fact may be lost, because the plan comes again from
//! the scheduler and no process survives. The one fact is that a run was begun: without it a reboot
//! would run a job twice. So only [`Ledger::sync_state`], on the way to a start, waits for the disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use contract::host::{PlannedContainer, PlannedNetwork};
use model::ContainerId;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    host::{Places, make_private},
    keeper::machine::State,
};

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    places: Places,
}

/// A container found on disk.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: ContainerId,
    pub(crate) plan: Option<PlannedContainer>,
    pub(crate) state: State,
}

const PLAN: &str = "plan.json";
const STATE: &str = "state.json";

impl Ledger {
    pub(crate) fn new(places: Places) -> Self {
        Self { places }
    }

    /// Everything on disk. A file that cannot be read is treated as absent and said so.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn containers(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for found in fs::read_dir(self.places.containers())? {
            let name = found?.file_name();
            let Ok(id) = name.to_string_lossy().parse::<ContainerId>() else { continue };
            let dir = self.places.container(&id);
            let plan = read(&dir.join(PLAN));
            let state = read(&dir.join(STATE)).unwrap_or_else(|| self.reconstructed(&id));
            entries.push(Entry { id, plan, state });
        }
        Ok(entries)
    }

    /// The state of a container whose own file is damaged or gone: of the run its shim was told of, if there
    /// was one, which is then adopted as any other; otherwise the agent died before it did anything but make
    /// the directory.
    fn reconstructed(&self, id: &ContainerId) -> State {
        let fresh = State { held: true, ..State::new() };
        let told = self.places.run_dir(id).read_config().unwrap_or_else(|error| {
            tracing::error!(container = %id, %error, "what its shim was told cannot be read");
            None
        });
        let Some(config) = told else { return fresh };
        tracing::warn!(container = %id, run = config.run, "its state was lost and is taken from its shim");
        State { unseen: true, ..State::begun(config.run, config.restart) }
    }

    pub(crate) fn save_plan(&self, plan: &PlannedContainer) -> io::Result<()> {
        let dir = self.places.container(&plan.id);
        make_private(&dir)?;
        write(&dir.join(PLAN), plan)
    }

    pub(crate) fn save_state(&self, id: &ContainerId, state: &State) -> io::Result<()> {
        let dir = self.places.container(id);
        make_private(&dir)?;
        write(&dir.join(STATE), state)
    }

    /// Waits until the state saved last will be found after a power loss.
    pub(crate) fn sync_state(&self, id: &ContainerId) -> io::Result<()> {
        let dir = self.places.container(id);
        fs::File::open(dir.join(STATE))?.sync_data()?;
        fs::File::open(dir)?.sync_all()
    }

    pub(crate) fn save_networks(&self, networks: &BTreeMap<String, PlannedNetwork>) -> io::Result<()> {
        write(&self.networks_file(), networks)
    }

    pub(crate) fn networks(&self) -> BTreeMap<String, PlannedNetwork> {
        read(&self.networks_file()).unwrap_or_default()
    }

    pub(crate) fn save_generation(&self, generation: i64) -> io::Result<()> {
        write(&self.generation_file(), &generation)
    }

    /// The generation reached; below all others if none was.
    pub(crate) fn generation(&self) -> i64 {
        read(&self.generation_file()).unwrap_or(i64::MIN)
    }

    fn networks_file(&self) -> PathBuf {
        self.places.data_dir().join("networks.json")
    }

    fn generation_file(&self) -> PathBuf {
        self.places.data_dir().join("generation.json")
    }
}

fn write<T: Serialize>(path: &Path, document: &T) -> io::Result<()> {
    let draft = path.with_extension("new");
    let outcome = fs::write(&draft, serde_json::to_vec(document)?).and_then(|()| fs::rename(&draft, path));
    if outcome.is_err() {
        // A full disk: the old document stays, nothing half-made does.
        let _ = fs::remove_file(&draft);
    }
    outcome
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot be read");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::error!(path = %path.display(), %error, "is no document of ours"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_found_and_rubbish_is_absent() {
        let root = tempfile::tempdir().expect("temporary directory");
        let places = Places::new(root.path(), root.path());
        let ledger = Ledger::new(places.clone());
        let id = ContainerId::from_bytes([1; 32]);
        assert_eq!(ledger.generation(), i64::MIN);
        ledger.save_generation(7).expect("saves");
        assert_eq!(ledger.generation(), 7);
        let mut state = State::new();
        state.observed.progress.run = 3;
        ledger.save_state(&id, &state).expect("saves");
        ledger.sync_state(&id).expect("syncs");
        fs::write(places.container(&id).join(PLAN), "{").expect("writes");
        fs::create_dir(places.containers().join("not-an-id")).expect("creates");
        let found = ledger.containers().expect("reads");
        assert_eq!(found.len(), 1);
        assert!(found[0].plan.is_none());
        assert_eq!(found[0].state.observed.progress.run, 3);
        assert!(found[0].state.unseen && found[0].state.held);
    }

    #[test]
    fn f50_a_state_that_is_damaged_is_the_run_the_shim_was_told_of() {
        let root = tempfile::tempdir().expect("temporary directory");
        let places = Places::new(root.path(), root.path());
        let (ledger, id) = (Ledger::new(places.clone()), ContainerId::from_bytes([2; 32]));
        ledger.save_state(&id, &State::new()).expect("saves");
        fs::write(places.container(&id).join(STATE), "").expect("damages");
        let only = || ledger.containers().expect("reads").remove(0).state;
        assert!(!only().is_alive(), "no shim was told of anything");
        fs::create_dir_all(places.run_dir(&id).path()).expect("creates");
        let config = serde_json::json!({
            "id": id.to_string(), "run": 4, "restart": 2, "bundle": "/b", "cgroup_path": "/c",
            "runtime": {"name": "runc", "path": "/usr/sbin/runc", "root": "/r"}, "log": null,
            "tty": false, "open_stdin": false, "stdin_once": false
        });
        fs::write(places.run_dir(&id).config(), config.to_string()).expect("writes");
        let state = only();
        assert!(state.is_alive() && state.unseen && state.held);
        assert_eq!((state.observed.progress.run, state.observed.progress.restart), (4, 2));
    }
}
