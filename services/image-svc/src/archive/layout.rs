//! What an archive says is in it: the images of an OCI layout (`index.json`), or of Docker's own format
//! (`manifest.json`). A layout comes first where both are there, as with dockerd's containerd store.

use std::{collections::BTreeMap, io};

use model::{Digest, DigestAlgorithm, ImageReference, LayerEncoding};
use serde::Deserialize;

use super::{
    blob_path, refuse,
    spool::{Content, Spool},
};
use crate::{
    blob_store::mismatch,
    limits::{
        ARCHIVE_IMAGES_MAX, CONFIG_BYTES_MAX, INDEX_DEPTH_MAX, INDEX_ENTRIES_MAX, LAYERS_MAX, MANIFEST_BYTES_MAX,
    },
    upstream::{Descriptor, Document, Fetched, Platform, select},
};

/// What containerd and dockerd name an image by, and what the OCI image spec has for it.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// One image of an archive, its parts found but not yet believed.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Vec<ImageReference>,
    pub(super) config: Vec<u8>,
    /// Lowest first.
    pub(super) layers: Vec<FoundLayer>,
    /// As it came; one is made of the others if none did.
    pub(super) manifest: Option<Vec<u8>>,
}

/// A layer of it.
#[derive(Clone, Debug)]
pub(super) struct FoundLayer {
    pub(super) content: Content,
    /// What its manifest says; without one its first bytes tell.
    pub(super) encoding: Option<LayerEncoding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Every image of an archive; of one with several platforms that of `wanted`.
pub(super) fn images(spool: &Spool, wanted: &Platform) -> io::Result<Vec<Found>> {
    if let (Some(layout), Some(index)) = (spool.find("oci-layout")?, spool.find("index.json")?) {
        let layout: Layout = parse("oci-layout", &spool.document(layout, MANIFEST_BYTES_MAX)?)?;
        if !layout.image_layout_version.starts_with("1.") {
            return Err(refuse(format!("its layout has the version {:?}", layout.image_layout_version)));
        }
        return of_layout(spool, &spool.document(index, MANIFEST_BYTES_MAX)?, wanted);
    }
    let Some(manifest) = spool.find("manifest.json")? else {
        return Err(refuse("does not contain a manifest.json"));
    };
    let items: Vec<Item> = parse("manifest.json", &spool.document(manifest, MANIFEST_BYTES_MAX)?)?;
    limited(items.len(), ARCHIVE_IMAGES_MAX, "images")?;
    items.into_iter().map(|item| of_item(spool, item)).collect()
}

fn of_item(spool: &Spool, item: Item) -> io::Result<Found> {
    let tags = item.repo_tags.unwrap_or_default();
    limited(tags.len(), ARCHIVE_IMAGES_MAX, "names of one image")?;
    let name = |tag: String| {
        let named = tag.parse::<ImageReference>().ok().filter(|name| name.digest.is_none());
        named.ok_or_else(|| refuse(format!("invalid tag {:?}", tag.chars().take(200).collect::<String>())))
    };
    let layers = item.layers.unwrap_or_default();
    limited(layers.len(), LAYERS_MAX, "layers of one image")?;
    let layer = |path: &String| Ok(FoundLayer { content: spool.need(path)?.clone(), encoding: None });
    Ok(Found {
        names: tags.into_iter().map(name).collect::<io::Result<_>>()?,
        config: spool.document(spool.need(&item.config)?, CONFIG_BYTES_MAX)?,
        layers: layers.iter().map(layer).collect::<io::Result<_>>()?,
        manifest: None,
    })
}

fn of_layout(spool: &Spool, index: &[u8], wanted: &Platform) -> io::Result<Vec<Found>> {
    let index: Index = parse("index.json", index)?;
    if index.schema_version != 2 {
        return Err(refuse(format!("index.json has the schema version {}", index.schema_version)));
    }
    limited(index.manifests.len(), INDEX_ENTRIES_MAX, "images")?;
    let mut found: Vec<(Digest, Found)> = Vec::new();
    for Entry { descriptor, annotations } in &index.manifests {
        let name = annotations.as_ref().and_then(name_in);
        let manifest = manifest_of(spool, descriptor, wanted)?;
        // One image under several names is as many entries.
        if let Some((_, same)) = found.iter_mut().find(|(digest, _)| *digest == manifest.0.digest) {
            same.names.extend(name.filter(|name| !same.names.contains(name)));
            continue;
        }
        let (fetched, image) = manifest;
        let config = blob(spool, &image.config)?;
        let layer = |(layer, encoding): &(Descriptor, LayerEncoding)| {
            Ok(FoundLayer { content: blob(spool, layer)?.clone(), encoding: Some(*encoding) })
        };
        let image = Found {
            names: name.into_iter().collect(),
            config: spool.document(config, CONFIG_BYTES_MAX)?,
            layers: image.layers.iter().map(layer).collect::<io::Result<_>>()?,
            manifest: Some(fetched.body.to_vec()),
        };
        found.push((fetched.digest, image));
    }
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

/// The name an entry gives; an image with one that cannot be read has none.
fn name_in(annotations: &BTreeMap<String, String>) -> Option<ImageReference> {
    let written = NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key).filter(|name| !name.is_empty()))?;
    written.parse::<ImageReference>().ok().filter(|name| name.digest.is_none())
}

