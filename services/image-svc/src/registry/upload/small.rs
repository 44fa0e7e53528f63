//! An upload whose whole content comes with the request that ends it, and is not long: it is read first,
//! made durable as a whole, and linked. Three round trips to Postgres (BEGIN, one statement, COMMIT), where an
//! upload in parts has as many for each part and as many again at its end.

use std::{fs::File, io::Write as _, path::PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use model::{Digest, Error, UploadId};
use tokio::task::spawn_blocking;

use super::{Outcome, Part, Registry, Turn, Upload, disk};
use crate::{
    blob_store::digest_by,
    limits::{UPLOAD_PATIENCE, UPLOAD_SMALL_BYTES},
};

/// What became of it.
pub(super) enum Small<B> {
    /// It is linked, and so long.
    Done(u64),
    /// It is something else, and this its body.
    Not(B),
}

impl Registry {
    /// Finishes an upload of which nothing is there yet.
    pub(super) async fn finish_small<E, B>(
        &self,
        upload: &Upload,
        turn: &mut Turn,
        digest: &Digest,
        part: Part,
        mut body: B,
    ) -> Outcome<Small<impl Stream<Item = Result<Bytes, E>> + Send + Unpin + use<E, B>>>
    where
        E: std::fmt::Display + Send,
        B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    {
        let length = part.length.filter(|length| (1..=UPLOAD_SMALL_BYTES).contains(length));
        let begins = part.start.unwrap_or_default() == 0 && turn.sum.offset == 0;
        let mut here = Vec::new();
        let (mut came, mut end) = (0, None);
        if let Some(length) = length.filter(|_| begins) {
            // However it ends before its length: that is the other way's to judge, with what has come.
            while came < length {
                let next = tokio::select! {
                    next = tokio::time::timeout(UPLOAD_PATIENCE, body.next()) => next,
                    () = turn.superseded() => break,
                };
                match next {
                    Ok(Some(Ok(chunk))) => {
                        came += chunk.len() as u64;
                        here.push(chunk);
                    }
                    Ok(Some(Err(error))) => {
                        end = Some(Err(error));
                        break;
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            if came == length && self.finish_here(upload, digest, &here).await? {
                return Ok(Small::Done(length));
            }
        }
        Ok(Small::Not(stream::iter(here.into_iter().map(Ok)).chain(stream::iter(end)).chain(body)))
    }

    /// `false`: it is not what it shall be, or the upload is not as it was begun.
    async fn finish_here(&self, upload: &Upload, digest: &Digest, here: &[Bytes]) -> Outcome<bool> {
        let content = match here {
            [one] => one.clone(),
            more => Bytes::from(more.concat()),
        };
        if digest_by(digest.algorithm(), &content) != *digest {
            return Ok(false);
        }
        let size = content.len() as u64;
        // Under a name of its own: what the upload's file holds may be counted on. A crash leaves it to the
        // collection, as any file of an upload that is none.
        let staged = Staged(self.blobs.uploads().join(UploadId(chassis::ids::uuid_v7()).to_string()));
        let path = staged.0.clone();
        let written = spawn_blocking(move || {
            let mut file = File::create_new(path)?;
            file.write_all(&content)?;
            file.sync_data()
        });
        written.await.map_err(Error::internal)?.map_err(|e| disk(&e))?;
        let _kept = self.blobs.keep(vec![digest.clone()]).await;
        let mut tx = self.store.project_tx(&upload.scope).await?;
        if !tx.finish_untouched_upload(upload.id, upload.repository, digest, size).await? {
            return Ok(false);
        }
        self.blobs.adopt(&staged.0, digest).await?;
        tx.commit().await?;
        self.sessions.forget(upload.id);
        Ok(true)
    }
}

/// A file that goes unless it became a blob.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // It may have been renamed already; what is left is the collection's.
        let _ = std::fs::remove_file(&self.0);
    }
}
