//! The stand-in of a start: still the host's, it makes the container's cgroup and takes on its limits, takes
//! along what only the host's side can open, then enters the project's user namespace, makes the others
//! inside it, and leaves a child there that is their first process.

use std::{
    convert::Infallible,
    ffi::c_int,
    fs::{self, File},
    io,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, umask},
    unistd::sethostname,
};
use runtime::{cgroup, words};

use super::{
    Program,
    configuration::Sandbox,
    enter,
    furnish::{Brought, Furnished, furnish},
    join::{check, clone_beside, hide, take_limits},
    report,
};

/// Returns in the stand-in, once its child is told of.
pub(super) fn found(program: &Program, sandbox: &Sandbox, socket: &OwnedFd) -> Result<(), String> {
    umask(Mode::from_bits_truncate(0o022));
    let doors = cgroup::create(&sandbox.cgroup_path, &sandbox.limits)
        .map_err(|e| format!("unable to apply cgroup configuration: {e}"))?;
    for door in doors {
        fs::write(&door, "0").map_err(|e| failed("unable to apply cgroup configuration: join", &e))?;
    }
    take_limits(&program.process)?;
    let open =
        |path: &Path| File::open(path).map_err(|e| failed(&format!("failed to open namespace {}", path.display()), &e));
    let users = open(&sandbox.users)?;
    let network = sandbox.network.as_deref().map(open).transpose()?;
    let names = sandbox.names.as_deref().map(open).transpose()?;
    let brought = Brought::of(sandbox).map_err(during_init)?;
    enter_or_make(&users, network.as_ref(), names.as_ref())?;
    match clone_beside(libc::CLONE_NEWPID).map_err(|e| failed("make a process in the container", &e))? {
        0 => {
            let why = match first(program, sandbox, brought, socket) {
                Ok(never) => match never {},
                Err(why) => why,
            };
            report::failed(socket, &why);
        }
        pid => report::pid(socket, pid),
    }
    Ok(())
}

fn failed(what: &str, e: &io::Error) -> String {
    format!("{what}: {}", words(e))
}

fn during_init(why: String) -> String {
    format!("error during container init: {why}")
}

/// The user namespace first: whatever is made then belongs to it, and is charged to its root.
fn enter_or_make(users: &File, network: Option<&File>, names: Option<&File>) -> Result<(), String> {
    let joined = |what: &str, e: nix::Error| failed(&format!("join the {what} namespace"), &e.into());
    setns(users, CloneFlags::CLONE_NEWUSER).map_err(|e| joined("user", e))?;
    enter::be(0, 0, &[])?;
    let mut new = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP;
    match network {
        Some(network) => setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| joined("network", e))?,
        None => new |= CloneFlags::CLONE_NEWNET,
    }
    match names {
        Some(names) => setns(names, CloneFlags::CLONE_NEWUTS).map_err(|e| joined("uts", e))?,
        None => new |= CloneFlags::CLONE_NEWUTS,
    }
    unshare(new).map_err(|e| failed("make the container's namespaces", &e.into()))?;
    hide();
    Ok(())
}

/// The first process, on its way to be the container's.
fn first(program: &Program, sandbox: &Sandbox, brought: Brought, socket: &OwnedFd) -> Result<Infallible, String> {
    hide();
    enter::begin_session()?;
    enter::own_keyring(&program.container)?;
    if sandbox.network.is_none() {
        raise_loopback().map_err(|e| failed("bring up the loopback device", &e))?;
    }
    let furnished: Furnished = furnish(sandbox, brought, &program.process).map_err(during_init)?;
    if !sandbox.hostname.is_empty() {
        sethostname(&sandbox.hostname).map_err(|e| failed("sethostname", &e.into()))?;
    }
    enter::become_the_programs(program, socket, |terminal| {
        match terminal {
            Some(terminal) => furnished.console(&terminal),
            None => furnished.own_null_device(),
        }
        .map_err(during_init)?;
        // Nothing of the host's is open any more when the image's directories are entered.
        drop(furnished);
        close_all_but_streams_and_socket();
        if report::is_noted(socket) { Ok(()) } else { Err("the shim has gone".to_owned()) }
    })
}

/// As the runtime does in a network namespace that nobody else has furnished.
fn raise_loopback() -> io::Result<()> {
    let got = check(|| {
        #[expect(unsafe_code, reason = "a socket to ask the kernel by")]
        // SAFETY: numbers only.
        unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
        }
    })?;
    #[expect(unsafe_code, reason = "a new descriptor arrives as a number")]
    // SAFETY: socket has just made it.
    let socket = unsafe { OwnedFd::from_raw_fd(got) };
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    check(|| {
        #[expect(unsafe_code, reason = "ioctl")]
        // SAFETY: the descriptor is open, and the structure is what SIOCSIFFLAGS reads.
        unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw const request)
        }
    })?;
    Ok(())
}

fn close_all_but_streams_and_socket() {
    const FIRST_OTHER: c_int = 4;
    #[expect(unsafe_code, reason = "close_range has no safe wrapper")]
    // SAFETY: this process goes on with the streams and the socket alone; the owners of the others are never
    // dropped, because it ends by execve or `_exit`.
    unsafe {
        libc::close_range(FIRST_OTHER.unsigned_abs(), libc::c_uint::MAX, 0);
    }
}
