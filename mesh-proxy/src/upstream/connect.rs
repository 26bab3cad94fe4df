//! Makes a connection: a marked socket, a connect in bounded time, and for the mesh a handshake in which the
//! peer must prove to be exactly the expected workload. There is no way from a failed handshake to plaintext.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_api::model::PeerTls;
use mesh_identity::tls::{ClientConfigs, IdentitySource};
use mesh_identity::verify::{ExpectedPeer, VerifyError};
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::stream::UpstreamStream;
use super::validity::Validity;
use super::{Target, UpstreamAlpn};
use crate::accept::listener;

/// TLS configurations kept by a worker, one for each expected identity and protocol.
const CONFIGS_MAX: usize = 256;

/// Istio's names come first; the plain ones are for peers that serve only those. `istio` is never offered
/// for requests: a peer that took it would pass them on as a byte stream, unjudged by their parts.
const TCP_ALPN: [&[u8]; 1] = [b"istio"];
const HTTP1_ALPN: [&[u8]; 2] = [b"istio-http/1.1", b"http/1.1"];
const HTTP2_ALPN: [&[u8]; 2] = [b"istio-h2", b"h2"];

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No socket could be made or marked; a connection without its mark would come back to this proxy.
    #[error("cannot prepare a socket")]
    Socket(#[source] io::Error),
    /// The connect failed.
    #[error("connect failed")]
    Connect(#[source] io::Error),
    /// The connect took too long.
    #[error("connect took too long")]
    ConnectTimedOut,
    /// The peer is not the expected one, or cannot prove it.
    #[error("peer refused")]
    Peer(#[source] VerifyError),
    /// The handshake broke.
    #[error("handshake failed")]
    Handshake(#[source] io::Error),
    /// The handshake took too long.
    #[error("handshake took too long")]
    HandshakeTimedOut,
}

impl ConnectError {
    /// Whether time was up.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimedOut | Self::HandshakeTimedOut)
    }
}

/// Makes connections for one worker.
#[derive(Debug)]
pub(super) struct Connector {
    configs: RefCell<ClientConfigs>,
    fwmark: Option<u32>,
}

impl Connector {
    pub(super) fn new(identity: Arc<IdentitySource>, fwmark: Option<u32>) -> Self {
        Self { configs: RefCell::new(ClientConfigs::new(identity, CONFIGS_MAX)), fwmark }
    }

    /// Connects. Dropping the future gives the attempt up.
    pub(super) async fn connect(&self, target: &Target, epoch: u64) -> Result<UpstreamStream, ConnectError> {
        let tcp = dial(target, self.fwmark).await?;
        match &target.tls {
            PeerTls::Plaintext => Ok(UpstreamStream::plain(tcp)),
            PeerTls::Mutual { identity } => {
                let expected = ExpectedPeer::one(identity.clone());
                let shaking = self.secure(tcp, target, &expected, epoch);
                tokio::time::timeout(target.connect_timeout, shaking)
                    .await
                    .map_err(|_| ConnectError::HandshakeTimedOut)?
            }
        }
    }

    /// Connects without TLS, whatever the target says: for one that is known to have none.
    pub(super) async fn plain(target: &Target, fwmark: Option<u32>) -> Result<UpstreamStream, ConnectError> {
        dial(target, fwmark).await.map(UpstreamStream::plain)
    }

    async fn secure(
        &self,
        tcp: TcpStream,
        target: &Target,
        expected: &ExpectedPeer,
        epoch: u64,
    ) -> Result<UpstreamStream, ConnectError> {
        let offered: &[&[u8]] = match target.alpn {
            UpstreamAlpn::Tcp => &TCP_ALPN,
            UpstreamAlpn::Http1 => &HTTP1_ALPN,
            UpstreamAlpn::Http2 => &HTTP2_ALPN,
        };
        let config = self.configs.borrow_mut().config(expected, offered);
        // A name that is none, such as an address, is not sent.
        let name = ServerName::try_from(target.sni.to_string())
            .unwrap_or_else(|_| ServerName::IpAddress(target.address.ip().into()));
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
            match mesh_identity::tls::refusal(&error) {
                Some(reason) => ConnectError::Peer(reason.clone()),
                None => ConnectError::Handshake(error),
            }
        })?;
        let session = stream.get_ref().1;
        let peer = mesh_identity::tls::peer(session.peer_certificates())
            .ok_or(ConnectError::Peer(VerifyError::NoCertificate))?;
        Ok(UpstreamStream::secured(stream, Validity::until(epoch, peer.not_after)))
    }
}

async fn dial(target: &Target, fwmark: Option<u32>) -> Result<TcpStream, ConnectError> {
    let socket = socket(target.address, fwmark).map_err(ConnectError::Socket)?;
    let connecting = tokio::time::timeout(target.connect_timeout, socket.connect(target.address));
    let tcp = connecting.await.map_err(|_| ConnectError::ConnectTimedOut)?.map_err(ConnectError::Connect)?;
    listener::tune(&tcp);
    Ok(tcp)
}

fn socket(address: SocketAddr, fwmark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = fwmark {
        socket.set_mark(mark)?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}
