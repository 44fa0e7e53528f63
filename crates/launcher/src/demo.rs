//! The demo tenants, projects and tokens, made through the platform API as an operator would. Only
//! the very first operator token is written by the database's owner. Secrets are kept in
//! `.wharfage/demo.json`, so that a second `up` makes nothing new.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{infrastructure::owner_url, layout::Layout, underlay};

/// Secrets of the demo.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Demo {
    /// Operator.
    pub admin_token: String,
    /// Project `demo` of tenant `demo`.
    pub token: String,
    /// Project `demo` of tenant `other`.
    pub token_2: String,
    #[serde(skip)]
    base: String,
}

/// Applies the migrations; on a fresh database also chooses the pool of project networks and writes
/// the first operator token.
pub(crate) async fn prepare_database(layout: &Layout) -> Result<()> {
    store::Store::migrate(&owner_url(layout)).await?;
    let mut connection = PgConnection::connect(&owner_url(layout)).await?;
    let networks: i64 = sqlx::query_scalar("SELECT count(*) FROM networks").fetch_one(&mut connection).await?;
    if networks == 0 {
        let pool = underlay::pick_pool()?.to_string();
        sqlx::query("UPDATE network_pool SET base = $1::cidr").bind(&pool).execute(&mut connection).await?;
    }
    let pool: String = sqlx::query_scalar("SELECT base::text FROM network_pool").fetch_one(&mut connection).await?;
    fs::write(layout.run().join("network-pool"), pool)?;
    let mut demo = Demo::load(layout);
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens WHERE secret_sha256 = $1")
        .bind(chassis::ids::sha256(demo.admin_token.as_bytes()).to_vec())
        .fetch_one(&mut connection)
        .await?;
    if known == 0 {
        demo = Demo { admin_token: chassis::ids::random_token(), ..Demo::default() };
        sqlx::query("INSERT INTO tokens (id, label, kind, secret_sha256) VALUES ($1, 'first operator', 'bearer', $2)")
            .bind(chassis::ids::uuid_v7())
            .bind(chassis::ids::sha256(demo.admin_token.as_bytes()).to_vec())
            .execute(&mut connection)
            .await?;
        demo.save(layout)?;
    }
    Ok(())
}

/// Makes what is missing.
pub(crate) async fn ensure(layout: &Layout) -> Result<Demo> {
    let mut demo = Demo::load(layout);
    if demo.token.is_empty() {
        demo.token = demo.make_project("demo").await?;
        // So that it can be tried; projects have it off.
        demo.allow_docker_socket().await?;
    }
    if demo.token_2.is_empty() {
        demo.token_2 = demo.make_project("other").await?;
    }
    demo.save(layout)?;
    Ok(demo)
}

/// Waits until so many hosts are ready.
pub(crate) async fn wait_for_hosts(_layout: &Layout, demo: &Demo, nodes: u8) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let hosts = demo.call(Method::GET, "/api/v1/hosts", None).await?;
        let list = hosts.as_array().or(hosts["items"].as_array()).cloned().unwrap_or_default();
        if list.iter().filter(|host| host["condition"] == "ready").count() >= usize::from(nodes) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("waited 30 s in vain for {nodes} host(s); the control plane knows {list:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Demo {
    fn load(layout: &Layout) -> Self {
        let text = fs::read(layout.state.join("demo.json")).unwrap_or_default();
        let mut demo: Self = serde_json::from_slice(&text).unwrap_or_default();
        demo.base = format!("http://127.0.0.1:{}", layout.gateway_port());
        demo
    }

    fn save(&self, layout: &Layout) -> Result<()> {
        let (file, fresh) = (layout.state.join("demo.json"), layout.state.join("demo.json.new"));
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(fresh, file)?;
        Ok(())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        self.call_as(&self.admin_token, method, path, body).await
    }

    async fn call_as(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.base));
        request = request.bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A tenant with one project `demo`, and a token for it. Finds what an interrupted run made.
    async fn make_project(&self, tenant: &str) -> Result<String> {
        let id = |value: &Value| value["id"].as_str().map(str::to_owned).context("an answer without id");
        let tenant_id = id(&self.find_or_make("/api/v1/tenants", tenant).await?)?;
        let project = id(&self.find_or_make(&format!("/api/v1/tenants/{tenant_id}/projects"), "demo").await?)?;
        let path = format!("/api/v1/projects/{project}/tokens");
        let token = self.call(Method::POST, &path, Some(json!({ "label": "demo" }))).await?;
        token["secret"].as_str().map(str::to_owned).context("an answer without secret")
    }

    /// Lets containers of the demo project have `/var/run/docker.sock`, as a tenant would.
    async fn allow_docker_socket(&self) -> Result<()> {
        let policy = json!({ "docker_socket": true });
        self.call_as(&self.token, Method::PATCH, "/api/v1/project", Some(policy)).await.map(drop)
    }

    async fn find_or_make(&self, path: &str, name: &str) -> Result<Value> {
        let existing = self.call(Method::GET, path, None).await?;
        let list = existing.as_array().or(existing["items"].as_array()).cloned().unwrap_or_default();
        match list.into_iter().find(|item| item["name"] == name) {
            Some(found) => Ok(found),
            None => self.call(Method::POST, path, Some(json!({ "name": name }))).await,
        }
    }

    /// A token a new host joins with, in a file only root reads.
    pub(crate) async fn write_join_token(&self, _layout: &Layout, file: &Path) -> Result<()> {
        let made = self.call(Method::POST, "/api/v1/host-join-tokens", Some(json!({}))).await?;
        let secret = made["secret"].as_str().context("an answer without secret")?;
        fs::write(file, secret)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}
