//! What the first bytes of a connection are. Pure: bytes in, verdict out, and the verdict over a prefix never
//! contradicts the verdict over more.

/// The mesh's ALPN names (Istio's), by which a ClientHello is told from the application's own TLS.
const MESH_ALPN: [&[u8]; 5] =
    [b"istio", b"istio-peer-exchange", b"istio-http/1.0", b"istio-http/1.1", b"istio-h2"];
/// The connection preface of HTTP/2 (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is looked for; the longest registered one has 17 letters.
const METHOD_MAX: usize = 20;
/// Longest request line that is read for the sake of its version.
const REQUEST_LINE_MAX: usize = 8 * 1024;
/// Longest ClientHello that is collected. One with a hybrid key share has about 1.8 kB.
const CLIENT_HELLO_MAX: usize = 16 * 1024;

/// What a connection starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A ClientHello that offers one of the mesh's ALPN names.
    MeshTls,
    /// Any other ClientHello.
    OtherTls,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 preface.
    Http2,
    /// Something else.
    Other,
    /// Cannot be told yet.
    NeedMore,
}

/// Looks at the bytes received so far.
#[must_use]
pub fn look(bytes: &[u8]) -> FirstBytes {
    match bytes.first() {
        None => FirstBytes::NeedMore,
        Some(0x16) => look_at_tls(bytes),
        Some(_) => look_at_http(bytes),
    }
}

/// Looks only for HTTP: for bytes that come out of a TLS session.
#[must_use]
pub fn look_at_http(bytes: &[u8]) -> FirstBytes {
    if bytes.is_empty() {
        return FirstBytes::NeedMore;
    }
    let shared = bytes.len().min(H2_PREFACE.len());
    if bytes[..shared] == H2_PREFACE[..shared] {
        return if shared == H2_PREFACE.len() { FirstBytes::Http2 } else { FirstBytes::NeedMore };
    }
    let method_length = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method_length > METHOD_MAX {
        return FirstBytes::Other;
    }
    match bytes.get(method_length) {
        None => return FirstBytes::NeedMore,
        Some(b' ') if method_length >= 3 => {}
        Some(_) => return FirstBytes::Other,
    }
    let rest = &bytes[method_length + 1..];
    match rest.first() {
        None => return FirstBytes::NeedMore,
        Some(b'/' | b'*' | b'h' | b'H' | b'[') => {}
        Some(byte) if byte.is_ascii_alphanumeric() => {}
        Some(_) => return FirstBytes::Other,
    }
    // Text protocols have commands in capitals too ("QUIT x"); only the version tells them apart.
    match rest.iter().position(|&byte| byte == b'\n') {
        Some(end) => {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let at = line.len().saturating_sub(9);
            if line[at..].starts_with(b" HTTP/1.") { FirstBytes::Http1 } else { FirstBytes::Other }
        }
        None if rest.len() > REQUEST_LINE_MAX => FirstBytes::Other,
        None => FirstBytes::NeedMore,
    }
}

fn look_at_tls(bytes: &[u8]) -> FirstBytes {
    match client_hello(bytes) {
        Hello::Incomplete => FirstBytes::NeedMore,
        Hello::Not => FirstBytes::Other,
        Hello::Complete { is_mesh: true } => FirstBytes::MeshTls,
        Hello::Complete { is_mesh: false } => FirstBytes::OtherTls,
    }
}

enum Hello {
    Incomplete,
    Not,
    Complete { is_mesh: bool },
}

/// Collects the handshake message over its records (RFC 8446 sections 4.1.2 and 5.1) and looks at its ALPN.
fn client_hello(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        // Content type, legacy version 3.x, length.
        for (at, ok) in [(0, &[0x16][..]), (1, &[0x03][..])] {
            match rest.get(at) {
                None => return Hello::Incomplete,
                Some(byte) if !ok.contains(byte) => return Hello::Not,
                Some(_) => {}
            }
        }
        let Some(length) = rest.get(3..5) else { return Hello::Incomplete };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length == 0 || length > CLIENT_HELLO_MAX {
            return Hello::Not;
        }
        let payload = &rest[5..rest.len().min(5 + length)];
        message.extend_from_slice(payload);
        if message.first().is_some_and(|&kind| kind != 1) {
            return Hello::Not;
        }
        if let Some(size) = message.get(1..4) {
            let size = usize::from(size[0]) << 16 | usize::from(size[1]) << 8 | usize::from(size[2]);
            if size > CLIENT_HELLO_MAX {
                return Hello::Not;
            }
            if let Some(body) = message.get(4..4 + size) {
                return Hello::Complete { is_mesh: offers_mesh_alpn(body).unwrap_or(false) };
            }
        }
        if payload.len() < length {
            return Hello::Incomplete;
        }
        rest = &rest[5 + length..];
    }
}

/// Reads the ALPN list of a ClientHello's body; `None` when it is malformed or has none.
fn offers_mesh_alpn(body: &[u8]) -> Option<bool> {
    let rest = body.get(34..)?;
    let (_session, rest) = vector8(rest)?;
    let (_suites, rest) = vector16(rest)?;
    let (_compression, rest) = vector8(rest)?;
    let (mut extensions, _) = vector16(rest)?;
    while !extensions.is_empty() {
        let kind = u16::from_be_bytes([*extensions.first()?, *extensions.get(1)?]);
        let (content, rest) = vector16(&extensions[2..])?;
        extensions = rest;
        if kind == 16 {
            let (mut names, _) = vector16(content)?;
            while !names.is_empty() {
                let (name, rest) = vector8(names)?;
                if MESH_ALPN.contains(&name) {
                    return Some(true);
                }
                names = rest;
            }
            return Some(false);
        }
    }
    Some(false)
}

fn vector8(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(*bytes.first()?);
    Some((bytes.get(1..1 + length)?, &bytes[1 + length..]))
}

fn vector16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    Some((bytes.get(2..2 + length)?, &bytes[2 + length..]))
}

#[cfg(test)]
mod tests;
