//! An image in Docker's shapes, per version of the API. What the config document says is shown, not
//! trusted: a field of the wrong shape is left out.

use std::collections::BTreeMap;

use model::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::ImageRow;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;

use crate::docker::version::RequestedVersion;

/// An image and the parts of its config document that are shown.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) row: ImageRow,
    pub(crate) labels: BTreeMap<String, String>,
    document: Document,
}

/// OCI image configuration, "Properties".
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    author: Value,
    variant: Value,
    config: Value,
    rootfs: Rootfs,
    history: Option<Vec<Step>>,
    docker_version: Value,
    comment: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rootfs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    created: Value,
    created_by: Value,
    comment: Value,
    empty_layer: bool,
}

/// An image in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageSummary {
    /// Containers made from it; -1 before API 1.51.
    containers: i64,
    /// When it was built, Unix seconds.
    created: i64,
    /// Digest of its config.
    id: String,
    /// Labels; null without any.
    labels: Option<BTreeMap<String, String>>,
    /// Always empty: images have no parents here.
    parent_id: &'static str,
    /// `name@digest`.
    repo_digests: Vec<String>,
    /// `name:tag`.
    repo_tags: Vec<String>,
    /// Not computed: -1.
    shared_size: i64,
    /// Bytes.
    size: i64,
    /// The same, before API 1.44.
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<i64>,
}

/// An image in full. Fields come and go with the API version; see Docker's own reference.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageInspect {
    /// Digest of its config.
    #[serde(rename = "Id")]
    id: String,
    /// The other fields.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    rest: Map<String, Value>,
}

/// One step of an image's making.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HistoryEntry {
    comment: String,
    created: i64,
    created_by: String,
    id: String,
    size: u64,
    tags: Option<Vec<String>>,
}

