//! A directory's names, some at a time: sorted within a batch, and never all of a huge directory in
//! memory.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
};

use rustix::fs::RawDir;

/// Directories below each other that are followed.
pub(crate) const MAX_DEPTH: usize = 512;
/// Bytes of names in the batch of a directory at the top; those below get less.
const BATCH_BYTES: usize = 256 << 10;
const BUFFER_BYTES: usize = 16 << 10;

/// Lists one directory.
pub(crate) struct Listing {
    pub(crate) dir: OwnedFd,
    batch: std::vec::IntoIter<CString>,
    batch_bytes: usize,
    over: bool,
}

impl Listing {
    /// Begins; `depth` says how many directories are listed above it.
    ///
    /// # Errors
    /// It is too deep.
    pub(crate) fn new(dir: OwnedFd, depth: usize) -> io::Result<Self> {
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!("more than {MAX_DEPTH} directories are below each other")));
        }
        let batch_bytes = (BATCH_BYTES / (1 + depth / 4)).max(BUFFER_BYTES);
        Ok(Self { dir, batch: Vec::new().into_iter(), batch_bytes, over: false })
    }

    /// The next name; `.` and `..` are left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<CString>> {
        loop {
            if let Some(name) = self.batch.next() {
                return Ok(Some(name));
            }
            if self.over {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&self.dir, &mut buffer);
        let (mut names, mut bytes) = (Vec::new(), 0);
        // Only between two reads of the kernel's may be stopped: what it has given is gone from it.
        while bytes < self.batch_bytes || !entries.is_buffer_empty() {
            let Some(entry) = entries.next() else {
                self.over = true;
                break;
            };
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                bytes += name.to_bytes().len() + 32;
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        self.batch = names.into_iter();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn every_name_of_a_large_directory_comes_once() {
        let root = tempfile::tempdir().expect("temporary directory");
        for n in 0..20_000 {
            fs::write(root.path().join(format!("a-file-with-a-name-{n}")), "").expect("write");
        }
        let dir = fs::File::open(root.path()).expect("open");
        let mut listing = Listing::new(dir.into(), 0).expect("begins");
        let mut seen = BTreeSet::new();
        while let Some(name) = listing.next().expect("reads") {
            assert!(seen.insert(name));
        }
        assert_eq!(seen.len(), 20_000);
    }
}
