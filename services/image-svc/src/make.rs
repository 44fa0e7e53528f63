//! Making an image of layers that are stored: its config goes on with its parent's, a manifest names
//! both, and one transaction shows it in the project.

use chassis::Bus;
use contract::{image::NewImage, wake::Topic};
use model::{Digest, Error, ImageReference, LayerDescriptor, LayerEncoding, Result};
use serde_json::{Map, Value, json};
use store::{ImageRow, ProjectScope, Store, StoredImage};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    blob_store::{BlobStore, digest_of},
    image_config,
    limits::{CONFIG_BYTES_MAX, LAYERS_MAX},
    upload,
    upstream::Platform,
};

/// Makes images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) store: Store,
    pub(crate) blobs: BlobStore,
    pub(crate) bus: Bus,
    pub(crate) platform: Platform,
}

impl Maker {
    /// Makes one.
    ///
    /// # Errors
    /// The parent is not the project's, the name or config cannot be taken, or there are too many layers.
    pub(crate) async fn make(&self, wanted: &NewImage) -> Result<Digest> {
        let name = wanted.reference.as_deref().map(str::parse::<ImageReference>).transpose()?;
        let _kept = self.blobs.keep(vec![wanted.layer.digest.clone()]).await;
        if self.blobs.size(&wanted.layer.digest).await? != Some(wanted.layer.size_bytes) {
            return Err(Error::internal(format!("layer {} is not stored", wanted.layer.digest)));
        }
        let scope = ProjectScope::delegated(wanted.project);
        let mut tx = self.store.project_tx(&scope).await?;
        let parent = match &wanted.parent {
            Some(id) => {
                let found = tx.image_by_id(id).await?;
                Some(found.ok_or_else(|| Error::NotFound(format!("No such image: {id}")))?)
            }
            None => None,
        };
        let now = OffsetDateTime::now_utc();
        let (config, layers) = compose(wanted, parent.as_ref(), &self.base_platform(wanted)?, now)?;
        let checked = image_config::check(&config, layers.len()).map_err(|e| Error::InvalidArgument(e.to_string()))?;
        let manifest = manifest(&config, &layers).to_string().into_bytes();
        let (id, manifest_digest) = (digest_of(&config), digest_of(&manifest));
        let size: u64 = layers.iter().map(|l| l.size_bytes).sum();
        let image = StoredImage {
            id: &id,
            manifest_digest: &manifest_digest,
            manifest: &manifest,
            config: &config,
            layers: &layers,
            architecture: &checked.platform.architecture,
            os: &checked.platform.os,
            size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
            built_at: checked.built_at,
        };
        tx.record_made_image(&image, parent.is_none(), name.as_ref()).await?;
        tx.commit().await?;
        self.bus.publish(&Topic::Project(wanted.project));
        tracing::info!(image = %id, layers = layers.len(), "made");
        Ok(id)
    }

    fn base_platform(&self, wanted: &NewImage) -> Result<Platform> {
        match wanted.platform.as_deref().filter(|text| !text.is_empty()) {
            None => Ok(self.platform.clone()),
            Some(text) => {
                Platform::parse(text).ok_or_else(|| Error::invalid("platform", "is not os/architecture[/variant]"))
            }
        }
    }
}

