//! One upload: begun, appended to, finished. Its bytes are in a file of its own; Postgres holds how many
//! of them are durable. Whatever happens in between, an upload goes on from that offset or is unknown,
//! and a blob is seen whole or not at all.
//!
//! ```text
//! POST ─► begun ─► PATCH (append, note the offset)* ─► PUT: verify ─► rename + link, one transaction
//!            └────────────────── DELETE, or a day without a request ──► gone
//! ```

mod small;

use std::{io, path::PathBuf};

use bytes::Bytes;
use contract::registry::Code;
use futures::{FutureExt as _, Stream, StreamExt as _};
use model::{Digest, DigestAlgorithm, Error, RepositoryId, UploadId};
use ring::digest::Context;
use store::{OpenUpload, ProjectScope};

use super::{
    Failure, Outcome, Registry, refused,
    session::{Sum, Turn},
    writer::Writer,
};
use crate::{
    blob_store::{digest_from, hash, storage_error},
    limits::{LAYER_BYTES_MAX, UPLOAD_NOTED_BYTES, UPLOAD_PATIENCE},
};

/// Which upload, and of whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload {
    pub(crate) scope: ProjectScope,
    pub(crate) repository: RepositoryId,
    pub(crate) id: UploadId,
}

/// What a request that goes on with an upload says of its body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// Where in the whole it begins.
    pub(crate) start: Option<u64>,
    /// How long it is.
    pub(crate) length: Option<u64>,
}

/// Whether a request is the last of its upload.
struct Ends(bool);

fn unknown<T>() -> Outcome<T> {
    refused(Code::BlobUploadUnknown, "blob upload unknown to registry")
}

fn disk(error: &io::Error) -> Failure {
    storage_error("an upload", error).into()
}

impl Registry {
    /// Begins an upload of so many bytes, as far as is known, to a repository. Its file is made with its first
    /// bytes, and nobody waits until its row is durable: an upload that a crash of Postgres takes away is
    /// unknown, and begun again.
    pub(crate) async fn begin_upload(
        &self,
        scope: ProjectScope,
        repository: RepositoryId,
        length: Option<u64>,
    ) -> Outcome<Upload> {
        let upload = Upload { scope, repository, id: UploadId(chassis::ids::uuid_v7()) };
        let mut tx = self.store.forgetful_project_tx(&scope).await?;
        tx.begin_upload(upload.id, repository, length.unwrap_or_default()).await?;
        tx.commit().await?;
        Ok(upload)
    }

    /// How much of an upload is durable.
    pub(crate) async fn upload_offset(&self, upload: &Upload) -> Outcome<u64> {
        Ok(self.open_upload(upload).await?.offset_bytes)
    }

    async fn open_upload(&self, upload: &Upload) -> Outcome<OpenUpload> {
        let mut tx = self.store.project_tx(&upload.scope).await?;
        match tx.upload(upload.id, upload.repository).await? {
            Some(open) => Ok(open),
            None => unknown(),
        }
    }

    /// Appends a body; answers how much there is now.
    pub(crate) async fn append<E: std::fmt::Display + Send>(
        &self,
        upload: &Upload,
        part: Part,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    ) -> Outcome<u64> {
        let mut turn = self.sessions.take_over(upload.id).await;
        self.append_in_turn(upload, &mut turn, part, body, Ends(false)).await
    }

    /// Appends what is left, verifies the whole and links it as a blob of the repository.
    pub(crate) async fn finish_upload<E: std::fmt::Display + Send>(
        &self,
        upload: &Upload,
        digest: &Digest,
        part: Part,
        body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
    ) -> Outcome<u64> {
        let mut turn = self.sessions.take_over(upload.id).await;
        match self.finish_small(upload, &mut turn, digest, part, body).await? {
            small::Small::Done(size) => Ok(size),
            small::Small::Not(body) => {
                let size = self.append_in_turn(upload, &mut turn, part, body, Ends(true)).await?;
                self.finish_written(upload, &turn, digest, size).await
            }
        }
    }

    /// Links what is written, and durable, if it is what it shall be.
    async fn finish_written(&self, upload: &Upload, turn: &Turn, digest: &Digest, size: u64) -> Outcome<u64> {
        let got = self.digest_of_upload(upload, turn, size, digest.algorithm()).await?;
        if got != *digest {
            self.drop_upload(upload).await?;
            return refused(Code::DigestInvalid, format!("provided digest {digest} did not match uploaded content"));
        }
        let _kept = self.blobs.keep(vec![digest.clone()]).await;
        let mut tx = self.store.project_tx(&upload.scope).await?;
        // The row goes first: of two that finish one upload, the second finds nothing.
        if !tx.finish_upload(upload.id, upload.repository, digest, size).await? {
            return unknown();
        }
        self.blobs.adopt(&self.file(upload), digest).await?;
        tx.commit().await?;
        self.sessions.forget(upload.id);
        Ok(size)
    }

    /// Ends an upload without a result. A request that still writes to it finds it gone.
    pub(crate) async fn cancel_upload(&self, upload: &Upload) -> Outcome<()> {
        self.upload_offset(upload).await?;
        let _turn = self.sessions.take_over(upload.id).await;
        if self.drop_upload(upload).await? { Ok(()) } else { unknown() }
    }

    async fn drop_upload(&self, upload: &Upload) -> Outcome<bool> {
        let mut tx = self.store.project_tx(&upload.scope).await?;
        let ended = tx.end_upload(upload.id).await?;
        tx.commit().await?;
        self.discard(upload.id).await;
        Ok(ended)
    }

