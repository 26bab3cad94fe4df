//! Policies that are tried on live traffic: nothing changes for anybody, and what would is counted.

use mesh_testkit::{LocalMesh, RedisSession, eventually};
use serde_json::Value;

use crate::layout::{CACHE, CLIENTS, WEB, document, layout, mesh_of};

/// A document of this kind whose annotation says what is tried of it.
fn tried(kind: &str, name: &str, annotation: &str, spec: &str) -> String {
    let annotations = format!("metadata:\n  annotations: {{mini-mesh.io/dry-run: \"{annotation}\"}}\n");
    document(kind, "shop", name, spec).replace("metadata:\n", &annotations)
}

/// What the proxies counted, by workload.
fn counted(mesh: &LocalMesh) -> Value {
    let answer = mesh.ask(&["policy", "diff", "--live", "-o", "json"]);
    let found = serde_json::from_str(&answer.out);
    assert!(found.is_ok(), "{answer:?}");
    found.expect("asserted")
}

/// The difference that `workload` counted for a caller and a path.
fn difference<'v>(found: &'v Value, workload: &str, caller: &str, path: &str) -> &'v Value {
    let all = found[workload]["differences"].as_array().expect("a list");
    let is_meant =
        |it: &&Value| it["path"] == path && it["caller"].as_str().is_some_and(|it| it.ends_with(caller));
    let meant = all.iter().find(is_meant);
    assert!(meant.is_some(), "{caller} {path}: {found:#}");
    meant.expect("asserted")
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn what_is_tried_changes_nothing_and_is_counted() {
    let mesh = layout().up(&mesh_of(&[WEB, CACHE, CLIENTS]));
    let only_edge = "selector: {matchLabels: {app: web}}\nrules: [{from: [{source: {namespaces: [edge]}}]}, {to: [{operation: {paths: [/open]}}]}]";
    let no_admin = "selector: {matchLabels: {app: web}}\naction: DENY\nrules: [{to: [{operation: {paths: ['/admin*']}}]}]";
    let text = [
        tried("AuthorizationPolicy", "only-edge", "delete", only_edge),
        tried("AuthorizationPolicy", "no-admin", "true", no_admin),
        tried("PeerAuthentication", "strict", "true", "mtls: {mode: STRICT}"),
    ];
    mesh.configure("policies.yaml", &text.concat());
    eventually("all is tried", || {
        let found = counted(&mesh);
        let tried = |workload: &str| found[workload]["tried"].as_array().map_or(0, Vec::len);
        if (tried("web.shop"), tried("cache.shop")) == (3, 1) { Ok(()) } else { Err(format!("{found}")) }
    });
    let status = |from: &str, url: &str| mesh.curl(from, &[url]).status;
    let plain = format!("http://{}:8080/open", mesh.address("web"));
    for (from, url, expected) in [
        ("client.edge", "http://web.shop:8080/", 200),
        ("client.edge", "http://web.shop:8080/admin/17", 200),
        ("client.edge", "http://web.shop:8080/admin/18", 200),
        ("guest.lab", "http://web.shop:8080/", 403),
        ("guest.lab", "http://web.shop:8080/open", 200),
        ("outsider.out", &plain, 200),
    ] {
        assert_eq!(status(from, url), expected, "{from} {url}");
    }
    assert_eq!(RedisSession::open(&mesh, "client.edge", "cache.shop").ask("ping").as_deref(), Some("+PONG"));
    let found = counted(&mesh);
    assert_eq!((&found["web.shop"]["judged"], &found["web.shop"]["differing"]), (&6.into(), &4.into()));
    let denied = difference(&found, "web.shop", "/ns/edge/sa/client", "/admin/{*}");
    assert_eq!((&denied["count"], &denied["then"]["status"]), (&2.into(), &403.into()));
    assert_eq!(denied["then"]["by"], "ns[shop]-policy[no-admin]-rule[0]");
    let freed = difference(&found, "web.shop", "/ns/lab/sa/guest", "/");
    assert_eq!((&freed["now"]["status"], &freed["then"]["verdict"]), (&403.into(), &"allowed".into()));
    let shut = difference(&found, "web.shop", "none", "/open");
    assert_eq!((&shut["then"]["stage"], &shut["now"]["verdict"]), (&"mtls".into(), &"allowed".into()));
    assert_eq!(found["cache.shop"]["differing"], 0);
    let table = mesh.ask(&["policy", "diff", "--live"]);
    assert!(!table.is_success(), "there are differences: {table:?}");
    assert!(table.out.contains("GET /admin/{*} on port 8080"), "{table:?}");
    // What was tried comes into force, and does what was said of it.
    let text = [
        tried("AuthorizationPolicy", "only-edge", "true", only_edge),
        document("AuthorizationPolicy", "shop", "no-admin", no_admin),
        document("PeerAuthentication", "shop", "strict", "mtls: {mode: STRICT}"),
    ];
    mesh.configure("policies.yaml", &text.concat());
    eventually("what was tried is in force", || {
        let answer = mesh.curl("client.edge", &["http://web.shop:8080/admin/17"]);
        if answer.status == 403 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(status("guest.lab", "http://web.shop:8080/"), 200);
    assert_ne!(status("outsider.out", &plain), 200);
    let found = counted(&mesh);
    assert_eq!(found["web.shop"]["tried"].as_array().map_or(0, Vec::len), 1, "{found:#}");
    assert_eq!(difference(&found, "web.shop", "/ns/lab/sa/guest", "/")["then"]["status"], 403);
}
