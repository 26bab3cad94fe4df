//! TLS connections of proxies.
//!
//! A certificate is optional, since a workload asks for its first one here, but one that is presented must
//! be valid. Nothing that a client does ends the listener: errors of `accept` are waited out, handshakes
//! have a deadline and run beside each other, and both their number and that of connections are bounded.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_identity::tls::{Peer, refusal};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use crate::telemetry::metrics;

/// Time allowed for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at once; more wait in the accept queue.
const HANDSHAKES_MAX: usize = 256;
/// Most connections at once; more wait in the accept queue.
const CONNECTIONS_MAX: usize = 20_000;
/// Pause after an error of `accept`, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections ready to be served.
const QUEUE: usize = 64;

/// Who is on a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Address of the peer.
    pub address: SocketAddr,
    /// The peer's certificate, verified; `None` when it presented none.
    pub peer: Option<Peer>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connections of `listener` after their handshakes. Ends with `shutdown`.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    tasks: &TaskTracker,
    shutdown: CancellationToken,
) -> ReceiverStream<std::io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(QUEUE);
    let accepting = Accepting {
        listener,
        acceptor: TlsAcceptor::from(config),
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        tasks: tasks.clone(),
    };
    tasks.spawn(async move {
        tokio::select! {
            () = accepting.run(ready) => {}
            () = shutdown.cancelled() => {}
        }
    });
    ReceiverStream::new(connections)
}

struct Accepting {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Accepting {
    async fn run(self, ready: mpsc::Sender<std::io::Result<Connection>>) {
        loop {
            let Ok(connection_permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let Ok(handshake_permit) = Arc::clone(&self.handshakes).acquire_owned().await else { return };
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, ready) = (self.acceptor.clone(), ready.clone());
            self.tasks.spawn(async move {
                let connection = handshake(&acceptor, stream, address, connection_permit).await;
                drop(handshake_permit);
                // The server has gone away when this fails, and the connection with it.
                if let Some(connection) = connection
                    && ready.send(Ok(connection)).await.is_err()
                {
                    tracing::debug!(%address, "a connection came too late");
                }
            });
        }
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) -> Option<Connection> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %address, "the connection is gone already");
        return None;
    }
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = mesh_identity::tls::peer(stream.get_ref().1.peer_certificates());
            metrics::handshake("ok");
            Some(Connection { stream, caller: Caller { address, peer }, _permit: permit })
        }
        Ok(Err(error)) => {
            let reason = refusal(&error).map(ToString::to_string);
            metrics::handshake(if reason.is_some() { "refused" } else { "failed" });
            match reason {
                Some(reason) => tracing::warn!(%address, reason, "a client certificate was refused"),
                None => tracing::debug!(%address, %error, "a handshake failed"),
            }
            None
        }
        Err(_elapsed) => {
            metrics::handshake("timeout");
            tracing::debug!(%address, "a handshake took too long");
            None
        }
    }
}
