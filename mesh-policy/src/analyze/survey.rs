//! A model with what the checks look up, computed once.
//!
//! A mesh has thousands of policies and of workloads, and checks that walk all of the one for each of the
//! other would take minutes. Policies with the same namespace and selector share one [`Scope`]; workloads are
//! found by their labels.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use mesh_api::model::{
    Kind, MtlsMode, ObjectMeta, PeerAuthentication, Protocol, Selector, Service, ServicePort, TargetRef,
    Workload,
};
use mesh_api::name::{Host, Labels, Namespace, ServiceAccount};

use super::Model;
use super::authorization::{Flags, workload_flags};
use super::document::Document;
use super::finding::Named;
use crate::peer_authentication::{self, MtlsResolution};
use crate::select::{self, Subject};

/// A model and its indexes.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    pub(super) model: Model<'a>,
    pub(super) workloads: Vec<Surveyed<'a>>,
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    by_label: BTreeMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    services: BTreeMap<&'a str, &'a Service>,
    wildcard_services: Vec<&'a Service>,
    services_of: BTreeMap<&'a str, Vec<&'a Service>>,
    scopes: RefCell<BTreeMap<(Namespace, Labels), Rc<Scope>>>,
    peers: RefCell<BTreeMap<Namespace, Rc<Vec<Arc<PeerAuthentication>>>>>,
    namespaces: Namespaces<'a>,
    accounts: BTreeMap<&'a str, BTreeSet<&'a str>>,
    default_account: ServiceAccount,
    by_kind: BTreeMap<&'a str, Vec<&'a Document>>,
    /// Namespaces of which workloads were given.
    given: BTreeSet<&'a str>,
    service_documents: BTreeMap<&'a str, Vec<&'a Document>>,
    gateways: BTreeMap<(&'a str, &'a str), &'a Document>,
    rules: Rules<'a>,
    routes: BTreeMap<String, Vec<&'a Document>>,
    verified: OnceCell<Vec<bool>>,
    flags: OnceCell<Vec<Flags>>,
}

/// DestinationRules by their host in full.
#[derive(Debug, Default)]
struct Rules<'a> {
    exact: BTreeMap<String, Vec<&'a Document>>,
    wildcard: Vec<(Host, &'a Document)>,
}

/// Namespaces that are known.
#[derive(Debug, Default)]
struct Namespaces<'a> {
    /// Those of Namespace documents.
    declared: BTreeSet<&'a str>,
    /// Those in which something stands.
    used: BTreeSet<&'a str>,
}

/// A workload and the ports that services declare for it.
#[derive(Debug)]
pub(super) struct Surveyed<'a> {
    pub(super) workload: &'a Workload,
    pub(super) named: Named,
    /// The document that it was made of, when it is a pod or makes pods.
    pub(super) document: Option<&'a Document>,
    pub(super) evidence: Evidence,
    pub(super) ports: Vec<DeclaredPort>,
    modes: OnceCell<MtlsResolution>,
}

/// How a workload is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It was given.
    Given,
    /// A Service or Gateway selects it, and it was not given: it has these labels at least.
    Presumed,
}

/// A workload that was made of something else than a WorkloadEntry.
#[derive(Debug)]
pub(super) struct Made<'a> {
    pub(super) workload: Workload,
    pub(super) named: Named,
    pub(super) document: Option<&'a Document>,
    pub(super) evidence: Evidence,
}

/// A port of a workload, as a service declares it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeclaredPort {
    pub(super) service_port: u16,
    pub(super) target_port: u16,
    pub(super) protocol: Protocol,
}

/// The workloads of one namespace and selector, and their ports.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Positions in [`Survey::workloads`].
    pub(super) members: Vec<usize>,
    /// Target ports that services declare.
    pub(super) targets: BTreeSet<u16>,
    /// Target port by service port.
    pub(super) by_service_port: BTreeMap<u16, u16>,
    /// Target ports that are declared as something else than HTTP.
    pub(super) streams: BTreeSet<u16>,
}

