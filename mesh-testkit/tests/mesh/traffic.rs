//! Where requests go: versions, weights, headers, balancing, and what lies outside of the mesh.

use std::collections::BTreeMap;

use mesh_testkit::{LocalMesh, eventually};

use crate::layout::{CLIENTS, WEB, document, layout, mesh_of};

/// Three instances of two versions behind one service.
const VERSIONS: &str = r#"
- name: v1
  namespace: shop
  serviceAccount: web
  labels: {app: site, version: v1}
  replicas: 2
  command: [nginx, -e, stderr, -p, "@FOLDER@", -c, "@FOLDER@/nginx.conf", -g, "daemon off; pid scratch/v1.pid;"]
- name: v2
  namespace: shop
  serviceAccount: web
  labels: {app: site, version: v2}
  command: [nginx, -e, stderr, -p, "@FOLDER@", -c, "@FOLDER@/nginx.conf", -g, "daemon off; pid scratch/v2.pid;"]
"#;
const SERVICE: &str = r#"
services:
- name: site
  namespace: shop
  ports: [{port: 80, targetPort: 8080, name: http}]
"#;
const SUBSETS: &str =
    "host: site\nsubsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";

/// How often each instance answered `count` requests, which all must succeed.
fn answers(mesh: &LocalMesh, count: u32, curl: &str) -> BTreeMap<String, u32> {
    // A connection each, as of separate clients.
    let script = format!(
        "for i in $(seq {count}); do curl -sS --max-time 20 {curl} -w ' %{{http_code}}\\n' http://site.shop/; done"
    );
    let said = mesh.exec_must("client.edge", &["sh", "-c", &script]);
    let mut found = BTreeMap::new();
    for line in said.lines() {
        assert!(line.ends_with(" 200"), "{line}");
        let instance = line.split('|').next().unwrap_or_default();
        *found.entry(instance.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(found.values().sum::<u32>(), count, "{said}");
    found
}

fn becomes(mesh: &LocalMesh, what: &str, curl: &str, wanted: &[&str]) {
    eventually(what, || {
        let found: Vec<String> = answers(mesh, 12, curl).into_keys().collect();
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn versions_weights_and_headers_lead_requests() {
    let mesh = layout().up(&format!("{}{SERVICE}", mesh_of(&[VERSIONS, CLIENTS])));
    becomes(&mesh, "all instances share the requests", "", &["v1-0", "v1-1", "v2"]);
    mesh.configure("subsets.yaml", &document("DestinationRule", "shop", "site", SUBSETS));
    let route = "hosts: [site]\nhttp:\n- match: [{headers: {x-beta: {exact: 'yes'}}}]\n  route: [{destination: {host: site, subset: v2}}]\n- route: [{destination: {host: site, subset: v1}}]";
    mesh.configure("route.yaml", &document("VirtualService", "shop", "site", route));
    becomes(&mesh, "v1 for everybody", "", &["v1-0", "v1-1"]);
    becomes(&mesh, "v2 for who asks for it", "-H 'x-beta: yes'", &["v2"]);
    let weights = "hosts: [site.shop.svc.cluster.local]\nhttp:\n- route:\n  - destination: {host: site, subset: v1}\n    weight: 20\n  - destination: {host: site, subset: v2}\n    weight: 80";
    mesh.configure("route.yaml", &document("VirtualService", "shop", "site", weights));
    becomes(&mesh, "both are used again", "", &["v1-0", "v1-1", "v2"]);
    let found = answers(&mesh, 200, "");
    // 160 expected; the chance of being 40 off is below one in a million million.
    assert!((120..=195).contains(&found["v2"]), "{found:?}");
    mesh.deconfigure("route.yaml");
    let balanced = format!("{SUBSETS}\ntrafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}}}");
    mesh.configure("subsets.yaml", &document("DestinationRule", "shop", "site", &balanced));
    eventually("round robin gives each its share", || {
        let found = answers(&mesh, 30, "");
        let is_even = found.len() == 3 && found.values().all(|count| (7..=13).contains(count));
        if is_even { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn what_is_outside_is_reached_when_it_is_registered_or_everything_may_be() {
    const OUTSIDE: &str = r#"
- name: outside
  namespace: out
  mesh: false
  command: [nginx, -e, stderr, -p, "@FOLDER@", -c, "@FOLDER@/nginx.conf", -g, "daemon off; pid scratch/out.pid;"]
"#;
    let mesh = layout().up(&mesh_of(&[WEB, OUTSIDE, CLIENTS]));
    let address = mesh.address("outside");
    let by_address = format!("http://{address}:8080/");
    let by_name = "http://api.example.com/";
    let direct = mesh.curl("client.edge", &[&by_address]);
    assert!(direct.status == 200 && direct.body.starts_with("outside|"), "{direct:?}");
    // No identity of the mesh is told to those outside of it.
    assert!(direct.body.ends_with('|'), "{direct:?}");
    assert_eq!(mesh.curl("client.edge", &[by_name]).status, 0, "a name that nobody knows");
    // Nobody has this address: it is tried as long as everything may be.
    let unknown = "http://10.77.200.200:8080/";
    let tried = mesh.curl("client.edge", &[unknown]);
    assert_eq!(tried.status, 0, "{tried:?}");
    mesh.configure(
        "policy.yaml",
        &document("MeshConfig", "istio-system", "default", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"),
    );
    eventually("what is not registered is not tried", || {
        let answer = mesh.curl("client.edge", &[unknown]);
        if answer.status == 502 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let inside = mesh.curl("client.edge", &["http://web.shop:8080/"]);
    assert_eq!(inside.status, 200, "{inside:?}");
    let spec = format!(
        "hosts: [api.example.com]\nlocation: MESH_EXTERNAL\nresolution: STATIC\nports: [{{number: 80, name: http, protocol: HTTP}}]\nendpoints: [{{address: {address}, ports: {{http: 8080}}}}]"
    );
    mesh.configure("entry.yaml", &document("ServiceEntry", "edge", "api", &spec));
    let answer = eventually("what is registered is reached by its name", || {
        let answer = mesh.curl("client.edge", &[by_name]);
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(answer.body.starts_with("outside|GET|/|api.example.com|"), "{answer:?}");
}
