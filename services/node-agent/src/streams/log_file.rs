//! Reading a json-file log across its rotations, from any of its last lines on. Synchronous: callers
//! read in batches from a thread that may block.
//!
//! Rotation renames, so files are opened from the newest to the oldest and known by inode: whatever
//! is renamed meanwhile is met again and recognised, never missed. A place is told as file and offset,
//! the file by inode and time of birth: inodes are used again.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use runtime::protocol::{STDERR, STDOUT, frame_header};
use serde::Deserialize;

const CHUNK: usize = 64 << 10;
/// Longest line the shim writes: 16 KiB, every byte of it escaped, and its frame.
const MAX_LINE: usize = 256 << 10;

/// Which lines, and how they are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// RFC 3339 with nine digits, as in the file: times compare as text.
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) timestamps: bool,
    /// Before every line, after its time.
    pub(super) details: Option<String>,
    /// No frames.
    pub(super) raw: bool,
}

/// A place in a log.
pub(super) struct Cursor {
    path: PathBuf,
    /// Files not read to their end, oldest first; the first one is being read.
    files: VecDeque<File>,
    partial: Vec<u8>,
    shown: Shown,
    /// A line at or after `until` was met.
    over: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    stream: &'a str,
    time: &'a str,
}

/// What a read brought.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// Nothing more is there now.
    pub(super) at_end: bool,
    /// Nothing more is wanted ever.
    pub(super) over: bool,
}

impl Cursor {
    /// Opens the log at its beginning, or at its last `tail` lines.
    pub(super) fn open(path: &Path, tail: Option<u64>, shown: Shown) -> io::Result<Self> {
        let mut files = all_files(path, None)?;
        if let Some(lines) = tail {
            seek_to_tail(&mut files, lines)?;
        }
        Ok(Self { path: path.to_owned(), files, partial: Vec::new(), shown, over: false })
    }

    /// Opens it where [`Cursor::position`] said; a file that rotation has removed since leaves what is newer.
    pub(super) fn resume(path: &Path, position: &str, shown: Shown) -> io::Result<Self> {
        let mut files = all_files(path, None)?;
        let found = files.iter().enumerate().find_map(|(index, file)| {
            let offset = position.strip_prefix(&name_of(file).ok()?)?.strip_prefix(':')?.parse::<u64>().ok()?;
            Some((index, offset))
        });
        if let Some((index, offset)) = found {
            files.drain(..index);
            if let Some(file) = files.front_mut().filter(|f| f.metadata().is_ok_and(|m| m.len() >= offset)) {
                file.seek(SeekFrom::Start(offset))?;
            }
        }
        Ok(Self { path: path.to_owned(), files, partial: Vec::new(), shown, over: false })
    }

    /// Where the next line begins; `None` while there is no log.
    pub(super) fn position(&mut self) -> io::Result<Option<String>> {
        let Some(file) = self.files.front_mut() else { return Ok(None) };
        let offset = file.stream_position()?.saturating_sub(self.partial.len() as u64);
        Ok(Some(format!("{}:{offset}", name_of(file)?)))
    }

    /// Reads what is there, some hundred kilobytes at most.
    pub(super) fn read(&mut self) -> io::Result<Batch> {
        let mut out = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while out.len() < 4 * CHUNK && !self.over {
            let Some(file) = self.files.front_mut() else {
                // Nothing has been logged yet, or the log has just been made.
                self.files = all_files(&self.path, None)?;
                if self.files.is_empty() {
                    return Ok(Batch { bytes: out, at_end: true, over: false });
                }
                continue;
            };
            // Somebody truncated it in place.
            if file.stream_position()? > file.metadata()?.len() {
                file.seek(SeekFrom::Start(0))?;
                self.partial.clear();
            }
            if self.files.len() == 1 {
                self.hold_newer()?;
            }
            let Some(file) = self.files.front_mut() else { continue };
            match file.read(&mut chunk)? {
                0 if !self.advance()? => return Ok(Batch { bytes: out, at_end: true, over: false }),
                0 => {}
                n => self.render(&chunk[..n], &mut out),
            }
        }
        Ok(Batch { bytes: out, at_end: false, over: self.over })
    }

