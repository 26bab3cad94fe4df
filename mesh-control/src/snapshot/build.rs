//! Builds one resource from the registry, and says which facts it read.

use std::collections::{BTreeMap, HashSet};

use mesh_api::model::{
    CandidatePolicies, DestinationKey, InboundPort, KeySet, KeySets, ProxyConfig, RequestAuthentication,
    TrustBundleSet, Workload, WorkloadPolicies,
};
use mesh_api::wire::TypeUrl;

use super::destination::{self, Facts};
use super::{Desired, Encoded, ResourceKey};
use crate::jwks::schedule::NOT_YET;
use crate::registry::{Effect, Registry, WorkloadKey};

/// Keys that one workload is sent, in bytes. With its policies they must fit into one message
/// ([`mesh_api::wire::MESSAGE_BYTES_MAX`]), or else the workload would be sent nothing at all.
const KEYS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What resources are built from.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// Objects in force.
    pub registry: &'a Registry,
    /// Roots.
    pub bundle: &'a TrustBundleSet,
    /// Keys that are known, by source.
    pub keys: &'a KeySets,
}

/// Builds what `key` names. The facts are complete: as long as none of them changes, the resource does not.
#[must_use]
pub fn build(from: Knowledge<'_>, key: &ResourceKey) -> (Desired, HashSet<Effect>) {
    let Knowledge { registry, bundle, keys } = from;
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
                let policies = policies(registry, keys, workload);
                facts.extend(policies.key_sets.keys().cloned().map(Effect::Keys));
                let tried = policies.candidate.iter().flat_map(|candidate| candidate.key_sets.keys());
                facts.extend(tried.cloned().map(Effect::Keys));
                Encoded::of(TypeUrl::WorkloadPolicies, &policies)
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
        locality: workload.locality.clone(),
        completed: workload.is_completed,
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

/// The policies that apply to a workload, with what `keys` knows of the sources that their rules name.
#[must_use]
pub fn policies(registry: &Registry, keys: &KeySets, workload: &Workload) -> WorkloadPolicies {
    let modes = registry.modes_of(workload);
    let request = registry.request_of(workload);
    let mut room = KEYS_BYTES_MAX;
    let key_sets = key_sets(&request, keys, &KeySets::new(), &mut room);
    let candidate = registry.candidate_of(workload).map(|candidate| {
        let sets = self::key_sets(&candidate.request, keys, &key_sets, &mut room);
        Box::new(CandidatePolicies { key_sets: sets, ..candidate })
    });
    WorkloadPolicies {
        authorization: registry.authorization_of(workload),
        peer: registry.peer_of(workload),
        key_sets,
        request,
        candidate,
        mtls: modes.default,
        mtls_ports: modes.ports,
        telemetry: registry.telemetry_of(workload),
    }
}

/// What is known of each source that rules name and that is not among `others`, within `room` bytes; keys in
/// line travel with their rule.
fn key_sets(
    policies: &[std::sync::Arc<RequestAuthentication>],
    keys: &KeySets,
    others: &KeySets,
    room: &mut usize,
) -> KeySets {
    let mut sets = KeySets::new();
    let sources = policies.iter().flat_map(|policy| &policy.jwt_rules).map(|rule| rule.key_source());
    for source in sources {
        let Some(url) = source.url() else { continue };
        if sets.contains_key(url) || others.contains_key(url) {
            continue;
        }
        let unknown = || KeySet { jwks: None, problem: NOT_YET.to_owned() };
        let mut set = keys.get(url).cloned().unwrap_or_else(unknown);
        let bytes = set.jwks.as_ref().map_or(0, |jwks| jwks.len());
        if bytes > *room {
            let problem =
                format!("the keys of the workload's policies take more than {KEYS_BYTES_MAX} bytes");
            set = KeySet { jwks: None, problem };
            *room = 0;
        } else {
            *room -= bytes;
        }
        sets.insert(url.to_owned(), set);
    }
    sets
}
