//! Answers a refusal in HTTP/2: as HTTP, or to a gRPC client as the trailers of a response that has nothing
//! else (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::forward::headers;
use crate::respond::{DECISION_ID, GRPC_MESSAGE, GRPC_STATUS, Refusal, UNPROCESSED};
use crate::telemetry::HttpRecord;

/// Answers with a refusal and writes it into the record.
///
/// # Errors
/// When the stream is gone.
pub fn refuse(
    respond: &mut SendResponse<Bytes>,
    refusal: &Refusal,
    record: &mut HttpRecord,
) -> Result<(), h2::Error> {
    refusal.note(record);
    let mut response = Response::new(());
    if let Some(id) = record.told_decision().and_then(|id| HeaderValue::from_maybe_shared(id).ok()) {
        response.headers_mut().insert(DECISION_ID, id);
    }
    if refusal.is_unprocessed(record.connection()) {
        response.headers_mut().insert(UNPROCESSED, HeaderValue::from_static("1"));
    }
    let server = headers::server(record.connection().direction);
    response.headers_mut().insert(SERVER, HeaderValue::from_static(server));
    if record.is_grpc {
        record.status = StatusCode::OK.as_u16();
        record.grpc_status = Some(refusal.grpc_status());
        let lines = response.headers_mut();
        add_lines(refusal, lines);
        lines.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        add_grpc_status(refusal, lines);
        return respond.send_response(response, true).map(drop);
    }
    *response.status_mut() = refusal.status();
    let body = refusal.body();
    let lines = response.headers_mut();
    add_lines(refusal, lines);
    // A 204 must not state a length (RFC 9110 section 8.6).
    if refusal.status() != StatusCode::NO_CONTENT {
        lines.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if !body.is_empty() && !lines.contains_key(CONTENT_TYPE) {
        lines.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if body.is_empty() || record.method == "HEAD" {
        return respond.send_response(response, true).map(drop);
    }
    // What the client's window has no room for waits in the stream's buffer; a body is bounded.
    let mut stream = respond.send_response(response, false)?;
    record.bytes_sent = body.len() as u64;
    stream.send_data(body, true)
}

/// Ends a gRPC response that has begun.
///
/// # Errors
/// When the stream is gone.
pub fn end_grpc(
    stream: &mut SendStream<Bytes>,
    refusal: &Refusal,
    record: &mut HttpRecord,
) -> Result<(), h2::Error> {
    let mut trailers = HeaderMap::with_capacity(2);
    add_grpc_status(refusal, &mut trailers);
    record.grpc_status = Some(refusal.grpc_status());
    stream.send_trailers(trailers)
}

fn add_lines(refusal: &Refusal, lines: &mut HeaderMap) {
    for (name, value) in refusal.lines().into_iter().filter(|(name, _)| *name != SERVER) {
        lines.append(name, value);
    }
}

fn add_grpc_status(refusal: &Refusal, lines: &mut HeaderMap) {
    lines.insert(GRPC_STATUS, HeaderValue::from(refusal.grpc_status()));
    lines.insert(GRPC_MESSAGE, refusal.grpc_message());
}

/// The gRPC status among header lines.
#[must_use]
pub fn grpc_status(lines: &HeaderMap) -> Option<u32> {
    lines.get(GRPC_STATUS).and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok())
}
