//! Changes to an input: small, stacked, and with the words that parsers look for.

use fastrand::Rng;

/// Longest input, in bytes; every parser has its own bound below or near it.
pub const INPUT_BYTES_MAX: usize = 80 * 1024;
/// Bytes at which signed, unsigned and text differ.
const EDGES: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b' ', b'\t', b'%', b'/', b'\\', b'"', b'{', b'.', b':'];
/// Changes stacked on one input.
const STACKED_MAX: usize = 6;

/// Words that mean something to one parser or another.
const WORDS: [&[u8]; 44] = [
    b"\r\n",
    b"\r\n\r\n",
    b"%00",
    b"%2f",
    b"%2e%2e",
    b"%5c",
    b"%25",
    b"/../",
    b"/./",
    b"//",
    b"{*}",
    b"{**}",
    b"*",
    b"?",
    b"#",
    b"\0",
    b"\xc3\xbf",
    b"\xff\xfe",
    b"chunked",
    b"Transfer-Encoding: ",
    b"Content-Length: ",
    b"18446744073709551616",
    b"-1",
    b"1e400",
    b"\"\"",
    b"null",
    b"[]",
    b"{}",
    b"---\n",
    b"&a [*a]",
    b"!!binary ",
    b"\t",
    b"eyJ",
    b"..",
    b"=",
    b"spiffe://",
    b"/ns/",
    b"/sa/",
    b"\xc0\x0c",
    b"\x16\x03\x01",
    b"PRI * HTTP/2.0",
    b"\x30\x82",
    b"true",
    b"~",
];

/// A changed copy of `input`; `other` lends parts.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.usize(1..=STACKED_MAX) {
        change(&mut bytes, other, rng);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let run = |length: usize, rng: &mut Rng| {
        let start = rng.usize(..=length);
        start..start + rng.usize(..=(length - start).min(64))
    };
    match rng.u8(..8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if rng.bool() { rng.u8(..) } else { EDGES[rng.usize(..EDGES.len())] };
            }
        }
        2 => drop(bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied())),
        3 => drop(bytes.drain(run(bytes.len(), rng))),
        4 => {
            let part = bytes[run(bytes.len(), rng)].to_vec();
            bytes.splice(at..at, part.repeat(rng.usize(1..=8)));
        }
        5 => {
            let part = other[run(other.len(), rng)].to_vec();
            bytes.splice(at..at, part);
        }
        6 => bytes.truncate(at),
        _ => {
            let from = rng.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_change_stay_bounded_and_repeat_with_their_seed() {
        let long = vec![b'x'; INPUT_BYTES_MAX];
        for seed in 0..200 {
            for input in [&b""[..], b"abc", &long] {
                let changed = mutate(input, b"other", &mut Rng::with_seed(seed));
                assert!(changed.len() <= INPUT_BYTES_MAX);
                assert_eq!(changed, mutate(input, b"other", &mut Rng::with_seed(seed)));
            }
        }
    }
}
