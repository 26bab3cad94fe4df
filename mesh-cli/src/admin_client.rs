//! HTTP/1.1 over local sockets: how commands ask the supervisor, the control plane and the proxies.
//!
//! Every request has a deadline, and every answer a largest size: a process that hangs is reported, and does
//! not hang the command that asks about it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use mesh_api::admin::AdminError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Time for an answer unless the caller grants more.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: a configuration dump of a proxy with thousands of destinations is below.
const BYTES_MAX: usize = 256 << 20;
/// Longest path of a socket (unix(7): 108 bytes with the final NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens.
    #[error("nothing answers at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {} within {} s", socket.display(), waited.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The connection broke.
    #[error("the connection to {} broke", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is not what was asked for.
    #[error("{} answered something else than expected", socket.display())]
    Content {
        /// The socket.
        socket: PathBuf,
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
}

/// A connection to a socket. Closing it tells the other side that its asker is gone.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    waits: Duration,
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
        let failed = |source| AskError::Connect { socket: socket.to_owned(), source };
        let stream = timeout(TIMEOUT, connect(socket)).await.map_err(|_| timed_out(socket, TIMEOUT))?;
        let io = TokioIo::new(stream.map_err(failed)?);
        let (sender, connection) = http1::handshake(io).await.map_err(|error| broken(socket, error))?;
        // Ends with the connection; what goes wrong on it is an error of the request.
        drop(tokio::spawn(connection));
        Ok(Self { socket: socket.to_owned(), sender, waits: TIMEOUT })
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
            .map_err(|error| broken(&self.socket, error))?;
        let exchange = async {
            let answer =
                self.sender.send_request(request).await.map_err(|error| broken(&self.socket, error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, BYTES_MAX).collect().await.map_err(|error| match error {
                error if error.is::<LengthLimitError>() => broken(&self.socket, error),
                error => AskError::Broken { socket: self.socket.clone(), source: error },
            })?;
            Ok(Answer { status: head.status, body: body.to_bytes() })
        };
        match timeout(self.waits, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out(&self.socket, self.waits)),
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
        let content = |source| AskError::Content { socket: self.socket.clone(), source };
        let body = serde_json::to_vec(body).map_err(content)?;
        let answer = self.ask(method, path, body.into()).await?;
        answer.check()?;
        serde_json::from_slice(&answer.body)
            .map_err(|source| AskError::Content { socket: self.socket.clone(), source })
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

fn broken(socket: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AskError {
    AskError::Broken { socket: socket.to_owned(), source: error.into() }
}

fn timed_out(socket: &Path, waited: Duration) -> AskError {
    AskError::Timeout { socket: socket.to_owned(), waited }
}
