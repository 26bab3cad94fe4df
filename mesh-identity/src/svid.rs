//! An X.509-SVID: the chain and the private key of one workload, whole or not at all.
//!
//! [`Svid::new`] is the only way in, so that whoever holds one knows that the key belongs to the leaf, that
//! the leaf names exactly one SPIFFE id, and that each certificate is signed by the next. Whether the root
//! is trusted is not asked here: the peer decides that.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::name::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::certificate::{LeafError, strict_leaf};
use crate::key::{KeyError, WorkloadKey};

/// Most certificates in a chain: leaf, and intermediates of a deep corporate hierarchy.
const CHAIN_MAX: usize = 8;

/// Why a chain and a key are not an SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// There is no certificate.
    #[error("the chain is empty")]
    Empty,
    /// There are too many certificates.
    #[error("the chain has {length} certificates, at most {CHAIN_MAX} are accepted")]
    TooLong {
        /// Number found.
        length: usize,
    },
    /// The leaf breaks a rule of the X.509-SVID specification.
    #[error("the leaf is not a workload certificate")]
    Leaf(#[source] LeafError),
    /// A certificate is not followed by its issuer.
    #[error("certificate {index} of the chain is not signed by the one after it")]
    Order {
        /// Position, 0 for the leaf.
        index: usize,
    },
    /// The key is of another certificate.
    #[error("the private key does not belong to the leaf")]
    KeyMismatch,
    /// The key cannot be used.
    #[error("the private key cannot be used")]
    Key(#[source] KeyError),
}

/// A workload's chain and key. Cheap to clone; the key is shared and opaque.
#[derive(Clone)]
pub struct Svid {
    certified: Arc<CertifiedKey>,
    id: SpiffeId,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Svid {
    /// Checks that `chain` (DER, leaf first, without the root) and `key` belong together.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn new(chain: Vec<Vec<u8>>, key: &WorkloadKey) -> Result<Self, SvidError> {
        let leaf_der = chain.first().ok_or(SvidError::Empty)?;
        if chain.len() > CHAIN_MAX {
            return Err(SvidError::TooLong { length: chain.len() });
        }
        let leaf = strict_leaf(leaf_der).map_err(SvidError::Leaf)?;
        check_order(&chain)?;
        let signing = key.for_tls().map_err(SvidError::Key)?;
        let certified = CertifiedKey::new(chain.into_iter().map(CertificateDer::from).collect(), signing);
        certified.keys_match().map_err(|_| SvidError::KeyMismatch)?;
        Ok(Self {
            certified: Arc::new(certified),
            id: leaf.id,
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// The workload's identity.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of the leaf, lower-case hex.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Start of the leaf's validity.
    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// End of the leaf's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Certificates, DER, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Whether `now` lies within the leaf's validity.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Each certificate names the next as its issuer and verifies under its key.
fn check_order(chain: &[Vec<u8>]) -> Result<(), SvidError> {
    for (index, pair) in chain.windows(2).enumerate() {
        if !is_signed_by(&pair[0], &pair[1]) {
            return Err(SvidError::Order { index });
        }
    }
    Ok(())
}

/// Whether `subject` names `issuer` as its issuer and its signature verifies under the issuer's key.
pub(crate) fn is_signed_by(subject: &[u8], issuer: &[u8]) -> bool {
    let (Ok((_, subject)), Ok((_, issuer))) =
        (X509Certificate::from_der(subject), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    subject.issuer().as_raw() == issuer.subject().as_raw()
        && subject.verify_signature(Some(issuer.public_key())).is_ok()
}

#[cfg(test)]
mod tests;
