//! Certificates: attest, decide, sign.
//!
//! The identity comes from the attestation alone. A join token is used up and that is written down *before*
//! the answer leaves, so no restart makes it good again; what can be checked without it (the request, the
//! lifetime) is checked before, so that a mistake does not cost the token. An answer that is lost does not cost
//! it either: until the token expires, the same key is given a certificate again. Attempts are limited by
//! identity, and failed ones by address.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use mesh_api::model::TrustBundleSet;
use mesh_api::name::SpiffeId;
use mesh_identity::attest::{
    AttestError, Attestation, Attestor, IssueTokenError, JoinTokens, JoinTokensState, LocalAttestor,
};
use mesh_identity::ca::disk::{DiskError, StateDirectory};
use mesh_identity::ca::{self, Authority, Event, IssuedChain, Issuer, MaintainError};
use mesh_identity::csr::{self, BuildError};
use mesh_identity::key::{KeyError, WorkloadKey};
use mesh_identity::svid::{Svid, SvidError};
use mesh_identity::tls::IdentitySource;

use crate::cluster::token_review::ReviewError;
use crate::state_file::{self, Durability, StateFileError};

mod rate_limit;

pub use rate_limit::{Limit, RateLimiter};

/// Certificates for one identity: workloads of one service account may be many, and start together.
const PER_IDENTITY: Limit = Limit { burst: 200.0, per_second: 20.0 };
/// Refused attempts from one address: a token has 256 bits, so this is about noise, not about guessing.
const FAILURES_PER_ADDRESS: Limit = Limit { burst: 50.0, per_second: 2.0 };
/// Life of the control plane's own serving certificate.
const OWN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueRefusal {
    /// The evidence is not accepted; the caller's fault.
    #[error("the attestation is refused")]
    Attestation(#[source] AttestError),
    /// The request or the lifetime is not accepted, or the authority cannot sign.
    #[error("no certificate was signed")]
    Issue(#[source] ca::IssueError),
    /// The service-account token gave no identity.
    #[error("the service-account token proves no identity")]
    Review(#[source] ReviewError),
    /// Too many requests.
    #[error("too many requests for {whom}")]
    TooMany {
        /// Identity or address.
        whom: String,
    },
    /// That a token is used up could not be written down; our fault.
    #[error("the use of the join token could not be recorded")]
    Record(#[source] StateFileError),
}

/// Why no join token was issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// The identity is of another trust domain.
    #[error("{id} is not of trust domain {trust_domain}")]
    ForeignTrustDomain {
        /// The identity.
        id: SpiffeId,
        /// Ours.
        trust_domain: String,
    },
    /// The token cannot be had.
    #[error("no join token was made")]
    Token(#[source] IssueTokenError),
    /// The token could not be written down; our fault.
    #[error("the join token could not be recorded")]
    Record(#[source] StateFileError),
}

/// Why the authority or the own certificate could not be kept in order.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The authority.
    #[error("the authority cannot be kept in order")]
    Maintain(#[source] MaintainError),
    /// Its state on disk.
    #[error("the authority's state cannot be stored")]
    Persist(#[source] DiskError),
    /// The own key.
    #[error("no key for the serving certificate")]
    Key(#[source] KeyError),
    /// The own request.
    #[error("no request for the serving certificate")]
    Request(#[source] BuildError),
    /// The own certificate.
    #[error("no serving certificate")]
    Sign(#[source] ca::IssueError),
    /// The own chain.
    #[error("the serving certificate is not usable")]
    Svid(#[source] SvidError),
}

/// What was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The chain.
    pub chain: IssuedChain,
    /// Whom to trust.
    pub bundle: TrustBundleSet,
}

/// A request for a certificate.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// PKCS#10 request, DER.
    pub csr: &'a [u8],
    /// Wanted lifetime; `None` takes the default.
    pub ttl: Option<Duration>,
    /// Who asks.
    pub attestation: Attestation<'a>,
    /// Address of the caller.
    pub address: std::net::IpAddr,
}

/// The authority, the join tokens and the limits.
#[derive(Debug)]
pub struct IssueService {
    authority: Authority,
    directory: Option<StateDirectory>,
    attestor: Mutex<LocalAttestor>,
    tokens_path: PathBuf,
    by_identity: Mutex<RateLimiter<SpiffeId>>,
    failures: Mutex<RateLimiter<std::net::IpAddr>>,
    issued: AtomicU64,
    refused: AtomicU64,
}

impl IssueService {
    /// A service of `authority`, with the join tokens kept at `tokens_path`.
    ///
    /// # Errors
    /// When the kept tokens cannot be read: without them a used token would be good again.
    pub fn new(
        authority: Authority,
        directory: Option<StateDirectory>,
        tokens_path: PathBuf,
    ) -> Result<Self, StateFileError> {
        let state: JoinTokensState = state_file::read_json(&tokens_path)?.unwrap_or_default();
        let trust_domain = authority.settings().trust_domain.clone();
        Ok(Self {
            authority,
            directory,
            attestor: Mutex::new(LocalAttestor::new(trust_domain, JoinTokens::restore(state))),
            tokens_path,
            by_identity: Mutex::new(RateLimiter::new(PER_IDENTITY)),
            failures: Mutex::new(RateLimiter::new(FAILURES_PER_ADDRESS)),
            issued: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Numbers of certificates issued and refused since start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.issued.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Whom to trust.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundleSet {
        self.authority.trust_bundle().to_model()
    }

    /// Issues a certificate. Blocks on the disk when a join token is used up.
    ///
    /// # Errors
    /// Why not; see [`IssueRefusal`].
    pub fn issue(&self, ask: Ask<'_>, now: SystemTime, tick: Instant) -> Result<Issued, IssueRefusal> {
        let result = self.try_issue(ask, now, tick);
        match &result {
            Ok(_) => self.issued.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.refused.fetch_add(1, Ordering::Relaxed),
        };
        result
    }

    /// Whether an address may ask: not when it was refused too often. To be asked before evidence is reviewed
    /// at the expense of others.
    ///
    /// # Errors
    /// When it may not now.
    pub fn admit(&self, address: std::net::IpAddr, tick: Instant) -> Result<(), IssueRefusal> {
        if locked(&self.failures).has_room(&address, tick) {
            return Ok(());
        }
        Err(IssueRefusal::TooMany { whom: address.to_string() })
    }

    /// Counts a request that was refused before it came here; `is_fault` when the caller is to blame.
    pub fn count_refusal(&self, address: std::net::IpAddr, tick: Instant, is_fault: bool) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if is_fault {
            locked(&self.failures).take(address, tick);
        }
    }

    fn try_issue(&self, ask: Ask<'_>, now: SystemTime, tick: Instant) -> Result<Issued, IssueRefusal> {
        self.admit(ask.address, tick)?;
        let fault = |refusal: IssueRefusal| {
            locked(&self.failures).take(ask.address, tick);
            refusal
        };
        let request =
            csr::check(ask.csr).map_err(|e| fault(IssueRefusal::Issue(ca::IssueError::Request(e))))?;
        ca::issuance::granted_ttl(self.authority.settings(), ask.ttl)
            .map_err(|e| fault(IssueRefusal::Issue(e)))?;
        let key = request.public_key_info();
        let id = self.attest(ask.attestation, &key, now).map_err(|refusal| match refusal {
            IssueRefusal::Record(_) => refusal,
            IssueRefusal::Attestation(_)
            | IssueRefusal::Issue(_)
            | IssueRefusal::Review(_)
            | IssueRefusal::TooMany { .. } => fault(refusal),
        })?;
        if !locked(&self.by_identity).take(id.clone(), tick) {
            return Err(IssueRefusal::TooMany { whom: id.to_string() });
        }
        let chain = self.authority.issue(ask.csr, &id, ask.ttl, now).map_err(IssueRefusal::Issue)?;
        Ok(Issued { chain, bundle: self.trust_bundle() })
    }

    fn attest(
        &self,
        attestation: Attestation<'_>,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<SpiffeId, IssueRefusal> {
        let mut attestor = locked(&self.attestor);
        let id = attestor.attest(attestation, public_key, now).map_err(IssueRefusal::Attestation)?;
        if matches!(attestation, Attestation::JoinToken(_)) {
            // The lock is held over the write: what is on disk is never older than what was answered.
            self.record(&attestor).map_err(IssueRefusal::Record)?;
        }
        Ok(id)
    }

    /// Makes a join token for `id`. Blocks on the disk.
    ///
    /// # Errors
    /// When the identity is not ours to give, too many tokens are outstanding, or the disk refuses.
    pub fn issue_token(&self, id: SpiffeId, ttl: Duration, now: SystemTime) -> Result<String, TokenRefusal> {
        let trust_domain = self.authority.settings().trust_domain.as_str();
        if id.trust_domain() != trust_domain || id.workload_parts().is_none() {
            return Err(TokenRefusal::ForeignTrustDomain { id, trust_domain: trust_domain.to_owned() });
        }
        let mut attestor = locked(&self.attestor);
        let token = attestor.tokens.issue(id, ttl, now).map_err(TokenRefusal::Token)?;
        self.record(&attestor).map_err(TokenRefusal::Record)?;
        Ok(token)
    }

    fn record(&self, attestor: &LocalAttestor) -> Result<(), StateFileError> {
        state_file::write_json(&self.tokens_path, &attestor.tokens.state(), Durability::Flushed)
    }

    /// Keeps the authority in order and stores what changed. Blocks on the disk.
    ///
    /// # Errors
    /// When a new intermediate is due and cannot be made or stored.
    pub fn maintain(&self, now: SystemTime) -> Result<Vec<Event>, UpkeepError> {
        let events = self.authority.maintain(now).map_err(UpkeepError::Maintain)?;
        if let Some(directory) = &self.directory
            && events.iter().any(|event| matches!(event, Event::IntermediateRotated { .. }))
        {
            directory.persist(&self.authority).map_err(UpkeepError::Persist)?;
        }
        Ok(events)
    }

    /// Gives `source` a serving certificate for `id`, with a fresh key, unless it has one that is not yet
    /// half through its life. Says whether it did.
    ///
    /// # Errors
    /// When no certificate can be made; the source keeps what it has.
    pub fn renew_own(
        &self,
        source: &Arc<IdentitySource>,
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<bool, UpkeepError> {
        let current = source.current();
        if let Some(svid) = current.valid_svid(now) {
            let life = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
            if now < svid.not_before() + life / 2 {
                return Ok(false);
            }
        }
        let key = WorkloadKey::generate().map_err(UpkeepError::Key)?;
        let request = csr::build(&key).map_err(UpkeepError::Request)?;
        let ttl = OWN_TTL.min(self.authority.settings().workload_ttl_max);
        let chain = self.authority.issue(&request, id, Some(ttl), now).map_err(UpkeepError::Sign)?;
        let svid = Svid::new(chain.chain, &key).map_err(UpkeepError::Svid)?;
        source.publish_svid(&svid);
        Ok(true)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
