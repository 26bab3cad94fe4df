//! The accepting side of mesh TLS: a handshake in bounded time, and what it established about the peer.
//!
//! Who the peer is, is decided by mesh-identity during the handshake; a session without a verified SPIFFE id
//! never comes out of here. ALPN names are Istio's, so that a workload behind an Istio sidecar with the same
//! root is served. `istio-peer-exchange` is not among them: whoever takes it has to speak its preamble.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_identity::tls::{ClientAuth, IdentitySource, server_config};
use mesh_identity::verify::VerifyError;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection::TlsFacts;

/// What is served, best first. A stream is `istio`; a peer that offers several gets the first of these.
const ALPN: [&[u8]; 6] = [b"istio-http/1.1", b"istio-h2", b"istio-http/1.0", b"istio", b"h2", b"http/1.1"];
/// Time allowed for a handshake, from the first byte expected to the last sent. Envoy's listeners allow 15 s
/// at Istio's gateways; a peer in the mesh needs two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no session came to be.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The peer's certificate was refused.
    #[error("certificate of the peer refused: {0}")]
    Peer(#[source] VerifyError),
    /// The handshake broke.
    #[error("handshake failed: {0}")]
    Handshake(#[source] io::Error),
    /// The peer was too slow.
    #[error("handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// The handshake succeeded without an identity.
    #[error("peer has no identity")]
    NoIdentity,
}

impl AcceptError {
    /// Whether the peer spoke no TLS at all.
    #[must_use]
    pub fn is_plaintext(&self) -> bool {
        let Self::Handshake(error) = self else { return false };
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(error, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
    }
}

/// Accepts mesh TLS with the identity as it is at each handshake.
#[derive(Clone)]
pub struct TlsContext {
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsContext").finish_non_exhaustive()
    }
}

impl TlsContext {
    /// A context that reads identity and trust from `identity` at each handshake.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the context keeps the source alive by its configuration"
    )]
    pub fn new(identity: Arc<IdentitySource>) -> Self {
        let config = server_config(&identity, ClientAuth::Required, &ALPN);
        Self { acceptor: TlsAcceptor::from(config) }
    }

    /// Shakes hands with a peer that just connected. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`AcceptError`]; the connection is closed then, after the alert that says so.
    pub async fn accept(&self, socket: TcpStream) -> Result<(TlsStream<TcpStream>, TlsFacts), AcceptError> {
        let shaking = self.acceptor.accept(socket);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking)
            .await
            .map_err(|_| AcceptError::TimedOut)?
            .map_err(refused)?;
        let session = stream.get_ref().1;
        let peer = mesh_identity::tls::peer(session.peer_certificates()).ok_or(AcceptError::NoIdentity)?;
        let facts = TlsFacts {
            identity: peer.id,
            sni: session.server_name().map(Arc::from),
            alpn: session.alpn_protocol().map(Arc::from),
            certificate_hash: Arc::from(peer.certificate_sha256),
            not_after: peer.not_after,
        };
        Ok((stream, facts))
    }
}

fn refused(error: io::Error) -> AcceptError {
    match mesh_identity::tls::refusal(&error) {
        Some(reason) => AcceptError::Peer(reason.clone()),
        None => AcceptError::Handshake(error),
    }
}