/// From an entry to one platform's manifest.
fn manifest_of(
    spool: &Spool,
    entry: &Descriptor,
    wanted: &Platform,
) -> io::Result<(Fetched, crate::upstream::ImageManifest)> {
    let mut at = entry.clone();
    for _ in 0..=INDEX_DEPTH_MAX {
        let body = spool.document(blob(spool, &at)?, MANIFEST_BYTES_MAX)?;
        let fetched = Fetched { media_type: at.media_type.clone(), digest: at.digest.clone(), body: body.into() };
        match Document::parse(&fetched).map_err(refuse)? {
            Document::Manifest(image) => return Ok((fetched, image)),
            Document::Index(entries) => at = select(&entries, wanted).map_err(refuse)?.clone(),
        }
    }
    Err(refuse(format!("the index is nested more than {INDEX_DEPTH_MAX} deep")))
}

/// The content that a descriptor names, if it is what the descriptor says.
fn blob<'a>(spool: &'a Spool, descriptor: &Descriptor) -> io::Result<&'a Content> {
    let Descriptor { digest, size, .. } = descriptor;
    if digest.algorithm() != DigestAlgorithm::Sha256 {
        return Err(refuse(format!("{digest}: an image that runs here is named by sha256 digests")));
    }
    let content = spool.need(&blob_path(digest))?;
    if content.digest != *digest {
        return Err(refuse(mismatch(digest, &content.digest)));
    }
    if content.length != *size {
        return Err(refuse(format!("blob {digest} has {} bytes where its descriptor says {size}", content.length)));
    }
    Ok(content)
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, document: &[u8]) -> io::Result<T> {
    serde_json::from_slice(document).map_err(|e| refuse(format!("{name} cannot be read: {e}")))
}

