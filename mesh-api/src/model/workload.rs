//! A workload: one running instance with one address (WorkloadEntry, or a pod).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ObjectMeta;
use crate::name::{Host, Labels, ServiceAccount};

/// Whether a workload takes connections. One that a file states is taken to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Availability {
    /// It takes connections.
    #[default]
    Ready,
    /// It does not take connections yet, or not any more: clients are not sent to it, unless its service
    /// publishes addresses that are not ready.
    Unready,
    /// It is about to end: connections that exist may finish, and no new ones are begun.
    Draining,
}

/// One running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Addresses: the first is used, a second of the other family is known too.
    pub addresses: Vec<IpAddr>,
    /// DNS name in place of an address (WorkloadEntry `address: example.com`).
    pub dns_name: Option<String>,
    /// Labels that services and policies select by.
    pub labels: Labels,
    /// Service account, `default` unless stated.
    pub service_account: ServiceAccount,
    /// Ports by name, overriding the service's target port.
    pub ports: BTreeMap<String, u16>,
    /// Share of traffic relative to its neighbours; default 1, 0 means none.
    pub weight: u32,
    /// Locality `region/zone/subzone`, possibly empty.
    pub locality: String,
    /// Whether a proxy of the mesh serves it (label `security.istio.io/tlsMode: istio`, or an annotation of
    /// the source); only such endpoints are sent mutual TLS.
    pub meshed: bool,
    /// Whether it takes connections.
    #[serde(default)]
    pub availability: Availability,
    /// Its addresses are those of its machine, and of others on it (a pod with `hostNetwork`): who dials one of
    /// them does not mean this workload.
    #[serde(default)]
    pub shares_addresses: bool,
    /// Names of this very workload (`web-0.web.shop.svc.cluster.local`), which hold as long as the headless
    /// service whose name follows the first dot has it behind it.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// What it was started for is done: every container but the mesh's own has ended and none will be started
    /// again.
    #[serde(default)]
    pub is_completed: bool,
}
