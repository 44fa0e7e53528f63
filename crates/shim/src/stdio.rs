//! A process's standard streams: pipes, or a terminal whose master the runtime sends over a socket.
//! Our ends never block; the process's ends do, as programs expect.

use std::{
    fs::File,
    io::{self, ErrorKind, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg},
    unistd::{Gid, Uid, fchown, pipe2, write},
};

/// What a process may be ahead of us, so that a moment in which we are not scheduled does not stop it.
const OUTPUT_BYTES: i32 = 512 * 1024;

/// Which streams a process gets; what it does not get is `/dev/null`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// A pipe is one inode: whoever owns one end owns both, and may open it again by `/dev/stdout`.
fn pipe(owner: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(id) = owner {
        fchown(&read, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    }
    Ok((read, write))
}

/// Our ends.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<Stdin>,
    /// stdout (or the terminal's master) and stderr.
    pub(crate) outputs: [Option<OwnedFd>; 2],
}

/// Gives `command` its streams, which belong to `owner`, and returns our ends.
pub(crate) fn pipes(command: &mut Command, wanted: Wanted, owner: Option<u32>) -> io::Result<Ends> {
    let (ends, [stdin, stdout, stderr]) = streams(wanted, owner)?;
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    Ok(ends)
}

/// Our ends of a process's streams, which belong to `owner`, and the process's. What is not wanted is
/// the null device.
pub(crate) fn streams(wanted: Wanted, owner: Option<u32>) -> io::Result<(Ends, [OwnedFd; 3])> {
    let mut ends = Ends::default();
    let mut stdin = File::open("/dev/null")?.into();
    if wanted.stdin {
        let (read, write) = pipe(owner)?;
        set_nonblocking(&write)?;
        stdin = read;
        ends.stdin = Some(Stdin::new(write));
    }
    let mut output = |wanted: bool, at: usize| -> io::Result<OwnedFd> {
        if !wanted {
            return Ok(File::options().write(true).open("/dev/null")?.into());
        }
        let (read, write) = pipe(owner)?;
        set_nonblocking(&read)?;
        // A host that is short of it gives the usual size.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(OUTPUT_BYTES));
        ends.outputs[at] = Some(read);
        Ok(write)
    };
    let (stdout, stderr) = (output(wanted.stdout, 0)?, output(wanted.stderr, 1)?);
    Ok((ends, [stdin, stdout, stderr]))
}
pub(crate) fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The way into a process, with what it has not taken yet.
pub(crate) struct Stdin {
    fd: OwnedFd,
    pending: Vec<u8>,
    close_when_empty: bool,
}

impl Stdin {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, pending: Vec::new(), close_when_empty: false }
    }

    /// The process does not keep up: nobody's input is read until it does.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// End of file once everything before it is through.
    pub(crate) fn close_when_empty(&mut self) {
        self.close_when_empty = true;
    }

    /// It can be dropped, which is the process's end of file.
    pub(crate) fn is_finished(&self) -> bool {
        self.close_when_empty && self.pending.is_empty()
    }

    /// Hands over `bytes`; what does not fit is kept. An error means that nobody reads any more.
    pub(crate) fn offer(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes what is kept, as far as it goes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match write(&self.fd, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.pending = Vec::new();
        Ok(())
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The socket a runtime sends a terminal's master to.
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
    /// The path as the runtime gets it: short enough for a socket address, through our descriptor.
    short_path: PathBuf,
}

impl Console {
    /// Binds `name` in the run directory.
    pub(crate) fn bind(dir: &std::path::Path, dir_fd: &OwnedFd, name: &str) -> io::Result<Self> {
        let short_path = PathBuf::from(format!("/proc/{}/fd/{}/{name}", std::process::id(), dir_fd.as_raw_fd()));
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&short_path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path, short_path })
    }

    pub(crate) fn short_path(&self) -> PathBuf {
        self.short_path.clone()
    }

    /// The master, if the runtime has sent it.
    pub(crate) fn receive(&self) -> io::Result<Option<OwnedFd>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        // The runtime connects and sends in one go; a runtime that does not send is killed in time.
        let mut text = [0u8; 4096];
        let mut parts = [IoSliceMut::new(&mut text)];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let mut received = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
                    // SAFETY: the kernel has just installed it for us, and nobody else knows it.
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    received.get_or_insert(fd);
                }
            }
        }
        let master = received.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no terminal was sent"))?;
        set_nonblocking(&master)?;
        Ok(Some(master))
    }
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Sets a terminal's size: (rows, columns).
pub(crate) fn set_size(master: &impl AsFd, (rows, columns): (u16, u16)) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "ioctl")]
    // SAFETY: the descriptor is open and `size` is what TIOCSWINSZ reads.
    let got = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A second descriptor of the same file.
pub(crate) fn duplicate(fd: &OwnedFd) -> io::Result<OwnedFd> {
    fd.try_clone()
}

/// A file's text, or nothing.
pub(crate) fn read_text(path: &std::path::Path) -> String {
    let read = || -> io::Result<String> { io::read_to_string(io::Read::take(File::open(path)?, 64 * 1024)) };
    read().unwrap_or_default()
}
