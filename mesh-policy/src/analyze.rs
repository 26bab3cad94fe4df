//! What the author of a set of objects probably did not mean.
//!
//! Every object here is valid; these checks look at several together, or at a form that is admitted and does
//! something else than most readers expect. They change nothing and block nothing by themselves. Codes are
//! Istio's where Istio has one (`IST…`), otherwise ours (`MM…`).

mod authentication;
mod authorization;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, ObjectMeta, PeerAuthentication, Protocol,
    RequestAuthentication, Selector, Service, ServicePort, TargetRef, VirtualService, Workload,
};
use mesh_api::name::Namespace;
use mesh_api::problem::{Problem, Severity};

use crate::select::{self, Subject};

/// All that is looked at together.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    /// Settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// Services and ServiceEntries.
    pub services: &'a [Arc<Service>],
    /// Workloads; those that a ServiceEntry lists itself need not be repeated.
    pub workloads: &'a [Arc<Workload>],
    /// AuthorizationPolicies.
    pub authorization: &'a [Arc<AuthorizationPolicy>],
    /// PeerAuthentications.
    pub peer: &'a [Arc<PeerAuthentication>],
    /// RequestAuthentications.
    pub request: &'a [Arc<RequestAuthentication>],
    /// VirtualServices.
    pub virtual_services: &'a [Arc<VirtualService>],
    /// DestinationRules.
    pub destination_rules: &'a [Arc<DestinationRule>],
}

/// Checks a model. Problems come in a fixed order, whatever the order of the objects.
#[must_use]
pub fn analyze(model: &Model<'_>) -> Vec<Problem> {
    let survey = Survey::of(*model);
    let mut problems = Vec::new();
    for policy in model.authorization {
        authorization::check(&survey, policy, &mut problems);
    }
    authentication::check(&survey, &mut problems);
    traffic::check(&survey, &mut problems);
    problems.sort_by(|a, b| {
        let key = |p: &Problem| (p.object.clone(), p.field.clone(), p.code.clone(), p.message.clone());
        key(a).cmp(&key(b))
    });
    problems
}

/// A finding about one object.
fn problem(
    code: &str,
    severity: Severity,
    meta: &ObjectMeta,
    field: impl Into<String>,
    (message, hint): (String, &str),
) -> Problem {
    Problem {
        code: code.to_owned(),
        severity,
        object: Some(meta.object.clone()),
        origin: meta.origin.clone(),
        field: field.into(),
        message,
        hint: hint.to_owned(),
    }
}

/// A model with what the checks look up, computed once: a mesh has thousands of each, and checks that walk
/// all of them for every policy would take minutes.
#[derive(Debug)]
struct Survey<'a> {
    model: Model<'a>,
    workloads: BTreeMap<&'a Namespace, Vec<Surveyed<'a>>>,
    services: BTreeMap<&'a str, &'a Service>,
    wildcard_services: Vec<&'a Service>,
}

/// A workload and the ports that services declare for it.
#[derive(Debug)]
struct Surveyed<'a> {
    workload: &'a Workload,
    ports: Vec<DeclaredPort>,
}

/// A port of a workload, as a service declares it.
#[derive(Debug, Clone, Copy)]
struct DeclaredPort {
    service_port: u16,
    target_port: u16,
    protocol: Protocol,
}

impl<'a> Survey<'a> {
    fn of(model: Model<'a>) -> Self {
        let mut by_namespace: BTreeMap<&Namespace, Vec<&Service>> = BTreeMap::new();
        let mut services = BTreeMap::new();
        let mut wildcard_services = Vec::new();
        for service in model.services {
            by_namespace.entry(&service.meta.object.namespace).or_default().push(service);
            for host in &service.hosts {
                if host.is_wildcard() {
                    wildcard_services.push(&**service);
                } else {
                    services.entry(host.as_str()).or_insert(&**service);
                }
            }
        }
        let mut workloads: BTreeMap<&Namespace, Vec<Surveyed<'_>>> = BTreeMap::new();
        for workload in model.workloads {
            let namespace = &workload.meta.object.namespace;
            let ports = by_namespace
                .get(namespace)
                .into_iter()
                .flatten()
                .filter(|service| serves(service, workload))
                .flat_map(|service| &service.ports)
                .map(|port| DeclaredPort::of(port, workload))
                .collect();
            workloads.entry(namespace).or_default().push(Surveyed { workload, ports });
        }
        Self { model, workloads, services, wildcard_services }
    }

    /// Workloads that a policy in `namespace` can reach.
    fn within<'s>(&'s self, namespace: &Namespace) -> Box<dyn Iterator<Item = &'s Surveyed<'a>> + 's> {
        if *namespace == self.model.mesh.root_namespace {
            Box::new(self.workloads.values().flatten())
        } else {
            Box::new(self.workloads.get(namespace).into_iter().flatten())
        }
    }

    /// Workloads that a policy applies to.
    fn concerned<'s>(
        &'s self,
        meta: &ObjectMeta,
        selector: &Selector,
        targets: &[TargetRef],
    ) -> Vec<&'s Surveyed<'a>> {
        self.within(&meta.object.namespace)
            .filter(|surveyed| {
                select::applies(self.model.mesh, &subject(surveyed.workload), meta, selector, targets)
            })
            .collect()
    }

    /// The service that `host` names.
    fn service(&self, host: &str) -> Option<&'a Service> {
        self.services.get(host).copied().or_else(|| {
            let covers = |service: &&&Service| service.hosts.iter().any(|known| known.covers(host));
            self.wildcard_services.iter().find(covers).copied()
        })
    }

    /// The endpoints of a service.
    fn endpoints(&self, service: &'a Service) -> Vec<&'a Workload> {
        let selected = self.workloads.get(&service.meta.object.namespace).into_iter().flatten();
        let selected =
            selected.map(|surveyed| surveyed.workload).filter(|workload| serves(service, workload));
        service.endpoints.iter().chain(selected).collect()
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

/// Whether a workload of the service's namespace stands behind it.
fn serves(service: &Service, workload: &Workload) -> bool {
    service
        .selector
        .as_ref()
        .is_some_and(|selector| !selector.is_empty() && selector.selects(&workload.labels))
}

/// The workload as policies select it.
fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.meta.object.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

#[cfg(test)]
mod tests;
