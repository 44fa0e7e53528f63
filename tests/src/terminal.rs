//! A real terminal around a command, for `docker run -it`.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{OpenptyResult, Winsize, openpty};

/// A process on the other end of a pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts the command with this terminal as its stdin, stdout, stderr and controlling terminal.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    #[expect(unsafe_code, reason = "the child makes the terminal its own between fork and exec")]
    pub fn open(mut command: Command, rows: u16, columns: u16) -> Self {
        use std::os::unix::process::CommandExt;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a pseudo terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a file descriptor"));
        command.stdin(end(&slave)).stdout(end(&slave)).stderr(end(&slave)).env("TERM", "xterm");
        // SAFETY: setsid and ioctl are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("the command is installed");
        drop(slave);
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("a file descriptor");
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes input");
    }

    /// Waits until the screen has shown this since the last call; returns what was shown.
    ///
    /// # Panics
    /// When it does not within ten seconds.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("the terminal never showed {text:?}; it shows {:?}", self.seen),
            }
        }
    }

    /// Changes the size of the window; the process gets SIGWINCH.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
    pub fn resize(&self, rows: u16, columns: u16) {
        use std::os::fd::AsRawFd;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open and the structure is the one TIOCSWINSZ takes.
        let outcome = unsafe { nix::libc::ioctl(self.keyboard.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(outcome, 0, "TIOCSWINSZ");
    }

    /// Waits for its end; returns the exit code.
    ///
    /// # Panics
    /// When it does not end within ten seconds.
    pub fn exit_code(&mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "it does not end; the terminal shows {:?}", self.seen);
            thread::sleep(Duration::from_millis(10));
        }
    }
}
