//! What operators are told: the state of folders, objects and proxies, and findings over all objects.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh_api::admin::{
    CaStatus, CertificateStatus, ControlStatus, ObjectSummary, ProxyStatus, RegistryDump, SyncStatus,
    TriedChange,
};
use mesh_api::manifest::Object;
use mesh_api::model::service::Resolution;
use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, ObjectMeta, ObjectRef, PeerAuthentication,
    RequestAuthentication, Service, Trial, VirtualService, Workload,
};
use mesh_api::problem::{Problem, Severity};
use mesh_api::wire::{SELF, TypeUrl};
use mesh_identity::certificate::{self, timestamp};
use mesh_policy::analyze;

use crate::plane::Plane;
use crate::push::session::{Session, TypeState};
use crate::registry::{Entry, Registry, WorkloadKey};
use crate::snapshot::SubscriberId;
use crate::source::{InForce, Payload};

pub mod conditions;
pub mod enforcement;

/// What is known of one proxy.
#[derive(Debug, Clone)]
pub struct ProxyRecord {
    /// The stream.
    pub subscriber: SubscriberId,
    /// The workload.
    pub workload: WorkloadKey,
    /// Identity on the stream.
    pub identity: String,
    /// Version of the proxy.
    pub version: String,
    /// Whether the stream is open.
    pub is_connected: bool,
    /// Why nothing is sent, while its workload is not known.
    pub waiting: Option<String>,
    /// When the stream was opened.
    pub connected_at: SystemTime,
    /// Its clock minus ours.
    pub clock_skew_ms: Option<i64>,
    /// Address of the peer.
    pub address: SocketAddr,
    /// State of each type and when it was last acknowledged.
    pub types: BTreeMap<TypeUrl, (TypeState, Option<Instant>)>,
    /// The policies that it has taken.
    pub policies_version: Option<String>,
    /// The versions of destinations that it has taken, by name on the wire.
    pub destinations: BTreeMap<String, String>,
}

impl ProxyRecord {
    /// Takes the session's state over. `acknowledged` is the type that was acknowledged just now.
    pub fn observe(&mut self, session: &mut Session, acknowledged: Option<TypeUrl>, tick: Instant) {
        for kind in TypeUrl::ALL {
            let state = session.state(kind);
            let former = self.types.get(&kind).and_then(|(_, at)| *at);
            let at = if acknowledged == Some(kind) { Some(tick) } else { former };
            self.types.insert(kind, (state, at));
        }
        self.policies_version = session.acknowledged(TypeUrl::WorkloadPolicies, SELF).map(ToOwned::to_owned);
        self.take_destinations(session);
    }

    fn status(&self, name: &str, tick: Instant) -> ProxyStatus {
        let types = self
            .types
            .iter()
            .filter(|(_, (state, _))| state.is_subscribed)
            .map(|(kind, (state, at))| (kind.short().to_owned(), self.sync(state, *at, tick)))
            .collect();
        ProxyStatus {
            name: name.to_owned(),
            identity: self.identity.clone(),
            version: self.version.clone(),
            connected: self.is_connected,
            connected_at: timestamp(self.connected_at),
            types,
            clock_skew_ms: self.clock_skew_ms,
            address: Some(self.address),
        }
    }

    fn sync(&self, state: &TypeState, at: Option<Instant>, tick: Instant) -> SyncStatus {
        let word = match state {
            _ if self.waiting.is_some() => "NOT SENT",
            TypeState { error: Some(_), .. } => "ERROR",
            TypeState { is_unanswered: true, .. } | TypeState { is_due: true, .. } => "STALE",
            TypeState { .. } => "SYNCED",
        };
        SyncStatus {
            state: word.to_owned(),
            resources: state.resources,
            age_seconds: at.map(|at| tick.saturating_duration_since(at).as_secs()),
            error: self.waiting.clone().or_else(|| state.error.clone()),
        }
    }
}

/// `GET /status`.
#[must_use]
pub fn control_status(plane: &Plane, tick: Instant) -> ControlStatus {
    let problems = plane.problems();
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let mut objects: BTreeMap<String, usize> = BTreeMap::new();
    let configuration = plane.configuration();
    for object in configuration.objects.documents.keys() {
        *objects.entry(object.kind.as_str().to_owned()).or_default() += 1;
    }
    let sources = configuration.folders.clone();
    let trust_domain = configuration.objects.settings.trust_domain.as_str().to_owned();
    drop(configuration);
    ControlStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: plane.name.clone(),
        trust_domain,
        revision: plane.snapshot().revision(),
        sources,
        proxies: plane.proxies().iter().map(|(name, record)| record.status(name, tick)).collect(),
        key_sources: plane.keys.status(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        objects,
    }
}

