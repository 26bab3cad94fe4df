//! Writes the answer of a refusal as HTTP/1.1.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderValue, StatusCode};

use super::head::Keeping;
use crate::connection::Direction;
use crate::forward::headers;
use crate::respond::{DECISION_ID, GRPC_MESSAGE, GRPC_STATUS, Refusal, UNPROCESSED};

/// What the request and its connection make of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// Side of the proxy.
    pub direction: Direction,
    /// What becomes of the connection.
    pub keeping: Keeping,
    /// Whether the request was HEAD: the answer has no body, but states the length that it would have had.
    pub is_head: bool,
    /// Whether the peer is told that nothing was done for its request.
    pub is_unprocessed: bool,
    /// Whether the request was gRPC: its status is told in gRPC's words and not in HTTP's.
    pub is_grpc: bool,
}

/// Appends the whole answer to `out`; gives the number of body bytes. `decision` names the decision that it
/// comes from, to a peer who may know.
pub fn write(out: &mut Vec<u8>, refusal: &Refusal, form: Form, decision: Option<&str>) -> u64 {
    let Form { direction, keeping, is_head, is_unprocessed, is_grpc } = form;
    let status = if is_grpc { StatusCode::OK } else { refusal.status() };
    let body = if is_grpc { Bytes::new() } else { refusal.body() };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    // A 204 must not state a length (RFC 9110 section 8.6).
    if status != StatusCode::NO_CONTENT {
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(body.len().to_string().as_bytes());
    }
    let mut lines = refusal.lines();
    if is_grpc {
        lines.retain(|(name, _)| *name != CONTENT_TYPE);
        lines.push((CONTENT_TYPE, HeaderValue::from_static("application/grpc")));
        lines.push((GRPC_STATUS, HeaderValue::from(refusal.grpc_status())));
        lines.push((GRPC_MESSAGE, refusal.grpc_message()));
    }
    if !body.is_empty() && !lines.iter().any(|(name, _)| *name == CONTENT_TYPE) {
        out.extend_from_slice(b"\r\ncontent-type: text/plain");
    }
    for (name, value) in lines.iter().filter(|(name, _)| *name != SERVER) {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    if let Some(decision) = decision {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(DECISION_ID.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(decision.as_bytes());
    }
    if is_unprocessed {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(UNPROCESSED.as_str().as_bytes());
        out.extend_from_slice(b": 1");
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
    out.extend_from_slice(&body);
    body.len() as u64
}
