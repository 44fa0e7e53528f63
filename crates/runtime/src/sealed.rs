//! The shim's program as nobody can write to it: seen through a read-only mount that is in no mount
//! namespace. A process of a container's that gets hold of `/proc/<pid>/exe` of a process that was about
//! to become the container's (CVE-2019-5736) gets that view, and opening it for writing is EROFS. It
//! costs no memory: the pages are those of the file.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, statvfs};

/// A program to be executed through such a view.
#[derive(Debug)]
pub struct Sealed {
    view: OwnedFd,
}

impl Sealed {
    /// A view of `program`.
    ///
    /// # Errors
    /// No such file, or a kernel older than 5.12: then run it as it is, and [`is_sealed`] is false in it.
    pub fn of(program: &Path) -> io::Result<Self> {
        let file = File::open(program)?;
        let path = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        #[expect(unsafe_code, reason = "open_tree has no safe wrapper here")]
        // SAFETY: the path is a C string that outlives the call.
        let got = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        let fd = i32::try_from(got).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
        // SAFETY: the kernel has just made it for us.
        let view = unsafe { OwnedFd::from_raw_fd(fd) };
        let wanted = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        let attributes = libc::mount_attr { attr_set: wanted, attr_clr: 0, propagation: 0, userns_fd: 0 };
        #[expect(unsafe_code, reason = "mount_setattr has no safe wrapper here")]
        // SAFETY: an empty path with AT_EMPTY_PATH, and a structure of the size that is named.
        let got = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                view.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { view }) }
    }

    /// What a child of this process executes; good as long as this value is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.view.as_raw_fd()))
    }
}

/// Whether this process was executed through a read-only mount.
#[must_use]
pub fn is_sealed() -> bool {
    statvfs("/proc/self/exe").is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        os::unix::process::CommandExt as _,
        process::Command,
    };

    use super::*;

    /// Gets hold of the program of a process as an attacker would, and opens it for writing once it has
    /// ended: while it runs, the kernel keeps everybody's from being written to.
    fn written_to_after_its_end(program: &Path) -> io::Result<File> {
        let mut process = Command::new(program).arg0("sleep").arg("600").spawn().expect("runs");
        let exe = File::open(format!("/proc/{}/exe", process.id())).expect("is readable");
        process.kill().expect("is ours");
        process.wait().expect("ends");
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", exe.as_raw_fd()))
    }

    #[test]
    fn what_runs_through_a_view_cannot_be_written_to_through_its_exe() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let program = dir.path().join("program");
        fs::copy("/bin/busybox", &program).expect("busybox-static is installed");
        let sealed = Sealed::of(&program).expect("the kernel has open_tree");
        let refused = written_to_after_its_end(&sealed.path()).expect_err("opened for writing");
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        // The control: as it is, it can be.
        let _ = written_to_after_its_end(&program).expect("the same program, not sealed");
    }
}
