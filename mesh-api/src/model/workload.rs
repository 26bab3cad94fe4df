//! A workload: one running instance with one address (WorkloadEntry, or a pod).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ObjectMeta;
use crate::name::{Labels, ServiceAccount};

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
}