fn limited(count: usize, most: usize, what: &str) -> io::Result<()> {
    if count > most { Err(refuse(format!("it has more than {most} {what}"))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tar::{Builder, Header};

    use super::*;
    use crate::blob_store::digest_of;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn spool(files: &[(String, Vec<u8>)]) -> Spool {
        let mut out = Builder::new(Vec::new());
        for (name, body) in files {
            let mut header = Header::new_gnu();
            header.set_size(body.len() as u64);
            out.append_data(&mut header, name, body.as_slice()).expect("appends");
        }
        let dir = tempfile::tempdir().expect("tempdir");
        Spool::read(out.into_inner().expect("ends").as_slice(), dir.path()).expect("reads")
    }

    fn descriptor(kind: &str, content: &[u8]) -> Value {
        json!({"mediaType": kind, "digest": digest_of(content), "size": content.len()})
    }

    fn stored(content: &[u8]) -> (String, Vec<u8>) {
        (blob_path(&digest_of(content)), content.to_vec())
    }

    fn read(files: &[(String, Vec<u8>)]) -> io::Result<Vec<Found>> {
        images(&spool(files), &Platform::parse("linux/amd64").expect("a platform"))
    }

    /// Manifest, and the files of a layout whose index has `entries`.
    fn layout(entries: impl FnOnce(Value) -> Value) -> Vec<(String, Vec<u8>)> {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b"layer")],
        })
        .to_string()
        .into_bytes();
        let index = json!({"schemaVersion": 2, "manifests": entries(descriptor(MANIFEST, &manifest))});
        vec![
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".into(), index.to_string().into_bytes()),
            stored(&manifest),
            stored(b"{}"),
            stored(b"layer"),
        ]
    }

    fn named(mut entry: Value, key: &str, name: &str) -> Value {
        entry["annotations"] = json!({key: name});
        entry
    }

    #[test]
    fn an_image_of_a_layout_has_all_the_names_its_entries_give() {
        let files = layout(|entry| {
            json!([
                named(entry.clone(), NAME_ANNOTATIONS[0], "docker.io/library/a:1"),
                named(entry.clone(), NAME_ANNOTATIONS[1], "r.example/b:2"),
                named(entry.clone(), NAME_ANNOTATIONS[1], "NO NAME"),
                entry,
            ])
        });
        let found = read(&files).expect("reads");
        let names: Vec<String> = found[0].names.iter().map(ToString::to_string).collect();
        assert_eq!((found.len(), names), (1, vec!["a:1".to_owned(), "r.example/b:2".to_owned()]));
        assert_eq!(found[0].layers[0].encoding, Some(LayerEncoding::Gzip));
        assert!(found[0].manifest.is_some());
    }

    #[test]
    fn content_that_is_not_what_it_is_called_is_refused() {
        let mut files = layout(|entry| json!([entry]));
        files[4].1 = b"LAYER".to_vec();
        assert!(read(&files).expect_err("another layer").to_string().contains("verification failed"));
        files.truncate(4);
        assert!(read(&files).expect_err("no layer").to_string().contains("no such file"));
        let short = layout(|mut entry| {
            entry["size"] = json!(1);
            json!([entry])
        });
        assert!(read(&short).expect_err("a lie").to_string().contains("its descriptor says 1"));
    }

    #[test]
    fn of_several_platforms_that_of_the_fleet_is_taken() {
        let mut files = layout(|entry| json!([entry]));
        let mut entries: Value = serde_json::from_slice(&files[1].1).expect("an index");
        entries["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut missing = descriptor(MANIFEST, b"not in the archive");
        missing["platform"] = json!({"os": "linux", "architecture": "arm64"});
        let children = json!({"schemaVersion": 2, "manifests": [missing, entries["manifests"][0]]});
        let children = children.to_string().into_bytes();
        files.push(stored(&children));
        files[1].1 = json!({"schemaVersion": 2, "manifests": [descriptor(OCI_INDEX, &children)]}).to_string().into();
        assert_eq!(read(&files).expect("reads").len(), 1);
        let other = images(&spool(&files), &Platform::parse("linux/s390x").expect("a platform"));
        assert!(other.expect_err("none").to_string().contains("no matching manifest for linux/s390x"));
    }

    #[test]
    fn docker_archives_are_read_by_the_names_they_give() {
        let manifest = json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["x/layer.tar"]}]);
        let files = |manifest: &Value| {
            vec![
                ("c.json".to_owned(), b"{}".to_vec()),
                ("x/layer.tar".to_owned(), b"layer".to_vec()),
                ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
            ]
        };
        let found = read(&files(&manifest)).expect("reads");
        assert_eq!((found[0].names[0].to_string().as_str(), found[0].layers.len()), ("a:1", 1));
        for (field, value, why) in [
            ("Config", json!("../../etc/passwd"), "leads out"),
            ("Config", json!("absent.json"), "no such file"),
            ("Layers", json!(["/etc/shadow"]), "leads out"),
            ("Layers", json!(vec!["x/layer.tar"; LAYERS_MAX + 1]), "layers of one image"),
            ("RepoTags", json!(["A B"]), "invalid tag"),
            ("RepoTags", json!([format!("a@sha256:{}", "0".repeat(64))]), "invalid tag"),
        ] {
            let mut bad = manifest.clone();
            bad[0][field] = value;
            let error = read(&files(&bad)).expect_err(why).to_string();
            assert!(error.contains(why), "{field}: {error}");
        }
        assert!(read(&[]).expect_err("nothing").to_string().contains("does not contain a manifest.json"));
        let many = json!(vec![manifest[0].clone(); ARCHIVE_IMAGES_MAX + 1]);
        assert!(read(&files(&many)).expect_err("many").to_string().contains("more than 1000 images"));
    }
}