/// Which objects to list; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectFilter {
    /// Kind as YAML writes it, in any case.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

impl ObjectFilter {
    /// Whether an object is to be listed.
    #[must_use]
    pub fn matches(&self, object: &ObjectRef) -> bool {
        self.kind.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(object.kind.as_str()))
            && self.namespace.as_deref().is_none_or(|wanted| wanted == object.namespace.as_str())
            && self.name.as_deref().is_none_or(|wanted| wanted == object.name.as_str())
    }
}

/// Field, what is wrong, and what to do, on one line.
#[must_use]
pub fn said(problem: &Problem) -> String {
    let mut text = match problem.field.is_empty() {
        true => problem.message.clone(),
        false => format!("{}: {}", problem.field, problem.message),
    };
    if !problem.hint.is_empty() {
        text.push_str(&format!(" ({})", problem.hint.trim_end_matches('.')));
    }
    text
}

/// `GET /objects`.
#[must_use]
pub fn objects(plane: &Plane, filter: &ObjectFilter) -> Vec<ObjectSummary> {
    let problems = plane.problems();
    let documents: Vec<_> = {
        let configuration = plane.configuration();
        let all = configuration.objects.documents.values();
        all.filter(|document| filter.matches(&document.object)).cloned().collect()
    };
    documents
        .into_iter()
        .map(|document| ObjectSummary {
            kind: document.object.kind,
            namespace: document.object.namespace.as_str().to_owned(),
            name: document.object.name.as_str().to_owned(),
            file: document.origin.file.to_string(),
            line: document.origin.line,
            yaml: text_of(&document),
            held: document.is_held,
            problems: problems
                .iter()
                .filter(|problem| problem.object.as_ref() == Some(&document.object))
                .cloned()
                .collect(),
            enforced: match &document.payload {
                Payload::Entry(entry) => enforced(plane, entry),
                Payload::Settings(_) | Payload::Noted(_) => None,
            },
            tried: match &document.payload {
                Payload::Entry(entry) => tried(entry.meta()),
                Payload::Settings(_) | Payload::Noted(_) => None,
            },
        })
        .collect()
}

/// The text of an object; of one that was read from no text (a pod), what the mesh knows of it.
fn text_of(document: &InForce) -> String {
    match &document.payload {
        Payload::Entry(Entry::Workload(workload)) if document.text.is_empty() => {
            serde_json::to_string_pretty(workload).map(|text| text + "\n").unwrap_or_default()
        }
        Payload::Entry(_) | Payload::Settings(_) | Payload::Noted(_) => document.text.to_string(),
    }
}

fn tried(meta: &ObjectMeta) -> Option<TriedChange> {
    match meta.trial() {
        Trial::None => None,
        Trial::Addition { replaces: None } => Some(TriedChange::Added),
        Trial::Addition { replaces: Some(_) } => Some(TriedChange::Edited),
        Trial::Deletion => Some(TriedChange::Deleted),
    }
}

/// Of the proxies that a policy selects, how many enforce it as it is now.
fn enforced(plane: &Plane, entry: &Entry) -> Option<(usize, usize)> {
    enforcement::is_policy(entry).then(|| {
        let spread = enforcement::spread(plane, entry);
        (spread.enforced, spread.applies)
    })
}

/// `GET /registry`.
#[must_use]
pub fn registry_dump(plane: &Plane) -> RegistryDump {
    let snapshot = plane.snapshot();
    let registry = snapshot.registry();
    RegistryDump {
        services: registry.services().map(|service| service.as_ref().clone()).collect(),
        workloads: registry.workloads().map(|workload| workload.as_ref().clone()).collect(),
    }
}

/// `GET /ca`.
#[must_use]
pub fn ca_status(plane: &Plane, now: SystemTime) -> CaStatus {
    let authority = plane.issue.authority();
    let intermediate = authority.intermediate_certificate();
    let trust_domain = authority.settings().trust_domain.as_str();
    let ders = [authority.root_certificate(), intermediate.as_slice()];
    let names = ["ROOTCA", "INTERMEDIATE"];
    let authorities = names
        .iter()
        .zip(ders)
        .enumerate()
        .filter_map(|(index, (name, der))| {
            let summary = certificate::inspect(der).ok()?;
            Some(CertificateStatus {
                resource_name: (*name).to_owned(),
                kind: "CA".to_owned(),
                chain_index: index,
                ..summary.status(der, trust_domain, now)
            })
        })
        .collect();
    let (issued, refused) = plane.issue.counts();
    let workload_ttl_seconds = authority.settings().workload_ttl.as_secs();
    CaStatus { authorities, issued, refused, workload_ttl_seconds }
}

