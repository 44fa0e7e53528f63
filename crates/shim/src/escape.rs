//! Bytes of a container as a JSON string, the way dockerd writes them: what is not UTF-8 becomes
//! U+FFFD, byte by byte. This is the hot loop of the log.

/// What a byte needs: 0 nothing, `u` a numeric escape, otherwise the letter after the backslash.
const ESCAPES: [u8; 256] = escapes();

const fn escapes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
}

/// Appends `bytes`, escaped, without the quotes.
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => return append_text(out, valid.as_bytes()),
            Err(e) => {
                let (valid, broken) = rest.split_at(e.valid_up_to());
                append_text(out, valid);
                let bad = e.error_len().unwrap_or(broken.len()).max(1);
                for _ in 0..bad {
                    out.extend_from_slice(b"\\ufffd");
                }
                rest = &broken[bad..];
            }
        }
    }
}

/// Runs of plain bytes are copied whole.
fn append_text(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (mut copied, mut i) = (0, 0);
    loop {
        i += plain_blocks(&text[i..]);
        let Some(found) = text[i..].iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) else { break };
        i += found;
        let byte = text[i];
        let escape = ESCAPES[usize::from(byte)];
        out.extend_from_slice(&text[copied..i]);
        copied = i + 1;
        if escape == b'u' {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
        i += 1;
    }
    out.extend_from_slice(&text[copied..]);
}

/// How many bytes in front need no escape, in whole blocks: a loop without a way out, which compilers
/// turn into a few instructions a block.
fn plain_blocks(text: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let is_plain = |block: &&[u8]| {
        let special = |byte: &u8| u8::from(*byte < 0x20) | u8::from(*byte == b'"') | u8::from(*byte == b'\\');
        block.iter().fold(0, |found, byte| found | special(byte)) == 0
    };
    text.chunks_exact(BLOCK).take_while(is_plain).count() * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = vec![b'"'];
        append(&mut out, bytes);
        out.push(b'"');
        serde_json::from_slice(&out).expect("is a JSON string")
    }

    #[test]
    fn text_reads_back_as_it_was() {
        let all: String = (0u8..128).map(char::from).collect();
        assert_eq!(escaped(all.as_bytes()), all);
        assert_eq!(escaped("größe 漢 🦀 \"\\".as_bytes()), "größe 漢 🦀 \"\\");
    }

    #[test]
    fn broken_utf8_is_replaced_byte_by_byte() {
        assert_eq!(escaped(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(escaped(b"\xe6\xbc"), "\u{fffd}\u{fffd}");
    }
}
