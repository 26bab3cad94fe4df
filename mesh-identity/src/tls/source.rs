//! What the configurations read at each handshake: the current certificate, bundle and trust domains.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_api::name::TrustDomain;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::TrustBundle;
use crate::svid::Svid;
use crate::verify::{PeerRole, VerifiedPeer, VerifyError, verify_peer};

/// One consistent state of identity and trust.
#[derive(Debug, Clone)]
pub struct Current {
    /// The workload's own certificate; `None` before the first issue.
    pub svid: Option<Svid>,
    /// Whom to trust.
    pub bundle: Arc<TrustBundle>,
    /// Trust domains that may talk to us: our own, then those that count as equal.
    pub trust_domains: Arc<[TrustDomain]>,
}

impl Current {
    /// The own certificate, unless there is none or it is not valid at `now`.
    #[must_use]
    pub fn valid_svid(&self, now: SystemTime) -> Option<&Svid> {
        self.svid.as_ref().filter(|svid| svid.is_valid_at(now))
    }

    /// Judges a peer by this state.
    pub(super) fn verify(
        &self,
        role: PeerRole,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedPeer, VerifyError> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        verify_peer(&chain, &self.bundle, &self.trust_domains, role, now)
    }
}

/// The identity of a process, shared by its TLS configurations and swapped whole.
///
/// Reading takes no lock. Writers are few and may be concurrent.
#[derive(Debug)]
pub struct IdentitySource {
    current: ArcSwap<Current>,
}

impl IdentitySource {
    /// A source without a certificate. `trust_domains` begins with the own one; those that follow count as
    /// equal to it.
    #[must_use]
    pub fn new(bundle: TrustBundle, trust_domains: impl Into<Arc<[TrustDomain]>>) -> Arc<Self> {
        let current = Current { svid: None, bundle: Arc::new(bundle), trust_domains: trust_domains.into() };
        Arc::new(Self { current: ArcSwap::from_pointee(current) })
    }

    /// The current state.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Uses `svid` in every handshake from now on. Open connections keep what they have.
    pub fn publish_svid(&self, svid: &Svid) {
        self.update(|current| current.svid = Some(svid.clone()));
    }

    /// Trusts `bundle`, and nothing else, in every handshake from now on.
    pub fn publish_bundle(&self, bundle: TrustBundle) {
        let bundle = Arc::new(bundle);
        self.update(|current| current.bundle = Arc::clone(&bundle));
    }

    /// Accepts these trust domains, the own one first, in every handshake from now on.
    pub fn publish_trust_domains(&self, trust_domains: impl Into<Arc<[TrustDomain]>>) {
        let trust_domains = trust_domains.into();
        self.update(|current| current.trust_domains = Arc::clone(&trust_domains));
    }

    fn update(&self, change: impl Fn(&mut Current)) {
        self.current.rcu(|current| {
            let mut next = Current::clone(current);
            change(&mut next);
            next
        });
    }

    /// The certificate and key for a handshake now, if there is a valid one.
    pub(super) fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.current.load().valid_svid(SystemTime::now()).map(|svid| Arc::clone(svid.certified()))
    }
}
