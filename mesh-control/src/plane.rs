//! The state that the servers and tasks of one control plane share.
//!
//! Locks are held for computation only, never over a wait or a file, and are taken in the order of the
//! fields.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_api::admin::{SourceStatus, UnmeshedPod};
use mesh_api::model::{KeySet, Kind, MeshSettings, ObjectMeta, ObjectRef};
use mesh_api::name::{Namespace, ObjectName};
use mesh_api::problem::{Problem, Severity};
use mesh_identity::tls::IdentitySource;
use tokio::sync::{Notify, mpsc};

use crate::address_store::AddressStore;
use crate::ingest::{self, Objects};
use crate::issue::IssueService;
use crate::jwks::Keys;
use crate::push::fanout::{Fanout, Mailbox};
use crate::registry::{Change, VirtualAddressState};
use crate::snapshot::{Snapshot, SubscriberId};
use crate::source::{Events, InForce, Payload, View};
use crate::status::{Collected, ProxyRecord};
use crate::telemetry::metrics;

/// What the source holds and what became of it.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Objects in force.
    pub objects: Objects,
    /// Problems of files and documents.
    pub read_problems: Vec<Problem>,
    /// Folders, or watches of a cluster.
    pub folders: Vec<SourceStatus>,
    /// Findings over all objects together, by the revision that they are of.
    analysis: Option<(u64, Arc<Vec<Problem>>)>,
    /// Grows whenever folders or objects change.
    generation: u64,
}

/// Confirmations that operators send to the source.
pub type Confirmations = mpsc::Sender<PathBuf>;

/// The shared state.
#[derive(Debug)]
pub struct Plane {
    /// Name of the mesh.
    pub name: String,
    /// The authority.
    pub issue: Arc<IssueService>,
    /// The own certificate.
    pub identity: Arc<IdentitySource>,
    /// Keys of token issuers.
    pub keys: Keys,
    /// Where confirmations go.
    pub confirmations: Confirmations,
    /// Rung when the source is to look at once.
    pub look_now: Arc<Notify>,
    addresses: AddressStore,
    configuration: Mutex<Configuration>,
    snapshot: Mutex<Snapshot>,
    fanout: Fanout,
    proxies: Mutex<BTreeMap<String, ProxyRecord>>,
    /// Problems of other than objects, by code.
    notices: Mutex<BTreeMap<&'static str, Problem>>,
    unmeshed: Mutex<Vec<UnmeshedPod>>,
    subscribers: AtomicU64,
    /// Acknowledgements, arrivals and departures of proxies.
    stirs: AtomicU64,
}

/// What a plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// Name of the mesh.
    pub name: String,
    /// The authority.
    pub issue: Arc<IssueService>,
    /// The own certificate.
    pub identity: Arc<IdentitySource>,
    /// Keys of token issuers.
    pub keys: Keys,
    /// Registry and resources.
    pub snapshot: Snapshot,
    /// Where given addresses are kept.
    pub addresses: AddressStore,
    /// Where confirmations go.
    pub confirmations: Confirmations,
    /// Rung when the source is to look at once.
    pub look_now: Arc<Notify>,
}

