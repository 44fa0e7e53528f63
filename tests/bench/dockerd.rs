//! The peer: Debian's dockerd on a data root, socket and bridge of its own, for the length of the run.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::peer::Peer;

const PORT: u16 = 7399;

/// A running dockerd.
pub(crate) struct Dockerd {
    process: Child,
    dir: PathBuf,
}

impl Dockerd {
    /// Starts it and loads busybox; `None`, with the reason on stderr, where it cannot run.
    pub(crate) fn start() -> Option<Self> {
        if !std::path::Path::new("/usr/sbin/dockerd").exists() {
            eprintln!("no /usr/sbin/dockerd: Wharfage is measured alone");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("wharfage-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        let log = File::create(dir.join("dockerd.log")).expect("a temporary file");
        let process = Command::new("/usr/sbin/dockerd")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--host")
            .arg(format!("tcp://127.0.0.1:{PORT}"))
            .args([
                "--storage-driver",
                "overlay2",
                "--bip",
                "172.31.250.1/24",
                "--userland-proxy=false",
                "--iptables=true",
            ])
            .stdout(log.try_clone().expect("a file descriptor"))
            .stderr(Stdio::from(log))
            .spawn()
            .expect("dockerd starts");
        let daemon = Self { process, dir };
        let deadline = Instant::now() + Duration::from_secs(40);
        while !daemon.docker(&["version"]) {
            if Instant::now() > deadline {
                eprintln!("dockerd does not answer: see {}", daemon.dir.join("dockerd.log").display());
                return None;
            }
            thread::sleep(Duration::from_millis(200));
        }
        daemon.import_busybox();
        Some(daemon)
    }

    fn docker(&self, args: &[&str]) -> bool {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", format!("tcp://127.0.0.1:{PORT}"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn import_busybox(&self) {
        let root = self.dir.join("rootfs");
        fs::create_dir_all(root.join("bin")).expect("a temporary directory");
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        let install = format!(
            "for a in $(/bin/busybox --list | grep -vx busybox); do ln -sf busybox {}/bin/$a; done",
            root.display()
        );
        assert!(Command::new("sh").args(["-c", &install]).status().is_ok_and(|s| s.success()));
        let tar = self.dir.join("rootfs.tar");
        assert!(
            Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status().is_ok_and(|s| s.success())
        );
        let tar = tar.display().to_string();
        assert!(self.docker(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", &tar, "busybox:latest"]));
    }

    /// As something to measure.
    pub(crate) fn peer(&self) -> Peer {
        Peer::plain("dockerd", PORT)
    }
}

impl Drop for Dockerd {
    /// Stops it and removes all it had, also when a measurement panics.
    fn drop(&mut self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM).ok();
        self.process.wait().ok();
        Command::new("ip").args(["link", "del", "docker0"]).stderr(Stdio::null()).status().ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}
