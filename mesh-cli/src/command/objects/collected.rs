//! All objects together, for looking at them as a whole.

use std::sync::Arc;

use mesh_api::admin::ObjectSummary;
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, PeerAuthentication, RequestAuthentication, Service,
    VirtualService, Workload,
};
use mesh_policy::analyze;

/// Objects by kind.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// Settings of the mesh.
    pub(crate) settings: MeshSettings,
    /// Services and ServiceEntries.
    pub(crate) services: Vec<Arc<Service>>,
    /// WorkloadEntries.
    pub(crate) workloads: Vec<Arc<Workload>>,
    /// AuthorizationPolicies.
    pub(crate) authorization: Vec<Arc<AuthorizationPolicy>>,
    /// PeerAuthentications.
    pub(crate) peer: Vec<Arc<PeerAuthentication>>,
    /// RequestAuthentications.
    pub(crate) request: Vec<Arc<RequestAuthentication>>,
    /// VirtualServices.
    pub(crate) virtual_services: Vec<Arc<VirtualService>>,
    /// DestinationRules.
    pub(crate) destination_rules: Vec<Arc<DestinationRule>>,
}

impl Collected {
    /// Adds an object.
    pub(crate) fn add(&mut self, object: Object) {
        match object {
            Object::AuthorizationPolicy(object) => self.authorization.push(Arc::new(object)),
            Object::PeerAuthentication(object) => self.peer.push(Arc::new(object)),
            Object::RequestAuthentication(object) => self.request.push(Arc::new(object)),
            Object::DestinationRule(object) => self.destination_rules.push(Arc::new(object)),
            Object::VirtualService(object) => self.virtual_services.push(Arc::new(object)),
            Object::Service(object) => self.services.push(Arc::new(object)),
            Object::Workload(object) => self.workloads.push(Arc::new(object)),
            Object::MeshConfig(object) => self.settings = object.settings,
            // Known by name only.
            Object::Telemetry(_) | Object::ServiceAccount(_) | Object::Namespace(_) => {}
        }
    }

    /// The objects in force in a running mesh.
    pub(crate) fn live(objects: &[ObjectSummary], context: &LowerContext) -> Self {
        let mut collected = Self::default();
        objects.iter().flat_map(|object| reread(object, context)).for_each(|object| collected.add(object));
        collected
    }

    /// The objects as analysis looks at them, beside their documents.
    pub(crate) fn model<'c>(&'c self, documents: &'c [analyze::Document]) -> analyze::Model<'c> {
        analyze::Model {
            mesh: &self.settings,
            services: &self.services,
            workloads: &self.workloads,
            authorization: &self.authorization,
            peer: &self.peer,
            request: &self.request,
            virtual_services: &self.virtual_services,
            destination_rules: &self.destination_rules,
            documents,
        }
    }
}

/// An object in force, read from its text. Its lines are those of its file.
pub(crate) fn reread(object: &ObjectSummary, context: &LowerContext) -> Vec<Object> {
    let lines_before = usize::try_from(object.line.saturating_sub(1)).unwrap_or(0);
    let text = format!("{}{}", "\n".repeat(lines_before), object.yaml);
    let parsed = manifest::parse(&object.file, &text, context);
    parsed.documents.into_iter().filter_map(|document| document.outcome.ok()).collect()
}