impl Plane {
    /// A plane that knows of nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            name: parts.name,
            issue: parts.issue,
            identity: parts.identity,
            keys: parts.keys,
            confirmations: parts.confirmations,
            look_now: parts.look_now,
            addresses: parts.addresses,
            configuration: Mutex::new(Configuration::default()),
            snapshot: Mutex::new(parts.snapshot),
            fanout: Fanout::default(),
            proxies: Mutex::new(BTreeMap::new()),
            notices: Mutex::new(BTreeMap::new()),
            unmeshed: Mutex::new(Vec::new()),
            subscribers: AtomicU64::new(0),
            stirs: AtomicU64::new(0),
        }
    }

    /// The configuration, locked.
    pub fn configuration(&self) -> MutexGuard<'_, Configuration> {
        self.configuration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot, locked.
    pub fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of proxies by node id, locked.
    pub fn proxies(&self) -> MutexGuard<'_, BTreeMap<String, ProxyRecord>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what stands in the folders, and tells the proxies that it concerns. Blocks on the disk when
    /// addresses were given.
    pub fn take(&self, view: View) {
        let trust_domain = self.issue.authority().settings().trust_domain.clone();
        let objects = ingest::ingest(&view.documents, Some(&trust_domain));
        let mut configuration = self.configuration();
        let changes = ingest::changes(&configuration.objects, &objects);
        let settings = objects.settings.as_ref().clone();
        report(&configuration, &view.problems, &objects.problems);
        report_folders(&configuration, &view.folders);
        configuration.objects = objects;
        configuration.read_problems = view.problems;
        configuration.folders = view.folders;
        self.commit(configuration, Some(settings), changes);
    }

    /// Takes in what happened in a cluster, and tells the proxies that it concerns. Costs what happened. Blocks on
    /// the disk when addresses were given.
    pub fn take_events(&self, events: Events) {
        let trust_domain = self.issue.authority().settings().trust_domain.clone();
        let mut configuration = self.configuration();
        let former = configuration.objects.problems.clone();
        let taken =
            ingest::advance(&mut configuration.objects, events.set, events.removed, Some(&trust_domain));
        let found = std::mem::replace(&mut configuration.objects.problems, former);
        match events.problems {
            Some(problems) => {
                report(&configuration, &problems, &found);
                configuration.read_problems = problems;
            }
            None => report(&configuration, &[], &found),
        }
        configuration.objects.problems = found;
        configuration.folders = events.sources;
        let settings = taken.settings.map(|settings| settings.as_ref().clone());
        self.commit(configuration, settings, taken.changes);
    }

    fn commit(
        &self,
        mut configuration: MutexGuard<'_, Configuration>,
        settings: Option<MeshSettings>,
        changes: Vec<Change>,
    ) {
        configuration.generation += 1;
        measure(&configuration);
        let mut snapshot = self.snapshot();
        let number = changes.len();
        // Settings may say which namespace is the root, and a first look finds whatever there is.
        let concerns_keys = settings.is_some() || changes.iter().any(Change::is_of_keys);
        let updates = snapshot.apply(settings, changes);
        metrics::revision(snapshot.revision());
        let addresses = snapshot.registry_mut().take_changed_addresses();
        if concerns_keys {
            self.keys.follow(snapshot.registry().request_authentications());
        }
        if number > 0 {
            tracing::info!(
                changes = number,
                revision = snapshot.revision(),
                proxies = updates.len(),
                "configuration changed"
            );
        }
        drop(snapshot);
        drop(configuration);
        if let Some(state) = addresses {
            self.addresses.keep(&state);
        }
        self.fanout.deliver(updates);
    }

    /// Labels and annotations of a namespace, if it is known.
    #[must_use]
    pub fn namespace(&self, name: &Namespace) -> Option<Arc<ObjectMeta>> {
        let object = ObjectRef {
            kind: Kind::Namespace,
            namespace: name.clone(),
            name: ObjectName::parse(name.as_str()).ok()?,
        };
        match &self.configuration().objects.documents.get(&object)?.payload {
            Payload::Noted(meta) => Some(Arc::clone(meta)),
            Payload::Entry(_) | Payload::Settings(_) => None,
        }
    }

    /// Every namespace that is known.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<ObjectMeta>> {
        let configuration = self.configuration();
        let noted = |document: &InForce| match &document.payload {
            Payload::Noted(meta) if meta.object.kind == Kind::Namespace => Some(Arc::clone(meta)),
            Payload::Noted(_) | Payload::Entry(_) | Payload::Settings(_) => None,
        };
        configuration.objects.documents.values().filter_map(noted).collect()
    }

    /// Gives addresses as the replicas have agreed, and tells the proxies that it concerns.
    pub fn adopt_addresses(&self, shared: &VirtualAddressState) {
        let mut snapshot = self.snapshot();
        let changes = snapshot.registry_mut().adopt_addresses(shared);
        if changes.is_empty() {
            return;
        }
        tracing::info!(services = changes.len(), "given addresses are those of the other replicas now");
        let updates = snapshot.apply(None, changes);
        drop(snapshot);
        self.fanout.deliver(updates);
    }

    /// Tells proxies that the trust bundle is another.
    pub fn take_bundle(&self) {
        let updates = self.snapshot().set_bundle(self.issue.trust_bundle());
        self.fanout.deliver(updates);
    }

    /// Tells proxies what is known of the sources of keys that their policies use.
    pub fn take_keys(&self, keys: BTreeMap<String, Option<KeySet>>) {
        let updates = self.snapshot().set_keys(keys);
        self.fanout.deliver(updates);
    }

    /// Every problem: of files, of documents, and of objects taken together.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let (mut problems, generation, known) = {
            let configuration = self.configuration();
            let mut problems = configuration.read_problems.clone();
            problems.extend(configuration.objects.problems.iter().cloned());
            let generation = configuration.generation;
            let known = configuration.analysis.as_ref().filter(|(of, _)| *of == generation);
            (problems, generation, known.map(|(_, analysis)| Arc::clone(analysis)))
        };
        let analysis = known.unwrap_or_else(|| {
            // Looking at all objects together takes a while in a large mesh; nobody waits for it.
            let collected = Collected::of(self.snapshot().registry());
            let analysis = Arc::new(collected.analyze());
            let mut configuration = self.configuration();
            if configuration.generation == generation {
                configuration.analysis = Some((generation, Arc::clone(&analysis)));
            }
            analysis
        });
        problems.extend(analysis.iter().cloned());
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        problems.extend(notices.values().cloned());
        problems
    }

    /// Lists a problem of something that is no object, until it is taken back.
    pub fn set_notice(&self, code: &'static str, problem: Option<Problem>) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(notices.insert(code, problem)),
            None => drop(notices.remove(code)),
        }
    }

    /// Lists pods that ask for a proxy and have none; whoever leads finds them.
    pub fn set_unmeshed(&self, pods: Vec<UnmeshedPod>) {
        *self.unmeshed.lock().unwrap_or_else(PoisonError::into_inner) = pods;
    }

    /// Pods that ask for a proxy and have none; empty at replicas that do not lead.
    #[must_use]
    pub fn unmeshed(&self) -> Vec<UnmeshedPod> {
        self.unmeshed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new subscriber with its mailbox.
    pub fn join(&self) -> (SubscriberId, Arc<Mailbox>) {
        let subscriber = SubscriberId(self.subscribers.fetch_add(1, Ordering::Relaxed));
        (subscriber, self.fanout.open(subscriber))
    }

    /// Ends a subscriber.
    pub fn leave(&self, subscriber: SubscriberId) {
        self.fanout.close(subscriber);
        self.snapshot().leave(subscriber);
    }

    /// Something about what proxies have is different.
    pub fn stir(&self) {
        self.stirs.fetch_add(1, Ordering::Relaxed);
    }

    /// Grows whenever objects may be in force elsewhere than before: with each change that is taken in, and each
    /// proxy that acknowledges, comes or goes.
    #[must_use]
    pub fn activity(&self) -> u64 {
        let generation = self.configuration().generation;
        generation.wrapping_add(self.stirs.load(Ordering::Relaxed))
    }

    /// Brings the gauges of streams and subscriptions up to date.
    pub fn measure_connections(&self) {
        self.stir();
        let (_, subscriptions) = self.snapshot().sizes();
        let connected = self.proxies().values().filter(|record| record.is_connected).count();
        metrics::connected(connected, subscriptions);
    }
}

