//! What a volume is made of: a directory, a file system of a fixed size in a file, or memory. Making
//! it is safe twice and at any interruption: what is half made has another name.
//!
//! ```text
//! <id>/_data           Directory
//! <id>/image           Sized: ext4, mounted at <id>/fs, its data in <id>/fs/_data
//! <id>/fs              Tmpfs
//! <id>/filling         which container's first content is being copied in
//! ```

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use model::{ContainerId, TmpfsOptions, VolumeBacking, VolumeMount};
use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags};

use super::{copy_up, stage, usage};
use crate::rootfs;

/// The directory of one volume.
#[derive(Clone, Debug)]
pub(super) struct Home {
    dir: PathBuf,
}

impl Home {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where something is mounted, if its kind needs a mount.
    pub(super) fn mounted(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// The root of its content.
    pub(super) fn data(&self, backing: &VolumeBacking) -> PathBuf {
        match backing {
            VolumeBacking::Directory => self.dir.join("_data"),
            VolumeBacking::Sized { .. } => self.mounted().join("_data"),
            VolumeBacking::Tmpfs(_) => self.mounted(),
        }
    }

    /// Makes it and mounts it, as far as that has not been done.
    pub(super) fn make(&self, backing: &VolumeBacking) -> io::Result<()> {
        private(&self.dir)?;
        match backing {
            VolumeBacking::Directory => {}
            VolumeBacking::Sized { size_bytes } => self.mount_image(*size_bytes)?,
            VolumeBacking::Tmpfs(options) => return self.mount_tmpfs(options),
        }
        let data = self.data(backing);
        match fs::DirBuilder::new().mode(0o755).create(&data) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        let places = [self.mounted().join("_data"), self.dir.join("_data")];
        if let Some(data) = places.iter().find(|data| data.exists()) {
            return usage::of_tree(data);
        }
        let image = self.dir.join("image");
        if image.exists() { usage::of_image(&image) } else { usage::of_tree(&self.mounted()) }
    }

    fn mount_image(&self, size_bytes: u64) -> io::Result<()> {
        let (image, at) = (self.dir.join("image"), self.mounted());
        private(&at)?;
        if rootfs::is_mounted(&at)? {
            return Ok(());
        }
        if !image.exists() {
            make_image(&image, size_bytes)?;
        }
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop,nosuid,nodev"]).arg(&image).arg(&at))
    }

    fn mount_tmpfs(&self, options: &TmpfsOptions) -> io::Result<()> {
        let at = self.mounted();
        private(&at)?;
        if rootfs::is_mounted(&at)? {
            return Ok(());
        }
        let mut data = format!("uid={},gid={},mode={:o}", options.uid, options.gid, options.mode.unwrap_or(0o1777));
        for (name, value) in [("size", options.size_bytes), ("nr_inodes", options.inodes)] {
            if let Some(value) = value {
                data.push_str(&format!(",{name}={value}"));
            }
        }
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        flags.set(MsFlags::MS_NOEXEC, options.noexec);
        Ok(mount(Some("tmpfs"), &at, Some("tmpfs"), flags, Some(data.as_str()))?)
    }

    /// Copies what the image has at the mount's path into the volume, if that is empty, or if an
    /// earlier attempt for the same container did not come to its end.
    /// `root_id` is what root of the container is in `rootfs`.
    pub(super) fn fill(
        &self,
        container: &ContainerId,
        mount: &VolumeMount,
        rootfs: &Path,
        root_id: u32,
    ) -> io::Result<()> {
        let marker = self.dir.join("filling");
        let claim = format!("{container} {}", mount.path);
        let again = fs::read_to_string(&marker).is_ok_and(|found| found == claim);
        let volume = match stage::inside(&self.data(&mount.backing), &mount.subpath) {
            Ok(volume) => volume,
            // The start says so.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let Some(volume) = directory(&volume)? else { return Ok(()) };
        if !again && !copy_up::is_empty(volume.as_fd())? {
            return Ok(());
        }
        let Some(source) = copy_up::source(rootfs, &mount.path)? else { return Ok(()) };
        fs::write(&marker, claim)?;
        copy_up::copy(source, volume, root_id, again)?;
        fs::remove_file(&marker)
    }
}

/// Opens it for reading, if it is a directory.
fn directory(path: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(path, ".", flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// A sparse file with an empty ext4 in it. It takes no room before it is used.
pub(crate) fn make_image(image: &Path, size_bytes: u64) -> io::Result<()> {
    let draft = image.with_extension("new");
    fs::File::create(&draft)?.set_len(size_bytes)?;
    let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", options]).arg(&draft))?;
    fs::File::open(&draft)?.sync_all()?;
    rustix::fs::renameat(CWD, &draft, CWD, image)?;
    Ok(())
}

/// Runs a program of the host's with paths of the host's. Its own words go to the log: they name paths.
fn run(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    tracing::error!(program, told, "a sized file system cannot be made");
    Err(io::Error::other(format!("this host cannot make a file system of a fixed size ({program} failed)")))
}

fn private(dir: &Path) -> io::Result<()> {
    crate::host::make_private(dir)
}
