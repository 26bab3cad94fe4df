//! All objects together, for looking at them as a whole.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_api::admin::{ObjectSummary, RegistryDump};
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{
    AuthorizationPolicy, DestinationRule, MeshSettings, PeerAuthentication, RequestAuthentication, Service,
    VirtualService, Workload,
};
use mesh_api::problem::Severity;
use mesh_policy::analyze;

use super::input;
use crate::command::Failure;
use crate::command::analyze::local_mesh;

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

    /// The objects of files and folders.
    ///
    /// # Errors
    /// When something cannot be read, or is not valid.
    pub(crate) fn of_files(files: &[PathBuf]) -> Result<Self, Failure> {
        let (planned, inputs): (Vec<_>, Vec<_>) =
            input::read(files)?.into_iter().partition(local_mesh::is_mesh_file);
        let context = LowerContext::default();
        let mut collected = Self::default();
        for file in &planned {
            let objects =
                local_mesh::objects(file, &context).map_err(|problem| Failure::new(problem.to_string()))?;
            objects.into_iter().for_each(|object| collected.add(object));
        }
        for reading in input::parse(&inputs, &context) {
            if let Some(problem) = reading.problems(Severity::Error).next() {
                return Err(Failure::new(problem.to_string())
                    .hint("All of the policies have to be known: mend this one, then ask again."));
            }
            let documents = reading.parsed.documents.into_iter();
            documents.filter_map(|document| document.outcome.ok()).for_each(|object| collected.add(object));
        }
        Ok(collected)
    }

    /// The objects in force in a running mesh.
    pub(crate) fn live(objects: &[ObjectSummary], context: &LowerContext) -> Self {
        let mut collected = Self::default();
        objects.iter().flat_map(|object| reread(object, context)).for_each(|object| collected.add(object));
        collected
    }

    /// With the services and workloads that the control plane knows: those of a cluster are no documents of the
    /// mesh, and those of a registry know their addresses.
    #[must_use]
    pub(crate) fn with_registry(mut self, registry: RegistryDump) -> Self {
        self.services = registry.services.into_iter().map(Into::into).collect();
        self.workloads = registry.workloads.into_iter().map(Into::into).collect();
        self
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
