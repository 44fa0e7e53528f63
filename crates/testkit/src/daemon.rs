//! A daemon that lives as long as the test process. A shell starts it and waits for its own standard
//! input to end; the other end of that pipe is ours, so that the kernel closes it even after SIGKILL.

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

const START_WITHIN: Duration = Duration::from_secs(30);

/// Ends the daemon and its directory when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    keeper: Child,
}

/// `$1` is the directory, `$2` the signal that ends the daemon; the rest is its command.
const KEEPER: &str = r#"
dir=$1 signal=$2; shift 2
"$@" </dev/null >"$dir/log" 2>&1 & pid=$!
read -r _
kill -"$signal" "$pid" 2>/dev/null
wait "$pid"
rm -rf "$dir"
"#;

impl Daemon {
    /// Starts it and waits until its log says `ready`.
    pub(crate) fn start(directory: &Path, stop_signal: &str, command: &[String], ready: &str) -> Result<Self> {
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(directory)
            .arg(stop_signal)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: the interrupt at a terminal reaches the tests, and they end it.
            .process_group(0)
            .spawn()
            .context("sh")?;
        let mut daemon = Self { keeper };
        let log = directory.join("log");
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let mut text = String::new();
            if let Ok(mut file) = File::open(&log) {
                file.read_to_string(&mut text)?;
            }
            if text.contains(ready) {
                return Ok(daemon);
            }
            if Instant::now() > deadline || daemon.keeper.try_wait()?.is_some() {
                bail!("{command:?} did not start:\n{text}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It has been told; whether it obeyed does not change what a test found out.
        let _ = self.keeper.wait();
    }
}

/// A port nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
