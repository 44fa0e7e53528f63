//! A PostgreSQL cluster of one's own, with migrated databases on demand. Everybody on loopback is
//! trusted; nothing is flushed to disk.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Uid, User};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use store::Store;
use tokio::sync::OnceCell;

use crate::daemon::{Daemon, free_port};

const TEMPLATE: &str = "migrated_template";

/// A running cluster. It ends when dropped, or with the process.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    template: OnceCell<()>,
    _daemon: Daemon,
}

/// A database with the schema in it, as each role reaches it.
#[derive(Clone, Debug)]
pub struct Database {
    /// As the owner, whom row-level security does not bind.
    pub owner: String,
    /// As the gateway.
    pub gateway: String,
    /// As the scheduler.
    pub scheduler: String,
    /// As image-svc.
    pub image: String,
}

impl Postgres {
    /// Starts a cluster. Blocks for about a second.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let directory = tempfile::Builder::new().prefix("wt-postgres-").tempdir()?.keep();
        if let Some(user) = server_user()? {
            nix::unistd::chown(&directory, Some(user.uid), Some(user.gid))?;
        }
        let data = directory.join("data");
        let mut initdb = as_server_user(&programs.join("initdb"))?;
        initdb.extend(["-D".into(), data.display().to_string()]);
        initdb.extend(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"].map(String::from));
        run(&initdb, &directory)?;
        let port = free_port()?;
        let mut server = as_server_user(&programs.join("postgres"))?;
        server.extend(["-D".into(), data.display().to_string(), "-p".into(), port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=300",
            "shared_buffers=64MB",
        ] {
            server.extend(["-c".into(), setting.into()]);
        }
        let daemon = Daemon::start(&directory, "QUIT", &server, "ready to accept connections")?;
        Ok(Self { port, template: OnceCell::new(), _daemon: daemon })
    }

    /// The cluster all tests of this process share.
    ///
    /// # Panics
    /// It does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().expect("a PostgreSQL cluster for tests"))
    }

    /// A database by one of the roles.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// A fresh database with the schema in it. The name must be new to the cluster.
    ///
    /// # Errors
    /// The name is taken, or a migration fails.
    pub async fn migrated_database(&self, name: &str) -> Result<Database> {
        ensure!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name:?} is no plain name");
        self.template.get_or_try_init(|| self.make_template()).await?;
        self.execute(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await?;
        Ok(Database {
            owner: self.url("postgres", name),
            gateway: self.url("wharfage_gateway", name),
            scheduler: self.url("wharfage_scheduler", name),
            image: self.url("wharfage_image", name),
        })
    }

    async fn make_template(&self) -> Result<()> {
        self.execute(format!("CREATE DATABASE {TEMPLATE}")).await?;
        Store::migrate(&self.url("postgres", TEMPLATE)).await?;
        Ok(())
    }

    async fn execute(&self, statement: String) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres", "postgres")).await?;
        connection.execute(AssertSqlSafe(statement)).await?;
        connection.close().await?;
        Ok(())
    }
}

/// The newest installed version's programs.
fn programs() -> Result<PathBuf> {
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let installed = std::fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let newest = installed.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version);
    Ok(newest.context("PostgreSQL is not installed")?.join("bin"))
}

/// PostgreSQL refuses to run as root; then it runs as `postgres`.
fn server_user() -> Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    Ok(Some(User::from_name("postgres")?.context("there is no user `postgres`")?))
}

fn as_server_user(program: &Path) -> Result<Vec<String>> {
    let mut command = Vec::new();
    if server_user()?.is_some() {
        command.extend(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"].map(String::from));
    }
    command.push(program.display().to_string());
    Ok(command)
}

fn run(command: &[String], directory: &Path) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let done = Command::new(program).args(arguments).current_dir(directory).output()?;
    ensure!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_migrated_database_is_there_for_every_role_and_gone_afterwards() {
        let postgres = Postgres::start().expect("start");
        let database = postgres.migrated_database("first").await.expect("a database");
        for url in [&database.owner, &database.gateway, &database.scheduler, &database.image] {
            let mut connection = PgConnection::connect(url).await.expect(url);
            let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.expect(url);
            assert_eq!(one, 1);
        }
        assert!(postgres.migrated_database("first").await.is_err(), "a name twice");
        drop(postgres);
        assert!(PgConnection::connect(&database.owner).await.is_err());
    }
}
