//! Private keys: ECDSA P-256, made in memory, wiped on drop.
//!
//! One algorithm, because every certificate that the mesh makes is short-lived and between its own parts;
//! what others bring in a request is judged in [`crate::csr`]. The type prints as a placeholder and has no
//! public way to its secret. The authority's key is of the same type; only [`crate::ca::disk`] writes it.

use std::fmt;
use std::sync::Arc;

use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize;

/// Why a key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library could not make a key.
    #[error("a private key could not be generated")]
    Generate(#[source] rcgen::Error),
    /// The bytes are not a PKCS#8 private key of ECDSA P-256.
    #[error("the private key is not an ECDSA P-256 key in PKCS#8 form")]
    Decode(#[source] rcgen::Error),
    /// The TLS library refused the key.
    #[error("the private key is not usable for TLS")]
    Tls(#[source] rustls::Error),
}

/// An ECDSA P-256 private key that lives in memory only.
pub struct WorkloadKey {
    pair: KeyPair,
}

impl WorkloadKey {
    /// Makes a new key from the random source of the operating system.
    ///
    /// # Errors
    /// When the random source or the cryptographic library fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(Self { pair })
    }

    /// The public half as a DER `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    #[must_use]
    pub fn public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// Reads a key that [`crate::ca::disk`] wrote.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(KeyError::Decode)?;
        Ok(Self { pair })
    }

    /// The private key in PKCS#8 form, for [`crate::ca::disk`] alone.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        self.pair.serialized_der()
    }

    /// The key as rustls signs with it.
    pub(crate) fn for_tls(&self) -> Result<Arc<dyn rustls::sign::SigningKey>, KeyError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8()));
        rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(KeyError::Tls)
    }
}

impl Drop for WorkloadKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey(private)")
    }
}

impl PublicKeyData for WorkloadKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.pair.algorithm()
    }
}

impl SigningKey for WorkloadKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.pair.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_are_never_the_same() {
        let (a, b) = (WorkloadKey::generate().expect("key"), WorkloadKey::generate().expect("key"));
        assert_ne!(a.public_key_info(), b.public_key_info());
    }

    #[test]
    fn a_key_prints_as_a_placeholder() {
        let key = WorkloadKey::generate().expect("key");
        assert_eq!(format!("{key:?}"), "WorkloadKey(private)");
    }

    #[test]
    fn a_stored_key_reads_back_and_a_truncated_one_does_not() {
        let key = WorkloadKey::generate().expect("key");
        let stored = key.pkcs8().to_vec();
        let read = WorkloadKey::from_pkcs8(&stored).expect("read back");
        assert_eq!(read.public_key_info(), key.public_key_info());
        assert!(WorkloadKey::from_pkcs8(&stored[..stored.len() - 1]).is_err());
    }
}
