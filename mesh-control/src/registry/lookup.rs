//! The questions that translation asks of the registry.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, CandidatePolicies, DestinationRule, ObjectRef, PeerAuthentication,
    RequestAuthentication, Service, VirtualService, Workload, WorkloadTelemetry,
};
use mesh_api::name::{Host, Namespace};
use mesh_policy::peer_authentication;
use mesh_policy::trial::{self, Triable};

use super::members::is_behind;
use super::{Modes, Registry, WorkloadKey, rank, subject};

/// Gateway name that binds a VirtualService to sidecars.
pub(crate) const MESH_GATEWAY: &str = "mesh";

impl Registry {
    /// A workload by its key.
    #[must_use]
    pub fn workload(&self, key: &WorkloadKey) -> Option<&Arc<Workload>> {
        self.namespaces.get(&key.namespace)?.workloads.named(&key.name)
    }

    /// Every workload.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.namespaces.values().flat_map(|here| here.workloads.iter())
    }

    /// Every workload of a namespace.
    pub fn workloads_in(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Workload>> {
        self.namespaces.get(namespace).into_iter().flat_map(|here| here.workloads.iter())
    }

    /// Every service, with the addresses given to it.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.namespaces.values().flat_map(|here| here.services.iter())
    }

    /// Every AuthorizationPolicy.
    pub fn authorization_policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.namespaces.values().flat_map(|here| here.authorization.values())
    }

    /// Every PeerAuthentication.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.namespaces.values().flat_map(|here| here.peer.values())
    }

    /// Every RequestAuthentication.
    pub fn request_authentications(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        self.namespaces.values().flat_map(|here| here.request.values())
    }

    /// Every VirtualService.
    pub fn virtual_services(&self) -> impl Iterator<Item = &Arc<VirtualService>> {
        self.virtual_services.values()
    }

    /// Every DestinationRule.
    pub fn destination_rules(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        self.namespaces.values().flat_map(|here| here.destination_rules.values())
    }

    /// The service that owns an exact host.
    #[must_use]
    pub fn service_by_host(&self, host: &Host) -> Option<&Arc<Service>> {
        self.hosts.get(host)?.values().next()
    }

    /// The service whose wildcard host covers `host` most closely.
    #[must_use]
    pub fn service_by_wildcard(&self, host: &Host) -> Option<&Arc<Service>> {
        wildcards(host).find_map(|wildcard| self.service_by_host(&wildcard))
    }

    /// The service that owns a virtual address.
    #[must_use]
    pub fn service_by_address(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.service_addresses.get(&address)?.values().next()
    }

    /// Services that claim `address` beside its owner.
    pub fn contested_addresses(&self) -> impl Iterator<Item = (IpAddr, &Arc<Service>, &Arc<Service>)> {
        self.service_addresses.iter().flat_map(|(address, claims)| {
            let mut claims = claims.values();
            let owner = claims.next();
            claims.filter_map(move |other| owner.map(|owner| (*address, owner, other)))
        })
    }

    /// Hosts with more than one claimant: host, owner, loser.
    pub fn contested_hosts(&self) -> impl Iterator<Item = (&Host, &Arc<Service>, &Arc<Service>)> {
        self.hosts.iter().flat_map(|(host, claims)| {
            let mut claims = claims.values();
            let owner = claims.next();
            claims.filter_map(move |other| owner.map(|owner| (host, owner, other)))
        })
    }

    /// The workload that owns an address.
    #[must_use]
    pub fn workload_by_address(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workload_addresses.get(&address)?.values().next()
    }

    /// The workload of which an exact host is a name, and the headless service by which it is.
    #[must_use]
    pub fn workload_by_host(&self, host: &Host) -> Option<(&Arc<Workload>, &Arc<Service>)> {
        let service = self.service_by_host(&parent(host)?).filter(|service| service.headless)?;
        let workload =
            self.workload_hosts.get(host)?.values().find(|workload| is_behind(service, workload))?;
        Some((workload, service))
    }

    /// The name of the service by which `host` may be the name of a workload.
    #[must_use]
    pub fn parent_of(&self, host: &Host) -> Option<Host> {
        self.workload_hosts.contains_key(host).then(|| parent(host))?
    }

    /// Workloads behind a service: those that it selects or names; endpoints that it lists are not among them.
    #[must_use]
    pub fn selected_by(&self, service: &Service) -> Vec<Arc<Workload>> {
        let Some(here) = self.namespaces.get(&service.meta.object.namespace) else { return Vec::new() };
        here.workloads.behind(service)
    }

    /// Services that a workload is behind, in order of precedence.
    #[must_use]
    pub fn services_of(&self, workload: &Workload) -> Vec<Arc<Service>> {
        let Some(here) = self.namespaces.get(&workload.meta.object.namespace) else { return Vec::new() };
        let mut services = here.services.before(workload);
        services.sort_by_cached_key(|service| rank(&service.meta));
        services
    }

    /// AuthorizationPolicies that apply to a workload.
    #[must_use]
    pub fn authorization_of(&self, workload: &Workload) -> Vec<Arc<AuthorizationPolicy>> {
        let candidates = self.candidates(workload, |here| here.authorization.values());
        mesh_policy::select::authorization(&self.settings, &subject(workload), &candidates)
    }

    /// RequestAuthentications that apply to a workload.
    #[must_use]
    pub fn request_of(&self, workload: &Workload) -> Vec<Arc<RequestAuthentication>> {
        let candidates = self.candidates(workload, |here| here.request.values());
        mesh_policy::select::request_authentication(&self.settings, &subject(workload), &candidates)
    }

    /// Telemetry of a workload.
    #[must_use]
    pub fn telemetry_of(&self, workload: &Workload) -> WorkloadTelemetry {
        let candidates = self.candidates(workload, |here| here.telemetry.values());
        mesh_policy::telemetry::resolve(&self.settings, &subject(workload), &candidates)
    }

    /// PeerAuthentications that have a say about a workload.
    #[must_use]
    pub fn peer_of(&self, workload: &Workload) -> Vec<Arc<PeerAuthentication>> {
        let candidates = self.candidates(workload, |here| here.peer.values());
        peer_authentication::relevant(&self.settings, &subject(workload), &candidates)
    }

    /// The effective mutual-TLS modes of a workload.
    #[must_use]
    pub fn modes_of(&self, workload: &Workload) -> Modes {
        let candidates = self.candidates(workload, |here| here.peer.values());
        let resolved = peer_authentication::resolve(&self.settings, &subject(workload), &candidates);
        Modes { default: resolved.mode, ports: resolved.ports }
    }

    /// What would be otherwise for a workload, were the objects in force that are tried; `None` when nothing
    /// would, and the keys are left to the caller.
    #[must_use]
    pub fn candidate_of(&self, workload: &Workload) -> Option<CandidatePolicies> {
        let is_tried = |here: &super::InNamespace| {
            here.authorization.values().any(trial::is_tried)
                || here.peer.values().any(trial::is_tried)
                || here.request.values().any(trial::is_tried)
        };
        if !self.namespaces_of(workload).any(is_tried) {
            return None;
        }
        let authorization = self.candidates(workload, |here| here.authorization.values());
        let peer = self.candidates(workload, |here| here.peer.values());
        let request = self.candidates(workload, |here| here.request.values());
        let (settings, subject) = (&self.settings, &subject(workload));
        let select = mesh_policy::select::authorization;
        let mut candidate = CandidatePolicies::default();
        let tried = select(settings, subject, &trial::candidates(&authorization));
        candidate.authorization =
            added(&select(settings, subject, &authorization), tried, &mut candidate.without);
        let select = mesh_policy::select::request_authentication;
        let tried = select(settings, subject, &trial::candidates(&request));
        candidate.request = added(&select(settings, subject, &request), tried, &mut candidate.without);
        let would_be = trial::candidates(&peer);
        let tried = peer_authentication::relevant(settings, subject, &would_be);
        let live = peer_authentication::relevant(settings, subject, &peer);
        candidate.peer = added(&live, tried, &mut candidate.without);
        let is_same = candidate == CandidatePolicies::default();
        let resolved = peer_authentication::resolve(settings, subject, &would_be);
        (!is_same).then_some(CandidatePolicies {
            mtls: resolved.mode,
            mtls_ports: resolved.ports,
            ..candidate
        })
    }

    /// The namespaces whose policies may be for a workload: the root and its own.
    fn namespaces_of<'r>(&'r self, workload: &'r Workload) -> impl Iterator<Item = &'r super::InNamespace> {
        let own = &workload.meta.object.namespace;
        let root = Some(&self.settings.root_namespace).filter(|root| *root != own);
        root.into_iter().chain([own]).filter_map(|name| self.namespaces.get(name))
    }

    fn candidates<'r, T: 'r, I>(
        &'r self,
        workload: &'r Workload,
        of: impl Fn(&'r super::InNamespace) -> I,
    ) -> Vec<Arc<T>>
    where
        I: Iterator<Item = &'r Arc<T>>,
    {
        self.namespaces_of(workload).flat_map(of).cloned().collect()
    }

    /// The VirtualService whose exact host is `host`: the oldest that sidecars use.
    #[must_use]
    pub fn routes_by_host(&self, host: &Host) -> Option<&Arc<VirtualService>> {
        let binds = |routes: &&Arc<VirtualService>| routes.gateways.iter().any(|name| name == MESH_GATEWAY);
        self.routes.get(host)?.values().find(binds)
    }

    /// The VirtualService whose wildcard host covers `host` most closely.
    #[must_use]
    pub fn routes_by_wildcard(&self, host: &Host) -> Option<&Arc<VirtualService>> {
        wildcards(host).find_map(|wildcard| self.routes_by_host(&wildcard))
    }

    /// DestinationRules of one namespace for the most specific host that covers `host`, oldest first.
    #[must_use]
    pub fn rules_in(&self, namespace: &Namespace, host: &Host) -> Vec<Arc<DestinationRule>> {
        let Some(here) = self.namespaces.get(namespace) else { return Vec::new() };
        let covering = || here.destination_rules.values().filter(|rule| rule.host.covers(host.as_str()));
        let closest = covering().map(|rule| specificity(&rule.host)).max();
        let mut rules: Vec<_> =
            covering().filter(|rule| Some(specificity(&rule.host)) == closest).cloned().collect();
        rules.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        rules
    }
}

