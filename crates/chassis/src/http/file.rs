//! A file as a body, without copying it. The file is mapped, and the body's chunks are parts of the
//! mapping: whoever looks at them reads the file, as TLS does. A plain connection does not look: it asks
//! here which file is behind a chunk and lets the kernel send that ([`super::sending`]).
//!
//! For files that nobody changes or shortens, as blobs are that lie under their digest: reading a mapping
//! beyond the end of its file is a SIGBUS.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSliceMut},
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use bytes::Bytes;
use memmap2::Mmap;
use rustix::io::{ReadWriteFlags, preadv2};

/// How much is handed to the connection at once.
const STEP_BYTES: u64 = 4 << 20;
/// How far apart it is looked whether pages are in memory: what the kernel reads ahead at once.
const PROBE_BYTES: u64 = 128 << 10;

/// Mappings that bodies are made of, by where they begin, with their length.
static MAPPED: RwLock<BTreeMap<usize, (usize, Arc<File>)>> = RwLock::new(BTreeMap::new());
/// How many there are, for those who send something else.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A mapped file that is known to [`behind`].
struct Mapping(Mmap);

impl Mapping {
    #[expect(unsafe_code, reason = "a mapping is as good as what others do to its file")]
    fn of(file: &Arc<File>) -> io::Result<Self> {
        // SAFETY: the caller of `file_body` vouches for it that nobody changes or shortens the file.
        let map = unsafe { Mmap::map(&**file) }?;
        let mut mapped = MAPPED.write().unwrap_or_else(PoisonError::into_inner);
        mapped.insert(map.as_ptr() as usize, (map.len(), file.clone()));
        COUNT.store(mapped.len(), Ordering::Release);
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Mapping {
    /// Forgotten first: the addresses may be somebody else's as soon as the mapping is gone.
    fn drop(&mut self) {
        let mut mapped = MAPPED.write().unwrap_or_else(PoisonError::into_inner);
        mapped.remove(&(self.0.as_ptr() as usize));
        COUNT.store(mapped.len(), Ordering::Release);
    }
}

/// The file that a slice is a part of, and where in it. As long as the slice lives, so does its mapping.
pub(super) fn behind(slice: &[u8]) -> Option<(Arc<File>, u64)> {
    if COUNT.load(Ordering::Acquire) == 0 || slice.is_empty() {
        return None;
    }
    let at = slice.as_ptr() as usize;
    let mapped = MAPPED.read().unwrap_or_else(PoisonError::into_inner);
    let (begin, (length, file)) = mapped.range(..=at).next_back()?;
    let offset = at - begin;
    (offset + slice.len() <= *length).then(|| (file.clone(), offset as u64))
}

/// A part of a file as a body. Nobody may change or shorten the file any more, only remove its name.
///
/// # Errors
/// It cannot be mapped, or has not so many bytes.
pub fn file_body(file: File, range: Range<u64>) -> io::Result<Body> {
    if range.end > file.metadata()?.len() || range.start > range.end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if range.is_empty() {
        return Ok(Body::empty());
    }
    let file = Arc::new(file);
    let whole = Bytes::from_owner(Mapping::of(&file)?);
    let steps = futures::stream::try_unfold(range, move |left| {
        let (file, whole) = (file.clone(), whole.clone());
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let step = left.start..left.end.min(left.start + STEP_BYTES);
            read_ahead(&file, step.clone()).await?;
            let end = step.end;
            // What is mapped has an address, so its length fits into one.
            let chunk = whole.slice(step.start as usize..end as usize);
            Ok::<_, io::Error>(Some((chunk, end..left.end)))
        }
    });
    Ok(Body::from_stream(steps))
}

/// Brings a part of a file into memory, on a thread that may wait for the disk, if it is not there.
async fn read_ahead(file: &Arc<File>, part: Range<u64>) -> io::Result<()> {
    let Some(cold) = part.clone().step_by(PROBE_BYTES as usize).chain([part.end - 1]).find(|at| !is_warm(file, *at))
    else {
        return Ok(());
    };
    let file = file.clone();
    let read = move || {
        let mut buffer = vec![0; PROBE_BYTES as usize];
        let mut at = cold;
        while at < part.end {
            match file.read_at(&mut buffer, at)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                n => at += n as u64,
            }
        }
        Ok(())
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Whether a byte can be read without waiting. Where the kernel does not say, it is read by the way that may wait.
fn is_warm(file: &File, at: u64) -> bool {
    let mut byte = [0];
    preadv2(file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT).is_ok_and(|n| n == 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_read_as_it_is_and_more_than_it_has_is_refused() {
        let content: Vec<u8> = (0..9_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for range in [0..content.len(), 3..4, 4_194_303..4_194_305, 1..8_999_999] {
            let body = file_body(file_of(&content), range.start as u64..range.end as u64).expect("a body");
            let read = body.collect().await.expect("read").to_bytes();
            assert!(read == content[range.clone()], "{range:?}");
        }
        assert!(file_body(file_of(b"abc"), 0..4).is_err());
        let nothing = file_body(file_of(b""), 0..0).expect("a body").collect().await.expect("read").to_bytes();
        assert_eq!(nothing.len(), 0);
    }

    #[tokio::test]
    async fn a_chunk_leads_to_its_file_as_long_as_it_lives_and_other_memory_leads_nowhere() {
        let mut body = file_body(file_of(&[7; 10_000]), 10..9_000).expect("a body");
        let chunk = body.frame().await.expect("a frame").expect("read").into_data().expect("data");
        drop(body);
        let (file, offset) = behind(&chunk[5..]).expect("its file");
        assert_eq!((offset, file.metadata().expect("metadata").len()), (15, 10_000));
        assert!(behind(&[7; 100]).is_none());
        let address = chunk.as_ptr() as usize;
        drop(chunk);
        let known = MAPPED.read().expect("not poisoned");
        assert!(known.iter().all(|(begin, (length, _))| !(*begin..begin + length).contains(&address)));
    }
}