    /// A file that has been begun is held before rotation removes it under a reader that lags behind.
    fn hold_newer(&mut self) -> io::Result<()> {
        let current = self.files.back().map(File::metadata).transpose()?.map(|m| m.ino());
        if std::fs::metadata(&self.path).is_ok_and(|newest| Some(newest.ino()) != current) {
            self.files.extend(all_files(&self.path, current)?);
        }
        Ok(())
    }

    /// The current file is read: on to the next, if there is one.
    fn advance(&mut self) -> io::Result<bool> {
        if self.files.len() == 1 {
            let current = self.files.front().map(File::metadata).transpose()?.map(|m| m.ino());
            let newer = all_files(&self.path, current)?;
            if newer.is_empty() {
                return Ok(false);
            }
            // What was written between our last read and the rotation.
            let mut rest = Vec::new();
            if let Some(file) = self.files.front_mut() {
                file.read_to_end(&mut rest)?;
                if !rest.is_empty() {
                    file.seek(SeekFrom::Current(-i64::try_from(rest.len()).unwrap_or(0)))?;
                    self.files.extend(newer);
                    return Ok(true);
                }
            }
            self.files.extend(newer);
        }
        self.files.pop_front();
        self.partial.clear();
        Ok(true)
    }

    fn render(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            if self.partial.is_empty() {
                self.over |= show(&self.shown, &rest[..end], out);
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                self.over |= show(&self.shown, &self.partial, out);
                self.partial.clear();
            }
            rest = &rest[end + 1..];
            if self.over {
                return;
            }
        }
        if self.partial.len() + rest.len() <= MAX_LINE {
            self.partial.extend_from_slice(rest);
        }
    }
}

