//! A small HTTP/1.1 server for the admin socket and the status listener: no bodies in, whole bodies out,
//! a bounded number of connections, a deadline for each head.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_api::admin::AdminError;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Admin, Audience};
use crate::app_probe::{Answered, Prepared, Purpose};

/// Most connections at once on each listener; more wait in the accept queue. The status listener is reached from
/// the network, and whoever keeps connections open there must not keep the kubelet out.
pub const CONNECTIONS_MAX: usize = 256;
/// Time allowed for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection, if no probe may take longer: scrapers come back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Buffer for heads, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Media type.
    pub content_type: &'static str,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A value as JSON.
    #[must_use]
    pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Self { status, content_type: "application/json", body },
            // Types of the admin API have string keys and no failing serializer, so this is a defect of ours.
            Err(error) => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                content_type: "text/plain",
                body: error.to_string(),
            },
        }
    }

    /// Metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

/// The application did not answer a handler of a container's life. The kubelet takes any answer for success
/// there, so that it gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the application does not answer")]
struct Unanswered;

/// Serves one connection until it ends; `local` is the address of this workload that was dialled.
pub async fn serve<S>(admin: Arc<Admin>, audience: Audience, local: Option<IpAddr>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = CONNECTION_TIMEOUT.max(admin.settings.app_probes.limit());
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let uri = request.uri();
            let probe = admin.settings.app_probes.find(uri.path()).zip(local);
            if let (Audience::Network, Some((probe, local))) = (audience, probe) {
                return probed(probe, local, &request).await;
            }
            Ok(admin.answer(audience, request.method(), uri.path(), uri.query()).into_response())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limit, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for operators ended early"),
    }
}

/// Asks the application what the kubelet wants to know.
async fn probed(
    probe: &Prepared,
    local: IpAddr,
    request: &Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    if request.method() != Method::GET {
        let error = AdminError { error: "a probe is asked with GET".to_owned(), hint: String::new() };
        return Ok(Answer::json(StatusCode::METHOD_NOT_ALLOWED, &error).into_response());
    }
    let (status, body) = match (probe.ask(local, request.headers()).await, probe.purpose()) {
        (Answered::Status(status), _) => (status, String::new()),
        (Answered::Failed(reason), Purpose::Health) => {
            tracing::debug!(path = request.uri().path(), reason, "a probe of the application failed");
            (StatusCode::SERVICE_UNAVAILABLE, reason)
        }
        (Answered::Failed(reason), Purpose::Lifecycle) => {
            tracing::warn!(path = request.uri().path(), reason, "the application was not told");
            return Err(Unanswered);
        }
    };
    Ok(Answer { status, content_type: "text/plain", body }.into_response())
}

/// Something that connections come from.
pub trait Accept {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Failures are waited out.
    fn accept(&self) -> impl Future<Output = Self::Stream> + Send;

    /// The address of this workload that a connection came to, if it is one of a network.
    fn local(stream: &Self::Stream) -> Option<IpAddr>;
}

/// Serves connections for ever. Dropping the future closes those that are open.
pub async fn serve_all<L: Accept>(admin: Admin, audience: Audience, listener: L) {
    let admin = Arc::new(admin);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        tokio::select! {
            stream = listener.accept() => {
                let local = L::local(&stream);
                let serving = serve(Arc::clone(&admin), audience, local, stream);
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// The value of a query parameter, with percent-encoding undone; `None` when it is missing or not UTF-8.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })?;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_broken_ones_are_missing() {
        assert_eq!(
            parameter("a=1&level=info%2Cmesh_proxy%3Ddebug", "level").as_deref(),
            Some("info,mesh_proxy=debug")
        );
        for broken in ["", "level", "other=x", "level=%2", "level=%zz", "level=%ff"] {
            assert_eq!(parameter(broken, "level"), None, "{broken}");
        }
    }
}
