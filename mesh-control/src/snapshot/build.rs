//! Builds one resource from the registry, and says which facts it read.

use std::collections::{BTreeMap, HashSet};

use mesh_api::model::{DestinationKey, InboundPort, ProxyConfig, TrustBundleSet, Workload, WorkloadPolicies};
use mesh_api::wire::TypeUrl;

use super::destination::{self, Facts};
use super::{Desired, Encoded, ResourceKey};
use crate::registry::{Effect, Registry, WorkloadKey};

/// Builds what `key` names. The facts are complete: as long as none of them changes, the resource does not.
#[must_use]
pub fn build(registry: &Registry, bundle: &TrustBundleSet, key: &ResourceKey) -> (Desired, HashSet<Effect>) {
    let mut facts = HashSet::new();
    let desired = match key {
        ResourceKey::TrustBundle => {
            facts.insert(Effect::TrustBundle);
            Desired::Present(Encoded::of(TypeUrl::TrustBundle, bundle))
        }
        ResourceKey::ProxyConfig(workload) => {
            facts.insert(Effect::Settings);
            facts.insert(Effect::Workload(workload.clone()));
            facts.insert(Effect::ServicesOf(workload.clone()));
            own(registry, workload, |workload| {
                Encoded::of(TypeUrl::ProxyConfig, &proxy_config(registry, workload))
            })
        }
        ResourceKey::WorkloadPolicies(workload) => {
            facts.insert(Effect::Settings);
            facts.insert(Effect::Workload(workload.clone()));
            facts.insert(Effect::Policies(workload.clone()));
            own(registry, workload, |workload| {
                Encoded::of(TypeUrl::WorkloadPolicies, &policies(registry, workload))
            })
        }
        ResourceKey::Destination(client, key) => {
            let mut facts_read = Facts::new(&mut facts);
            let destination = match key {
                DestinationKey::Host(host) => destination::by_host(registry, client, host, &mut facts_read),
                DestinationKey::Address(address) => {
                    destination::by_address(registry, client, *address, &mut facts_read)
                }
            };
            destination.map_or(Desired::Absent, |destination| {
                Desired::Present(Encoded::of(TypeUrl::Destination, &destination))
            })
        }
    };
    (desired, facts)
}

/// A resource of the proxy's own workload. While the workload is not known nothing is said: the answer
/// "there is none" would take from a running proxy what protects its workload.
fn own(
    registry: &Registry,
    key: &WorkloadKey,
    encode: impl FnOnce(&Workload) -> std::sync::Arc<Encoded>,
) -> Desired {
    registry.workload(key).map_or(Desired::Unknown, |workload| Desired::Present(encode(workload)))
}

/// Settings and own workload of a proxy.
#[must_use]
pub fn proxy_config(registry: &Registry, workload: &Workload) -> ProxyConfig {
    let object = &workload.meta.object;
    ProxyConfig {
        mesh: registry.settings().as_ref().clone(),
        workload: object.name.as_str().to_owned(),
        namespace: object.namespace.clone(),
        service_account: workload.service_account.clone(),
        labels: workload.labels.clone(),
        addresses: workload.addresses.clone(),
        inbound: inbound_ports(registry, workload),
    }
}

/// Target ports that services declare for a workload; of several services for one port the first in order
/// of precedence speaks.
#[must_use]
pub fn inbound_ports(registry: &Registry, workload: &Workload) -> Vec<InboundPort> {
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for service in registry.services_of(workload) {
        for port in &service.ports {
            let target = destination::target_port(port, workload);
            ports.entry(target).or_insert_with(|| InboundPort {
                port: target,
                protocol: port.protocol,
                service_host: service.hosts.first().map_or_else(String::new, ToString::to_string),
                service_name: service.meta.object.name.as_str().to_owned(),
                service_namespace: service.meta.object.namespace.as_str().to_owned(),
            });
        }
    }
    ports.into_values().collect()
}

/// The policies that apply to a workload.
#[must_use]
pub fn policies(registry: &Registry, workload: &Workload) -> WorkloadPolicies {
    let modes = registry.modes_of(workload);
    WorkloadPolicies {
        authorization: registry.authorization_of(workload),
        peer: registry.peer_of(workload),
        request: registry.request_of(workload),
        // Keys in line travel with their rule; what is fetched is added where the fetcher publishes it.
        key_sets: mesh_api::model::KeySets::default(),
        mtls: modes.default,
        mtls_ports: modes.ports,
    }
}
