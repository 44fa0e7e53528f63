//! The private PostgreSQL cluster. It listens on a unix socket in a directory that only root and
//! its own user can enter; the socket is the credential.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::{
    infrastructure::{base_env, run},
    layout::Layout,
    supervise::ServiceSpec,
};

/// Where its programs and its user are.
#[derive(Debug)]
pub(crate) struct Postgres {
    bin: PathBuf,
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Finds Debian's newest PostgreSQL.
    pub(crate) fn find() -> Result<Self> {
        let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL is not installed")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists())
            .collect();
        versions.sort();
        let user = User::from_name("postgres")?.context("there is no user postgres")?;
        let bin = versions.pop().context("PostgreSQL's server programs are not installed")?;
        Ok(Self { bin, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }

    /// Makes the cluster if there is none. PostgreSQL refuses to run as root, so it runs as its own
    /// user; where the checkout's parents shut that user out, the cluster lives in /var/lib.
    pub(crate) fn ensure_cluster(&self, layout: &Layout) -> Result<()> {
        let data = self.data_dir(layout);
        fs::create_dir_all(socket_dir(layout))?;
        chown(socket_dir(layout), Some(self.uid), Some(self.gid))?;
        fs::set_permissions(socket_dir(layout), fs::Permissions::from_mode(0o700))?;
        if data.join("PG_VERSION").exists() {
            return Ok(());
        }
        fs::create_dir_all(&data)?;
        chown(&data, Some(self.uid), Some(self.gid))?;
        let mut initdb = self.as_user("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
        run(initdb.arg(&data)).map(drop)
    }

    fn data_dir(&self, layout: &Layout) -> PathBuf {
        let inside = layout.state.join("postgres");
        let reachable = Command::new("setpriv")
            .args([&format!("--reuid={}", self.uid), &format!("--regid={}", self.gid), "--clear-groups", "test", "-x"])
            .arg(&layout.state)
            .status()
            .is_ok_and(|status| status.success());
        if reachable { inside } else { PathBuf::from("/var/lib").join(&layout.tag).join("postgres") }
    }

    fn as_user(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={}", self.uid), &format!("--regid={}", self.gid), "--clear-groups"]);
        command.arg(self.bin.join(program)).current_dir("/");
        command
    }

    /// The supervised server.
    pub(crate) fn service(&self, layout: &Layout) -> ServiceSpec {
        let setting = |key: &str, value: &str| ["-c".to_owned(), format!("{key}={value}")];
        let mut args = vec!["-D".to_owned(), self.data_dir(layout).display().to_string()];
        args.extend(setting("listen_addresses", ""));
        args.extend(setting("unix_socket_directories", &socket_dir(layout).display().to_string()));
        args.extend(setting("max_connections", "100"));
        args.extend(setting("shared_buffers", "128MB"));
        args.extend(setting("log_min_duration_statement", "1000"));
        ServiceSpec {
            name: "00-postgres".into(),
            program: self.bin.join("postgres"),
            args,
            env: base_env(),
            netns: None,
            user: Some((self.uid, self.gid)),
            stop_signal: nix::libc::SIGINT,
        }
    }

    /// Makes the database once the server answers.
    pub(crate) fn ensure_database(&self, layout: &Layout) -> Result<()> {
        let psql = |sql: &str| {
            let mut command = Command::new(self.bin.join("psql"));
            command.args(["-h", &socket_dir(layout).display().to_string(), "-U", "postgres", "-qtAc", sql]);
            run(&mut command)
        };
        if psql("SELECT 1 FROM pg_database WHERE datname = 'wharfage'")?.trim().is_empty() {
            psql("CREATE DATABASE wharfage")?;
        }
        Ok(())
    }

    /// Whether it takes connections.
    pub(crate) fn is_ready(&self, layout: &Layout) -> bool {
        let mut command = Command::new(self.bin.join("pg_isready"));
        command.args(["-q", "-h", &socket_dir(layout).display().to_string()]);
        command.status().is_ok_and(|status| status.success())
    }
}

fn socket_dir(layout: &Layout) -> PathBuf {
    layout.volatile.join("pg")
}

/// The database as its owner: migrations and the first operator token only.
pub(crate) fn owner_url(layout: &Layout) -> String {
    service_url(layout, "postgres")
}

/// The database under a service's own role.
pub(crate) fn service_url(layout: &Layout, role: &str) -> String {
    format!("postgres://{role}@localhost/wharfage?host={}", socket_dir(layout).display())
}
