//! Taking images in from an archive. It is read to its end first; then each image is checked (digests,
//! diff ids, shape of the config), its layers are stored, and one transaction shows it in the project.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::{self, Read as _},
    sync::Arc,
};

use axum::body::BodyDataStream;
use contract::{image::LoadQuery, wake::Topic};
use futures::StreamExt as _;
use model::{Digest, Error, LayerDescriptor, LayerEncoding, Result};
use ring::digest::{Context, SHA256};
use store::{ProjectScope, StoredImage};
use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, task::spawn_blocking};

use super::{
    Archives,
    layout::{self, Found, FoundLayer},
    platform, refuse,
    spool::{Content, Spool},
    told,
};
use crate::{
    blob_store::{Kept, digest_of},
    image_config::{self, CheckedConfig},
    limits::{ARCHIVE_DRAINED_BYTES_MAX, LAYER_BYTES_MAX, SERVE_CHUNK_BYTES, UNPACKED_BYTES_MAX},
    make,
    pull::Progress,
    upload::{self, Chunks},
    upstream::Platform,
};

/// Layers of this archive that are stored, as they are given or packed here; kept until the last of its
/// images refers to them.
type Stored = HashMap<(Digest, bool), (LayerDescriptor, Kept)>;

/// A load that can begin.
pub(crate) struct Load {
    archives: Archives,
    scope: ProjectScope,
    quiet: bool,
    asked_for: Option<Platform>,
    // With the threads too: they go on for a while when nobody listens any more.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Archives {
    /// Reads what is asked for.
    ///
    /// # Errors
    /// The platform cannot be read, or too many archives are being taken in.
    pub(crate) fn load(&self, query: &LoadQuery) -> Result<Load> {
        let busy = |_| Error::Unavailable("too many archives are being loaded; try again".into());
        Ok(Load {
            archives: self.clone(),
            scope: ProjectScope::delegated(query.project),
            quiet: query.quiet,
            asked_for: query.platform.as_deref().filter(|p| !p.is_empty()).map(platform).transpose()?,
            permit: Arc::new(self.loads.clone().try_acquire_owned().map_err(busy)?),
        })
    }
}

impl Load {
    /// Runs to the end, saying how it goes in dockerd's words.
    pub(crate) async fn run(self, body: BodyDataStream, progress: &Progress) -> Result<()> {
        let (spool, images) = self.read(body).await?;
        let mut stored = Stored::new();
        for image in &images {
            self.take(&spool, image, &mut stored, progress).await?;
        }
        Ok(())
    }

    async fn read(&self, mut body: BodyDataStream) -> Result<(Spool, Vec<Found>)> {
        let (sender, chunks) = tokio::sync::mpsc::channel(8);
        let feed = async move {
            let mut unread = ARCHIVE_DRAINED_BYTES_MAX;
            while let Some(chunk) = body.next().await {
                let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                let broken = chunk.is_err();
                let chunk = chunk.map_err(|e| io::Error::new(io::ErrorKind::ConnectionAborted, e.to_string()));
                // Whoever is still sending does not read: what is wrong is told when the rest is through.
                if sender.send(chunk).await.is_err() {
                    unread = unread.saturating_sub(length);
                }
                if broken || unread == 0 {
                    return;
                }
            }
        };
        let (dir, permit) = (self.archives.blobs.staging(), self.permit.clone());
        let wanted = self.asked_for.clone().unwrap_or_else(|| self.archives.platform.clone());
        let reader = Chunks::new(chunks, Handle::current());
        let reading = spawn_blocking(move || {
            let _permit = permit;
            let spool = Spool::read(upload::unpacked(reader)?, &dir)?;
            let images = layout::images(&spool, &wanted)?;
            Ok((spool, images))
        });
        let (read, ()) = tokio::join!(reading, feed);
        read.map_err(Error::internal)?.map_err(|e: io::Error| told(&e))
    }

    async fn take(&self, spool: &Spool, found: &Found, stored: &mut Stored, progress: &Progress) -> Result<()> {
        let id = digest_of(&found.config);
        let bad = |e: &dyn std::fmt::Display| Error::InvalidArgument(format!("invalid archive: {e}"));
        let checked = image_config::check(&found.config, found.layers.len()).map_err(|e| bad(&e))?;
        self.check_platform(found, &id, &checked.platform)?;
        if self.is_held(&id).await? {
            return self.record(found, &id, None, progress).await;
        }
        let mut layers = Vec::new();
        for (layer, diff_id) in found.layers.iter().zip(&checked.diff_ids) {
            let key = (layer.content.digest.clone(), layer.encoding.is_some());
            if !self.quiet {
                progress.loading(diff_id, 0, layer.content.length).await;
            }
            let kept = match stored.entry(key) {
                Entry::Occupied(there) => there.get().0.clone(),
                Entry::Vacant(free) => free.insert(self.store(spool, layer).await?).0.clone(),
            };
            if kept.diff_id != *diff_id {
                let at = layers.len();
                return Err(bad(&format!(
                    "invalid diffID for layer {at}: expected {diff_id:?}, got {:?}",
                    kept.diff_id
                )));
            }
            if !self.quiet {
                progress.loading(diff_id, layer.content.length, layer.content.length).await;
            }
            layers.push(kept);
        }
        self.record(found, &id, Some((&checked, &layers)), progress).await
    }

