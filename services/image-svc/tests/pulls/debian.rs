//! Debian's docker-registry on a port of loopback, ended with the test.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::image::{INDEX, MANIFEST, TestImage, sha256};

pub(crate) const PASSWORD: &str = "s3cret";
/// Of [`PASSWORD`], cheap to check.
const PASSWORD_BCRYPT: &str = "$2b$04$pw8RkquwDno5nnq7EjOfK.rPAPJjuB2u5tQM7eeA0mO5h4ojm7n92";

pub(crate) struct DockerRegistry {
    child: Child,
    http: reqwest::Client,
    pub(crate) address: String,
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// One that anybody may push to and pull from.
    pub(crate) async fn start() -> Self {
        Self::start_with("", None).await
    }

    /// One that only alice may, with [`PASSWORD`].
    pub(crate) async fn for_alice() -> Self {
        let auth = "auth: {htpasswd: {realm: basic-realm, path: PASSWORDS}}\n";
        Self::start_with(auth, Some(format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}"))))).await
    }

    async fn start_with(auth: &str, authorization: Option<String>) -> Self {
        chassis::tls::install_provider();
        let directory = tempfile::tempdir().expect("tempdir");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let config = directory.path().join("registry.yml");
        let data = directory.path().join("data");
        let passwords = directory.path().join("passwords");
        std::fs::write(&passwords, format!("alice:{PASSWORD_BCRYPT}\n")).expect("passwords");
        let auth = auth.replace("PASSWORDS", &passwords.display().to_string());
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            data.display()
        );
        std::fs::write(&config, text).expect("config");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let mut headers = reqwest::header::HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert("authorization", value.parse().expect("a header"));
        }
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().expect("client");
        let registry = Self { child, http, address, _directory: directory };
        for _ in 0..200 {
            if registry.http.get(registry.url("")).send().await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry does not answer");
    }

    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.config]) {
            let begun = self.http.post(self.url(&format!("{repository}/blobs/uploads/"))).send().await.expect("upload");
            let location = begun.headers()["location"].to_str().expect("location").to_owned();
            let glue = if location.contains('?') { '&' } else { '?' };
            let url = format!("{location}{glue}digest={}", sha256(blob));
            let put = self.http.put(url).body(blob.clone()).send().await.expect("put");
            assert_eq!(put.status(), 201);
        }
        self.put_manifest(repository, tag, MANIFEST, image.manifest.clone()).await;
    }

    pub(crate) async fn push_index(&self, repository: &str, tag: &str, index: Vec<u8>) {
        self.put_manifest(repository, tag, INDEX, index).await;
    }

    async fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, body: Vec<u8>) {
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        let put = self.http.put(url).header("content-type", media_type).body(body).send().await.expect("put");
        assert_eq!(put.status(), 201);
    }

    /// Names of what was pushed to it.
    pub(crate) async fn repositories(&self) -> Vec<String> {
        let answer = self.http.get(self.url("_catalog")).send().await.expect("an answer");
        let catalog: serde_json::Value = answer.json().await.expect("a document");
        serde_json::from_value(catalog["repositories"].clone()).expect("names")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
