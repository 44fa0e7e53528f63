//! A tar as a sequence of members. Headers are read by the `tar` crate; which bytes belong to whom is
//! decided here in one way: an extension that disagrees with its header about a size is refused, so that
//! no second archive hides in the first (CVE-2025-62518).

use std::io::{self, Read};

use tar::{Header, PaxExtensions};

use super::refuse;
use crate::limits::{MEMBER_EXTENSION_BYTES_MAX, MEMBER_PATH_BYTES_MAX};

const BLOCK: u64 = 512;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// Leads from where it is.
    Symlink(Vec<u8>),
    /// Leads from the root.
    Hardlink(Vec<u8>),
}

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Of a file's content.
    pub(super) size: u64,
}

/// A tar being read.
pub(super) struct Members<R> {
    inner: R,
    /// Unread bytes of the current member, and of its padding.
    left: u64,
    padding: u64,
}

impl<R: Read> Members<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next member; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let (mut long_path, mut long_link) = (None, None);
        let mut pax = Pax::default();
        loop {
            self.skip(self.left + self.padding)?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|e| refuse(format!("a header cannot be read: {e}")))?;
            let kind = header.entry_type();
            if kind.is_gnu_longname() {
                long_path = Some(trimmed(self.extension(size)?));
            } else if kind.is_gnu_longlink() {
                long_link = Some(trimmed(self.extension(size)?));
            } else if kind.is_pax_local_extensions() {
                pax = Pax::read(&self.extension(size)?)?;
            } else if kind.is_pax_global_extensions() {
                self.extension(size)?;
            } else {
                if pax.size.is_some_and(|said| said != size) {
                    return Err(refuse("a member's two headers give different sizes"));
                }
                let path = pax.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
                let own_link = || header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
                return self.member(&header, size, path, pax.link.or(long_link).unwrap_or_else(own_link)).map(Some);
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, path: Vec<u8>, link: Vec<u8>) -> io::Result<Member> {
        let entry = header.entry_type();
        let kind = if entry.is_dir() || (entry.is_file() && path.ends_with(b"/")) {
            Kind::Directory
        } else if entry.is_file() || entry.is_contiguous() {
            Kind::File
        } else if entry.is_symlink() {
            Kind::Symlink(link)
        } else if entry.is_hard_link() {
            Kind::Hardlink(link)
        } else {
            let shown: String = String::from_utf8_lossy(&path).chars().take(200).collect();
            return Err(refuse(format!("{shown:?} is neither a file nor a link")));
        };
        if kind != Kind::File && size != 0 {
            return Err(refuse("a member has content that cannot have any"));
        }
        self.begin(size);
        Ok(Member { kind, path, size })
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped < bytes { Err(refuse("unexpected EOF")) } else { Ok(()) }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MEMBER_EXTENSION_BYTES_MAX {
            return Err(refuse(format!("an extension header has {size} bytes")));
        }
        self.begin(size);
        let mut body = Vec::new();
        self.inner.by_ref().take(size).read_to_end(&mut body)?;
        if (body.len() as u64) < size {
            return Err(refuse("unexpected EOF"));
        }
        self.skip(self.padding)?;
        Ok(body)
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = Vec::with_capacity(512);
        self.inner.by_ref().take(BLOCK).read_to_end(&mut block)?;
        if block.is_empty() || (block.len() == 512 && block.iter().all(|byte| *byte == 0)) {
            return Ok(None);
        }
        if block.len() < 512 {
            return Err(refuse("unexpected EOF"));
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        match header.cksum() {
            Ok(said) if said == sum => Ok(Some(header)),
            Ok(_) | Err(_) => Err(refuse("archive/tar: invalid tar header")),
        }
    }
}

/// Reads the content of the current member.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 && most > 0 {
            return Err(refuse("unexpected EOF"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Pax {
    fn read(body: &[u8]) -> io::Result<Self> {
        let malformed = || refuse("an extension header is malformed");
        let mut read = Self::default();
        for record in PaxExtensions::new(body) {
            let record = record.map_err(|_| malformed())?;
            match record.key().map_err(|_| malformed())? {
                "path" => read.path = Some(record.value_bytes().to_vec()),
                "linkpath" => read.link = Some(record.value_bytes().to_vec()),
                "size" => {
                    let text = record.value().map_err(|_| malformed())?;
                    read.size = Some(text.parse().map_err(|_| malformed())?);
                }
                sparse if sparse.starts_with("GNU.sparse.") => return Err(refuse("sparse files are not supported")),
                _ => {}
            }
        }
        Ok(read)
    }
}

fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()).min(MEMBER_PATH_BYTES_MAX + 1));
    name
}

#[cfg(test)]
mod tests {
    use tar::{Builder, EntryType};

    use super::*;

    fn add(out: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, body: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        out.append_data(&mut header, name, body).expect("appends");
    }

    fn names(tar: &[u8]) -> io::Result<Vec<(String, usize)>> {
        let mut members = Members::new(tar);
        let mut found = Vec::new();
        while let Some(member) = members.next()? {
            let mut body = Vec::new();
            members.by_ref().take(member.size).read_to_end(&mut body)?;
            found.push((String::from_utf8_lossy(&member.path).into_owned(), body.len()));
        }
        Ok(found)
    }

    #[test]
    fn members_come_with_their_names_and_content() {
        let mut out = Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "d".repeat(200));
        add(&mut out, EntryType::Directory, "d/", b"");
        add(&mut out, EntryType::Regular, &long, &[7; 700]);
        add(&mut out, EntryType::Regular, "manifest.json", b"[]");
        let tar = out.into_inner().expect("ends");
        let found = names(&tar).expect("reads");
        assert_eq!(found, [("d/".into(), 0), (long, 700), ("manifest.json".into(), 2)]);
        for cut in [100, 600, 1100, 2000] {
            assert!(names(&tar[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_can_be_read_two_ways_or_is_no_file_is_refused() {
        let refused = |tar: Vec<u8>| names(&tar).expect_err("refused").to_string();
        let with = |kind: EntryType, name: &str, body: &[u8]| {
            let mut out = Builder::new(Vec::new());
            add(&mut out, kind, name, body);
            add(&mut out, EntryType::Regular, "x", b"xyz");
            out.into_inner().expect("ends")
        };
        assert!(refused(with(EntryType::XHeader, "p", b"10 size=9\n")).contains("different sizes"));
        assert!(refused(with(EntryType::XHeader, "p", b"nonsense")).contains("malformed"));
        assert!(refused(with(EntryType::XHeader, "p", &vec![b'a'; 100_000])).contains("100000 bytes"));
        assert!(refused(with(EntryType::Char, "dev", b"")).contains("neither a file nor a link"));
        let mut broken = with(EntryType::Regular, "a", b"");
        broken[10] ^= 1;
        assert!(refused(broken).contains("invalid tar header"));
        assert_eq!(names(&with(EntryType::XHeader, "p", b"10 size=3\n")).expect("agrees").len(), 1);
    }
}