    fn check_platform(&self, found: &Found, id: &Digest, platform: &Platform) -> Result<()> {
        match &self.asked_for {
            Some(wanted) if platform.os != wanted.os || platform.architecture != wanted.architecture => {
                let shown = found.names.first().map_or_else(|| id.to_string(), ToString::to_string);
                Err(Error::NotFound(format!(
                    "image {shown} was found in the archive, but its platform ({platform}) does not match the requested platform ({wanted})"
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The project has the image, and all of it is here.
    async fn is_held(&self, id: &Digest) -> Result<bool> {
        let row = self.archives.store.project_tx(&self.scope).await?.image_by_id(id).await?;
        let Some(row) = row else { return Ok(false) };
        for layer in &row.layers {
            if self.archives.blobs.size(&layer.digest).await? != Some(layer.size_bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stores a layer: as it is if a manifest says how it is packed, else packed as imports are.
    async fn store(&self, spool: &Spool, layer: &FoundLayer) -> Result<(LayerDescriptor, Kept)> {
        let (blobs, store) = (&self.archives.blobs, &self.archives.store);
        let (source, dir, permit) = (spool.clone(), blobs.staging(), self.permit.clone());
        let FoundLayer { content, encoding } = layer.clone();
        let measured = spawn_blocking(move || {
            let _permit = permit;
            match encoding {
                Some(encoding) => measure(&source, &content, encoding).map(|layer| (None, layer)),
                None => upload::pack(source.open(&content), &dir).map(|(file, layer)| (Some(file), layer)),
            }
        });
        let (packed, measured) = measured.await.map_err(Error::internal)?.map_err(|e| told(&e))?;
        let kept = blobs.keep(vec![measured.digest.clone()]).await;
        if blobs.size(&measured.digest).await? != Some(measured.size_bytes) {
            match packed {
                Some(file) => upload::store_file(blobs, file, &measured).await?,
                None => self.copy(spool, &layer.content).await?,
            }
        }
        let origin = format!("project:{}", self.scope.project());
        store.record_blob(&measured.digest, measured.size_bytes, &origin).await?;
        Ok((measured, kept))
    }

    async fn copy(&self, spool: &Spool, content: &Content) -> Result<()> {
        let mut writer = self.archives.blobs.begin(&content.digest, content.length).await?;
        let mut source = spool.open(content);
        loop {
            let read = spawn_blocking(move || {
                let mut chunk = Vec::with_capacity(SERVE_CHUNK_BYTES);
                source.by_ref().take(SERVE_CHUNK_BYTES as u64).read_to_end(&mut chunk).map(|_| (source, chunk))
            });
            let (rest, chunk) = read.await.map_err(Error::internal)?.map_err(|e| told(&e))?;
            source = rest;
            if chunk.is_empty() {
                return writer.finish().await;
            }
            writer.write(chunk.into()).await?;
        }
    }

    /// One transaction: the image if it is new, its names, the event.
    async fn record(
        &self,
        found: &Found,
        id: &Digest,
        new: Option<(&CheckedConfig, &[LayerDescriptor])>,
        progress: &Progress,
    ) -> Result<()> {
        let manifest = match (&found.manifest, new) {
            (Some(manifest), _) => manifest.clone(),
            (None, Some((_, layers))) => make::manifest(&found.config, layers).to_string().into_bytes(),
            (None, None) => Vec::new(),
        };
        let manifest_digest = digest_of(&manifest);
        let image = new.map(|(checked, layers)| StoredImage {
            id,
            manifest_digest: &manifest_digest,
            manifest: &manifest,
            config: &found.config,
            layers,
            architecture: &checked.platform.architecture,
            os: &checked.platform.os,
            size_bytes: i64::try_from(layers.iter().map(|l| l.size_bytes).sum::<u64>()).unwrap_or(i64::MAX),
            built_at: checked.built_at,
        });
        let mut tx = self.archives.store.project_tx(&self.scope).await?;
        let taken = tx.record_loaded_image(id, image.as_ref(), &found.names).await?;
        tx.commit().await?;
        self.archives.bus.publish(&Topic::Project(self.scope.project()));
        tracing::info!(image = %id, names = found.names.len(), new = new.is_some(), "loaded");
        for (name, other) in taken {
            let text =
                format!("The image {name} already exists, renaming the old one with ID {other} to empty string\n");
            progress.stream(text).await;
        }
        for name in &found.names {
            progress.stream(format!("Loaded image: {name}\n")).await;
        }
        if found.names.is_empty() {
            progress.stream(format!("Loaded image ID: {id}\n")).await;
        }
        Ok(())
    }
}

/// What a layer unpacks to, its packing given.
fn measure(spool: &Spool, content: &Content, encoding: LayerEncoding) -> io::Result<LayerDescriptor> {
    if content.length > LAYER_BYTES_MAX {
        return Err(refuse(format!("layer {} has more than {LAYER_BYTES_MAX} bytes", content.digest)));
    }
    let diff_id = match encoding {
        LayerEncoding::Tar => content.digest.clone(),
        LayerEncoding::Gzip | LayerEncoding::Zstd => {
            let mut tar = upload::decoder(encoding, io::BufReader::with_capacity(128 << 10, spool.open(content)))?;
            let (mut sum, mut length, mut buffer) = (Context::new(&SHA256), 0_u64, vec![0; 128 << 10]);
            loop {
                let n = tar.read(&mut buffer)?;
                if n == 0 {
                    break upload::digest_of(sum);
                }
                length += n as u64;
                if length > UNPACKED_BYTES_MAX {
                    let digest = &content.digest;
                    return Err(refuse(format!("layer {digest} unpacks to more than {UNPACKED_BYTES_MAX} bytes")));
                }
                sum.update(&buffer[..n]);
            }
        }
    };
    Ok(LayerDescriptor { digest: content.digest.clone(), diff_id, size_bytes: content.length, encoding })
}
