//! From the wire to the state: resources are read, compiled, and only then taken in, a response as a whole.
//!
//! A response of which anything cannot be compiled changes nothing. The own workload's part of the state
//! comes into being once configuration, policies and trust are all in hand, and from then on is only ever
//! replaced by another whole one.
//!
//! A destination whose routes name hosts that have not been answered yet is compiled and held back, and the
//! destination that it replaces stays in force meanwhile: make before break. What is held back counts as
//! had, so that the control plane goes on to send what it waits for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh_api::model::{Destination, DestinationKey, PeerTls, ProxyConfig, TrustBundleSet, WorkloadPolicies};
use mesh_api::name::TrustDomain;
use mesh_api::wire::discovery::Resource;
use mesh_api::wire::{DecodeError, TypeUrl, decode};
use mesh_identity::bundle::{BundleError, TrustBundle};
use mesh_policy::route::RouteTable;
use mesh_policy::select::Subject;

use super::session::Change;
use crate::settings::Settings;
use crate::state::{DestinationState, Known, ProxyState, WorkloadState};

/// Why a response is rejected. The text goes to the control plane and its operators.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It cannot be read.
    #[error("a resource cannot be read")]
    Decode(#[from] DecodeError),
    /// The roots cannot be used.
    #[error("the trust bundle cannot be used")]
    Bundle(#[from] BundleError),
    /// Nobody of the own trust domain would be trusted any more.
    #[error("the trust bundle has no root of {trust_domain}")]
    NoRoot {
        /// The own trust domain.
        trust_domain: TrustDomain,
    },
    /// The configuration is of another workload.
    #[error("the configuration is that of {found}, not of {expected}")]
    OtherWorkload {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The mesh's trust domain is another than the one that this proxy was started with.
    #[error("the mesh's trust domain is {found}, this proxy was started for {expected}")]
    OtherTrustDomain {
        /// The mesh's.
        found: TrustDomain,
        /// The proxy's.
        expected: TrustDomain,
    },
    /// The name is not that of a destination.
    #[error("{name:?} is not the name of a destination")]
    DestinationName {
        /// The name.
        name: String,
    },
    /// An endpoint does not say for each port where and how to connect.
    #[error("an endpoint of {host} states {ports} target ports and {tls} securities for {expected} ports")]
    Ports {
        /// The destination.
        host: String,
        /// Target ports stated.
        ports: usize,
        /// Securities stated.
        tls: usize,
        /// Ports of the destination.
        expected: usize,
    },
    /// A route cannot be compiled.
    #[error("routes of {host} cannot be used: {problem}")]
    Routes {
        /// The destination.
        host: String,
        /// The first problem.
        problem: String,
    },
}

/// What a response asks of others.
#[derive(Debug, Default)]
pub struct Applied {
    /// Trust these roots from now on.
    pub bundle: Option<TrustBundle>,
    /// Accept these trust domains from now on.
    pub trust_domains: Option<Vec<TrustDomain>>,
    /// The state has changed.
    pub is_changed: bool,
}

/// Everything received, compiled.
#[derive(Debug)]
pub struct Model {
    node_id: String,
    trust_domain: TrustDomain,
    has_bundle: bool,
    config: Option<ProxyConfig>,
    policies: Option<(WorkloadPolicies, Arc<str>)>,
    workload: Option<Arc<WorkloadState>>,
    /// In force.
    destinations: HashMap<DestinationKey, Known>,
    /// Received, waiting for the hosts of their routes.
    staged: HashMap<DestinationKey, Arc<DestinationState>>,
    generation: u64,
}

/// One response, compiled but not taken in.
enum Compiled {
    Bundle(TrustBundle),
    Config(Box<ProxyConfig>),
    Policies(Box<WorkloadPolicies>, Arc<str>),
    Destination(DestinationKey, Option<Arc<DestinationState>>),
}

impl Model {
    /// A model of the workload that `settings` name.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            node_id: settings.args.node_id.clone(),
            trust_domain: settings.trust_domain.clone(),
            has_bundle: false,
            config: None,
            policies: None,
            workload: None,
            destinations: HashMap::new(),
            staged: HashMap::new(),
            generation: 0,
        }
    }

    /// Takes a response in, or refuses it as a whole.
    ///
    /// # Errors
    /// What of it cannot be used.
    pub fn apply(&mut self, kind: TypeUrl, changes: &[Change]) -> Result<Applied, ApplyError> {
        let mut compiled = Vec::new();
        for change in changes {
            match change {
                Change::Set(resource) => compiled.push(self.compile(kind, resource)?),
                Change::Remove(name) if kind == TypeUrl::Destination => {
                    compiled.push(Compiled::Destination(destination_key(name)?, None));
                }
                // The own workload's resources are never taken away from a running proxy.
                Change::Remove(name) => {
                    tracing::warn!(kind = kind.short(), name, "a removal of own configuration is not obeyed");
                }
            }
        }
        let mut applied = Applied::default();
        for part in compiled {
            self.take(part, &mut applied);
        }
        if self.promote() {
            applied.is_changed = true;
        }
        Ok(applied)
    }

    /// The state as it now is.
    #[must_use]
    pub fn state(&self) -> ProxyState {
        ProxyState { revision: 0, workload: self.workload.clone(), destinations: self.destinations.clone() }
    }

    /// The own workload, once it is complete.
    #[must_use]
    pub fn workload(&self) -> Option<&Arc<WorkloadState>> {
        self.workload.as_ref()
    }

    /// What is in force for a destination.
    #[must_use]
    pub fn known(&self, key: &DestinationKey) -> Option<&Known> {
        self.destinations.get(key)
    }

    /// What is missing before the own workload is complete.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = [
            (self.has_bundle, "trust bundle"),
            (self.config.is_some(), "configuration"),
            (self.policies.is_some(), "policies"),
        ];
        parts.into_iter().filter(|(is_there, _)| !is_there).map(|(_, what)| what).collect()
    }

    /// Hosts that routes in force or held back name.
    #[must_use]
    pub fn route_hosts(&self) -> HashSet<DestinationKey> {
        let in_force = self.destinations.values().filter_map(|known| match known {
            Known::Present(destination) => Some(destination),
            Known::Absent => None,
        });
        in_force.chain(self.staged.values()).flat_map(|destination| hosts(destination)).collect()
    }

    /// Forgets a destination; tells whether the state has changed.
    pub fn forget(&mut self, key: &DestinationKey) -> bool {
        self.staged.remove(key);
        self.destinations.remove(key).is_some()
    }

    fn compile(&mut self, kind: TypeUrl, resource: &Resource) -> Result<Compiled, ApplyError> {
        Ok(match kind {
            TypeUrl::TrustBundle => {
                let bundle = TrustBundle::from_model(&decode::<TrustBundleSet>(kind, resource)?)?;
                if bundle.anchors(self.trust_domain.as_str()).is_empty() {
                    return Err(ApplyError::NoRoot { trust_domain: self.trust_domain.clone() });
                }
                Compiled::Bundle(bundle)
            }
            TypeUrl::ProxyConfig => {
                let config: ProxyConfig = decode(kind, resource)?;
                let found = format!("{}.{}", config.workload, config.namespace);
                if found != self.node_id {
                    return Err(ApplyError::OtherWorkload { found, expected: self.node_id.clone() });
                }
                if config.mesh.trust_domain != self.trust_domain {
                    return Err(ApplyError::OtherTrustDomain {
                        found: config.mesh.trust_domain,
                        expected: self.trust_domain.clone(),
                    });
                }
                Compiled::Config(Box::new(config))
            }
            TypeUrl::WorkloadPolicies => {
                Compiled::Policies(Box::new(decode(kind, resource)?), Arc::from(resource.version.as_str()))
            }
            TypeUrl::Destination => {
                let key = destination_key(&resource.name)?;
                let destination = decode(kind, resource)?;
                let state =
                    self.destination(key.clone(), destination, Arc::from(resource.version.as_str()))?;
                Compiled::Destination(key, Some(Arc::new(state)))
            }
        })
    }

    fn destination(
        &mut self,
        key: DestinationKey,
        destination: Destination,
        version: Arc<str>,
    ) -> Result<DestinationState, ApplyError> {
        check_ports(&destination)?;
        let routes = match (&destination.routes, &self.config) {
            (Some(routes), Some(config)) => {
                let (table, problems) = RouteTable::compile(routes, &subject(config));
                if let Some(problem) = problems.first() {
                    return Err(ApplyError::Routes { host: destination.host, problem: problem.to_string() });
                }
                Some(table)
            }
            (Some(_), None) => {
                let problem = "the own configuration is not known yet".to_owned();
                return Err(ApplyError::Routes { host: destination.host, problem });
            }
            (None, _) => None,
        };
        self.generation += 1;
        Ok(DestinationState::new(key, destination, routes, version, self.generation))
    }

    fn take(&mut self, part: Compiled, applied: &mut Applied) {
        match part {
            Compiled::Bundle(bundle) => {
                self.has_bundle = true;
                applied.bundle = Some(bundle);
                applied.is_changed |= self.complete();
            }
            Compiled::Config(config) => {
                let domains = std::iter::once(&config.mesh.trust_domain)
                    .chain(&config.mesh.trust_domain_aliases)
                    .cloned()
                    .collect();
                applied.trust_domains = Some(domains);
                let is_other_caller = self.config.as_ref().is_some_and(|former| {
                    (&former.namespace, &former.labels, &former.service_account)
                        != (&config.namespace, &config.labels, &config.service_account)
                });
                self.config = Some(*config);
                if is_other_caller {
                    self.recompile_routes();
                }
                applied.is_changed |= self.complete();
            }
            Compiled::Policies(policies, version) => {
                self.policies = Some((*policies, version));
                applied.is_changed |= self.complete();
            }
            Compiled::Destination(key, None) => {
                self.staged.remove(&key);
                self.destinations.insert(key, Known::Absent);
                applied.is_changed = true;
            }
            Compiled::Destination(key, Some(next)) => {
                self.staged.insert(key, next);
            }
        }
    }

    /// Makes the own workload anew, if all its parts are there.
    fn complete(&mut self) -> bool {
        let (Some(config), Some((policies, version)), true) = (&self.config, &self.policies, self.has_bundle)
        else {
            return false;
        };
        self.workload = Some(Arc::new(WorkloadState::compile(
            config.clone(),
            policies.clone(),
            Arc::clone(version),
            self.workload.as_deref(),
        )));
        true
    }

    /// Routes depend on the caller's labels and namespace, and these have changed.
    fn recompile_routes(&mut self) {
        let present: Vec<_> = self
            .destinations
            .values()
            .filter_map(|known| match known {
                Known::Present(destination) => Some(destination),
                Known::Absent => None,
            })
            .chain(self.staged.values())
            .filter(|destination| destination.routes.is_some())
            .map(Arc::clone)
            .collect();
        for former in present {
            let (key, version) = (former.key.clone(), Arc::clone(&former.version));
            match self.destination(key.clone(), former.destination.clone(), version) {
                Ok(next) => {
                    self.staged.insert(key, Arc::new(next));
                }
                // It was compiled before and only the caller differs, so this would be a defect of ours.
                Err(error) => tracing::error!(%error, "routes could not be compiled for new labels"),
            }
        }
    }

    /// Takes what is held back into force where nothing is missing any more.
    fn promote(&mut self) -> bool {
        let mut ready: HashSet<DestinationKey> = self.staged.keys().cloned().collect();
        // Routes may name each other, so all that can go together are found by leaving out what cannot.
        loop {
            let is_known =
                |host: &DestinationKey| self.destinations.contains_key(host) || ready.contains(host);
            let waiting: Vec<_> = ready
                .iter()
                .filter(|key| {
                    self.staged.get(*key).is_none_or(|staged| !hosts(staged).all(|host| is_known(&host)))
                })
                .cloned()
                .collect();
            if waiting.is_empty() {
                break;
            }
            for key in waiting {
                ready.remove(&key);
            }
        }
        for key in &ready {
            let Some(next) = self.staged.remove(key) else { continue };
            if let Some(Known::Present(former)) = self.destinations.get(key) {
                next.touch(former.last_used());
            }
            self.destinations.insert(key.clone(), Known::Present(next));
        }
        !ready.is_empty()
    }
}

