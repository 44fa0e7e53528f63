//! Archives packed with xz or bzip2, which dockerd takes too. Both pack so well that a few bytes can stand
//! for a disk full, and xz says how much memory it wants: the first is bounded by what came, the second
//! before it is had.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;

use crate::limits::{PACKED_RATIO_FREE_BYTES, PACKED_RATIO_MAX, XZ_AT_ONCE, XZ_MEMORY_KIB_MAX};

/// What is behind bzip2, one stream or several. It takes four megabytes at most.
pub(super) fn bzip2<'r>(packed: impl BufRead + 'r) -> impl Read + 'r {
    let came = Came::new(packed);
    let count = came.count.clone();
    Bounded::new("bzip2", MultiBzDecoder::new(came), count)
}

/// What is behind xz, one stream or several.
///
/// # Errors
/// `ResourceBusy` if too many are at it.
pub(super) fn xz<'r>(packed: impl BufRead + 'r) -> io::Result<impl Read + 'r> {
    let turn = Turn::take(&TURNS)?;
    let came = Came::new(packed);
    let count = came.count.clone();
    let decoder = Held { decoder: XzReader::new_mem_limit(came, true, XZ_MEMORY_KIB_MAX), _turn: turn };
    Ok(Bounded::new("xz", decoder, count))
}

/// One of the [`XZ_AT_ONCE`], as long as it lives.
struct Turn(&'static AtomicUsize);

static TURNS: AtomicUsize = AtomicUsize::new(0);

impl Turn {
    fn take(of: &'static AtomicUsize) -> io::Result<Self> {
        let another = |taken: usize| (taken < XZ_AT_ONCE).then_some(taken + 1);
        match of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another) {
            Ok(_) => Ok(Self(of)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many archives packed with xz are being unpacked; try again",
            )),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Held<R> {
    decoder: R,
    _turn: Turn,
}

impl<R: Read> Read for Held<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

/// Counts what came in.
struct Came<R> {
    packed: R,
    count: Rc<Cell<u64>>,
}

impl<R> Came<R> {
    fn new(packed: R) -> Self {
        Self { packed, count: Rc::default() }
    }
}

impl<R: BufRead> Read for Came<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.packed.read(buf)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Came<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.packed.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count.set(self.count.get() + amount as u64);
        self.packed.consume(amount);
    }
}

/// Ends with an error when more comes out than what came in can honestly stand for.
struct Bounded<R> {
    name: &'static str,
    decoder: R,
    came: Rc<Cell<u64>>,
    out: u64,
    free: u64,
}

impl<R> Bounded<R> {
    fn new(name: &'static str, decoder: R, came: Rc<Cell<u64>>) -> Self {
        Self { name, decoder, came, out: 0, free: PACKED_RATIO_FREE_BYTES }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buf).map_err(|error| about(self.name, error))?;
        self.out += n as u64;
        let most = self.came.get().saturating_mul(PACKED_RATIO_MAX).saturating_add(self.free);
        if self.out > most {
            let why = format!("{}: it unpacks to more than {PACKED_RATIO_MAX} times its size", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(n)
    }
}

/// What the sender is to blame for, as that; what the connection or the disk is, as it is.
fn about(name: &str, error: io::Error) -> io::Error {
    use io::ErrorKind::{ConnectionAborted, Interrupted, TimedOut, UnexpectedEof};
    if matches!(error.kind(), ConnectionAborted | Interrupted | TimedOut | UnexpectedEof) {
        return error;
    }
    io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {error}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use lzma_rust2::{XzOptions, XzWriter};

    use super::*;

    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        with_dictionary(bytes, 1 << 20)
    }

    fn with_dictionary(bytes: &[u8], dict_size: u32) -> Vec<u8> {
        let mut options = XzOptions::with_preset(1);
        options.lzma_options.dict_size = dict_size;
        let mut out = XzWriter::new(Vec::new(), options).expect("options");
        out.write_all(bytes).expect("packs");
        out.finish().expect("packs")
    }

