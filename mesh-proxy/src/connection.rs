//! Facts about one accepted connection, known once its first bytes and its handshake are done.
//!
//! A value of this type is made by the accept stages and then only read; requests on the connection share
//! it. Addresses are canonical: an IPv4 peer on a dual-stack socket is IPv4.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh_api::name::SpiffeId;

/// Which way traffic flows, seen from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Direction {
    /// `inbound` or `outbound`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Istio's `reporter` label.
    #[must_use]
    pub fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }
}

/// What the mesh handshake established about the peer.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// Verified SPIFFE id of the peer.
    pub identity: SpiffeId,
    /// Server name that the client asked for.
    pub sni: Option<Arc<str>>,
    /// Negotiated ALPN protocol.
    pub alpn: Option<Arc<[u8]>>,
    /// SHA-256 of the peer's leaf certificate, lower-case hex, for X-Forwarded-Client-Cert.
    pub certificate_hash: Arc<str>,
    /// End of validity of the peer's leaf: the connection does not outlive it.
    pub not_after: SystemTime,
}

/// One accepted connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Number within the process, for logs.
    pub id: u64,
    /// Which way.
    pub direction: Direction,
    /// Address of the TCP peer.
    pub peer: SocketAddr,
    /// Address that the peer dialled, before interception.
    pub destination: SocketAddr,
    /// Mesh TLS, or `None` for plaintext (and for TLS of the application's own).
    pub tls: Option<TlsFacts>,
    /// When it was accepted.
    pub accepted: Instant,
}

impl Connection {
    /// Verified identity of the peer.
    #[must_use]
    pub fn peer_identity(&self) -> Option<&SpiffeId> {
        self.tls.as_ref().map(|tls| &tls.identity)
    }
}
