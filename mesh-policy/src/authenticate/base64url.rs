//! Base64url as tokens and keys use it (RFC 7515 section 2, RFC 4648 section 5).
//!
//! Padding is optional, as Envoy takes it; whitespace, which Envoy passes over, is not base64url here. Bits
//! behind the last whole byte are free in a section that the signature covers, but not in the signature
//! itself: two spellings of one signature would be two tokens for whoever remembers tokens by their text.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const UNPADDED: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes that `text` stands for.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    UNPADDED.decode(without_padding(text)).ok()
}

/// Whether `text` is the one spelling of `bytes`, padding aside.
pub(super) fn is_canonical(text: &[u8], bytes: &[u8]) -> bool {
    UNPADDED.encode(bytes).as_bytes() == without_padding(text)
}

/// The text without its padding, provided that this fills the last group of four.
fn without_padding(text: &[u8]) -> &[u8] {
    match text {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] if text.len().is_multiple_of(4) => rest,
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_whole_or_absent() {
        for (text, expected) in [
            ("", Some("")),
            ("YQ", Some("a")),
            ("YQ==", Some("a")),
            ("YR", Some("a")),
            ("YWI", Some("ab")),
            ("YWI=", Some("ab")),
            ("YWJj", Some("abc")),
            ("YQ=", None),
            ("YQ===", None),
            ("YWJj=", None),
            ("YWJj====", None),
            ("Y", None),
            ("=", None),
            ("Y Q", None),
            ("YQ\n", None),
            ("Y+", None),
            ("Y/", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
        assert_eq!(decode(b"-_8").as_deref(), Some(&[0xfb, 0xff][..]));
        assert!(is_canonical(b"YQ", b"a") && is_canonical(b"YQ==", b"a") && !is_canonical(b"YR", b"a"));
    }
}
