//! Seeding Debian's docker-registry, and reading it back with Debian's skopeo.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::*;

struct DockerRegistry {
    child: Child,
    address: String,
}

impl DockerRegistry {
    fn start(directory: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let config = directory.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            directory.join("data").display()
        );
        std::fs::write(&config, text).expect("config");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        Self { child, address }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inspect(address: &str, image: &str) -> serde_json::Value {
    let name = format!("docker://{address}/{image}");
    let output = Command::new("skopeo").args(["inspect", "--tls-verify=false", &name]).output().expect("skopeo");
    assert!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("json")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_image_can_be_read_by_skopeo_and_seeding_again_changes_nothing() {
    let directory = tempfile::tempdir().expect("tempdir");
    let registry = DockerRegistry::start(directory.path());
    let work = directory.path().join("seed");
    seed_upstream(&registry.address, &work).await.expect("seed");
    let seen: Vec<serde_json::Value> =
        recipe::NAMES.iter().map(|(name, tag)| inspect(&registry.address, &format!("{}:{tag}", name))).collect();
    assert_eq!(seen[0]["Digest"], seen[1]["Digest"], "two tags of one image");
    assert!(
        seen[3]["LayersData"][0]["MIMEType"].as_str().is_some_and(|m| m.ends_with("zstd"))
            || seen[3]["Layers"][0] != seen[0]["Layers"][0]
    );
    assert_eq!(seen[7]["Layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(seen[7]["Layers"][0], seen[0]["Layers"][0], "the base is shared");
    std::fs::remove_file(work.join("seeded")).expect("mark");
    seed_upstream(&registry.address, &work).await.expect("seed without the mark");
    let again: Vec<serde_json::Value> =
        recipe::NAMES.iter().map(|(name, tag)| inspect(&registry.address, &format!("{}:{tag}", name))).collect();
    assert_eq!(seen, again);
    let began = std::time::Instant::now();
    seed_upstream(&registry.address, &work).await.expect("seed again");
    assert!(began.elapsed() < Duration::from_secs(5), "nothing to do took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let error = Registry::connect("127.0.0.1:1", Duration::ZERO).await.err().expect("nothing listens on port 1");
    assert!(format!("{error:#}").contains("127.0.0.1:1"));
}
