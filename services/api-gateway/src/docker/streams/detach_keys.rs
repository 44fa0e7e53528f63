//! The keys that take a client off a terminal without ending anything. They are looked for in what
//! the client types, on the server's side, and never reach the container once complete.

use model::{Error, Result};

/// Docker's default, `ctrl-p,ctrl-q`.
const DEFAULT: [u8; 2] = [16, 17];

/// A sequence of bytes being looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

/// What a piece of input comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Pass these bytes on.
    Pass(Vec<u8>),
    /// Pass these on; then the sequence was complete.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// `ctrl-x,a`; empty is the default.
    pub(crate) fn parse(written: &str) -> Result<Self> {
        if written.is_empty() {
            return Ok(Self { sequence: DEFAULT.to_vec(), matched: 0 });
        }
        let sequence: Option<Vec<u8>> = written.split(',').map(key).collect();
        match sequence {
            Some(sequence) if sequence.len() <= 32 => Ok(Self { sequence, matched: 0 }),
            _ => Err(Error::InvalidArgument(format!("Invalid detach keys ({written}) provided"))),
        }
    }

    /// Looks at what was typed. A beginning of the sequence is held back until it is decided.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> Typed {
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.sequence.get(self.matched) != Some(byte) {
                pass.extend_from_slice(&self.sequence[..self.matched]);
                self.matched = 0;
            }
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return Typed::Detach(pass);
                }
            } else {
                pass.push(*byte);
            }
        }
        Typed::Pass(pass)
    }
}

fn key(written: &str) -> Option<u8> {
    let control = |c: u8| match c {
        b'a'..=b'z' => Some(c - b'a' + 1),
        b'@' => Some(0),
        b'[' => Some(27),
        b'\\' => Some(28),
        b']' => Some(29),
        b'^' => Some(30),
        b'_' => Some(31),
        _ => None,
    };
    match (written.strip_prefix("ctrl-"), written.as_bytes()) {
        (Some(rest), _) if rest.len() == 1 => control(rest.as_bytes()[0]),
        (None, [one]) if one.is_ascii() => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_across_pieces_and_never_passed_on() {
        let mut keys = DetachKeys::parse("").expect("default");
        assert_eq!(keys.feed(b"ls\n\x10"), Typed::Pass(b"ls\n".to_vec()));
        assert_eq!(keys.feed(b"\x11rest"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn a_beginning_that_leads_nowhere_is_passed_on() {
        let mut keys = DetachKeys::parse("").expect("default");
        assert_eq!(keys.feed(b"\x10x"), Typed::Pass(b"\x10x".to_vec()));
        assert_eq!(keys.feed(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
    }

    #[test]
    fn keys_are_chosen_by_name() {
        assert_eq!(DetachKeys::parse("ctrl-a,d").expect("keys").sequence, [1, b'd']);
        for bad in ["ctrl-", "ctrl-aa", "ab", "ctrl-!", ","] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }
}
