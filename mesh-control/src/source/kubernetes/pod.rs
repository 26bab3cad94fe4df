//! A pod, as far as the mesh needs it, and the workload that it is.
//!
//! The whole of a pod is some ten kilobytes, most of it said twice; what is read here is a tenth of that.
//!
//! At the edges: a pod that has ended (`Succeeded`, `Failed`) is none; one without an address yet is known, so that its
//! proxy finds itself, and gets no traffic; one on the network of its node is called by its services' names alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::api::{Object, ObjectMeta};
use mesh_api::model::{self, Availability, Kind, ObjectRef, Origin, Workload};
use mesh_api::name::{Host, Labels, Namespace, ObjectName, ServiceAccount};
use mesh_kube::name::{ANNOTATION_STATUS, LABEL_TLS_MODE, PROXY_CONTAINER, TLS_MODE};
use serde::{Deserialize, Serialize};

/// A pod as it is read.
pub(super) type Pod = Object<Spec, Status>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) node_name: Option<String>,
    service_account_name: Option<String>,
    hostname: Option<String>,
    subdomain: Option<String>,
    host_network: bool,
    restart_policy: Option<String>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    container_port: i32,
    protocol: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Address>,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Address {
    ip: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    state: ContainerState,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct ContainerState {
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
}

/// Annotations of a pod that are kept: those by which injection is asked for or was done, and that of a static
/// pod.
const KEPT_ANNOTATIONS: [&str; 4] =
    ["sidecar.istio.io/", "mini-mesh.io/", "linkerd.io/inject", "kubernetes.io/config.mirror"];

/// The workload that a pod is; `None` for one that has ended, or whose name nobody could refer to. `locality` is that
/// of its node.
pub(super) fn workload(pod: &Pod, origin: &Origin, locality: &str, cluster_domain: &str) -> Option<Workload> {
    let none = Status::default();
    let status = pod.status.as_ref().unwrap_or(&none);
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let meta = meta(&pod.metadata, origin)?;
    let labels: Labels = pod.metadata.labels.clone().unwrap_or_default();
    let annotation = |name: &str| meta.annotations.contains_key(name);
    let is_injected = labels.get(LABEL_TLS_MODE).is_some_and(|mode| mode == TLS_MODE);
    let account = pod.spec.service_account_name.as_deref().unwrap_or("default");
    Some(Workload {
        addresses: addresses(status),
        dns_name: None,
        service_account: ServiceAccount::parse(account).ok()?,
        ports: ports(&pod.spec),
        weight: 1,
        locality: locality.to_owned(),
        // A proxy in the network of its node would take over that of everybody there; injection refuses it.
        meshed: !pod.spec.host_network && (is_injected || annotation(ANNOTATION_STATUS)),
        availability: availability(&pod.metadata, status),
        shares_addresses: pod.spec.host_network,
        hosts: hosts(&pod.spec, &meta.object, cluster_domain),
        is_completed: is_completed(&pod.spec, status),
        labels,
        meta,
    })
}

fn meta(meta: &ObjectMeta, origin: &Origin) -> Option<model::ObjectMeta> {
    let annotations = meta.annotations.iter().flatten();
    let is_kept = |name: &str| KEPT_ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix));
    Some(model::ObjectMeta {
        object: ObjectRef {
            kind: Kind::Pod,
            namespace: Namespace::parse(meta.namespace.as_deref()?).ok()?,
            name: ObjectName::parse(meta.name.as_deref()?).ok()?,
        },
        labels: BTreeMap::new(),
        annotations: annotations
            .filter(|(name, _)| is_kept(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        created: super::cluster::created(meta),
        origin: origin.clone(),
    })
}

fn addresses(status: &Status) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().filter_map(|address| address.ip.as_deref());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in listed.chain(status.pod_ip.as_deref()) {
        let Ok(address) = text.parse::<IpAddr>() else { continue };
        let address = address.to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn ports(spec: &Spec) -> BTreeMap<String, u16> {
    let containers = spec.init_containers.iter().chain(&spec.containers);
    let ports = containers.filter(|container| container.name != PROXY_CONTAINER).flat_map(|one| &one.ports);
    let is_tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let named = ports.filter(is_tcp).filter_map(|port| {
        let name = port.name.clone().filter(|name| !name.is_empty())?;
        Some((name, u16::try_from(port.container_port).ok()?))
    });
    named.collect()
}

/// A pod that is being deleted serves as long as it is ready, and gets nothing new
/// (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>).
fn availability(meta: &ObjectMeta, status: &Status) -> Availability {
    let is_ready =
        status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
    match (is_ready, meta.deletion_timestamp.is_some()) {
        (true, false) => Availability::Ready,
        (true, true) => Availability::Draining,
        (false, _) => Availability::Unready,
    }
}

/// The pod's own name, if it states both parts of it
/// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-hostname-and-subdomain-fields>).
fn hosts(spec: &Spec, object: &ObjectRef, cluster_domain: &str) -> Vec<Host> {
    let (Some(hostname), Some(subdomain)) = (&spec.hostname, &spec.subdomain) else { return Vec::new() };
    let name = format!("{hostname}.{subdomain}.{}.svc.{cluster_domain}", object.namespace);
    Host::parse(&name).into_iter().collect()
}

/// Whether every container but the proxy's has ended and none will be started again.
fn is_completed(spec: &Spec, status: &Status) -> bool {
    let own = || spec.containers.iter().filter(|container| container.name != PROXY_CONTAINER);
    let has_ended = |container: &Container| {
        let known = status.container_statuses.iter().find(|status| status.name == container.name);
        known.and_then(|status| status.state.terminated.as_ref()).is_some_and(|ended| {
            match spec.restart_policy.as_deref() {
                Some("Never") => true,
                Some("OnFailure") => ended.exit_code == 0,
                _ => false,
            }
        })
    };
    spec.containers.len() > own().count() && own().next().is_some() && own().all(has_ended)
}
