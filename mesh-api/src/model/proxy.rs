//! What a proxy is sent about its own workload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AuthorizationPolicy, KeySets, MeshSettings, MtlsMode, ObjectMeta, ObjectRef, PeerAuthentication,
    Protocol, RequestAuthentication, WorkloadTelemetry,
};
use crate::name::{Labels, Namespace, ServiceAccount};

/// A port on which the workload serves, as some service declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPort {
    /// Target port.
    pub port: u16,
    /// Declared protocol.
    pub protocol: Protocol,
    /// Canonical host of the (oldest) service that declares it, for telemetry; empty when none does.
    #[serde(default)]
    pub service_host: String,
    /// Name of that service.
    #[serde(default)]
    pub service_name: String,
    /// Namespace of that service.
    #[serde(default)]
    pub service_namespace: String,
}

/// A proxy's own workload and the mesh's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// Settings of the mesh.
    pub mesh: MeshSettings,
    /// Name of the workload.
    pub workload: String,
    /// Namespace.
    pub namespace: Namespace,
    /// Service account.
    pub service_account: ServiceAccount,
    /// Labels.
    pub labels: Labels,
    /// Own addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports that services declare for it. Other ports are served too, with the workload's mode.
    pub inbound: Vec<InboundPort>,
    /// Own locality `region/zone/subzone`, possibly empty. The proxy keeps to endpoints that are meant for its
    /// zone if every endpoint says for which it is meant and one is for it.
    #[serde(default)]
    pub locality: String,
    /// What the workload was started for is done: the proxy drains and ends.
    #[serde(default)]
    pub completed: bool,
}

/// The policies that apply to a workload, selected by the control plane. The proxy compiles them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadPolicies {
    /// AuthorizationPolicies that select the workload.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    /// PeerAuthentications of the mesh, namespace and workload levels.
    pub peer: Vec<Arc<PeerAuthentication>>,
    /// RequestAuthentications that select the workload.
    pub request: Vec<Arc<RequestAuthentication>>,
    /// Keys of those of their rules that do not state them in line.
    pub key_sets: KeySets,
    /// Effective mode of the workload.
    pub mtls: MtlsMode,
    /// Effective modes of single ports.
    pub mtls_ports: BTreeMap<u16, MtlsMode>,
    /// What is logged, counted and traced.
    pub telemetry: WorkloadTelemetry,
    /// What is tried on live traffic; absent when that is nothing else than what is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Box<CandidatePolicies>>,
}

/// What would be otherwise, were the policies in force that are tried on live traffic. Only the difference is
/// sent: most policies of a workload are the same in both sets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CandidatePolicies {
    /// Policies in force that would not be there.
    pub without: Vec<ObjectRef>,
    /// AuthorizationPolicies that would be there. What is tried carries no annotation of that any more.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    /// PeerAuthentications that would be there.
    pub peer: Vec<Arc<PeerAuthentication>>,
    /// RequestAuthentications that would be there.
    pub request: Vec<Arc<RequestAuthentication>>,
    /// Keys of those of their rules that do not state them in line, as far as they are not sent for the policies
    /// in force.
    pub key_sets: KeySets,
    /// Mode that the workload would have.
    pub mtls: MtlsMode,
    /// Modes that single ports would have.
    pub mtls_ports: BTreeMap<u16, MtlsMode>,
}

impl CandidatePolicies {
    /// The policies as they would be.
    #[must_use]
    pub fn applied_to(&self, live: &WorkloadPolicies) -> WorkloadPolicies {
        let stays = |meta: &ObjectMeta| !self.without.contains(&meta.object);
        let authorization = live.authorization.iter().filter(|policy| stays(&policy.meta));
        let peer = live.peer.iter().filter(|policy| stays(&policy.meta));
        let request = live.request.iter().filter(|policy| stays(&policy.meta));
        let mut applied = WorkloadPolicies {
            authorization: authorization.chain(&self.authorization).cloned().collect(),
            peer: peer.chain(&self.peer).cloned().collect(),
            request: request.chain(&self.request).cloned().collect(),
            key_sets: live
                .key_sets
                .iter()
                .chain(&self.key_sets)
                .map(|(url, set)| (url.clone(), set.clone()))
                .collect(),
            mtls: self.mtls,
            mtls_ports: self.mtls_ports.clone(),
            telemetry: live.telemetry.clone(),
            candidate: None,
        };
        applied.authorization.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        applied.peer.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        applied.request.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        applied
    }

    /// The same for people: keys are shown without what is secret of them.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        shown.request = self.request.iter().map(|policy| Arc::new(policy.redacted())).collect();
        shown.key_sets = self.key_sets.iter().map(|(url, set)| (url.clone(), set.redacted())).collect();
        shown
    }
}

impl WorkloadPolicies {
    /// The same for people: keys are shown without what is secret of them.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        shown.request = self.request.iter().map(|policy| Arc::new(policy.redacted())).collect();
        shown.key_sets = self.key_sets.iter().map(|(url, set)| (url.clone(), set.redacted())).collect();
        shown.candidate = self.candidate.as_ref().map(|candidate| Box::new(candidate.redacted()));
        shown
    }
}

/// Trust anchors by trust domain, as DER certificates. A bundle is always a set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrustBundleSet {
    /// Anchors of each trust domain.
    pub anchors: BTreeMap<String, Vec<Vec<u8>>>,
}
