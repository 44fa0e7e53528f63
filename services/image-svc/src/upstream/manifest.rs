//! Manifests and indexes (OCI image spec; Docker schema 2). A document is what its media type and
//! its shape both say, or it is refused: one that can be read two ways is an attack
//! (CVE-2021-41190).

use model::{Digest, DigestAlgorithm, LayerEncoding};
use serde::{Deserialize, de::IgnoredAny};

use super::{Fetched, UpstreamError};
use crate::limits::{CONFIG_BYTES_MAX, INDEX_ENTRIES_MAX, LAYER_BYTES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What this service asks for.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// A checked document.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// Manifests by platform.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(ImageManifest),
}

/// One image's parts.
#[derive(Clone, Debug)]
pub(crate) struct ImageManifest {
    pub(crate) config: Descriptor,
    /// Lowest first, each with its packing.
    pub(crate) layers: Vec<(Descriptor, LayerEncoding)>,
}

/// A reference to content. `urls` and `data`, which would be two further ways to get it, are not read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
}

/// `os/architecture[/variant]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a fetched document.
    pub(crate) fn parse(fetched: &Fetched) -> Result<Self, UpstreamError> {
        let raw: Raw = serde_json::from_slice(&fetched.body)
            .map_err(|e| UpstreamError::Invalid(format!("the manifest cannot be read: {e}")))?;
        if raw.schema_version != 2 || raw.fs_layers.is_some() {
            return invalid("the image has a manifest of schema 1, which is no longer supported".into());
        }
        let header = fetched.media_type.as_str();
        let within = raw.media_type.as_deref();
        if let Some(within) = within
            && ACCEPTED.contains(&header)
            && within != header
        {
            return invalid(format!("the manifest says it is {within} and is served as {header}"));
        }
        let media_type = if ACCEPTED.contains(&header) { header } else { within.unwrap_or(header) };
        match media_type {
            OCI_INDEX | DOCKER_LIST => Self::index(raw),
            OCI_MANIFEST | DOCKER_MANIFEST => Self::manifest(raw),
            other => invalid(format!("unsupported manifest media type {other:?}")),
        }
    }

    fn index(raw: Raw) -> Result<Self, UpstreamError> {
        match raw {
            Raw { manifests: Some(manifests), config: None, layers: None, .. }
                if manifests.len() <= INDEX_ENTRIES_MAX =>
            {
                Ok(Self::Index(manifests))
            }
            Raw { manifests: Some(_), config: None, layers: None, .. } => {
                invalid(format!("the index has more than {INDEX_ENTRIES_MAX} entries"))
            }
            Raw { .. } => invalid("the index is not an index, or a manifest as well".into()),
        }
    }

    fn manifest(raw: Raw) -> Result<Self, UpstreamError> {
        let Raw { manifests: None, config: Some(config), layers: Some(layers), .. } = raw else {
            return invalid("the manifest is not a manifest, or an index as well".into());
        };
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return invalid(format!("Encountered remote {:?}(unknown) when fetching: not an image", config.media_type));
        }
        // It becomes the image's id.
        if config.digest.algorithm() != DigestAlgorithm::Sha256 {
            return invalid(format!("{}: the config of an image that runs here has a sha256 digest", config.digest));
        }
        if config.size > CONFIG_BYTES_MAX {
            return invalid(format!("the image config has {} bytes; the limit is {CONFIG_BYTES_MAX}", config.size));
        }
        if layers.len() > LAYERS_MAX {
            return invalid(format!("the image has {} layers; the limit is {LAYERS_MAX}", layers.len()));
        }
        let layers = layers.into_iter().map(with_encoding).collect::<Result<_, _>>()?;
        Ok(Self::Manifest(ImageManifest { config, layers }))
    }
}

fn with_encoding(layer: Descriptor) -> Result<(Descriptor, LayerEncoding), UpstreamError> {
    if layer.size > LAYER_BYTES_MAX {
        return invalid(format!("layer {} has {} bytes; the limit is {LAYER_BYTES_MAX}", layer.digest, layer.size));
    }
    let encoding = match layer.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => LayerEncoding::Tar,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        // Their `urls` are never followed; a registry that holds the blob itself may serve it.
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => LayerEncoding::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            LayerEncoding::Zstd
        }
        other => return invalid(format!("layer {} has the unsupported media type {other:?}", layer.digest)),
    };
    Ok((layer, encoding))
}

