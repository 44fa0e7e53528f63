//! The unmodified docker CLI.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{Suite, eventually, unique};

/// A docker CLI that talks to one project.
#[derive(Clone, Debug)]
pub struct Docker {
    host: String,
    config: PathBuf,
    /// Directory with the authority to trust; plain TCP without.
    certificates: Option<PathBuf>,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; 128 + signal if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Docker {
    pub(crate) fn with_config(suite: &Suite, config: &str) -> Self {
        Self { host: suite.var("DOCKER_HOST").to_owned(), config: config.into(), certificates: None }
    }

    pub(crate) fn with_token(suite: &Suite, token: &str) -> Self {
        let config = std::env::temp_dir().join(unique("wharfage-docker"));
        std::fs::create_dir_all(&config).expect("a temporary directory");
        let text = serde_json::json!({ "HttpHeaders": { "Authorization": format!("Bearer {token}") } });
        std::fs::write(config.join("config.json"), text.to_string()).expect("a temporary file");
        Self { host: suite.var("DOCKER_HOST").to_owned(), config, certificates: None }
    }

    /// The same project, over TLS.
    #[must_use]
    pub fn over_tls(self, suite: &Suite) -> Self {
        let dir = std::env::temp_dir().join(unique("wharfage-certificates"));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        std::fs::copy(suite.root.join(".wharfage/pki/ca.pem"), dir.join("ca.pem")).expect("the suite's authority");
        let host = suite.var("WHARFAGE_TLS_URL").replace("https://", "tcp://");
        Self { host, certificates: Some(dir), ..self }
    }

    /// The command, ready to be changed or spawned.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.config);
        command.env_remove("DOCKER_API_VERSION").env_remove("DOCKER_CONTEXT").stdin(Stdio::null());
        if let Some(certificates) = &self.certificates {
            command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", certificates);
        }
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().expect("the docker CLI is installed"))
    }

    /// Runs it with something on stdin.
    #[must_use]
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.piped(args);
        child.stdin.take().expect("piped").write_all(input).expect("the CLI reads its input");
        Outcome::of(child.wait_with_output().expect("it was started"))
    }

    /// Starts it with all three streams piped.
    #[must_use]
    pub fn piped(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the docker CLI is installed")
    }

    /// Runs it; it must succeed. Returns trimmed stdout.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn ok(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert_eq!(outcome.code, 0, "docker {args:?} failed: {outcome:?}");
        outcome.stdout.trim().to_owned()
    }

    /// Waits until a container has written this: that it runs does not say how far its first process came.
    pub fn until_written(&self, name: &str, text: &str) {
        let written = || {
            let logs = self.run(&["logs", name]);
            logs.stdout.contains(text) || logs.stderr.contains(text)
        };
        eventually(&format!("{name} writes {text:?}"), Duration::from_secs(20), written);
    }

    /// Removes containers, whatever their state; absent ones do not matter.
    pub fn remove(&self, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        let mut args = vec!["rm", "-f"];
        args.extend(names);
        drop(self.run(&args));
    }
}

impl Outcome {
    fn of(output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