/// Appends one line as the client shall see it; true once the lines are too late.
fn show(shown: &Shown, line: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return false };
    if shown.until.as_deref().is_some_and(|until| line.time >= until) {
        return true;
    }
    let stream = if line.stream == "stderr" { STDERR } else { STDOUT };
    let wanted = if stream == STDERR { shown.stderr } else { shown.stdout };
    if !wanted || shown.since.as_deref().is_some_and(|since| line.time < since) {
        return false;
    }
    let details = shown.details.as_deref();
    let stamp = if shown.timestamps { line.time.len() + 1 } else { 0 } + details.map_or(0, |d| d.len() + 1);
    if !shown.raw {
        out.extend_from_slice(&frame_header(stream, u32::try_from(stamp + line.log.len()).unwrap_or(u32::MAX)));
    }
    if shown.timestamps {
        out.extend_from_slice(line.time.as_bytes());
        out.push(b' ');
    }
    if let Some(details) = details {
        out.extend_from_slice(details.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(line.log.as_bytes());
    false
}

/// What tells a file from all others that ever had its inode.
fn name_of(file: &File) -> io::Result<String> {
    let meta = file.metadata()?;
    let born = meta.created().ok().and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(format!("{}.{}", meta.ino(), born.map_or(0, |born| born.as_nanos())))
}

/// The log's files, oldest first; only those newer than the one with `inode`, if it is given.
fn all_files(path: &Path, inode: Option<u64>) -> io::Result<VecDeque<File>> {
    let mut files: VecDeque<File> = VecDeque::new();
    let mut inodes = Vec::new();
    let mut missing = 0;
    for n in 0.. {
        let name = if n == 0 { path.to_owned() } else { PathBuf::from(format!("{}.{n}", path.display())) };
        let file = match File::open(&name) {
            Ok(file) => file,
            // Between two renames one name is missing for a moment; older files are still there.
            Err(e) if e.kind() == io::ErrorKind::NotFound && missing == 0 => {
                missing += 1;
                continue;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        };
        let found = file.metadata()?.ino();
        if Some(found) == inode {
            break;
        }
        if !inodes.contains(&found) {
            inodes.push(found);
            files.push_front(file);
        }
    }
    Ok(files)
}

/// Leaves the cursor before the last `lines` lines, looking from the end.
fn seek_to_tail(files: &mut VecDeque<File>, lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    for index in (0..files.len()).rev() {
        let file = &mut files[index];
        let found = offset_of_last_lines(file, wanted)?;
        if let Ok(offset) = found {
            file.seek(SeekFrom::Start(offset))?;
            files.drain(..index);
            return Ok(());
        }
        wanted -= found.err().unwrap_or(0);
    }
    Ok(())
}

/// Where the last `wanted` lines begin, or how many there are if they are fewer.
fn offset_of_last_lines(file: &File, wanted: u64) -> io::Result<Result<u64, u64>> {
    let mut end = file.metadata()?.len();
    if wanted == 0 {
        return Ok(Ok(end));
    }
    let mut seen = 0;
    let mut chunk = vec![0; CHUNK];
    let last = end.saturating_sub(1);
    while end > 0 {
        let begin = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..usize::try_from(end - begin).unwrap_or(CHUNK)];
        file.read_exact_at(part, begin)?;
        for (at, byte) in part.iter().enumerate().rev() {
            let at = begin + at as u64;
            if *byte != b'\n' || at == last {
                continue;
            }
            seen += 1;
            if seen == wanted {
                return Ok(Ok(at + 1));
            }
        }
        end = begin;
    }
    // The file's first line has no newline before it.
    let lines = if last > 0 { seen + 1 } else { 0 };
    if lines == wanted { Ok(Ok(0)) } else { Ok(Err(lines)) }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn line(n: u32) -> String {
        let stream = if n.is_multiple_of(3) { "stderr" } else { "stdout" };
        format!("{{\"log\":\"{n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:00.{n:09}Z\"}}\n")
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.map(line).collect()
    }

    fn both() -> Shown {
        Shown { stdout: true, stderr: true, raw: true, ..Shown::default() }
    }

    fn all(cursor: &mut Cursor) -> String {
        let mut text = Vec::new();
        loop {
            let batch = cursor.read().expect("reads");
            text.extend(batch.bytes);
            if batch.at_end || batch.over {
                return String::from_utf8(text).expect("text");
            }
        }
    }

    fn numbers(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("{n}\n")).collect()
    }

    fn rotated() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("c-json.log");
        for (suffix, range) in [(".2", 0..1000), (".1", 1000..2000), ("", 2000..2500)] {
            fs::write(format!("{}{suffix}", path.display()), lines(range)).expect("writes");
        }
        (dir, path)
    }

    #[test]
    fn files_are_read_oldest_first() {
        let (_dir, path) = rotated();
        assert_eq!(all(&mut Cursor::open(&path, None, both()).expect("opens")), numbers(0..2500));
    }

    #[test]
    fn a_tail_is_exact_over_file_borders() {
        let (_dir, path) = rotated();
        for tail in [0, 1, 499, 500, 501, 1499, 1500, 1501, 2499, 2500, 2501, 9999] {
            let text = all(&mut Cursor::open(&path, Some(tail), both()).expect("opens"));
            let first = 2500_u64.saturating_sub(tail);
            assert_eq!(text, numbers(u32::try_from(first).expect("small")..2500), "tail {tail}");
        }
    }

    #[test]
    fn a_rotation_under_the_reader_loses_nothing() {
        let (_dir, path) = rotated();
        let mut cursor = Cursor::open(&path, Some(10), both()).expect("opens");
        assert_eq!(all(&mut cursor), numbers(2490..2500));
        let append = |n: std::ops::Range<u32>| {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("opens");
            file.write_all(lines(n).as_bytes()).expect("writes");
        };
        append(2500..2510);
        for n in 0..3 {
            for older in (1..8).rev() {
                let (from, to) = (format!("{}.{older}", path.display()), format!("{}.{}", path.display(), older + 1));
                if fs::exists(&from).expect("stat") {
                    fs::rename(from, to).expect("renames");
                }
            }
            fs::rename(&path, format!("{}.1", path.display())).expect("renames");
            append(2510 + n * 10..2520 + n * 10);
        }
        assert_eq!(all(&mut cursor), numbers(2500..2540));
    }

    #[test]
    fn a_truncated_file_is_read_from_its_beginning() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("c-json.log");
        fs::write(&path, lines(0..100)).expect("writes");
        let mut cursor = Cursor::open(&path, None, both()).expect("opens");
        all(&mut cursor);
        let file = fs::OpenOptions::new().write(true).truncate(true).open(&path).expect("opens");
        (&file).write_all(lines(100..103).as_bytes()).expect("writes");
        assert_eq!(all(&mut cursor), numbers(100..103));
    }

    #[test]
    fn reading_goes_on_at_a_position_also_after_rotations() {
        let (_dir, path) = rotated();
        let mut cursor = Cursor::open(&path, Some(1), both()).expect("opens");
        let begin = cursor.position().expect("asks").expect("has one");
        let again = |at: &str| all(&mut Cursor::resume(&path, at, both()).expect("opens"));
        assert_eq!(again(&begin), numbers(2499..2500));
        all(&mut cursor);
        let end = cursor.position().expect("asks").expect("has one");
        assert_eq!(again(&end), "");
        // A line half-way written is before the position only when it is whole.
        let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
        let (half, rest) = (&line(2500)[..10], &line(2500)[10..]);
        file.write_all(half.as_bytes()).expect("writes");
        assert_eq!(all(&mut cursor), "");
        assert_eq!(cursor.position().expect("asks"), Some(end.clone()));
        file.write_all(rest.as_bytes()).expect("writes");
        fs::rename(&path, format!("{}.1", path.display())).expect("renames");
        fs::write(&path, lines(2501..2510)).expect("writes");
        assert_eq!(again(&end), numbers(2500..2510));
        assert_eq!(all(&mut cursor), numbers(2500..2510));
        fs::remove_file(format!("{}.1", path.display())).expect("removes");
        let older = format!("{}.2", path.display());
        fs::remove_file(older).expect("removes");
        assert_eq!(again(&end), numbers(2501..2510), "what is gone is gone, and nothing comes twice");
    }

    #[test]
    fn a_reader_that_lags_behind_holds_the_file_it_has_not_begun() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("c-json.log");
        fs::write(&path, lines(0..40_000)).expect("writes");
        let mut cursor = Cursor::open(&path, None, both()).expect("opens");
        let mut text = cursor.read().expect("reads").bytes;
        fs::remove_file(&path).expect("removes");
        fs::write(&path, lines(40_000..40_010)).expect("writes");
        text.extend(cursor.read().expect("reads").bytes);
        fs::remove_file(&path).expect("removes");
        fs::write(&path, lines(40_010..40_020)).expect("writes");
        assert_eq!(String::from_utf8(text).expect("text") + &all(&mut cursor), numbers(0..40_020));
    }

    #[test]
    fn lines_are_chosen_by_stream_and_time_and_framed() {
        let (_dir, path) = rotated();
        let stamp = |n: u32| Some(format!("2026-01-01T00:00:00.{n:09}Z"));
        let shown = Shown {
            stdout: false,
            stderr: true,
            since: stamp(9),
            until: stamp(15),
            timestamps: true,
            details: Some("a=b".into()),
            raw: false,
        };
        let mut cursor = Cursor::open(&path, None, shown).expect("opens");
        let batch = cursor.read().expect("reads");
        assert!(batch.over);
        let frame = |n: u32| {
            let text = format!("2026-01-01T00:00:00.{n:09}Z a=b {n}\n");
            [frame_header(STDERR, text.len() as u32).as_slice(), text.as_bytes()].concat()
        };
        assert_eq!(batch.bytes, [frame(9), frame(12)].concat());
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_empty_and_then_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("c-json.log");
        let mut cursor = Cursor::open(&path, None, both()).expect("opens");
        assert_eq!(all(&mut cursor), "");
        fs::write(&path, lines(0..2)).expect("writes");
        assert_eq!(all(&mut cursor), numbers(0..2));
    }
}
