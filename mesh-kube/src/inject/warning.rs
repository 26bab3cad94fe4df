//! What the author of an injected pod should know, beside what single annotations have to tell.

use std::collections::BTreeMap;

use serde_json::Value;

use super::annotation::{Effective, Include, Traffic};
use super::decision::NamespaceMeta;
use super::{pod, probes, sidecar};
use crate::name;

/// Tells what an injected pod's author should know.
pub(super) fn warn(
    pod: &Value,
    namespace: &NamespaceMeta,
    effective: &Effective,
    form: sidecar::Form,
    warnings: &mut Vec<String>,
) {
    if form != sidecar::Form::NativeSidecar && !pod::list(pod, "initContainers").is_empty() {
        warnings.push(
            "without native sidecars, the pod's init containers run before the proxy: they have the network, but not the mesh's, and where STRICT is in force they are refused"
                .to_owned(),
        );
    }
    if !effective.rewrites_probes && pod::containers(pod).any(probes::has_any) {
        warnings.push(
            "sidecar.istio.io/rewriteAppHTTPProbers leaves the probes as they are; where STRICT is in force they fail"
                .to_owned(),
        );
    }
    let left_alone = ports_left_alone(pod, &effective.traffic);
    if !left_alone.is_empty() {
        warnings.push(format!(
            "the inbound ports {} pass by the proxy, but clients in the mesh send them mutual TLS unless a PeerAuthentication has portLevelMtls DISABLE for them",
            left_alone.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ));
    }
    const AMBIENT: &str = "istio.io/dataplane-mode";
    let is_ambient =
        |labels: &BTreeMap<String, String>| labels.get(AMBIENT).is_some_and(|mode| mode == "ambient");
    if is_ambient(&pod::metadata(pod, "labels")) || is_ambient(&namespace.labels) {
        warnings.push(format!("the label {AMBIENT}: ambient has no effect in this mesh; pods have sidecars"));
    }
    if pod::metadata(pod, "annotations").get(name::LINKERD_INJECT).is_some_and(|value| value == "ingress") {
        warnings.push(format!("{}: ingress is read as enabled", name::LINKERD_INJECT));
    }
    let enforced = namespace.labels.get("pod-security.kubernetes.io/enforce").map(String::as_str);
    if let Some(level @ ("baseline" | "restricted")) = enforced {
        warnings.push(format!(
            "the namespace enforces the Pod Security level {level:?}, which refuses the init container {}: it needs NET_ADMIN",
            name::INIT_CONTAINER
        ));
    }
}

/// The TCP ports that containers name and interception leaves alone.
fn ports_left_alone(pod: &Value, traffic: &Traffic) -> Vec<u16> {
    let ports = pod::containers(pod).filter_map(|container| container.get("ports")?.as_array()).flatten();
    let tcp = ports.filter(|port| matches!(pod::text(port, "protocol"), "" | "TCP"));
    let numbers = tcp.filter_map(|port| u16::try_from(port.get("containerPort")?.as_u64()?).ok());
    let is_included = |port: &u16| match &traffic.include_inbound_ports {
        Include::All => true,
        Include::Only(ports) => ports.contains(port),
    };
    numbers.filter(|port| !is_included(port) || traffic.exclude_inbound_ports.contains(port)).collect()
}
