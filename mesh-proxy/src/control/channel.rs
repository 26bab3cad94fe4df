//! A connection to the control plane: marked so that interception lets it pass, over TLS in which the
//! control plane must prove its identity, with keep-alive pings so that a dead one is noticed.
//!
//! The connection is made before gRPC is set up on it and is never made anew behind its owner's back: who
//! owns it learns of each failure, with its reason, and decides when to try again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use mesh_identity::tls::refusal;
use mesh_identity::verify::VerifyError;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::address::ControlAddress;

/// Time allowed for connect and for handshake, each.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, and how long an answer may take: a control plane whose machine
/// has gone is noticed within the sum.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Name sent in the handshake. It decides nothing: the identity does.
const SERVER_NAME: &str = "mesh-control";
/// Receive windows of HTTP/2, in bytes. A response of megabytes comes in pieces; an idle proxy keeps none.
const WINDOW_BYTES: u32 = 256 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket cannot be marked, which needs `CAP_NET_ADMIN`.
    #[error("cannot mark the connection to the control plane")]
    Mark(#[source] io::Error),
    /// The name of the control plane leads nowhere.
    #[error("cannot find the control plane at {control}")]
    Lookup {
        /// Host and port.
        control: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to the control plane at {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("the control plane at {address} does not answer in time")]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// It is not the control plane of this mesh.
    #[error("whoever answers at {address} is not accepted as the control plane")]
    Peer {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: VerifyError,
    },
    /// The handshake broke.
    #[error("the handshake with the control plane at {address} failed")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// HTTP/2 could not be set up.
    #[error("no HTTP/2 with the control plane")]
    Http(#[source] tonic::transport::Error),
}

impl ChannelError {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Mark(_) => "mark",
            Self::Lookup { .. } => "lookup",
            Self::Connect { .. } => "connect",
            Self::TimedOut { .. } => "timeout",
            Self::Peer { .. } => "peer",
            Self::Handshake { .. } | Self::Http(_) => "handshake",
        }
    }
}

/// Connects to the first of the control plane's addresses that proves to be it. Dropping the future gives the
/// attempt up.
///
/// # Errors
/// Why there is no connection, with the last address.
pub async fn connect(
    control: &ControlAddress,
    fwmark: Option<u32>,
    config: Arc<ClientConfig>,
) -> Result<Channel, ChannelError> {
    let failed = |source| ChannelError::Lookup { control: control.to_string(), source };
    let addresses = control.resolve().await.map_err(failed)?;
    let mut last = failed(io::ErrorKind::NotFound.into());
    for address in addresses {
        match connect_to(address, fwmark, Arc::clone(&config)).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    fwmark: Option<u32>,
    config: Arc<ClientConfig>,
) -> Result<Channel, ChannelError> {
    let stream = dial(address, fwmark).await?;
    let name = ServerName::try_from(SERVER_NAME).expect("a valid DNS name");
    let handshake = TlsConnector::from(config).connect(name, stream);
    let stream = match timeout(STEP_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => {
            return Err(match refusal(&source).cloned() {
                Some(reason) => ChannelError::Peer { address, source: reason },
                None => ChannelError::Handshake { address, source },
            });
        }
        Err(_elapsed) => return Err(ChannelError::TimedOut { address }),
    };
    let connector = tower::service_fn(once(stream));
    Endpoint::from_static("http://mesh-control")
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_timeout(STEP_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(ChannelError::Http)
}

async fn dial(address: SocketAddr, fwmark: Option<u32>) -> Result<TcpStream, ChannelError> {
    let failed = |source| ChannelError::Connect { address, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    if let Some(mark) = fwmark {
        socket2::SockRef::from(&socket).set_mark(mark).map_err(ChannelError::Mark)?;
    }
    let stream = match timeout(STEP_TIMEOUT, socket.connect(address)).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_elapsed) => return Err(ChannelError::TimedOut { address }),
    };
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Hands the one connection out; there is no second.
fn once(
    stream: TlsStream<TcpStream>,
) -> impl FnMut(Uri) -> std::future::Ready<io::Result<TokioIo<TlsStream<TcpStream>>>> + Clone {
    let stream = Arc::new(Mutex::new(Some(stream)));
    move |_| {
        let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(taken.map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
