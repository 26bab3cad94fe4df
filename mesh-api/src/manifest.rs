//! What users write: YAML documents, read strictly and lowered to the [`model`](crate::model).
//!
//! The contract is Istio's: a document that Istio refuses is refused here, and one that it takes is taken.
//! Unknown fields, wrong types and wrong case are errors, because an ignored `notPath` turns a restriction
//! into nothing. Every problem of a document is told at once, each with the line and path of its field.
//!
//! A file is cut into documents before any is parsed (`split`), each becomes a tree that knows its lines
//! (`tree`), and one module for each kind reads that tree into the model. What Istio takes and this
//! version does not serve is a warning, unless ignoring it would let in or expose more than was meant; then
//! it is refused. Size, depth, aliases and the number of problems are bounded.

use std::sync::Arc;

use crate::model::{
    AuthorizationPolicy, DestinationRule, Kind, MeshSettings, ObjectMeta, ObjectRef, Origin,
    PeerAuthentication, RequestAuthentication, Service, Telemetry, VirtualService, Workload,
};
use crate::name::Namespace;
use crate::problem::Problem;

pub use lines::Lines;

mod authorization_condition;
mod authorization_policy;
mod authorization_value;
mod core_kinds;
mod destination_rule;
mod document;
mod duration;
mod extension_provider;
mod fields;
pub mod folder;
mod host;
mod http_match;
mod http_route;
mod input;
mod jwks;
mod lines;
mod lower;
mod mesh_config;
mod meta;
mod peer_authentication;
pub mod policy_assertion;
pub mod policy_test;
mod protocol;
mod report;
mod request_authentication;
mod scalar;
mod service;
mod service_entry;
mod shape;
mod split;
mod telemetry;
mod traffic_policy;
mod tree;
mod virtual_service;
mod workload_entry;

/// What documents are read in the light of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerContext {
    /// DNS suffix of services. Default `cluster.local`.
    pub cluster_domain: String,
    /// Namespace whose policies hold for the whole mesh. Default `istio-system`.
    pub root_namespace: Namespace,
    /// Namespace of objects that state none. Default `default`.
    pub default_namespace: Namespace,
}

impl Default for LowerContext {
    fn default() -> Self {
        let mesh = MeshSettings::default();
        Self {
            cluster_domain: mesh.cluster_domain,
            root_namespace: mesh.root_namespace,
            default_namespace: Namespace::parse("default").expect("a valid constant"),
        }
    }
}

impl LowerContext {
    /// The namespace of an object of `kind` that states none: settings of the mesh belong to its root.
    fn default_namespace_of(&self, kind: Kind) -> Namespace {
        match kind {
            Kind::MeshConfig => self.root_namespace.clone(),
            Kind::AuthorizationPolicy
            | Kind::PeerAuthentication
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::DestinationRule
            | Kind::VirtualService
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::Pod
            | Kind::Service
            | Kind::ServiceAccount
            | Kind::Namespace => self.default_namespace.clone(),
        }
    }
}

/// A MeshConfig document.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// The settings, with defaults for what is not stated.
    pub settings: MeshSettings,
}

/// A valid document.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(PeerAuthentication),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(RequestAuthentication),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(DestinationRule),
    /// `networking.istio.io` VirtualService.
    VirtualService(VirtualService),
    /// Core Service, or `networking.istio.io` ServiceEntry.
    Service(Service),
    /// `networking.istio.io` WorkloadEntry.
    Workload(Workload),
    /// `mini-mesh.io` MeshConfig.
    MeshConfig(MeshConfig),
    /// `telemetry.istio.io` Telemetry.
    Telemetry(Telemetry),
    /// Core ServiceAccount, known by name only.
    ServiceAccount(ObjectMeta),
    /// Core Namespace, known by name only.
    Namespace(ObjectMeta),
}

impl Object {
    /// Metadata of the object.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::AuthorizationPolicy(object) => &object.meta,
            Self::PeerAuthentication(object) => &object.meta,
            Self::RequestAuthentication(object) => &object.meta,
            Self::DestinationRule(object) => &object.meta,
            Self::VirtualService(object) => &object.meta,
            Self::Service(object) => &object.meta,
            Self::Workload(object) => &object.meta,
            Self::MeshConfig(object) => &object.meta,
            Self::Telemetry(object) => &object.meta,
            Self::ServiceAccount(meta) | Self::Namespace(meta) => meta,
        }
    }

    /// Kind, namespace and name.
    #[must_use]
    pub fn object_ref(&self) -> ObjectRef {
        self.meta().object.clone()
    }
}

/// One document of a file, or one item of a `kind: List`.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What is doubtful or without effect in a valid document; empty when the outcome is not an object.
    pub warnings: Vec<Problem>,
    /// The object; otherwise why there is none. Without an error among the reasons, the document is of a
    /// kind that is not the mesh's and was passed over.
    pub outcome: Result<Object, Vec<Problem>>,
    /// Whose document it is, when that is certain. A bad document at which the file may have been cut off
    /// has none: its name may be half of another one, and what followed it may be missing as well.
    pub identity: Option<ObjectRef>,
    /// File and line of the document's first key.
    pub origin: Origin,
    /// The document's text, which reads the same on its own.
    pub text: Arc<str>,
}

/// The documents of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// In order of the file.
    pub documents: Vec<Document>,
}

impl Parsed {
    /// Every problem, in order of the file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.documents.iter().flat_map(|document| {
            document.warnings.iter().chain(document.outcome.as_ref().err().into_iter().flatten())
        })
    }
}

/// Reads the documents of a file. `file` is its name as the user would write it.
///
/// Never fails as a whole: a document that cannot be read is one with an `Err` outcome. Time and memory are
/// linear in the length of `text`.
#[must_use]
pub fn parse(file: &str, text: &str, context: &LowerContext) -> Parsed {
    Parsed { documents: document::read_all(&file.into(), text, context) }
}

#[cfg(test)]
mod tests;
