//! Writing PEM (RFC 7468): `rustls-pki-types` reads it and does not write it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters of base64 in a line (RFC 7468 section 2).
const LINE_CHARACTERS: usize = 64;

/// One block with the label, such as `CERTIFICATE`, ending in a line feed.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / LINE_CHARACTERS + 2 * label.len() + 40);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE_CHARACTERS));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    proptest! {
        #[test]
        fn what_is_written_reads_back(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let text = encode("CERTIFICATE", &der);
            prop_assert!(text.lines().all(|line| line.len() <= LINE_CHARACTERS));
            let read = CertificateDer::from_pem_slice(text.as_bytes()).expect("a block");
            prop_assert_eq!(read.as_ref(), &der[..]);
        }
    }
}
