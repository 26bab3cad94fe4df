//! What is read from a cluster: the kinds, and of each object what the mesh needs.

use std::fmt;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, ObjectMeta};
use mesh_api::model::Kind;

use super::pod::Pod;

/// One kind of objects that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Topic {
    /// The settings of the mesh.
    Config,
    Namespaces,
    Nodes,
    ServiceAccounts,
    Services,
    EndpointSlices,
    Pods,
    /// A kind of Istio.
    Istio(Kind),
}

impl Topic {
    /// Every kind that is followed.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let core = [
            Self::Config,
            Self::Namespaces,
            Self::Nodes,
            Self::ServiceAccounts,
            Self::Services,
            Self::EndpointSlices,
            Self::Pods,
        ];
        core.into_iter().chain(ISTIO.iter().map(|istio| Self::Istio(istio.kind)))
    }

    /// The kind of the objects in force that come from it.
    pub(super) fn kind(self) -> Option<Kind> {
        match self {
            Self::Config => Some(Kind::MeshConfig),
            Self::Namespaces => Some(Kind::Namespace),
            Self::ServiceAccounts => Some(Kind::ServiceAccount),
            Self::Services => Some(Kind::Service),
            Self::Pods => Some(Kind::Pod),
            Self::Istio(kind) => Some(kind),
            Self::Nodes | Self::EndpointSlices => None,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "the mesh's ConfigMap",
            Self::Namespaces => "namespaces",
            Self::Nodes => "nodes",
            Self::ServiceAccounts => "serviceaccounts",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices.discovery.k8s.io",
            Self::Pods => "pods",
            Self::Istio(kind) => match istio(*kind) {
                Some(istio) => return write!(f, "{}.{}", istio.plural, istio.group),
                None => kind.as_str(),
            },
        })
    }
}

/// A kind of Istio that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Istio {
    pub(crate) kind: Kind,
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    /// Versions, the preferred first.
    pub(crate) versions: &'static [&'static str],
}

/// Kinds of Istio that are read, with the versions that their manifests may have.
pub(crate) const ISTIO: [Istio; 8] = [
    security(Kind::AuthorizationPolicy, "authorizationpolicies"),
    security(Kind::PeerAuthentication, "peerauthentications"),
    security(Kind::RequestAuthentication, "requestauthentications"),
    networking(Kind::DestinationRule, "destinationrules"),
    networking(Kind::VirtualService, "virtualservices"),
    networking(Kind::ServiceEntry, "serviceentries"),
    networking(Kind::WorkloadEntry, "workloadentries"),
    Istio {
        kind: Kind::Telemetry,
        group: "telemetry.istio.io",
        plural: "telemetries",
        versions: &["v1", "v1alpha1"],
    },
];

const fn security(kind: Kind, plural: &'static str) -> Istio {
    Istio { kind, group: "security.istio.io", plural, versions: &["v1", "v1beta1"] }
}

const fn networking(kind: Kind, plural: &'static str) -> Istio {
    Istio { kind, group: "networking.istio.io", plural, versions: &["v1", "v1beta1", "v1alpha3"] }
}

/// What is known of a kind of Istio; `None` for other kinds.
pub(super) fn istio(kind: Kind) -> Option<&'static Istio> {
    ISTIO.iter().find(|istio| istio.kind == kind)
}

/// Names an object of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Empty for what belongs to the whole cluster.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Config(Box<ConfigMap>),
    Namespace(Box<ObjectMeta>),
    Node(Box<ObjectMeta>),
    ServiceAccount(Box<ObjectMeta>),
    Service(Box<DynamicObject>),
    Slice(Box<EndpointSlice>),
    Pod(Box<Pod>),
    Istio(Kind, Box<DynamicObject>),
}
