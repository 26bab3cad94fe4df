//! HTTP/2 towards an application that speaks HTTP/1.1 only.
//!
//! The protocol is kept from the client to the application, but a port that is declared `http` may be called by a
//! client that speaks HTTP/2, while its application does not. Such an application answers the preface of HTTP/2
//! with an error in its own words, by which it is known, and from then on the connection is a pipe in memory
//! with a translator behind it. So everything else about an HTTP/2 upstream stays as it is, and the usual case
//! pays nothing.
//!
//! The translator has a connection to the application for each request under way, and keeps some of them. It
//! ends with its pipe.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::Reason;
use http::header::{CONNECTION, COOKIE, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::connect::Connector;
use super::{Target, UpstreamStream};
use crate::forward::http2::limits;

/// Bytes that wait in the pipe, each way.
const PIPE_BYTES: usize = 64 * 1024;
/// Connections that are kept for the next request.
const IDLE_MAX: usize = 16;

/// The bytes below an HTTP/2 connection upstream.
#[derive(Debug)]
pub(super) enum Wire {
    /// The peer's own.
    Peer(Box<UpstreamStream>),
    /// A translator's.
    Translator(DuplexStream),
}

type Sender = SendRequest<Incoming>;
type AnyError = Box<dyn Error + Send + Sync>;

/// Starts a translator in front of the application that `first` leads to, on the runtime of the caller.
pub(super) fn start(first: UpstreamStream, target: &Target, fwmark: Option<u32>) -> Wire {
    let (near, far) = duplex(PIPE_BYTES);
    let application = Rc::new(Application {
        target: target.clone(),
        fwmark,
        idle: RefCell::default(),
        first: RefCell::new(Some(first)),
    });
    tokio::task::spawn_local(async move {
        let serve = service_fn(move |request| pass(Rc::clone(&application), request));
        let connection = http2::Builder::new(OnThread)
            .max_concurrent_streams(limits::STREAMS_MAX)
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::UPSTREAM_WINDOW)
            .serve_connection(TokioIo::new(far), serve);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a translator to http/1.1 ended early");
        }
    });
    Wire::Translator(near)
}

/// The application, and connections to it.
#[derive(Debug)]
struct Application {
    target: Target,
    fwmark: Option<u32>,
    idle: RefCell<Vec<Sender>>,
    /// The connection by which it was found to be there.
    first: RefCell<Option<UpstreamStream>>,
}

/// Runs tasks on the thread of who starts them.
#[derive(Debug, Clone, Copy)]
struct OnThread;

impl<F: Future<Output = ()> + 'static> Executor<F> for OnThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Passes one request on, and its response back.
async fn pass(
    application: Rc<Application>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, AnyError> {
    let request = translated(request)?;
    let mut sender = application.connection().await?;
    let mut response = sender.send_request(request).await?;
    keep_afterwards(application, sender);
    strip(response.headers_mut());
    *response.version_mut() = Version::HTTP_2;
    Ok(response)
}

impl Application {
    /// A connection that carries nothing. An application that cannot be reached has not seen the request, which
    /// its stream's reset says.
    async fn connection(&self) -> Result<Sender, AnyError> {
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let first = self.first.borrow_mut().take();
        let stream = match first {
            Some(stream) => stream,
            None => Connector::plain(&self.target, self.fwmark).await.map_err(|error| {
                tracing::debug!(%error, "no further connection to the application");
                h2::Error::from(Reason::REFUSED_STREAM)
            })?,
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the application ended early");
            }
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Sender> {
        self.idle.borrow_mut().pop()
    }
}

/// Keeps a connection for the next request, once the response on it has ended.
fn keep_afterwards(application: Rc<Application>, mut sender: Sender) {
    tokio::task::spawn_local(async move {
        if sender.ready().await.is_err() {
            return;
        }
        let mut idle = application.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    });
}

/// A request as HTTP/1.1 has it (RFC 9113 sections 8.2.3 and 8.3.1).
fn translated(request: Request<Incoming>) -> Result<Request<Incoming>, AnyError> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        let authority = HeaderValue::try_from(authority.as_str())?;
        parts.headers.insert(HOST, authority);
    }
    parts.uri = parts.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    parts.version = Version::HTTP_11;
    strip(&mut parts.headers);
    parts.headers.remove(TE);
    let crumbs: Vec<_> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))?;
        parts.headers.insert(COOKIE, whole);
    }
    Ok(Request::from_parts(parts, body))
}

/// Removes what concerns one connection only.
fn strip(lines: &mut HeaderMap) {
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        lines.remove(name);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Peer(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
            Self::Translator(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Peer(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
            Self::Translator(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Peer(stream) => Pin::new(&mut **stream).poll_write_vectored(context, slices),
            Self::Translator(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Peer(stream) => stream.is_write_vectored(),
            Self::Translator(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Peer(stream) => Pin::new(&mut **stream).poll_flush(context),
            Self::Translator(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Peer(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            Self::Translator(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
