//! The cluster that is measured: services with one pod each, pods of simulated proxies, and one policy for all.

use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// Namespaces that services and pods are spread over.
pub(crate) const NAMESPACES: usize = 50;
/// Collection of policies.
pub(crate) const POLICIES: &str = "security.istio.io/v1/authorizationpolicies";
/// Collection of pods.
pub(crate) const PODS: &str = "/v1/pods";
const SERVICES: &str = "/v1/services";
const SLICES: &str = "discovery.k8s.io/v1/endpointslices";

/// Namespace of the `n`th service or proxy.
pub(crate) fn namespace(n: usize) -> String {
    format!("team-{}", n % NAMESPACES)
}

/// Name of the `n`th service, of its service account and of the label that it selects.
pub(crate) fn service(n: usize) -> String {
    format!("service-{n}")
}

/// Pod of the `n`th simulated proxy.
pub(crate) fn client(n: usize) -> String {
    format!("client-{n}")
}

/// Cluster address of the `n`th service, from 10.96.0.0/12.
pub(crate) fn service_address(n: usize) -> String {
    format!("10.{}.{}.{}", 100 + n / 65_536, n / 256 % 256, n % 256)
}

/// Puts namespaces, services, pods and endpoints into the cluster.
pub(crate) fn furnish(server: &ApiServer, services: usize, proxies: usize) {
    for n in 0..NAMESPACES {
        let metadata = json!({ "name": namespace(n), "labels": { "istio-injection": "enabled" } });
        server
            .put("/v1/namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }));
    }
    let metadata = json!({ "name": mesh_kube::name::SYSTEM_NAMESPACE });
    server.put("/v1/namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }));
    server.put("/v1/configmaps", settings());
    server.put(
        "/v1/nodes",
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node",
            "labels": { "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z" } } }),
    );
    for n in 0..services {
        server.put(SERVICES, service_object(n));
        let pod = format!("{}-0", service(n));
        server.put(PODS, pod_object(n, &pod, &service(n), &address(1, n), true));
        server.put(SLICES, slice_object(n, &pod));
    }
    for n in 0..proxies {
        server.put(PODS, pod_object(n, &client(n), "client", &address(2, n), true));
    }
    for n in 0..200.min(services) {
        server.put(POLICIES, policy_object(n));
    }
}

/// A pod of a service; `is_ready` says whether it takes traffic.
pub(crate) fn pod_object(n: usize, name: &str, app: &str, address: &str, is_ready: bool) -> Value {
    let ready = if is_ready { "True" } else { "False" };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace(n),
            "labels": { "app": app, "security.istio.io/tlsMode": "istio" },
        },
        "spec": {
            "serviceAccountName": app,
            "nodeName": "node",
            "containers": [{ "name": "app", "image": "app", "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": ready }],
            "containerStatuses": [{ "name": "app", "ready": is_ready, "restartCount": 0, "image": "app", "imageID": "",
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } } }],
        },
    })
}

/// A policy for the whole mesh; `path` is what changes of it.
pub(crate) fn mesh_policy(path: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "everywhere", "namespace": mesh_kube::name::SYSTEM_NAMESPACE, "generation": 1 },
        "spec": { "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": [path] } }] }] },
    })
}

/// Address of the `n`th pod of a kind.
pub(crate) fn address(kind: usize, n: usize) -> String {
    format!("10.{}.{}.{}", 10 * kind + n / 65_536, n / 256 % 256, n % 256)
}

/// What an installation says of the mesh and of injection.
fn settings() -> Value {
    let mesh = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh, namespace: istio-system}\nspec: {}\n";
    let inject = "image: mini-mesh/mesh-proxy:0\n";
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": mesh_kube::name::CONFIG, "namespace": mesh_kube::name::SYSTEM_NAMESPACE },
        "data": { mesh_kube::name::CONFIG_MESH: mesh, mesh_kube::name::CONFIG_INJECT: inject },
    })
}

fn service_object(n: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service(n), "namespace": namespace(n) },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service_address(n),
            "clusterIPs": [service_address(n)],
            "selector": { "app": service(n) },
            "ports": [{ "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" }],
        },
    })
}

fn slice_object(n: usize, pod: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-slice", service(n)),
            "namespace": namespace(n),
            "labels": {
                "kubernetes.io/service-name": service(n),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [address(1, n)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "targetRef": { "kind": "Pod", "name": pod, "namespace": namespace(n) },
            "nodeName": "node",
        }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn policy_object(n: usize) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": format!("{}-callers", service(n)), "namespace": namespace(n), "generation": 1 },
        "spec": {
            "selector": { "matchLabels": { "app": service(n) } },
            "rules": [{ "from": [{ "source": { "namespaces": [namespace(n), namespace(n + 1)] } }] }],
        },
    })
}
