//! Trust bundles: which roots speak for which trust domain. Always a set, never one root, so that an old
//! and a new root can be trusted side by side for as long as certificates of both are alive.
//!
//! Anchors are parsed once, when they enter, into the form in which `webpki` uses them: looking one up for
//! a handshake allocates nothing. A certificate that is not an authority's is refused at the door.

use std::collections::BTreeMap;

use mesh_api::model::TrustBundleSet;
use mesh_api::name::{NameError, TrustDomain};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use sha2::{Digest, Sha256};

use crate::certificate::{InspectError, hex, inspect};

/// Most anchors of one trust domain. Two overlap in a rotation; federation and corporate roots add some.
const ANCHORS_MAX: usize = 64;

/// Why an anchor or a bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The trust domain is not valid.
    #[error("the trust domain of a bundle is not valid")]
    TrustDomain(#[source] NameError),
    /// The certificate cannot be read.
    #[error("an anchor of trust domain {domain:?} cannot be read")]
    Malformed {
        /// Trust domain.
        domain: String,
        /// Why.
        source: InspectError,
    },
    /// `webpki` cannot use the certificate as an anchor.
    #[error("an anchor of trust domain {domain:?} cannot be used")]
    Unusable {
        /// Trust domain.
        domain: String,
        /// Why.
        source: webpki::Error,
    },
    /// The certificate is not an authority's.
    #[error("a certificate of trust domain {domain:?} is not an authority's: {subject}")]
    NotAuthority {
        /// Trust domain.
        domain: String,
        /// Its subject or serial.
        subject: String,
    },
    /// There are too many anchors.
    #[error("trust domain {domain:?} has more than {ANCHORS_MAX} anchors")]
    TooMany {
        /// Trust domain.
        domain: String,
    },
    /// The text is not PEM.
    #[error("the text is not a list of PEM certificates")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The text holds no certificate.
    #[error("the text holds no certificate")]
    Empty,
}

/// Anchors by trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Anchors>,
}

/// Anchors of one trust domain: certificates in DER order, and the same ones as `webpki` wants them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Anchors {
    certificates: Vec<Vec<u8>>,
    parsed: Vec<TrustAnchor<'static>>,
}

impl TrustBundle {
    /// A bundle that trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an anchor (DER); tells whether it was new.
    ///
    /// # Errors
    /// When the certificate cannot be an anchor, or the domain has too many.
    pub fn insert(&mut self, domain: &TrustDomain, der: &[u8]) -> Result<bool, BundleError> {
        let name = || domain.as_str().to_owned();
        let summary = inspect(der).map_err(|source| BundleError::Malformed { domain: name(), source })?;
        if !summary.is_ca {
            let subject = if summary.subject.is_empty() { summary.serial } else { summary.subject };
            return Err(BundleError::NotAuthority { domain: name(), subject });
        }
        let certificate = CertificateDer::from(der);
        let parsed = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|source| BundleError::Unusable { domain: name(), source })?
            .to_owned();
        let anchors = self.domains.entry(domain.clone()).or_default();
        match anchors.certificates.binary_search_by(|known| known.as_slice().cmp(der)) {
            Ok(_) => Ok(false),
            Err(_) if anchors.certificates.len() >= ANCHORS_MAX => {
                Err(BundleError::TooMany { domain: name() })
            }
            Err(at) => {
                anchors.certificates.insert(at, der.to_vec());
                anchors.parsed.insert(at, parsed);
                Ok(true)
            }
        }
    }

    /// Removes an anchor; tells whether it was there. A domain without anchors disappears.
    pub fn remove(&mut self, domain: &TrustDomain, der: &[u8]) -> bool {
        let Some(anchors) = self.domains.get_mut(domain) else { return false };
        let Ok(at) = anchors.certificates.binary_search_by(|known| known.as_slice().cmp(der)) else {
            return false;
        };
        anchors.certificates.remove(at);
        anchors.parsed.remove(at);
        if anchors.certificates.is_empty() {
            self.domains.remove(domain);
        }
        true
    }

    /// Everything that either trusts: what is distributed while one root follows another.
    ///
    /// # Errors
    /// When a domain would have too many anchors.
    pub fn union(&self, other: &Self) -> Result<Self, BundleError> {
        let mut union = self.clone();
        for (domain, anchors) in &other.domains {
            for der in &anchors.certificates {
                union.insert(domain, der)?;
            }
        }
        Ok(union)
    }

    /// Whether every anchor of `other` is trusted here too.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, anchors)| {
            anchors.certificates.iter().all(|der| self.certificates(domain.as_str()).contains(der))
        })
    }

    /// Anchors of a trust domain as `webpki` uses them; empty when the domain is not known.
    #[must_use]
    pub fn anchors(&self, domain: &str) -> &[TrustAnchor<'static>] {
        self.domains.get(domain).map_or(&[], |anchors| &anchors.parsed)
    }

    /// Anchors of a trust domain as DER certificates; empty when the domain is not known.
    #[must_use]
    pub fn certificates(&self, domain: &str) -> &[Vec<u8>] {
        self.domains.get(domain).map_or(&[], |anchors| &anchors.certificates)
    }

    /// The trust domains that have anchors.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// SHA-256 of the content as lower-case hex: equal for equal sets, in whatever order they grew.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for (domain, anchors) in &self.domains {
            part(domain.as_str().as_bytes());
            part(&(anchors.certificates.len() as u64).to_be_bytes());
            anchors.certificates.iter().for_each(|der| part(der));
        }
        hex(&hash.finalize())
    }

    /// Reads PEM certificates as anchors of `domain`.
    ///
    /// # Errors
    /// When the text is not PEM, holds no certificate, or one of them cannot be an anchor.
    pub fn from_pem(domain: &TrustDomain, text: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::new();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            bundle.insert(domain, &certificate.map_err(BundleError::Pem)?)?;
        }
        if bundle.is_empty() { Err(BundleError::Empty) } else { Ok(bundle) }
    }

    /// Every anchor as PEM, in a stable order.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.domains
            .values()
            .flat_map(|anchors| &anchors.certificates)
            .map(|der| crate::certificate::to_pem(der))
            .collect()
    }

    /// The form that is sent to proxies.
    #[must_use]
    pub fn to_model(&self) -> TrustBundleSet {
        let anchors = self
            .domains
            .iter()
            .map(|(domain, anchors)| (domain.as_str().to_owned(), anchors.certificates.clone()))
            .collect();
        TrustBundleSet { anchors }
    }

    /// Reads the form that is sent to proxies. One unusable anchor refuses the whole, so that a proxy never
    /// silently trusts less than it was told.
    ///
    /// # Errors
    /// When a trust domain or an anchor is not valid.
    pub fn from_model(model: &TrustBundleSet) -> Result<Self, BundleError> {
        let mut bundle = Self::new();
        for (domain, anchors) in &model.anchors {
            let domain = TrustDomain::parse(domain).map_err(BundleError::TrustDomain)?;
            for der in anchors {
                bundle.insert(&domain, der)?;
            }
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests;
