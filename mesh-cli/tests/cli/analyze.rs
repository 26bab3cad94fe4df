//! `analyze` and `validate`, with files and without.

use insta::assert_snapshot;

use crate::admin::FakeMesh;
use crate::fixtures::{SHOP, healthy_proxies, shop};

const BROKEN: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: broken
  namespace: backend
spec:
  action: DENNY
  rules:
  - to:
    - operation:
        notPath: [/x]
";

/// A workload of the namespace, so that "none" is an answer.
const WORKLOAD: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: catalog-1, namespace: backend}
spec: {address: 10.0.0.1, labels: {app: catalog}}
---
";

/// Selects nothing, which is a warning.
const IDLE: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: idle, namespace: backend}
spec:
  selector: {matchLabels: {app: nobody}}
  action: DENY
  rules: [{}]
";

#[test]
fn errors_in_files_are_named_with_file_line_and_field() {
    let mesh = FakeMesh::new();
    mesh.write("policies/broken.yaml", BROKEN);
    mesh.write("policies/good.yaml", SHOP);
    assert_snapshot!("broken", mesh.run(&["analyze", "policies"]).all());
    assert_snapshot!("validate_broken", mesh.run(&["validate", "-f", "policies"]).all());
    assert_snapshot!("validate_good", mesh.run(&["validate", "-f", "policies/good.yaml"]).all());
}

#[test]
fn good_files_are_good() {
    let mesh = FakeMesh::new();
    mesh.write("good.yaml", SHOP);
    let printed = mesh.run(&["analyze", "good.yaml"]);
    assert_eq!(printed.status, 0, "{printed:?}");
}

#[test]
fn nothing_to_say_is_said() {
    let mesh = FakeMesh::new();
    mesh.write("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n");
    let printed = mesh.run(&["analyze", "ns.yaml"]);
    assert_eq!(printed.all(), "✔ No validation issues found when analyzing ns.yaml.\n");
}

#[test]
fn the_exit_status_follows_the_threshold() {
    let mesh = FakeMesh::new();
    mesh.write("idle.yaml", &format!("{WORKLOAD}{IDLE}"));
    let statuses = [("Error", 0), ("Warning", 79), ("warning", 79), ("Info", 79)].map(|(level, expected)| {
        let printed = mesh.run(&["analyze", "idle.yaml", "--fail-on", level]);
        assert!(printed.stdout.contains("IST0127"), "{printed:?}");
        (printed.status, expected)
    });
    assert!(statuses.iter().all(|(status, expected)| status == expected), "{statuses:?}");
    let suppressed = mesh.run(&["analyze", "idle.yaml", "-S", "IST0127=AuthorizationPolicy *.backend"]);
    assert!(!suppressed.stdout.contains("IST0127"), "{suppressed:?}");
    let hidden = mesh.run(&["analyze", "idle.yaml", "--output-threshold", "Error"]);
    assert!(!hidden.stdout.contains("IST0127"), "{hidden:?}");
}

#[test]
fn json_has_istioctls_fields() {
    let mesh = FakeMesh::new();
    mesh.write("broken.yaml", BROKEN);
    let printed = mesh.run(&["analyze", "broken.yaml", "-o", "json"]);
    let messages: Vec<serde_json::Value> = serde_json::from_str(&printed.stdout).expect("JSON alone");
    assert_eq!(messages[0]["code"], "IST0106");
    assert_eq!(messages[0]["level"], "Error");
    assert_eq!(messages[0]["origin"], "AuthorizationPolicy backend/broken");
    assert_eq!(messages[0]["reference"], "broken.yaml:7");
    assert_eq!(printed.status, 79);
}

#[test]
fn an_object_that_stands_twice_is_an_error() {
    let mesh = FakeMesh::new();
    mesh.write("a.yaml", IDLE);
    mesh.write("b.yaml", IDLE);
    assert_snapshot!("twice", mesh.run(&["validate", "-f", "a.yaml", "-f", "b.yaml"]).all());
}

#[test]
fn the_running_mesh_is_asked_when_no_file_is_named() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("live", mesh.run(&["analyze"]).all());
    assert_eq!(mesh.run(&["analyze", "live"]).all(), mesh.run(&["analyze"]).all());
    assert_snapshot!("live_namespace", mesh.run(&["analyze", "-n", "web"]).all());
}

