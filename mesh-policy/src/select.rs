//! Which policies concern a workload (SEMANTICS 1.2 to 1.4).
//!
//! Candidates come from the root namespace and from the workload's own, then selectors and target
//! references decide. All that remain apply together. A policy with target references never falls back to
//! "the whole namespace" on a plain sidecar: it does not concern it at all. What is tried only is not selected;
//! see [`crate::trial`].

use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, MeshSettings, ObjectMeta, RequestAuthentication, Selector, TargetRef,
};
use mesh_api::name::{Labels, Namespace, ServiceAccount};

/// Label that marks the pods of a Kubernetes Gateway and names it.
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// API group of the target references that a gateway pod honours.
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The workload that policies select.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its service account.
    pub service_account: &'a ServiceAccount,
}

impl Subject<'_> {
    /// Name of the Kubernetes Gateway that the workload serves, if it serves one.
    #[must_use]
    pub fn gateway_name(&self) -> Option<&str> {
        self.labels.get(GATEWAY_NAME_LABEL).map(String::as_str)
    }
}

/// The AuthorizationPolicies that apply to `subject`, oldest first.
#[must_use]
pub fn authorization(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    policies: &[Arc<AuthorizationPolicy>],
) -> Vec<Arc<AuthorizationPolicy>> {
    in_force(mesh, subject, policies, |policy| (&policy.meta, &policy.selector, &policy.targets))
}

/// The RequestAuthentications that apply to `subject`, oldest first; their rules are put in the order of their
/// issuers when they are compiled ([`crate::authenticate::Authenticator::compile`]).
#[must_use]
pub fn request_authentication(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    policies: &[Arc<RequestAuthentication>],
) -> Vec<Arc<RequestAuthentication>> {
    in_force(mesh, subject, policies, |policy| (&policy.meta, &policy.selector, &policy.targets))
}

/// Those in force that apply to `subject`, oldest first, whatever their kind.
fn in_force<P>(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    policies: &[Arc<P>],
    scope: impl Fn(&P) -> (&ObjectMeta, &Selector, &[TargetRef]),
) -> Vec<Arc<P>> {
    let is_chosen = |policy: &&Arc<P>| {
        let (meta, selector, targets) = scope(policy);
        meta.is_in_force() && applies(mesh, subject, meta, selector, targets)
    };
    let mut chosen: Vec<_> = policies.iter().filter(is_chosen).map(Arc::clone).collect();
    chosen.sort_by(|a, b| scope(a).0.age_key().cmp(&scope(b).0.age_key()));
    chosen
}

/// Whether a policy with this metadata, selector and target references is meant for `subject`: in force, or to
/// be tried.
#[must_use]
pub fn applies(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    meta: &ObjectMeta,
    selector: &Selector,
    targets: &[TargetRef],
) -> bool {
    let namespace = &meta.object.namespace;
    if targets.is_empty() {
        return (*namespace == mesh.root_namespace || namespace == subject.namespace)
            && selector.selects(subject.labels);
    }
    // Service, ServiceEntry and GatewayClass references bind at a waypoint only, and this mesh has none.
    subject.gateway_name().is_some_and(|gateway| {
        namespace == subject.namespace
            && targets.iter().any(|target| {
                target.group == GATEWAY_GROUP && target.kind == "Gateway" && target.name == gateway
            })
    })
}
