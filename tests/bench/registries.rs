//! Registries under measurement: ours, through the gateway and with authorization, and Debian's
//! docker-registry without any, on the same file system. Both are spoken to as docker speaks: HEAD, POST,
//! PATCH, PUT, over plain HTTP.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ring::digest::{SHA256, digest};
use tests::Suite;

use crate::wire::Wire;

const PORT: u16 = 7398;

/// A registry, and a repository in it that this run may read and write.
pub(crate) struct Registry {
    /// Column title.
    pub(crate) name: &'static str,
    address: String,
    repository: String,
    token: Option<String>,
    _process: Option<Debian>,
}

struct Debian {
    process: Child,
    dir: PathBuf,
}

/// `sha256:…` of something.
pub(crate) fn sha256(content: &[u8]) -> String {
    let hex: String = digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    /// Ours, with a registry token of the demo project, got once.
    pub(crate) fn wharfage(suite: &Suite) -> Self {
        let repository = format!("demo/demo/{}", tests::unique("bench"));
        let path = format!("/v2/token?service=wharfage&scope=repository:{repository}:pull,push,delete");
        let token = suite.rest().get(&path).json()["token"].as_str().expect("a token").to_owned();
        let address = suite.var("WHARFAGE_REGISTRY").to_owned();
        Self { name: "Wharfage", address, repository, token: Some(token), _process: None }
    }

    /// Debian's; `None`, with the reason on stderr, where it cannot run.
    pub(crate) fn debian(suite: &Suite) -> Option<Self> {
        // Beside what ours stores: one file system for both.
        let dir = suite.root.join(format!(".wharfage/bench-registry-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory of the suite");
        let address = format!("127.0.0.1:{PORT}");
        let config = format!(
            // As Debian ships it, without a password: both log each request.
            "version: 0.1\nlog: {{fields: {{service: registry}}}}\nstorage:\n  cache: {{blobdescriptor: inmemory}}\n  \
             filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '{address}', headers: {{X-Content-Type-Options: [nosniff]}}}}\n",
            dir.join("data").display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("a file of the suite");
        let log = File::create(dir.join("log")).expect("a file of the suite");
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn();
        let process = match started {
            Ok(process) => Debian { process, dir },
            Err(error) => {
                eprintln!("docker-registry does not start ({error}): Wharfage is measured alone");
                return None;
            }
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen: see {}", process.dir.display());
            thread::sleep(Duration::from_millis(50));
        }
        let repository = "demo/demo/bench".to_owned();
        Some(Self { name: "docker-registry", address, repository, token: None, _process: Some(process) })
    }

    /// A connection of its own.
    pub(crate) fn wire(&self) -> Wire {
        Wire::open(&self.address, self.token.as_deref())
    }

    pub(crate) fn path(&self, below: &str) -> String {
        format!("/v2/{}/{below}", self.repository)
    }

    /// Pushes a blob as docker does; `whole`: in the request that ends the upload.
    pub(crate) fn push_blob(&self, wire: &mut Wire, content: &[u8], digest: &str, whole: bool) {
        let mut ask = |method: &str, path: &str, body: &[u8], status: u16| {
            let head = wire.exchange(method, path, "Content-Type: application/octet-stream\r\n", body);
            let text = wire.body(&head);
            let text = String::from_utf8_lossy(&text);
            assert_eq!(head.status, status, "{}: {method} {path}: {text}", self.name);
            let below = head.location.find("/v2/").map_or("", |at| &head.location[at..]);
            below.to_owned()
        };
        ask("HEAD", &self.path(&format!("blobs/{digest}")), b"", 404);
        let mut upload = ask("POST", &self.path("blobs/uploads/"), b"", 202);
        if !whole {
            upload = ask("PATCH", &upload, content, 202);
        }
        let sign = if upload.contains('?') { '&' } else { '?' };
        ask("PUT", &format!("{upload}{sign}digest={digest}"), if whole { content } else { b"" }, 201);
    }

    /// Puts a manifest of these layers, as (digest, length), with a config of its own.
    pub(crate) fn push_manifest(&self, wire: &mut Wire, tag: &str, layers: &[(String, usize)]) {
        const OCI: &str = "application/vnd.oci.image";
        let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"tag\":\"{tag}\"}}");
        let about = sha256(config.as_bytes());
        self.push_blob(wire, config.as_bytes(), &about, true);
        let layers: Vec<serde_json::Value> = layers
            .iter()
            .map(|(digest, size)| serde_json::json!({"mediaType": format!("{OCI}.layer.v1.tar"), "digest": digest, "size": size}))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"), "layers": layers,
            "config": {"mediaType": format!("{OCI}.config.v1+json"), "digest": about, "size": config.len()},
        });
        let typed = format!("Content-Type: {OCI}.manifest.v1+json\r\n");
        let path = self.path(&format!("manifests/{tag}"));
        let head = wire.exchange("PUT", &path, &typed, manifest.to_string().as_bytes());
        let text = wire.body(&head);
        assert_eq!(head.status, 201, "{}: {}", self.name, String::from_utf8_lossy(&text));
    }
}

impl Drop for Debian {
    /// Stops it and removes all it stored, also when a measurement panics.
    fn drop(&mut self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM).ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.dir).ok();
    }
}