/// What a policy's workloads accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acceptance {
    /// Some workload accepts plaintext on some port.
    pub(super) plaintext: bool,
    /// No workload accepts mutual TLS on any port.
    pub(super) no_mutual_tls: bool,
    /// Some PeerAuthentication says so.
    pub(super) is_stated: bool,
}

impl<'a> Survey<'a> {
    pub(super) fn of(model: Model<'a>, made: &'a [Made<'a>]) -> Self {
        let mut services_of: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
        let mut services = BTreeMap::new();
        let mut wildcard_services = Vec::new();
        for service in model.services {
            services_of.entry(service.meta.object.namespace.as_str()).or_default().push(service);
            for host in &service.hosts {
                if host.is_wildcard() {
                    wildcard_services.push(&**service);
                } else {
                    services.entry(host.as_str()).or_insert(&**service);
                }
            }
        }
        let selectors: BTreeMap<&str, ServiceIndex<'_>> = services_of
            .iter()
            .map(|(namespace, services)| (*namespace, ServiceIndex::of(services)))
            .collect();
        let ports = |workload: &Workload| {
            let index = selectors.get(workload.meta.object.namespace.as_str());
            index.map(|index| index.ports(workload)).unwrap_or_default()
        };
        let stated = model.workloads.iter().map(|workload| Surveyed {
            workload,
            named: Named::from(&workload.meta.object),
            document: None,
            evidence: Evidence::Given,
            ports: ports(workload),
            modes: OnceCell::new(),
        });
        let made = made.iter().map(|made| Surveyed {
            workload: &made.workload,
            named: made.named.clone(),
            document: made.document,
            evidence: made.evidence,
            ports: ports(&made.workload),
            modes: OnceCell::new(),
        });
        let workloads: Vec<Surveyed<'_>> = stated.chain(made).collect();
        let mut survey = Self {
            model,
            workloads,
            by_namespace: BTreeMap::new(),
            by_label: BTreeMap::new(),
            services,
            wildcard_services,
            services_of,
            scopes: RefCell::default(),
            peers: RefCell::default(),
            namespaces: Namespaces::default(),
            accounts: BTreeMap::new(),
            default_account: ServiceAccount::parse("default").expect("a valid constant"),
            by_kind: BTreeMap::new(),
            given: BTreeSet::new(),
            service_documents: BTreeMap::new(),
            gateways: BTreeMap::new(),
            rules: Rules::default(),
            routes: BTreeMap::new(),
            verified: OnceCell::new(),
            flags: OnceCell::new(),
        };
        survey.index();
        survey
    }

    fn index(&mut self) {
        for (position, surveyed) in self.workloads.iter().enumerate() {
            let workload = surveyed.workload;
            let namespace = workload.meta.object.namespace.as_str();
            self.by_namespace.entry(namespace).or_default().push(position);
            for (key, value) in &workload.labels {
                self.by_label.entry((namespace, key, value)).or_default().push(position);
            }
            if surveyed.evidence == Evidence::Given {
                self.accounts.entry(namespace).or_default().insert(workload.service_account.as_str());
                self.given.insert(namespace);
                self.namespaces.used.insert(namespace);
            }
        }
        for document in self.model.documents {
            let namespace = document.subject.namespace.as_str();
            self.by_kind.entry(&document.subject.kind).or_default().push(document);
            if document.is("", "Service") {
                self.service_documents.entry(namespace).or_default().push(document);
            } else if document.is("networking.istio.io", "Gateway") {
                self.gateways.insert((namespace, &document.subject.name), document);
            } else if document.is("networking.istio.io", "DestinationRule") {
                self.index_rule(document);
            } else if document.is("networking.istio.io", "VirtualService") {
                for host in super::document::texts(document.spec("/hosts")) {
                    let full = super::routes::full_host(self, namespace, host);
                    self.routes.entry(full).or_default().push(document);
                }
            }
            if document.is("", "Namespace") {
                self.namespaces.declared.insert(&document.subject.name);
            } else if document.is("", "ServiceAccount") {
                self.accounts.entry(namespace).or_default().insert(&document.subject.name);
                self.namespaces.used.insert(namespace);
            } else if document.pod().is_some() {
                self.namespaces.used.insert(namespace);
            }
        }
        for namespace in self.services_of.keys() {
            self.namespaces.used.insert(namespace);
        }
    }

    fn index_rule(&mut self, document: &'a Document) {
        let Some(written) = document.spec("/host").and_then(serde_json::Value::as_str) else { return };
        let full = super::routes::full_host(self, &document.subject.namespace, written);
        match Host::parse(&full) {
            Ok(host) if host.is_wildcard() => self.rules.wildcard.push((host, document)),
            Ok(_) => self.rules.exact.entry(full).or_default().push(document),
            // It is refused, with its own message.
            Err(_) => {}
        }
    }

    /// The DestinationRules for a host.
    pub(super) fn rules_for(&self, host: &str) -> impl Iterator<Item = &'a Document> {
        let wildcard =
            self.rules.wildcard.iter().filter(|(of, _)| of.covers(host)).map(|(_, document)| *document);
        self.rules
            .exact
            .get(host)
            .into_iter()
            .flatten()
            .copied()
            .chain(wildcard)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// The VirtualServices of a host.
    pub(super) fn routes_for(&self, host: &str) -> impl Iterator<Item = &'a Document> {
        self.routes.get(host).into_iter().flatten().copied()
    }