    pub(crate) fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut out = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
        out.write_all(bytes).expect("packs");
        out.finish().expect("packs")
    }

    fn unpacked(name: &str, packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        if name == "xz" {
            super::xz(packed)?.read_to_end(&mut out)?;
        } else {
            super::bzip2(packed).read_to_end(&mut out)?;
        }
        Ok(out)
    }

    fn text() -> Vec<u8> {
        (0..20_000_u32).flat_map(|n| format!("line {}\n", n * n % 977).into_bytes()).collect()
    }

    #[test]
    fn several_streams_are_one_archive() {
        let text = text();
        for (name, packed) in [("xz", xz(&text)), ("bzip2", bzip2(&text))] {
            assert_eq!(unpacked(name, &packed).expect(name), text);
            let twice = [packed.clone(), packed].concat();
            assert_eq!(unpacked(name, &twice).expect(name), [text.clone(), text.clone()].concat(), "{name}");
        }
    }

    #[test]
    fn what_asks_for_more_memory_than_xz_9_is_refused_before_it_has_it() {
        // The size of the dictionary is one byte of the block's header, under a checksum.
        let huge = with_dictionary(b"small", 1 << 30);
        let why = unpacked("xz", &huge).expect_err("refused");
        assert_eq!(why.kind(), io::ErrorKind::InvalidData, "{why}");
        assert!(unpacked("xz", &with_dictionary(b"small", 64 << 20)).is_ok(), "as xz -9");
    }

    #[test]
    fn a_bomb_is_refused_when_it_shows() {
        let zeroes = vec![0; 4 << 20];
        for (name, packed) in [("xz", xz(&zeroes)), ("bzip2", bzip2(&zeroes))] {
            let came = Came::new(packed.as_slice());
            let count = came.count.clone();
            let decoder: Box<dyn Read + '_> = if name == "xz" {
                Box::new(XzReader::new_mem_limit(came, true, XZ_MEMORY_KIB_MAX))
            } else {
                Box::new(MultiBzDecoder::new(came))
            };
            let mut bounded = Bounded { free: 1 << 20, ..Bounded::new("it", decoder, count) };
            let (mut out, mut buffer) = (0, vec![0; 64 << 10]);
            let why = loop {
                match bounded.read(&mut buffer) {
                    Ok(0) => panic!("{name}: {out} bytes of {}", packed.len()),
                    Ok(n) => out += n,
                    Err(error) => break error,
                }
            };
            assert!(why.to_string().contains("more than 1000 times its size"), "{why}");
            assert!(out < 3 << 20, "{name}: it was stopped at {out}");
        }
    }

    #[test]
    fn whatever_is_changed_or_cut_off_is_an_error_and_never_a_panic() {
        let text = &text()[..3_000];
        for (name, packed) in [("xz", xz(text)), ("bzip2", bzip2(text))] {
            for cut in 0..packed.len() {
                assert!(unpacked(name, &packed[..cut]).map_or(true, |out| out.is_empty()), "{name} cut at {cut}");
            }
            for at in 0..packed.len() {
                for bit in [0, 3, 7] {
                    let mut changed = packed.clone();
                    changed[at] ^= 1 << bit;
                    if let Ok(out) = unpacked(name, &changed) {
                        assert_eq!(out, text, "{name}: a change at {at} went unseen");
                    }
                }
            }
        }
    }

    #[test]
    fn only_so_many_are_unpacked_at_once() {
        static OWN: AtomicUsize = AtomicUsize::new(0);
        let turns: Vec<_> = std::iter::from_fn(|| Turn::take(&OWN).ok()).collect();
        assert_eq!(turns.len(), XZ_AT_ONCE);
        let busy = Turn::take(&OWN).map(drop).expect_err("busy");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        drop(turns);
        assert!(Turn::take(&OWN).is_ok());
    }
}
