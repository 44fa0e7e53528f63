//! The OCI runtime behind a narrow trait, found by name. A runtime is a program: it is started with
//! an empty environment in `/`, so nothing of the host's or a tenant's environment reaches it.
//!
//! A command is only built here; the shim starts and reaps it in its own loop, because it must not
//! block on a runtime while a container's output waits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::cgroup;

/// How long the kernel may take to let go of a dead container's cgroup.
const FORGET_PATIENCE: Duration = Duration::from_secs(2);

/// The runtime refused to start a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// dockerd's words.
    pub message: String,
    /// 127 not found, 126 not executable, anything else 128 for a container and 126 for an exec.
    pub exit_code: i32,
}

/// Files of one runtime invocation, all inside the run directory.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Where the runtime logs its errors, as JSON lines.
    pub log: PathBuf,
    /// Where it writes the PID of the process it started.
    pub pid_file: PathBuf,
    /// Socket it sends the terminal's master to.
    pub console_socket: Option<PathBuf>,
}

/// How to drive a runtime. Standard streams of the commands are the caller's to set.
pub trait OciRuntime {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Creates and starts the container of `bundle`, and returns once PID 1 runs.
    fn run_detached(&self, id: &str, bundle: &Path, files: &Invocation) -> Command;
    /// Starts a further process, described by `process`, and returns once it runs.
    fn exec(&self, id: &str, process: &Path, files: &Invocation) -> Command;
    /// Signals PID 1.
    fn kill(&self, id: &str, signal: i32) -> Command;
    /// Removes what is left of a container, killing it first if need be.
    fn delete(&self, id: &str) -> Command;
    /// Removes what is left of a container that has ended: its cgroup and the runtime's own state.
    /// What `delete` does, without a process where the runtime's layout is known.
    ///
    /// # Errors
    /// Something cannot be removed; then `delete` is the way.
    fn forget(&self, id: &str, cgroup_path: &str) -> io::Result<()>;
    /// Changes the limits of a container that runs to those of an OCI resources document on standard
    /// input. Its log goes to standard error, for [`OciRuntime::update_failure`].
    fn update(&self, id: &str) -> Command;
    /// Why an update failed, from what the runtime logged.
    fn update_failure(&self, log: &str) -> String;
    /// Prints the OCI state document.
    fn state(&self, id: &str) -> Command;
    /// dockerd's words for a start that failed, from what the runtime logged.
    fn start_failure(&self, log: &str) -> StartFailure;
    /// dockerd's words for an exec that failed, from what the runtime logged.
    fn exec_failure(&self, log: &str) -> StartFailure;
}

/// The runtime called `name`, installed as `program`, with its state below `root`.
#[must_use]
pub fn by_name(name: &str, program: &Path, root: &Path) -> Option<Box<dyn OciRuntime>> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    Some(Box::new(Runc { name, program: program.into(), root: root.into() }))
}

/// Every runtime that can be named. All of them take runc's command line.
pub const NAMES: [&str; 4] = ["runc", "crun", "youki", "runsc"];

/// opencontainers/runc, 1.1 or later, or one with its command line.
struct Runc {
    name: &'static str,
    program: PathBuf,
    root: PathBuf,
}

impl Runc {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // runc needs no PATH: it finds itself by /proc/self/exe.
        command.env_clear().current_dir("/").arg("--root").arg(&self.root);
        command
    }

    fn start(&self, verb: &str, files: &Invocation) -> Command {
        let mut command = self.command();
        command.arg("--log").arg(&files.log).args(["--log-format", "json"]);
        command.args([verb, "--detach"]).arg("--pid-file").arg(&files.pid_file);
        if let Some(socket) = &files.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        command
    }
}

impl OciRuntime for Runc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run_detached(&self, id: &str, bundle: &Path, files: &Invocation) -> Command {
        let mut command = self.start("run", files);
        command.arg("--bundle").arg(bundle).arg(id);
        command
    }

    fn exec(&self, id: &str, process: &Path, files: &Invocation) -> Command {
        let mut command = self.start("exec", files);
        command.arg("--process").arg(process).arg(id);
        command
    }

    fn kill(&self, id: &str, signal: i32) -> Command {
        let mut command = self.command();
        command.args(["kill", id]).arg(signal.to_string());
        command
    }

    fn delete(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["delete", "--force", id]);
        command
    }

    fn forget(&self, id: &str, cgroup_path: &str) -> io::Result<()> {
        cgroup::remove(cgroup_path, FORGET_PATIENCE)?;
        match fs::remove_dir_all(self.root.join(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn update(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["--log-format", "json", "update", "--resources"]);
        // Only runc knows `-`.
        command.arg(if self.name == "runc" { "-" } else { "/dev/stdin" }).arg(id);
        command
    }

    fn update_failure(&self, log: &str) -> String {
        last_error(log)
    }

    fn state(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["state", id]);
        command
    }

    fn start_failure(&self, log: &str) -> StartFailure {
        let cause = last_error(log);
        not_created(cause.strip_prefix("runc run failed: ").unwrap_or(&cause))
    }

    fn exec_failure(&self, log: &str) -> StartFailure {
        let cause = last_error(log);
        failure(format!("OCI runtime exec failed: {cause}: unknown"), 126)
    }
}

