//! One check on the wire: an endpoint of the authorizer's service, a connection to it, a request, a response.
//!
//! The service is a destination like any other, so its endpoints are known, balanced and reached by mutual
//! TLS as those of what the application calls, and its connections are kept between checks. Routes do not
//! count: the service that the mesh settings name is the one that is asked.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use mesh_api::model::{DestinationKey, ExternalAuthorizer, PeerTls};
use tokio::io::AsyncWriteExt;

use super::AskError;
use crate::balance::{self, Picked};
use crate::forward::http1::flow;
use crate::forward::http1::framing::{BodyDecoder, Piece};
use crate::forward::http1::head::{HeadScanner, ResponseHead};
use crate::state::{DestinationState, Resolution};
use crate::upstream::{UpstreamAlpn, UpstreamStream};
use crate::worker::Worker;

/// Largest body of an answer, in bytes: that of a refusal, or a message with a hundred changes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Endpoints tried when connects fail.
const ENDPOINTS_MAX: usize = 3;
/// Interim responses before an answer; more are taken for a broken authorizer.
const INTERIM_MAX: usize = 16;

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) lines: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

/// Whether a failed try may be made once more.
#[derive(Debug)]
enum Failure {
    /// A kept connection had ended before it was used: nothing was answered.
    Stale,
    Final(AskError),
}

impl<E: Into<AskError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// Sends a check and reads its answer. Dropping the future gives the check up, and its connection with it.
pub(super) async fn send(
    worker: &Worker,
    authorizer: &ExternalAuthorizer,
    request: &Request<Bytes>,
    alpn: UpstreamAlpn,
) -> Result<Response, AskError> {
    let destination = destination(worker, authorizer).await?;
    let mut tried = Vec::new();
    let mut is_second = false;
    loop {
        let picked = pick(worker, &destination, authorizer.port, alpn, &tried)?;
        let sent = match alpn {
            UpstreamAlpn::Http2 => http2(worker, &picked, request).await,
            UpstreamAlpn::Http1 | UpstreamAlpn::Tcp => http1(worker, &picked, request).await,
        };
        match sent {
            Ok(response) => {
                picked.in_flight.note_answer();
                return Ok(response);
            }
            Err(Failure::Stale) if !is_second => is_second = true,
            Err(Failure::Stale) => {
                picked.in_flight.note_failure();
                return Err(AskError::Ended);
            }
            Err(Failure::Final(AskError::Connect(error))) => {
                picked.in_flight.note_failure();
                tried.push(picked.endpoint);
                if tried.len() >= ENDPOINTS_MAX {
                    return Err(AskError::Connect(error));
                }
                tracing::debug!(%error, host = %authorizer.host, "no connection to an authorizer; trying another endpoint");
            }
            Err(Failure::Final(error)) => {
                picked.in_flight.note_failure();
                return Err(error);
            }
        }
    }
}

/// The authorizer's service.
async fn destination(
    worker: &Worker,
    authorizer: &ExternalAuthorizer,
) -> Result<Arc<DestinationState>, AskError> {
    let key = DestinationKey::Host(authorizer.host.clone());
    let destination = match worker.state.resolve(&key).await {
        Resolution::Present(destination) => destination,
        Resolution::Absent => return Err(AskError::UnknownService),
        Resolution::Unanswered => return Err(AskError::Unresolved),
    };
    if authorizer.namespace.as_ref().is_some_and(|wanted| *wanted != destination.destination.object.namespace)
    {
        return Err(AskError::UnknownService);
    }
    if destination.destination.port_index(authorizer.port).is_none() {
        return Err(AskError::UnknownService);
    }
    destination.touch(worker.process_seconds());
    Ok(destination)
}

/// An endpoint that was not tried yet. One that is this very workload is reached in plaintext at its own
/// address, because what this proxy sends is not intercepted.
fn pick(
    worker: &Worker,
    destination: &Arc<DestinationState>,
    port: u16,
    alpn: UpstreamAlpn,
    tried: &[usize],
) -> Result<Picked, AskError> {
    let state = worker.state.load();
    let request = balance::Request {
        destination,
        port,
        subset: None,
        alpn,
        // A service without endpoints of its own leads to where its client dialled, which nobody did here:
        // port 0 can be reached nowhere.
        dialled: ([0, 0, 0, 0], 0).into(),
        tried,
        zone: state.zone(),
        connect_timeout: worker.connect_timeout(),
    };
    let picked = worker.balance.pick(&request, &mut worker.rng.borrow_mut());
    let mut picked = picked.filter(|picked| picked.target.address.port() != 0).ok_or(AskError::NoEndpoint)?;
    let state = worker.state.load();
    let own = state.workload.as_ref().map(|workload| workload.config.addresses.as_slice());
    if own.unwrap_or_default().contains(&picked.target.address.ip()) {
        picked.target.tls = PeerTls::Plaintext;
    }
    Ok(picked)
}

