//! What the author of a set of objects probably did not mean.
//!
//! Every object here is valid; these checks look at several together, or at a form that is admitted and does
//! something else than most readers expect. They change nothing and block nothing by themselves. Codes are
//! Istio's where Istio has one (`IST…`), otherwise ours (`MM…`).

mod authentication;
mod authorization;
mod traffic;

use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, ObjectMeta, PeerAuthentication,
    RequestAuthentication, Selector, Service, VirtualService, Workload,
};
use mesh_api::name::Namespace;
use mesh_api::problem::{Problem, Severity};

use crate::select::Subject;

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
    let mut problems = Vec::new();
    for policy in model.authorization {
        authorization::check(model, policy, &mut problems);
    }
    authentication::check(model, &mut problems);
    traffic::check(model, &mut problems);
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

impl<'a> Model<'a> {
    /// Workloads that a policy in `namespace` with `selector` reaches.
    fn selected(
        &self,
        namespace: &'a Namespace,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a Workload> + use<'a> {
        let everywhere = *namespace == self.mesh.root_namespace;
        self.workloads
            .iter()
            .map(|workload| &**workload)
            .filter(move |workload| everywhere || workload.meta.object.namespace == *namespace)
            .filter(|workload| selector.selects(&workload.labels))
    }

    /// Ports that services declare for a workload: service port, target port, and whether it is not HTTP.
    fn declared_ports(&self, workload: &'a Workload) -> impl Iterator<Item = DeclaredPort> {
        self.services
            .iter()
            .filter(|service| {
                service.meta.object.namespace == workload.meta.object.namespace
                    && service
                        .selector
                        .as_ref()
                        .is_some_and(|selector| !selector.is_empty() && selector.selects(&workload.labels))
            })
            .flat_map(|service| &service.ports)
            .map(|port| DeclaredPort {
                service_port: port.port,
                target_port: port
                    .target_port_name
                    .as_ref()
                    .and_then(|name| workload.ports.get(name))
                    .copied()
                    .unwrap_or(port.target_port),
                protocol: port.protocol,
            })
    }

    /// The service that `host` names.
    fn service(&self, host: &str) -> Option<&'a Service> {
        self.services
            .iter()
            .map(|service| &**service)
            .find(|service| service.hosts.iter().any(|candidate| candidate.covers(host)))
    }

    /// Labels of the endpoints of a service.
    fn endpoints(&self, service: &'a Service) -> Vec<&'a Workload> {
        let mut endpoints: Vec<&Workload> = service.endpoints.iter().collect();
        if let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) {
            endpoints.extend(self.workloads.iter().map(|workload| &**workload).filter(|workload| {
                workload.meta.object.namespace == service.meta.object.namespace
                    && selector.selects(&workload.labels)
            }));
        }
        endpoints
    }
}

/// A port of a workload, as a service declares it.
#[derive(Debug, Clone, Copy)]
struct DeclaredPort {
    service_port: u16,
    target_port: u16,
    protocol: mesh_api::model::Protocol,
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
