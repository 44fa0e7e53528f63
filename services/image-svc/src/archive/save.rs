//! Packing images: the documents that name them, and their blobs as they are stored. Nothing is copied
//! first: every length is known, so the tar is made while it is read. Images share what they have in
//! common.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use bytes::Bytes;
use contract::image::SaveRequest;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use model::{Digest, Error, ImageReference, LayerDescriptor, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{ProjectScope, ProjectTx};
use tar::{EntryType, Header};

use super::{Archives, blob_path, platform};
use crate::{
    blob_store::{BlobStore, digest_of},
    limits::ARCHIVE_IMAGES_MAX,
    upstream::Platform,
};

const BLOCK: u64 = 512;

/// An image that is asked for, under some of its names or none.
struct Chosen {
    id: Digest,
    names: Vec<ImageReference>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<LayerDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    media_type: Option<String>,
}

/// A piece of the tar.
enum Piece {
    Bytes(Bytes),
    Blob(Digest),
}

impl Archives {
    /// The archive of what is asked for.
    ///
    /// # Errors
    /// There is no such image, or not all of it is here. Later ones end the stream.
    pub(crate) async fn save(
        &self,
        request: &SaveRequest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<>> {
        let busy = |_| Error::Unavailable("too many images are being saved; try again".into());
        let permit = Arc::new(self.saves.clone().try_acquire_owned().map_err(busy)?);
        let platforms = request.platforms.iter().map(|text| platform(text)).collect::<Result<Vec<_>>>()?;
        let mut tx = self.store.project_tx(&ProjectScope::delegated(request.project)).await?;
        let chosen = choose(&mut tx, &request.names, &platforms).await?;
        let ids: Vec<Digest> = chosen.iter().map(|image| image.id.clone()).collect();
        tx.note_saved_images(&ids).await?;
        let pieces = pieces(&chosen)?;
        let layers = || chosen.iter().flat_map(|image| &image.layers);
        // Until the last byte: an image may be removed while it is saved.
        let kept = self.blobs.keep(layers().map(|layer| layer.digest.clone()).collect()).await;
        for layer in layers() {
            if self.blobs.size(&layer.digest).await? != Some(layer.size_bytes) {
                return Err(Error::Failed(format!(
                    "layer {} is not here any more; pull the image again",
                    layer.digest
                )));
            }
        }
        tx.commit().await?;
        tracing::info!(project = %request.project, images = chosen.len(), "saving");
        let blobs = self.blobs.clone();
        let bytes = stream::iter(pieces).map(move |piece| match piece {
            Piece::Bytes(bytes) => stream::once(future::ready(Ok(bytes))).boxed(),
            Piece::Blob(digest) => content(blobs.clone(), digest).boxed(),
        });
        Ok(bytes.flatten().inspect(move |_| _ = (&permit, &kept)))
    }
}

fn content(blobs: BlobStore, digest: Digest) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let opened = async move { blobs.read(&digest, None).await.map(|blob| blob.stream).map_err(io::Error::other) };
    stream::once(opened).try_flatten()
}

/// What names mean to dockerd: one without tag or digest is every tag of the repository.
async fn choose(tx: &mut ProjectTx, names: &[String], platforms: &[Platform]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<(Digest, Vec<ImageReference>)> = Vec::new();
    let mut add = |id: Digest, name: Option<ImageReference>| match chosen.iter_mut().find(|(known, _)| *known == id) {
        Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
        None => chosen.push((id, name.into_iter().collect())),
    };
    for written in names {
        let reference = written.parse::<ImageReference>().ok();
        let tagged = written.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let all = match &reference {
            Some(reference) if !tagged => tx.tagged_images(reference, None).await?,
            Some(_) | None => Vec::new(),
        };
        if let (Some(reference), false) = (&reference, all.is_empty()) {
            for image in all {
                add(image.id, Some(reference.with_tag(&image.tag)));
            }
            continue;
        }
        let id = tx.resolve_image_id(written).await?;
        let by_name = match &reference {
            Some(reference) if reference.digest.is_none() => tx.image_named(reference).await?.as_ref() == Some(&id),
            Some(_) | None => false,
        };
        add(id, reference.filter(|_| by_name));
    }
    if chosen.len() > ARCHIVE_IMAGES_MAX {
        return Err(Error::InvalidArgument(format!("more than {ARCHIVE_IMAGES_MAX} images at once")));
    }
    let mut whole = Vec::new();
    for (id, names) in chosen {
        let gone = || Error::NotFound(format!("No such image: {id}"));
        let row = tx.image_by_id(&id).await?.ok_or_else(gone)?;
        let manifest = tx.image_manifest(&id).await?.ok_or_else(gone)?;
        let found = Platform { os: row.os, architecture: row.architecture, variant: String::new() };
        if let Some(wanted) = platforms.iter().find(|p| p.os != found.os || p.architecture != found.architecture) {
            let shown = names.first().map_or_else(|| id.to_string(), ToString::to_string);
            return Err(Error::NotFound(format!(
                "image with reference {shown} was found but its platform ({found}) does not match the specified platform ({wanted})"
            )));
        }
        whole.push(Chosen { id, names, manifest, config: row.config, layers: row.layers });
    }
    Ok(whole)
}

/// The whole tar, in dockerd's order.
fn pieces(images: &[Chosen]) -> Result<Vec<Piece>> {
    let mut blobs: BTreeMap<Digest, (u64, Piece)> = BTreeMap::new();
    for image in images {
        for document in [&image.manifest, &image.config] {
            let bytes = Bytes::copy_from_slice(document);
            blobs.insert(digest_of(document), (document.len() as u64, Piece::Bytes(bytes)));
        }
        for layer in &image.layers {
            blobs.insert(layer.digest.clone(), (layer.size_bytes, Piece::Blob(layer.digest.clone())));
        }
    }
    let mut tar = vec![directory("blobs/")?, directory("blobs/sha256/")?];
    for (digest, (length, content)) in blobs {
        file(&mut tar, &blob_path(&digest), length, content)?;
    }
    for (name, document) in documents(images)? {
        let body = document.to_string().into_bytes();
        file(&mut tar, name, body.len() as u64, Piece::Bytes(body.into()))?;
    }
    tar.push(Piece::Bytes(Bytes::from_static(&[0; 1024])));
    Ok(tar)
}

fn documents(images: &[Chosen]) -> Result<[(&'static str, Value); 4]> {
    let (mut index, mut manifest) = (Vec::new(), Vec::new());
    let mut repositories: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for image in images {
        let typed: Typed = serde_json::from_slice(&image.manifest).map_err(Error::internal)?;
        let kind = typed.media_type.unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
        let entry = json!({"mediaType": kind, "digest": digest_of(&image.manifest), "size": image.manifest.len()});
        if image.names.is_empty() {
            index.push(entry.clone());
        }
        for name in &image.names {
            let tag = name.tag.as_deref().unwrap_or("latest");
            let mut named = entry.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": format!("{}:{tag}", name.full_name()),
                "org.opencontainers.image.ref.name": tag,
            });
            index.push(named);
            if let Some(top) = image.layers.last() {
                repositories.entry(name.familiar_name()).or_default().insert(tag.to_owned(), top.digest.hex());
            }
        }
        let tags: BTreeSet<String> = image.names.iter().map(ImageReference::familiar).collect();
        let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        manifest.push(json!({
            "Config": blob_path(&image.id),
            "RepoTags": Some(tags).filter(|tags| !tags.is_empty()),
            "Layers": layers,
        }));
    }
    Ok([
        (
            "index.json",
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index}),
        ),
        ("manifest.json", Value::Array(manifest)),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ("repositories", json!(repositories)),
    ])
}

fn directory(name: &str) -> Result<Piece> {
    header(EntryType::Directory, name, 0, 0o755)
}

fn file(tar: &mut Vec<Piece>, name: &str, length: u64, content: Piece) -> Result<()> {
    tar.push(header(EntryType::Regular, name, length, 0o644)?);
    tar.push(content);
    let over = usize::try_from(length % BLOCK).map_err(Error::internal)?;
    if over > 0 {
        tar.push(Piece::Bytes(Bytes::from_static(&[0; 512]).slice(over..)));
    }
    Ok(())
}

/// Without a time or an owner: the same images are the same bytes.
fn header(kind: EntryType, name: &str, length: u64, mode: u32) -> Result<Piece> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(name).map_err(Error::internal)?;
    header.set_size(length);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(Piece::Bytes(Bytes::copy_from_slice(header.as_bytes())))
}