async fn http1(worker: &Worker, picked: &Picked, request: &Request<Bytes>) -> Result<Response, Failure> {
    let mut lease = worker.upstreams.http1(&picked.target).await.map_err(AskError::Connect)?;
    let is_reused = lease.is_reused();
    let mut out = Vec::with_capacity(512);
    write_head(request, &mut out);
    out.extend_from_slice(request.body());
    let mut head = ResponseHead::default();
    let mut buffer = BytesMut::new();
    let got = read_http1(lease.stream(), &out, request.method().as_str(), &mut buffer, &mut head).await;
    match got {
        Ok((body, is_reusable)) => {
            if is_reusable && buffer.is_empty() {
                lease.keep();
            }
            let mut lines = HeaderMap::new();
            for (name, value) in head.headers.iter() {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                {
                    lines.append(name, value);
                }
            }
            let status = StatusCode::from_u16(head.status).map_err(|_| AskError::Malformed)?;
            Ok(Response { status, lines, body, trailers: HeaderMap::new() })
        }
        Err(AskError::Ended) if is_reused && buffer.is_empty() => Err(Failure::Stale),
        Err(error) => Err(error.into()),
    }
}

fn write_head(request: &Request<Bytes>, out: &mut Vec<u8>) {
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let parts = [request.method().as_str(), " ", target, " HTTP/1.1\r\nHost: ", authority, "\r\n"];
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    for (name, value) in request.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", request.body().len()).as_bytes());
}

/// Writes a request and reads its response; says whether the connection can carry another.
async fn read_http1(
    stream: &mut UpstreamStream,
    request: &[u8],
    method: &str,
    buffer: &mut BytesMut,
    head: &mut ResponseHead,
) -> Result<(Bytes, bool), AskError> {
    // A failed write is not the end: the authorizer may have answered already.
    let is_written = match stream.write_all(request).await {
        Ok(()) => stream.flush().await.is_ok(),
        Err(_) => false,
    };
    let mut scanner = HeadScanner::default();
    for _ in 0..=INTERIM_MAX {
        poll_fn(|context| flow::poll_head(context, stream, buffer, &mut scanner, head)).await?;
        if !head.is_interim() {
            break;
        }
    }
    if head.is_interim() || head.status == 101 {
        return Err(AskError::Malformed);
    }
    let mut decoder = BodyDecoder::new(head.framing_for(method));
    let mut body = BytesMut::new();
    let mut is_cut = false;
    while !decoder.is_done() {
        match decoder.advance(buffer).map_err(|_| AskError::Malformed)? {
            Piece::End => break,
            Piece::Data(length) => {
                if body.len() + length > ANSWER_BYTES_MAX {
                    return Err(AskError::TooLarge);
                }
                body.extend_from_slice(&buffer[..length]);
                buffer.advance(length);
            }
            Piece::NeedMore => match poll_fn(|context| flow::poll_fill(context, stream, buffer)).await {
                Ok(length) if length > 0 => {}
                Ok(_) if decoder.may_end_with_connection() => {
                    is_cut = true;
                    break;
                }
                Ok(_) | Err(_) => return Err(AskError::Ended),
            },
        }
    }
    Ok((body.freeze(), is_written && head.is_keep_alive && !is_cut))
}

async fn http2(worker: &Worker, picked: &Picked, request: &Request<Bytes>) -> Result<Response, Failure> {
    let lease = worker.upstreams.http2(&picked.target).await.map_err(AskError::Connect)?;
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = request.headers().clone();
    let read = lease.bytes_read();
    let failed = |_| {
        if lease.is_reused() && lease.bytes_read() == read {
            Failure::Stale
        } else {
            Failure::Final(AskError::Ended)
        }
    };
    let mut body = request.body().clone();
    let (mut response, mut sink) = lease.send(head, body.is_empty()).map_err(failed)?;
    let got = poll_fn(|context| {
        // An answer may come before the whole request was taken.
        if let Poll::Ready(got) = Pin::new(&mut response).poll(context) {
            return Poll::Ready(got);
        }
        while !body.is_empty() {
            sink.reserve_capacity(body.len());
            match sink.poll_capacity(context) {
                Poll::Ready(Some(Ok(room))) => {
                    let part = body.split_to(room.min(body.len()));
                    if sink.send_data(part, body.is_empty()).is_err() {
                        body = Bytes::new();
                    }
                }
                // The response says why no more is taken.
                Poll::Ready(Some(Err(_)) | None) => body = Bytes::new(),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    })
    .await;
    let (parts, mut stream) = got.map_err(failed)?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(data) = poll_fn(|context| stream.poll_data(context)).await {
        let data = data.map_err(|_| AskError::Ended)?;
        if answer.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(AskError::TooLarge.into());
        }
        if stream.flow_control().release_capacity(data.len()).is_err() {
            tracing::debug!("a stream's window was given back already");
        }
        answer.extend_from_slice(&data);
    }
    let trailers = poll_fn(|context| stream.poll_trailers(context)).await.map_err(|_| AskError::Ended)?;
    lease.note_end();
    Ok(Response {
        status: parts.status,
        lines: parts.headers,
        body: answer.freeze(),
        trailers: trailers.unwrap_or_default(),
    })
}

/// Time allowed for a check.
pub(super) fn timeout(authorizer: &ExternalAuthorizer) -> Duration {
    Duration::from_millis(authorizer.timeout_ms)
}
