//! The objects of a large cluster, and changes to them.

use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// Namespaces over which pods and services are spread.
const NAMESPACES: usize = 20;

/// The namespace of pod or service number `n`.
pub(crate) fn namespace_of(n: usize) -> String {
    format!("team-{}", n % NAMESPACES)
}

/// The application of pod number `n`; services select by it.
pub(crate) fn app_of(n: usize) -> usize {
    n
}

/// What every cluster with the mesh has.
pub(crate) fn found(server: &ApiServer) {
    for name in
        ["istio-system", "default"].map(str::to_owned).into_iter().chain((0..NAMESPACES).map(namespace_of))
    {
        server.put(
            &format!("/api/v1/namespaces/{name}"),
            json!({"metadata": {"labels": {"kubernetes.io/metadata.name": name}}}),
        );
    }
    let settings = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata:\n  name: mesh\n  namespace: istio-system\nspec: {}\n";
    let map = json!({"data": {"mesh.yaml": settings, "inject.yaml": "{}\n"}});
    server.put("/api/v1/namespaces/istio-system/configmaps/mini-mesh", map);
}

/// Pods with an account each, services that select them (several for each pod), and their slices.
pub(crate) fn fill(server: &ApiServer, services: usize, pods: usize) {
    for n in 0..pods {
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/app-{n}", namespace_of(n));
        server.put(&account, json!({}));
        put_pod(server, n, true);
    }
    for n in 0..services {
        let of = n % pods.max(1);
        let (namespace, name) = (namespace_of(of), format!("service-{n}"));
        let address = format!("10.{}.{}.{}", 96 + n / 62_500, n / 250 % 250, n % 250 + 1);
        let service = json!({
            "metadata": {"labels": {"app": format!("app-{of}"), "helm.sh/chart": "app-1.2.3"}},
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
                "selector": {"app": format!("app-{of}")},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
            "status": {"loadBalancer": {}},
        });
        server.put(&format!("/api/v1/namespaces/{namespace}/services/{name}"), service);
        let slice = json!({
            "metadata": {"labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            }},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [pod_address(of)], "conditions": {"ready": true},
                           "targetRef": {"kind": "Pod", "name": format!("app-{of}"), "namespace": namespace}}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        });
        server
            .put(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}-x"), slice);
    }
}

fn pod_address(n: usize) -> String {
    format!("10.200.{}.{}", n / 250, n % 250 + 1)
}

/// Pod number `n`, ready or not, about as long as real ones are.
pub(crate) fn put_pod(server: &ApiServer, n: usize, is_ready: bool) {
    let address = pod_address(n);
    let environment: Vec<Value> = (0..20)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "a value of some length"}))
        .collect();
    let pod = json!({
        "metadata": {
            "labels": {"app": format!("app-{n}"), "version": "v1", "security.istio.io/tlsMode": "istio", "pod-template-hash": "5d8c6f9b7"},
            "annotations": {"sidecar.istio.io/status": "{}", "kubernetes.io/config": "x".repeat(300)},
        },
        "spec": {
            "nodeName": "node-1", "serviceAccountName": format!("app-{n}"), "restartPolicy": "Always",
            "containers": [
                {"name": "app", "image": "example.org/app:1", "env": environment, "ports": [{"name": "http", "containerPort": 8080}]},
                {"name": "mesh-proxy", "image": "example.org/proxy:1", "env": environment},
            ],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
        },
    });
    server.put(&format!("/api/v1/namespaces/{}/pods/app-{n}", namespace_of(n)), pod);
}

/// A policy of the whole mesh that is another in each round.
pub(crate) fn put_policy(server: &ApiServer, round: usize) {
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": [format!("/round/{round}")]}}]}]},
    });
    server.put("/apis/security.istio.io/v1/namespaces/istio-system/authorizationpolicies/everybody", policy);
}
