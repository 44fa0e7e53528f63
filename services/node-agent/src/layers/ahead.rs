//! Decoding ahead on a thread of its own, while another hashes what came out, reads entries and writes
//! them: a layer keeps two processors busy. A few buffers go round, so that it is never far ahead.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

use super::decode::Decoder;

const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;

/// What a decoder gives, as it comes.
pub(super) struct Ahead {
    full: Receiver<io::Result<(Vec<u8>, usize)>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    filled: usize,
}

/// Begins. The thread ends with the decoder's bytes, with its first error, or when nobody reads any more;
/// it gives the decoder back.
pub(super) fn decode<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut decoder: Decoder<R>,
) -> (Ahead, ScopedJoinHandle<'scope, Decoder<R>>) {
    let (fill, full) = sync_channel(BUFFERS);
    let (empty, emptied) = sync_channel::<Vec<u8>>(BUFFERS);
    for _ in 1..BUFFERS {
        // There is room for all of them.
        let _ = empty.try_send(vec![0; BUFFER_BYTES]);
    }
    let thread = scope.spawn(move || {
        while let Ok(mut buffer) = emptied.recv() {
            let (filled, error) = fill_up(&mut decoder, &mut buffer);
            // What came before an error is looked at first, as if nobody had been ahead.
            if fill.send(Ok((buffer, filled))).is_err() || filled < BUFFER_BYTES {
                if let Some(error) = error {
                    // Nobody may read any more.
                    let _ = fill.send(Err(error));
                }
                break;
            }
        }
        decoder
    });
    (Ahead { full, empty, current: vec![0; BUFFER_BYTES], at: 0, filled: 0 }, thread)
}

fn fill_up(from: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

impl Read for Ahead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.filled {
            // Without a thread there is nothing more; whether it came to its end is asked of it.
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let (buffer, filled) = next?;
            let used = std::mem::replace(&mut self.current, buffer);
            (self.at, self.filled) = (0, filled);
            let _ = self.empty.try_send(used);
        }
        let n = buf.len().min(self.filled - self.at);
        buf[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
