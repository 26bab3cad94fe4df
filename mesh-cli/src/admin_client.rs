//! HTTP/1.1 over local sockets, or over streams into pods: how commands ask the supervisor, the control plane
//! and the proxies.
//!
//! Every request has a deadline, and every answer a largest size: a process that hangs is reported, and does
//! not hang the command that asks about it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mesh_api::admin::AdminError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::cluster::ClusterError;
use crate::cluster::forward::{Forward, Stream};

/// Time for an answer unless the caller grants more.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: a configuration dump of a proxy with thousands of destinations is below.
const BYTES_MAX: usize = 256 << 20;
/// Longest path of a socket (unix(7): 108 bytes with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Time that the kubelet has to say why a stream into a pod broke: it says so on a channel of its own.
const FAULT_WAIT: Duration = Duration::from_millis(500);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens.
    #[error("nothing answers at {place}")]
    Connect {
        /// The socket, or the port of the pod.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {place} within {} s", waited.as_secs())]
    Timeout {
        /// The socket, or the port of the pod.
        place: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The connection broke.
    #[error("the connection to {place} broke")]
    Broken {
        /// The socket, or the port of the pod.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what was asked for.
    #[error("{place} answered something else than expected")]
    Content {
        /// The socket, or the port of the pod.
        place: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The answer is a refusal.
    #[error("{message}")]
    Refused {
        /// Status.
        status: StatusCode,
        /// What is wrong.
        message: String,
        /// What to do, possibly empty.
        hint: String,
    },
    /// The cluster does not lead there.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// A connection to a socket. Closing it tells the other side that its asker is gone.
pub(crate) struct Connection {
    place: String,
    sender: SendRequest<Full<Bytes>>,
    waits: Duration,
    /// What the kubelet says when the stream breaks.
    fault: Option<BoxFuture<'static, Option<String>>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("place", &self.place).finish_non_exhaustive()
    }
}

/// An answer with any status.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Body.
    pub(crate) body: Bytes,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub(crate) async fn open(socket: &Path) -> Result<Self, AskError> {
        let place = socket.display().to_string();
        let stream = timeout(TIMEOUT, connect(socket)).await.map_err(|_| timed_out(&place, TIMEOUT))?;
        let stream = stream.map_err(|source| AskError::Connect { place: place.clone(), source })?;
        Self::over(place, stream, None).await
    }

    /// Speaks over a stream into a pod.
    ///
    /// # Errors
    /// When the stream broke already.
    pub(crate) async fn forwarded(place: String, forward: Forward) -> Result<Self, AskError> {
        Self::over(place, forward.stream, Some(forward.fault)).await
    }

    async fn over<S: Stream + 'static>(
        place: String,
        stream: S,
        fault: Option<BoxFuture<'static, Option<String>>>,
    ) -> Result<Self, AskError> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&place, error))?;
        // Ends with the connection; what goes wrong on it is an error of the request.
        drop(tokio::spawn(connection));
        Ok(Self { place, sender, waits: TIMEOUT, fault })
    }

    /// Grants more time for answers.
    pub(crate) fn waiting(self, waits: Duration) -> Self {
        Self { waits, ..self }
    }

    /// Asks, and returns the answer whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Answer, AskError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&self.place, error))?;
        let Self { place, sender, waits, fault } = self;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(place, error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BYTES_MAX).collect().await.map_err(|error| match error {
                error if error.is::<LengthLimitError>() => broken(place, error),
                error => AskError::Broken { place: place.clone(), source: error },
            })?;
            Ok(Answer { status: head.status, body: body.to_bytes() })
        };
        match timeout(*waits, exchange).await {
            Ok(Err(error @ AskError::Broken { .. })) => Err(explained(error, place, fault.take()).await),
            Ok(answer) => answer,
            Err(_) => Err(timed_out(place, *waits)),
        }
    }

    /// Asks for a value.
    ///
    /// # Errors
    /// When there is no answer, or it is a refusal.
    pub(crate) async fn value<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AskError> {
        let content = |source| AskError::Content { place: self.place.clone(), source };
        let body = serde_json::to_vec(body).map_err(content)?;
        let answer = self.ask(method, path, body.into()).await?;
        answer.check()?;
        serde_json::from_slice(&answer.body)
            .map_err(|source| AskError::Content { place: self.place.clone(), source })
    }
}

impl Answer {
    /// The refusal, if it is one.
    ///
    /// # Errors
    /// When the status is not a success.
    pub(crate) fn check(&self) -> Result<(), AskError> {
        if self.status.is_success() {
            return Ok(());
        }
        let (message, hint) = match serde_json::from_slice::<AdminError>(&self.body) {
            Ok(error) => (error.error, error.hint),
            Err(_) => (format!("the answer was {}", self.status), String::new()),
        };
        Err(AskError::Refused { status: self.status, message, hint })
    }
}

/// `GET path` of a socket, as a value.
///
/// # Errors
/// When there is no answer, or it is a refusal.
pub(crate) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    Connection::open(socket).await?.value(Method::GET, path, &()).await
}

/// `POST path` of a socket with a value, for a value.
///
/// # Errors
/// When there is no answer, or it is a refusal.
pub(crate) async fn post<T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &impl Serialize,
) -> Result<T, AskError> {
    Connection::open(socket).await?.value(Method::POST, path, body).await
}

/// Connects to a socket at any path: one that is too long for the kernel is reached through its folder.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(socket).await;
    }
    let folder = File::open(socket.parent().unwrap_or(Path::new("/")))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    UnixStream::connect(short.join(socket.file_name().unwrap_or_default())).await
}

/// What the kubelet says of a stream that broke, when it says something.
async fn explained(
    error: AskError,
    place: &str,
    fault: Option<BoxFuture<'static, Option<String>>>,
) -> AskError {
    let Some(fault) = fault else { return error };
    match timeout(FAULT_WAIT, fault).await {
        Ok(Some(message)) => {
            AskError::Connect { place: place.to_owned(), source: io::Error::other(in_short(&message)) }
        }
        Ok(None) | Err(_) => error,
    }
}

/// The kubelet tells the whole way with long ids; its last clause says what happened.
fn in_short(message: &str) -> String {
    let message = message.trim();
    message.rsplit_once("failed to connect to ").map_or(message, |(_, rest)| rest).to_owned()
}

fn broken(place: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AskError {
    AskError::Broken { place: place.to_owned(), source: error.into() }
}

fn timed_out(place: &str, waited: Duration) -> AskError {
    AskError::Timeout { place: place.to_owned(), waited }
}
