//! The program that tries a container's walls (`probe/attempt.rs`): in a container, and on the host as
//! the control that it can do what it is stopped from doing.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use crate::{Docker, Outcome, unique};

const SOURCE: &str = include_str!("probe/attempt.rs");

/// The program, compiled once, static.
///
/// # Panics
/// When there is no compiler.
pub fn program() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compiled("attempt", SOURCE))
}

/// A program of the standard library alone, compiled static.
///
/// # Panics
/// When it does not compile.
#[must_use]
pub fn compiled(name: &str, source: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(unique("wharfage-probe"));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    let (text, program) = (dir.join(format!("{name}.rs")), dir.join(name));
    std::fs::write(&text, source).expect("a temporary file");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"]);
    assert!(rustc.arg(&program).arg(&text).status().is_ok_and(|s| s.success()), "{name} compiles");
    program
}

/// What an attempt says on the host, as root, in a mount namespace of its own.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn on_host(args: &[&str]) -> String {
    let mut command = Command::new("unshare");
    let output = command.arg("--mount").arg(program()).args(args).output().expect("util-linux is installed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A container that sleeps, with a program in it. Dropping it removes it.
#[derive(Debug)]
pub struct Cell {
    /// Its name.
    pub name: String,
    docker: Docker,
}

impl Cell {
    /// A container of busybox with the attempts in it.
    #[must_use]
    pub fn start(docker: &Docker, options: &[&str]) -> Self {
        Self::start_with(docker, options, "busybox", program())
    }

    /// A container of `image` with a program at `/attempt`.
    ///
    /// # Panics
    /// When it cannot be created or started.
    #[must_use]
    pub fn start_with(docker: &Docker, options: &[&str], image: &str, program: &std::path::Path) -> Self {
        let cell = Self { name: unique("cell"), docker: docker.clone() };
        let create = ["create", "--name", &cell.name];
        let _ = docker.ok(&[&create[..], options, &[image, "sleep", "3600"]].concat());
        let _ = docker.ok(&["cp", &program.display().to_string(), &format!("{}:/attempt", cell.name)]);
        let _ = docker.ok(&["start", &cell.name]);
        cell
    }

    /// Makes an attempt in it.
    #[must_use]
    pub fn attempt(&self, args: &[&str]) -> Outcome {
        self.docker.run(&[&["exec", &self.name, "/attempt"], args].concat())
    }

    /// What an attempt in it says.
    #[must_use]
    pub fn told(&self, args: &[&str]) -> String {
        self.attempt(args).stdout.trim().to_owned()
    }

    /// Runs a shell script in it; what it prints, both streams.
    #[must_use]
    pub fn sh(&self, script: &str) -> String {
        self.sh_as("0", script)
    }

    /// The same, as a user.
    #[must_use]
    pub fn sh_as(&self, user: &str, script: &str) -> String {
        let outcome = self.docker.run(&["exec", "-u", user, &self.name, "sh", "-c", script]);
        (outcome.stdout + &outcome.stderr).trim().to_owned()
    }

    /// The process that sleeps, as the host counts.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.docker.ok(&["inspect", "-f", "{{.State.Pid}}", &self.name]).parse().expect("a pid")
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.docker.remove(&[&self.name]);
    }
}
