//! The commands that fill a Redis cache, as lines of text.
//!
//! Each command is one line of Redis's inline form with its arguments in double quotes, and every byte that is not printable
//! ASCII is escaped. So neither psql, nor the client's encoding, nor a body that is not text can change what arrives. Redis
//! takes lines of up to 64 KiB; a larger value comes in pieces.

use crate::interrupt;

/// Longest line, in bytes.
const MAX_LINE: usize = 60 << 10;
/// Longest key prefix, in bytes.
pub const MAX_PREFIX: usize = 200;

fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for &byte in interrupt::each(bytes) {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
}

/// A command; `None` when it is too long for a line.
pub fn command(arguments: &[&[u8]]) -> Option<String> {
    let mut line = String::new();
    for argument in arguments {
        if !line.is_empty() {
            line.push(' ');
        }
        quote(argument, &mut line);
    }
    (line.len() <= MAX_LINE).then_some(line)
}

/// The commands that give a key a value of any size.
pub fn set(key: &str, value: &[u8], mut each: impl FnMut(String)) {
    // An escaped byte has at most four characters, and a key is short.
    let mut chunks = value.chunks(MAX_LINE / 4 - 2 * 1024);
    let first = chunks.next().unwrap_or_default();
    for (verb, chunk) in std::iter::once((&b"SET"[..], first)).chain(chunks.map(|chunk| (&b"APPEND"[..], chunk))) {
        each(command(&[verb, key.as_bytes(), chunk]).unwrap_or_default());
    }
}

/// A prefix that the client can search with: it takes the pattern signs of Redis as such.
pub fn is_prefix(prefix: &str) -> bool {
    (1..=MAX_PREFIX).contains(&prefix.len()) && !prefix.chars().any(|c| c.is_control() || "*?[]\\^".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a line as Redis does (the inline form of its documentation).
    fn read(line: &str) -> Vec<Vec<u8>> {
        let mut arguments = Vec::new();
        let mut rest = line.bytes().peekable();
        while rest.next_if_eq(&b' ').is_some() || rest.peek().is_some() {
            assert_eq!(rest.next(), Some(b'"'));
            let mut argument = Vec::new();
            loop {
                match rest.next().unwrap() {
                    b'"' => break,
                    b'\\' => argument.push(match rest.next().unwrap() {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'x' => {
                            let digits = [rest.next().unwrap(), rest.next().unwrap()];
                            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                        }
                        other => other,
                    }),
                    byte => argument.push(byte),
                }
            }
            arguments.push(argument);
        }
        arguments
    }

    #[test]
    fn large_values_come_in_pieces() {
        for value in [vec![0xff; 200_000], vec![b'x'; 100_000], Vec::new()] {
            let (mut whole, mut lines) = (Vec::new(), 0);
            set("k", &value, |line| {
                assert!(!line.is_empty() && line.len() <= MAX_LINE);
                let arguments = read(&line);
                assert_eq!(arguments[0], if lines == 0 { &b"SET"[..] } else { &b"APPEND"[..] });
                lines += 1;
                whole.extend(arguments[2].clone());
            });
            assert_eq!(whole, value);
        }
        assert!(command(&[&vec![b'x'; MAX_LINE]]).is_none());
    }

    #[test]
    fn prefixes() {
        assert!(is_prefix("skills:") && is_prefix("日本:"));
        for bad in ["", "a*", "a?", "[a]", "a\\", "a\n", &"x".repeat(201)] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive(arguments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..5)) {
            let slices: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
            let line = command(&slices).unwrap();
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(read(&line), arguments);
        }
    }
}
