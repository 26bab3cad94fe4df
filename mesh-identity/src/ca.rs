//! The certificate authority: what it agrees to sign ([`issuance`]), the built-in authority
//! ([`Authority`]), its state, on [`disk`] or as the parts of a [`secret`] that replicas share, and certificates
//! for names of DNS ([`ServingChain`]).
//!
//! Every authority stands behind [`Issuer`], and every issuer passes the same suite
//! (`tests/ca_conformance.rs`). An issuer is handed the identity by its caller, who has it from an
//! attestation; nothing that a request says about identity is ever read.

use std::time::{Duration, SystemTime};

use mesh_api::name::{SpiffeId, TrustDomain};

use crate::bundle::TrustBundle;
use crate::csr::CsrError;

mod authority;
pub mod disk;
pub mod issuance;
pub mod secret;
mod serving;
mod stored;

pub use authority::{AssembleError, Authority, CreateError, Event, ForeignRoot, MaintainError};
pub use serving::{ServingChain, ServingError};

/// How far the start of a validity lies before the moment of signing, so that a peer whose clock is a
/// little behind accepts the certificate at once (SEMANTICS 2.2).
pub const BACKDATE: Duration = Duration::from_secs(120);

/// Settings of the built-in authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaSettings {
    /// Trust domain of every identity that it signs.
    pub trust_domain: TrustDomain,
    /// Name of the mesh, for the subjects of root and intermediate. Shown to people, decides nothing.
    pub name: String,
    /// Life of the root. Default 3650 days.
    pub root_ttl: Duration,
    /// Life of an intermediate; it is followed by the next at half of it. Default 30 days.
    pub intermediate_ttl: Duration,
    /// Life of a workload certificate when the request names none. Default 24 hours.
    pub workload_ttl: Duration,
    /// Longest life that a request may ask for; more is refused. Default 90 days.
    pub workload_ttl_max: Duration,
    /// Shortest life that a request may ask for; less is refused. Default 5 seconds.
    pub workload_ttl_min: Duration,
}

impl CaSettings {
    /// The defaults for a trust domain.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            trust_domain,
            name: "Mini-Mesh".to_owned(),
            root_ttl: 3650 * DAY,
            intermediate_ttl: 30 * DAY,
            workload_ttl: DAY,
            workload_ttl_max: 90 * DAY,
            workload_ttl_min: Duration::from_secs(5),
        }
    }
}

/// A signed workload certificate with its intermediates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedChain {
    /// Certificates, DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// The identity that was signed.
    pub id: SpiffeId,
    /// Serial number of the leaf, lower-case hex.
    pub serial: String,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity. Earlier than asked for when the signer ends earlier.
    pub not_after: SystemTime,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not acceptable; the sender's fault.
    #[error("the certificate signing request is refused")]
    Request(#[source] CsrError),
    /// The wanted lifetime is above the maximum; refused and not shortened, so that nobody believes to
    /// have what they asked for.
    #[error("a lifetime of {requested:?} is asked for, at most {max:?} is allowed")]
    TtlTooLong {
        /// Asked for.
        requested: Duration,
        /// Allowed.
        max: Duration,
    },
    /// The wanted lifetime is below the minimum.
    #[error("a lifetime of {requested:?} is asked for, at least {min:?} is needed")]
    TtlTooShort {
        /// Asked for.
        requested: Duration,
        /// Needed.
        min: Duration,
    },
    /// The identity belongs to somebody else's trust domain.
    #[error("{id} is not of this authority's trust domain {trust_domain}")]
    ForeignTrustDomain {
        /// The identity.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// The signing certificate has ended, or its validity has not begun by our clock.
    #[error("the signing certificate is not valid now")]
    SignerNotValid {
        /// Start of its validity.
        not_before: SystemTime,
        /// End of its validity.
        not_after: SystemTime,
    },
    /// The time cannot be written in a certificate.
    #[error("the time of signing cannot be written in a certificate")]
    Time,
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// The cryptographic library failed to sign.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
}

/// Signs workload certificates.
pub trait Issuer: Send + Sync {
    /// Signs the public key in `csr` (DER) for `id`. The names in the request are ignored.
    ///
    /// `requested_ttl` counts from `now`; `None` or zero takes the default.
    ///
    /// # Errors
    /// Whose fault it is and why, see [`IssueError`].
    fn issue(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        requested_ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<IssuedChain, IssueError>;

    /// Whom to trust to verify what this issuer signs.
    fn trust_bundle(&self) -> TrustBundle;
}