impl Described {
    /// Reads the config document.
    pub(crate) fn new(row: ImageRow) -> Result<Self> {
        let document: Document = serde_json::from_slice(&row.config)
            .map_err(|e| Error::Failed(format!("the config of image {} cannot be read: {e}", row.id)))?;
        let labels = document.config.get("Labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Ok(Self { labels: labels.collect(), row, document })
    }

    /// When it was built, or came into the project if it does not say.
    pub(crate) fn created(&self) -> OffsetDateTime {
        self.row.built_at.unwrap_or(self.row.stored_at)
    }

    /// As in a list.
    pub(crate) fn summary(&self, version: RequestedVersion, containers: i64) -> ImageSummary {
        let unnamed = !version.at_least(43);
        let names = |names: &[String], placeholder: &str| match names {
            [] if unnamed => vec![placeholder.to_owned()],
            names => names.to_vec(),
        };
        ImageSummary {
            containers: if version.at_least(51) { containers } else { -1 },
            created: self.created().unix_timestamp(),
            id: self.row.id.to_string(),
            labels: Some(self.labels.clone()).filter(|labels| !labels.is_empty()),
            parent_id: "",
            repo_digests: names(&self.row.digests, "<none>@<none>"),
            repo_tags: names(&self.row.tags, "<none>:<none>"),
            shared_size: -1,
            size: self.row.size_bytes,
            virtual_size: (!version.at_least(44)).then_some(self.row.size_bytes),
        }
    }

    /// As inspected.
    pub(crate) fn inspect(&self, version: RequestedVersion) -> ImageInspect {
        let mut rest = Map::new();
        let mut put = |key: &str, value: Value| rest.insert(key.to_owned(), value);
        put("RepoTags", json!(self.row.tags));
        put("RepoDigests", json!(self.row.digests));
        let texts = [
            ("Parent", ""),
            ("Comment", self.comment()),
            ("DockerVersion", text(&self.document.docker_version)),
            ("Author", text(&self.document.author)),
        ];
        for (key, value) in texts {
            // From 1.52 on, what is empty is left out.
            if !value.is_empty() || !version.at_least(52) {
                put(key, json!(value));
            }
        }
        put("Created", json!(rfc3339(self.created())));
        if !version.at_least(45) {
            put("Container", json!(""));
            put("ContainerConfig", Value::Null);
        }
        put("Config", self.config(version));
        put("Architecture", json!(self.row.architecture));
        if let Some(variant) = Some(text(&self.document.variant)).filter(|v| !v.is_empty()) {
            put("Variant", json!(variant));
        }
        put("Os", json!(self.row.os));
        put("Size", json!(self.row.size_bytes));
        if !version.at_least(44) {
            put("VirtualSize", json!(self.row.size_bytes));
        }
        put("GraphDriver", json!({ "Data": null, "Name": "overlay2" }));
        put("RootFS", json!({ "Type": "layers", "Layers": self.document.rootfs.diff_ids }));
        put("Metadata", json!({ "LastTagTime": rfc3339(self.row.last_tagged_at.unwrap_or(self.row.stored_at)) }));
        ImageInspect { id: self.row.id.to_string(), rest }
    }

    /// Before 1.50 the config had every field of a container's, set or not.
    fn config(&self, version: RequestedVersion) -> Value {
        let Value::Object(given) = &self.document.config else {
            return json!({});
        };
        if version.at_least(50) {
            return Value::Object(given.clone());
        }
        let mut full = json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
            "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
            "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
        });
        if let Value::Object(full) = &mut full {
            full.extend(given.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        full
    }

    fn comment(&self) -> &str {
        let last = self.document.history.as_deref().and_then(<[Step]>::last);
        match text(&self.document.comment) {
            "" => last.map_or("", |step| text(&step.comment)),
            comment => comment,
        }
    }

    /// Its steps, the last first. Only the last has the image's id.
    pub(crate) fn history(&self) -> Vec<HistoryEntry> {
        let mut layers = self.row.layers.iter();
        let bare: Vec<Step> = self.row.layers.iter().map(|_| Step::default()).collect();
        let steps = self.document.history.as_ref().filter(|steps| !steps.is_empty()).unwrap_or(&bare);
        let mut entries: Vec<HistoryEntry> = steps
            .iter()
            .map(|step| HistoryEntry {
                comment: text(&step.comment).to_owned(),
                created: OffsetDateTime::parse(text(&step.created), &Rfc3339)
                    .unwrap_or_else(|_| self.created())
                    .unix_timestamp(),
                created_by: text(&step.created_by).to_owned(),
                id: "<missing>".to_owned(),
                size: if step.empty_layer { 0 } else { layers.next().map_or(0, |layer| layer.size_bytes) },
                tags: None,
            })
            .collect();
        entries.reverse();
        if let Some(last) = entries.first_mut() {
            last.id = self.row.id.to_string();
            last.tags = Some(self.row.tags.clone()).filter(|tags| !tags.is_empty());
        }
        entries
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use model::{Digest, LayerDescriptor, LayerEncoding};

    use super::*;
    use crate::docker::version::ApiVersion;

    /// An image with two layers and three steps.
    pub(crate) fn image(tags: &[&str]) -> Described {
        let layer = |n: u8| LayerDescriptor {
            digest: Digest::sha256([n; 32]),
            diff_id: Digest::sha256([n + 1; 32]),
            size_bytes: u64::from(n) * 100,
            encoding: LayerEncoding::Gzip,
        };
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": 7,
            "config": { "Cmd": ["sh"], "Labels": { "a": "b" } },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:x", "sha256:y"] },
            "history": [
                { "created": "2026-01-01T00:00:00Z", "created_by": "ADD x" },
                { "created_by": "ENV a=b", "empty_layer": true },
                { "created_by": "COPY y", "comment": "the end" },
            ],
        });
        Described::new(ImageRow {
            id: Digest::sha256([9; 32]),
            manifest_digest: Digest::sha256([8; 32]),
            config: config.to_string().into_bytes(),
            layers: vec![layer(1), layer(3)],
            architecture: "amd64".into(),
            os: "linux".into(),
            size_bytes: 400,
            built_at: Some(OffsetDateTime::UNIX_EPOCH),
            stored_at: OffsetDateTime::UNIX_EPOCH,
            last_tagged_at: None,
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            digests: Vec::new(),
        })
        .expect("reads")
    }

    fn version(minor: u16) -> RequestedVersion {
        RequestedVersion(ApiVersion::one(minor))
    }

    #[test]
    fn a_list_entry_has_the_shape_of_the_version_asked_for() {
        let new = json!(image(&[]).summary(version(51), 2));
        assert_eq!((&new["Containers"], &new["RepoTags"], new.get("VirtualSize")), (&json!(2), &json!([]), None));
        let old = json!(image(&[]).summary(version(42), 2));
        assert_eq!((&old["Containers"], &old["RepoTags"]), (&json!(-1), &json!(["<none>:<none>"])));
        assert_eq!(old["VirtualSize"], json!(400));
    }

    #[test]
    fn empty_texts_are_left_out_from_1_52_on() {
        let new = json!(image(&["a:1"]).inspect(version(52)));
        assert!(new.get("Parent").is_none() && new.get("Author").is_none());
        assert_eq!(new["Comment"], "the end");
        let old = json!(image(&["a:1"]).inspect(version(49)));
        assert_eq!(
            (&old["Parent"], &old["Config"]["Tty"], &old["Config"]["Cmd"]),
            (&json!(""), &json!(false), &json!(["sh"]))
        );
    }

    #[test]
    fn history_goes_backwards_and_empty_steps_weigh_nothing() {
        let history = image(&["a:1"]).history();
        let seen: Vec<_> = history.iter().map(|e| (e.created_by.as_str(), e.size)).collect();
        assert_eq!(seen, [("COPY y", 300), ("ENV a=b", 0), ("ADD x", 100)]);
        assert_eq!(history[0].tags.as_deref(), Some(&["a:1".to_owned()][..]));
        assert_eq!((history[1].id.as_str(), &history[1].tags), ("<missing>", &None));
    }
}
