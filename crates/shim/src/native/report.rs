//! What the stand-in and the new process tell the shim, over a socket that closes itself when the
//! program is executed: a PID, a terminal, or why there is no process. Its end is the outcome.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recv, recvmsg, sendmsg};

use super::Outcome;

const PID: u8 = b'P';
const TERMINAL: u8 = b'T';
const FAILED: u8 = b'E';
const NOTED: u8 = b'N';
/// Longest reason that is told.
const MAX_BYTES: usize = 4096;

/// What has been told so far.
#[derive(Default)]
pub(super) struct Told {
    pub(super) pid: Option<u32>,
    terminal: Option<OwnedFd>,
    failure: Option<String>,
}

impl Told {
    pub(super) fn outcome(self) -> Outcome {
        match (self.failure, self.pid) {
            (Some(why), _) => Outcome::Refused(why),
            (None, Some(pid)) => Outcome::Started(pid, self.terminal),
            (None, None) => Outcome::Refused("its process ended before it was the container's".to_owned()),
        }
    }
}

/// The process's PID on the host.
pub(super) fn pid(socket: &OwnedFd, pid: i32) {
    let [a, b, c, d] = pid.to_ne_bytes();
    send(socket, &[PID, a, b, c, d], None);
}

/// The master of its terminal.
pub(super) fn terminal(socket: &OwnedFd, master: &OwnedFd) {
    send(socket, &[TERMINAL], Some(master));
}

/// Why there is no process.
pub(super) fn failed(socket: &OwnedFd, why: &str) {
    let mut message = vec![FAILED];
    message.extend(why.bytes().take(MAX_BYTES - 1));
    send(socket, &message, None);
}

/// To the first process: its PID is written down, so that it will be found whatever becomes of the shim.
pub(super) fn go(socket: &OwnedFd) {
    send(socket, &[NOTED], None);
}

/// Waits for [`go`]. `false`: the shim has gone, and nobody would know of the process.
pub(super) fn is_noted(socket: &OwnedFd) -> bool {
    let mut byte = [0u8; 1];
    loop {
        match recv(socket.as_raw_fd(), &mut byte, MsgFlags::empty()) {
            Err(nix::Error::EINTR) => {}
            got => return got == Ok(1) && byte == [NOTED],
        }
    }
}

fn send(socket: &OwnedFd, message: &[u8], descriptor: Option<&OwnedFd>) {
    let descriptors: Vec<RawFd> = descriptor.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    // A shim that has gone has nobody to tell.
    let _ = sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None);
}

/// Takes one message. `false`: there will be no more.
pub(super) fn receive(socket: &OwnedFd, told: &mut Told) -> io::Result<bool> {
    let mut bytes = [0u8; MAX_BYTES];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            for fd in descriptors {
                #[expect(unsafe_code, reason = "descriptors arrive as numbers")]
                // SAFETY: the kernel has just installed it for us, and nobody else knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                told.terminal.get_or_insert(fd);
            }
        }
    }
    match bytes[..length] {
        [] => return Ok(false),
        [PID, a, b, c, d] => told.pid = u32::try_from(i32::from_ne_bytes([a, b, c, d])).ok(),
        [FAILED, ref why @ ..] => told.failure = Some(String::from_utf8_lossy(why).into_owned()),
        _ => {}
    }
    Ok(true)
}
