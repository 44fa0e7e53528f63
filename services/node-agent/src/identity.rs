//! Who this host is: a key made here, and a certificate the scheduler signed when the host joined.
//! Kept in `<data_dir>/identity`, for root alone. The key is written before the join, so that a crash
//! in between does not orphan a certificate.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use chassis::{ClientAuth, ClientTls, ExpectedPeer, ServerTls, backoff::Backoff, client::Internal, tls};
use contract::host::{JOIN, JoinReply, JoinRequest};
use model::Error;

use crate::config::Config;

/// Files of the identity.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// The identity on disk, or a new one by joining. Waits for the scheduler as long as it takes,
    /// but not for a token that was refused.
    ///
    /// # Errors
    /// No token, a refused one, or a disk that cannot be written.
    pub(crate) async fn obtain(config: &Config, dir: PathBuf) -> anyhow::Result<Self> {
        crate::host::make_private(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let identity = Self { dir };
        if identity.file("cert.pem").exists() {
            return Ok(identity);
        }
        let reply = join(config, &identity.csr()?).await?;
        identity.write("ca.pem", reply.ca_pem.as_bytes())?;
        identity.write("host", reply.host.to_string().as_bytes())?;
        // Last: with it the identity is whole.
        identity.write("cert.pem", reply.certificate_pem.as_bytes())?;
        tracing::info!(host = %reply.host, "joined");
        Ok(identity)
    }

    /// For connections to a service of the control plane.
    pub(crate) fn client(&self, common_name: &str) -> anyhow::Result<chassis::reqwest::Client> {
        let files =
            ClientTls { ca: self.file("ca.pem"), cert: Some(self.file("cert.pem")), key: Some(self.file("key.pem")) };
        tls::client(&files, ExpectedPeer::Named(common_name.to_owned()))
    }

    /// For the agent's own API.
    pub(crate) fn server(&self) -> ServerTls {
        ServerTls {
            cert: self.file("cert.pem"),
            key: self.file("key.pem"),
            client_auth: ClientAuth::Required { ca: self.file("ca.pem") },
            http2: false,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The request of an attempt before this one is used again, with its key.
    fn csr(&self) -> anyhow::Result<String> {
        if let (Ok(csr), true) = (fs::read_to_string(self.file("csr.pem")), self.file("key.pem").exists()) {
            return Ok(csr);
        }
        let (csr, key) = chassis::pki::new_csr()?;
        self.write("key.pem", key.as_bytes())?;
        self.write("csr.pem", csr.as_bytes())?;
        Ok(csr)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        write_durably(&self.file(name), bytes).with_context(|| format!("cannot write {}", self.file(name).display()))
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn token(config: &Config) -> anyhow::Result<String> {
    match (&config.join_token, &config.join_token_file) {
        (Some(token), _) => Ok(token.expose().clone()),
        (None, Some(file)) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok(text.trim().to_owned())
        }
        (None, None) => anyhow::bail!("this host has no identity yet: it needs `join_token` or `join_token_file`"),
    }
}

async fn join(config: &Config, csr_pem: &str) -> anyhow::Result<JoinReply> {
    let files = ClientTls { ca: config.ca.clone(), cert: None, key: None };
    let http = tls::client(&files, ExpectedPeer::Named(config.scheduler_cn.clone()))?;
    let scheduler = Internal::new(&config.scheduler_url, http)?;
    let request = JoinRequest {
        token: token(config)?,
        csr_pem: csr_pem.to_owned(),
        name: config.name.clone(),
        address: config.advertise_address,
        agent_port: config.listen.port(),
        capacity: config.probe_capacity(),
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    loop {
        match scheduler.post(JOIN, &request).await {
            Ok(reply) => return Ok(reply),
            Err(error @ (Error::Unavailable(_) | Error::Internal(_) | Error::NoCapacity(_))) => {
                tracing::warn!(%error, "cannot join yet");
                backoff.wait().await;
            }
            Err(error) => return Err(anyhow::Error::new(error).context("the scheduler does not let this host join")),
        }
    }
}
