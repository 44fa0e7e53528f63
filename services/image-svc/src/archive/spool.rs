//! An archive on this machine: the content of its files one after the other in one file that has no
//! name, and where each begins. What an archive says it is shows only at its end, so all of it has to be
//! here first.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use model::Digest;
use ring::digest::{Context, SHA256};

use super::{
    members::{Kind, Members},
    path::MemberPath,
    refuse,
};
use crate::{
    limits::{ARCHIVE_BYTES_MAX, ARCHIVE_MEMBERS_MAX, MEMBER_LINKS_MAX},
    upload::{digest_of, nameless},
};

/// See above. Cheap to clone.
#[derive(Clone)]
pub(super) struct Spool {
    file: Arc<File>,
    members: Arc<HashMap<MemberPath, Kept>>,
}

enum Kept {
    File(Content),
    Link(MemberPath),
}

/// The content of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    offset: u64,
    pub(super) length: u64,
    /// Of what is really there.
    pub(super) digest: Digest,
}

impl Spool {
    /// Reads a tar to its end.
    pub(super) fn read(tar: impl Read, dir: &Path) -> io::Result<Self> {
        let mut file = nameless(dir)?;
        let mut members = HashMap::new();
        let (mut offset, mut buffer) = (0_u64, vec![0; 128 << 10]);
        let mut read = Members::new(tar);
        let mut count = 0;
        while let Some(member) = read.next()? {
            count += 1;
            if count > ARCHIVE_MEMBERS_MAX {
                return Err(refuse(format!("it has more than {ARCHIVE_MEMBERS_MAX} members")));
            }
            let Some(path) = MemberPath::parse(&member.path)? else { continue };
            let kept = match member.kind {
                Kind::Directory => continue,
                Kind::Symlink(target) => path.linked(&target)?.map(Kept::Link),
                Kind::Hardlink(target) => MemberPath::parse(&target)?.map(Kept::Link),
                Kind::File => {
                    if offset.saturating_add(member.size) > ARCHIVE_BYTES_MAX {
                        return Err(refuse(format!("its files have more than {ARCHIVE_BYTES_MAX} bytes")));
                    }
                    let mut sum = Context::new(&SHA256);
                    let mut left = member.size;
                    while left > 0 {
                        let n = read.read(&mut buffer)?;
                        sum.update(&buffer[..n]);
                        file.write_all(&buffer[..n])?;
                        left -= n as u64;
                    }
                    let content = Content { offset, length: member.size, digest: digest_of(sum) };
                    offset += member.size;
                    Some(Kept::File(content))
                }
            };
            if let Some(kept) = kept {
                members.insert(path, kept);
            }
        }
        Ok(Self { file: Arc::new(file), members: Arc::new(members) })
    }

    /// A file of the archive, by the name that a document in it gives.
    pub(super) fn find(&self, written: &str) -> io::Result<Option<&Content>> {
        let Some(path) = MemberPath::parse(written.as_bytes())? else { return Ok(None) };
        let mut at = &path;
        for _ in 0..=MEMBER_LINKS_MAX {
            match self.members.get(at) {
                Some(Kept::File(content)) => return Ok(Some(content)),
                Some(Kept::Link(target)) => at = target,
                None => return Ok(None),
            }
        }
        Err(refuse(format!("{path} is a link to too many links")))
    }

    /// The same, which must be there.
    pub(super) fn need(&self, written: &str) -> io::Result<&Content> {
        let shown = || written.chars().take(200).collect::<String>();
        self.find(written)?.ok_or_else(|| refuse(format!("open {}: no such file or directory", shown())))
    }

    /// A whole document.
    pub(super) fn document(&self, content: &Content, limit_bytes: u64) -> io::Result<Vec<u8>> {
        if content.length > limit_bytes {
            return Err(refuse(format!("a document in it has {} bytes; the limit is {limit_bytes}", content.length)));
        }
        let mut body = Vec::new();
        self.open(content).read_to_end(&mut body)?;
        Ok(body)
    }

    /// The content of a file from its beginning.
    pub(super) fn open(&self, content: &Content) -> Open {
        Open { file: self.file.clone(), at: content.offset, end: content.offset + content.length }
    }
}

/// A file of an archive being read.
pub(super) struct Open {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Open {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::blob_store;

    fn spool(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> io::Result<Spool> {
        let mut out = Builder::new(Vec::new());
        fill(&mut out);
        let dir = tempfile::tempdir().expect("tempdir");
        Spool::read(out.into_inner().expect("ends").as_slice(), dir.path())
    }

    fn file(out: &mut Builder<Vec<u8>>, name: &str, body: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(body.len() as u64);
        out.append_data(&mut header, name, body).expect("appends");
    }

    fn link(out: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        out.append_link(&mut header, name, target).expect("appends");
    }

    #[test]
    fn files_are_found_by_name_and_through_links() {
        let spool = spool(|out| {
            link(out, EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
            file(out, "a/layer.tar", b"layer");
            file(out, "empty", b"");
            link(out, EntryType::Link, "c", "b/layer.tar");
        })
        .expect("reads");
        for name in ["a/layer.tar", "b/layer.tar", "./c"] {
            let content = spool.need(name).expect(name);
            assert_eq!(spool.document(content, 5).expect("reads"), b"layer");
            assert_eq!(content.digest, blob_store::digest_of(b"layer"));
        }
        assert_eq!(spool.need("empty").expect("is there").length, 0);
        assert!(spool.document(spool.need("c").expect("there"), 4).is_err(), "a document has a limit");
        assert!(spool.need("d").expect_err("absent").to_string().contains("no such file"));
        assert!(spool.need("/etc/passwd").is_err());
    }

    #[test]
    fn links_in_a_circle_and_out_of_the_archive_are_refused() {
        let circle = spool(|out| {
            link(out, EntryType::Symlink, "a", "b");
            link(out, EntryType::Symlink, "b", "a");
        })
        .expect("reads");
        assert!(circle.need("a").expect_err("a circle").to_string().contains("too many links"));
        assert!(spool(|out| link(out, EntryType::Symlink, "a", "/etc/passwd")).is_err());
        assert!(spool(|out| link(out, EntryType::Symlink, "a/b", "../../x")).is_err());
    }

    #[test]
    fn members_have_a_limit() {
        let many = spool(|out| (0..=ARCHIVE_MEMBERS_MAX).for_each(|n| file(out, &format!("f{n}"), b"")));
        assert!(many.err().expect("too many").to_string().contains("more than 65536 members"));
        let mut header = Header::new_gnu();
        header.set_path("big").expect("a name");
        header.set_size(ARCHIVE_BYTES_MAX + 1);
        header.set_cksum();
        let dir = tempfile::tempdir().expect("tempdir");
        let big = Spool::read(header.as_bytes().as_slice(), dir.path());
        assert!(big.err().expect("too big").to_string().contains("bytes"));
    }
}
