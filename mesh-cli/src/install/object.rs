//! The objects of an installation: which resource each is of, and how it is called (pure).

use kube::core::ApiResource;
use mesh_kube::name;
use serde_json::Value;

/// A kind of which an installation has objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// API group; empty for core.
    pub(crate) group: &'static str,
    /// Version.
    pub(crate) version: &'static str,
    /// Kind.
    pub(crate) kind: &'static str,
    /// Resource.
    pub(crate) plural: &'static str,
    /// Whether its objects are in a namespace.
    pub(crate) namespaced: bool,
    /// When it is applied.
    pub(crate) step: Step,
}

/// Steps of an installation, in order. A webhook that nobody answers would hold up the cluster, so they come
/// when the control plane is there, and go before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Definitions of resources.
    Definitions,
    /// The namespace.
    Namespace,
    /// Who may do what, and limits.
    Access,
    /// Settings.
    Settings,
    /// The control plane itself.
    ControlPlane,
    /// Webhooks.
    Webhooks,
}

/// All kinds.
pub(crate) const KINDS: [Kind; 16] = [
    of(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
        Step::Definitions,
    ),
    of("", "v1", "Namespace", "namespaces", false, Step::Namespace),
    of("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true, Step::Access),
    of("", "v1", "ResourceQuota", "resourcequotas", true, Step::Access),
    of("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, Step::Access),
    of("", "v1", "ServiceAccount", "serviceaccounts", true, Step::Access),
    of("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false, Step::Access),
    of("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false, Step::Access),
    of("rbac.authorization.k8s.io", "v1", "Role", "roles", true, Step::Access),
    of("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true, Step::Access),
    of("", "v1", "ConfigMap", "configmaps", true, Step::Settings),
    of("", "v1", "Service", "services", true, Step::ControlPlane),
    of("apps", "v1", "Deployment", "deployments", true, Step::ControlPlane),
    of("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true, Step::ControlPlane),
    of(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
        Step::Webhooks,
    ),
    of(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
        Step::Webhooks,
    ),
];

const fn of(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
    step: Step,
) -> Kind {
    Kind { group, version, kind, plural, namespaced, step }
}

/// Leases, of which the control plane makes one.
pub(crate) const LEASE: Kind = of("coordination.k8s.io", "v1", "Lease", "leases", true, Step::ControlPlane);
/// Secrets, of which the control plane makes one.
pub(crate) const SECRET: Kind = of("", "v1", "Secret", "secrets", true, Step::ControlPlane);

impl Kind {
    /// The kind by its name.
    pub(crate) fn named(kind: &str) -> Option<Self> {
        KINDS.into_iter().find(|known| known.kind == kind)
    }

    /// As the client wants it.
    pub(crate) fn resource(self) -> ApiResource {
        let api_version = match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// An object of an installation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace, if it is in one.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
    /// Itself.
    pub(crate) object: Value,
}

impl Wanted {
    /// Of an object of a known kind; `None` for others.
    pub(crate) fn new(object: Value) -> Option<Self> {
        let kind = Kind::named(object["kind"].as_str()?)?;
        let name = object["metadata"]["name"].as_str()?.to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(name::SYSTEM_NAMESPACE);
        let namespace = kind.namespaced.then(|| namespace.to_owned());
        Some(Self { kind, namespace, name, object })
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{} {}", self.kind.kind, self.name),
        }
    }
}

/// A label of an object.
pub(crate) fn label<'a>(object: &'a Value, label: &str) -> Option<&'a str> {
    object["metadata"]["labels"][label].as_str()
}

/// Whether an object is of this product, as its label says.
pub(crate) fn is_ours(object: &Value) -> bool {
    label(object, name::LABEL_PART_OF) == Some(name::PART_OF)
}

/// Whether a field manager has applied some part of an object.
pub(crate) fn is_managed_by(object: &Value, manager: &str) -> bool {
    let managed = object["metadata"]["managedFields"].as_array();
    managed.into_iter().flatten().any(|entry| entry["manager"] == manager)
}