/// Every object, for looking at all of them together without holding on to the registry.
#[derive(Debug)]
pub struct Collected {
    settings: Arc<MeshSettings>,
    services: Vec<Arc<Service>>,
    workloads: Vec<Arc<Workload>>,
    authorization: Vec<Arc<AuthorizationPolicy>>,
    peer: Vec<Arc<PeerAuthentication>>,
    request: Vec<Arc<RequestAuthentication>>,
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: Vec<Arc<DestinationRule>>,
    contested: Vec<Problem>,
}

impl Collected {
    /// Takes hold of every object.
    #[must_use]
    pub fn of(registry: &Registry) -> Self {
        Self {
            settings: Arc::clone(registry.settings()),
            services: registry.services().cloned().collect(),
            workloads: registry.workloads().cloned().collect(),
            authorization: registry.authorization_policies().cloned().collect(),
            peer: registry.peer_authentications().cloned().collect(),
            request: registry.request_authentications().cloned().collect(),
            virtual_services: registry.virtual_services().cloned().collect(),
            destination_rules: registry.destination_rules().cloned().collect(),
            contested: contested(registry),
        }
    }

    /// The same with `object` as it would be, in the place of the one of its name.
    #[must_use]
    pub fn with(mut self, object: Object) -> Self {
        match object {
            Object::AuthorizationPolicy(object) => put(&mut self.authorization, object, |it| &it.meta),
            Object::PeerAuthentication(object) => put(&mut self.peer, object, |it| &it.meta),
            Object::RequestAuthentication(object) => put(&mut self.request, object, |it| &it.meta),
            Object::DestinationRule(object) => put(&mut self.destination_rules, object, |it| &it.meta),
            Object::VirtualService(object) => put(&mut self.virtual_services, object, |it| &it.meta),
            Object::Service(object) => put(&mut self.services, object, |it| &it.meta),
            Object::Workload(object) => put(&mut self.workloads, object, |it| &it.meta),
            // Nothing is found by looking at these beside others.
            Object::MeshConfig(_)
            | Object::Telemetry(_)
            | Object::ServiceAccount(_)
            | Object::Namespace(_) => {}
        }
        self
    }

    /// Findings over all objects together.
    #[must_use]
    pub fn analyze(self) -> Vec<Problem> {
        let mut problems = analyze::analyze(&analyze::Model {
            mesh: &self.settings,
            services: &self.services,
            workloads: &self.workloads,
            authorization: &self.authorization,
            peer: &self.peer,
            request: &self.request,
            virtual_services: &self.virtual_services,
            destination_rules: &self.destination_rules,
            documents: &[],
        });
        problems.extend(self.contested);
        problems
    }
}

fn put<T>(all: &mut Vec<Arc<T>>, object: T, meta: impl Fn(&T) -> &ObjectMeta) {
    all.retain(|other| meta(other).object != meta(&object).object);
    all.push(Arc::new(object));
}

/// Names and addresses with more than one claimant, and services that got no address.
fn contested(registry: &Registry) -> Vec<Problem> {
    let warning = |service: &Service, code: &str, message: String, hint: &str| Problem {
        code: code.to_owned(),
        severity: Severity::Warning,
        object: Some(service.meta.object.clone()),
        origin: service.meta.origin.clone(),
        field: String::new(),
        message,
        hint: hint.to_owned(),
    };
    let hosts = registry.contested_hosts().map(|(host, owner, other)| {
        let message = format!("host {host} belongs to {}", owner.meta.object);
        warning(other, "MM0108", message, "A core Service goes first, then the oldest.")
    });
    let addresses = registry.contested_addresses().map(|(address, owner, other)| {
        let message = format!("address {address} belongs to {}", owner.meta.object);
        warning(other, "MM0109", message, "Give each service an address of its own.")
    });
    let (taken, places) = registry.virtual_addresses().usage();
    let is_without = |service: &&Arc<Service>| {
        service.addresses.is_empty()
            && !service.headless
            && service.resolution != Resolution::None
            && service.hosts.iter().any(|host| !host.is_wildcard())
    };
    let without = registry.services().filter(is_without).map(|service| {
        let message = format!("has no virtual address: {taken} of {places} are taken");
        warning(service, "MM0110", message, "Start the control plane with a larger --vip-cidr.")
    });
    hosts.chain(addresses).chain(without).collect()
}
