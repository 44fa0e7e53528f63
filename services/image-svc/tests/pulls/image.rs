//! Small images for tests. Their layers need not be archives: image-svc never looks inside.

use serde_json::{Value, json};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image in pieces.
#[derive(Clone, Debug)]
pub(crate) struct TestImage {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
}

impl TestImage {
    pub(crate) fn new(architecture: &str, layers: &[&[u8]]) -> Self {
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| sha256(l)).collect::<Vec<_>>()},
        })
        .to_string()
        .into_bytes();
        Self::with_config(config, layers)
    }

    pub(crate) fn with_config(config: Vec<u8>, layers: &[&[u8]]) -> Self {
        let layers: Vec<Vec<u8>> = layers.iter().map(|l| l.to_vec()).collect();
        let descriptors: Vec<Value> =
            layers.iter().map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": descriptors,
        });
        Self { config, layers, manifest: manifest.to_string().into_bytes() }
    }
}

pub(crate) fn index(images: &[(&str, &TestImage)]) -> Vec<u8> {
    let entries: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            let mut entry = descriptor(MANIFEST, &image.manifest);
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

pub(crate) fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, content)))
}

/// Bytes that no other seed gives.
pub(crate) fn bytes(seed: &str, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length + 32);
    let mut block = sha256(seed.as_bytes()).into_bytes();
    while all.len() < length {
        all.extend_from_slice(&block);
        block = sha256(&block).into_bytes();
    }
    all.truncate(length);
    all
}
