//! The file of an upload while bytes come: what is here is written and summed on a thread that may wait for
//! the disk, while the next is received. Nothing is held back that a client waits with: what has come is
//! written as soon as no more is here.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::session::Sum;
use crate::limits::UPLOAD_WRITTEN_BYTES;

/// An upload's file, open for one request.
pub(super) struct Writer {
    state: State,
    batch: Vec<Bytes>,
    batched: usize,
    /// Something was written that nobody made durable.
    unsynced: bool,
}

#[expect(clippy::large_enum_variant, reason = "there is one a request, and it is idle or busy with the same things")]
enum State {
    Idle(File, Sum),
    Busy(JoinHandle<io::Result<(File, Sum)>>),
    /// A write failed; what the sum was of, nobody knows.
    Broken,
}

impl Writer {
    /// Opens a file of which so many bytes are durable, and cuts off what is behind them. A file that has
    /// nothing yet need not be there. `None`: it has not even what is durable.
    pub(super) async fn open(path: PathBuf, durable: u64, sum: Sum) -> io::Result<Option<Self>> {
        let opened = spawn_blocking(move || {
            let file = OpenOptions::new().write(true).create(durable == 0).truncate(false).open(&path);
            let mut file = match file {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let length = file.metadata()?.len();
            if length < durable {
                return Ok(None);
            }
            if length > durable {
                file.set_len(durable)?;
            }
            file.seek(SeekFrom::Start(durable))?;
            Ok::<_, io::Error>(Some(file))
        });
        let Some(file) = opened.await.map_err(io::Error::other)?? else { return Ok(None) };
        let sum = if sum.offset > durable { Sum::new() } else { sum };
        Ok(Some(Self { state: State::Idle(file, sum), batch: Vec::new(), batched: 0, unsynced: false }))
    }

    /// Takes the next bytes, which begin at `offset` of the whole.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.batched += chunk.len();
        self.batch.push(chunk);
    }

    /// Nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Enough waits for a write to be worth it.
    pub(super) fn is_full(&self) -> bool {
        self.batched >= UPLOAD_WRITTEN_BYTES
    }

    /// Begins to write what is here, and waits for what was being written.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        let (mut file, mut sum) = self.idle().await?;
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        self.unsynced = true;
        self.state = State::Busy(spawn_blocking(move || {
            let at = file.stream_position()?;
            if sum.offset == at {
                for chunk in &batch {
                    sum.context.update(chunk);
                    sum.offset += chunk.len() as u64;
                }
            }
            let mut slices: Vec<IoSlice<'_>> = batch.iter().map(|chunk| IoSlice::new(chunk)).collect();
            let mut left = slices.as_mut_slice();
            while !left.is_empty() {
                match file.write_vectored(left)? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    n => IoSlice::advance_slices(&mut left, n),
                }
            }
            Ok((file, sum))
        }));
        Ok(())
    }

    /// Makes everything durable.
    pub(super) async fn sync(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.write().await?;
        }
        let (file, sum) = self.idle().await?;
        let synced = if self.unsynced {
            spawn_blocking(move || file.sync_data().map(|()| (file, sum))).await.map_err(io::Error::other)??
        } else {
            (file, sum)
        };
        self.state = State::Idle(synced.0, synced.1);
        self.unsynced = false;
        Ok(())
    }

    /// The sum of what was written, as far as it is one of the beginning.
    pub(super) fn into_sum(self) -> Sum {
        match self.state {
            State::Idle(_, sum) => sum,
            State::Busy(_) | State::Broken => Sum::new(),
        }
    }

    async fn idle(&mut self) -> io::Result<(File, Sum)> {
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Idle(file, sum) => Ok((file, sum)),
            State::Busy(writing) => writing.await.map_err(io::Error::other)?,
            State::Broken => Err(io::Error::other("an earlier write failed")),
        }
    }
}
