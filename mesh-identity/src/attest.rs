//! Who is asking for a certificate: evidence to a SPIFFE id, or a refusal. The request itself never decides.
//!
//! Three kinds of evidence: a one-time join token ([`JoinTokens`], made by an operator or by the local
//! mesh), the workload's current certificate (renewal; the TLS layer has verified it), and a Kubernetes
//! service-account token ([`KubernetesToken`], whose review needs the API server and so lives with the
//! caller).

use std::time::SystemTime;

use mesh_api::name::{Namespace, ServiceAccount, SpiffeId, TrustDomain};

mod join_token;

pub use join_token::{IssueTokenError, JoinTokens, JoinTokensState, RedeemError};

/// Evidence of who is asking.
#[derive(Clone, Copy)]
pub enum Attestation<'a> {
    /// A one-time token.
    JoinToken(&'a str),
    /// The verified identity of the TLS connection that the request came by; `None` if its client
    /// presented no certificate.
    CurrentSvid(Option<&'a SpiffeId>),
    /// A Kubernetes service-account token that nobody has reviewed.
    KubernetesToken(&'a str),
    /// What the API server says of a Kubernetes service-account token.
    Reviewed(&'a KubernetesIdentity),
}

impl std::fmt::Debug for Attestation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::JoinToken(_) => f.write_str("JoinToken(secret)"),
            Self::CurrentSvid(id) => f.debug_tuple("CurrentSvid").field(id).finish(),
            Self::KubernetesToken(_) => f.write_str("KubernetesToken(secret)"),
            Self::Reviewed(identity) => f.debug_tuple("Reviewed").field(identity).finish(),
        }
    }
}

/// Why evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// The join token is not good.
    #[error("the join token is refused")]
    JoinToken(#[source] RedeemError),
    /// Renewal over a connection without a client certificate.
    #[error("renewal needs the current certificate, and the connection has none")]
    NoCertificate,
    /// Renewal by an identity of another trust domain.
    #[error("{id} is not of trust domain {trust_domain}")]
    ForeignTrustDomain {
        /// The identity on the connection.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// This kind of evidence is not accepted here.
    #[error("{kind} attestation is not configured here")]
    NotConfigured {
        /// The kind.
        kind: &'static str,
    },
}

/// Turns evidence into an identity.
///
/// May change state (a token is used up), which the caller persists *before* it answers: see
/// [`JoinTokens::state`].
pub trait Attestor: Send {
    /// Decides who is asking for a certificate of `public_key` (DER), whose private half the asker has proven to
    /// hold.
    ///
    /// # Errors
    /// Why the evidence is refused.
    fn attest(
        &mut self,
        attestation: Attestation<'_>,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<SpiffeId, AttestError>;
}

/// The workload behind a Kubernetes token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesIdentity {
    /// Namespace of the service account.
    pub namespace: Namespace,
    /// Name of the service account.
    pub service_account: ServiceAccount,
    /// Name of the pod that the token was made for; `None` for a token that is not bound to one.
    pub pod: Option<String>,
    /// Its unique identifier.
    pub pod_uid: Option<String>,
}

/// Reviews Kubernetes service-account tokens of the mesh's audience. Asynchronous, since the answer is the
/// API server's.
pub trait KubernetesToken: Send + Sync {
    /// Why a review gave no identity.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Asks whose token this is.
    fn review(&self, token: &str) -> impl Future<Output = Result<KubernetesIdentity, Self::Error>> + Send;
}

/// The attestor of this mesh: a join token or a reviewed service-account token for the first certificate, the
/// certificate for the next.
#[derive(Debug)]
pub struct LocalAttestor {
    trust_domain: TrustDomain,
    /// Tokens that were issued; the caller persists their state.
    pub tokens: JoinTokens,
}

impl LocalAttestor {
    /// An attestor for workloads of `trust_domain`.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, tokens: JoinTokens) -> Self {
        Self { trust_domain, tokens }
    }
}

