//! A certificate that signs and its key, as PEM: what every storage of the authority is made of.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::authority::{AssembleError, Signer};
use crate::key::WorkloadKey;

/// Why stored PEM is not a signer.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredError {
    /// It is not PEM of the kind.
    #[error("it is not PEM")]
    Pem,
    /// The parts do not fit.
    #[error("the parts do not make an authority")]
    Unusable(#[source] AssembleError),
}

/// The signer of a certificate and its PKCS#8 key.
pub(super) fn signer(role: &'static str, certificate: &[u8], key: &[u8]) -> Result<Signer, StoredError> {
    let der = CertificateDer::from_pem_slice(certificate).map_err(|_| StoredError::Pem)?;
    let mut pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| StoredError::Pem)?;
    let key = WorkloadKey::from_pkcs8(pkcs8.secret_pkcs8_der()).map_err(|_| StoredError::Pem);
    pkcs8.zeroize();
    Signer::assemble(role, der.to_vec(), key?).map_err(StoredError::Unusable)
}

/// The certificate of a signer.
pub(super) fn certificate(signer: &Signer) -> String {
    crate::certificate::to_pem(&signer.der)
}

/// The key of a signer.
pub(super) fn private_key(signer: &Signer) -> Zeroizing<String> {
    Zeroizing::new(crate::pem::encode("PRIVATE KEY", signer.issuer.key().pkcs8()))
}
