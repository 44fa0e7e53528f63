//! The scheduler as it runs: the real server behind mutual TLS, a real PostgreSQL.

mod hosts;
mod openapi;
mod placements;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chassis::{
    CancellationToken, ClientTls, Ctx, ExpectedPeer, Secret,
    client::Internal,
    pki::{Authority, Usage},
};
use model::HostId;
use scheduler::{AuthorityFiles, Config, TlsFiles};
use testkit::{Database, Postgres, Seed};

/// A scheduler that serves, and what is needed to talk to it.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) database: Database,
    pub(crate) seed: Seed,
    authority: Authority,
    files: tempfile::TempDir,
    ctx: Ctx,
    stop: CancellationToken,
}

impl Service {
    pub(crate) async fn start(name: &str) -> Self {
        chassis::tls::install_provider();
        let database = Postgres::shared().migrated_database(name).await.expect("a database");
        let seed = Seed::connect(&database).await.expect("the owner");
        let files = tempfile::tempdir().expect("a directory");
        let authority = Authority::create("test authority").expect("an authority");
        std::fs::write(files.path().join("ca.pem"), authority.cert_pem()).expect("write");
        std::fs::write(files.path().join("ca.key"), authority.key_pem()).expect("write");
        let mut service = Self {
            address: ([127, 0, 0, 1], 0).into(),
            database,
            seed,
            authority,
            files,
            ctx: Ctx::new("scheduler", &chassis::Common::default()),
            stop: CancellationToken::new(),
        };
        service.identity("service:scheduler", "scheduler");
        service.address = service.serve().await;
        service
    }

    /// Serves one more scheduler on the same database.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let config = Config {
            common: chassis::Common::default(),
            listen: ([127, 0, 0, 1], 0).into(),
            tls: TlsFiles {
                cert: self.file("scheduler.pem"),
                key: self.file("scheduler.key"),
                ca: self.file("ca.pem"),
            },
            authority: AuthorityFiles { cert: self.file("ca.pem"), key: self.file("ca.key") },
            database_url: Secret::new(self.database.scheduler.clone()),
            database_connections: 16,
            redis_url: None,
        };
        let app = scheduler::build(config, self.ctx.clone()).await.expect("build");
        let mut address = None;
        for server in app.servers {
            let bound = server.bind(&self.ctx).await.expect("bind");
            address = bound.local_addr();
            tokio::spawn(bound.serve(self.stop.clone()));
        }
        address.expect("one server")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Writes a certificate of our authority as `<file>.pem` and `<file>.key`.
    fn identity(&self, common_name: &str, file: &str) {
        let (cert, key) = self.authority.issue(common_name, &[Usage::Server, Usage::Client], 1).expect("a certificate");
        self.write_identity(file, &cert, &key);
    }

    pub(crate) fn write_identity(&self, file: &str, cert: &str, key: &str) {
        std::fs::write(self.file(&format!("{file}.pem")), cert).expect("write");
        std::fs::write(self.file(&format!("{file}.key")), key).expect("write");
    }

    /// A client with a certificate written before, or with none.
    pub(crate) fn client(&self, file: Option<&str>) -> Internal {
        let tls = ClientTls {
            ca: self.file("ca.pem"),
            cert: file.map(|file| self.file(&format!("{file}.pem"))),
            key: file.map(|file| self.file(&format!("{file}.key"))),
        };
        let http = chassis::tls::client(&tls, ExpectedPeer::service("scheduler")).expect("a client");
        Internal::new(&format!("https://{}", self.address), http).expect("a url")
    }

    /// A client that our authority calls `common_name`.
    pub(crate) fn client_named(&self, common_name: &str) -> Internal {
        let file = common_name.replace(':', "-");
        self.identity(common_name, &file);
        self.client(Some(&file))
    }

    pub(crate) fn host_client(&self, host: HostId) -> Internal {
        self.client_named(&format!("host:{host}"))
    }

    /// From the service's own metrics.
    pub(crate) fn mean_plan_duration(&self) -> Duration {
        let text = self.ctx.metrics().render();
        let value = |suffix: &str| {
            let name = format!("wharfage_plan_duration_seconds_{suffix}{{");
            let line = text.lines().find(|line| line.starts_with(&name));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("the metric is exported")
        };
        Duration::from_secs_f64(value("sum") / value("count"))
    }

    pub(crate) async fn shut_down(self) {
        self.stop.cancel();
        assert!(self.ctx.stop_tasks(Duration::from_secs(5)).await, "background tasks end when told");
    }
}
