//! What mutual TLS lets through, and as what it arrives (SEMANTICS 3.3).

use mesh_api::model::MtlsMode;
use mesh_api::name::SpiffeId;
use mesh_api::policy_test::{Request, Traffic};

use crate::peer_authentication::MtlsResolution;

/// What becomes of a connection before anything is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival<'r> {
    /// It is closed.
    Closed(&'static str),
    /// It carries bytes, of which only the connection is judged.
    Bytes,
    /// It carries requests.
    Requests {
        /// The verified identity of the client.
        peer: Option<&'r SpiffeId>,
    },
}

/// The connection of a client, by what it shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client<'r> {
    Plaintext,
    /// TLS without a certificate of the mesh.
    OtherTls,
    Mesh(&'r SpiffeId),
}

impl<'r> Client<'r> {
    fn of(request: &'r Request) -> Self {
        match (&request.principal, request.tls) {
            (Some(peer), true) => Self::Mesh(peer),
            (None, true) => Self::OtherTls,
            (_, false) => Self::Plaintext,
        }
    }
}

/// Applies the mode of workload and port.
pub(super) fn arrive<'r>(mtls: &MtlsResolution, request: &'r Request) -> Arrival<'r> {
    let client = Client::of(request);
    let as_declared = |peer| match request.protocol {
        Traffic::Http => Arrival::Requests { peer },
        Traffic::Tcp => Arrival::Bytes,
    };
    match (mtls.mode_for_port(request.port), client) {
        (MtlsMode::Strict, Client::Plaintext) => {
            Arrival::Closed("mtls required: the connection is plaintext")
        }
        (MtlsMode::Strict, Client::OtherTls) => {
            Arrival::Closed("mtls required: the client shows no certificate of the mesh")
        }
        // The application ends the TLS itself, so the proxy sees neither a request nor a certificate.
        (MtlsMode::Disable, Client::OtherTls | Client::Mesh(_)) => Arrival::Bytes,
        (MtlsMode::Disable | MtlsMode::Permissive, Client::Plaintext) => as_declared(None),
        (MtlsMode::Permissive | MtlsMode::Strict, Client::Mesh(peer)) => as_declared(Some(peer)),
        (MtlsMode::Permissive, Client::OtherTls) => match (request.protocol, mtls.used.is_empty()) {
            (Traffic::Tcp, _) => Arrival::Bytes,
            // Where no PeerAuthentication is stated, transport security is not what is asked about.
            (Traffic::Http, true) => Arrival::Requests { peer: None },
            (Traffic::Http, false) => {
                Arrival::Closed("a port that is declared HTTP takes plaintext and mTLS, and no other TLS")
            }
        },
    }
}

/// The verified identity behind a connection of bytes.
pub(super) fn peer_of_bytes<'r>(mtls: &MtlsResolution, request: &'r Request) -> Option<&'r SpiffeId> {
    match (mtls.mode_for_port(request.port), Client::of(request)) {
        (MtlsMode::Permissive | MtlsMode::Strict, Client::Mesh(peer)) => Some(peer),
        (MtlsMode::Permissive | MtlsMode::Strict | MtlsMode::Disable, _) => None,
    }
}
