//! Manifests and indexes as they are pushed (OCI image spec; Docker schema 2): kept byte for byte, read
//! only for what they refer to. A document that can be read two ways is refused (CVE-2021-41190).

use contract::registry::{Code, Refusal};
use model::Digest;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use crate::limits::{ANNOTATION_BYTES_MAX, DESCRIPTORS_MAX};

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// What a document refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) media_type: String,
    /// Blobs that must be there, with their lengths.
    pub(crate) blobs: Vec<(Digest, u64)>,
    /// Manifests that must be there.
    pub(crate) manifests: Vec<Digest>,
    pub(crate) subject: Option<Digest>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    /// A layer that is said to lie elsewhere: it is never fetched, and need not be here.
    fn is_elsewhere(&self) -> bool {
        let foreign = self.media_type.contains("nondistributable") || self.media_type.contains(".foreign.");
        foreign && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// Reads a document that came with a content type.
pub(crate) fn check(content_type: &str, body: &[u8]) -> Result<Checked, Refusal> {
    let header = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let raw: Raw = serde_json::from_slice(body).map_err(|e| invalid(format!("the manifest cannot be read: {e}")))?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(invalid("manifests of schema 1 are not supported".into()));
    }
    if let Some(within) = raw.media_type.as_deref()
        && within != header
    {
        return Err(invalid(format!("the manifest says it is {within} and came as {header:?}")));
    }
    let annotations = raw.annotations.map(Value::Object);
    if annotations.as_ref().is_some_and(|a| a.to_string().len() > ANNOTATION_BYTES_MAX) {
        return Err(invalid(format!("annotations have more than {ANNOTATION_BYTES_MAX} bytes")));
    }
    let artifact_type = raw.artifact_type.filter(|kind| !kind.is_empty());
    let subject = raw.subject.map(|subject| subject.digest);
    let (blobs, manifests, artifact_type) = match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) if INDEXES.contains(&header.as_str()) => {
            (Vec::new(), manifests.into_iter().map(|m| m.digest).collect(), artifact_type)
        }
        (None, Some(config), Some(layers)) if MANIFESTS.contains(&header.as_str()) => {
            let kind = artifact_type.or_else(|| Some(config.media_type.clone()).filter(|kind| !kind.is_empty()));
            let needed = std::iter::once(config).chain(layers).filter(|blob| !blob.is_elsewhere());
            (needed.map(|blob| (blob.digest, blob.size)).collect(), Vec::new(), kind)
        }
        _ if INDEXES.contains(&header.as_str()) || MANIFESTS.contains(&header.as_str()) => {
            return Err(invalid("the document is not what its type says, or something else as well".into()));
        }
        _ => return Err(invalid(format!("unsupported manifest media type {header:?}"))),
    };
    if blobs.len().max(manifests.len()) > DESCRIPTORS_MAX {
        return Err(invalid(format!("the manifest has more than {DESCRIPTORS_MAX} descriptors")));
    }
    Ok(Checked { media_type: header, blobs, manifests, subject, artifact_type, annotations })
}

fn invalid(why: String) -> Refusal {
    Refusal::new(Code::ManifestInvalid, why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::blob_store::digest_of;

    fn descriptor(kind: &str, content: &[u8]) -> Value {
        json!({"mediaType": kind, "digest": digest_of(content), "size": content.len()})
    }

    fn read(kind: &str, document: &Value) -> Result<Checked, Refusal> {
        check(kind, document.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_needs_its_config_and_layers_but_not_those_that_lie_elsewhere() {
        let mut foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"far");
        foreign["urls"] = json!(["http://127.0.0.1/secret"]);
        let document = json!({
            "schemaVersion": 2, "config": descriptor("application/x", b"config"),
            "layers": [descriptor("a", b"one"), foreign], "subject": descriptor(MANIFESTS[0], b"about"),
            "annotations": {"a": "b"},
        });
        let checked = read(&format!("{}; charset=utf-8", MANIFESTS[0]), &document).expect("a manifest");
        assert_eq!(checked.blobs, [(digest_of(b"config"), 6), (digest_of(b"one"), 3)]);
        assert_eq!(checked.subject, Some(digest_of(b"about")));
        assert_eq!(checked.artifact_type.as_deref(), Some("application/x"));
        assert_eq!(checked.annotations, Some(json!({"a": "b"})));
    }

    #[test]
    fn a_document_that_can_be_read_two_ways_is_refused() {
        let both = json!({"schemaVersion": 2, "manifests": [], "config": descriptor("x", b""), "layers": []});
        let index = json!({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": []});
        for (kind, document) in [
            (MANIFESTS[0], &both),
            (INDEXES[0], &both),
            (MANIFESTS[0], &index),
            (INDEXES[1], &index),
            ("text/plain", &both),
            ("", &index),
        ] {
            assert_eq!(read(kind, document).expect_err("refused").code, Code::ManifestInvalid, "{kind} {document}");
        }
        assert!(read(INDEXES[0], &index).is_ok());
        assert!(check(INDEXES[0], br#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#).is_err());
        assert!(check(INDEXES[0], &b"[".repeat(100_000)).is_err());
        assert!(read(MANIFESTS[1], &json!({"schemaVersion": 1, "fsLayers": []})).is_err());
    }

    #[test]
    fn descriptors_and_annotations_have_a_limit() {
        let many = json!({"schemaVersion": 2, "manifests": vec![descriptor(MANIFESTS[0], b"x"); DESCRIPTORS_MAX + 1]});
        assert!(read(INDEXES[0], &many).expect_err("many").message.contains("descriptors"));
        let long = json!({"schemaVersion": 2, "manifests": [], "annotations": {"a": "x".repeat(ANNOTATION_BYTES_MAX)}});
        assert!(read(INDEXES[0], &long).expect_err("long").message.contains("annotations"));
    }
}
