//! User namespaces, as a project has one.

use std::{fs, process::Command};

use runtime::UserNamespace;

use crate::harness::{Recipe, until};

/// A user namespace that lives as long as this does.
pub(crate) struct Users {
    keeper: std::process::Child,
}

pub(crate) const FIRST_ID: u32 = 700_000;
const IDS: u32 = 65_536;

impl Users {
    pub(crate) fn new() -> Self {
        let keeper = Command::new("unshare").args(["--user", "sleep", "120"]).spawn().expect("util-linux is installed");
        let proc = format!("/proc/{}", keeper.id());
        let own = fs::read_link("/proc/self/ns/user").expect("readable");
        until(|| (fs::read_link(format!("{proc}/ns/user")).ok()? != own).then_some(()));
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("{proc}/{map}"), format!("0 {FIRST_ID} {IDS}")).expect("root may map");
        }
        Self { keeper }
    }

    /// The container is in it, and its files are its root's.
    pub(crate) fn own(&self, recipe: &mut Recipe) {
        let status =
            Command::new("chown").arg("-hR").arg(format!("{FIRST_ID}:{FIRST_ID}")).arg(&recipe.rootfs).status();
        assert!(status.is_ok_and(|s| s.success()));
        let path = format!("/proc/{}/ns/user", self.keeper.id()).into();
        recipe.sandbox.userns = Some(UserNamespace { path, first_id: FIRST_ID, ids: IDS });
        recipe.config.root_id = Some(FIRST_ID);
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
