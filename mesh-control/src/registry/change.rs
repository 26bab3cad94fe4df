//! What can happen to the registry, and which facts of the mesh are different afterwards.

use std::net::IpAddr;

use mesh_api::model::{Kind, ObjectRef};
use mesh_api::name::{Host, Namespace};

use super::{Entry, WorkloadKey};

/// One change to the registry.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new or different.
    Set(Entry),
    /// The object is gone.
    Remove(ObjectRef),
}

impl Change {
    /// Whether it may concern the keys of token issuers.
    #[must_use]
    pub fn is_of_keys(&self) -> bool {
        match self {
            Self::Set(entry) => entry.meta().object.kind == Kind::RequestAuthentication,
            Self::Remove(object) => object.kind == Kind::RequestAuthentication,
        }
    }
}

/// A fact of the mesh that a resource may have been made from. A change says which facts it touched; a
/// builder says which it read; where the two meet, the resource is built again.
///
/// A fact that is *absent* is a fact too: who asked for a host that nobody had has read
/// [`Effect::Host`], and is built again when somebody claims it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Settings of the mesh; every resource reads them.
    Settings,
    /// The trust bundle.
    TrustBundle,
    /// Who owns an exact host.
    Host(Host),
    /// Which wildcard hosts exist.
    WildcardHosts,
    /// Who owns an address.
    Address(IpAddr),
    /// A service: its ports, or the workloads behind it.
    Service(ObjectRef),
    /// A workload: its labels, addresses, account.
    Workload(WorkloadKey),
    /// The services that select a workload, and their ports.
    ServicesOf(WorkloadKey),
    /// The policies that apply to a workload.
    Policies(WorkloadKey),
    /// The keys that are known of a source.
    Keys(String),
    /// The mutual-TLS modes of a workload.
    Modes(WorkloadKey),
    /// The VirtualService of an exact host.
    Routes(Host),
    /// VirtualServices with wildcard hosts.
    WildcardRoutes,
    /// DestinationRules of a namespace for an exact host.
    Rules(Namespace, Host),
    /// DestinationRules of a namespace with wildcard hosts.
    WildcardRules(Namespace),
}