#[test]
fn files_can_be_looked_at_as_part_of_the_running_mesh() {
    let mesh = shop(healthy_proxies());
    mesh.write("idle.yaml", IDLE);
    let alone = mesh.run(&["analyze", "idle.yaml"]);
    assert!(!alone.stdout.contains("IST0127"), "alone nothing is known of workloads: {alone:?}");
    assert!(alone.stderr.contains("there are no workloads"), "which is said: {alone:?}");
    let printed = mesh.run(&["analyze", "-k", "idle.yaml"]);
    assert!(printed.stdout.contains("IST0127"), "in the mesh it selects nothing: {printed:?}");
    mesh.write("idle.yaml", &IDLE.replace("nobody", "catalog"));
    let printed = mesh.run(&["analyze", "--use-mesh", "idle.yaml"]);
    assert!(!printed.stdout.contains("IST0127"), "{printed:?}");
}

#[test]
fn a_mesh_file_says_which_workloads_there_would_be() {
    let mesh = FakeMesh::new();
    mesh.write("shop/idle.yaml", &IDLE.replace("nobody", "catalog"));
    mesh.write(
        "shop/mesh.yaml",
        "name: shop\nworkloads:\n- {name: catalog, namespace: backend, command: x}\n",
    );
    let printed = mesh.run(&["analyze", "shop"]);
    assert!(printed.status == 0 && !printed.stdout.contains("IST0127"), "{printed:?}");
    mesh.write(
        "shop/mesh.yaml",
        "name: shop\nworkloads:\n- {name: catalog, nmaespace: backend, command: x}\n",
    );
    let printed = mesh.run(&["analyze", "shop/mesh.yaml"]);
    assert!(printed.stdout.starts_with("Error [IST0106] (shop/mesh.yaml:3)"), "{printed:?}");
    assert!(printed.stdout.contains("nmaespace") && printed.status == 79, "{printed:?}");
}

#[test]
fn what_cannot_be_read_is_a_failure() {
    let mesh = FakeMesh::new();
    assert_snapshot!("absent", mesh.run(&["analyze", "absent.yaml"]).all());
    std::fs::create_dir(mesh.path("empty")).expect("a folder");
    assert_snapshot!("empty", mesh.run(&["analyze", "empty"]).all());
}

/// The classic: a dash too many.
const SPLIT: &str = "\
# callers of the catalog
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: split
  namespace: backend
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/web/sa/frontend]}
  - to:
    - operation: {methods: [GET]}
";

#[test]
fn a_finding_names_the_line_of_its_field_and_what_to_write() {
    let mesh = FakeMesh::new();
    mesh.write("split.yaml", &format!("{WORKLOAD}{SPLIT}"));
    let printed = mesh.run(&["analyze", "split.yaml"]);
    assert_snapshot!("split", printed.all());
    let printed = mesh.run(&["analyze", "split.yaml", "-o", "json"]);
    let messages: Vec<serde_json::Value> = serde_json::from_str(&printed.stdout).expect("JSON alone");
    assert_eq!(messages[0]["reference"], "split.yaml:17");
    assert!(messages[0]["fix"].as_str().expect("text").starts_with("rules:\n- from:"), "{messages:?}");
}

#[test]
fn an_annotation_on_the_object_leaves_its_findings_out() {
    let mesh = FakeMesh::new();
    for annotation in
        ["mini-mesh.io/analyze-suppress: MM0405", "galley.istio.io/analyze-suppress: 'IST0101,MM*'"]
    {
        mesh.write(
            "split.yaml",
            &SPLIT.replace(
                "  namespace: backend\n",
                &format!("  namespace: backend\n  annotations: {{{annotation}}}\n"),
            ),
        );
        let printed = mesh.run(&["analyze", "split.yaml"]);
        assert!(!printed.stdout.contains("MM0405"), "{printed:?}");
    }
    mesh.write("split.yaml", SPLIT);
    assert!(mesh.run(&["analyze", "split.yaml"]).stdout.contains("MM0405"));
    let suppressed = mesh.run(&["analyze", "split.yaml", "-S", "MM04*=AuthorizationPolicy backend/*"]);
    assert!(!suppressed.stdout.contains("MM0405"), "{suppressed:?}");
}

