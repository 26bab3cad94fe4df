//! `why` and `policy suggest`: the account of a request, and policies from what was recorded.

use std::sync::Arc;

use insta::assert_snapshot;

use crate::admin::FakeMesh;
use crate::fixtures::{FRONTEND, SHOP};

const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: backend}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {methods: [GET], paths: ['/api/*']}}]
  - to: [{operation: {paths: [/unused]}}]
";

fn mesh() -> FakeMesh {
    let mesh = FakeMesh::new();
    mesh.write("policies/shop.yaml", SHOP);
    mesh.write("policies/readers.yaml", POLICIES);
    mesh
}

#[test]
fn a_request_is_accounted_for_with_the_smallest_edit() {
    let mesh = mesh();
    let ask = |more: &[&str]| {
        let asked = ["why", "--to", "catalog-0.backend:8080", "-f", "policies"];
        mesh.run(&[&asked[..], more].concat())
    };
    let refused = ask(&["--from", "frontend.web", "-X", "POST", "--path", "/api/x"]);
    assert_eq!(refused.status, 1, "{refused:?}");
    assert_snapshot!("refused", refused.all());
    let allowed = ask(&["--from", "frontend.web", "--path", "/api/x"]);
    assert_eq!(allowed.status, 0, "{allowed:?}");
    assert_snapshot!("allowed", allowed.all());
    assert_snapshot!("no_identity", ask(&["--tcp"]).all());
    let json = ask(&["--from", "frontend.web", "-X", "POST", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["decision"], "deny");
    assert!(json["edits"][0]["edit"].is_string(), "{json}");
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let mesh = mesh();
    for args in [
        &["why"][..],
        &["why", "--to", "catalog-0.backend", "-f", "policies"],
        &["why", "--to", "nobody.backend:80", "-f", "policies"],
        &["why", "--to", "catalog-0.backend:80", "-f", "policies", "--from", "frontend"],
        &["why", "not-an-id"],
    ] {
        let printed = mesh.run(args);
        let expected = if args.contains(&"nobody.backend:80") { 2 } else { 64 };
        assert_eq!(printed.status, expected, "{args:?}: {printed:?}");
        assert!(printed.stdout.is_empty() && !printed.stderr.is_empty(), "{args:?}: {printed:?}");
    }
    let stated = ["why", "--to", "nobody.backend:80", "-f", "policies", "--labels", "app=catalog"];
    assert_eq!(mesh.run(&stated).status, 1);
}

#[test]
fn a_refusal_is_found_by_its_id_with_its_account() {
    let mesh = mesh();
    let denial = serde_json::json!({
        "id": "00000000000000ab", "time": "2026-11-25T03:10:00Z", "peer": FRONTEND, "source": "10.77.0.2:4000",
        "port": 8080, "method": "POST", "authority": "catalog.backend", "path": "/api/x", "policy": "none",
        "reason": "ALLOW policies apply and no rule of them matched", "count": 2,
    });
    mesh.proxy(
        "catalog-0.backend",
        Arc::new(move |_, path| match path {
            "/decision?id=00000000000000ab" => (200, denial.to_string()),
            _ => (404, r#"{"message":"no refusal with this id is remembered","hint":""}"#.to_owned()),
        }),
    );
    assert_snapshot!("recorded", mesh.run(&["why", "00000000000000ab"]).all());
    let unknown = mesh.run(&["why", "00000000000000ac"]);
    assert_eq!(unknown.status, 2, "no answer is not the answer no");
    let nowhere = mesh.run(&["--state-dir", "elsewhere", "why", "--to", "catalog-0.backend:8080"]);
    assert_eq!(nowhere.status, 2, "{nowhere:?}");
    let nobody = mesh.run(&["why", "--to", "nobody.backend:8080"]);
    assert_eq!(nobody.status, 2, "{nobody:?}");
    assert!(
        unknown.stderr.contains("no proxy of the mesh remembers the refusal 00000000000000ac"),
        "{unknown:?}"
    );
}

fn line(method: &str, path: &str) -> String {
    format!(
        r#"{{"direction":"inbound","method":"{method}","path":"{path}","authority":"catalog","downstream_remote_address":"10.77.0.2:4000","downstream_local_address":"10.77.0.3:8080","connection_security_policy":"mutual_tls","source_principal":"{FRONTEND}","destination_principal":"spiffe://cluster.local/ns/backend/sa/catalog","destination_workload":"catalog-0","decision":"allow"}}"#
    )
}

#[test]
fn policies_are_suggested_that_allow_what_was_seen_and_pass_admission() {
    let mesh = mesh();
    let log = [line("GET", "/api/products/17?x=1"), line("GET", "/api/products/18"), "half a li".to_owned()];
    mesh.write("access.log", &log.join("\n"));
    let printed = mesh.run(&["policy", "suggest", "policies", "--traffic", "access.log"]);
    assert_snapshot!("suggested", printed.all());
    mesh.write("suggested.yaml", &printed.stdout);
    let valid = mesh.run(&["validate", "suggested.yaml"]);
    assert_eq!(valid.status, 0, "{valid:?}");
    let none = mesh.run_with(&["policy", "suggest", "policies", "--traffic", "-"], "", &[]);
    assert_eq!(none.status, 1);
    assert!(none.stderr.contains("no request was recorded"), "{none:?}");
}