    /// Forgets an upload whose row is gone.
    pub(crate) async fn discard(&self, id: UploadId) {
        self.sessions.forget(id);
        let file = self.blobs.uploads().join(id.to_string());
        if let Err(error) = tokio::fs::remove_file(&file).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "an ended upload stays on disk until the next sweep");
        }
    }

    fn file(&self, upload: &Upload) -> PathBuf {
        self.blobs.uploads().join(upload.id.to_string())
    }

    async fn append_in_turn<E: std::fmt::Display + Send>(
        &self,
        upload: &Upload,
        turn: &mut Turn,
        part: Part,
        mut body: impl Stream<Item = Result<Bytes, E>> + Send + Unpin,
        Ends(ends): Ends,
    ) -> Outcome<u64> {
        let open = self.open_upload(upload).await?;
        let mut noted = open.offset_bytes;
        if part.start.is_some_and(|start| start != noted) {
            return Err(Failure::OutOfOrder { offset: noted });
        }
        // Before a byte of it is read, where its length is known.
        let mut room = match part.length {
            _ if !open.is_limited => u64::MAX,
            Some(length) => self.reserve(upload, noted.saturating_add(length)).await?,
            None => noted,
        };
        let sum = std::mem::replace(&mut *turn.sum, Sum::new());
        let Some(mut writer) = Writer::open(self.file(upload), noted, sum).await.map_err(|e| disk(&e))? else {
            // Renamed to a blob by a request that ended before it was noted, or lost with its disk.
            self.drop_upload(upload).await?;
            return unknown();
        };
        let mut offset = noted;
        let mut outcome = Ok(());
        loop {
            let here = if writer.is_empty() { None } else { body.next().now_or_never() };
            if here.is_none() && !writer.is_empty() {
                if let Err(error) = writer.write().await {
                    outcome = Err(disk(&error));
                    break;
                }
                continue;
            }
            let next = match here {
                Some(next) => Ok(next),
                None => tokio::select! {
                    next = tokio::time::timeout(UPLOAD_PATIENCE, body.next()) => next,
                    () = turn.superseded() => {
                        outcome = refused(Code::BlobUploadInvalid, "a later request goes on with this upload");
                        break;
                    }
                },
            };
            let chunk = match next {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => break,
                Ok(Some(Err(error))) => {
                    outcome = refused(Code::BlobUploadInvalid, format!("the upload broke off: {error}"));
                    break;
                }
                Err(_) => {
                    outcome = refused(Code::BlobUploadInvalid, "the upload did not go on");
                    break;
                }
            };
            if offset + chunk.len() as u64 > LAYER_BYTES_MAX {
                outcome = refused(Code::SizeInvalid, format!("a blob may have {LAYER_BYTES_MAX} bytes"));
                break;
            }
            if offset + chunk.len() as u64 > room {
                match self.reserve_more(upload, offset + chunk.len() as u64).await {
                    Ok(more) => room = more,
                    Err(failure) => {
                        outcome = Err(failure);
                        break;
                    }
                }
            }
            offset += chunk.len() as u64;
            writer.push(chunk);
            if writer.is_full()
                && let Err(error) = writer.write().await
            {
                outcome = Err(disk(&error));
                break;
            }
            if offset - noted >= UPLOAD_NOTED_BYTES && !ends {
                self.note(upload, &mut writer, offset).await?;
                noted = offset;
            }
        }
        let settled = if ends && outcome.is_ok() {
            // That so many bytes are durable need not be noted: the row goes.
            writer.sync().await.map_err(|e| disk(&e))
        } else {
            self.note(upload, &mut writer, offset).await
        };
        *turn.sum = writer.into_sum();
        match settled {
            Ok(()) => outcome.map(|()| offset),
            // What made the body end says more than what followed from it.
            Err(error) => outcome.and(Err(error)),
        }
    }

    /// Reserves what the project keeps of this upload; answers how much that is.
    async fn reserve(&self, upload: &Upload, bytes: u64) -> Outcome<u64> {
        let mut tx = self.store.project_tx(&upload.scope).await?;
        tx.reserve_registry_bytes(upload.id, bytes).await?;
        tx.commit().await?;
        Ok(bytes)
    }

    /// For a body of unknown length: some way ahead, or as much as is here if there is not so much room.
    async fn reserve_more(&self, upload: &Upload, needed: u64) -> Outcome<u64> {
        match self.reserve(upload, needed + UPLOAD_NOTED_BYTES).await {
            Err(Failure::Broken(Error::Forbidden(_))) => self.reserve(upload, needed).await,
            other => other,
        }
    }

    /// Makes the bytes durable, then says so.
    async fn note(&self, upload: &Upload, writer: &mut Writer, offset: u64) -> Outcome<()> {
        writer.sync().await.map_err(|e| disk(&e))?;
        let mut tx = self.store.project_tx(&upload.scope).await?;
        if !tx.advance_upload(upload.id, offset).await? {
            return unknown();
        }
        Ok(tx.commit().await?)
    }

    async fn digest_of_upload(
        &self,
        upload: &Upload,
        turn: &Turn,
        size: u64,
        algorithm: DigestAlgorithm,
    ) -> Outcome<Digest> {
        if algorithm == DigestAlgorithm::Sha256 && turn.sum.offset == size {
            return Ok(digest_from(&turn.sum.context.clone().finish()));
        }
        let path = self.file(upload);
        let read = tokio::task::spawn_blocking(move || sum_of_file(&path, algorithm));
        read.await.map_err(Error::internal)?.map_err(|e| disk(&e))
    }
}

fn sum_of_file(path: &std::path::Path, algorithm: DigestAlgorithm) -> io::Result<Digest> {
    use io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let mut sum = Context::new(hash(algorithm));
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest_from(&sum.finish())),
            n => sum.update(&buffer[..n]),
        }
    }
}