/// Writes what is newly wrong to the log.
fn report(former: &Configuration, read: &[Problem], found: &[Problem]) {
    if read.is_empty() && found.is_empty() {
        return;
    }
    // Keyed, because thousands of documents may each have a problem.
    let key = |problem: &Problem| {
        (
            problem.object.clone(),
            problem.origin.clone(),
            problem.field.clone(),
            problem.code.clone(),
            problem.message.clone(),
        )
    };
    let known: HashSet<_> = former.read_problems.iter().chain(&former.objects.problems).map(key).collect();
    for problem in read.iter().chain(found).filter(|problem| !known.contains(&key(problem))) {
        let object = problem.object.as_ref().map(ToString::to_string).unwrap_or_default();
        let (file, line, field) = (&*problem.origin.file, problem.origin.line, problem.field.as_str());
        let (code, hint) = (problem.code.as_str(), problem.hint.as_str());
        match problem.severity {
            Severity::Error => {
                tracing::error!(file, line, field, object, code, hint, "{}", problem.message);
            }
            Severity::Warning => {
                tracing::warn!(file, line, field, object, code, hint, "{}", problem.message);
            }
            Severity::Info => tracing::info!(file, line, field, object, code, "{}", problem.message),
        }
    }
}

fn report_folders(former: &Configuration, folders: &[SourceStatus]) {
    for folder in folders {
        let before = former.folders.iter().find(|before| before.path == folder.path);
        let held_before: &[ObjectRef] = before.map(|before| before.held.as_slice()).unwrap_or_default();
        for object in folder.held.iter().filter(|object| !held_before.contains(object)) {
            tracing::warn!(path = folder.path, %object, "the last good version stays in force");
        }
        match (before.and_then(|before| before.suspended.as_ref()), &folder.suspended) {
            (former, Some(reason)) if former != Some(reason) => tracing::error!(
                path = folder.path,
                reason,
                "the folder's state is taken for an accident and not obeyed until it is confirmed"
            ),
            (Some(_), None) => tracing::info!(path = folder.path, "the folder is obeyed again"),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
    }
}

fn measure(configuration: &Configuration) {
    let mut counts: BTreeMap<&'static str, usize> = Kind::ALL.iter().map(|kind| (kind.as_str(), 0)).collect();
    for object in configuration.objects.documents.keys() {
        *counts.entry(object.kind.as_str()).or_default() += 1;
    }
    for (kind, count) in counts {
        metrics::objects(kind, count);
    }
    let problems = || configuration.read_problems.iter().chain(&configuration.objects.problems);
    for (severity, name) in
        [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "info")]
    {
        metrics::problems(name, problems().filter(|problem| problem.severity == severity).count());
    }
    for folder in &configuration.folders {
        metrics::folder(&folder.path, folder.held.len(), folder.suspended.is_some());
    }
}
