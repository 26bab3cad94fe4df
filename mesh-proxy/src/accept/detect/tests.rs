use proptest::prelude::*;

use super::*;

/// A ClientHello that offers the given ALPN names, cut into records of at most `record` bytes.
fn hello(alpn: &[&[u8]], record: usize) -> Vec<u8> {
    let mut names = Vec::new();
    for name in alpn {
        names.push(u8::try_from(name.len()).expect("short"));
        names.extend_from_slice(name);
    }
    let with_length = |bytes: &[u8]| {
        let mut out = u16::try_from(bytes.len()).expect("short").to_be_bytes().to_vec();
        out.extend_from_slice(bytes);
        out
    };
    let mut extensions = vec![0, 43];
    extensions.extend(with_length(&[2, 3, 4]));
    if !alpn.is_empty() {
        extensions.extend([0, 16]);
        extensions.extend(with_length(&with_length(&names)));
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(with_length(&[0x13, 1]));
    body.extend([1, 0]);
    body.extend(with_length(&extensions));
    let size = u32::try_from(body.len()).expect("short").to_be_bytes();
    let mut message = vec![1];
    message.extend_from_slice(&size[1..]);
    message.extend(body);
    message.chunks(record).flat_map(|chunk| [vec![0x16, 3, 1], with_length(chunk)].concat()).collect()
}

#[test]
fn only_a_mesh_alpn_makes_mesh_tls() {
    for name in MESH_ALPN {
        assert_eq!(look(&hello(&[b"h2", name], 4096)), FirstBytes::MeshTls);
    }
    assert_eq!(look(&hello(&[b"h2", b"http/1.1"], 4096)), FirstBytes::OtherTls);
    assert_eq!(look(&hello(&[b"istio-h3"], 4096)), FirstBytes::OtherTls);
    assert_eq!(look(&hello(&[], 4096)), FirstBytes::OtherTls);
}

#[test]
fn a_hello_in_many_records_is_read() {
    assert_eq!(look(&hello(&[b"istio-http/1.1"], 9)), FirstBytes::MeshTls);
}

#[test]
fn http_is_told_by_its_version_and_not_by_capitals() {
    let cases: [(&[u8], FirstBytes); 12] = [
        (b"GET / HTTP/1.1\r\n", FirstBytes::Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", FirstBytes::Http1),
        (b"GET / HTTP/1.1\n", FirstBytes::Http1),
        (b"GET / HTT", FirstBytes::NeedMore),
        (b"GE", FirstBytes::NeedMore),
        (b"QUIT now\r\n", FirstBytes::Other),
        (b"EHLO mail.example\r\n", FirstBytes::Other),
        (b"PING\r\n", FirstBytes::Other),
        (b"*1\r\n$4\r\nPING\r\n", FirstBytes::Other),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", FirstBytes::Http2),
        (b"PRI * HTTP/2", FirstBytes::NeedMore),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", FirstBytes::Other),
    ];
    for (bytes, expected) in cases {
        assert_eq!(look(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

proptest! {
    #[test]
    fn a_verdict_over_a_prefix_stands(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0..4) {
        let bytes = match kind {
            0 => bytes,
            1 => hello(&[b"istio"], 20),
            2 => [b"GET /x HTTP/1.1\r\n".to_vec(), bytes].concat(),
            _ => [vec![0x16, 3, 1], bytes].concat(),
        };
        let whole = look(&bytes);
        for end in 0..bytes.len() {
            let early = look(&bytes[..end]);
            prop_assert!(early == FirstBytes::NeedMore || early == whole, "{early:?} then {whole:?}");
        }
    }
}