/// The entry of an index for a platform.
pub(crate) fn select<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, UpstreamError> {
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.serves(wanted));
    let exact = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.variant == wanted.variant);
    let chosen = entries.iter().filter(fits).find(exact).or_else(|| entries.iter().find(fits));
    match chosen {
        Some(entry) if entry.size > MANIFEST_BYTES_MAX => {
            invalid(format!("the manifest has {} bytes; the limit is {MANIFEST_BYTES_MAX}", entry.size))
        }
        Some(entry) => Ok(entry),
        None => Err(UpstreamError::NoPlatform(no_match(wanted))),
    }
}

/// dockerd's text.
fn no_match(wanted: &Platform) -> String {
    format!("no matching manifest for {wanted} in the manifest list entries")
}

impl Platform {
    /// Reads `os/arch[/variant]` as people write it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let word = |w: &str| {
            !w.is_empty() && w.len() <= 32 && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        };
        let mut parts = text.split('/').map(str::to_ascii_lowercase);
        let (first, second, third) = (parts.next()?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let (os, architecture) = match (first, second) {
            (os, Some(architecture)) => (os, architecture),
            (os, None) if os == "linux" => (os, "amd64".to_owned()),
            (architecture, None) => ("linux".to_owned(), architecture),
        };
        let architecture = match architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            _ => architecture,
        };
        let variant = third.unwrap_or_default();
        (word(&os) && word(&architecture) && (variant.is_empty() || word(&variant))).then_some(Self {
            os,
            architecture,
            variant,
        })
    }

    /// Whether content for this platform runs where `wanted` is asked for.
    pub(crate) fn serves(&self, wanted: &Self) -> bool {
        let implied = |p: &Self| match (p.architecture.as_str(), p.variant.as_str()) {
            ("arm64", "v8") | ("amd64", "v1") => String::new(),
            (_, variant) => variant.to_owned(),
        };
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_empty() || implied(self) == implied(wanted))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

fn invalid<T>(why: String) -> Result<T, UpstreamError> {
    Err(UpstreamError::Invalid(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob_store::digest_of;

    fn parse(media_type: &str, body: &str) -> Result<Document, UpstreamError> {
        let body = bytes::Bytes::from(body.to_owned());
        Document::parse(&Fetched { media_type: media_type.into(), digest: digest_of(&body), body })
    }

    fn descriptor(media_type: &str, size: u64) -> String {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{size},"urls":["http://127.0.0.1/x"]}}"#,
            digest_of(b"")
        )
    }

    fn manifest(layers: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{layers}]}}"#, descriptor(OCI_CONFIG, 2))
    }

    #[test]
    fn a_document_that_is_both_manifest_and_index_is_refused() {
        let both =
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}}"#, descriptor(OCI_CONFIG, 2));
        for media_type in [OCI_INDEX, OCI_MANIFEST] {
            assert!(parse(media_type, &both).is_err(), "{media_type}");
        }
        let lies = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(parse(OCI_MANIFEST, &lies).is_err());
    }

    #[test]
    fn repeated_keys_other_schemas_and_other_artifacts_are_refused() {
        assert!(parse(OCI_INDEX, r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#).is_err());
        assert!(parse(DOCKER_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#).is_err());
        let chart = manifest("").replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
        assert!(parse(OCI_MANIFEST, &chart).expect_err("chart").to_string().contains("not an image"));
        assert!(parse("text/html", "<html>").is_err());
    }

    #[test]
    fn layers_have_a_known_packing_and_a_limit() {
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar+zstd", 10);
        let Ok(Document::Manifest(read)) = parse(OCI_MANIFEST, &manifest(&layer)) else { panic!("not a manifest") };
        assert_eq!(read.layers[0].1, LayerEncoding::Zstd);
        assert!(parse(OCI_MANIFEST, &manifest(&descriptor("application/x-lzma", 10))).is_err());
        assert!(parse(OCI_MANIFEST, &manifest(&vec![layer; 128].join(","))).is_err());
        assert!(
            parse(OCI_MANIFEST, &manifest(&descriptor("application/vnd.oci.image.layer.v1.tar", u64::MAX))).is_err()
        );
    }

    #[test]
    fn an_index_is_read_for_the_platform_wanted() {
        let entry = |text: &str, tag: &[u8]| Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: digest_of(tag),
            size: 1,
            platform: Platform::parse(text),
        };
        let entries = [entry("unknown/unknown", b"x"), entry("linux/arm64/v8", b"arm"), entry("linux/amd64", b"amd")];
        let chosen = |text: &str| select(&entries, &Platform::parse(text).expect(text)).map(|d| d.digest.clone());
        assert_eq!(chosen("linux/amd64"), Ok(digest_of(b"amd")));
        assert_eq!(chosen("arm64"), Ok(digest_of(b"arm")));
        assert_eq!(
            chosen("linux/s390x").expect_err("none").to_string(),
            "no matching manifest for linux/s390x in the manifest list entries"
        );
    }
}
