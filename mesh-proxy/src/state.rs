//! The snapshot that requests read: own workload, policies, known destinations.
//!
//! One immutable value, swapped whole. Writers (one task of [`crate::control`]) build the next value from the
//! previous one; readers load a pointer. Nothing on the request path waits, except the first use of a
//! destination that the control plane has not yet been asked about ([`State::resolve`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use mesh_api::model::{Destination, DestinationKey, InboundPort, MtlsMode, ProxyConfig, WorkloadPolicies};
use mesh_policy::authenticate::Authenticator;
use mesh_policy::authorize::Authorizer;
use mesh_policy::route::RouteTable;
use tokio::sync::{mpsc, watch};

use crate::control::unknown_keys::UnknownKeys;
use crate::telemetry::decisions::Decisions;
use crate::trial::Trial;

/// Time that a first connection waits for the control plane's answer about its destination.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions waiting for the discovery task; more are answered as "could not ask".
pub const QUESTIONS_MAX: usize = 1024;

/// Own workload and its compiled policies; exists only as a whole.
#[derive(Debug)]
pub struct WorkloadState {
    /// Own workload and mesh settings.
    pub config: ProxyConfig,
    /// Policies as received.
    pub policies: WorkloadPolicies,
    /// The same, compiled.
    pub authorizer: Authorizer,
    /// Rules and keys of tokens, compiled; the same value as long as neither changes.
    pub authenticator: Arc<Authenticator>,
    /// Counts what the policies decide.
    pub decisions: Decisions,
    /// Version of the policy resource; a permit made under another version is judged again.
    pub policy_version: Arc<str>,
    /// Declared ports by target port.
    pub inbound: BTreeMap<u16, InboundPort>,
    /// Policies that are tried beside these, if any are.
    pub trial: Option<Box<Trial>>,
}

impl WorkloadState {
    /// Compiles a workload's state. What did not change is taken over from the state before, and the numbers
    /// of its decisions go on.
    #[must_use]
    pub fn compile(
        config: ProxyConfig,
        policies: WorkloadPolicies,
        policy_version: Arc<str>,
        before: Option<&Self>,
    ) -> Self {
        let authorizer = match before {
            Some(before) => before.authorizer.recompile(&config.mesh, &policies.authorization),
            None => Authorizer::compile(&config.mesh, &policies.authorization),
        };
        let same_tokens = before.filter(|before| {
            before.policies.request == policies.request && before.policies.key_sets == policies.key_sets
        });
        let authenticator = match same_tokens {
            Some(before) => Arc::clone(&before.authenticator),
            None => Arc::new(Authenticator::compile(&policies.request, &policies.key_sets)),
        };
        let counted = before.map(|before| &before.decisions);
        let mut state = Self {
            decisions: Decisions::of(authorizer.policies(), &policies.request, counted),
            inbound: config.inbound.iter().map(|port| (port.port, port.clone())).collect(),
            authorizer,
            authenticator,
            config,
            policies,
            policy_version,
            trial: None,
        };
        state.trial = Trial::compile(&state, before);
        state
    }

    /// Whether requests are judged by AUDIT, DENY and ALLOW alone: no authorizer is asked, no token looked at.
    #[must_use]
    pub fn is_judged_at_once(&self) -> bool {
        !self.authorizer.has_custom() && self.authenticator.is_empty()
    }

    /// Effective mutual-TLS mode of a target port.
    #[must_use]
    pub fn mtls_mode(&self, port: u16) -> MtlsMode {
        self.policies.mtls_ports.get(&port).copied().unwrap_or(self.policies.mtls)
    }
}

/// A destination with its routes compiled.
#[derive(Debug)]
pub struct DestinationState {
    /// Key it was asked for by.
    pub key: DestinationKey,
    /// As received.
    pub destination: Destination,
    /// Routes, compiled; `None` sends everything to the host itself.
    pub routes: Option<RouteTable>,
    /// Version of the resource.
    pub version: Arc<str>,
    /// Number within the process that no other destination state has: per-worker caches key on it.
    pub generation: u64,
    /// Seconds of process life at the last use, kept coarse; idle destinations are unsubscribed by it.
    last_used: AtomicU64,
}

impl DestinationState {
    /// Makes a state.
    #[must_use]
    pub fn new(
        key: DestinationKey,
        destination: Destination,
        routes: Option<RouteTable>,
        version: Arc<str>,
        generation: u64,
    ) -> Self {
        Self { key, destination, routes, version, generation, last_used: AtomicU64::new(0) }
    }

    /// Notes a use. Called per connection or request; writes only when the second changed.
    pub fn touch(&self, process_seconds: u64) {
        if self.last_used.load(Ordering::Relaxed) != process_seconds {
            self.last_used.store(process_seconds, Ordering::Relaxed);
        }
    }

