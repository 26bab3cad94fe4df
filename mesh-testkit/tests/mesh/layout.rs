//! The meshes that tests are about.

use mesh_testkit::MeshLayout;

/// How clients are seen by applications behind a proxy.
pub(crate) const CLIENT: &str = "URI=spiffe://cluster.local/ns/edge/sa/client";

/// A server that answers `instance|method|path|host|x-forwarded-client-cert` on 8080 and 8081.
pub(crate) const WEB: &str = r#"
- name: web
  namespace: shop
  command: [nginx, -e, stderr, -p, "@FOLDER@", -c, "@FOLDER@/nginx.conf", -g, "daemon off; pid scratch/web.pid;"]
  ports: [{port: 8080, name: http}, {port: 8081, name: http-admin}]
"#;
/// Clients in two namespaces, and one that is not in the mesh.
pub(crate) const CLIENTS: &str = r#"
- {name: client, namespace: edge, command: [sleep, infinity]}
- {name: guest, namespace: lab, command: [sleep, infinity]}
- {name: outsider, namespace: out, mesh: false, command: [sleep, infinity]}
"#;
/// A server whose port declares no protocol.
pub(crate) const CACHE: &str = r#"
- name: cache
  namespace: shop
  command: [redis-server, --port, "6379", --bind, "*", "-::*", --save, "", --protected-mode, "no"]
  ports: [6379]
"#;

/// A folder with what the applications need.
pub(crate) fn layout() -> MeshLayout {
    MeshLayout::new()
        .file("nginx.conf", include_str!("../../fixtures/nginx.conf"))
        .file("grpc_server.py", include_str!("../../fixtures/grpc_server.py"))
        .file("grpc_client.py", include_str!("../../fixtures/grpc_client.py"))
        .file("counting_server.py", include_str!("../../fixtures/counting_server.py"))
        .file("counting_client.py", include_str!("../../fixtures/counting_client.py"))
        .file("websocket_server.py", include_str!("../../fixtures/websocket_server.py"))
        .file("websocket_client.py", include_str!("../../fixtures/websocket_client.py"))
}

/// A `mesh.yaml` of these workloads.
pub(crate) fn mesh_of(workloads: &[&str]) -> String {
    format!("config: ./config\nworkloads:{}", workloads.concat())
}

/// A document of this kind with this `spec`, which may be written on several lines.
pub(crate) fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let api = match kind {
        "AuthorizationPolicy" | "PeerAuthentication" | "RequestAuthentication" => "security.istio.io/v1",
        "MeshConfig" => "mini-mesh.io/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let spec: String = spec.trim().lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\nspec:\n{spec}"
    )
}
