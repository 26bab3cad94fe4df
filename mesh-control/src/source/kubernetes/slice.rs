//! EndpointSlices: what is behind a service that selects nobody, and for whose zones its endpoints are meant.
//!
//! Of slices that Kubernetes keeps for a service with a selector only the hints are read: the pods themselves say
//! sooner whether they are ready. Any other slice (made by hand, by an operator, mirrored from Endpoints) lists
//! endpoints: a pod that it refers to is known with its identity, and anything else is an address outside of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use mesh_api::model::{Availability, ObjectMeta, ObjectRef, Service, Workload};
use mesh_api::name::{Labels, ObjectName, ServiceAccount};

/// Label with the name of a slice's service.
const SERVICE: &str = "kubernetes.io/service-name";
/// Label with the one who keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`]: Kubernetes, from the selector of the service.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// Most endpoints of one service that are taken from slices. A slice holds at most 1,000.
const LISTED_MAX: usize = 10_000;

/// What a slice says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice {
    /// Name of the service, in the slice's namespace.
    pub(super) service: String,
    zones: BTreeMap<IpAddr, Vec<String>>,
    members: BTreeSet<ObjectName>,
    listed: Vec<Listed>,
}

/// An address that belongs to no pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    address: IpAddr,
    availability: Availability,
    /// Ports by the name of the service's port.
    ports: BTreeMap<String, u16>,
}

/// Reads a slice; `None` for one that belongs to no service or says nothing that is of use.
pub(super) fn read(slice: &EndpointSlice) -> Option<Slice> {
    let label = |name: &str| slice.metadata.labels.as_ref()?.get(name).cloned();
    let mut read = Slice {
        service: label(SERVICE)?,
        zones: BTreeMap::new(),
        members: BTreeSet::new(),
        listed: Vec::new(),
    };
    let is_controllers = label(MANAGED_BY).as_deref() == Some(CONTROLLER);
    let ports: BTreeMap<String, u16> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| Some((port.name.clone().unwrap_or_default(), u16::try_from(port.port?).ok()?)))
        .collect();
    for endpoint in slice.endpoints.iter().flatten() {
        // The first address stands for all of them (EndpointSlice API, `addresses`).
        let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
        let Some(address) = address.map(|address| address.to_canonical()) else { continue };
        let zones: Vec<String> = endpoint
            .hints
            .iter()
            .flat_map(|hints| hints.for_zones.iter().flatten())
            .map(|zone| zone.name.clone())
            .collect();
        if !zones.is_empty() {
            read.zones.insert(address, zones);
        }
        if is_controllers {
            continue;
        }
        match pod_of(endpoint, slice.metadata.namespace.as_deref()) {
            Some(pod) => drop(read.members.insert(pod)),
            None => read.listed.push(Listed {
                address,
                availability: availability(endpoint),
                ports: ports.clone(),
            }),
        }
    }
    let is_empty = read.zones.is_empty() && read.members.is_empty() && read.listed.is_empty();
    (!is_empty).then_some(read)
}

/// The pod that an endpoint refers to. One in another namespace is not believed: nobody may offer a pod of somebody
/// else's under a service of his own.
fn pod_of(endpoint: &Endpoint, namespace: Option<&str>) -> Option<ObjectName> {
    let target = endpoint.target_ref.as_ref()?;
    let is_here = target.namespace.as_deref().is_none_or(|of| Some(of) == namespace);
    (target.kind.as_deref() == Some("Pod") && is_here).then_some(())?;
    ObjectName::parse(target.name.as_deref()?).ok()
}

fn availability(endpoint: &Endpoint) -> Availability {
    let Some(conditions) = &endpoint.conditions else { return Availability::Ready };
    let is_terminating = conditions.terminating.unwrap_or_default();
    // What is not stated is taken for true (EndpointSlice API, `conditions`).
    match (is_terminating, conditions.ready.unwrap_or(true), conditions.serving.unwrap_or(true)) {
        (false, true, _) => Availability::Ready,
        (true, _, true) => Availability::Draining,
        (false, false, _) | (true, _, false) => Availability::Unready,
    }
}

/// A service with what its slices say.
pub(super) fn merge<'s>(service: &Service, slices: impl Iterator<Item = &'s Slice>) -> Service {
    let mut merged = service.clone();
    for slice in slices {
        merged.zone_hints.extend(slice.zones.iter().map(|(address, zones)| (*address, zones.clone())));
        merged.members.extend(slice.members.iter().cloned());
        for listed in &slice.listed {
            if merged.endpoints.len() < LISTED_MAX {
                let name = format!("{}-{}", service.meta.object.name, merged.endpoints.len());
                merged.endpoints.extend(endpoint(service, &name, listed));
            }
        }
    }
    merged
}

fn endpoint(service: &Service, name: &str, listed: &Listed) -> Option<Workload> {
    Some(Workload {
        meta: ObjectMeta {
            object: ObjectRef { name: ObjectName::parse(name).ok()?, ..service.meta.object.clone() },
            labels: Labels::new(),
            annotations: Labels::new(),
            ..service.meta.clone()
        },
        addresses: vec![listed.address],
        dns_name: None,
        labels: Labels::new(),
        service_account: ServiceAccount::parse("default").ok()?,
        ports: listed.ports.clone(),
        weight: 1,
        locality: String::new(),
        meshed: false,
        availability: listed.availability,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    })
}