    /// A Gateway by namespace and name.
    pub(super) fn gateway(&self, namespace: &str, name: &str) -> Option<&'a Document> {
        self.gateways.get(&(namespace, name)).copied()
    }

    /// Services of a namespace as they are written.
    pub(super) fn services_documents(&self, namespace: &str) -> &[&'a Document] {
        self.service_documents.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// For each workload, whether some RequestAuthentication verifies tokens there.
    pub(super) fn verified(&self) -> &[bool] {
        self.verified.get_or_init(|| {
            let mut verified = vec![false; self.workloads.len()];
            for policy in self
                .model
                .request
                .iter()
                .filter(|policy| policy.meta.is_in_force() && !policy.jwt_rules.is_empty())
            {
                let scope = self.concerned(&policy.meta, &policy.selector, &policy.targets);
                scope.members.iter().for_each(|member| verified[*member] = true);
            }
            verified
        })
    }

    /// For each workload, what its AuthorizationPolicies amount to.
    pub(super) fn flags(&self) -> &[Flags] {
        self.flags.get_or_init(|| workload_flags(self))
    }

    /// Workloads in a policy's reach, by namespace and selector.
    pub(super) fn scope(&self, namespace: &Namespace, selector: &Selector) -> Rc<Scope> {
        let key = (namespace.clone(), selector.match_labels.clone());
        if let Some(known) = self.scopes.borrow().get(&key) {
            return Rc::clone(known);
        }
        let members = if *namespace == self.model.mesh.root_namespace {
            let all = self.by_namespace.keys().flat_map(|namespace| self.selected(namespace, selector));
            all.collect()
        } else {
            self.selected(namespace.as_str(), selector)
        };
        let scope = Rc::new(self.scope_of(members));
        self.scopes.borrow_mut().insert(key, Rc::clone(&scope));
        scope
    }

    /// Workloads that a policy concerns.
    pub(super) fn concerned(
        &self,
        meta: &ObjectMeta,
        selector: &Selector,
        targets: &[TargetRef],
    ) -> Rc<Scope> {
        if targets.is_empty() {
            return self.scope(&meta.object.namespace, selector);
        }
        let members = self.by_label_key(meta.object.namespace.as_str(), select::GATEWAY_NAME_LABEL);
        let applies = |position: &usize| {
            let subject = subject(self.workloads[*position].workload);
            select::applies(self.model.mesh, &subject, meta, selector, targets)
        };
        Rc::new(self.scope_of(members.into_iter().filter(applies).collect()))
    }

    fn by_label_key(&self, namespace: &str, key: &str) -> Vec<usize> {
        let all = self.by_namespace.get(namespace).into_iter().flatten().copied();
        all.filter(|position| self.workloads[*position].workload.labels.contains_key(key)).collect()
    }

    fn selected(&self, namespace: &str, selector: &Selector) -> Vec<usize> {
        let pairs = selector.match_labels.iter();
        let candidates =
            pairs.map(|(key, value)| self.by_label.get(&(namespace, key.as_str(), value.as_str())));
        let rarest = candidates.min_by_key(|found| found.map_or(0, Vec::len));
        let candidates = match rarest {
            Some(found) => found,
            None => self.by_namespace.get(namespace),
        };
        let is_selected = |position: &usize| selector.selects(&self.workloads[*position].workload.labels);
        candidates.into_iter().flatten().copied().filter(is_selected).collect()
    }

    fn scope_of(&self, members: Vec<usize>) -> Scope {
        let mut scope = Scope::default();
        for port in members.iter().flat_map(|position| &self.workloads[*position].ports) {
            scope.targets.insert(port.target_port);
            scope.by_service_port.entry(port.service_port).or_insert(port.target_port);
            if matches!(port.protocol, Protocol::Tcp | Protocol::Tls) {
                scope.streams.insert(port.target_port);
            }
        }
        scope.members = members;
        scope
    }

    /// Whether workloads are known at all, so that "none" is an answer.
    pub(super) fn knows_workloads(&self) -> bool {
        !self.given.is_empty()
    }

    /// Whether workloads of a namespace are known.
    pub(super) fn knows_workloads_of(&self, namespace: &str) -> bool {
        self.given.contains(namespace)
    }

    /// Whether services are known at all.
    pub(super) fn knows_services(&self) -> bool {
        !self.model.services.is_empty()
    }

    /// Services of a namespace.
    pub(super) fn services_of(&self, namespace: &str) -> &[&'a Service] {
        self.services_of.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The service that `host` names.
    pub(super) fn service(&self, host: &str) -> Option<&'a Service> {
        self.services.get(host).copied().or_else(|| {
            let covers = |service: &&&Service| service.hosts.iter().any(|known| known.covers(host));
            self.wildcard_services.iter().find(covers).copied()
        })
    }

    /// Services with a host that `pattern`, possibly a wildcard, covers or is covered by.
    pub(super) fn services_like(&self, pattern: &Host) -> Vec<&'a Service> {
        if !pattern.is_wildcard() {
            return self.service(pattern.as_str()).into_iter().collect();
        }
        let is_like = |service: &&Arc<Service>| {
            let mut hosts = service.hosts.iter();
            hosts.any(|host| pattern.covers(host.as_str()) || host.covers(pattern.as_str()))
        };
        self.model.services.iter().filter(is_like).map(|service| &**service).collect()
    }

    /// Labels of the endpoints of a service.
    pub(super) fn endpoints(&self, service: &'a Service) -> Vec<&'a Workload> {
        let selected = service.selector.as_ref().filter(|selector| !selector.is_empty());
        let namespace = service.meta.object.namespace.as_str();
        let selected = selected.map(|selector| self.selected(namespace, selector)).unwrap_or_default();
        let selected = selected.into_iter().map(|position| self.workloads[position].workload);
        service.endpoints.iter().chain(selected).collect()
    }

    /// The modes of a workload.
    pub(super) fn modes(&self, position: usize) -> &MtlsResolution {
        let surveyed = &self.workloads[position];
        surveyed.modes.get_or_init(|| self.resolve(&subject(surveyed.workload)))
    }

    pub(super) fn resolve(&self, subject: &Subject<'_>) -> MtlsResolution {
        let peers = self.peers_of(subject.namespace);
        peer_authentication::resolve(self.model.mesh, subject, &peers)
    }

    /// The modes of a workload of `namespace` with just these labels, whether there is one or not.
    pub(super) fn modes_of_labels(&self, namespace: &Namespace, labels: &Labels) -> MtlsResolution {
        self.resolve(&Subject { namespace, labels, service_account: &self.default_account })
    }

    fn peers_of(&self, namespace: &Namespace) -> Rc<Vec<Arc<PeerAuthentication>>> {
        if let Some(known) = self.peers.borrow().get(namespace) {
            return Rc::clone(known);
        }
        let root = &self.model.mesh.root_namespace;
        let concerns = |policy: &&Arc<PeerAuthentication>| {
            let of = &policy.meta.object.namespace;
            of == namespace || of == root
        };
        let peers = Rc::new(self.model.peer.iter().filter(concerns).cloned().collect::<Vec<_>>());
        self.peers.borrow_mut().insert(namespace.clone(), Rc::clone(&peers));
        peers
    }

    /// What the workloads of a policy accept; when none is known, what one with its labels would.
    pub(super) fn acceptance(&self, scope: &Scope, namespace: &Namespace, selector: &Selector) -> Acceptance {
        let assumed;
        let resolutions: Vec<&MtlsResolution> = if scope.members.is_empty() {
            assumed = self.modes_of_labels(namespace, &selector.match_labels);
            vec![&assumed]
        } else {
            scope.members.iter().map(|position| self.modes(*position)).collect()
        };
        let every = |test: fn(MtlsMode) -> bool| {
            resolutions.iter().all(|it| test(it.mode) && it.ports.values().all(|mode| test(*mode)))
        };
        Acceptance {
            plaintext: !every(|mode| mode == MtlsMode::Strict),
            no_mutual_tls: every(|mode| mode == MtlsMode::Disable),
            is_stated: resolutions.iter().any(|it| !it.used.is_empty()),
        }
    }

    /// Whether a namespace is known not to exist: Namespaces are listed, and this is none of them.
    pub(super) fn lacks_namespace(&self, pattern: &str) -> bool {
        let built_in = ["default", "kube-system", "kube-public", self.model.mesh.root_namespace.as_str()];
        let known = self.namespaces.declared.iter().chain(&self.namespaces.used).copied();
        !self.namespaces.declared.is_empty()
            && !known.chain(built_in).any(|name| super::cover::glob(pattern, name))
    }

    /// Known service accounts of a namespace, if any are.
    pub(super) fn accounts_of(&self, namespace: &str) -> Option<&BTreeSet<&'a str>> {
        self.accounts.get(namespace)
    }

    /// The documents of a kind.
    pub(super) fn documents(
        &self,
        group: &'static str,
        kind: &'static str,
    ) -> impl Iterator<Item = &'a Document> {
        let of = self.by_kind.get(kind).cloned().unwrap_or_default();
        of.into_iter().filter(move |document| document.is(group, kind))
    }

    /// Whether a MeshConfig is among the objects.
    pub(super) fn knows_mesh_config(&self) -> bool {
        self.by_kind.contains_key(Kind::MeshConfig.as_str())
    }
}