/// The config document and the layers, lowest first.
fn compose(
    wanted: &NewImage,
    parent: Option<&ImageRow>,
    platform: &Platform,
    now: OffsetDateTime,
) -> Result<(Vec<u8>, Vec<LayerDescriptor>)> {
    let mut document: Map<String, Value> = match parent {
        Some(parent) => serde_json::from_slice(&parent.config).map_err(Error::internal)?,
        None => Map::new(),
    };
    let mut layers = parent.map_or_else(Vec::new, |parent| parent.layers.clone());
    // Of the container or build that made the parent: nothing of it is true any more.
    for stale in ["container", "container_config", "id", "parent", "comment", "author", "moby.buildkit.cache.v0"] {
        document.remove(stale);
    }
    let created = now.format(&Rfc3339).map_err(Error::internal)?;
    if parent.is_none() {
        document.insert("architecture".into(), json!(platform.architecture));
        document.insert("os".into(), json!(platform.os));
        if !platform.variant.is_empty() {
            document.insert("variant".into(), json!(platform.variant));
        }
    }
    let empty = upload::is_empty(&wanted.layer);
    if !empty {
        layers.push(wanted.layer.clone());
    }
    if layers.len() > LAYERS_MAX {
        return Err(Error::InvalidArgument("max depth exceeded".into()));
    }
    let mut step = Map::from_iter([("created".to_owned(), json!(created))]);
    for (key, text) in [("created_by", &wanted.created_by), ("author", &wanted.author), ("comment", &wanted.comment)] {
        if !text.is_empty() {
            step.insert(key.into(), json!(text));
        }
    }
    if empty {
        step.insert("empty_layer".into(), json!(true));
    }
    let mut history = match document.remove("history") {
        Some(Value::Array(steps)) => steps,
        Some(_) | None => Vec::new(),
    };
    history.push(Value::Object(step));
    let diff_ids: Vec<&Digest> = layers.iter().map(|l| &l.diff_id).collect();
    document.insert("created".into(), json!(created));
    document.insert("config".into(), wanted.config.clone());
    document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    document.insert("history".into(), Value::Array(history));
    for (key, text) in [("author", &wanted.author), ("comment", &wanted.comment)] {
        if !text.is_empty() {
            document.insert(key.into(), json!(text));
        }
    }
    let config = Value::Object(document).to_string().into_bytes();
    if config.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::InvalidArgument(format!("the image config has more than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok((config, layers))
}

/// OCI image spec, "Image Manifest".
pub(crate) fn manifest(config: &[u8], layers: &[LayerDescriptor]) -> Value {
    let layer = |l: &LayerDescriptor| {
        let packing = match l.encoding {
            LayerEncoding::Tar => "",
            LayerEncoding::Gzip => "+gzip",
            LayerEncoding::Zstd => "+zstd",
        };
        json!({"mediaType": format!("application/vnd.oci.image.layer.v1.tar{packing}"), "digest": l.digest, "size": l.size_bytes})
    };
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": config.len(),
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn layer(n: u8, diff_id: Digest) -> LayerDescriptor {
        LayerDescriptor {
            digest: Digest::sha256([n; 32]),
            diff_id,
            size_bytes: u64::from(n),
            encoding: LayerEncoding::Gzip,
        }
    }

    fn wanted(layer: LayerDescriptor) -> NewImage {
        NewImage {
            project: model::ProjectId(uuid::Uuid::nil()),
            parent: None,
            layer,
            config: json!({"Cmd": ["sh"]}),
            author: "me".into(),
            comment: "why".into(),
            created_by: "sh -c x".into(),
            reference: None,
            platform: None,
        }
    }

    fn parent(config: &Value) -> ImageRow {
        ImageRow {
            id: Digest::sha256([9; 32]),
            manifest_digest: Digest::sha256([8; 32]),
            config: config.to_string().into_bytes(),
            layers: vec![layer(1, Digest::sha256([1; 32]))],
            architecture: "arm64".into(),
            os: "linux".into(),
            size_bytes: 1,
            built_at: None,
            stored_at: OffsetDateTime::UNIX_EPOCH,
            last_tagged_at: None,
            tags: Vec::new(),
            digests: Vec::new(),
        }
    }

    const NOW: OffsetDateTime = datetime!(2026-11-24 03:00:00 UTC);

    #[test]
    fn a_commit_goes_on_with_its_parents_layers_and_history() {
        let base = json!({
            "architecture": "arm64", "os": "linux", "container": "gone", "author": "them",
            "config": {"Cmd": ["old"]}, "history": [{"created_by": "ADD"}],
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256([1; 32])]},
        });
        let platform = Platform::parse("linux/amd64").expect("a platform");
        let wanted = wanted(layer(2, Digest::sha256([2; 32])));
        let (config, layers) = compose(&wanted, Some(&parent(&base)), &platform, NOW).expect("composes");
        let checked = image_config::check(&config, 2).expect("is a config");
        assert_eq!((checked.platform.architecture.as_str(), layers.len()), ("arm64", 2));
        let document: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(document["config"]["Cmd"][0], "sh");
        assert_eq!((document["author"].as_str(), document.get("container")), (Some("me"), None));
        assert_eq!(document["history"][1]["created_by"], "sh -c x");
        let manifest = manifest(&config, &layers);
        assert_eq!(manifest["config"]["digest"], json!(digest_of(&config)));
        assert_eq!(manifest["layers"][1]["size"], 2);
    }

    #[test]
    fn a_layer_without_entries_is_a_step_of_the_history_alone() {
        let platform = Platform::parse("linux/amd64").expect("a platform");
        let empty = wanted(layer(2, digest_of(&[0; 1024])));
        let (config, layers) = compose(&empty, None, &platform, NOW).expect("composes");
        assert!(layers.is_empty());
        let document: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(document["history"][0]["empty_layer"], true);
        assert_eq!(document["architecture"], "amd64");
    }
}
