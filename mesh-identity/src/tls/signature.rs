//! How both sides check that the peer holds the key of its certificate: by the mesh's provider, in TLS 1.3.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::verify_tls13_signature;
use rustls::{DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use rustls_pki_types::CertificateDer;

use super::provider;

/// The schemes that a peer may sign with.
pub(super) fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

/// Checks the signature of a handshake.
///
/// # Errors
/// When the key of the certificate did not make it.
pub(super) fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// Why a signature of TLS 1.2, which is not configured, is refused all the same.
pub(super) fn refuse_tls12() -> rustls::Error {
    PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}
