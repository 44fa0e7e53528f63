//! The container's log: Docker's json-file, one object a line, split at 16 KiB and rotated by size.
//!
//! A whole read of the container's output becomes one write. The log never stops the container: what
//! cannot be written is dropped and counted, and a torn line is cut off again. Nothing is synced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use memchr::memchr;
use runtime::protocol::LogTarget;

use crate::{clock, escape};

/// dockerd's bound on one message; longer lines become several without a newline.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// The batch is written when it gets this long, so that a burst of empty lines stays bounded.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Names of the streams, by index of the output.
const STREAMS: [&[u8]; 2] = [b"stdout", b"stderr"];

/// An open log.
pub(crate) struct Log {
    target: LogTarget,
    file: Option<File>,
    /// Bytes in the current file.
    size: u64,
    /// Lines rendered and not yet written.
    batch: Vec<u8>,
    batch_lines: u64,
    /// The line each stream is in the middle of.
    partial: [Vec<u8>; 2],
    dropped_lines: u64,
}

impl Log {
    /// Opens for appending; a log that cannot be opened drops its lines and tries again later.
    pub(crate) fn open(target: LogTarget) -> Self {
        let mut log = Self {
            target,
            file: None,
            size: 0,
            batch: Vec::new(),
            batch_lines: 0,
            partial: [Vec::new(), Vec::new()],
            dropped_lines: 0,
        };
        if let Err(e) = log.reopen() {
            eprintln!("open log {}: {e}", log.target.path);
        }
        log
    }

    /// Lines that did not reach the file.
    pub(crate) fn dropped_lines(&self) -> u64 {
        self.dropped_lines
    }

    /// Takes what was read from an output and writes the lines that are complete.
    pub(crate) fn feed(&mut self, output: usize, bytes: &[u8]) {
        let time = clock::rfc3339(clock::now_ns());
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            self.complete(output, &rest[..end], &time);
            rest = &rest[end + 1..];
        }
        self.keep(output, rest, &time);
        self.flush();
    }

    /// The end of the output: what is left of a line is logged without a newline, as dockerd does.
    pub(crate) fn finish(&mut self) {
        let time = clock::rfc3339(clock::now_ns());
        for output in 0..2 {
            let left = std::mem::take(&mut self.partial[output]);
            if !left.is_empty() {
                self.line(output, &left, false, &time);
            }
        }
        self.flush();
    }

    /// Gives back what a burst has allocated.
    pub(crate) fn release_buffers(&mut self) {
        self.batch = Vec::new();
        for partial in &mut self.partial {
            partial.shrink_to_fit();
        }
    }

    /// A newline was found: what was kept of the line and its last part.
    fn complete(&mut self, output: usize, last: &[u8], time: &[u8; 30]) {
        if self.partial[output].is_empty() && last.len() <= MAX_LINE_BYTES {
            return self.line(output, last, true, time);
        }
        self.keep(output, last, time);
        let mut whole = std::mem::take(&mut self.partial[output]);
        self.line(output, &whole, true, time);
        whole.clear();
        self.partial[output] = whole;
    }

    /// No newline yet: kept, and logged in parts of 16 KiB.
    fn keep(&mut self, output: usize, mut bytes: &[u8], time: &[u8; 30]) {
        while self.partial[output].len() + bytes.len() > MAX_LINE_BYTES {
            let room = MAX_LINE_BYTES - self.partial[output].len();
            let (now, later) = bytes.split_at(room);
            self.partial[output].extend_from_slice(now);
            let mut part = std::mem::take(&mut self.partial[output]);
            self.line(output, &part, false, time);
            part.clear();
            self.partial[output] = part;
            bytes = later;
        }
        self.partial[output].extend_from_slice(bytes);
    }

    fn line(&mut self, output: usize, line: &[u8], newline: bool, time: &[u8; 30]) {
        let buffered = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        if self.target.max_size_bytes > 0 && self.size + buffered >= self.target.max_size_bytes {
            self.flush();
            self.rotate();
        }
        let batch = &mut self.batch;
        batch.extend_from_slice(b"{\"log\":\"");
        escape::append(batch, line);
        if newline {
            batch.extend_from_slice(b"\\n");
        }
        batch.extend_from_slice(b"\",\"stream\":\"");
        batch.extend_from_slice(STREAMS[output]);
        batch.extend_from_slice(b"\",\"time\":\"");
        batch.extend_from_slice(time);
        batch.extend_from_slice(b"\"}\n");
        self.batch_lines += 1;
        if batch.len() >= MAX_BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.is_none() && self.reopen().is_err() {
            self.dropped_lines += self.batch_lines;
        } else if let Some(file) = &mut self.file {
            match file.write_all(&self.batch) {
                Ok(()) => self.size += u64::try_from(self.batch.len()).unwrap_or(0),
                Err(_) => {
                    // A full disk. What was torn off half-way is cut, so every line stays a document.
                    let _ = file.set_len(self.size);
                    self.dropped_lines += self.batch_lines;
                }
            }
        }
        self.batch.clear();
        self.batch_lines = 0;
    }

    fn rotate(&mut self) {
        let keep = self.target.max_files.max(1);
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.target.path));
        if keep > 1 {
            let _ = fs::remove_file(numbered(keep - 1));
            for n in (1..keep - 1).rev() {
                let _ = fs::rename(numbered(n), numbered(n + 1));
            }
            let _ = fs::rename(&self.target.path, numbered(1));
        } else {
            // Not truncated: who reads it reads it to its end, and then finds the new one.
            let _ = fs::remove_file(&self.target.path);
        }
        self.file = None;
        if let Err(e) = self.reopen() {
            eprintln!("rotate log {}: {e}", self.target.path);
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let path = &self.target.path;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        self.size = file.metadata()?.len();
        let mut last = [b'\n'];
        if self.size > 0 && file.read_at(&mut last, self.size - 1)? == 1 && last != *b"\n" {
            // The host died in the middle of a line: ours starts on its own.
            file.write_all(b"\n")?;
            self.size += 1;
        }
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
