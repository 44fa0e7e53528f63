//! Reading a tar as a sequence of checked entries. Only headers are parsed by the `tar` crate;
//! which bytes belong to which entry is decided here and in one way: an extension that disagrees
//! with its header about the size is refused, so no second archive can hide in the first
//! (CVE-2025-62518). Names are kept as bytes.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use tar::{EntryType, Header};

use super::decode::refuse;

const BLOCK: usize = 512;
/// Bytes of one extension header. Long names and xattrs fit; a gigabyte of them does not.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Bytes of a path or link target; the kernel takes no more.
const MAX_PATH_BYTES: usize = 4095;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// One entry, with its extensions applied.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    /// The path for an error text.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.path).chars().take(200).collect()
    }
}

/// What came before an entry and is about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<String, Vec<u8>>,
}

/// A tar being read.
pub(super) struct Archive<R> {
    inner: R,
    /// Unread bytes of the current entry, its padding included.
    left: u64,
    /// Of those, the padding.
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let left = self.left;
            self.skip(left)?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = field(&header, 124..136, header.entry_size())?;
            let entry_type = header.entry_type();
            if entry_type.is_gnu_longname() {
                extensions.path = Some(trimmed(self.extension(size)?));
            } else if entry_type.is_gnu_longlink() {
                extensions.link = Some(trimmed(self.extension(size)?));
            } else if entry_type.is_pax_local_extensions() {
                parse_records(&self.extension(size)?, &mut extensions.records)?;
            } else if entry_type.is_pax_global_extensions() {
                // Global headers say nothing about files in an image (dockerd skips them too).
                self.extension(size)?;
            } else {
                return self.entry(&header, size, extensions).map(Some);
            }
        }
    }

    /// Reads from the body of the current entry.
    pub(super) fn read_body(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let body = self.left - self.padding;
        let most = usize::try_from(body).unwrap_or(usize::MAX).min(buf.len());
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 && most > 0 {
            return Err(refuse("ends inside a file"));
        }
        self.left -= n as u64;
        Ok(n)
    }

    /// Reads what follows the archive's end mark, so that its digest covers everything.
    pub(super) fn drain(mut self) -> io::Result<R> {
        io::copy(&mut self.inner, &mut io::sink())?;
        Ok(self.inner)
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> io::Result<Entry> {
        let Extensions { path, link, mut records } = extensions;
        let path = records.remove("path").or(path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link_in_header = || header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default();
        let link = records.remove("linkpath").or(link).unwrap_or_else(link_in_header);
        if path.len() > MAX_PATH_BYTES || link.len() > MAX_PATH_BYTES {
            return Err(refuse("has a path longer than 4095 bytes"));
        }
        if let Some(told) = records.get("size")
            && number(told)? != size
        {
            return Err(refuse("has an entry whose two headers give different sizes"));
        }
        if records.keys().any(|k| k.starts_with("GNU.sparse.")) {
            return Err(refuse("has a sparse file, which is not supported"));
        }
        let kind = kind(header.entry_type(), &path)?;
        let carries = kind == Kind::File;
        // A link or directory with a size: readers differ on whether a body follows, so none is guessed.
        if !carries && size != 0 && kind != Kind::Hardlink {
            return Err(refuse("has a body on an entry that cannot have one"));
        }
        let size = if carries { size } else { 0 };
        self.begin_body(size);
        let id = |key: &str, header: io::Result<u64>| -> io::Result<u32> {
            let value = records.get(key).map_or(header, |v| number(v))?;
            u32::try_from(value)
                .ok()
                .filter(|id| *id <= i32::MAX as u32)
                .ok_or_else(|| refuse(format!("has an owner out of range: {value}")))
        };
        let (uid, gid) =
            (id("uid", field(header, 108..116, header.uid()))?, id("gid", field(header, 116..124, header.gid()))?);
        let mtime = match records.get("mtime") {
            Some(text) => decimal_time(text)?,
            None => (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
        };
        let mode = field(header, 100..108, header.mode().map(u64::from))?;
        let mode = u32::try_from(mode).map_err(|_| refuse("has a mode out of range"))?;
        let xattrs = records
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value)))
            .collect();
        Ok(Entry { kind, path, link, size, mode: mode & 0o7777, uid, gid, mtime, xattrs })
    }

    fn begin_body(&mut self, size: u64) {
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.left = size + self.padding;
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())?;
        self.left = 0;
        if skipped < bytes { Err(refuse("ends inside an entry")) } else { Ok(()) }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(refuse(format!("has an extension header of {size} bytes")));
        }
        let mut body = Vec::new();
        self.inner.by_ref().take(size).read_to_end(&mut body)?;
        if (body.len() as u64) < size {
            return Err(refuse("ends inside an extension header"));
        }
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.skip(padding)?;
        Ok(body)
    }

    /// The next header block; `None` at the end mark or a clean end of the stream.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0_u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(refuse("ends inside a header")),
                n => filled += n,
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(refuse("has a header with a wrong checksum"));
        }
        Ok(Some(header))
    }
}

fn kind(entry_type: EntryType, path: &[u8]) -> io::Result<Kind> {
    let known = [
        (entry_type.is_dir(), Kind::Directory),
        (entry_type.is_symlink(), Kind::Symlink),
        (entry_type.is_hard_link(), Kind::Hardlink),
        (entry_type.is_fifo(), Kind::Fifo),
        (entry_type.is_character_special() || entry_type.is_block_special(), Kind::Device),
    ];
    if let Some((_, kind)) = known.into_iter().find(|(is, _)| *is) {
        return Ok(kind);
    }
    if entry_type.is_file() || entry_type.is_contiguous() {
        // Before POSIX, a directory was a file with a slash at the end.
        return Ok(if path.ends_with(b"/") { Kind::Directory } else { Kind::File });
    }
    let shown: String = String::from_utf8_lossy(path).chars().take(200).collect();
    if entry_type.is_gnu_sparse() {
        return Err(refuse(format!("has a sparse file, which is not supported: {shown}")));
    }
    let byte = char::from(entry_type.as_byte());
    Err(refuse(format!("has an entry of unknown type {byte:?}: {shown}")))
}

/// A field that was left blank is zero, as all readers take it.
fn field(header: &Header, at: std::ops::Range<usize>, parsed: io::Result<u64>) -> io::Result<u64> {
    let blank = header.as_bytes()[at].iter().all(|b| matches!(b, 0 | b' '));
    if blank { Ok(0) } else { parsed.map_err(|e| refuse(format!("has a malformed header: {e}"))) }
}

fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}

/// `<length> <key>=<value>\n`, any number of times; the length counts itself. Nothing lenient.
fn parse_records(mut body: &[u8], into: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let malformed = || refuse("has a malformed extension header");
    while !body.is_empty() {
        let space = body.iter().take(8).position(|b| *b == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(number(&body[..space])?).map_err(|_| malformed())?;
        if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &body[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| malformed())?;
        let value = record[equals + 1..].to_vec();
        if matches!(key, "path" | "linkpath") && value.contains(&0) {
            return Err(malformed());
        }
        into.insert(key.to_owned(), value);
        body = &body[length..];
    }
    Ok(())
}

fn number(text: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| refuse("has a malformed number in an extension header"))
}

/// Seconds with an optional fraction, maybe negative.
fn decimal_time(text: &[u8]) -> io::Result<(i64, u32)> {
    let malformed = || refuse("has a malformed time in an extension header");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| malformed())?;
    if whole.starts_with('-') && nanos > 0 {
        return Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}
