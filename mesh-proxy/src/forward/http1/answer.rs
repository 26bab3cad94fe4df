//! Writes the answer of a refusal as HTTP/1.1.

use super::head::Keeping;
use crate::connection::Direction;
use crate::forward::headers;
use crate::respond::Refusal;

/// Appends the whole answer to `out`; gives the number of body bytes. An answer to HEAD has none, but states
/// the length that it would have had.
pub fn write(
    out: &mut Vec<u8>,
    refusal: &Refusal,
    direction: Direction,
    keeping: Keeping,
    is_head: bool,
) -> u64 {
    let status = refusal.status();
    let body = refusal.body();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(body.len().to_string().as_bytes());
    if !body.is_empty() {
        out.extend_from_slice(b"\r\ncontent-type: text/plain");
    }
    out.extend_from_slice(b"\r\nserver: ");
    out.extend_from_slice(headers::server(direction).as_bytes());
    match keeping {
        Keeping::Close => out.extend_from_slice(b"\r\nconnection: close"),
        Keeping::OldKeepAlive => out.extend_from_slice(b"\r\nconnection: keep-alive"),
        Keeping::Default | Keeping::Upgrade => {}
    }
    out.extend_from_slice(b"\r\n\r\n");
    if is_head {
        return 0;
    }
    out.extend_from_slice(body.as_bytes());
    body.len() as u64
}
