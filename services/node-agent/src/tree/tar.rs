//! Writing a tar entry by entry, in the dialect dockerd writes (ustar with PAX records where they are
//! needed), names as bytes.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// One entry to write.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) kind: EntryType,
    pub(super) name: &'a [u8],
    pub(super) link: &'a [u8],
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime_s: i64,
    pub(super) device: (u32, u32),
    /// Name and value.
    pub(super) xattrs: &'a [(&'a str, Vec<u8>)],
}

impl<'a> Entry<'a> {
    /// An empty file of root's: what whiteouts are.
    pub(super) fn mark(name: &'a [u8]) -> Self {
        let kind = EntryType::Regular;
        Self { kind, name, link: b"", size: 0, mode: 0o600, owner: (0, 0), mtime_s: 0, device: (0, 0), xattrs: &[] }
    }
}

/// A tar on its way out.
pub(super) struct Writer<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, buffer: vec![0; 64 << 10] }
    }

    /// An entry; for a file, exactly `size` bytes follow from `body`. One that has become shorter
    /// meanwhile is filled with zeroes, one that grew is cut: the header is already out.
    pub(super) fn entry(&mut self, entry: &Entry<'_>, body: &mut dyn Read) -> io::Result<()> {
        let mut records = Vec::new();
        for (key, value) in [("path", entry.name), ("linkpath", entry.link)] {
            if value.len() > 100 || !value.is_ascii() {
                record(&mut records, key, value);
            }
        }
        if entry.mtime_s < 0 {
            record(&mut records, "mtime", entry.mtime_s.to_string().as_bytes());
        }
        for (name, value) in entry.xattrs {
            record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        if !records.is_empty() {
            let mut extension = header(EntryType::XHeader, b"PaxHeaders.0/entry", records.len() as u64);
            extension.set_mode(0o644);
            self.block(extension)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut main = header(entry.kind, entry.name, entry.size);
        main.set_mode(entry.mode & 0o7777);
        main.set_uid(u64::from(entry.owner.0));
        main.set_gid(u64::from(entry.owner.1));
        main.set_mtime(u64::try_from(entry.mtime_s).unwrap_or(0));
        put(&mut main.as_mut_bytes()[157..257], entry.link);
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            main.set_device_major(entry.device.0)?;
            main.set_device_minor(entry.device.1)?;
        }
        self.block(main)?;
        self.body(entry.size, body)
    }

    /// The end mark.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn body(&mut self, size: u64, body: &mut dyn Read) -> io::Result<()> {
        let mut left = size;
        let mut ended = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let n = if ended { 0 } else { body.read(&mut self.buffer[..most])? };
            let n = if n == 0 {
                if !ended {
                    self.buffer.fill(0);
                }
                ended = true;
                most
            } else {
                n
            };
            self.out.write_all(&self.buffer[..n])?;
            left -= n as u64;
        }
        self.pad(size)
    }

    fn block(&mut self, mut header: Header) -> io::Result<()> {
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][over..]) }
    }
}

fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    put(&mut header.as_mut_bytes()[..100], name);
    header
}

/// As much of a name as fits; what does not is in a record.
fn put(field: &mut [u8], name: &[u8]) {
    let n = name.len().min(field.len());
    field[..n].copy_from_slice(&name[..n]);
}

/// `<length> <key>=<value>\n`; the length counts itself.
fn record(into: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(format!("{length} {key}=").as_bytes());
    into.extend_from_slice(value);
    into.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_reader_finds_long_names_links_attributes_and_bodies() {
        let long = format!("{}/ende-\u{fc}", "ordner/".repeat(40));
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        let xattrs = [("security.capability", vec![1, 0, b'=', 255])];
        let file = Entry { name: long.as_bytes(), size: 700, mtime_s: -5, xattrs: &xattrs, ..Entry::mark(b"") };
        writer.entry(&file, &mut [7_u8; 300].as_slice()).expect("writes");
        let link = Entry { kind: EntryType::Symlink, name: b"l", link: long.as_bytes(), ..Entry::mark(b"") };
        writer.entry(&link, &mut io::empty()).expect("writes");
        let owner = Entry { owner: (3_000_000_000, 7), ..Entry::mark(b"owned") };
        writer.entry(&owner, &mut io::empty()).expect("writes");
        writer.finish().expect("writes");
        assert_eq!(out.len() % 512, 0);
        let mut archive = tar::Archive::new(out.as_slice());
        let mut entries = archive.entries().expect("reads");
        let mut first = entries.next().expect("an entry").expect("reads");
        assert_eq!(first.path_bytes().as_ref(), long.as_bytes());
        let mut body = Vec::new();
        first.read_to_end(&mut body).expect("reads");
        assert_eq!((body.len(), &body[299..302]), (700, &[7, 0, 0][..]), "a file that shrank ends in zeroes");
        let records: Vec<_> = first.pax_extensions().expect("reads").expect("records").flatten().collect();
        let value = |key: &str| records.iter().find(|r| r.key() == Ok(key)).map(tar::PaxExtension::value_bytes);
        assert_eq!(value("mtime"), Some(&b"-5"[..]));
        assert_eq!(value("SCHILY.xattr.security.capability"), Some(&[1, 0, b'=', 255][..]));
        let second = entries.next().expect("an entry").expect("reads");
        assert_eq!(second.link_name_bytes().expect("a link").as_ref(), long.as_bytes());
        let third = entries.next().expect("an entry").expect("reads");
        assert_eq!(third.header().uid().expect("a number"), 3_000_000_000);
        assert!(entries.next().is_none());
    }
}
