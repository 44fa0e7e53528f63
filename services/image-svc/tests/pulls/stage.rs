//! The service as it runs: its own database, certificates and directory, and clients of each kind.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use chassis::{
    CancellationToken, ClientTls, Ctx, ExpectedPeer,
    pki::{Authority, Usage},
};
use contract::image::{LOGINS, LoginReply, PULL, PullProgress, RegistryAuth};
use model::{HostId, ProjectId};
use sqlx::{PgPool, Row as _};
use testkit::Postgres;

static DATABASES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Stage {
    pub(crate) base: String,
    pub(crate) owner: PgPool,
    pub(crate) gateway: reqwest::Client,
    pub(crate) host: reqwest::Client,
    pub(crate) host_id: HostId,
    pub(crate) data_dir: PathBuf,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

/// How a pull ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) lines: Vec<PullProgress>,
    /// Of the status, or of the last line.
    pub(crate) error: String,
}

impl Outcome {
    pub(crate) fn statuses(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|l| l.status.as_deref()).collect()
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.status == 200 && self.error.is_empty()
    }
}

impl Stage {
    /// `allowed`: private registries that may be named. `more`: further configuration.
    pub(crate) async fn set(allowed: &[&str], more: &str) -> Self {
        chassis::tls::install_provider();
        let directory = tempfile::tempdir().expect("tempdir");
        let name = format!("image_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let database = Postgres::shared().migrated_database(&name).await.expect("database");
        let authority = Authority::create("test").expect("authority");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("ca.pem"), authority.cert_pem()).expect("ca");
        let host_id = HostId(uuid::Uuid::from_u128(7));
        let (gateway, host) = {
            let client = |name: &str| {
                let tls = certificate(&authority, directory.path(), name);
                chassis::tls::client(&tls, ExpectedPeer::service("image")).expect("client")
            };
            (client("service:gateway"), client(&format!("host:{host_id}")))
        };
        certificate(&authority, directory.path(), "service:image");
        let data_dir = at("images");
        let text = format!(
            "listen = '127.0.0.1:0'\ndatabase_url = '{}'\ndata_dir = '{}'\n{more}\n\
             [tls]\ncert = '{}'\nkey = '{}'\nca = '{}'\n[egress]\nallowed_private = {allowed:?}\n",
            database.image,
            data_dir.display(),
            at("service:image.pem").display(),
            at("service:image.key").display(),
            at("ca.pem").display(),
        );
        let (config, common) = chassis::config::parse::<image_svc::Config>(&text, []).expect("configuration");
        let ctx = Ctx::new("image-svc", &common);
        let app = image_svc::build(config, ctx.clone()).await.expect("build");
        let stop = CancellationToken::new();
        let mut base = String::new();
        for server in app.servers {
            let bound = server.bind(&ctx).await.expect("bind");
            base = format!("https://{}", bound.local_addr().expect("address"));
            tokio::spawn(bound.serve(stop.clone()));
        }
        let owner = PgPool::connect(&database.owner).await.expect("owner");
        Self { base, owner, gateway, host, host_id, data_dir, stop, _directory: directory }
    }

    pub(crate) async fn project(&self, name: &str) -> ProjectId {
        let (tenant, project) = (chassis::ids::uuid_v7(), chassis::ids::uuid_v7());
        sqlx::query("INSERT INTO tenants (id, name) VALUES ($1, $2)")
            .bind(tenant)
            .bind(name)
            .execute(&self.owner)
            .await
            .expect("tenant");
        sqlx::query("INSERT INTO projects (id, tenant_id, name) VALUES ($1, $2, $3)")
            .bind(project)
            .bind(tenant)
            .bind(name)
            .execute(&self.owner)
            .await
            .expect("project");
        ProjectId(project)
    }

    pub(crate) async fn pull(&self, project: ProjectId, reference: &str) -> Outcome {
        self.pull_with(project, reference, None, None).await
    }

    pub(crate) async fn pull_with(
        &self,
        project: ProjectId,
        reference: &str,
        platform: Option<&str>,
        auth: Option<RegistryAuth>,
    ) -> Outcome {
        self.ask(serde_json::json!({
            "project": project, "reference": reference, "platform": platform, "auth": auth,
        }))
        .await
    }

    /// Every tag of a repository.
    pub(crate) async fn pull_all(&self, project: ProjectId, repository: &str) -> Outcome {
        self.ask(serde_json::json!({"project": project, "reference": repository, "all_tags": true})).await
    }

    async fn ask(&self, request: serde_json::Value) -> Outcome {
        let url = format!("{}{PULL}", self.base);
        let answer = self.gateway.post(url).json(&request).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        if status != 200 {
            let error: model::Error = serde_json::from_str(&text).expect("an error document");
            return Outcome { status, lines: Vec::new(), error: error.public_message() };
        }
        let lines: Vec<PullProgress> = text.lines().map(|l| serde_json::from_str(l).expect("a line")).collect();
        let error = lines.last().and_then(|l| l.error.clone()).unwrap_or_default();
        Outcome { status, lines, error }
    }

    /// Tries credentials: the status, and why they are not taken.
    pub(crate) async fn login(&self, auth: &RegistryAuth) -> (u16, Option<String>) {
        let url = format!("{}{LOGINS}", self.base);
        let answer = self.gateway.post(url).json(auth).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        if status != 200 {
            let error: model::Error = serde_json::from_str(&text).expect("an error document");
            return (status, Some(error.public_message()));
        }
        (status, serde_json::from_str::<LoginReply>(&text).expect("a reply").refused)
    }

    /// Rows of every table an unfinished pull might leave something in.
    pub(crate) async fn rows(&self) -> Vec<(&'static str, i64)> {
        let mut counts = Vec::new();
        for table in ["images", "image_tags", "image_digests", "image_layers", "events", "blobs", "blob_origins"] {
            let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
            counts.push((table, row.fetch_one(&self.owner).await.expect("count").get(0)));
        }
        counts
    }

    /// Names of all blob files, finished or not, once what is being cleared is gone.
    pub(crate) async fn files(&self) -> Vec<String> {
        for _ in 0..100 {
            let found = files(&self.data_dir.join("blobs"));
            if !found.iter().any(|name| name.contains('#')) {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        files(&self.data_dir.join("blobs"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn certificate(authority: &Authority, directory: &Path, name: &str) -> ClientTls {
    let (cert, key) = authority.issue(name, &[Usage::Client, Usage::Server], 1).expect("certificate");
    let (cert_path, key_path) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    std::fs::write(&cert_path, cert).expect("cert");
    std::fs::write(&key_path, key).expect("key");
    ClientTls { ca: directory.join("ca.pem"), cert: Some(cert_path), key: Some(key_path) }
}

fn files(at: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}