#[test]
fn one_code_can_be_asked_for_and_all_can_be_listed() {
    let mesh = FakeMesh::new();
    mesh.write("split.yaml", SPLIT);
    assert!(mesh.run(&["analyze", "split.yaml", "--analyzer", "straydash"]).stdout.contains("MM0405"));
    assert!(!mesh.run(&["analyze", "split.yaml", "--analyzer", "IST0127"]).stdout.contains("MM0405"));
    assert_eq!(mesh.run(&["analyze", "split.yaml", "--analyzer", "nonsense"]).status, 64);
    let listed = mesh.run(&["analyze", "-L"]);
    assert!(
        listed.status == 0 && listed.stdout.contains("MM0405") && listed.stdout.contains("StrayDash"),
        "{listed:?}"
    );
    let listed = mesh.run(&["analyze", "-L", "-o", "json"]);
    let codes: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).expect("JSON alone");
    assert!(codes.iter().any(|code| code["code"] == "IST0127" && code["level"] == "Warning"));
}

#[test]
fn settings_of_istio_say_which_trust_domain_is_the_meshs() {
    let mesh = FakeMesh::new();
    mesh.write("split.yaml", &SPLIT.replace("cluster.local/ns", "prod.example/ns"));
    mesh.write("mesh-config.yaml", "trustDomain: prod.example\nenableTracing: true\n");
    mesh.write("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n    trustDomain: other.example\n");
    assert!(mesh.run(&["analyze", "split.yaml"]).stdout.contains("Info [MM0419]"));
    let known = mesh.run(&["analyze", "split.yaml", "--meshConfigFile", "mesh-config.yaml"]);
    assert!(!known.stdout.contains("MM0419"), "{known:?}");
    let other = mesh.run(&["analyze", "split.yaml", "--meshConfigFile", "map.yaml"]);
    assert!(other.stdout.contains("Warning [MM0419]") && other.stdout.contains("other.example"), "{other:?}");
    mesh.write("list.yaml", "- a\n");
    assert_eq!(mesh.run(&["analyze", "split.yaml", "--meshConfigFile", "list.yaml"]).status, 64);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_analyzed() {
    let mesh = FakeMesh::new();
    mesh.write("split.yaml", SPLIT);
    std::fs::write(mesh.path("binary.yaml"), b"\xff\xfe").expect("a file");
    mesh.write("torn.yaml", "apiVersion: v1\nkind: [\n");
    let printed = mesh.run(&["analyze", "absent.yaml", "binary.yaml", "torn.yaml", "split.yaml"]);
    assert_eq!(printed.status, 79, "{printed:?}");
    for part in ["MM0101] (absent.yaml)", "MM0101] (binary.yaml)", "IST0106] (torn.yaml:", "MM0405"] {
        assert!(printed.stdout.contains(part), "{part} in {printed:?}");
    }
}

#[test]
fn documents_that_are_none_can_be_passed_over() {
    let mesh = FakeMesh::new();
    mesh.write("values.yaml", "replicas: 3\nimage: {tag: x}\n");
    assert_eq!(mesh.run(&["analyze", "values.yaml"]).status, 79);
    let printed = mesh.run(&["analyze", "values.yaml", "--ignore-unknown"]);
    assert_eq!((printed.status, printed.stdout.contains('✔')), (0, true), "{printed:?}");
}

#[test]
fn pods_and_deployments_are_workloads_too() {
    let mesh = FakeMesh::new();
    mesh.write(
        "app.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: catalog, namespace: backend}\nspec:\n  template:\n    metadata: {labels: {app: catalog}}\n    spec: {containers: [{name: a}]}\n",
    );
    mesh.write("idle.yaml", IDLE);
    let printed = mesh.run(&["analyze", "."]);
    assert!(printed.stdout.contains("IST0127") && !printed.stdout.contains("MM0602"), "{printed:?}");
    mesh.write("idle.yaml", &IDLE.replace("nobody", "catalog"));
    assert!(!mesh.run(&["analyze", "."]).stdout.contains("IST0127"));
    assert!(mesh.run(&["analyze", ".", "--verbose"]).stdout.contains("MM0602"));
}
