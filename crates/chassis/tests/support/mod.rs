//! What the chassis's tests share: an authority with files for everyone, and servers on free ports.
#![allow(dead_code, clippy::allow_attributes, reason = "every test binary uses a part of it")]

use std::{net::SocketAddr, path::PathBuf};

use chassis::{
    CancellationToken, ClientAuth, ClientTls, Common, ExpectedPeer, Server, ServerTls,
    axum::Router,
    client::Internal,
    pki::{Authority, Usage},
};
use tempfile::TempDir;

/// An authority and a directory of certificates.
pub(crate) struct Pki {
    pub(crate) authority: Authority,
    dir: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let authority = Authority::create("test authority").expect("create an authority");
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("ca.pem"), authority.cert_pem()).expect("write");
        Self { authority, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Writes a certificate and key; returns their paths.
    pub(crate) fn write(&self, (cert, key): &(String, String)) -> (PathBuf, PathBuf) {
        let name = chassis::ids::uuid_v7();
        let (cert_path, key_path) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&cert_path, cert).expect("write");
        std::fs::write(&key_path, key).expect("write");
        (cert_path, key_path)
    }

    pub(crate) fn issue(&self, common_name: &str) -> (PathBuf, PathBuf) {
        let both = [Usage::Server, Usage::Client];
        self.write(&self.authority.issue(common_name, &both, 1).expect("issue"))
    }

    pub(crate) fn server(&self, common_name: &str, client_auth: ClientAuth) -> ServerTls {
        let (cert, key) = self.issue(common_name);
        ServerTls { cert, key, client_auth, http2: false }
    }

    pub(crate) fn mutual(&self, common_name: &str) -> ServerTls {
        self.server(common_name, ClientAuth::Required { ca: self.ca() })
    }

    pub(crate) fn client_tls(&self, certificate: Option<(PathBuf, PathBuf)>) -> ClientTls {
        let (cert, key) = certificate.unzip();
        ClientTls { ca: self.ca(), cert, key }
    }

    /// A client that shows `as_whom`, and expects `whom`.
    pub(crate) fn dial(&self, address: SocketAddr, as_whom: &str, whom: &str) -> Internal {
        self.dial_with(address, Some(self.issue(as_whom)), whom)
    }

    pub(crate) fn dial_with(
        &self,
        address: SocketAddr,
        certificate: Option<(PathBuf, PathBuf)>,
        whom: &str,
    ) -> Internal {
        let http = chassis::tls::client(&self.client_tls(certificate), ExpectedPeer::Named(whom.to_owned()));
        Internal::new(&format!("https://{address}"), http.expect("client")).expect("base")
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) ctx: chassis::Ctx,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) async fn start(service: &'static str, router: Router, tls: Option<ServerTls>) -> Running {
    let mut server = free_port(router);
    server.tls = tls;
    start_server(service, server).await
}

/// A server on a port that the kernel chooses.
pub(crate) fn free_port(router: Router) -> Server {
    Server::tcp(SocketAddr::from(([127, 0, 0, 1], 0)), router).with_ops()
}

pub(crate) async fn start_server(service: &'static str, server: Server) -> Running {
    chassis::tls::install_provider();
    let ctx = chassis::Ctx::new(service, &Common::default());
    let bound = server.bind(&ctx).await.expect("bind");
    let address = bound.local_addr().expect("TCP");
    let stop = CancellationToken::new();
    let ended = tokio::spawn(bound.serve(stop.clone()));
    Running { address, ctx, stop, ended }
}
