//! Ports of services that do not say their protocol.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::api::ListParams;

use super::catalogue::PORTS_NAMED;
use super::report::{Mark, Report};
use crate::cluster::Cluster;

/// Prefixes of port names that say a protocol (istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection).
const PROTOCOLS: [&str; 11] =
    ["http", "http2", "https", "grpc", "grpc-web", "tcp", "tls", "mongo", "mysql", "redis", "udp"];

/// Looks at the services of namespaces with proxies.
pub(super) async fn look(cluster: &Cluster, namespace: Option<&str>, report: &mut Report) {
    let namespaces: BTreeSet<String> = match cluster.meshed_pods(namespace).await {
        Ok(pods) => pods.into_iter().map(|pod| pod.namespace).collect(),
        Err(error) => return report.unanswered(PORTS_NAMED, &error),
    };
    let mut lines = Vec::new();
    for namespace in namespaces {
        match cluster.list::<Service>(Some(&namespace), &ListParams::default()).await {
            Ok(services) => lines.extend(services.iter().flat_map(|service| silent(&namespace, service))),
            Err(error) => return report.unanswered(PORTS_NAMED, &error),
        }
    }
    report.judge(PORTS_NAMED, Mark::Doubtful, lines);
}

fn silent(namespace: &str, service: &Service) -> Vec<String> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        return Vec::new();
    }
    let ports = spec.and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports
        .filter(|port| !says_protocol(port))
        .map(|port| {
            let named = match port.name.as_deref().unwrap_or_default() {
                "" => String::new(),
                name => format!(" ({name})"),
            };
            format!("service {name}.{namespace}, port {}{named}", port.port)
        })
        .collect()
}

fn says_protocol(port: &ServicePort) -> bool {
    if port.app_protocol.is_some() || port.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
        return true;
    }
    let name = port.name.as_deref().unwrap_or_default();
    PROTOCOLS.iter().any(|protocol| {
        name.strip_prefix(protocol).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_says_its_protocol_by_name_or_field() {
        let says = |port: serde_json::Value| says_protocol(&serde_json::from_value(port).expect("a port"));
        for port in [
            json!({"port": 1, "name": "http"}),
            json!({"port": 1, "name": "grpc-web-x"}),
            json!({"port": 1, "name": "x", "appProtocol": "http"}),
            json!({"port": 1, "name": "dns", "protocol": "UDP"}),
        ] {
            assert!(says(port.clone()), "{port}");
        }
        for port in
            [json!({"port": 1}), json!({"port": 1, "name": "web"}), json!({"port": 1, "name": "httpx"})]
        {
            assert!(!says(port.clone()), "{port}");
        }
    }
}
