//! What every applied object has: its kind, its name, where it came from, whom it selects.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Labels, Namespace, ObjectName};

/// The kinds of objects that the mesh understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication,
    /// `telemetry.istio.io` Telemetry.
    Telemetry,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry,
    /// Core `v1` Pod, as a cluster knows it. Not written by users of the mesh: a document of this kind is not the
    /// mesh's.
    Pod,
    /// Core `v1` Service.
    Service,
    /// Core `v1` ServiceAccount.
    ServiceAccount,
    /// Core `v1` Namespace.
    Namespace,
    /// `mini-mesh.io` MeshConfig: the settings of the whole mesh.
    MeshConfig,
}

impl Kind {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 13] = [
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::Telemetry,
        Self::DestinationRule,
        Self::VirtualService,
        Self::ServiceEntry,
        Self::WorkloadEntry,
        Self::Pod,
        Self::Service,
        Self::ServiceAccount,
        Self::Namespace,
        Self::MeshConfig,
    ];

    /// The kind as YAML writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Telemetry => "Telemetry",
            Self::DestinationRule => "DestinationRule",
            Self::VirtualService => "VirtualService",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::Namespace => "Namespace",
            Self::MeshConfig => "MeshConfig",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object: `AuthorizationPolicy backend/catalog-access`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace; cluster-scoped kinds carry their own name here too.
    pub namespace: Namespace,
    /// The name within namespace and kind.
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Where the text of an object stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Origin {
    /// File (or `cluster`), as the user would name it; empty when there is none.
    pub file: Arc<str>,
    /// Line of the document's first key, from 1; 0 when unknown.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Metadata of an applied object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// Kind, namespace and name.
    pub object: ObjectRef,
    /// Labels of the object itself.
    #[serde(default)]
    pub labels: Labels,
    /// Annotations of the object itself.
    #[serde(default)]
    pub annotations: Labels,
    /// Creation time in seconds of the Unix epoch: "the oldest wins" goes by it, then by name, then by
    /// namespace. 0 when the source has none (files), so that names decide.
    #[serde(default)]
    pub created: i64,
    /// Where the text stands.
    #[serde(default)]
    pub origin: Origin,
}

impl ObjectMeta {
    /// The key of "oldest first" (SEMANTICS 1.4): creation time, name, namespace.
    #[must_use]
    pub fn age_key(&self) -> (i64, &str, &str) {
        (self.created, self.object.name.as_str(), self.object.namespace.as_str())
    }

    /// What is tried of the object, by its annotations; manifests with others than these are not admitted.
    #[must_use]
    pub fn trial(&self) -> Trial<'_> {
        match self.annotations.get(DRY_RUN).map(String::as_str) {
            Some(DRY_RUN_TRUE) => {
                Trial::Addition { replaces: self.annotations.get(DRY_RUN_REPLACES).map(String::as_str) }
            }
            Some(DRY_RUN_DELETE) => Trial::Deletion,
            _ => Trial::None,
        }
    }

    /// Whether the object has a say in what is decided. Whoever selects objects that decide asks this.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        match self.trial() {
            Trial::None | Trial::Deletion => true,
            Trial::Addition { .. } => false,
        }
    }
}

/// Annotation that has an object tried on live traffic: `true` or `delete`.
pub const DRY_RUN: &str = "mini-mesh.io/dry-run";
/// Annotation that names the object whose edited version the annotated one is.
pub const DRY_RUN_REPLACES: &str = "mini-mesh.io/dry-run-replaces";
/// Value of [`DRY_RUN`]: the object is tried.
pub const DRY_RUN_TRUE: &str = "true";
/// Value of [`DRY_RUN`]: its deletion is tried.
pub const DRY_RUN_DELETE: &str = "delete";

/// What is tried of an object beside the objects in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial<'a> {
    /// Nothing: it is in force.
    None,
    /// It is not in force, and would be.
    Addition {
        /// Name of the object of the same kind and namespace that it would take the place of.
        replaces: Option<&'a str>,
    },
    /// It is in force, and would not be.
    Deletion,
}

/// `selector.matchLabels`: selects a workload that carries every pair. Empty selects all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector {
    /// Pairs that must all be present.
    #[serde(default)]
    pub match_labels: Labels,
}

impl Selector {
    /// Whether no pair is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty()
    }

    /// Whether a workload with `labels` is selected.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// One entry of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRef {
    /// API group, empty for core.
    #[serde(default)]
    pub group: String,
    /// Kind, for instance `Gateway`.
    pub kind: String,
    /// Name in the policy's namespace.
    pub name: String,
}
