//! The sockets of the resolver: UDP and TCP, on one address or on the loopback of both families.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::DnsSettings;
use super::question::{HEADER_BYTES, QUESTION_BYTES_MAX, Transport};
use super::resolver::Resolver;
use super::upstream::{Upstream, framed};
use crate::runtime::tasks::Tasks;
use crate::state::State;

/// Questions being answered at once, over all sockets; each holds some kilobytes and at most one socket.
/// More are answered `SERVFAIL`.
const QUESTIONS_MAX: usize = 512;
/// TCP connections at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time without a question after which a TCP connection is closed. RFC 7766 section 6.2.3 asks for seconds.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// Time for the rest of a question that has begun, and for an answer to be taken.
const TRANSFER_TIME: Duration = Duration::from_secs(5);
/// Pause after an error of a listening socket, so that one that lasts (no descriptors left) makes no busy
/// loop.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Bound sockets.
#[derive(Debug)]
pub struct Listeners {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    settings: DnsSettings,
}

impl Listeners {
    /// Binds the sockets; to be called within a runtime. Port 0 takes a free one, the same for all.
    ///
    /// # Errors
    /// When a socket cannot be bound. Only the second family of the loopback may be missing.
    pub fn bind(settings: DnsSettings) -> io::Result<Self> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        let mut port = settings.listen.port();
        for mut address in settings.addresses() {
            address.set_port(port);
            match bind_both(address) {
                Ok((datagrams, streams)) => {
                    port = datagrams.local_addr()?.port();
                    udp.push(datagrams);
                    tcp.push(streams);
                }
                Err(error) if !udp.is_empty() && is_missing_family(&error) => {
                    tracing::info!(%address, "dns is not served here: the address family is missing");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { udp, tcp, settings })
    }

    /// The addresses that are served, the same for UDP and TCP.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `stop` is ready; see [`super::serve`].
    pub async fn serve(self, state: State, stop: impl Future<Output = ()>) {
        let mut upstream = Upstream::new(self.settings.upstreams, self.settings.fwmark);
        if self.settings.is_cluster {
            upstream = upstream.of_cluster();
        }
        let server = Server {
            resolver: Arc::new(Resolver::new(state, upstream)),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let mut tasks = Tasks::default();
        for socket in self.udp {
            tasks.spawn("dns datagrams", server.clone().serve_datagrams(Arc::new(socket)));
        }
        for listener in self.tcp {
            tasks.spawn("dns connections", server.clone().accept(listener));
        }
        stop.await;
        tasks.cancel().await;
    }
}

#[derive(Debug, Clone)]
struct Server {
    resolver: Arc<Resolver>,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Server {
    async fn serve_datagrams(self, socket: Arc<UdpSocket>) {
        let mut tasks = Tasks::default();
        let mut buffer = vec![0; QUESTION_BYTES_MAX + 1];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                _ = tasks.ended(), if !tasks.is_empty() => continue,
            };
            match received {
                Ok((length, client)) => {
                    self.take_datagram(&buffer[..length], client, &socket, &mut tasks).await
                }
                Err(error) => {
                    tracing::debug!(%error, "dns socket");
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn take_datagram(
        &self,
        message: &[u8],
        client: SocketAddr,
        socket: &Arc<UdpSocket>,
        tasks: &mut Tasks,
    ) {
        let Ok(permit) = Arc::clone(&self.questions).try_acquire_owned() else {
            if let Some(answer) = self.resolver.overloaded(message, Transport::Udp) {
                send(socket, &answer, client).await;
            }
            return;
        };
        let (resolver, socket, message) = (Arc::clone(&self.resolver), Arc::clone(socket), message.to_vec());
        tasks.spawn("dns question", async move {
            if let Some(answer) = resolver.answer(&message, Transport::Udp).await {
                send(&socket, &answer, client).await;
            }
            drop(permit);
        });
    }

    async fn accept(self, listener: TcpListener) {
        let mut tasks = Tasks::default();
        loop {
            let accepted = tokio::select! {
                accepted = self.next_connection(&listener) => accepted,
                _ = tasks.ended(), if !tasks.is_empty() => continue,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let server = self.clone();
                    tasks.spawn("dns connection", async move {
                        // Whatever ends the connection is the client's affair: it asks again.
                        if let Err(error) = server.serve_stream(stream).await {
                            tracing::trace!(%error, "dns connection");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "dns listener");
                    sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn next_connection(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        Ok((stream, permit))
    }

    /// Answers one question after the other, in their order.
    async fn serve_stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            timeout(IDLE_TIME, stream.read_exact(&mut length)).await??;
            let length = usize::from(u16::from_be_bytes(length));
            if !(HEADER_BYTES..=QUESTION_BYTES_MAX).contains(&length) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut message = vec![0; length];
            timeout(TRANSFER_TIME, stream.read_exact(&mut message)).await??;
            let answer = match self.questions.try_acquire() {
                Ok(_permit) => self.resolver.answer(&message, Transport::Tcp).await,
                Err(_) => self.resolver.overloaded(&message, Transport::Tcp),
            };
            let Some(answer) = answer else { return Err(io::ErrorKind::InvalidData.into()) };
            timeout(TRANSFER_TIME, stream.write_all(&framed(&answer))).await??;
        }
    }
}

/// An answer that cannot be sent is lost like any datagram.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, %client, "dns answer");
    }
}

fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let bind = |address: SocketAddr, kind, protocol| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    let datagrams = UdpSocket::from_std(bind(address, Type::DGRAM, Protocol::UDP)?.into())?;
    let streams = bind(datagrams.local_addr()?, Type::STREAM, Protocol::TCP)?;
    streams.listen(i32::try_from(CONNECTIONS_MAX).unwrap_or(i32::MAX))?;
    Ok((datagrams, TcpListener::from_std(streams.into())?))
}

/// Whether the machine has no such address family, or none on this interface.
fn is_missing_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}