/// What `tried` has that `live` has not; what `live` has that `tried` has not is put to `without`. Objects that are
/// the same in both share their memory.
fn added<T: Triable>(live: &[Arc<T>], tried: Vec<Arc<T>>, without: &mut Vec<ObjectRef>) -> Vec<Arc<T>> {
    let stay: HashSet<*const T> = tried.iter().map(Arc::as_ptr).collect();
    let gone = live.iter().filter(|object| !stay.contains(&Arc::as_ptr(object)));
    without.extend(gone.map(|object| object.meta().object.clone()));
    let known: HashSet<*const T> = live.iter().map(Arc::as_ptr).collect();
    tried.into_iter().filter(|object| !known.contains(&Arc::as_ptr(object))).collect()
}

/// What follows the first dot of a host.
fn parent(host: &Host) -> Option<Host> {
    let (_, parent) = host.as_str().split_once('.')?;
    Host::parse(parent).ok()
}

/// Exact hosts before wildcards, longer wildcards before shorter ones.
fn specificity(host: &Host) -> (bool, usize) {
    (!host.is_wildcard(), host.as_str().len())
}

/// The wildcards that could cover `host`, closest first: `*.b.c`, `*.c`, `*`.
fn wildcards(host: &Host) -> impl Iterator<Item = Host> + '_ {
    let text = host.as_str();
    let dots = text.char_indices().filter(|(_, letter)| *letter == '.').map(|(at, _)| at);
    let below = dots.filter_map(move |at| Host::parse(&format!("*{}", &text[at..])).ok());
    below.chain(Host::parse("*").ok())
}