    /// Second of process life of the last use.
    #[must_use]
    pub fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }
}

/// What is known about a destination key.
#[derive(Debug, Clone)]
pub enum Known {
    /// The mesh has it.
    Present(Arc<DestinationState>),
    /// The mesh definitely has none.
    Absent,
}

/// One consistent configuration.
#[derive(Debug, Default)]
pub struct ProxyState {
    /// Grows with each swap.
    pub revision: u64,
    /// `None` until configuration, policies and trust bundle are all in hand.
    pub workload: Option<Arc<WorkloadState>>,
    /// Destinations by key.
    pub destinations: HashMap<DestinationKey, Known>,
}

impl ProxyState {
    /// Zone of the own workload; empty when it is not known.
    #[must_use]
    pub fn zone(&self) -> &str {
        let locality = self.workload.as_ref().map(|workload| workload.config.locality.as_str());
        locality.unwrap_or_default().split('/').nth(1).unwrap_or_default()
    }
}

/// The answer to "who is behind this name or address".
#[derive(Debug, Clone)]
pub enum Resolution {
    /// A destination of the mesh.
    Present(Arc<DestinationState>),
    /// Definitely none: the outbound policy decides.
    Absent,
    /// The control plane did not answer in time: nothing may leave in the clear because of that.
    Unanswered,
}

/// Handle to the current state; cheap to clone.
#[derive(Debug, Clone)]
pub struct State {
    current: Arc<ArcSwap<ProxyState>>,
    revisions: watch::Sender<u64>,
    questions: mpsc::Sender<DestinationKey>,
    unknown_keys: UnknownKeys,
}

impl State {
    /// An empty state, and the questions that its readers ask.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<DestinationKey>) {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let state = Self {
            current: Arc::new(ArcSwap::from_pointee(ProxyState::default())),
            revisions: watch::Sender::new(0),
            questions,
            unknown_keys: UnknownKeys::default(),
        };
        (state, asked)
    }

    /// The current snapshot. Called once per request; wait-free.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<ProxyState>> {
        self.current.load()
    }

    /// The current snapshot, to be kept: for the admin socket and for writers, not for requests.
    #[must_use]
    pub fn load_full(&self) -> Arc<ProxyState> {
        self.current.load_full()
    }

    /// Publishes the next snapshot and wakes those who watch.
    pub fn publish(&self, mut next: ProxyState) {
        next.revision = self.current.load().revision + 1;
        let revision = next.revision;
        self.current.store(Arc::new(next));
        self.revisions.send_replace(revision);
    }

    /// A handle to the same state for one thread, and what [`Self::relay`] needs to wake its readers. Waiting
    /// on it touches nothing that other threads wait on too.
    #[must_use]
    pub fn local(&self) -> (Self, watch::Receiver<u64>) {
        let published = self.revisions.subscribe();
        let local = Self {
            current: Arc::clone(&self.current),
            revisions: watch::Sender::new(*published.borrow()),
            questions: self.questions.clone(),
            unknown_keys: self.unknown_keys.clone(),
        };
        (local, published)
    }

    /// Wakes the readers of a local handle whenever a state is published, for as long as it is polled.
    pub async fn relay(&self, mut published: watch::Receiver<u64>) {
        while published.changed().await.is_ok() {
            let revision = *published.borrow_and_update();
            self.revisions.send_replace(revision);
        }
        std::future::pending().await
    }

    /// Revisions as they are published: open streams judge their permits again on a change.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    /// Where the request path reports tokens whose key is not known; see [`UnknownKeys::report`].
    #[must_use]
    pub fn unknown_keys(&self) -> &UnknownKeys {
        &self.unknown_keys
    }

    /// What is known about a destination, asking the control plane on a miss and waiting at most
    /// [`RESOLVE_TIMEOUT`]. Dropping the future loses nothing: the answer is still cached when it comes.
    pub async fn resolve(&self, key: &DestinationKey) -> Resolution {
        if let Some(known) = self.load().destinations.get(key) {
            return known.into();
        }
        let mut revisions = self.revisions();
        if self.questions.try_send(key.clone()).is_err() {
            return Resolution::Unanswered;
        }
        let answered = tokio::time::timeout(RESOLVE_TIMEOUT, async {
            loop {
                if let Some(known) = self.load().destinations.get(key) {
                    return Resolution::from(known);
                }
                if revisions.changed().await.is_err() {
                    return Resolution::Unanswered;
                }
            }
        });
        answered.await.unwrap_or(Resolution::Unanswered)
    }
}

impl From<&Known> for Resolution {
    fn from(known: &Known) -> Self {
        match known {
            Known::Present(destination) => Self::Present(Arc::clone(destination)),
            Known::Absent => Self::Absent,
        }
    }
}