/// Services of one namespace, by one pair of their selector.
#[derive(Debug, Default)]
struct ServiceIndex<'a> {
    by_pair: BTreeMap<(&'a str, &'a str), Vec<&'a Service>>,
}

impl<'a> ServiceIndex<'a> {
    fn of(services: &[&'a Service]) -> Self {
        let mut index = Self::default();
        for service in services {
            let first = service.selector.iter().flat_map(|selector| &selector.match_labels).next();
            if let Some((key, value)) = first {
                index.by_pair.entry((key, value)).or_default().push(service);
            }
        }
        index
    }

    fn ports(&self, workload: &Workload) -> Vec<DeclaredPort> {
        let pairs = workload.labels.iter();
        let candidates = pairs.filter_map(|(key, value)| self.by_pair.get(&(key.as_str(), value.as_str())));
        let serving = candidates.flatten().filter(|service| {
            service.selector.as_ref().is_some_and(|selector| selector.selects(&workload.labels))
        });
        serving.flat_map(|service| &service.ports).map(|port| DeclaredPort::of(port, workload)).collect()
    }
}

impl DeclaredPort {
    fn of(port: &ServicePort, workload: &Workload) -> Self {
        let named = port.target_port_name.as_ref().and_then(|name| workload.ports.get(name));
        Self {
            service_port: port.port,
            target_port: named.copied().unwrap_or(port.target_port),
            protocol: port.protocol,
        }
    }
}

/// The workload as policies select it.
pub(super) fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.meta.object.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

/// Whether every pair of `wide` is one of `narrow`: it selects at least what `narrow` does.
pub(super) fn selects_all_of(wide: &Labels, narrow: &Labels) -> bool {
    wide.iter().all(|(key, value)| narrow.get(key) == Some(value))
}

/// Labels as `key=value,…`.
pub(super) fn written(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