impl Attestor for LocalAttestor {
    fn attest(
        &mut self,
        attestation: Attestation<'_>,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<SpiffeId, AttestError> {
        let id = match attestation {
            Attestation::JoinToken(token) => {
                self.tokens.redeem(token, public_key, now).map_err(AttestError::JoinToken)?
            }
            Attestation::CurrentSvid(Some(id)) => id.clone(),
            Attestation::CurrentSvid(None) => return Err(AttestError::NoCertificate),
            Attestation::Reviewed(found) => {
                SpiffeId::for_workload(&self.trust_domain, &found.namespace, &found.service_account)
            }
            Attestation::KubernetesToken(_) => {
                return Err(AttestError::NotConfigured { kind: "kubernetes token" });
            }
        };
        if id.trust_domain() == self.trust_domain.as_str() {
            Ok(id)
        } else {
            Err(AttestError::ForeignTrustDomain { id, trust_domain: self.trust_domain.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{MINUTE, domain, id, now};

    /// Stands for the public key of a workload.
    const KEY: &[u8] = b"a key";

    fn attestor() -> LocalAttestor {
        LocalAttestor::new(domain("cluster.local"), JoinTokens::default())
    }

    #[test]
    fn a_join_token_gives_the_id_that_it_was_made_for_and_once() {
        let mut attestor = attestor();
        let frontend = id("spiffe://cluster.local/ns/web/sa/frontend");
        let token = attestor.tokens.issue(frontend.clone(), MINUTE, now()).expect("issued");
        let evidence = Attestation::JoinToken(&token);
        assert_eq!(attestor.attest(evidence, KEY, now()), Ok(frontend));
        assert_eq!(
            attestor.attest(evidence, b"another key", now()),
            Err(AttestError::JoinToken(RedeemError::Used))
        );
    }

    #[test]
    fn renewal_is_for_the_identity_on_the_connection_and_needs_one() {
        let catalog = id("spiffe://cluster.local/ns/backend/sa/catalog");
        let renewal = Attestation::CurrentSvid(Some(&catalog));
        assert_eq!(attestor().attest(renewal, KEY, now()), Ok(catalog.clone()));
        let anonymous = Attestation::CurrentSvid(None);
        assert_eq!(attestor().attest(anonymous, KEY, now()), Err(AttestError::NoCertificate));
    }

    #[test]
    fn identities_of_other_domains_are_refused_whatever_the_evidence() {
        let foreign = id("spiffe://cluster.local.evil/ns/a/sa/a");
        let mut attestor = attestor();
        let refused = attestor.attest(Attestation::CurrentSvid(Some(&foreign)), KEY, now());
        assert!(matches!(refused, Err(AttestError::ForeignTrustDomain { .. })));
        let token = attestor.tokens.issue(foreign, MINUTE, now()).expect("issued");
        let refused = attestor.attest(Attestation::JoinToken(&token), KEY, now());
        assert!(matches!(refused, Err(AttestError::ForeignTrustDomain { .. })));
    }

    #[test]
    fn a_reviewed_token_gives_its_service_account_and_a_token_that_was_not_reviewed_gives_nothing() {
        let reviewed = KubernetesIdentity {
            namespace: Namespace::parse("web").expect("valid"),
            service_account: ServiceAccount::parse("frontend").expect("valid"),
            pod: Some("frontend-1".to_owned()),
            pod_uid: None,
        };
        let given = attestor().attest(Attestation::Reviewed(&reviewed), KEY, now());
        assert_eq!(given, Ok(id("spiffe://cluster.local/ns/web/sa/frontend")));
    }

    #[test]
    fn evidence_of_a_kind_that_is_not_configured_is_refused() {
        let refused = attestor().attest(Attestation::KubernetesToken("eyJ"), KEY, now());
        assert_eq!(refused, Err(AttestError::NotConfigured { kind: "kubernetes token" }));
    }

    #[test]
    fn evidence_prints_no_secret() {
        for evidence in [Attestation::JoinToken("mmjoin_secret"), Attestation::KubernetesToken("eyJsecret")] {
            let shown = format!("{evidence:?}");
            assert!(!shown.contains("mmjoin") && !shown.contains("eyJ"), "{shown}");
        }
    }
}
