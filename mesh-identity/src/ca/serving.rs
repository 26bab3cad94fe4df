//! Certificates for names of DNS: for a server of the mesh whose clients know nothing of SPIFFE, such as the
//! webhooks that an API server calls.
//!
//! They are kept apart from workloads' certificates: one carries names of DNS alone and no URI, so nothing in
//! the mesh takes it for an identity ([`crate::certificate`] refuses a leaf without a SPIFFE id), and it is for
//! servers alone. The names come from the process itself, never from a request.

use std::time::{Duration, SystemTime};

use mesh_api::name::Host;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use super::issuance::{self, Validity};
use super::{Authority, IssueError};
use crate::certificate::hex;
use crate::key::WorkloadKey;

/// Most names of one certificate.
const NAMES_MAX: usize = 32;

/// Why no certificate for names was signed.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// There is no name, or there are too many.
    #[error("a serving certificate has 1 to {NAMES_MAX} names, {found} are given")]
    Count {
        /// Names given.
        found: usize,
    },
    /// A wildcard would be good for servers that are not meant.
    #[error("{name} is a wildcard and no name of one server")]
    Wildcard {
        /// The name.
        name: Host,
    },
    /// The authority cannot sign.
    #[error("the serving certificate was not signed")]
    Sign(#[source] IssueError),
}

/// A signed serving certificate with its intermediates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingChain {
    /// Certificates, DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Serial number of the leaf, lower-case hex.
    pub serial: String,
    /// When to ask for the next one: half of its life.
    pub renew_at: SystemTime,
    /// Start of the leaf's validity.
    pub not_before: SystemTime,
    /// End of the leaf's validity. Earlier than asked for when the signer ends earlier.
    pub not_after: SystemTime,
}

impl Authority {
    /// Signs the public half of `key` for a server that is reached by `names`, for `ttl` from `now` on.
    ///
    /// # Errors
    /// When the names are not those of one server, or the authority cannot sign now.
    pub fn issue_serving(
        &self,
        key: &WorkloadKey,
        names: &[Host],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<ServingChain, ServingError> {
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(ServingError::Count { found: names.len() });
        }
        if let Some(name) = names.iter().find(|name| name.is_wildcard()) {
            return Err(ServingError::Wildcard { name: name.clone() });
        }
        let (_, signer) = self.signers();
        if !signer.validity.contains(now) {
            let Validity { not_before, not_after } = signer.validity;
            return Err(ServingError::Sign(IssueError::SignerNotValid { not_before, not_after }));
        }
        let validity = Validity::starting(now, ttl).ending_by(signer.validity.not_after);
        let serial = issuance::random_serial().map_err(ServingError::Sign)?;
        let leaf = params(names, validity, serial)
            .and_then(|params| params.signed_by(key, &signer.issuer).map_err(IssueError::Sign))
            .map_err(ServingError::Sign)?;
        Ok(ServingChain {
            chain: vec![leaf.der().to_vec(), signer.der.clone()],
            serial: hex(&serial),
            renew_at: validity.half_life(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }
}

/// The leaf: names as its only names, no authority, server and not client.
fn params(names: &[Host], validity: Validity, serial: [u8; 16]) -> Result<CertificateParams, IssueError> {
    let mut params = issuance::dated(validity, serial)?;
    let name = |name: &Host| name.as_str().try_into().map(SanType::DnsName).map_err(IssueError::Sign);
    params.subject_alt_names = names.iter().map(name).collect::<Result<_, _>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{LeafError, inspect, strict_leaf};
    use crate::fixture::{HOUR, authority, now};
    use crate::svid::is_signed_by;

    fn names(names: &[&str]) -> Vec<Host> {
        names.iter().map(|name| Host::parse(name).expect("valid")).collect()
    }

    #[test]
    fn a_serving_certificate_is_no_identity_of_the_mesh() {
        let authority = authority("cluster.local", now());
        let key = WorkloadKey::generate().expect("key");
        let issued = authority
            .issue_serving(&key, &names(&["mesh-control.istio-system.svc"]), HOUR, now())
            .expect("signed");
        assert_eq!(strict_leaf(&issued.chain[0]), Err(LeafError::UriCount { found: 0 }));
        assert!(is_signed_by(&issued.chain[0], &issued.chain[1]));
        assert!(is_signed_by(&issued.chain[1], authority.root_certificate()));
        let summary = inspect(&issued.chain[0]).expect("readable");
        assert_eq!((summary.is_ca, summary.spiffe_id), (false, None));
        assert_eq!(issued.renew_at, now() + HOUR / 2);
    }

    #[test]
    fn a_serving_certificate_never_outlives_its_signer() {
        let authority = authority("cluster.local", now());
        let key = WorkloadKey::generate().expect("key");
        let issued = authority.issue_serving(&key, &names(&["a.b"]), HOUR * 24 * 365, now()).expect("signed");
        let signer = inspect(&authority.intermediate_certificate()).expect("readable");
        assert_eq!(issued.not_after, signer.not_after);
    }

    #[test]
    fn no_names_and_wildcards_are_refused() {
        let authority = authority("cluster.local", now());
        let key = WorkloadKey::generate().expect("key");
        let ask = |names: &[Host]| authority.issue_serving(&key, names, HOUR, now());
        assert!(matches!(ask(&[]), Err(ServingError::Count { found: 0 })));
        assert!(matches!(ask(&names(&["*.svc"])), Err(ServingError::Wildcard { .. })));
        assert!(matches!(ask(&vec![names(&["a.b"]).remove(0); 33]), Err(ServingError::Count { found: 33 })));
    }

    #[test]
    fn an_authority_that_has_ended_signs_no_serving_certificate() {
        let authority = authority("cluster.local", now());
        let key = WorkloadKey::generate().expect("key");
        let late = now() + HOUR * 24 * 31;
        let refused = authority.issue_serving(&key, &names(&["a.b"]), HOUR, late);
        assert!(matches!(refused, Err(ServingError::Sign(IssueError::SignerNotValid { .. }))));
    }
}