/// Hosts that the routes of a destination name.
fn hosts(destination: &DestinationState) -> impl Iterator<Item = DestinationKey> + '_ {
    let named = destination.routes.iter().flat_map(RouteTable::hosts).cloned().map(DestinationKey::Host);
    named.filter(|host| *host != destination.key)
}

fn subject(config: &ProxyConfig) -> Subject<'_> {
    Subject { namespace: &config.namespace, labels: &config.labels, service_account: &config.service_account }
}

fn destination_key(name: &str) -> Result<DestinationKey, ApplyError> {
    DestinationKey::parse(name).ok_or_else(|| ApplyError::DestinationName { name: name.to_owned() })
}

fn check_ports(destination: &Destination) -> Result<(), ApplyError> {
    let expected = destination.ports.len();
    let is_whole = |ports: &[u16], tls: &[PeerTls]| ports.len() == expected && tls.len() == expected;
    let broken =
        destination.endpoints.iter().find(|endpoint| !is_whole(&endpoint.target_ports, &endpoint.tls));
    match broken {
        None => Ok(()),
        Some(endpoint) => Err(ApplyError::Ports {
            host: destination.host.clone(),
            ports: endpoint.target_ports.len(),
            tls: endpoint.tls.len(),
            expected,
        }),
    }
}

#[cfg(test)]
mod tests;