/// The last error of runc's JSON log. Anything else in it (warnings) is not the cause.
fn last_error(log: &str) -> String {
    let message = |line: &str| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let level = entry.get("level")?.as_str()?;
        matches!(level, "error" | "fatal").then(|| entry.get("msg")?.as_str().map(str::to_owned))?
    };
    let found = log.lines().rev().find_map(message);
    found.unwrap_or_else(|| "the runtime failed without saying why".to_owned())
}

fn not_created(cause: &str) -> StartFailure {
    failure(
        format!(
            "failed to create task for container: failed to create shim task: \
             OCI runtime create failed: runc create failed: {cause}: unknown"
        ),
        128,
    )
}

/// dockerd's words for a start that was refused because of `cause`.
#[must_use]
pub fn start_refused(cause: &str) -> StartFailure {
    not_created(&format!("unable to start container process: {cause}"))
}

/// dockerd's words for an exec that was refused because of `cause`.
#[must_use]
pub fn exec_refused(cause: &str) -> StartFailure {
    failure(format!("OCI runtime exec failed: exec failed: unable to start container process: {cause}: unknown"), 126)
}

/// dockerd's rule: not found is 127, not allowed or not a program is 126, all else is `otherwise`.
fn failure(message: String, otherwise: i32) -> StartFailure {
    let has = |needles: &[&str]| needles.iter().any(|n| message.contains(n));
    let exit_code = if has(&["executable file not found", "no such file or directory", "system cannot find the file"]) {
        127
    } else if has(&["permission denied", "not a directory", "is a directory", "exec format error"]) {
        126
    } else {
        otherwise
    };
    StartFailure { message, exit_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runc() -> Box<dyn OciRuntime> {
        by_name("runc", Path::new("/usr/sbin/runc"), Path::new("/run/wharfage/runc")).expect("is known")
    }

    #[test]
    fn a_missing_program_is_told_in_dockerds_words() {
        let log = concat!(
            r#"{"level":"warning","msg":"signal: killed","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"runc run failed: unable to start container process: exec: \"nope\": executable file not found in $PATH","time":"t"}"#,
        );
        let told = runc().start_failure(log);
        assert_eq!(
            told.message,
            "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create \
             failed: unable to start container process: exec: \"nope\": executable file not found in $PATH: unknown"
        );
        assert_eq!(told.exit_code, 127);
    }

    #[test]
    fn an_exec_that_is_not_allowed_is_126() {
        let log = r#"{"level":"error","msg":"exec failed: unable to start container process: exec: \"/etc\": permission denied"}"#;
        let told = runc().exec_failure(log);
        assert_eq!(
            told.message,
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"/etc\": permission denied: unknown"
        );
        assert_eq!(told.exit_code, 126);
    }

    #[test]
    fn a_runtime_that_says_nothing_has_dockerds_code() {
        assert_eq!(runc().start_failure("").exit_code, 128);
        assert_eq!(runc().exec_failure("").exit_code, 126);
    }

    #[test]
    fn commands_carry_no_environment() {
        let command = runc().delete("abc");
        assert_eq!(command.get_envs().count(), 0);
        assert_eq!(command.get_current_dir(), Some(Path::new("/")));
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert_eq!(args, ["--root", "/run/wharfage/runc", "delete", "--force", "abc"]);
    }

    #[test]
    fn every_name_is_a_runtime_of_that_name() {
        for name in NAMES {
            let runtime = by_name(name, Path::new("/x"), Path::new("/y"));
            assert_eq!(runtime.expect(name).name(), name);
        }
    }

    #[test]
    fn an_unknown_runtime_is_none() {
        assert!(by_name("runc-privileged", Path::new("/"), Path::new("/")).is_none());
    }
}
