//! A container that is itself a client of Docker: busybox, and the machine's own (static) docker CLI
//! copied into it.

use crate::{Docker, Outcome, unique};

/// It runs, and has `/var/run/docker.sock`. Dropping it removes it.
#[derive(Debug)]
pub struct Inside {
    /// Its name.
    pub name: String,
    docker: Docker,
}

impl Inside {
    /// Creates it with further options, puts the CLI in, starts it.
    ///
    /// # Panics
    /// When any of that fails.
    #[must_use]
    pub fn start(docker: &Docker, options: &[&str]) -> Self {
        let name = unique("inside");
        let create = ["create", "--name", &name, "-v", "/var/run/docker.sock:/var/run/docker.sock"];
        let _ = docker.ok(&[&create[..], options, &["busybox", "sleep", "3600"]].concat());
        let inside = Self { name, docker: docker.clone() };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let cli = std::env::split_paths(&path).map(|dir| dir.join("docker")).find(|file| file.is_file());
        let cli = cli.expect("the docker CLI is installed").canonicalize().expect("it is there");
        let _ = docker.ok(&["cp", &cli.display().to_string(), &format!("{}:/bin/docker", inside.name)]);
        let _ = docker.ok(&["start", &inside.name]);
        inside
    }

    /// Runs a shell script in it.
    #[must_use]
    pub fn sh(&self, script: &str) -> Outcome {
        self.docker.run(&["exec", &self.name, "sh", "-c", script])
    }

    /// Runs a script that must succeed; its trimmed output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn ok(&self, script: &str) -> String {
        let outcome = self.sh(script);
        assert_eq!(outcome.code, 0, "{script}: {outcome:?}");
        outcome.stdout.trim().to_owned()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.docker.remove(&[&self.name]);
    }
}
