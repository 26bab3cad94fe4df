//! rustls configurations made of an identity and a trust bundle, and read from them on every handshake.
//!
//! A configuration is built once and lives as long as the process: certificate, bundle and trust domains
//! are taken from an [`IdentitySource`] at each handshake, so that rotation swaps a pointer and touches no
//! connection. TLS 1.3 only; X25519MLKEM768 preferred. Resumption is off on both sides, without tickets and
//! without stored sessions: a resumed handshake does not call the verifier, so a peer whose certificate has
//! ended would come back in.
//!
//! Everything fails closed: a server without a valid certificate refuses handshakes, a client without one
//! does not go through with its own.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use mesh_api::name::SpiffeId;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, SupportedCipherSuite};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::certificate::strict_leaf;
use crate::verify::VerifyError;

mod client;
mod server;
mod serving;
mod signature;
mod source;

pub use client::{ClientConfigs, bootstrap_client_config, client_config};
pub use server::{ClientAuth, server_config};
pub use serving::{Serving, ServingSource, ServingUseError, serving_config};
pub use source::{Current, IdentitySource};

/// AES-128 first: as strong as the certificates' P-256, and cheaper per byte than AES-256.
static CIPHER_SUITES: [SupportedCipherSuite; 3] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        ..aws_lc_rs::default_provider()
    })
});

/// The mesh's provider: aws-lc-rs, TLS 1.3 suites, post-quantum key exchange first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// What the rest of the mesh wants to know of a peer whose handshake has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: SpiffeId,
    /// End of its leaf's validity: the connection ends then.
    pub not_after: SystemTime,
    /// SHA-256 of its leaf, lower-case hex, as `x-forwarded-client-cert` carries it.
    pub certificate_sha256: String,
}

/// Facts about the peer from `connection.peer_certificates()`, after a handshake with one of this module's
/// configurations. `None` when the peer presented no certificate.
#[must_use]
pub fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<Peer> {
    let leaf_der = certificates?.first()?;
    let leaf = strict_leaf(leaf_der).ok()?;
    let certificate_sha256 = crate::certificate::hex(&Sha256::digest(leaf_der));
    Some(Peer { id: leaf.id, not_after: leaf.not_after, certificate_sha256 })
}

/// Our reason in an error of rustls, if the peer was refused by the verifiers of this module; also found
/// inside the `std::io::Error` that tokio-rustls makes of it.
#[must_use]
pub fn refusal<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e VerifyError> {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return io.get_ref().and_then(|inner| refusal(inner));
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<VerifyError>()
        }
        _ => None,
    }
}

/// Wraps our reason so that [`refusal`] finds it again.
fn refuse(error: VerifyError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(error))))
}

#[cfg(test)]
mod tests;
