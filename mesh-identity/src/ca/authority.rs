//! The built-in authority: root -> intermediate -> workload, ECDSA P-256 throughout.
//!
//! The root signs intermediates only. The intermediate signs workloads and is followed by a new one, with a
//! new key, at half of its life; every chain carries its own intermediate, so certificates of the old one
//! stay good to their end and nobody has to be told. The root is kept: replacing it needs every proxy to
//! trust the new one first, which is not for the authority alone to decide.
//!
//! Signing takes no lock: the intermediate is a snapshot that is swapped whole.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_api::name::SpiffeId;
use rcgen::CertificateParams;

use super::issuance::{self, Validity, granted_ttl, random_serial};
use super::{CaSettings, IssueError, IssuedChain, Issuer};
use crate::bundle::{BundleError, TrustBundle};
use crate::certificate::{InspectError, hex, inspect};
use crate::csr;
use crate::key::{KeyError, WorkloadKey};
use crate::svid::is_signed_by;

/// Part of the root's life at whose end its approach is reported: a fifth (SEMANTICS 2.2).
const ROOT_WARNING_DIVISOR: u32 = 5;

/// Why an authority could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A key could not be made.
    #[error("a key of the authority could not be made")]
    Key(#[source] KeyError),
    /// A certificate could not be signed.
    #[error("a certificate of the authority could not be signed")]
    Sign(#[source] IssueError),
    /// A certificate that was just made cannot be read.
    #[error("a certificate of the authority cannot be read")]
    Inspect(#[source] InspectError),
    /// The root cannot be trusted.
    #[error("the root cannot be used as a trust anchor")]
    Bundle(#[source] BundleError),
}

/// Why stored parts do not make an authority.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A part cannot be used.
    #[error("a stored part of the authority cannot be used")]
    Part(#[source] CreateError),
    /// A certificate could not be taken as an issuer.
    #[error("the {role} certificate cannot be used to sign")]
    Issuer {
        /// `root` or `intermediate`.
        role: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// Certificate and key are of different pairs.
    #[error("the {role} key does not belong to the {role} certificate")]
    KeyMismatch {
        /// `root` or `intermediate`.
        role: &'static str,
    },
    /// The intermediate is not the root's.
    #[error("the intermediate is not signed by the root")]
    Chain,
    /// Not an authority's certificate.
    #[error("the {role} certificate is not an authority's")]
    NotAuthority {
        /// `root` or `intermediate`.
        role: &'static str,
    },
    /// The state is of another mesh.
    #[error("the state is of trust domain {stored:?}, this mesh is {configured:?}")]
    TrustDomain {
        /// In the state.
        stored: String,
        /// In the settings.
        configured: String,
    },
}

/// Why the authority could not be kept in order.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// The root has ended, or has not begun by our clock: it cannot sign an intermediate.
    #[error("the root is not valid now and cannot sign an intermediate")]
    RootNotValid {
        /// Start of its validity.
        not_before: SystemTime,
        /// End of its validity.
        not_after: SystemTime,
    },
    /// The next intermediate could not be made.
    #[error("the next intermediate could not be made")]
    Create(#[source] CreateError),
}

/// What maintenance did or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new intermediate signs from now on; the state wants to be persisted.
    IntermediateRotated {
        /// Its serial number.
        serial: String,
        /// End of its validity.
        not_after: SystemTime,
    },
    /// Less than a fifth of the root's life is left.
    RootExpiring {
        /// End of its validity.
        not_after: SystemTime,
    },
}

/// Another authority's state where that of this one is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the root with serial number {theirs} is not that of this mesh, which has {ours}")]
pub struct ForeignRoot {
    /// Serial number of this authority's root.
    pub ours: String,
    /// Serial number of the other root.
    pub theirs: String,
}

fn rotated(next: &Signer) -> Event {
    Event::IntermediateRotated { serial: next.serial.clone(), not_after: next.validity.not_after }
}

/// A certificate that signs, with its key.
pub(super) struct Signer {
    pub(super) issuer: rcgen::Issuer<'static, WorkloadKey>,
    pub(super) der: Vec<u8>,
    pub(super) serial: String,
    pub(super) validity: Validity,
}

impl Signer {
    /// Reassembles a signer from its certificate and key.
    pub(super) fn assemble(
        role: &'static str,
        der: Vec<u8>,
        key: WorkloadKey,
    ) -> Result<Self, AssembleError> {
        let summary = inspect(&der).map_err(|e| AssembleError::Part(CreateError::Inspect(e)))?;
        if !summary.is_ca {
            return Err(AssembleError::NotAuthority { role });
        }
        let certificate = rustls_pki_types::CertificateDer::from(der.as_slice());
        let public =
            webpki::EndEntityCert::try_from(&certificate).map(|c| c.subject_public_key_info().to_vec());
        if public.ok() != Some(key.public_key_info()) {
            return Err(AssembleError::KeyMismatch { role });
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|source| AssembleError::Issuer { role, source })?;
        let validity = Validity { not_before: summary.not_before, not_after: summary.not_after };
        Ok(Self { issuer, serial: summary.serial, validity, der })
    }

    fn made(params: CertificateParams, der: Vec<u8>, key: WorkloadKey) -> Result<Self, CreateError> {
        let summary = inspect(&der).map_err(CreateError::Inspect)?;
        let validity = Validity { not_before: summary.not_before, not_after: summary.not_after };
        Ok(Self { issuer: rcgen::Issuer::new(params, key), serial: summary.serial, validity, der })
    }

    fn root(settings: &CaSettings, now: SystemTime) -> Result<Self, CreateError> {
        let key = WorkloadKey::generate().map_err(CreateError::Key)?;
        let validity = Validity::starting(now, settings.root_ttl);
        let name = format!("{} root", settings.name);
        let params = random_serial()
            .and_then(|serial| issuance::authority(settings, &name, 1, validity, serial))
            .map_err(CreateError::Sign)?;
        let der =
            params.self_signed(&key).map_err(|e| CreateError::Sign(IssueError::Sign(e)))?.der().to_vec();
        Self::made(params, der, key)
    }

    fn intermediate(settings: &CaSettings, root: &Self, now: SystemTime) -> Result<Self, CreateError> {
        let key = WorkloadKey::generate().map_err(CreateError::Key)?;
        let validity = Validity::starting(now, settings.intermediate_ttl).ending_by(root.validity.not_after);
        let serial = random_serial().map_err(CreateError::Sign)?;
        let name = format!("{} intermediate {}", settings.name, hex(&serial[..4]));
        let params = issuance::authority(settings, &name, 0, validity, serial).map_err(CreateError::Sign)?;
        let der = params
            .signed_by(&key, &root.issuer)
            .map_err(|e| CreateError::Sign(IssueError::Sign(e)))?
            .der()
            .to_vec();
        Self::made(params, der, key)
    }
}

/// The built-in authority.
pub struct Authority {
    settings: CaSettings,
    root: Arc<Signer>,
    intermediate: ArcSwap<Signer>,
    bundle: TrustBundle,
}

impl Authority {
    /// Makes a new root and a first intermediate, in memory. [`super::disk`] keeps them.
    ///
    /// # Errors
    /// When the cryptographic library fails or a lifetime reaches beyond the year 9999.
    pub fn create(settings: CaSettings, now: SystemTime) -> Result<Self, CreateError> {
        let root = Signer::root(&settings, now)?;
        let intermediate = Signer::intermediate(&settings, &root, now)?;
        Self::with(settings, root, intermediate).map_err(CreateError::Bundle)
    }

    /// Puts an authority together from stored parts.
    pub(super) fn assemble(
        settings: CaSettings,
        root: Signer,
        intermediate: Signer,
    ) -> Result<Self, AssembleError> {
        if !is_signed_by(&intermediate.der, &root.der) {
            return Err(AssembleError::Chain);
        }
        Self::with(settings, root, intermediate).map_err(|e| AssembleError::Part(CreateError::Bundle(e)))
    }

    fn with(settings: CaSettings, root: Signer, intermediate: Signer) -> Result<Self, BundleError> {
        let mut bundle = TrustBundle::new();
        bundle.insert(&settings.trust_domain, &root.der)?;
        Ok(Self { settings, root: Arc::new(root), intermediate: ArcSwap::from_pointee(intermediate), bundle })
    }

    /// Keeps the authority in order: follows an intermediate at half of its life by a new one. To be called
    /// at least as often as [`Self::next_maintenance`] says; calling it more often does nothing.
    ///
    /// # Errors
    /// When a new intermediate is due and cannot be made. The current one signs on to its end.
    pub fn maintain(&self, now: SystemTime) -> Result<Vec<Event>, MaintainError> {
        let mut events = Vec::new();
        if let Some(next) = self.next_intermediate(now)? {
            events.push(rotated(&next));
            self.intermediate.store(Arc::new(next));
        }
        let root = self.root.validity;
        let life = root.not_after.duration_since(root.not_before).unwrap_or_default();
        if now + life / ROOT_WARNING_DIVISOR >= root.not_after {
            events.push(Event::RootExpiring { not_after: root.not_after });
        }
        Ok(events)
    }

    /// The authority as it is to be from now on, if an intermediate is due to be followed; this one signs on
    /// as it was. So that the successor can be stored where others see it before anybody signs with it.
    ///
    /// # Errors
    /// When a new intermediate is due and cannot be made.
    pub fn successor(&self, now: SystemTime) -> Result<Option<Self>, MaintainError> {
        let Some(next) = self.next_intermediate(now)? else { return Ok(None) };
        Ok(Some(Self {
            settings: self.settings.clone(),
            root: Arc::clone(&self.root),
            intermediate: ArcSwap::from_pointee(next),
            bundle: self.bundle.clone(),
        }))
    }

    /// Signs with the intermediate of `other` from now on, which has the same root. Says whether it was another.
    ///
    /// # Errors
    /// When the root is another; nothing changes then.
    pub fn take_up(&self, other: &Self) -> Result<bool, ForeignRoot> {
        if self.root.der != other.root.der {
            return Err(ForeignRoot { ours: self.root.serial.clone(), theirs: other.root.serial.clone() });
        }
        let next = other.intermediate.load_full();
        let has_changed = self.intermediate.load().der != next.der;
        if has_changed {
            self.intermediate.store(next);
        }
        Ok(has_changed)
    }

    /// What the present intermediate is to be followed by now, if by anything.
    fn next_intermediate(&self, now: SystemTime) -> Result<Option<Signer>, MaintainError> {
        let current = self.intermediate.load().validity;
        // Nothing is gained by a new intermediate that ends with the root, as the current one does.
        let is_last = current.not_after >= self.root.validity.not_after && current.contains(now);
        let is_due = now >= current.half_life() && !is_last;
        if !is_due && current.contains(now) {
            return Ok(None);
        }
        if !self.root.validity.contains(now) {
            let Validity { not_before, not_after } = self.root.validity;
            return Err(MaintainError::RootNotValid { not_before, not_after });
        }
        Signer::intermediate(&self.settings, &self.root, now).map(Some).map_err(MaintainError::Create)
    }

    /// When [`Self::maintain`] next has something to do, and at the latest in an hour.
    #[must_use]
    pub fn next_maintenance(&self, now: SystemTime) -> SystemTime {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        const SECOND: Duration = Duration::from_secs(1);
        self.intermediate.load().validity.half_life().clamp(now + SECOND, now + HOUR)
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &CaSettings {
        &self.settings
    }

    /// The root certificate, DER.
    #[must_use]
    pub fn root_certificate(&self) -> &[u8] {
        &self.root.der
    }

    /// The certificate of the intermediate that signs now, DER.
    #[must_use]
    pub fn intermediate_certificate(&self) -> Vec<u8> {
        self.intermediate.load().der.clone()
    }

    pub(super) fn signers(&self) -> (&Signer, Arc<Signer>) {
        (&self.root, self.intermediate.load_full())
    }
}

impl Issuer for Authority {
    fn issue(
        &self,
        csr: &[u8],
        id: &SpiffeId,
        requested_ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<IssuedChain, IssueError> {
        if id.trust_domain() != self.settings.trust_domain.as_str() {
            let trust_domain = self.settings.trust_domain.clone();
            return Err(IssueError::ForeignTrustDomain { id: id.clone(), trust_domain });
        }
        let ttl = granted_ttl(&self.settings, requested_ttl)?;
        let request = csr::check(csr).map_err(IssueError::Request)?;
        let signer = self.intermediate.load();
        if !signer.validity.contains(now) {
            let Validity { not_before, not_after } = signer.validity;
            return Err(IssueError::SignerNotValid { not_before, not_after });
        }
        let validity = Validity::starting(now, ttl).ending_by(signer.validity.not_after);
        let serial = random_serial()?;
        let leaf = issuance::leaf(id, validity, serial)?
            .signed_by(&request, &signer.issuer)
            .map_err(IssueError::Sign)?;
        Ok(IssuedChain {
            chain: vec![leaf.der().to_vec(), signer.der.clone()],
            id: id.clone(),
            serial: hex(&serial),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    fn trust_bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("settings", &self.settings)
            .field("root", &self.root.serial)
            .field("intermediate", &self.intermediate.load().serial)
            .finish_non_exhaustive()
    }
}
