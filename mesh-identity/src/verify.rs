//! Who a peer is: its certificate chain to its SPIFFE id, or the reason why it is refused.
//!
//! The roots are chosen by the trust domain that the leaf claims, so that the authority of one domain can
//! never vouch for an id of another. `webpki` builds and checks the path; the leaf is read a second time,
//! strictly, because `webpki` passes over URI names that are not text. Both readings must agree. The second
//! one costs some microseconds in a handshake that costs hundreds.
//!
//! The client then compares the id with the one that it expects: a valid certificate of somebody else is a
//! refusal like any other.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::name::{SpiffeId, TrustDomain};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::bundle::TrustBundle;
use crate::certificate::{LeafError, strict_leaf};

/// Why a peer is refused. The ids named here are claims until the variant is [`Self::Unexpected`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// The leaf is not a workload certificate.
    #[error("the peer's certificate is not a workload certificate")]
    Leaf(#[source] LeafError),
    /// Two readings of the leaf differ.
    #[error("the names in the peer's certificate are ambiguous")]
    Ambiguous,
    /// The trust domain is not one that may talk to us.
    #[error("trust domain of {id} is not accepted here")]
    TrustDomain {
        /// Claimed id.
        id: SpiffeId,
    },
    /// There are no roots for the trust domain.
    #[error("there is no trust anchor for the trust domain of {id}")]
    NoAnchor {
        /// Claimed id.
        id: SpiffeId,
    },
    /// Leaf or intermediate has ended.
    #[error("the certificate chain of {id} expired at Unix time {not_after}")]
    Expired {
        /// Claimed id.
        id: SpiffeId,
        /// End of validity, in seconds of the Unix epoch.
        not_after: u64,
    },
    /// Leaf or intermediate is not valid yet, by our clock.
    #[error("the certificate chain of {id} is valid from Unix time {not_before} on only")]
    NotYetValid {
        /// Claimed id.
        id: SpiffeId,
        /// Start of validity, in seconds of the Unix epoch.
        not_before: u64,
    },
    /// No path to a root of the trust domain.
    #[error("the certificate chain of {id} does not end in a root of its trust domain")]
    UnknownIssuer {
        /// Claimed id.
        id: SpiffeId,
    },
    /// The path breaks another rule.
    #[error("the certificate chain of {id} is not valid")]
    Chain {
        /// Claimed id.
        id: SpiffeId,
        /// The rule.
        source: webpki::Error,
    },
    /// A valid certificate of somebody else.
    #[error("expected {expected}, the peer is {found}")]
    Unexpected {
        /// The ids that were expected.
        expected: ExpectedPeer,
        /// The peer's verified id.
        found: SpiffeId,
    },
    /// We have no valid certificate ourselves, so nothing may be sent in the mesh's name.
    #[error("this workload has no valid certificate of its own")]
    NoOwnIdentity,
}

/// What the peer acts as in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// The identities that a destination may have: one, or several where workloads of several accounts serve it.
/// Never empty. Cheap to clone; usable as the key of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpectedPeer(Arc<[SpiffeId]>);

impl ExpectedPeer {
    /// Exactly this identity.
    #[must_use]
    pub fn one(id: SpiffeId) -> Self {
        Self(Arc::new([id]))
    }

    /// One of these; `None` if there is none, since a destination without known identity is not to be
    /// talked to in the mesh's name. Order and repetition do not matter.
    #[must_use]
    pub fn any_of(ids: impl IntoIterator<Item = SpiffeId>) -> Option<Self> {
        let mut ids: Vec<SpiffeId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        (!ids.is_empty()).then(|| Self(ids.into()))
    }

    /// The identities, sorted.
    #[must_use]
    pub fn ids(&self) -> &[SpiffeId] {
        &self.0
    }

    /// Whether `found` is one of them. Trust domains in `equal` count as one and the same domain.
    #[must_use]
    pub fn accepts(&self, found: &SpiffeId, equal: &[TrustDomain]) -> bool {
        let is_equal = |domain: &str| equal.iter().any(|known| known.as_str() == domain);
        self.0.iter().any(|expected| {
            expected == found
                || expected.path() == found.path()
                    && is_equal(expected.trust_domain())
                    && is_equal(found.trust_domain())
        })
    }
}

impl std::fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, id) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" or ")?;
            }
            write!(f, "{id}")?;
        }
        Ok(())
    }
}

/// A peer whose chain was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// Its identity.
    pub id: SpiffeId,
    /// End of its leaf's validity: no connection may outlive it.
    pub not_after: SystemTime,
}

/// Verifies a chain (leaf first) at `now` and says who the peer is.
///
/// `trust_domains` are the domains that may talk to us: our own first, then those that count as equal to
/// it. A domain that counts as equal and has no roots of its own in `bundle` is vouched for by ours.
///
/// # Errors
/// The reason of the refusal. Called once per handshake.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    trust_domains: &[TrustDomain],
    role: PeerRole,
    now: SystemTime,
) -> Result<VerifiedPeer, VerifyError> {
    let Some((leaf_der, intermediates)) = chain.split_first() else {
        return Err(VerifyError::NoCertificate);
    };
    let leaf = strict_leaf(leaf_der).map_err(VerifyError::Leaf)?;
    let id = leaf.id;
    let certificate =
        EndEntityCert::try_from(leaf_der).map_err(|source| VerifyError::Chain { id: id.clone(), source })?;
    let mut names = certificate.valid_uri_names();
    if (names.next(), names.next()) != (Some(id.as_str()), None) {
        return Err(VerifyError::Ambiguous);
    }
    let anchors = anchors_for(&id, bundle, trust_domains)?;
    let usage = match role {
        PeerRole::Client => KeyUsage::client_auth(),
        PeerRole::Server => KeyUsage::server_auth(),
    };
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    certificate
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            anchors,
            intermediates,
            UnixTime::since_unix_epoch(since),
            usage,
            // There is no revocation list: a life of a day and rotation take its place.
            None,
            None,
        )
        .map_err(|error| refusal(&id, error))?;
    Ok(VerifiedPeer { id, not_after: leaf.not_after })
}

fn anchors_for<'b>(
    id: &SpiffeId,
    bundle: &'b TrustBundle,
    trust_domains: &[TrustDomain],
) -> Result<&'b [rustls_pki_types::TrustAnchor<'static>], VerifyError> {
    if !trust_domains.iter().any(|domain| domain.as_str() == id.trust_domain()) {
        return Err(VerifyError::TrustDomain { id: id.clone() });
    }
    let own = bundle.anchors(id.trust_domain());
    let anchors = match (own, trust_domains.first()) {
        ([], Some(first)) => bundle.anchors(first.as_str()),
        (own, _) => own,
    };
    if anchors.is_empty() { Err(VerifyError::NoAnchor { id: id.clone() }) } else { Ok(anchors) }
}

fn refusal(id: &SpiffeId, error: webpki::Error) -> VerifyError {
    let id = id.clone();
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            VerifyError::Expired { id, not_after: not_after.as_secs() }
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            VerifyError::NotYetValid { id, not_before: not_before.as_secs() }
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::UnknownIssuer { id }
        }
        source => VerifyError::Chain { id, source },
    }
}

#[cfg(test)]
mod tests;
